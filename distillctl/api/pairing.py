"""Which stage of the student is compared with which of the teacher."""

from __future__ import annotations

from collections.abc import Sequence

from distillctl.api.method import Side
from distillctl.errors import RunError

_GROUPS = ("stages", "stages:pre")


def pair_stages(
    method: str, student: Side, teacher: Side, student_names: Sequence[str], teacher_names: Sequence[str]
) -> tuple[tuple[str, str], ...]:
    """Pairs of feature names, shallow to deep, from two options such as `student_stages` and `teacher_stages`.

    Names that are given on both sides are paired in their order. Where both sides say `stages` (or `stages:pre`), the deepest stages
    belong together, and the shallow ones of the longer side are left out. Where one side alone names its stages, each is paired
    with the stage of the same name.

    Raises:
        RunError: both sides name their stages, but not equally many; one has none; or one names a stage that the other does not have.
    """
    ours, theirs = student.expand(student_names), teacher.expand(teacher_names)
    for side, names in ((student, ours), (teacher, theirs)):
        if not names:
            raise RunError(
                f"`{method}` compares stages, but `{side.name}` declares none",
                hint="name module paths in `student_stages` and `teacher_stages`",
            )
    all_ours, all_theirs = (any(name in _GROUPS for name in names) for names in (student_names, teacher_names))
    if all_ours and all_theirs:
        count = min(len(ours), len(theirs))
        return tuple(zip(ours[-count:], theirs[-count:], strict=True))
    if all_theirs:
        return tuple((name, _same(method, name, theirs, teacher, "teacher_stages")) for name in ours)
    if all_ours:
        return tuple((_same(method, name, ours, student, "student_stages"), name) for name in theirs)
    if len(ours) != len(theirs):
        raise RunError(
            f"`{method}` pairs {len(ours)} stages of `{student.name}` ({', '.join(ours)}) with {len(theirs)} of `{teacher.name}` "
            f"({', '.join(theirs)})",
            hint="name as many in `student_stages` as in `teacher_stages`",
        )
    return tuple(zip(ours, theirs, strict=True))


def require_positions(method: str, student: Side, teacher: Side, pairs: Sequence[tuple[str, str]], fault: str) -> None:
    """Refuses pairs of stages for a method that compares positions, if no pair has more than one to compare.

    A pair has the positions of the smaller of its two maps.

    fault: what the error says after the method's name, such as "compares positions, but only one is left".

    Raises:
        RunError: a stage is not a feature map (C, H, W), or each pair has one position alone.
    """
    shapes = [(student.feature_map(ours, method), teacher.feature_map(theirs, method)) for ours, theirs in pairs]
    if all(min(s[1], t[1]) * min(s[2], t[2]) == 1 for s, t in shapes):
        listed = ", ".join(f"`{ours}` {s} with `{theirs}` {t}" for (ours, theirs), (s, t) in zip(pairs, shapes, strict=True))
        raise RunError(
            f"`{method}` {fault} in each pair of stages: {listed}",
            hint="name stages with larger maps in `student_stages` and `teacher_stages`",
        )


def _same(method: str, name: str, others: Sequence[str], side: Side, option: str) -> str:
    """The one of `others` that has this name, whether or not before its last ReLU."""
    stage = name.removesuffix(":pre")
    for other in others:
        if other.removesuffix(":pre") == stage:
            return other
    raise RunError(
        f"`{method}` pairs `{name}` with the stage of the same name, and `{side.name}` has {', '.join(f'`{other}`' for other in others)}",
        hint=f"name the stages of the other side too, in `{option}`",
    )
