"""What lies in a folder, looked for without `datasets` and torch."""

from __future__ import annotations

from pathlib import Path

from distillctl import DataError, require_folder
from distillctl_hf.options import HFOptions


def was_saved(root: Path) -> bool:
    """Whether `save_to_disk` wrote the folder."""
    return (root / "dataset_dict.json").is_file() or (root / "state.json").is_file()


def check_folder(root: Path) -> None:
    """Checks that a folder is there, and that its data are not made by a script.

    Raises:
        ProfileError: there is no such folder.
        DataError: a script would have to be run.
    """
    require_folder(root)
    script = root / f"{root.resolve().name}.py"
    if script.is_file():
        raise DataError(
            f"`{root}` makes its data by a script, `{script.name}`, and scripts of data sets are never run",
            hint="convert it with a tool that you trust: `save_to_disk` of `datasets`, or Parquet files",
        )


def preview(options: HFOptions) -> str:
    """Where the data set lies.

    Raises:
        ProfileError, DataError: nowhere, or nothing that is read.
    """
    if options.hub:
        how = "downloaded if the cache lacks it" if options.download else "from its cache"
        return f"`{options.hub}` of the Hugging Face hub, {how}"
    check_folder(options.root)
    return f"Hugging Face data set in `{options.root}`" + (", written by `save_to_disk`" if was_saved(options.root) else "")
