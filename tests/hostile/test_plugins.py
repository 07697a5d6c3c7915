"""Bad plugins, installed as pip would install them: the command line works for all the rest, and names the culprit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap

import pytest

GOOD = """
from distillctl import MethodSpec, hookimpl

@hookimpl
def register_method():
    return MethodSpec(name="{name}", kind="logits", summary="for tests", implementation="nowhere:Nothing"{more})
"""
HOOK = "from distillctl import hookimpl, MethodSpec\n@hookimpl\ndef register_method():\n"


def good(name, more=""):
    return GOOD.format(name=name, more=more)


def returns(expression):
    return f"{HOOK}    return {expression}\n"


# name: (code of the entry point's module, how the reason begins). Those that also provide a method provide one of their own name.
REFUSED = {
    "syntax": ("def broken(:\n    pass", "SyntaxError: "),
    "indentation": ("if True:\npass", "IndentationError: "),
    "nulls": ("x = 1\0", "SyntaxError: |ValueError: "),
    "encoding": (b"x = 'caf\xe9'", "SyntaxError: "),
    "missing": ("import no_such_module_at_all", "ModuleNotFoundError: No module named 'no_such_module_at_all'"),
    "exits": ("import sys\nsys.exit(3)", "it ends the program while it is imported (exit code 3)"),
    "exits_well": ("raise SystemExit", "it ends the program while it is imported (exit code None)"),
    "raises": ("raise RuntimeError('first line\\nsecond line')", "RuntimeError: first line"),
    "odd": ("class Odd(BaseException): pass\nraise Odd('strange')", "Odd: strange"),
    "stops": ("raise GeneratorExit", "GeneratorExit"),
    "mute": ("class Mute(Exception):\n    def __str__(self): return 1 / 0\nraise Mute", "Mute"),
    "long_winded": ("raise RuntimeError('x' * 10**7)", "RuntimeError: xxx"),
    "red": ("raise RuntimeError('\\x1b[31mred\\x07')", "RuntimeError: \\x1b[31mred\\x07"),
    "deep": ("def f(): f()\nf()", "RecursionError: "),
    "memory": ("x = bytearray(1 << 62)", "MemoryError"),
    "newer": ("DISTILLCTL_API = 2\n" + good("newer"), "it is written for version 2 of the plugin interface; this distillctl has 1"),
    "nonsense_version": ("DISTILLCTL_API = 'one'\n" + good("nonsense_version"), "it is written for version 'one'"),
    "no_hook": ("x = 1", "it implements no hook; is `@hookimpl` missing?"),
    "misspelt": (good("misspelt").replace("register_method", "register_methods"), "it implements a hook that does not exist: "),
    "arguments": (good("arguments").replace("register_method()", "register_method(registry)"), "PluginValidationError: "),
    "fails": (returns("1 / 0"), "ZeroDivisionError: division by zero"),
    "too_many": (
        "from collections.abc import Sequence\nclass All(Sequence):\n    __len__ = None\n    def __getitem__(self, i): return i\n"
        + returns("All()"),
        "a hook returns more than 10000 specs",
    ),
    "no_length": (
        "class Bad(list):\n    def __iter__(self): raise OSError('no list')\n" + returns("Bad()"),
        "OSError: no list",
    ),
}  # fmt: skip
EMPTY = {
    "nothing": (returns("None"), "a hook returned 'NoneType' instead of a spec"),
    "text": (returns("'kd'"), "a hook returned 'str' instead of a spec"),
    "table": (returns("{'name': 'x'}"), "a hook returned 'dict' instead of a spec"),
    "junk": (returns("[1, 2.0, None]"), "a hook returned 'int' instead of a spec; "),
    "generates": (f"{HOOK}    yield 1\n    raise RuntimeError", "a hook returned 'generator' instead of a spec"),
    "class_itself": (returns("MethodSpec"), "a hook returned 'type' instead of a spec"),
    "subclass": (
        "from distillctl import MethodSpec as M\nclass Own(M): pass\n"
        + returns("Own(name='x', kind='logits', summary='s', implementation='a:b')"),
        "a hook returned 'Own' instead of a spec",
    ),
    "same_name": (good("honest"), "the method `honest` is already provided by package-honest"),
    "built_in": (good("kd"), "the method `kd` is already provided by distillctl"),
    "nameless": (good(""), "MethodSpec without a `name`"),
    "ansi": (good("\\x1b[31mred"), "MethodSpec with a name that is no name, '\\x1b[31mred'"),
    "newline": (good("a\\nb"), "MethodSpec with a name that is no name"),
    "right_to_left": (good("a\\u202eb"), "MethodSpec with a name that is no name"),
    "path": (good("../../etc/passwd"), "MethodSpec with a name that is no name"),
    "endless_name": (good("x" * 5000), "MethodSpec with a name that is no name"),
    "namespace": (good("x", ", namespace='a b'"), "MethodSpec with a name that is no name"),
    "form": (good("form").replace("nowhere:Nothing", "nowhere.Nothing"), "the implementation of `form` is not of the form"),
    "code": (good("code").replace("nowhere:Nothing", "os:system('x')"), "the implementation of `code` is not of the form"),
    "options_form": (good("options_form", ", options='no'"), "the options of `options_form` is not of the form"),
    "kind": (good("kind").replace("logits", "magic"), "`kind` of `kind` is not of the type that MethodSpec declares"),
    "weight": (good("weight", ", weight='heavy'"), "`weight` of `weight` is not of the type"),
    "paper": (good("paper", ", paper=None"), "`paper` of `paper` is not of the type"),
    "aliases": (good("aliases", ", aliases='ab'"), "`aliases` of `aliases` is not of the type"),
    "presets": (good("presets", ", presets=({'weight': 1},)"), "`presets` of `presets` is not of the type"),
    "preset": (
        "from distillctl import Preset\n" + good("preset", ", presets=(Preset(values={'weight': 1}, dataset=3),)"),
        "`presets.dataset` of `preset` is not of the type",
    ),
}  # fmt: skip
# What they write goes to stderr, and they work.
LOUD = {
    "prints": "print('hello\\nthere')",
    "floods": "for _ in range(200): print('x' * 10_000)",
    "speaks_by_programs": "import os\nos.system('echo loud')\nos.write(1, b'louder')",
    "speaks_past": "import sys\nprint('past', file=sys.__stdout__)",
    "speaks_at_the_end": "import atexit, os\natexit.register(print, 'bye')\natexit.register(os.system, 'echo bye')",
    "complains": "import sys\nprint('careful', file=sys.stderr)",
    "logs": "import logging\nlogging.basicConfig()\nlogging.warning('early')",
    "looks_at_streams": (
        "import faulthandler, sys\nassert sys.stdout.encoding and sys.stderr.errors and sys.stdout.name\nfaulthandler.enable()\n"
        "sys.stdout.reconfigure(line_buffering=True)\nassert (sys.stdout.fileno(), sys.stderr.fileno()) == (1, 2)\n"
        "sys.stdout.buffer.write(b'')"
    ),
    "threads": "import threading, time\nthreading.Thread(target=time.sleep, args=(60,), daemon=True).start()",
    "uses_threads": "print('beside a thread')",
    "well_behaved": "DISTILLCTL_API = 1",
}
ALL = {**REFUSED, **EMPTY}


def install(folder, name, code, package=""):
    """A package as pip would have installed it."""
    (folder / f"plugin_{name}.py").write_bytes(code if isinstance(code, bytes) else code.encode())
    info = folder / f"package_{name}-1.5.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package or f'package-{name}'}\nVersion: 1.5\n")
    (info / "entry_points.txt").write_text(f"[distillctl]\n{name} = plugin_{name}\n")
    return info


def shell(folder, *arguments, script=None):
    """A command in a process of its own, which finds the packages in `folder`."""
    environment = {
        **os.environ,
        "HOME": str(folder),
        "PYTHONPATH": str(folder),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    command = [sys.executable, "-c", script] if script else [sys.executable, "-m", "distillctl", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=False, env=environment, cwd=folder, stdin=subprocess.DEVNULL
    )


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    """All bad packages, with good ones whose entry points come first and last."""
    folder = tmp_path_factory.mktemp("packages")
    install(folder, "a_good", good("good"))
    install(folder, "honest", good("honest"))
    for name, (code, _) in ALL.items():
        install(folder, name, code)
    for name, code in LOUD.items():
        install(folder, name, f"{code}\n{good(name)}")
    install(folder, "zz_good", good("good_too"))
    (folder / "nowhere_to.dist-info").mkdir()
    (folder / "nowhere_to.dist-info" / "entry_points.txt").write_text("[distillctl]\nlost = no.such.module:thing\nform = ???\n")
    return folder


@pytest.fixture(scope="module")
def listed(packages):
    """What `list-methods --json` gives with all of them installed."""
    done = shell(packages, "list-methods", "--json")
    assert done.returncode == 0, done.stderr
    for words in ("hello\nthere\n", "xxx", "loud\n", "louder", "past\n", "careful\n", "WARNING:root:early\n", "beside a thread\n"):
        assert words in done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", ALL)
def test_each_is_named_with_package_and_reason(listed, name):
    found = [p for p in listed["problems"] if p["plugin"] == name and p["package"] == f"package-{name}"]
    (problem,) = found
    assert any(problem["reason"].startswith(e) for e in ALL[name][1].split("|")), problem["reason"]
    assert problem["reason"].isprintable()
    assert len(problem["reason"]) < 500


def test_everything_else_works(listed):
    names = {entry["name"] for entry in listed["methods"]}
    assert {"kd", "none", "crd", "dkd", "good", "good_too", "honest"} | set(LOUD) <= names
    assert not names & (set(REFUSED) | set(EMPTY))
    assert next(e for e in listed["methods"] if e["name"] == "honest")["package"] == "package-honest"
    assert {p["reason"].partition(":")[0] for p in listed["problems"] if p["package"] == "unknown package"} >= {"ModuleNotFoundError"}


def test_the_other_commands_work(packages):
    (packages / "p.toml").write_text('[dataset]\nname = "digits"\n[student]\nname = "resnet8"\n[train]\nepochs = 1\n')
    for arguments, code, text in (
        (["plugins"], 0, "package-exits (exits) 1.5: it ends the program while it is imported (exit code 3)"),
        (["check", "p.toml"], 0, "ok: p.toml has no problems"),
        (["check", "p.toml", "--method", "exits"], 2, "no method is called `exits`"),
    ):
        done = shell(packages, *arguments)
        assert done.returncode == code, done.stderr
        assert text in done.stdout + done.stderr
        assert all(c.isprintable() or c == "\n" for c in done.stdout + done.stderr)


def test_a_list_of_entry_points_that_cannot_be_read(tmp_path):
    """It spoils the list of all packages for `importlib.metadata`."""
    install(tmp_path, "a_good", good("good"))
    for name, content in (("cut", b"[distillctl]\ncut\n"), ("bytes", b"\xff\xfe[distillctl]\n")):
        (install(tmp_path, name, "") / "entry_points.txt").write_bytes(content)
    done = shell(tmp_path, "list-methods", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    data = json.loads(done.stdout)
    assert {"good", "kd", "crd"} <= {entry["name"] for entry in data["methods"]}
    assert {p["package"]: p["reason"].partition(":")[0] for p in data["problems"]} == dict.fromkeys(
        ["package-cut", "package-bytes"], "its `entry_points.txt` cannot be read"
    )


def test_packages_with_hostile_names(tmp_path):
    install(tmp_path, "a", "1 / 0", package="red\x1b[31m\u202e")
    for command in ("plugins", "list-models"):
        done = shell(tmp_path, command)
        assert "red\\x1b[31m\\u202e (a) 1.5: ZeroDivisionError" in done.stdout
        assert "\x1b" not in done.stdout


def test_implementations_that_cannot_be_loaded(tmp_path):
    """The name is listed, and what uses it says whose fault it is."""
    codes = {
        "absent": None, "raising": "raise RuntimeError('no\\x1b[31m luck')", "leaving": "import sys\nsys.exit(0)", "empty": "",
        "aborting": "class A(BaseException): pass\nraise A",
    }  # fmt: skip
    for name, code in codes.items():
        install(tmp_path, name, good(name, f", options='inner_{name}:Options', needs_teacher=False"))
        if code is not None:
            (tmp_path / f"inner_{name}.py").write_text(code)
    (tmp_path / "p.toml").write_text('[dataset]\nname = "digits"\n[student]\nname = "resnet8"\n[train]\nepochs = 1\n')
    script = """
    from distillctl.cli import run
    for name in {names}:
        assert run(["show", name]) == 2, name
        assert run(["check", "p.toml", "--method", name]) == 2, name
    """
    done = shell(tmp_path, script=textwrap.dedent(script).format(names=list(codes)))
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert "Traceback" not in done.stderr
    assert "\x1b" not in done.stderr
    for name, why in {
        "absent": "No module named 'inner_absent'", "raising": "RuntimeError: no\\x1b[31m luck", "leaving": "it ends the program",
        "empty": "has no attribute 'Options'", "aborting": "A",
    }.items():  # fmt: skip
        assert done.stderr.count(f"error: `{name}` cannot be loaded from `inner_{name}:Options`: ") == 2
        assert why in done.stderr


def test_what_options_print_stays_out_of_json(tmp_path):
    install(tmp_path, "talks", good("talks", ", options='inner_talks:Talks'"))
    (tmp_path / "inner_talks.py").write_text("from distillctl import Options\nprint('inner')\nclass Talks(Options): pass\n")
    done = shell(tmp_path, "show", "talks", "--json")
    assert (done.returncode, done.stderr) == (0, "inner\n")
    assert json.loads(done.stdout)["found"][0]["name"] == "talks"


def test_there_are_enough_of_them():
    assert len(ALL) >= 15
