"""Packs what a machine with a GPU and without a network lacks into a folder: our wheels, wheels of others, and data.

    uv run python benchmarks/gpu/pack.py [--folder .gpu] [--data FILE ...]

What is there already is listed in `there.txt`; versions of the rest are those of the environment in which this runs.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution, distributions
from pathlib import Path

ROOT = Path(__file__).parents[2]
MOST = 64 << 20
"""Bytes that travel in one call, with the working tree itself."""
TREE = 8 << 20
"""Bytes of them that are left to the working tree."""
LEFT_OUT = {"alembic", "datasets", "mlflow-skinny", "sqlalchemy", "submitit", "tensorboard", "trackio", "wandb"}
"""Dependencies that nothing of what runs there imports, and theirs."""
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_27_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64", "manylinux1_x86_64")


def plain(name: str) -> str:
    """A package's name in its canonical spelling."""
    return re.sub(r"[-_.]+", "-", name).lower()


def there() -> set[str]:
    """What need not be packed."""
    lines = (Path(__file__).parent / "there.txt").read_text(encoding="utf-8").splitlines()
    return {plain(line.strip()) for line in lines if line.strip() and not line.startswith("#")}


def needs(name: str) -> Iterator[str]:
    """Names of the packages that a package needs, without those of extras and of other systems."""
    try:
        requirements = distribution(name).requires or []
    except PackageNotFoundError:
        return
    for requirement in requirements:
        found = re.match(r"[A-Za-z0-9._-]+", requirement)
        _, _, marker = requirement.partition(";")
        if found is not None and not re.search(r"extra\s*==|win32|Windows|darwin|Emscripten|emscripten|python_version\s*<", marker):
            yield plain(found[0])


def lacking() -> dict[str, str]:
    """Name and version of every package of others that has to travel."""
    open_ = [plain(d.name) for d in distributions() if plain(d.name).startswith("distillctl")]
    seen, result, known = set(open_), dict[str, str](), there() | LEFT_OUT
    while open_:
        for name in needs(open_.pop()):
            if name in seen or name in known or name.startswith("nvidia-"):
                continue
            seen.add(name)
            open_.append(name)
            try:
                result[name] = distribution(name).version
            except PackageNotFoundError:
                print(f"not installed here, and left out: {name}")
    return dict(sorted(result.items()))


def download(wanted: dict[str, str], folder: Path) -> None:
    """Wheels for Python 3.12 on Linux, each by itself."""
    platforms = [word for name in PLATFORMS for word in ("--platform", name)]
    options = ["--no-deps", "--only-binary=:all:", "--python-version", "3.12", "--implementation", "cp", *platforms]
    exact = [f"{name}=={version}" for name, version in wanted.items()]
    pip = ["uv", "run", "--no-project", "--with", "pip", "python", "-m", "pip"]
    subprocess.run([*pip, "download", "-q", *options, "-d", str(folder), *exact], check=True)


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=ROOT / ".gpu", help="where it goes; whatever is there is removed")
    parser.add_argument("--data", type=Path, nargs="*", default=[], help="files that travel as they are")
    given = parser.parse_args()
    wheels, data = given.folder / "wheels", given.folder / "data"
    shutil.rmtree(given.folder, ignore_errors=True)
    for folder in (wheels, data):
        folder.mkdir(parents=True)
    subprocess.run(["uv", "build", "-q", "--all-packages", "--wheel", "-o", str(wheels)], cwd=ROOT, check=True)
    (wheels / ".gitignore").unlink(missing_ok=True)
    wanted = lacking()
    if wanted:
        download(wanted, wheels)
    for file in given.data:
        shutil.copy2(file, data)
    total = 0
    for folder in (wheels, data):
        sizes = {file.name: file.stat().st_size for file in folder.iterdir()}
        total += sum(sizes.values())
        print(f"{folder.name}: {len(sizes)} files, {sum(sizes.values()) / 2**20:.1f} MiB")
    print("of others:", ", ".join(f"{name} {version}" for name, version in wanted.items()))
    print(f"together {total / 2**20:.1f} MiB of {(MOST - TREE) / 2**20:.0f}")
    if total > MOST - TREE:
        print("too large", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
