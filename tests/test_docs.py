"""The documentation is current: tables equal the code, quoted files equal the files, commands and examples run."""

import contextlib
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from distillctl import cli
from distillctl.plugin.registry import Registry
from distillctl.testing.docs import options_table
from distillctl.testing.tensors import make_batch, make_features, make_progress, make_setup

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
GUIDE = ROOT / "plugins" / "README.md"
PLUGINS = sorted(p.parent for p in ROOT.glob("plugins/distillctl-*/pyproject.toml"))
DOCUMENTS = [README, GUIDE, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", ROOT / "distillctl" / "README.md"]
DOCUMENTS.append(ROOT / "profiles" / "README.md")  # `tests/test_profiles.py` runs its commands
DOCUMENTS += sorted(ROOT.glob("plugins/*/README.md"))
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

# How the test cuts what would take long. Every command of the two READMEs is here, or a test fails.
UNTRAINED = ("--set", "teacher.allow_untrained=true")
SHORT = (
    *("--set", "train.epochs=2", "--set", "dataset.limit=200"),
    *("--set", "teacher.overrides.train.epochs=1", "--set", "teacher.overrides.dataset.limit=200"),
    *UNTRAINED,
)
TWO = (
    *("--set", "train.epochs=1", "--set", "dataset.limit=100"),
    *(
        part
        for n in "01"
        for key in ("overrides.train.epochs=1", "overrides.dataset.limit=200")
        for part in ("--set", f"teacher.{n}.{key}")
    ),
    *("--set", "teacher.0.allow_untrained=true", "--set", "teacher.1.allow_untrained=true"),
)
PHOTOS = ("--set", "train.epochs=1", "--set", "dataset.image_size=32", "--set", "train.workers=0", *UNTRAINED)
CIFAR = (
    *("--set", "train.epochs=1", "--set", "student.name=resnet8", "--set", "method.negatives=64"),
    *("--set", "teacher.overrides.train.epochs=1", "--set", "teacher.overrides.student.name=resnet8"),
    *UNTRAINED,
)
RUN = {
    "distillctl train profiles/quickstart.toml": SHORT,
    "distillctl launch profiles/quickstart.toml --local --wait": SHORT,  # which finds the finished run of the line above
    "distillctl check profiles/quickstart.toml --set train.epochs=2": (),
    "distillctl train profiles/quickstart.toml --set method.temperature=2": SHORT,
    "distillctl train profiles/quickstart.toml --method dkd": SHORT,
    "distillctl train profiles/digits_two_teachers.toml": TWO,
    "distillctl train profiles/digits_two_teachers.toml --set method.kd.teacher_weights=[0.7,0.3]": TWO,
    "distillctl train photos.toml --dry-run": PHOTOS,
    "distillctl train photos.toml": PHOTOS,
    "distillctl eval --tta": (),
    "distillctl eval --model resnet50 --checkpoint my_resnet50.pth --data photos.toml": PHOTOS[2:6],
    "distillctl init imagefolder --out my.toml": (),
    "distillctl show kd": (),
    "distillctl list-methods": (),
    "distillctl check-data profiles/quickstart.toml": (),
    "distillctl bench profiles/quickstart.toml --steps 5": ("--warmup", "1", "--set", "dataset.limit=200"),
    "distillctl measure resnet8 'torchvision/mobilenet_v3_*'": ("--image-size", "32", "--batch", "1"),
    "distillctl train profiles/cifar100/resnet32x4_resnet8x4.toml --method crd": CIFAR,
}
# One after the other: each needs what those before it have left.
JOURNEY = {
    "distillctl check-data photos.toml": (),
    "distillctl train photos.toml --out runs/photos": PHOTOS,
    "distillctl eval runs/photos --tta": (),
    "distillctl predict runs/photos photos/test --top 3 --out answers.csv --sheet answers.png": (),
    "distillctl measure runs/photos torchvision/resnet50 --runtime onnx": ("--image-size", "32"),
    "distillctl export runs/photos": (),
    "distillctl export runs/photos --int8": ("--calibration", "8"),
    "distillctl train photos.toml --set train.quantize=int8 --set student.checkpoint=runs/photos/student.safetensors "
    "--set train.epochs=3 --set optimizer.lr=0.005 --out runs/photos-int8": PHOTOS,
    "distillctl export runs/photos-int8 --int8": ("--calibration", "8"),
}
# The last words of a run that distilled.
FIGURES = ["teacher", "student", "agreement", "size", "time", "file", "run"]
# Commands that another test runs; its file says so in these words.
ELSEWHERE = {
    "distillctl train profiles/quickstart.toml --nproc 2": "tests/cli/test_nproc.py",
    "pip install uv && uv run pytest": ".ci/run",
    'uv run pytest -m "slow or not slow"': ".ci/run",
    "PYTHONPATH=tests/elsewhere uv run pytest": "CONTRIBUTING.md",
    "uv venv && uv pip install --torch-backend=cpu --group dev -e .": "tests/test_docs.py",
    "uv pip install -e plugins/example": "tests/plugin/test_example_package.py",
    "distillctl show mimic": "tests/plugin/test_example_package.py",
    "distillctl train profiles/quickstart.toml --method mimic": "tests/plugin/test_example_package.py",
    "python -m pytest plugins/example": "tests/plugin/test_example_package.py",
}


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def blocks(path: Path, language: str) -> list[str]:
    return [text for kind, text in BLOCK.findall(read(path)) if kind == language]


def after(marker: str) -> str:
    """The block of the README that follows a comment, or what stands between it and its end."""
    text = read(README)
    assert text.count(f"<!-- {marker} -->") == 1, f"README.md has no <!-- {marker} -->"
    rest = text.split(f"<!-- {marker} -->\n")[1]
    end = f"<!-- /{marker} -->"
    if end in rest:
        return rest.split(end)[0].strip("\n")
    found = BLOCK.match(rest.lstrip("\n"))
    assert found, f"a fenced block must follow <!-- {marker} -->"
    return found[2]


def commands() -> list[str]:
    """The commands of the READMEs in their order, each once."""
    lines = [line.strip() for path in (README, GUIDE) for block in blocks(path, "sh") for line in block.splitlines()]
    return list(dict.fromkeys(line for line in lines if line))


def day() -> set[str]:
    """The commands of the researcher's day, which `tests/cli/test_research_day.py` reads and runs."""
    return set(after("day").splitlines())


@dataclass(frozen=True)
class Done:
    """What a command did."""

    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Place:
    """A folder that looks like a user's: profiles, a folder of photos with a teacher, a small CIFAR-100."""

    path: Path

    def run(self, *arguments: str) -> Done:
        """Runs a command in this process, since importing torch anew for each of them would take most of the time."""
        out, err = io.StringIO(), io.StringIO()
        with contextlib.chdir(self.path), redirect_stdout(out), redirect_stderr(err):
            code = cli.run(list(arguments))
        return Done(code, out.getvalue(), err.getvalue())


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    from PIL import Image
    from torchvision.models import resnet50

    path = tmp_path_factory.mktemp("docs")
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setenv("DISTILLCTL_CACHE", str(path / "cache"))
    shutil.copytree(ROOT / "profiles", path / "profiles")
    draw = torch.Generator().manual_seed(0)

    def image(size):
        return Image.fromarray(torch.randint(256, (size, size, 3), dtype=torch.uint8, generator=draw).numpy())

    for split, count in (("train", 10), ("test", 2)):
        for name in ("ash", "birch", "oak"):
            folder = path / "photos" / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                image(40).save(folder / f"{number}.jpg")
    for split in ("train", "test"):
        for number in range(100):
            folder = path / "data" / "cifar100" / split / f"class_{number:02d}"
            folder.mkdir(parents=True)
            image(32).save(folder / "0.png")
    torch.manual_seed(0)
    torch.save(resnet50(num_classes=3).state_dict(), path / "my_resnet50.pth")
    (path / "photos.toml").write_text(after("file: photos.toml"), encoding="utf-8")
    yield Place(path)
    monkeypatch.undo()


@pytest.fixture(scope="module")
def quickstart(place):
    """The run directory of the quickstart, cut short; trained by a program of its own."""
    command = [sys.executable, "-m", "distillctl", "train", "profiles/quickstart.toml", *SHORT]
    done = subprocess.run(command, cwd=place.path, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    (run,) = place.path.glob("runs/quickstart-*")
    return run


# -- tables ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("plugin", PLUGINS, ids=lambda p: p.name)
def test_tables_of_options(plugin):
    registry = Registry.load()
    specs = [spec for p in registry.plugins if p.package == plugin.name for spec in p.provides]
    assert specs, [p.problem for p in registry.plugins if p.package == plugin.name]
    for table in {options_table(spec) for spec in specs}:
        assert table in read(plugin / "README.md"), f"plugins/{plugin.name}/README.md needs this table:\n{table}"


def test_every_package_is_linked():
    text = read(README) + read(GUIDE)
    assert not [p.name for p in PLUGINS if p.name not in text]


def test_small_installation_is_what_uv_understands():
    """`uv venv && uv pip install --torch-backend=cpu --group dev -e .` is not run, since it downloads torch; uv knows its options."""
    program = [os.environ.get("UV") or shutil.which("uv") or "uv", "pip", "install", "--help"]
    done = subprocess.run(program, capture_output=True, text=True, timeout=60, check=True)
    _, found, backends = " ".join(done.stdout.split()).partition("--torch-backend <TORCH_BACKEND>")
    assert found
    assert "values: auto, cpu, " in backends
    assert "--group <GROUP>" in done.stdout
    assert "dev" in tomllib.loads(read(ROOT / "pyproject.toml"))["dependency-groups"]


# -- quoted files ------------------------------------------------------------------------------------------------------


def test_quickstart_profile_is_quoted():
    assert after("file: profiles/quickstart.toml") == read(ROOT / "profiles" / "quickstart.toml")


def test_own_teacher_takes_twelve_lines():
    assert 0 < len(after("file: photos.toml").splitlines()) <= 12


def test_images_without_labels_are_checked(place):
    (place.path / "unlabelled.toml").write_text(after("file: unlabelled.toml"), encoding="utf-8")
    assert "data: no labels; images: train 30, test 6, val carved by seed" in place.run("check", "unlabelled.toml").out


def test_guide_quotes_its_files():
    quoted = re.findall(r"^\[`([^`]+)`\]\(([^)]+)\)\n\n```\w*\n(.*?)^```$", read(GUIDE), re.MULTILINE | re.DOTALL)
    assert all(name == link for name, link, _ in quoted)
    for name, _, text in quoted:
        assert text == read(GUIDE.parent / name), f"plugins/README.md quotes {name}, which has changed"
    example = GUIDE.parent / "example"
    source = {p.relative_to(GUIDE.parent).as_posix() for p in example.rglob("*.py") if p.name != "__init__.py"}
    assert {name for name, _, _ in quoted} == source | {"example/pyproject.toml"}


def test_guide_quotes_a_strangers_task():
    """The task that the guide shows is the one that is tested."""
    stranger = read(ROOT / "tests" / "plugin" / "strangers" / "brightness.py")
    quoted = [text for text in blocks(GUIDE, "py") if "class Regression" in text or "class Errors" in text or "def register_task" in text]
    assert len(quoted) == 3
    assert all(text in stranger for text in quoted)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(path):
    text = BLOCK.sub("", read(path))
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if not link.startswith(("http://", "https://", "#"))]
    assert not [link for link in links if not (path.parent / link.partition("#")[0]).exists()]


@pytest.mark.parametrize("path", [*DOCUMENTS, *sorted(ROOT.glob("profiles/**/*.toml"))], ids=lambda p: p.relative_to(ROOT).as_posix())
def test_nothing_is_said_about_our_machines(path):
    assert not re.findall(r"(?<![\w.])/(?:work|root|home|tmp|Users|mnt|workspace)/\S*|localhost|\b\d+\.\d+\.\d+\.\d+\b", read(path))


# -- what is printed ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_output_of_the_quickstart_is_shown(quickstart, place):
    """Its last lines have the form of the real ones."""
    shown = after("quickstart-output").splitlines()
    real = place.run("train", "profiles/quickstart.toml", *SHORT).out.splitlines()
    for lines in (shown, real):
        heads = [line.split()[0] for line in lines if line.strip()]
        assert [head for head in heads if head in FIGURES][-len(FIGURES) :] == FIGURES


def test_speed_is_told():
    assert len(after("speed")) > 100


def test_mistakes_are_reported_as_shown(place):
    text = read(place.path / "photos.toml").replace('name = "kd"\n', 'name = "kd"\ntemprature = 2\n').replace("epochs", "epoch")
    folder = place.path / "mistakes"
    folder.mkdir()
    (folder / "photos.toml").write_text(text, encoding="utf-8")
    for name in ("photos", "my_resnet50.pth"):
        (folder / name).symlink_to(place.path / name)
    done = Place(folder).run("check", "photos.toml")
    assert done.code == 2, done.out
    assert done.err.strip() == after("mistakes").strip(), f"README.md needs this block:\n{done.err}"


# -- commands and examples ---------------------------------------------------------------------------------------------


def test_no_command_is_left_over():
    shown = {re.sub(r"^.*uv run (?=distillctl)", "", c) for c in commands()}
    assert (set(RUN) | set(JOURNEY) | set(ELSEWHERE) | day()) == shown


@pytest.mark.slow
@pytest.mark.parametrize("command", [command for command in commands() if command not in {*JOURNEY, *day()}])
def test_command(command, place, quickstart):
    line = re.sub(r"^.*uv run (?=distillctl)", "", command)
    if line in ELSEWHERE:
        words = line.removeprefix("pip install uv && ")
        assert words in read(ROOT / ELSEWHERE[line]), f"{ELSEWHERE[line]} does not run `{words}`"
        return
    assert line in RUN, f"say in RUN how the test runs `{line}`"
    program, *arguments = shlex.split(line)
    assert program == "distillctl"
    done = place.run(*arguments, *RUN[line])
    assert done.code == 0, done.err
    assert done.out
    assert not done.err, "a command that works says nothing on stderr"


@pytest.mark.slow
def test_from_a_folder_to_a_file(place):
    """The engineer's way, in at most ten commands."""
    lines = after("journey").splitlines()
    assert len(lines) <= 10
    assert lines == list(JOURNEY)
    for line in lines:
        done = place.run(*shlex.split(line)[1:], *JOURNEY[line])
        assert done.code == 0, f"{line}\n{done.err}"
        assert done.out
        assert not done.err, f"{line}\n{done.err}"
    for written in ("answers.csv", "answers.png", "runs/photos/export/student.onnx", "runs/photos-int8/export/student-int8.onnx"):
        assert (place.path / written).is_file()


@pytest.mark.slow
def test_python_of_the_readme(quickstart, place, monkeypatch):
    """Both examples: train, which finds the run of the quickstart, and load its student without distillctl."""
    monkeypatch.chdir(place.path)
    student, training = blocks(README, "python")
    cut = [f'"{value}"' for value in SHORT[1::2]]
    assert training.count('"train.epochs=2"') == 1
    training = training.replace('"train.epochs=2"', ", ".join(cut))
    student, replaced = re.subn(r"runs/quickstart-[0-9a-f]{8}", str(quickstart), student)
    assert replaced == 1
    names: dict[str, object] = {}
    exec(compile(training, "README.md", "exec"), names)
    other: dict[str, object] = {}
    exec(compile(student, "README.md", "exec"), other)
    assert "import distillctl\n" not in student
    first, second = names["model"].state_dict(), other["model"].state_dict()
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_python_of_the_guide():
    """The method that is sketched beside the walk-through works."""
    quoted = {read(p) for p in (GUIDE.parent / "example").rglob("*.py")}
    (sketch,) = [text for text in blocks(GUIDE, "python") if text not in quoted]
    names: dict[str, object] = {}
    exec(compile(sketch, "plugins/README.md", "exec", dont_inherit=True), names)
    method_class, options = names["Hint"], names["Options"]()
    wants = method_class.wants(options)
    setup = make_setup(dict.fromkeys(wants.student, (4, 3, 3)), dict.fromkeys(wants.teacher, (6, 3, 3)), 5, 20)
    method = method_class(options, setup)
    student, teacher = make_features(setup.student, 2, 0), make_features(setup.teacher, 2, 1)
    terms = method.terms(make_batch(setup, 2, 0), student, teacher, make_progress())
    expected = (method.adapt(student["last"]) - teacher["last"]).square().mean()
    torch.testing.assert_close(terms[""], expected)
