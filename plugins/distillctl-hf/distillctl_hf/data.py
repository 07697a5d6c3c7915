"""A Hugging Face data set as splits of images that are decoded as files are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from distillctl import DataError, FileImages, Splits, StoredImages, View, listing_hash, stratified_split
from distillctl_hf.columns import Classes, image_column, label_column
from distillctl_hf.options import VAL_FRACTION, HFOptions
from distillctl_hf.tables import open_tables

_SPLITS = {"val": ("validation", "valid", "val", "dev"), "test": ("test",)}


@dataclass(frozen=True)
class TableStore:
    """The encoded images of one split. Implements `distillctl.ImageStore`.

    table: a `datasets.Dataset` with the one column `column`; pickled, it is the names of its files.
    """

    table: Any
    column: str
    name: str
    files: tuple[Path, ...]

    def read(self, row: int) -> bytes:
        """The encoded image of a row."""
        value = self.table[row][self.column]
        content = value.get("bytes") if isinstance(value, dict) else value
        if not isinstance(content, bytes):
            raise ValueError("the row holds no image")
        return content


def build(options: HFOptions, seed: int) -> Splits:
    """The images with their labels; without a validation split one is carved out of train by `seed`.

    Raises:
        distillctl.ProfileError: there is no such folder.
        distillctl.DataError: it cannot be read, a column or a split is missing, or rows have no label.
    """
    source = options.hub or str(options.root)
    tables = open_tables(options)
    names = _names(options, tables, source)
    features = tables[names["train"]].features
    image, label = image_column(features, options.image), label_column(features, options.label)
    values = {part: _column(tables[name], label, name) for part, name in names.items()}
    classes = Classes(features[label], values["train"])
    parts = {
        part: _images(tables[name], image, f"{source}/{name}", torch.tensor(classes.labels(name, values[part]), dtype=torch.int64))
        for part, name in names.items()
    }
    sources = {part: f"split `{name}`" for part, name in names.items()}
    if "val" not in parts and options.val_fraction:
        kept, carved = stratified_split(parts["train"].labels, options.val_fraction, seed)
        if len(carved):
            parts |= {"train": parts["train"].subset(kept), "val": parts["train"].subset(carved)}
            sources["val"] = "carved from train by seed"
        elif options.val_fraction != VAL_FRACTION:
            raise DataError(f"`val_fraction = {options.val_fraction}` is so small that no class gives an image to the validation split")
    if lacking := sorted(set(range(len(classes.names))) - set(parts["train"].labels.tolist())):
        raise DataError(f"the training split has no image of {len(lacking)} classes: `{classes.names[lacking[0]]}` is the first")
    sizes = ", ".join(f"{part} {len(parts[part])} ({sources[part]})" for part in ("train", "val", "test") if part in parts)
    listed = [f"{part} {_short(path)}" for part in parts for path in parts[part].paths]
    default = round(options.image_size * 8 / 7)
    return Splits(
        train=parts["train"],
        val=parts.get("val"),
        test=parts.get("test"),
        classes=classes.names,
        mean=tuple(options.mean),
        std=tuple(options.std),
        view=View(
            size=options.image_size,
            augment=options.augment,
            resize=options.resize or default,
            eval_resize=options.eval_resize or default,
            max_megapixels=options.max_megapixels,
            white=options.white,
            background=options.background,
        ),
        description=f"Hugging Face data set `{source}`, columns `{image}` and `{label}`: {sizes}; listing {listing_hash(listed)}",
    )


def _names(options: HFOptions, tables: Mapping[str, Any], source: str) -> dict[str, str]:
    """Part → the name of its split."""
    names = {"train": options.train}
    for part, usual in _SPLITS.items():
        stated = getattr(options, part)
        found = next((name for name in usual if name in tables), "") if stated is None else stated
        if found:
            names[part] = found
    for part, name in names.items():
        if name not in tables:
            known = ", ".join(f"`{one}`" for one in tables)
            raise DataError(f"`{source}` has no split `{name}`", hint=f"name it: `dataset.{part} = …`; splits: {known}")
    if len(set(names.values())) < len(names):
        raise DataError(f"a split of `{source}` is named twice: {', '.join(f'{part} `{name}`' for part, name in names.items())}")
    if "val" in names and options.val_fraction != VAL_FRACTION:
        raise DataError(f"`val_fraction` has no effect: `{names['val']}` is the validation split")
    return names


def _column(table: Any, name: str, split: str) -> list[Any]:
    if name not in table.column_names:
        raise DataError(f"the split `{split}` has no column `{name}`")
    return list(table.with_format(None).select_columns([name])[:][name])


def _images(table: Any, column: str, name: str, labels: torch.Tensor) -> FileImages | StoredImages:
    """The images of a split: within its files, or files of their own where it has only their paths."""
    import datasets  # type: ignore[import-untyped]

    if column not in table.column_names:
        raise DataError(f"`{name}` has no column `{column}`")
    table = table.with_format(None).select_columns([column])
    if isinstance(table.features[column], datasets.Image):
        table = table.cast_column(column, datasets.Image(decode=False))
    first = table[0][column] if len(table) else None
    if isinstance(first, dict) and first.get("bytes") is None:
        paths = [value["path"] for value in table[:][column]]
        if None in paths:
            raise DataError(f"row {paths.index(None)} of `{name}` holds neither an image nor the path of one")
        return FileImages([Path(path) for path in paths], labels)
    files = tuple(Path(file["filename"]) for file in table.cache_files)
    return StoredImages(TableStore(table, column, name, files), torch.arange(len(table)), labels)


def _short(path: Any) -> str:
    """The last two parts, wherever the data lie."""
    return "/".join(Path(str(path)).parts[-2:])
