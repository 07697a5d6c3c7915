from distillctl.testing import MethodContract
from distillctl_pkd.plugin import SPEC


def doubled(count: int) -> float:
    """What twice the batch does to (n − 1)/n · (1 − ρ)."""
    return (1 - 1 / (2 * count)) / (1 - 1 / count)


class TestPKD(MethodContract):
    """The last maps are of 2×2, and batches of 7 images."""

    spec = SPEC
    duplication_factor = doubled(7 * 2 * 2)


class TestPKDOfAnotherStage(MethodContract):
    """The teacher's maps are the smaller ones."""

    spec = SPEC
    options = {"student_stages": ["stage1"], "teacher_stages": ["stage2"]}
    duplication_factor = doubled(7 * 4 * 4)
