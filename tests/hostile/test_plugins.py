"""Bad plugins, installed as pip would install them: the command line works for all the rest, in time, and names the culprit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import time

import pytest

from distillctl import PluginError
from distillctl.plugin.registry import Registry

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
    "interrupts": ("raise KeyboardInterrupt", "it raises KeyboardInterrupt"),
    "stops": ("raise GeneratorExit", "GeneratorExit"),
    "mute": ("class Mute(Exception):\n    def __str__(self): return 1 / 0\nraise Mute", "Mute"),
    "long_winded": ("raise RuntimeError('x' * 10**7)", "RuntimeError: xxx"),
    "red": ("raise RuntimeError('\\x1b[31mred\\x07')", "RuntimeError: \\x1b[31mred\\x07"),
    "deep": ("def f(): f()\nf()", "RecursionError: "),
    "deeper": ("import sys\nsys.setrecursionlimit(3000)\ndef f(): f()\nf()", "RecursionError: "),
    "memory": ("x = bytearray(1 << 62)", "MemoryError"),
    "endless": ("while True: pass", "its import was stopped after 1 s; `DISTILLCTL_PLUGIN_TIMEOUT` allows more"),
    "sleeps": ("import time\ntime.sleep(3600)", "its import was stopped after 1 s"),
    "stubborn": (
        "import time\nwhile True:\n    try: time.sleep(3600)\n    except Exception: pass",
        "its import was stopped after 1 s",
    ),
    "endless_hook": (f"{HOOK}    while True: pass", "its import was stopped after 1 s"),
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
NOTED = {
    "prints": ("print('hello\\nthere')", "it prints while it is imported: 'hello'"),
    "prints_red": ("print('\\x1b[31mred')", "it prints while it is imported: '\\x1b[31mred'"),
    "floods": ("for _ in range(200): print('x' * 10_000)", "it prints while it is imported: 'xxx"),
    "complains": ("import sys\nprint('careful', file=sys.stderr)", "it prints while it is imported: 'careful'"),
    "warns": ("import warnings\nwarnings.warn('old')", "it prints while it is imported: "),
    "moves": ("import os\nos.chdir('/')", "it changes the working directory while it is imported"),
    "sets": (
        "import os\nos.environ['HOME'] = '/nowhere'\nos.environ['NEW'] = 'x'",
        "it changes the environment while it is imported: `HOME`",
    ),
    "unsets": ("import os\nos.environ.clear()", "it changes the environment while it is imported: "),
    "deaf": ("import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)", "it sets a handler for SIGINT"),
    "immortal": ("import signal\nsignal.signal(signal.SIGTERM, lambda *_: None)", "it sets a handler for SIGTERM"),
    "alarms": ("import signal\nsignal.signal(signal.SIGALRM, lambda *_: None)\nsignal.alarm(1)", "it sets a handler for SIGALRM"),
    "strict": ("import warnings\nwarnings.simplefilter('error')", "it changes the filters of all warnings"),
    "careless": ("import warnings\nwarnings.resetwarnings()", "it changes the filters of all warnings"),
    "hooks": ("import sys\nsys.excepthook = lambda *_: None", "it sets `sys.excepthook`"),
    "recursion": ("import sys\nsys.setrecursionlimit(10**6)", "it sets the recursion limit"),
    "threads": (
        "import threading, time\nthreading.Thread(target=time.sleep, args=(3600,)).start()",
        "it starts a thread while it is imported",
    ),
    "pools": (
        "import time\nfrom concurrent.futures import ThreadPoolExecutor\nThreadPoolExecutor(1).submit(time.sleep, 3600)",
        "it starts a thread while it is imported",
    ),
    "speaks_by_programs": ("import os\nos.system('echo loud')\nos.write(1, b'louder')", ""),
    "speaks_past": ("import sys\nprint('past', file=sys.__stdout__)", ""),
    "speaks_at_the_end": ("import atexit, os\natexit.register(print, 'bye')\natexit.register(os.system, 'echo bye')", ""),
    "looks_at_streams": (
        "import sys\nassert sys.stdout.encoding.lower() == 'utf-8' and sys.stderr.errors and sys.stdout.name\n"
        "sys.stdout.reconfigure(line_buffering=True)\nassert (sys.stdout.fileno(), sys.stderr.fileno()) == (1, 2)\n"
        "assert not sys.stdout.isatty()\nsys.stdout.buffer.write(b'')\nimport faulthandler\nfaulthandler.enable()",
        "",
    ),
    "impatient": ("import warnings\nwarnings.filterwarnings('ignore', category=FutureWarning)", "it changes the filters of all warnings"),
    "steals_stdout": ("import io, sys\nsys.stdout = io.StringIO()", ""),
    "well_behaved": (
        "DISTILLCTL_API = 1\nimport warnings\nclass Own(Warning): pass\nwarnings.simplefilter('always', Own)\n"
        "warnings.filterwarnings('ignore', 'of mine')",
        "",
    ),
}  # fmt: skip
ALL = {**REFUSED, **EMPTY, **{name: (code + good(name), problem) for name, (code, problem) in NOTED.items()}}


def install(folder, name, code, package=""):
    """A package as pip would have installed it."""
    (folder / f"plugin_{name}.py").write_bytes(code if isinstance(code, bytes) else code.encode())
    info = folder / f"package_{name}-1.5.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package or f'package-{name}'}\nVersion: 1.5\n")
    (info / "entry_points.txt").write_text(f"[distillctl]\n{name} = plugin_{name}\n")
    return info


def shell(folder, *arguments, seconds="1", script=None):
    """A command in a process of its own, which finds the packages in `folder`."""
    environment = {
        **os.environ,
        "HOME": str(folder),
        "PYTHONPATH": str(folder),
        "DISTILLCTL_PLUGIN_TIMEOUT": seconds,
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
    install(folder, "zz_good", good("good_too"))
    (folder / "nowhere_to.dist-info").mkdir()
    (folder / "nowhere_to.dist-info" / "entry_points.txt").write_text("[distillctl]\nlost = no.such.module:thing\nform = ???\n")
    return folder


@pytest.fixture(scope="module")
def listed(packages):
    """What `list-methods --json` gives with all of them installed."""
    begin = time.monotonic()
    done = shell(packages, "list-methods", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert time.monotonic() - begin < 30
    told = shell(packages, "plugins", "--json", seconds="0.3")
    assert (told.returncode, told.stderr) == (0, "")
    return {**json.loads(done.stdout), "plugins": json.loads(told.stdout)["plugins"]}


@pytest.mark.parametrize("name", ALL)
def test_each_is_named_with_package_and_reason(listed, name):
    found = [p for p in listed["problems"] if p["plugin"] == name and p["package"] == f"package-{name}"]
    expected = ALL[name][1]
    if name in NOTED:
        assert found == [], "it works"
        found = [{"reason": "; ".join(p["notes"])} for p in listed["plugins"] if p["name"] == name and p["notes"]]
    if not expected:
        assert found == []
        return
    (problem,) = found
    assert any(problem["reason"].startswith(e) for e in expected.split("|")), problem["reason"]
    assert problem["reason"].isprintable()
    assert len(problem["reason"]) < 500


def test_everything_else_works(listed):
    names = {entry["name"] for entry in listed["methods"]}
    assert {"kd", "none", "crd", "dkd", "good", "good_too", "honest"} | set(NOTED) <= names
    assert not names & (set(REFUSED) | set(EMPTY))
    assert next(e for e in listed["methods"] if e["name"] == "honest")["package"] == "package-honest"
    assert {p["reason"].partition(":")[0] for p in listed["problems"] if p["package"] == "unknown package"} >= {"ModuleNotFoundError"}


def test_the_other_commands_work(packages):
    (packages / "p.toml").write_text('[dataset]\nname = "digits"\n[student]\nname = "resnet8"\n[train]\nepochs = 1\n')
    for arguments, code, text in (
        (["plugins"], 0, "package-endless (endless) 1.5: its import was stopped after 0.2 s"),
        (["check", "p.toml"], 0, "ok: p.toml has no problems"),
        (["check", "p.toml", "--method", "endless"], 2, "no method is called `endless`"),
    ):
        done = shell(packages, *arguments, seconds="0.2")
        assert done.returncode == code, done.stderr
        assert text in done.stdout + done.stderr
        assert all(c.isprintable() or c == "\n" for c in done.stdout + done.stderr)


STATE = textwrap.dedent(
    """
    import json, os, signal, sys, threading, warnings
    def state():
        return [os.getcwd(), {**os.environ, "NEW": ""}, [str(signal.getsignal(s)) for s in (2, 14, 15)], sys.getrecursionlimit(),
                str(sys.excepthook), str(sys.stdout), signal.getitimer(signal.ITIMER_REAL), str(threading.Thread.start)]
    before, filters = state(), list(warnings.filters)
    from distillctl.plugin.registry import Registry
    Registry.load()
    after = state()
    assert before == after, [pair for pair in zip(before, after) if pair[0] != pair[1]]
    assert warnings.filters[-len(filters):] == filters, warnings.filters
    assert any(f[1] is not None and f[1].pattern == "of mine" for f in warnings.filters)
    print("ended")
    """
)  # fmt: skip


def test_what_they_change_is_put_back_and_no_thread_keeps_the_program(packages):
    done = shell(packages, script=STATE, seconds="0.3")
    assert (done.returncode, done.stdout, done.stderr) == (0, "ended\nbye\nbye\n", ""), "only with `--json` nothing comes after the end"


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


def test_what_they_do_besides_is_told_by_one_command_alone(packages):
    """A plugin that works is not among the broken ones."""
    told = shell(packages, "plugins", seconds="0.3").stdout
    broken, _, notes = told.partition("\nbroken plugins\n")[2].partition("\nnotes\n")
    assert "  package-impatient (impatient) 1.5: it changes the filters of all warnings while it is imported\n" in notes
    assert "package-impatient" not in broken + shell(packages, "list-methods", seconds="0.3").stdout.partition("\nbroken plugins\n")[2]


def test_a_log_that_is_set_up_at_import_writes_to_the_real_stream(tmp_path):
    code = "import logging, sys\nlogging.basicConfig()\nlogging.warning('early')\nout = sys.stdout\n"
    install(tmp_path, "logs", code + good("logs"))
    script = """
    import logging, sys
    from distillctl.plugin.registry import Registry
    (plugin,) = (p for p in Registry.load().plugins if p.name == "logs")
    assert plugin.notes == ["it prints while it is imported: 'WARNING:root:early'"], plugin.notes
    logging.warning("late")
    import plugin_logs
    print("first")
    print("second", file=plugin_logs.out)
    sys.stdout = plugin_logs.out
    print("third", flush=True)
    """
    done = shell(tmp_path, script=textwrap.dedent(script), seconds="10")
    assert (done.returncode, done.stdout, done.stderr) == (0, "first\nsecond\nthird\n", "WARNING:root:late\n")


SLOW = """
import json.scanner, os, sys, time
from importlib.machinery import EXTENSION_SUFFIXES
open(os.path.join(os.path.dirname(__file__), "_inner" + EXTENSION_SUFFIXES[0]), "w").close()
time.sleep({seconds})
done = True
"""


def test_a_compiled_package_is_not_interrupted(tmp_path):
    """What is half imported of torch or numpy could not be imported again in the same process."""
    (tmp_path / "compiled").mkdir()
    (tmp_path / "compiled" / "__init__.py").write_text(SLOW.format(seconds=1.5))
    install(tmp_path, "slow", "import compiled\n" + good("slow"))
    install(tmp_path, "slower", "import compiled, time\nwhile True: time.sleep(0.1)\n" + good("slower"))
    script = """
    import sys
    from distillctl.plugin.registry import Registry
    registry = Registry.load()
    found = {p.name: p for p in registry.plugins}
    assert "slow" in registry.methods and not found["slow"].problem
    assert found["slow"].notes == ["its import takes more than 0.5 s, in which it imports `compiled`"], found["slow"].notes
    assert found["slower"].problem.startswith("its import was stopped after 0.5 s"), found["slower"]
    assert sys.modules["compiled"].done
    """
    done = shell(tmp_path, script=textwrap.dedent(script), seconds="0.5")
    assert (done.returncode, done.stderr) == (0, "")


def test_a_compiled_package_that_never_ends_ends_the_command(tmp_path):
    (tmp_path / "compiled").mkdir()
    (tmp_path / "compiled" / "__init__.py").write_text(SLOW.format(seconds=3600))
    install(tmp_path, "slow", "import compiled\n" + good("slow"))
    done = shell(tmp_path, "list-methods", seconds="0.3")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: the plugin `slow` still imports `compiled` after 1.8 s\n")
    assert "`DISTILLCTL_PLUGINS` leaves it out" in done.stderr


@pytest.mark.parametrize(
    "code",
    [
        "import collections, itertools\ncollections.deque(itertools.repeat(0), maxlen=0)",
        "import signal\nsignal.signal(signal.SIGALRM, signal.SIG_IGN)\nwhile True: pass",
        "import signal\nsignal.setitimer(signal.ITIMER_REAL, 0)\nwhile True: pass",
    ],
    ids=["a loop in C", "a deaf loop", "a stopped clock"],
)
@pytest.mark.slow
def test_an_import_that_cannot_be_interrupted_ends_the_process(tmp_path, code):
    """Its place is in the traceback."""
    install(tmp_path, "stuck", code)
    done = shell(tmp_path, "list-methods", seconds="0.05")
    assert (done.returncode, done.stdout) == (1, "")
    assert "Timeout" in done.stderr
    assert "plugin_stuck.py" in done.stderr


def test_libraries_are_no_culprits(tmp_path):
    """What they set for their own parts stays: filters of their own warnings, and new variables of the environment."""
    code = "import numpy, safetensors, rich, concurrent.futures, multiprocessing, logging\nimport os\nos.environ['OMP_NEW'] = '1'\n"
    install(tmp_path, "heavy", code + good("heavy"))
    script = """
    import os, warnings
    from distillctl.plugin.registry import Registry
    registry = Registry.load()
    assert "heavy" in registry.methods and not registry.broken, registry.broken
    assert not any(p.notes for p in registry.plugins), registry.plugins
    assert os.environ["OMP_NEW"] == "1"
    assert any(f[2].__module__.startswith("numpy") for f in warnings.filters)
    """
    done = shell(tmp_path, script=textwrap.dedent(script), seconds="60")
    assert (done.returncode, done.stderr) == (0, "")


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


@pytest.mark.parametrize("text", ["soon", "0", "-1", "nan", "inf", "1e9"])
def test_a_time_limit_that_is_none(text):
    with pytest.raises(PluginError, match=f"`DISTILLCTL_PLUGIN_TIMEOUT` must be a number of seconds above 0, not `{text}`"):
        Registry.load({"DISTILLCTL_PLUGIN_TIMEOUT": text})


def test_there_are_enough_of_them():
    assert len(ALL) >= 15
