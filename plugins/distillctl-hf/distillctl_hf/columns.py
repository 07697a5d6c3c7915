"""Finds the columns of images and labels in a table, and what the labels mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from distillctl import DataError

_NAMED = ("label", "labels", "fine_label", "target", "class", "y")
"""Names of columns of labels that are no `ClassLabel`."""


def image_column(features: Mapping[str, Any], stated: str) -> str:
    """The column of images: encoded ones, with or without Hugging Face's own type.

    Raises:
        DataError: there is none, or more than one.
    """
    import datasets  # type: ignore[import-untyped]

    def encoded(feature: Any) -> bool:
        binary = getattr(feature, "dtype", "") in ("binary", "large_binary")
        return binary or isinstance(feature, datasets.Image) or (isinstance(feature, dict) and "bytes" in feature)

    typed = [name for name, feature in features.items() if isinstance(feature, datasets.Image)]
    found = typed or [name for name, feature in features.items() if encoded(feature)]
    if stated and stated in features and not encoded(features[stated]):
        raise DataError(f"the column `{stated}` holds no encoded images")
    return _the_one(found, features, stated, "image", "images")


def label_column(features: Mapping[str, Any], stated: str) -> str:
    """The column of labels: a `ClassLabel`, or one that is called like labels.

    Raises:
        DataError: there is none, or more than one.
    """
    import datasets

    typed = [name for name, feature in features.items() if isinstance(feature, datasets.ClassLabel)]
    return _the_one(typed or [name for name in _NAMED if name in features][:1], features, stated, "label", "labels")


def _the_one(found: Sequence[str], features: Mapping[str, Any], stated: str, option: str, what: str) -> str:
    if stated:
        if stated not in features:
            raise DataError(f"there is no column `{stated}`", hint=f"columns: {_listed(features)}")
        return stated
    if len(found) != 1:
        what = f"{len(found)} columns may hold the {what}: {_listed(found)}" if found else f"no column holds {what}"
        raise DataError(what, hint=f"name it: `dataset.{option} = …`; columns: {_listed(features)}")
    return found[0]


def _listed(names: Sequence[str] | Mapping[str, Any]) -> str:
    return ", ".join(f"`{name}`" for name in names)


class Classes:
    """What the values of a column of labels mean.

    names: of a `ClassLabel` in its own order, which numbers the outputs of networks trained on it; otherwise the values of the training
        split, sorted: numbers as numbers, text as text.
    """

    def __init__(self, feature: Any, values: Sequence[Any]) -> None:
        stated = getattr(feature, "names", None)
        if stated:
            self.names: tuple[str, ...] = tuple(stated)
            self._number: dict[Any, int] = {label: label for label in range(len(stated))}
        else:
            found = {value for value in values if value is not None}
            if odd := next((value for value in found if not isinstance(value, int | str)), None):
                raise DataError(f"a label is neither a number nor text: `{str(odd)[:80]}`")
            if len({type(value) for value in found}) > 1:
                raise DataError("some labels are numbers and others text")
            self._number = {value: label for label, value in enumerate(sorted(found))}
            self.names = tuple(str(value) for value in sorted(found))
        if len(self.names) < 2:
            raise DataError(f"there is only one class: {_listed(self.names)}" if self.names else "the training split has no labels")

    def labels(self, split: str, values: Sequence[Any]) -> list[int]:
        """The class of each row.

        Raises:
            DataError: a row has none, as in the test split of many data sets, or one that training lacks.
        """
        labels = [self._number.get(value, -1) for value in values]
        if -1 in labels:
            missing = [value for value, label in zip(values, labels, strict=True) if label < 0]
            if all(value in (None, -1) for value in missing):
                raise DataError(f"{len(missing)} of {len(values)} rows of the split `{split}` have no label", hint=_LEAVE_OUT)
            value = next(value for value in missing if value not in (None, -1))
            raise DataError(f"the split `{split}` has a label `{value}` that the training split lacks")
        return labels


_LEAVE_OUT = 'leave the split out: `dataset.test = ""` or `dataset.val = ""`'
