"""`init`: a commented profile to start from."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from distillctl.cli import render
from distillctl.errors import MachineError, ProfileError

TEMPLATES = ("quickstart", "imagefolder", "cifar100")
_FOLDER = Path(__file__).parent / "templates"


def init(
    name: Annotated[str, typer.Argument(metavar="NAME", help="quickstart, imagefolder or cifar100.")] = "quickstart",
    out: Annotated[
        str | None, typer.Option("--out", metavar="FILE", help="Where to write it; NAME.toml if not given.", show_default=False)
    ] = None,
) -> None:
    """Write a commented profile to start from, and beside it the profile of its teacher; never over an existing file.

    Examples:
        distillctl init

        distillctl init imagefolder --out flowers.toml
    """
    student, teacher = write_template(name, Path(out) if out else Path(f"{name}.toml"))
    render.line(f"wrote {student} and, for its teacher, {teacher}")
    name = shlex.quote(str(student))
    render.line(f"next: distillctl check {name} && distillctl train {name}")


def write_template(name: str, path: Path) -> tuple[Path, Path]:
    """Writes the template of a name to `path`, and its teacher's to `PATH_teacher.toml`; returns both paths.

    Raises:
        ProfileError: there is no such template, or one of the files exists.
        MachineError: the folder cannot be written to.
    """
    if name not in TEMPLATES:
        from distillctl.profile.problems import nearest

        listed = "there are " + ", ".join(f"`{t}`" for t in TEMPLATES)
        raise ProfileError(f"no template is called `{name}`", hint=f"{nearest(name, TEMPLATES)} {listed}".strip())
    if path.suffix != ".toml":
        raise ProfileError(f"a profile is a file that ends in `.toml`, not `{path}`", where="--out")
    teacher = path.with_name(f"{path.stem}_teacher.toml")
    for target in (path, teacher):
        if target.exists() or target.is_symlink():
            raise ProfileError(f"`{target}` is there already and stays as it is", hint="name another file by `--out`")
    text, text_of_teacher = ((_FOLDER / f"{stem}.toml").read_text(encoding="utf-8") for stem in (name, f"{name}_teacher"))
    try:
        for target, content in ((teacher, text_of_teacher), (path, text.replace("@TEACHER@", teacher.name))):
            with target.open("x", encoding="utf-8", newline="\n") as file:
                file.write(content)
    except OSError as error:
        raise MachineError(f"`{error.filename or path}` cannot be written: {(error.strerror or str(error)).lower()}") from error
    return path, teacher
