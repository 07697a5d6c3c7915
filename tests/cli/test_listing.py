"""`list-*`, `plugins`, `--help`, `--version`, and how wrong command lines are answered."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import pytest

from distillctl import ModelSpec, __version__, hookimpl
from distillctl.cli import join_tta, main, run
from distillctl.cli.app import COMMANDS
from distillctl.plugin.catalog import Plugin
from distillctl.plugin.registry import Registry


def shell(*arguments, **options):
    """The command in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "distillctl", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        stdin=subprocess.DEVNULL,
        **options,
    )


@pytest.fixture
def registry(monkeypatch):
    """The built-ins and two made-up plugins, one of them broken."""

    @hookimpl
    def register_model():
        return ModelSpec(
            name="evil",
            namespace="zoo",
            summary="[bold]not markup[/bold]\nsecond line",
            paper="\x1b[31m\u202egnp\x9b2J",
            implementation="nowhere:nothing",
        )

    made = type("Made", (), {"register_model": staticmethod(register_model)})
    original = Registry.load

    def load(environment=None, own_commands=()):
        registry = original({"DISTILLCTL_PLUGINS": ""})
        registry.add(Plugin("made", "package-made", "2.0"), lambda: made)
        registry.add(Plugin("ill", "package-ill", "3.1"), lambda: 1 / 0)
        return registry

    monkeypatch.setattr(Registry, "load", staticmethod(load))
    return load()


class TestLists:
    @pytest.mark.parametrize(("command", "key", "name"), [("list-methods", "methods", "kd"), ("list-models", "models", "resnet18")])
    def test_json(self, registry, capsys, command, key, name):
        assert run([command, "--json"]) == 0
        data = json.loads(capsys.readouterr().out)
        entry = next(e for e in data[key] if e["name"] == name)
        more = {"parameters", "classes"} if key == "models" else set()
        assert set(entry) == {"name", "kind", "summary", "paper", "package", "version", "qualified", *more}
        assert (entry["package"], entry["version"]) == ("distillctl", __version__)
        ill = [p for p in data["problems"] if p["package"] == "package-ill"]
        assert ill == [{"plugin": "ill", "package": "package-ill", "version": "3.1", "reason": "ZeroDivisionError: division by zero"}]

    def test_methods(self, registry, capsys):
        assert run(["list-methods"]) == 0
        out = capsys.readouterr().out
        assert re.search(r"^name +kind +summary +paper +package +version$", out, re.MULTILINE)
        assert re.search(rf"^kd +logits +match .* arXiv 1503.02531 +distillctl +{__version__}$", out, re.MULTILINE)
        assert out.rstrip().endswith("package-ill (ill) 3.1: ZeroDivisionError: division by zero")

    @pytest.mark.parametrize("arguments", [["list-models"], ["list-models", "--json"], ["show", "evil"], ["show", "evil", "--json"]])
    def test_texts_cannot_steer_the_terminal(self, registry, capsys, arguments):
        assert run(arguments) == 0
        out = capsys.readouterr().out
        assert all(c.isprintable() or c == "\n" for c in out)
        assert ("\\u001b[31m\\u202egnp\\u009b2J" if "--json" in arguments else "\\x1b[31m\\u202egnp\\x9b2J") in out
        if "--json" in arguments:
            data = json.loads(out)
            entries = data["found"] if "found" in data else data["models"]
            assert next(e for e in entries if e["name"] == "evil")["paper"] == "\x1b[31m\u202egnp\x9b2J"

    def test_parameters_of_models(self, registry, capsys, monkeypatch):
        """Where a package says them; a footnote says with how many classes."""
        monkeypatch.setenv("COLUMNS", "80")
        assert run(["list-models"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert max(map(len, lines)) <= 80
        assert re.fullmatch(r"name +parameters +summary", lines[0])
        found = {line.split()[0]: line for line in lines if line}
        assert re.fullmatch(r"resnet18 +11,689,512  ResNet", found["resnet18"])
        assert found["resnet18"].index("2  ResNet") == found["vit_h_14"].index("0  vision"), "the last digits stand below each other"
        assert re.fullmatch(r"evil +\[bold\].*", found["evil"])
        assert "parameters: with 1000 classes (distillctl)" in lines
        assert run(["list-models", "--json"]) == 0
        rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)["models"]}
        assert [(rows[name]["parameters"], rows[name]["classes"]) for name in ("resnet18", "evil")] == [(11_689_512, 1000), (None, None)]
        assert run(["list-models", "evil"]) == 0
        assert "parameters" not in capsys.readouterr().out

    def test_on_a_terminal_nothing_is_taken_for_markup(self, registry, capsys, monkeypatch):
        monkeypatch.setattr("distillctl.cli.render.on_terminal", lambda: True)
        monkeypatch.setenv("COLUMNS", "200")
        assert run(["list-models"]) == 0
        assert "[bold]not markup[/bold] second line" in capsys.readouterr().out

    def test_plugins(self, registry, capsys):
        assert run(["plugins", "--json"]) == 0
        data = json.loads(capsys.readouterr().out)
        rows = {p["name"]: p for p in data["plugins"]}
        assert rows["optimizers"]["provides"] == {"optimizers": ["adamw", "sgd"]}
        assert rows["made"]["provides"] == {"models": ["zoo/evil"]}
        assert rows["ill"]["problem"] == "ZeroDivisionError: division by zero"
        assert run(["plugins"]) == 0
        out = capsys.readouterr().out
        assert re.search(r"^optimizers +distillctl +\S+ +optimizers: adamw, sgd$", out, re.MULTILINE)
        assert "package-ill (ill) 3.1: ZeroDivisionError" in out

    @pytest.mark.parametrize(
        ("arguments", "inside", "outside"),
        [
            (["list-models", "resnet"], {"resnet18", "wide_resnet50_2"}, {"vgg13", "evil"}),
            (["list-models", "RESNET18"], {"resnet18"}, {"resnet34"}),
            (["list-models", "resnet*"], {"resnet18", "resnet34"}, {"wide_resnet50_2"}),
            (["list-models", "zoo/*"], {"evil"}, {"resnet18"}),
            (["list-models", "--package", "package-made"], {"evil"}, {"resnet18"}),
            (["list-methods", "--kind", "labels"], {"none"}, {"kd"}),
        ],
    )
    def test_some_of_them(self, registry, capsys, arguments, inside, outside):
        assert run([*arguments, "--json"]) == 0
        data = json.loads(capsys.readouterr().out)
        names = {row["name"] for row in data[arguments[0].removeprefix("list-")]}
        assert inside <= names
        assert not outside & names
        assert run(arguments) == 0
        assert all(re.search(rf"^{name} ", capsys.readouterr().out, re.MULTILINE) for name in sorted(inside)[:1])

    def test_none_of_them(self, registry, capsys):
        assert run(["list-models", "nothing-like-it"]) == 0
        assert "no models are called like `nothing-like-it`" in capsys.readouterr().out
        assert run(["list-methods", "--kind", "logic"]) == 2
        assert "no methods are of the kind `logic`" in capsys.readouterr().err
        assert run(["list-models", "--package", "nobody"]) == 2
        assert "no models are of the package `nobody`" in capsys.readouterr().err

    def test_nothing_installed(self, monkeypatch, capsys):
        monkeypatch.setattr(Registry, "load", staticmethod(lambda environment=None, own_commands=(): Registry()))
        assert run(["list-datasets"]) == 0
        assert capsys.readouterr().out == "no datasets are installed\n"


class TestCommandLine:
    def test_version(self, capsys):
        assert run(["--version"]) == 0
        assert capsys.readouterr().out == f"distillctl {__version__}\n"

    def test_help_lists_every_command(self, capsys):
        for arguments in (["--help"], []):
            assert run(arguments) == 0
            out = capsys.readouterr().out
            for name, command in COMMANDS.items():
                assert re.search(rf"^  {name} +{re.escape(command.summary)}$", out, re.MULTILINE)

    @pytest.mark.parametrize("name", COMMANDS)
    def test_every_help_has_two_examples(self, name, capsys):
        assert run([name, "--help"]) == 0
        out = capsys.readouterr().out
        examples = [line.strip() for line in out.split("Examples:\n")[1].splitlines() if line.strip()]
        assert len(examples) == 2
        assert all(f"distillctl {name}" in e for e in examples)

    @pytest.mark.parametrize(
        ("arguments", "message", "hint"),
        [
            (["trian"], "no command is called `trian`", "did you mean `train` or `tracin`? `distillctl --help`"),
            (
                ["list-method"],
                "no command is called `list-method`",
                "did you mean `list-methods` or `list-models`? `distillctl --help` lists all",
            ),
            (["\x1b[31m"], "no command is called `\\x1b[31m`", "`distillctl --help` lists all"),
            (["list-methods", "--jsn"], "no option is called `--jsn`", "did you mean `--json`? `distillctl list-methods --help`"),
            (["list-methods", "a", "b"], "got unexpected extra argument", "`distillctl list-methods --help`"),
            (["check"], "missing argument", "`distillctl check --help`"),
            (["check", "a.toml", "--seed", "x"], "invalid value for `--seed`", "`distillctl check --help`"),
            (["check", "a.toml", "--set"], "option `--set` requires an argument", "`distillctl check --help`"),
            (["--nope"], "no option is called `--nope`", "`distillctl --help`"),
            (["train", "a.toml", "--epochs", "3"], "no option is called `--epochs`", "`distillctl train --help`"),
        ],
    )
    def test_wrong_ones(self, capsys, arguments, message, hint):
        assert run(arguments) == 2
        out, error = capsys.readouterr()
        assert out == ""
        first, last = error.rstrip().split("\n\n")
        assert first.startswith(f"error: {message}")
        assert not first.endswith(".")
        assert last.startswith("hint: ")
        assert hint in last

    def test_main_exits_with_the_code(self, capsys):
        with pytest.raises(SystemExit) as caught:
            main(["trian"])
        assert caught.value.code == 2
        with pytest.raises(SystemExit) as caught:
            main(["--version"])
        assert caught.value.code == 0

    def test_interrupting(self, monkeypatch, capsys):
        def interrupt(environment=None, own_commands=()):
            raise KeyboardInterrupt

        monkeypatch.setattr(Registry, "load", staticmethod(interrupt))
        assert run(["list-methods"]) == 130
        assert capsys.readouterr().err == "interrupted\n"

    def test_bugs_keep_their_traceback(self, monkeypatch):
        def bug(environment=None, own_commands=()):
            raise ZeroDivisionError("of the test")

        monkeypatch.setattr(Registry, "load", staticmethod(bug))
        with pytest.raises(ZeroDivisionError, match="of the test"):
            run(["list-methods"])

    @pytest.mark.parametrize(
        ("given", "joined"),
        [
            (["eval", "--tta"], ["eval", "--tta=auto"]),
            (["eval", "--tta", "flip"], ["eval", "--tta=flip"]),
            (["eval", "--tta", "five_crop"], ["eval", "--tta=five_crop"]),
            (["eval", "--tta", "multi_scale", "runs/a"], ["eval", "--tta=multi_scale", "runs/a"]),
            (["eval", "--tta", "ten_crop", "runs/a"], ["eval", "--tta=ten_crop", "runs/a"]),
            (["eval", "--tta", "runs/a"], ["eval", "--tta=auto", "runs/a"]),
            (["eval", "--tta", "--json"], ["eval", "--tta=auto", "--json"]),
            (["eval", "--tta=flip", "flip"], ["eval", "--tta=flip", "flip"]),
            (["train", "--tta", "flip"], ["train", "--tta", "flip"]),
            ([], []),
        ],
    )
    def test_tta(self, given, joined):
        assert join_tta(given) == joined


class TestProcesses:
    def test_terminated(self):
        code = (
            "import os, signal, distillctl.cli as cli\n"
            "cli.run = lambda arguments: os.kill(os.getpid(), signal.SIGTERM)\n"
            "cli.main([])\n"
        )  # fmt: skip
        assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 143

    def test_reader_that_has_seen_enough(self):
        with subprocess.Popen(
            [sys.executable, "-m", "distillctl", "list-models"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            process.stdout.close()
            error = process.stderr.read()
            process.wait(60)
        assert error == ""
        assert process.returncode == 141

    def test_locale_that_lacks_a_character(self):
        """The formula of `kd` has one that Windows' and Latin-1 locales cannot show."""
        done = shell("show", "kd", env={**os.environ, "PYTHONIOENCODING": "latin-1"}, encoding="latin-1")
        assert (done.returncode, done.stderr) == (0, "")
        assert "\\u2016" in done.stdout

    def test_closed_stdout(self):
        command = f'"{sys.executable}" -m distillctl list-methods >&-'
        done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=120, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")

    @pytest.mark.parametrize(
        ("arguments", "heavy"),
        [
            ("['--help'], ['train', '--help'], ['eval', '--help'], ['bench', '--help']", "torch pydantic"),
            ("['list-methods'], ['list-models', '--json'], ['list-datasets'], ['plugins']", "torch rich toml"),
            ("['plugins'], ['plugins', '--json']", "torch pydantic rich toml"),
            ("['show', 'kd'], ['show', 'resnet18']", "torch rich toml"),
            ("['check', 'none.toml'], ['init', 'nothing']", "torch rich toml"),
            ("['train', 'none.toml'], ['bench', 'none.toml'], ['launch', 'none.toml'], ['eval', 'nowhere']", "torch rich"),
            ("['check-data', 'none.toml']", "torch rich"),
            ("['compare', 'nowhere']", "torch rich numpy scipy"),
        ],
    )
    def test_light_commands_import_nothing_heavy(self, arguments, heavy):
        code = "import sys\nfrom distillctl.cli import run\nfor a in ARGUMENTS: run(a)\nprint([m for m in HEAVY if m in sys.modules])"
        code = code.replace("ARGUMENTS", f"[{arguments}]").replace("HEAVY", repr(heavy.split()))
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
        assert done.stdout.splitlines()[-1] == "[]", done.stdout[-500:] + done.stderr

    def test_as_a_module(self):
        done = shell("--version")
        assert (done.stdout, done.stderr, done.returncode) == (f"distillctl {__version__}\n", "", 0)
