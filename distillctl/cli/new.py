"""`new`: a package to start from, with tests that pass as they are."""

from __future__ import annotations

import keyword
import re
import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from distillctl.cli import render
from distillctl.errors import MachineError, ProfileError

KINDS = ("method", "model", "dataset")
_TEMPLATES = Path(__file__).parent / "templates" / "new"
_NAME = re.compile(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*")


def new(
    kind: Annotated[str, typer.Argument(metavar="KIND", help="method, model or dataset.", show_default=False)],
    name: Annotated[str, typer.Argument(metavar="NAME", help="What profiles call it.", show_default=False)],
    out: Annotated[
        str | None, typer.Option("--out", metavar="FOLDER", help="Where to write it; distillctl-NAME if not given.", show_default=False)
    ] = None,
) -> None:
    """Write a package that adds a method, a model or a data set: it installs, and its tests pass; never over an existing folder.

    Examples:
        distillctl new method my-loss

        distillctl new model tinynet --out nets/tinynet
    """
    folder = write_package(kind, name, Path(out) if out else None)
    quoted = shlex.quote(str(folder))
    render.line(f"wrote {folder}, which declares the {_SAID[kind]} `{name}`")
    render.line(f"next: pip install -e {quoted} && python -m pytest {quoted}")


_OPTIONS = {  # what the contract of methods asks of a README
    "method": """
```toml
[method]
name = "@NAME@"
scale = 1.0
```

| option | type | default | bounds | description |
| --- | --- | --- | --- | --- |
| `scale` | number | `1.0` | ≥ 0, ≤ 1e9 | Factor of the squared distance. |
"""
}
_SAID = {"method": "method", "model": "model", "dataset": "data set"}


def write_package(kind: str, name: str, folder: Path | None = None) -> Path:
    """Writes the package of a new method, model or data set; returns its folder.

    Raises:
        ProfileError: there is no such kind, the name cannot be one or is taken, or the folder exists.
        MachineError: the folder cannot be written.
    """
    if kind not in KINDS:
        raise ProfileError(f"`{kind}` cannot be made", hint="`distillctl new method NAME`, `model` or `dataset`")
    if not _NAME.fullmatch(name) or keyword.iskeyword(name):
        raise ProfileError(f"`{name}` is not a name", hint="small letters, digits and hyphens, beginning with a letter: `my-loss`")
    _check_free(kind, name)
    folder = folder or Path(f"distillctl-{name}")
    if folder.exists() or folder.is_symlink():
        raise ProfileError(f"`{folder}` is there already and stays as it is", hint="name another folder by `--out`")
    module = f"distillctl_{name.replace('-', '_')}"
    words = {
        "@MODULE@": module,
        "@CLASS@": "".join(part.capitalize() for part in re.split("[-_]", name)),
        "@KIND@": _SAID[kind],
        "@OPTIONS@": _OPTIONS.get(kind, ""),
        "@NAME@": name,  # last: it stands in the options too
    }
    files = {path: folder / path.name.removesuffix(".txt") for path in (_TEMPLATES / "package").iterdir()}
    for path in (_TEMPLATES / kind).iterdir():
        place = f"tests/test_{module}.py" if path.name == "test.py.txt" else f"{module}/{path.name.removesuffix('.txt')}"
        files[path] = folder / place
    try:
        for source, target in files.items():
            text = source.read_text(encoding="utf-8")
            for word, value in words.items():
                text = text.replace(word, value)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, encoding="utf-8", newline="\n")
        (folder / module / "__init__.py").write_text(f'"""The {_SAID[kind]} `{name}` for distillctl."""\n', encoding="utf-8", newline="\n")
        (folder / module / "py.typed").touch()
    except OSError as error:
        raise MachineError(f"`{error.filename or folder}` cannot be written: {(error.strerror or str(error)).lower()}") from error
    return folder


def _check_free(kind: str, name: str) -> None:
    from importlib.util import find_spec

    from distillctl.errors import PluginError
    from distillctl.plugin.catalog import Catalog
    from distillctl.plugin.registry import Registry

    registry = Registry.load()
    found: Catalog[Any] = getattr(registry, f"{kind}s")
    try:
        taken = found.get(name).name == name
    except PluginError:
        taken = False
    if taken or find_spec(f"distillctl_{name.replace('-', '_')}") is not None:
        raise ProfileError(f"`{name}` is taken: a package that is installed has it", hint="choose another name")
