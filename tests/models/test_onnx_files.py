"""ONNX files answer as their networks do, for batches of any size; what is missing is told."""

import logging
import sys
import warnings

import pytest
import torch
from torch import nn

from distillctl.errors import MachineError, RunError
from distillctl.models import onnx_files
from distillctl.models.onnx_files import OnnxModel, add_metadata, needs, quantise, write_onnx
from distillctl.models.pixel_input import PixelInput
from distillctl.testing.tiny_models import TinyCNN

pytestmark = pytest.mark.slow

SHAPE = (3, 16, 16)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    model = TinyCNN(5, 4)
    for _ in range(3):
        model(torch.randn(8, *SHAPE))
    return PixelInput(model.eval(), (0.5, 0.4, 0.3), (0.2, 0.25, 0.3))


@pytest.fixture(scope="module")
def file(network, tmp_path_factory):
    path = tmp_path_factory.mktemp("onnx") / "a.onnx"
    write_onnx(network, path, SHAPE, pixels=True, told={"classes": '["wren"]'})
    return path


def pixels(count, seed=0):
    return torch.randint(256, (count, *SHAPE), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def test_any_batch(network, file):
    found = OnnxModel(file)
    for count in (1, 2, 7):
        with torch.no_grad():
            assert torch.allclose(found(pixels(count)), network(pixels(count)), atol=1e-5)
    assert found.metadata["classes"] == '["wren"]'


def test_normalised_input(network, tmp_path):
    write_onnx(network.network, tmp_path / "a.onnx", SHAPE)
    images = torch.randn(3, *SHAPE)
    with torch.no_grad():
        assert torch.allclose(OnnxModel(tmp_path / "a.onnx")(images), network.network(images), atol=1e-5)


def test_int8(network, file, tmp_path):
    quantise(file, tmp_path / "int8.onnx", (pixels(8, seed) for seed in range(4)))
    add_metadata(tmp_path / "int8.onnx", {"classes": "[]"})
    found = OnnxModel(tmp_path / "int8.onnx")
    with torch.no_grad():
        wanted, answers = network(pixels(32, 9)), found(pixels(32, 9))
    assert (wanted - answers).abs().max() < 0.1 * wanted.std()
    assert not torch.allclose(wanted, answers, atol=1e-5)  # it was quantised
    assert found.metadata["classes"] == "[]"
    weights = [t for t in __import__("onnx").load(str(tmp_path / "int8.onnx")).graph.initializer if len(t.dims) == 4]
    assert weights
    assert {t.data_type for t in weights} == {3}  # int8
    scales = [t for t in __import__("onnx").load(str(tmp_path / "int8.onnx")).graph.initializer if t.name.endswith("weight_scale")]
    assert any(len(t.dims) == 1 and t.dims[0] > 1 for t in scales)  # one for each channel


def test_nothing_of_the_process_stays_changed(network, tmp_path, capsys):
    before = logging.root.manager.disable, list(warnings.filters)
    write_onnx(network, tmp_path / "a.onnx", SHAPE, pixels=True)
    assert (logging.root.manager.disable, list(warnings.filters)) == before
    assert capsys.readouterr() == ("", "")


def test_a_package_that_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MachineError, match="`onnxruntime`") as caught:
        needs("onnx", "onnxruntime")
    assert "distillctl[onnx]" in caught.value.problems[0].hint


class Odd(nn.Module):
    def forward(self, images):
        return images.flatten(1)[:, :2] if images.sum().item() > 0 else images.flatten(1)[:, 1:3]


def test_a_network_that_cannot_be_exported(tmp_path):
    with pytest.raises(RunError, match="cannot write this network"):
        write_onnx(Odd(), tmp_path / "a.onnx", SHAPE)
    assert not (tmp_path / "a.onnx").exists()


def test_a_file_that_is_none(tmp_path):
    (tmp_path / "a.onnx").write_bytes(b"no network")
    with pytest.raises(RunError, match="cannot load"):
        OnnxModel(tmp_path / "a.onnx")


def test_threads(file):
    assert OnnxModel(file, threads=1)._session.get_session_options().intra_op_num_threads == 1
    assert onnx_files.OnnxModel(file)._session.get_session_options().intra_op_num_threads == torch.get_num_threads()
