"""Whatever a model raises in the probe or a step is one sentence with its name, the images and what to do."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from distillctl.api.specs import ModelSpec
from distillctl.errors import DataError, MachineError, RunError
from distillctl.models.features import Tapped
from distillctl.models.forward_errors import explained_forward

SPEC = ModelSpec(name="picky", summary="for tests", implementation="x:y", input_size=224)
VIT = ModelSpec(
    name="vit", summary="for tests", implementation="x:y", options="distillctl.builtin.torchvision_options:VitOptions", input_size=224
)


class Picky(nn.Module):
    """Raises what it is told."""

    def __init__(self, error: Callable[[], Exception]) -> None:
        super().__init__()
        self.error = error
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, images: Tensor) -> Tensor:
        raise self.error()


ERRORS = [
    lambda: AssertionError("Wrong image height! Expected 224 but got 96!"),
    lambda: ValueError("two\nlines"),
    lambda: RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
    lambda: IndexError("tuple index out of range"),
    lambda: KeyError("x"),
    lambda: AssertionError(),
]


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("spec", [SPEC, VIT])
def test_in_the_probe(error: Callable[[], Exception], spec: ModelSpec) -> None:
    with pytest.raises(RunError, match=rf"`{spec.name}` cannot take images of shape \(3, 96, 96\): \w") as caught:
        Tapped(Picky(error), spec, []).probe((3, 96, 96))
    (problem,) = caught.value.problems
    assert "224 pixels" in problem.hint
    assert ("`image_size = 96`" in problem.hint) == (spec is VIT)
    assert "\n" not in problem.message


def test_no_size_is_advised_for_which_the_model_cannot_be_built() -> None:
    with pytest.raises(RunError) as caught:
        Tapped(Picky(ERRORS[0]), VIT, []).probe((3, 8, 8))
    assert "image_size = 8" not in caught.value.problems[0].hint


@pytest.mark.parametrize("error", ERRORS)
def test_in_a_step(error: Callable[[], Exception]) -> None:
    model = Picky(error)
    with (
        pytest.raises(RunError, match=r"the student `picky` cannot take images of shape \(3, 8, 8\)"),
        explained_forward((3, 8, 8), ("the teacher ", VIT, nn.Identity()), ("the student ", SPEC, model)),
    ):
        model(torch.zeros(2, 3, 8, 8))


def test_memory_is_another_matter() -> None:
    with pytest.raises(MachineError, match="memory ran out in a forward of `picky` over two images of 96×96 pixels"):
        Tapped(Picky(lambda: torch.OutOfMemoryError("CUDA out of memory")), SPEC, []).probe((3, 96, 96))


@pytest.mark.parametrize(
    "error",
    [
        lambda: RuntimeError("DataLoader worker (pid 3) is killed by signal: Killed."),
        lambda: RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
        lambda: torch.OutOfMemoryError("CUDA out of memory"),
    ],
)
def test_what_is_told_elsewhere_passes(error: Callable[[], Exception]) -> None:
    model = Picky(error)
    with pytest.raises(type(error())), explained_forward((3, 8, 8), ("", SPEC, model)):
        model(torch.zeros(2, 3, 8, 8))


def test_a_bug_of_somebody_else_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError), explained_forward((3, 8, 8), ("", SPEC, nn.Identity())):
        _ = 1 / 0
    with pytest.raises(DataError), explained_forward((3, 8, 8), ("", SPEC, nn.Identity())):
        raise DataError("as it is")
    model = Picky(lambda: RuntimeError("Connection closed by peer"))
    with pytest.raises(RuntimeError, match="closed"), explained_forward((3, 8, 8), ("", SPEC, model), but=(RuntimeError,)):
        model(torch.zeros(2, 3, 8, 8))


@pytest.mark.parametrize("inside", [True, False])
def test_one_image_in_batch_normalisation(inside: bool) -> None:
    norm = nn.BatchNorm2d(3).train()
    models = [("the student ", SPEC, norm)] if inside else []
    who = "the student `picky`" if inside else "a method"
    with (
        pytest.raises(RunError, match=f"batch normalisation of {who} cannot train on one image of 1×1 pixels") as caught,
        explained_forward((3, 1, 1), *models),
    ):
        norm(torch.zeros(1, 3, 1, 1))
    assert "train.batch_size" in caught.value.problems[0].hint


def test_one_image_in_batch_normalisation_of_a_method() -> None:
    first, second = nn.Sequential(nn.BatchNorm2d(3)), nn.Sequential(nn.BatchNorm2d(3))
    with (
        pytest.raises(RunError, match=r"batch normalisation of the method `second` cannot train on one image"),
        explained_forward((3, 1, 1), methods={"first": first, "second": second}),
    ):
        second(torch.zeros(1, 3, 1, 1))
    with pytest.raises(ValueError, match="a bug"), explained_forward((3, 1, 1), methods={"first": Picky(lambda: ValueError("a bug"))}) as _:
        raise ValueError("a bug")
