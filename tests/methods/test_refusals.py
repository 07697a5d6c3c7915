"""What cannot work, or would change nothing, is said before training; and what can work is not refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from distillctl import Head, Method, Phase, PluginError, ProfileError, RunError
from distillctl.build.checks import check_passes, check_phase, head_owner
from distillctl.build.models import build_model
from distillctl.engine.objective import Weighted
from distillctl.plugin.registry import Registry
from distillctl.testing import make_setup, make_task, options_of

REGISTRY = Registry.load()
SETUP = make_setup({}, {})


def method(name: str, more: str = "") -> str:
    return f'[method]\nname = "{name}"\n{more}\n'


@pytest.mark.parametrize(
    ("model", "options", "drops"),
    [
        ("cifar/resnet8", {}, False),
        ("cifar/resnet8", {"dropout": 0.01}, True),
        # Its classifier starts at zero.
        pytest.param("torchvision/vit_b_32", {"image_size": 32, "dropout": 0.3}, True, marks=pytest.mark.slow),
        # Stochastic depth behind layer scales of 1e-6.
        pytest.param("torchvision/convnext_tiny", {}, True, marks=pytest.mark.slow),
        ("torchvision/mobilenet_v2", {"dropout": 0.0}, False),
    ],
)
def test_passes_are_tried_and_not_guessed(model: str, options: dict[str, Any], drops: bool) -> None:
    spec = REGISTRY.models.get(model)
    network = build_model(make_task(5), spec, options_of(spec, **options))
    methods = [Weighted("rdrop", Method(None, SETUP), 1.0, passes=2)]
    before = {name: value.clone() for name, value in network.state_dict().items()}
    if drops:
        check_passes(methods, None, network, spec.name, (3, 32, 32))
    else:
        with pytest.raises(RunError, match=f"`rdrop` compares passes .* `{spec.name}` gives the same logits"):
            check_passes(methods, None, network, spec.name, (3, 32, 32))
    assert all(value.equal(before[name]) for name, value in network.state_dict().items())


def test_rdrop_beside_simkd_sees_the_dropout_that_the_student_had(bench: Any) -> None:
    tables = '[[method]]\nname = "simkd"\ntask_weight = 1.0\n[[method]]\nname = "rdrop"\n'
    experiment, terms = bench.run(bench.profile(tables, "cifar/resnet8", "cifar/resnet14", extra="dropout = 0.2"), steps=1)
    assert terms["main"]["rdrop"] > 0
    assert experiment.head is not None
    assert [layer["type"] for layer in experiment.head["layers"]][-2:] == ["dropout", "linear"]
    experiment.close()
    with pytest.raises(RunError, match="now that `simkd` has replaced its classifier"):
        bench.experiment(bench.profile(tables, "cifar/resnet8", "cifar/resnet14"))


def test_different_numbers_of_passes() -> None:
    network = build_model(make_task(5), REGISTRY.models.get("cifar/resnet8"), options_of(REGISTRY.models.get("cifar/resnet8"), dropout=0.2))
    methods = [Weighted(str(n), Method(None, SETUP), 1.0, passes=n) for n in (2, 3)]
    with pytest.raises(RunError, match="different numbers of passes: 2, 3"):
        check_passes(methods, None, network, "resnet8", (3, 32, 32))
    with pytest.raises(RunError, match=r"`2` compares passes .* `resnet8` draws what it learns from in each"):
        check_passes(methods[:1], None, network, "resnet8", (3, 32, 32), draws=True)
    check_passes([], None, network, "resnet8", (3, 32, 32), draws=True)


@pytest.mark.parametrize("name", ["ab", "fsp"])
def test_methods_that_end_early(bench: Any, name: str) -> None:
    """Without a label loss nothing is left for the main part; and no epoch of it can warm them up."""
    with pytest.raises(RunError, match=f"`{name}` only train before the main part, where with `task_weight = 0` nothing is left"):
        bench.experiment(bench.profile(method(name, "task_weight = 0.0"), "cifar/resnet8", "cifar/resnet14"))
    with pytest.raises(RunError, match=f"`warmup_epochs` has no effect on `{name}`"):
        bench.experiment(bench.profile(method(name, "warmup_epochs = 2.0"), "cifar/resnet8", "cifar/resnet14"))


def test_compiled_steps_and_two_gradients(bench: Any) -> None:
    """A compiled backward gives zeros where there is no gradient, and DOT treats the two differently."""
    dot = '[optimizer]\nname = "dot"\nlr = 0.01'
    profile = bench.profile(method("kd"), "cifar/resnet8", "cifar/resnet14", optimizer=dot)
    assert not bench.experiment(profile).settings.compiled
    table = profile.train.model_copy(update={"compile": "on"})
    object.__setattr__(profile, "train", table)
    with pytest.raises(ProfileError, match="`dot` wants two gradients, which a compiled step cannot tell apart"):
        bench.experiment(profile)


def test_one_temperature_is_steered_once(bench: Any) -> None:
    tables = method("ctkd") + '[method.inner]\nname = "lskd"\n[method.inner.inner]\nname = "ctkd"\n'
    with pytest.raises(ProfileError, match="`ctkd` cannot wrap `lskd` around `ctkd`"):
        bench.profile(tables, "cifar/resnet8", "cifar/resnet14")


@pytest.mark.parametrize("side", ["student", "teacher"])
def test_a_feature_of_a_head_that_is_not_there(bench: Any, side: str) -> None:
    with pytest.raises(ProfileError, match=r"`head\.projector` is a feature of a head"):
        bench.experiment(bench.profile(method("mgd", f'{side}_stage = "head.projector"'), "cifar/resnet8", "cifar/resnet14"))


def test_other_methods_may_read_the_head(bench: Any) -> None:
    tables = '[[method]]\nname = "simkd"\n[[method]]\nname = "mgd"\nstudent_stage = "head.projector"\ntask_weight = 0.0\n'
    experiment, terms = bench.run(bench.profile(tables, "cifar/resnet8", "cifar/resnet14"), steps=1)
    experiment.close()
    assert set(terms["main"]) == {"simkd", "mgd"}


class Headed(Method):
    def head(self) -> Head | None:
        import torch

        return Head("last", torch.nn.Sequential(torch.nn.Linear(2, 2)))


def test_two_heads() -> None:
    methods = [Weighted(name, Headed(None, SETUP), 1.0) for name in ("a", "b")]
    with pytest.raises(RunError, match="`a` and `b` both replace the classifier of `resnet8`"):
        head_owner(methods, REGISTRY.models.get("cifar/resnet8"))


def test_a_method_and_its_declaration_agree_on_the_head(bench: Any) -> None:
    """In both directions: a head that is not declared would be installed too late, or never."""
    for name, declared in (("simkd", False), ("kd", True)):
        profile = bench.profile(method(name), "cifar/resnet8", "cifar/resnet14")
        (choice,) = profile.methods
        object.__setattr__(profile, "methods", (replace(choice, spec=replace(choice.spec, gives_head=declared)),))
        with pytest.raises(PluginError, match=f"the method `{name}` and its declaration disagree on `gives_head`"):
            bench.experiment(profile)


class Phased(Method):
    def __init__(self) -> None:
        import torch

        super().__init__(None, SETUP)
        self.first, self.empty = torch.nn.Linear(2, 2), torch.nn.ReLU()


@pytest.mark.parametrize(
    ("phase", "message"),
    [
        (Phase("warm", 0, modules=("first",)), "`warm` of `m` has 0 epochs"),
        (Phase("warm", 2, modules=("frist",)), "names `frist`, which is no submodule"),
        (Phase("warm", 2), "trains nothing"),
        (Phase("warm", 2, modules=("empty",)), "trains nothing"),
    ],
    ids=str,
)
def test_phases_that_cannot_be_trained(phase: Phase, message: str) -> None:
    check_phase(Weighted("m", Phased(), 1.0), Phase("good", 1, modules=("first",)))
    with pytest.raises(PluginError, match=message):
        check_phase(Weighted("m", Phased(), 1.0), phase)


def test_a_method_without_a_teacher_sees_none_beside_others(bench: Any) -> None:
    seen: list[list[str]] = []
    experiment = bench.experiment(
        bench.profile('[[method]]\nname = "tfkd"\ntask_weight = 1.0\n[[method]]\nname = "at"\n', "cifar/resnet8", "cifar/resnet14")
    )
    tfkd = experiment.objective.methods["tfkd"]
    forward = tfkd.forward
    tfkd.forward = lambda batch, student, teacher, progress: (seen.append(list(teacher)), forward(batch, student, teacher, progress))[1]
    bench.steps(experiment, 1)
    experiment.close()
    assert seen == [[]]


def test_an_optimizer_and_its_declaration_agree(bench: Any) -> None:
    from distillctl.build.parts import build_optimizer

    choice = bench.profile(method("kd"), "cifar/resnet8", "cifar/resnet14").optimizer
    wrong = replace(choice, spec=replace(choice.spec, separate_gradients=True))
    import torch

    with pytest.raises(PluginError, match="disagree on `separate_gradients`"):
        build_optimizer(wrong, [{"params": [torch.nn.Parameter(torch.zeros(1))]}])
