"""Files that people have load, files that could do harm do not, and what does not fit is told clearly."""

from __future__ import annotations

import argparse
import copyreg
import datetime
import decimal
import fractions
import io
import json
import os
import pathlib
import pickle
import sys
import types
import uuid
import zipfile
from collections import Counter, OrderedDict, defaultdict, deque

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from distillctl.errors import DataError
from distillctl.testing.tiny_models import TinyCNN
from distillctl.weights.state_dict import load_into, read_state_dict, torchvision_names


def net(classes=5, width=4):
    torch.manual_seed(3)
    return TinyCNN(classes, width)


WEIGHTS = net().state_dict()


def prefixed(prefix, weights=WEIGHTS):
    return OrderedDict((prefix + name, value) for name, value in weights.items())


def without_counters(weights=WEIGHTS):
    return OrderedDict((name, value) for name, value in weights.items() if not name.endswith("num_batches_tracked"))


def optimizer():
    """What `SGD.state_dict` gives after a step, written out: a real step makes torch import its compiler, which takes seconds."""
    buffers = {number: {"momentum_buffer": torch.ones_like(value)} for number, value in enumerate(net().parameters())}
    return {"state": buffers, "param_groups": [{"lr": 0.1, "momentum": 0.9, "params": list(buffers)}]}


def distiller():
    """A whole distiller under DataParallel: student, teacher and connectors."""
    return {
        **prefixed("module.teacher.", net(5, 6).state_dict()),
        **prefixed("module.student."),
        "module.connectors.0.weight": torch.ones(3),
    }


NAMESPACE = argparse.Namespace(lr=0.05, model_s="resnet8x4", save=pathlib.PurePosixPath("save/x"), values=np.arange(3))

LAYOUTS = {
    "bare": lambda: WEIGHTS,
    "plain_dict": lambda: dict(WEIGHTS),
    "parameters": lambda: {**WEIGHTS, **{name: nn.Parameter(value) for name, value in WEIGHTS.items() if value.is_floating_point()}},
    "model": lambda: {"model": WEIGHTS},
    "state_dict": lambda: {"state_dict": WEIGHTS, "arch": "resnet20", "best_prec1": 91.2, "epoch": 4},
    "model_state_dict": lambda: {"model_state_dict": WEIGHTS, "optimizer_state_dict": optimizer()},
    "net": lambda: {"net": WEIGHTS, "acc": 93.1, "epoch": 12},
    "network": lambda: {"network": WEIGHTS},
    "weights": lambda: {"weights": WEIGHTS},
    "student": lambda: {"student": WEIGHTS, "teacher": net(5, 6).state_dict()},
    "own_best": lambda: {"format": 1, "student": WEIGHTS, "epoch": 7, "digest": "ab"},
    "own_last": lambda: {
        "format": 1,
        "student": WEIGHTS,
        "ema": None,
        "optimizer": optimizer(),
        "methods": {"crd": {"bank": torch.ones(2)}},
    },
    "own_with_average": lambda: {"format": 1, "student": net(5, 6).state_dict(), "ema": {"model": WEIGHTS, "updates": 3}},
    "unknown_key": lambda: {"generator": WEIGHTS, "accuracy": torch.tensor(0.7), "optimizer": optimizer()},
    "nested": lambda: {"state_dict": {"model": WEIGHTS}, "epoch": 1},
    "config_under_model": lambda: {"model": {"name": "resnet8"}, "state_dict": WEIGHTS},
    "data_parallel": lambda: prefixed("module."),
    "data_parallel_in_state_dict": lambda: {"state_dict": prefixed("module.")},
    "compiled": lambda: prefixed("_orig_mod."),
    "compiled_data_parallel": lambda: {"model": prefixed("module._orig_mod.")},
    "student_prefix": lambda: prefixed("student."),
    "student_inside": lambda: {"model": prefixed("module.student._orig_mod.")},
    "distiller": lambda: {"epoch": 240, "model": distiller(), "optimizer": optimizer(), "best_acc": torch.tensor([75.1])},
    "old_without_counters": lambda: {"epoch": 240, "model": without_counters(), "accuracy": torch.tensor(79.4)},
    "namespace": lambda: {"opt": NAMESPACE, "model": WEIGHTS, "optimizer": optimizer()},
    "numpy_scalars": lambda: {"model": WEIGHTS, "accuracy": np.float64(79.42), "epoch": np.int64(240), "curve": np.ones(4)},
    "paths": lambda: {"model": WEIGHTS, "source": pathlib.Path("runs/x")},
    "profiled": lambda: {
        **WEIGHTS,
        "total_ops": torch.zeros(1, dtype=torch.float64),
        "stem.total_params": torch.zeros(1, dtype=torch.float64),
    },
    "mdistiller_latest": lambda: {
        "epoch": 3,
        "model": distiller(),
        "optimizer": optimizer(),
        "best_acc": np.float64(70.2),
        "dataset": "cifar",
    },
    "repdistiller_last": lambda: {
        "opt": NAMESPACE,
        "model": without_counters(),
        "model_t": net(5, 6).state_dict(),
        "best_acc": torch.ones(1),
    },
    "simkd": lambda: {"model": WEIGHTS, "proj": {"0.weight": torch.ones(2)}, "best_acc": torch.ones(1), "epoch": 3},
    "timm": lambda: {
        "epoch": 299,
        "arch": "resnet18",
        "state_dict": net(5, 6).state_dict(),
        "state_dict_ema": WEIGHTS,
        "optimizer": optimizer(),
        "args": NAMESPACE,
        "amp_scaler": {"scale": 65536.0, "growth_tracker": 3},
        "metric": 77.1,
        "version": 2,
    },
    "torchvision_references": lambda: {
        "model": prefixed("module.", net(5, 6).state_dict()),
        "model_ema": {"n_averaged": torch.tensor(7), **prefixed("module.")},
        "optimizer": optimizer(),
        "lr_scheduler": {"last_epoch": 9, "_last_lr": [0.1], "milestones": Counter([3, 6])},
        "args": NAMESPACE,
    },
    "averaged_model": lambda: {"n_averaged": torch.tensor(7), **prefixed("module.")},
    "averaged_and_compiled": lambda: {"swa": {"n_averaged": torch.tensor(7), **prefixed("module._orig_mod.")}, "epoch": 3},
    "lightning": lambda: {
        "epoch": 9,
        "global_step": 700,
        "pytorch-lightning_version": "2.4.0",
        "state_dict": WEIGHTS,
        "loops": {"fit_loop": {"state_dict": {}, "epoch_progress": {"total": {"ready": 10}}}},
        "callbacks": {"ModelCheckpoint{'monitor': 'val_acc'}": {"best_model_score": torch.tensor(0.9), "best_model_path": "x.ckpt"}},
        "optimizer_states": [optimizer()],
        "lr_schedulers": [{"last_epoch": 9}],
        "hparams_name": "kwargs",
        "hyper_parameters": {"lr": 0.1, "out": pathlib.Path("runs")},
    },
    "openmmlab": lambda: {
        "meta": {"epoch": 100, "classes": ("cat", "dog")},
        "state_dict": WEIGHTS,
        "optimizer": optimizer(),
    },
    "deepspeed": lambda: {"module": WEIGHTS, "buffer_names": [], "optimizer": None, "global_steps": 7, "ds_config": {"bf16": {}}},
    "fastai": lambda: {"model": WEIGHTS, "opt": {"state": [], "hypers": [{"lr": 0.1}]}},
    "catalyst": lambda: {"model_state_dict": WEIGHTS, "criterion_state_dict": {"weight": torch.ones(5)}, "epoch_metrics": {"acc": 0.7}},
    "accelerated_group": lambda: {"backbone_weights": WEIGHTS, "step": torch.tensor(3), "loss_history": [torch.tensor(0.1)]},
    "many_kinds_beside": lambda: {
        "state_dict": WEIGHTS,
        "started": datetime.datetime(2020, 1, 2),
        "took": datetime.timedelta(hours=3),
        "config": types.SimpleNamespace(depth=18, width=[1, 2]),
        "device": torch.device("cpu"),
        "dtype": torch.float16,
        "shape": torch.Size([3, 32, 32]),
        "torch": torch.__version__,
        "seen": {1, 2},
        "raw": b"bytes",
        "rng": torch.get_rng_state(),
        "numpy_rng": np.random.RandomState(0).get_state(),
        "complex": 1 + 2j,
        "large": 10**40,
        "cudnn": True,
        "nothing": None,
    },
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_reads_layout(layout, tmp_path):
    path = tmp_path / "ckpt_epoch_240.pth"
    torch.save(LAYOUTS[layout](), path)
    state = read_state_dict(path)
    assert set(state) == set(WEIGHTS)
    for name, value in WEIGHTS.items():
        assert torch.equal(state[name], value), name
        assert not state[name].requires_grad
    fresh = TinyCNN(5, 4)
    assert load_into(fresh, state, what="student `tiny`") == []
    assert all(torch.equal(a, b) for a, b in zip(fresh.state_dict().values(), WEIGHTS.values(), strict=True))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_reads_layout_without_an_ending_in_the_form_before_pytorch_1_6(layout, tmp_path):
    torch.save(LAYOUTS[layout](), tmp_path / "student_best", _use_new_zipfile_serialization=False)
    state = read_state_dict(tmp_path / "student_best")
    assert state.keys() == WEIGHTS.keys()
    assert all(torch.equal(value, WEIGHTS[name]) for name, value in state.items())


ATTRIBUTE_MAPPINGS = ["lightning_fabric.utilities.data.AttributeDict", "pytorch_lightning.utilities.parsing.AttributeDict"]
ATTRIBUTE_MAPPINGS += ["easydict.EasyDict", "yacs.config.CfgNode"]


@pytest.mark.parametrize("name", ATTRIBUTE_MAPPINGS)
def test_reads_hyper_parameters_in_mappings_of_other_packages(name, tmp_path, monkeypatch):
    module, _, kind = name.rpartition(".")
    stands_for = type(kind, (dict,), {"__module__": module})
    packages = [".".join(module.split(".")[: depth + 1]) for depth in range(module.count(".") + 1)]
    for package in packages:
        monkeypatch.setitem(sys.modules, package, types.ModuleType(package))
    setattr(sys.modules[module], kind, stands_for)
    value = stands_for(lr=0.1, inner=stands_for(x=1))
    value.frozen = True
    torch.save({"hyper_parameters": value, "state_dict": WEIGHTS}, tmp_path / "x.ckpt")
    for package in packages:
        monkeypatch.delitem(sys.modules, package)
    assert read_state_dict(tmp_path / "x.ckpt").keys() == WEIGHTS.keys()


def test_names_the_prefix_of_a_lightning_module(tmp_path):
    torch.save({"state_dict": prefixed("model."), "hyper_parameters": {}}, tmp_path / "x.ckpt")
    model = TinyCNN(5, 4)
    notes = load_into(model, read_state_dict(tmp_path / "x.ckpt"), what="student `tiny`")
    assert notes == ["the prefix `model.` was taken off the names of the file"]


def test_reads_files_without_checksums(tmp_path):
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(WEIGHTS, tmp_path / "x.pth")
    finally:
        torch.serialization.set_crc32_options(True)
    assert torch.equal(read_state_dict(tmp_path / "x.pth")["fc.weight"], WEIGHTS["fc.weight"])


def test_reads_files_that_were_packed_again(tmp_path):
    torch.save({"model": WEIGHTS}, tmp_path / "x.pth")
    with zipfile.ZipFile(tmp_path / "x.pth") as old, zipfile.ZipFile(tmp_path / "y.pth", "w", zipfile.ZIP_DEFLATED) as new:
        for entry in old.infolist():
            new.writestr(entry.filename, old.read(entry))
    assert torch.equal(read_state_dict(tmp_path / "y.pth")["fc.weight"], WEIGHTS["fc.weight"])


@pytest.mark.parametrize("zipped", [True, False])
def test_names_a_protocol_that_is_not_read(zipped, tmp_path):
    torch.save(WEIGHTS, tmp_path / "x.pth", pickle_protocol=4, _use_new_zipfile_serialization=zipped)
    with pytest.raises(DataError, match="protocol 4 or later"):
        read_state_dict(tmp_path / "x.pth")


@pytest.mark.parametrize("name", ["student.safetensors", "weights.bin"])
def test_reads_safetensors_by_content(name, tmp_path):
    safetensors.torch.save_file(dict(WEIGHTS), tmp_path / name)
    assert set(read_state_dict(tmp_path / name)) == set(WEIGHTS)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_halves_become_float32(kind, tmp_path):
    torch.save({name: value.to(kind) if value.is_floating_point() else value for name, value in WEIGHTS.items()}, tmp_path / "half.pt")
    state = read_state_dict(tmp_path / "half.pt")
    assert state["fc.weight"].dtype == torch.float32
    assert state["stem.1.num_batches_tracked"].dtype == torch.int64
    assert torch.equal(state["fc.weight"], WEIGHTS["fc.weight"].to(kind).float())


# What could do harm.


class Calls:
    """Pickles as a call of a function."""

    def __init__(self, function, *arguments):
        self.parts = function, arguments

    def __reduce__(self):
        return self.parts


def zipped(value):
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def harmful(trace):
    touch = f"open({str(trace)!r}, 'w').close()"
    return {
        "system": Calls(os.system, f"touch {trace}"),
        "eval": Calls(eval, touch),
        "exec": Calls(exec, touch),
        "open": Calls(open, str(trace), "w"),
        "unpickle": Calls(pickle.loads, pickle.dumps(Calls(os.mkdir, str(trace)))),
        "getattr": Calls(getattr, "text", "upper"),
        "make_path": Calls(pathlib.Path.touch, pathlib.PurePosixPath(str(trace))),
        "reconstructor": Calls(copyreg._reconstructor, Calls, object, None),
    }


@pytest.mark.parametrize("place", ["alone", "beside the weights", "in a namespace", "plain pickle"])
@pytest.mark.parametrize("kind", harmful(""))
def test_refuses_calls_without_making_them(kind, place, tmp_path):
    trace, path = tmp_path / "trace", tmp_path / "weights.pth"
    bad = harmful(trace)[kind]
    content = {
        "alone": lambda: zipped(bad),
        "beside the weights": lambda: zipped({"model": WEIGHTS, "opt": bad}),
        "in a namespace": lambda: zipped({"model": WEIGHTS, "opt": argparse.Namespace(x=bad)}),
        "plain pickle": lambda: pickle.dumps(bad, 2),
    }[place]()
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_state_dict(path)
    assert not trace.exists()
    assert str(path) in str(caught.value)


def test_names_the_refused_object_and_says_what_to_do(tmp_path):
    torch.save({"model": net()}, tmp_path / "best.pt")  # a whole module
    with pytest.raises(DataError, match=r"`distillctl.testing.tiny_models.TinyCNN`") as caught:
        read_state_dict(tmp_path / "best.pt")
    assert "torch.save(model.state_dict()" in caught.value.problems[0].hint


def test_nothing_stays_allowed_afterwards(tmp_path):
    torch.save(LAYOUTS["namespace"](), tmp_path / "x.pth")
    read_state_dict(tmp_path / "x.pth")
    names = [str(one) for one in torch.serialization.get_safe_globals()]  # torch itself may have put some there
    assert not any("argparse" in name or "numpy" in name or "Placeholder" in name for name in names)


# What is not a file of weights.


def broken_files():
    whole = zipped(dict(WEIGHTS))
    packed = safetensors.torch.save(dict(WEIGHTS))
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("readme.txt", "nothing")
    return {
        "empty.pth": (b"", "is empty"),
        "half.pth": (whole[: len(whole) // 2], "damaged"),
        "head.pth": (whole[:100], "damaged"),
        "half.safetensors": (packed[: len(packed) // 2], "safetensors"),
        "empty.safetensors": (b"", "is empty"),
        "text.pth": (b"these are no weights\n", "damaged"),
        "text.safetensors": (b"these are no weights\n", "safetensors"),
        "page.pth": (b"<!DOCTYPE html><html></html>", "web page"),
        "lfs.pth": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "Git LFS"),
        "other.zip": (archive.getvalue(), "an archive of other files"),
        "noise.pth": (bytes(range(256)) * 8, "damaged"),
        "number.pth": (zipped(3), "of type int"),
        "list.pth": (zipped([torch.ones(2)]), "of type list"),
        "no_tensors.pth": (zipped({"epoch": 3, "lr": 0.1}), "`epoch`, `lr`"),
        "nothing.pth": (zipped({}), "(none)"),
    }


@pytest.mark.parametrize("name", broken_files())
def test_refuses(name, tmp_path):
    content, words = broken_files()[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_state_dict(tmp_path / name)
    message = caught.value.problems[0].message
    assert words in message
    assert name in message
    assert not message.endswith(".")


def test_refuses_a_script(tmp_path):
    # Torch recognises its own programs by this member; making a real one would warn that they are going away.
    with zipfile.ZipFile(tmp_path / "script.pt", "w") as file:
        file.writestr("script/data.pkl", pickle.dumps({}, 2))
        file.writestr("script/constants.pkl", pickle.dumps((), 2))
        file.writestr("script/version", "3\n")
    with pytest.raises(DataError, match="TorchScript"):
        read_state_dict(tmp_path / "script.pt")


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(DataError, match=r"there is no file `.*nowhere\.pth`"):
        read_state_dict(tmp_path / "nowhere.pth")
    with pytest.raises(DataError, match="is a folder"):
        read_state_dict(tmp_path)
    (tmp_path / "student.safetensors").touch()
    with pytest.raises(DataError, match="is a folder") as caught:
        read_state_dict(tmp_path)
    assert "`run`" in caught.value.problems[0].hint


def test_a_file_of_counters_alone_holds_no_weights(tmp_path):
    torch.save({"total_ops": torch.zeros(1)}, tmp_path / "counters.pth")
    assert read_state_dict(tmp_path / "counters.pth") == {}
    with pytest.raises(DataError, match="tensors are missing"):
        load_into(net(), {}, what="the student")


# Putting weights into a model.


def values(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(model, before):
    return all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def refused(model, state, **keywords):
    """The problem, after making sure that nothing was written."""
    before = values(model)
    with pytest.raises(DataError) as caught:
        load_into(model, state, what="student `tiny`", **keywords)
    assert same(model, before)
    return caught.value.problems[0]


def test_another_architecture():
    other = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 5))
    problem = refused(net(), other.state_dict(), classifier="fc", allow_new_classifier=True)
    # 26 tensors, of which 4 counters are filled in and 2 are the classifier's; 9 in the file, of which 1 is a counter.
    assert "do not fit student `tiny`: 20 of its 26 tensors are missing (first `stem.0.weight`)" in problem.message
    assert "8 of the file's are unknown to it (first `0.weight`)" in problem.message
    assert problem.hint == "are they of another architecture? 2 of 22 tensors fit"


def test_counts_what_does_not_fit():
    state = dict(WEIGHTS)
    del state["stem.0.weight"], state["stem.1.bias"]
    state["extra.weight"] = torch.ones(1)
    state["stage1.0.weight"] = torch.ones(2, 2)
    message = refused(net(), state).message
    assert f"2 of its {len(WEIGHTS)} tensors are missing (first `stem.0.weight`)" in message
    assert "1 of the file's are unknown to it (first `extra.weight`)" in message
    assert "1 has another shape (first `stage1.0.weight`: (2, 2) in the file, (4, 4, 3, 3) in the model)" in message


def test_other_classes_are_an_error_unless_allowed():
    state = net(9).state_dict()
    assert "made for 9 classes, the model has 5" in refused(net(), state, classifier="fc").hint
    model = net()
    own = values(model)
    with torch.no_grad():
        state = {name: value + 1 for name, value in state.items()}
    notes = load_into(model, state, what="student `tiny`", classifier="fc", allow_new_classifier=True)
    assert notes == ["the file's classifier `fc` for 9 classes was left out: it starts untrained"]
    for name, value in model.state_dict().items():
        assert torch.equal(value, own[name] if name.startswith("fc.") else state[name]), name


def test_missing_classifier():
    state = {name: value for name, value in WEIGHTS.items() if not name.startswith("fc.")}
    assert "2 of its" in refused(net(), state, classifier="fc").message
    notes = load_into(net(), state, what="student `tiny`", classifier="fc", allow_new_classifier=True)
    assert notes == ["the file has no classifier `fc`: it starts untrained"]


def test_classifier_of_another_form():
    state = {name.replace("fc.", "fc.1."): value for name, value in WEIGHTS.items()}
    for allowed in (True, False):
        model = TinyCNN(5, 4)
        notes = load_into(model, state, what="student `tiny`", classifier="fc", allow_new_classifier=allowed)
        assert notes == ["the file's `fc.1` is the classifier `fc`"]
        assert torch.equal(model.fc.weight, WEIGHTS["fc.weight"])


def test_tensors_beside_the_model_are_left_out_with_a_word():
    model = TinyCNN(5, 4)
    state = {**prefixed("model."), "criterion.weight": torch.ones(5), "metric.count": torch.ones(())}
    notes = load_into(model, state, what="student `tiny`", classifier="fc")
    assert notes == [
        "the prefix `model.` was taken off the names of the file",
        "2 tensors of the file that the model does not have were left out (first `criterion.weight`)",
    ]
    assert torch.equal(model.fc.weight, WEIGHTS["fc.weight"])


def test_two_sets_that_fit_are_not_guessed():
    state = {**prefixed("a."), **prefixed("b.", net().double().state_dict())}
    state["b.fc.bias"] = state["b.fc.bias"] + 1
    problem = refused(net(), state, classifier="fc")
    assert "two sets of weights in the file fit student `tiny`: those whose names begin with `a.` and those with `b.`" in problem.message
    assert "`key`" in problem.hint


def test_fitting_classifier_is_kept():
    model = TinyCNN(5, 4)
    assert load_into(model, WEIGHTS, what="student `tiny`", classifier="fc", allow_new_classifier=True) == []
    assert torch.equal(model.fc.weight, WEIGHTS["fc.weight"])


def test_undeclared_classifier_is_the_module_that_differs_in_classes():
    model = net()
    notes = load_into(model, net(9).state_dict(), what="student `tiny`", allow_new_classifier=True)
    assert notes == ["the file's classifier `fc` for 9 classes was left out: it starts untrained"]
    assert "another shape" in refused(net(), net(9, 8).state_dict(), allow_new_classifier=True).message


def test_new_classifier_excuses_nothing_else():
    state = {**WEIGHTS, "stem.0.weight": torch.ones(1)}
    assert "1 has another shape (first `stem.0.weight`" in refused(net(), state, classifier="fc", allow_new_classifier=True).message


def test_only_a_replaceable_module_may_have_another_shape():
    state = {**WEIGHTS, "stem.0.weight": torch.ones(4, 3, 1, 1)}
    model = net()
    own = values(model)
    notes = load_into(model, state, what="student `tiny`", classifier="fc", allow_new_classifier=True, replaceable=("stem.0",))
    assert len(notes) == 1
    assert notes[0].startswith("the file's `stem.0.weight` of shape (4, 3, 1, 1) was left out for the own of ")
    assert torch.equal(model.state_dict()["stem.0.weight"], own["stem.0.weight"])
    assert torch.equal(model.fc.weight, WEIGHTS["fc.weight"])
    for modules in ((), ("stem",), ("stem.1",)):
        problem = refused(net(), state, classifier="fc", allow_new_classifier=True, replaceable=modules)
        assert "1 has another shape (first `stem.0.weight`" in problem.message
    model = net()
    assert load_into(model, WEIGHTS, what="student `tiny`", classifier="fc", replaceable=("stem.0",)) == []
    assert torch.equal(model.state_dict()["stem.0.weight"], WEIGHTS["stem.0.weight"]), "what fits is loaded"


def test_prefix_that_makes_all_names_match_is_taken_off():
    model = TinyCNN(5, 4)
    notes = load_into(model, prefixed("backbone."), what="student `tiny`")
    assert notes == ["the prefix `backbone.` was taken off the names of the file"]
    assert torch.equal(model.fc.weight, WEIGHTS["fc.weight"])


def test_prefix_that_makes_most_names_match_is_told():
    state = {**prefixed("encoder.net."), "projector.weight": torch.ones(1)}
    del state["encoder.net.fc.bias"]
    count = len(without_counters()) - 1
    assert (
        refused(net(), state).hint == f"{count} of {count + 1} names would match with the prefix `encoder.net.` taken off the file's names"
    )

    class Outer(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = net()
            self.head = nn.Linear(5, 5)

    assert "prefix `inner.` put before the file's names" in refused(Outer(), WEIGHTS).hint


def test_numbers_that_are_not_finite():
    state = {**WEIGHTS, "fc.bias": torch.tensor([0.0, 1, float("nan"), 2, 3])}
    assert "first `fc.bias`" in refused(net(), state).message


KINDS = {
    "sparse": lambda value: value.to_sparse(),
    "quantised": lambda value: torch.quantize_per_tensor(value, 0.1, 0, torch.qint8),
    "integers": lambda value: (value * 10).to(torch.int8),
    "complex": lambda value: value.to(torch.complex64),
    "without content": lambda value: value.to("meta"),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")  # torch's own, on quantised tensors
@pytest.mark.parametrize("kind", KINDS)
def test_weights_of_a_kind_that_cannot_be_taken(kind, tmp_path):
    name = next(n for n, v in WEIGHTS.items() if v.ndim == 4)
    torch.save({**WEIGHTS, name: KINDS[kind](WEIGHTS[name])}, tmp_path / "file.pt")
    model = net()
    with pytest.raises(DataError, match="are not all plain numbers" if kind != "quantised" else r"is quantised \(torch"):
        load_into(model, read_state_dict(tmp_path / "file.pt"), what="student `tiny`")
    assert all(torch.equal(value, WEIGHTS[key]) for key, value in model.state_dict().items())


def test_counters_that_the_model_lacks_or_the_file_lacks():
    frozen = nn.Sequential(nn.BatchNorm2d(3, track_running_stats=True))
    state = {name: value for name, value in frozen.state_dict().items() if "batches" not in name}
    assert load_into(frozen, state, what="student `bn`") == []
    plain = nn.Sequential(nn.Linear(2, 2))
    assert load_into(plain, {**plain.state_dict(), "0.num_batches_tracked": torch.tensor(0)}, what="student `linear`") == []


def test_names_of_older_torchvision():
    old = {
        "features.denseblock1.denselayer2.norm.1.weight": 1,
        "features.denseblock4.denselayer16.conv.2.weight": 2,
        "encoder.layers.encoder_layer_0.mlp.linear_1.bias": 3,
        "encoder.layers.encoder_layer_0.mlp.linear_2.bias": 4,
        "aux1.conv.weight": 5,
        "AuxLogits.fc.bias": 6,
        "features.norm0.weight": 7,
    }
    assert torchvision_names({name: torch.tensor(value) for name, value in old.items()}) == {
        "features.denseblock1.denselayer2.norm1.weight": torch.tensor(1),
        "features.denseblock4.denselayer16.conv2.weight": torch.tensor(2),
        "encoder.layers.encoder_layer_0.mlp.0.bias": torch.tensor(3),
        "encoder.layers.encoder_layer_0.mlp.3.bias": torch.tensor(4),
        "features.norm0.weight": torch.tensor(7),
    }


def test_an_index_of_several_files_is_told_with_its_parts(tmp_path):
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": {f"w{i}": f"model-{i % 5}.safetensors" for i in range(9)}}, indent=2))
    with pytest.raises(DataError, match=r"is an index of weights in several files.*: `model-0.safetensors`, `model-1.*`, …\n"):
        read_state_dict(index)
    index.write_text(json.dumps({"weight_map": {"a": "\x1b[2J.safetensors"}}))
    with pytest.raises(DataError, match="several files") as caught:
        read_state_dict(index)
    assert caught.value.problems[0].message.isprintable()
    for other in ("{}", "[1]", "{", '{"weight_map": 3}', '{"a": ' + "[" * 100_000):
        index.write_text(other)
        with pytest.raises(DataError, match="damaged or not a file of weights"):
            read_state_dict(index)


BESIDE = {
    "defaultdict": defaultdict(list, {"a": [1]}),
    "deque": deque([1.0, 2.0], maxlen=5),
    "frozenset": frozenset({1, 2}),
    "timezone": datetime.datetime(2024, 1, 1, tzinfo=datetime.timezone(datetime.timedelta(hours=2))),
    "a path of Windows": pathlib.PureWindowsPath("a"),
    "RandomState": np.random.RandomState(0),
    "Generator": np.random.default_rng(0),
    "Decimal": decimal.Decimal("1.5"),
    "Fraction": fractions.Fraction(1, 3),
    "UUID": uuid.UUID(int=5),
    "types": {"int": int, "str": str},
    "all in one namespace": argparse.Namespace(a=deque([defaultdict(int)]), b=slice(1)),
}


@pytest.mark.parametrize("value", BESIDE.values(), ids=BESIDE)
@pytest.mark.parametrize("zipped", [False, True])
def test_what_programs_keep_beside_the_weights_is_passed_over(tmp_path, value, zipped):
    path = tmp_path / "x.pth"
    torch.save({"hyper_parameters": value, "state_dict": WEIGHTS, "after": [value]}, path, _use_new_zipfile_serialization=zipped)
    assert set(read_state_dict(path)) == set(WEIGHTS)


def _history(made):
    made._log_history, made._statistics = np.arange(3.0), {"mean": made.mean}
    return made


def _configuration(made):
    made.__dict__.update(_metadata={"ref_type": dict, "key": None}, _content={"lr": 0.1})
    return made


FOREIGN_CLASSES = {
    "mmengine.logging.history_buffer.HistoryBuffer": _history,
    "omegaconf.dictconfig.DictConfig": _configuration,
    "omegaconf.listconfig.ListConfig": _configuration,
    "omegaconf.nodes.AnyNode": _configuration,
    "omegaconf.base.ContainerMetadata": _configuration,
    "deepspeed.runtime.fp16.loss_scaler.LossScaler": _configuration,
    "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint": lambda made: {type(made): {"best": 1}},
    "mmengine.config.config.ConfigDict": _configuration,
}


@pytest.mark.parametrize("name", FOREIGN_CLASSES)
def test_objects_of_common_programs_are_passed_over(tmp_path, monkeypatch, name):
    """Made here under the names that those programs give them; none is built when the file is read."""
    module, _, last = name.rpartition(".")
    bases = (dict,) if last == "ConfigDict" else (object,)
    made = type(last, bases, {"__module__": module, "mean": lambda self: None})
    for part in [".".join(module.split(".")[: n + 1]) for n in range(module.count(".") + 1)]:
        monkeypatch.setitem(sys.modules, part, types.ModuleType(part))
    monkeypatch.setattr(sys.modules[module], last, made, raising=False)
    torch.save({"state_dict": WEIGHTS, "beside": FOREIGN_CLASSES[name](made())}, tmp_path / "x.pth")
    built = []
    made.__new__ = made.__setstate__ = lambda *arguments: built.append(arguments)
    assert set(read_state_dict(tmp_path / "x.pth")) == set(WEIGHTS)
    assert not built


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod."])
def test_a_prefix_that_only_some_names_have_is_a_part_of_them(tmp_path, prefix):
    """A model may have a child that is called so."""
    weights = {f"{prefix}conv.weight": torch.ones(2), "fc.weight": torch.ones(3)}
    torch.save(weights, tmp_path / "x.pth")
    assert list(read_state_dict(tmp_path / "x.pth")) == list(weights)


def test_student_within_a_name_is_a_part_of_it(tmp_path):
    weights = {"student.adapter.student.weight": torch.ones(2), "student.fc.bias": torch.ones(3), "teacher.student.bias": torch.ones(1)}
    torch.save(weights, tmp_path / "x.pth")
    assert list(read_state_dict(tmp_path / "x.pth")) == ["adapter.student.weight", "fc.bias"]
