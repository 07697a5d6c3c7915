"""Opens a data set as tables, by `datasets` and without any code of the data set's own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from distillctl import DataError
from distillctl_hf.options import HFOptions
from distillctl_hf.places import check_folder, was_saved

READ = ("parquet", "arrow", "imagefolder", "cache")
"""Kinds of files that are read, as `datasets` calls them. Of the others, some unpickle what they read, and some hold no images."""


def open_tables(options: HFOptions) -> dict[str, Any]:
    """Split → `datasets.Dataset`, mapped from its files and not read into memory.

    Raises:
        ProfileError: there is no such folder.
        DataError: it cannot be read, or would need code of its own.
    """
    import datasets  # type: ignore[import-untyped]

    source = options.hub or str(options.root)
    if not options.hub:
        check_folder(options.root)
    try:
        if not options.hub and was_saved(options.root):
            found = datasets.load_from_disk(source)
        else:
            with _network(allowed=options.download):
                builder = datasets.load_dataset_builder(source, options.config or None)
                kind = type(builder).__module__.removeprefix("datasets.packaged_modules.").partition(".")[0]
                if kind not in READ:
                    raise DataError(f"`{source}` is of the kind `{kind}`, which is not read", hint=f"those that are: {', '.join(READ[:3])}")
                builder.download_and_prepare()
                found = builder.as_dataset()
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, datasets.exceptions.DatasetsError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        hint = "`dataset.download = true` fetches it from the hub" if options.hub and not options.download else ""
        raise DataError(f"`{source}` cannot be read as a Hugging Face data set: {reason}", hint=hint) from error
    return dict(found) if isinstance(found, datasets.DatasetDict) else {"train": found}


@contextmanager
def _network(*, allowed: bool) -> Iterator[None]:
    """Inside, `datasets` asks the hub for nothing, unless that is allowed."""
    import datasets
    import huggingface_hub

    places = [(datasets.config, "HF_HUB_OFFLINE"), (huggingface_hub.constants, "HF_HUB_OFFLINE")]
    before = [getattr(module, name) for module, name in places]
    try:
        for module, name in () if allowed else places:
            setattr(module, name, True)
        yield
    finally:
        for (module, name), value in zip(places, before, strict=True):
            setattr(module, name, value)
