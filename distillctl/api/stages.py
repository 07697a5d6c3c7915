"""Which stage of the student is compared with which of the teacher."""

from __future__ import annotations

from collections.abc import Sequence

from distillctl.api.method import Side
from distillctl.errors import RunError


def pair_stages(
    method: str, student: Side, teacher: Side, student_names: Sequence[str], teacher_names: Sequence[str]
) -> tuple[tuple[str, str], ...]:
    """Pairs of feature names, shallow to deep, from two options such as `student_stages` and `teacher_stages`.

    Names that are given on both sides are paired in their order. Where one side says `stages` (or `stages:pre`), the deepest stages
    belong together, and the shallow ones of the longer side are left out.

    Raises:
        RunError: both sides name their stages, but not equally many; or one has none.
    """
    ours, theirs = student.expand(student_names), teacher.expand(teacher_names)
    for side, names in ((student, ours), (teacher, theirs)):
        if not names:
            raise RunError(
                f"`{method}` compares stages, but `{side.name}` declares none",
                hint="name module paths in `student_stages` and `teacher_stages`",
            )
    open_ended = any(name in ("stages", "stages:pre") for name in (*student_names, *teacher_names))
    if len(ours) != len(theirs) and not open_ended:
        raise RunError(
            f"`{method}` pairs {len(ours)} stages of `{student.name}` ({', '.join(ours)}) with {len(theirs)} of `{teacher.name}` "
            f"({', '.join(theirs)})",
            hint="name as many in `student_stages` as in `teacher_stages`",
        )
    count = min(len(ours), len(theirs))
    return tuple(zip(ours[-count:], theirs[-count:], strict=True))
