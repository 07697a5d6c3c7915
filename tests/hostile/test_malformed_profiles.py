"""Malformed profiles, as the command line answers them: exit code 2 within half a second, one message a problem, no traceback.

Most are made by changing one value, key or byte of a profile that is right. What each message says of a made-up registry is tested in
`tests/profile/test_malformed.py`; here the installed plugins are there, and files are as bad as files can be.
"""

from __future__ import annotations

import gc
import gzip
import os
import pickle
import random
import re
import socket
import time
from itertools import product

import pytest

from distillctl.cli import run
from distillctl.plugin.registry import Registry

SECONDS = 0.5
TABLES = {
    "": {"seed": "1"},
    "dataset": {"name": '"digits"', "val_fraction": "0.2", "augment": '"none"', "limit": "200"},
    "student": {"name": '"resnet8"'},
    "teacher": {"profile": '"teacher.toml"', "allow_untrained": "true"},
    "method": {"name": '"kd"', "weight": "0.9", "task_weight": "0.1", "warmup_epochs": "1.0", "temperature": "4.0"},
    "optimizer": {"name": '"sgd"', "lr": "0.05", "momentum": "0.9", "nesterov": "false", "weight_decay": "5e-4", "decay": '"all"'},
    "schedule": {"name": '"cosine"', "warmup": "0.1", "warmup_lr": "0.0", "min_lr": "0.001"},
    "train": {
        "epochs": "2", "batch_size": "64", "precision": '"fp32"', "compile": '"off"', "ema": "0.9", "ema_ramp": "100.0",
        "label_smoothing": "0.1", "clip_grad_norm": "1.0", "keep_every": "0", "workers": '"auto"',
    },
    "evaluate": {"batch_size": "256", "every": "1", "tta": '"auto"'},
}  # fmt: skip
TEACHER = '[dataset]\nname = "digits"\n[student]\nname = "resnet14"\n[train]\nepochs = 1\n'

# Wrong values by what a key holds.
NO_NUMBER = ('"ten"', '"1"', '""', "true", "[1]", "[]", "{a = 1}", "2024-01-01", "12:30:00", "nan")
WRONG = {
    "count": (*NO_NUMBER, "-1", "2.0", "1e3", "inf", "-9223372036854775809"),
    "share": (*NO_NUMBER, "-0.1", "1.5", "inf", "-inf", "1e400"),
    "amount": (*NO_NUMBER, "-1", "-1e-9", "inf", "1e400"),
    "choice": ('"nope"', '"FP32"', '""', '" "', "3", "true", "[]", '["none"]', "{}", "1979-05-27T07:32:00Z", '"\\u001b[2J"'),
    "switch": ('"true"', '"yes"', "1", "0", "1.0", "[true]", "{}", '""'),
    "name": ('"zzz"', '""', "3", "true", "[]", "{a = 1}", '"\\u001b[31mred"', '"../kd"', '"a\\nb"', '"' + "x" * 5000 + '"'),
    "path": ("3", "true", "[]", '"nowhere.toml"', '"."', '"a\\u0000b"', '"/dev/zero"', '"pipe"', '"' + "y" * 5000 + '"'),
}
HOLDS = {
    "count": ("seed", "dataset.limit", "train.epochs", "train.batch_size", "train.keep_every", "evaluate.batch_size", "evaluate.every"),
    "share": ("dataset.val_fraction", "optimizer.momentum", "schedule.warmup", "train.ema", "train.label_smoothing"),
    "amount": (
        "method.weight", "method.task_weight", "method.warmup_epochs", "optimizer.lr", "optimizer.weight_decay", "schedule.min_lr",
        "train.clip_grad_norm", "train.ema_ramp",
    ),
    "choice": ("dataset.augment", "optimizer.decay", "schedule.name", "train.precision", "train.compile", "evaluate.tta"),
    "switch": ("teacher.allow_untrained", "optimizer.nesterov"),
    "name": ("dataset.name", "student.name", "method.name", "optimizer.name"),
    "path": ("teacher.profile",),
}  # fmt: skip


def text(changes=None, extra=None):
    """The right profile with other values (dotted key → TOML), and lines added to tables."""
    changes, extra = changes or {}, extra or {}
    parts = []
    for table, values in TABLES.items():
        lines = [f"[{table}]"] if table else []
        lines += [f"{key} = {changes.get(f'{table}.{key}'.lstrip('.'), value)}" for key, value in values.items()]
        parts.append("\n".join([*lines, *extra.get(table, ())]))
    return "\n\n".join(parts) + "\n"


def values():
    """One wrong value: (profile, what is told of it)."""
    for kind, keys in HOLDS.items():
        for key, value in product(keys, WRONG[kind]):
            told = r"`" + re.escape(key) + "`" if kind not in ("name", "path") else ""
            yield f"{key} = {value[:30]}", (text({key: value}), [told])


def misspelt():
    """A key with a letter left out, beside the right one."""
    for table, keys in TABLES.items():
        for key in keys:
            if table and key not in ("lr", "name", "tta", "ema"):
                wrong = key[: len(key) // 2] + key[len(key) // 2 + 1 :]
                yield f"{table}.{wrong}", (text(extra={table: [f"{wrong} = 1"]}), [f"{wrong}`(.|\n)*did you mean `"])
    for table in TABLES:
        if table:
            yield f"[{table[1:]}]", (text() + f"[{table[1:]}]\nx = 1\n", [f"unknown table `{table[1:]}`"])


def several():
    """Five wrong values at once."""
    generator = random.Random(0)
    pairs = [(key, kind) for kind, keys in HOLDS.items() if kind not in ("name", "path") for key in keys if key != "schedule.name"]
    for number in range(40):
        chosen = generator.sample(pairs, 5)
        changes = {key: generator.choice(WRONG[kind]) for key, kind in chosen}
        yield f"five at once, {number}", (text(changes), [f"`{re.escape(key)}`" for key in changes])


def damaged():
    """Bytes of the right profile damaged so that it is no TOML any more."""
    good = text()
    toml = ["this is not valid TOML"]
    for i, line in enumerate(good.split("\n")):
        if " = " in line and i % 3 == 0:
            yield f"no sign in line {i}", (good.replace(line, line.replace(" = ", " ")), toml)
            yield f"line {i} twice", (good.replace(line, f"{line}\n{line}", 1), toml)
            yield f"no value in line {i}", (good.replace(line, line.partition("=")[0] + "="), toml)
    for table in list(TABLES)[1:]:
        yield f"[{table}] twice", (f"{good}\n[{table}]\n", toml)
        yield f"[{table} open", (good.replace(f"[{table}]", f"[{table}"), toml)
    for code in (*range(1, 9), 11, 12, *range(14, 32), 127):
        yield f"control character {code}", (good.replace("resnet8", f"res{chr(code)}net8"), toml)
    for quote in ('"resnet8', 'resnet8"', "'resnet8\"", '"""resnet8"', "'''resnet8''", '"res\nnet8"', '"res\\qnet8"', '"\\ud800"'):
        yield f"name = {quote!r}", (good.replace('"resnet8"', quote), toml)
    for number in ("01", "1__0", "_1", "+", "0x", "0b2", "1.", ".5", "1e", "--1", "١", "1,5", "2024-13-01", "25:00:00", "True", "None"):
        yield f"epochs = {number}", (good.replace("epochs = 2\n", f"epochs = {number}\n"), toml)
    for inline in ("{a = 1,", "{a = 1, a = 2}", "{a = 1\n}", "[1, 2", "[1 2]", "{a.b = 1, a = 2}", "{a}"):
        yield f"limit = {inline!r}", (good.replace("limit = 200", f"limit = {inline}"), toml)
    yield "a merge conflict", (good.replace("[train]", "<<<<<<< HEAD\n[train]"), toml)
    yield "two profiles in one", (good + good, toml)


def files():
    """Files that are no text in UTF-8, or no profile at all."""
    good = text()
    for encoding in ("utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-8-sig"):
        yield encoding, (good.encode(encoding), [""])
    for encoding in ("latin-1", "cp437", "koi8-r", "shift-jis", "gbk"):
        letter = {"koi8-r": "ж", "shift-jis": "ア", "gbk": "中"}.get(encoding, "é")
        yield encoding, (f"# {letter}\n{good}".encode(encoding), ["is not text in UTF-8"])
    for name, content in {
        "half a character": good.encode() + b"# \xc3",
        "an overlong slash": b"# \xc0\xaf\n" + good.encode(),
        "half of a surrogate pair": b"# \xed\xa0\x80\n" + good.encode(),
        "gzip": gzip.compress(good.encode()),
        "pickle": pickle.dumps({"train": 1}),
        "PNG": b"\x89PNG\r\n\x1a\n" + bytes(100),
        "ELF": b"\x7fELF" + bytes(100),
        "random": random.Random(0).randbytes(5000),
        "zeros": bytes(5000),
        "one null": good.encode() + b"\0",
        "nothing": b"",
        "blanks": b" \t\r\n" * 100,
        "a web page": b"<!DOCTYPE html><html><body>404</body></html>",
        "YAML": b"train:\n  epochs: 3\n",
        "JSON": b'{"train": {"epochs": 3}}',
        "INI": b"[train]\nepochs: 3\n",
        "Python": b"import os\nos.system('x')\n",
        "no line ends": good.replace("\n", " ").encode(),
        "old Mac line ends": good.replace("\n", "\r").encode(),
        "Unicode line ends": good.replace("\n", "\u2028").encode(),
    }.items():
        yield name, (content, [""])
    yield "comments alone", (b"# nothing\n" * 10, ["\\[dataset\\]", "\\[student\\]", "\\[train\\]"])


def large():
    """What takes time or memory where nothing bounds it. None: as many problems as are told at most."""
    good, size = text(), (1 << 18) - 1000
    keys = "".join(f"k{i:05} = 1\n" for i in range(15_000))
    yield "a line of 256 kB", (good + "# " + "x" * size + "\x01", ["not valid TOML"])
    yield "a line of 257 kB", (good + "# " + "x" * (size + 1000), ["is larger than 256 KiB"])
    yield "300 MB of nothing", (None, ["is larger than 256 KiB"])
    yield "15,000 unknown keys", (keys, None)
    yield "15,000 unknown options", (good.replace("[student]", keys + "[student]"), None)
    yield "8,000 unknown tables", ("".join(f"[t{i}.a.b.c.d.e.f.g]\n" for i in range(8000)), ["more than 20000 keys"])
    yield "2,000 unknown tables", ("".join(f"[t{i}.a.b.c.d.e.f.g]\n" for i in range(2000)), None)
    yield "130,000 lines", (good + "\n#" * 129_000 + "\x01", ["not valid TOML"])
    yield "40,000 tables of one array", (good + "[[x]]\n" * 40_000, ["more than 20000 keys"])
    yield "15,000 empty tables", (good + "[x]\na = [" + "{}," * 15_000 + "]\n", ["unknown table `x`"])
    yield "60,000 entries", (good.replace("limit = 200", "limit = [" + "1," * 60_000 + "]"), ["more than 20000 keys and entries"])
    yield "15,000 wrong milestones", (good.replace("[schedule]", "[schedule]\nmilestones = [" + '"",' * 15_000 + "]"), None)
    yield "15,000 inline keys", (good.replace("limit = 200", "limit = {" + ", ".join(f"k{i} = 1" for i in range(15_000)) + "}"), ["limit"])
    yield "8,000 methods", ('[[method]]\nname = "kd"\n' * 8000 + good.replace("[method]", "[x]"), [r"8000 \[\[method\]\] tables", "`x`"])
    yield "100 kB of escapes", (good.replace('"resnet8"', '"' + "\\u0041" * 40_000 + '"'), ["no model is called"])
    yield "100 kB of quotes", (good.replace('"resnet8"', '"' * 200_000), ["not valid TOML"])
    yield "an open string of 200 kB", (good.replace('"resnet8"', '"""' + "\\n" * 100_000), ["not valid TOML"])
    yield "a key of 200 kB", ("k" * 200_000 + " = 1\n" + good, ["a key is longer"])
    yield "a name of 200 kB", (good.replace('"resnet8"', '"' + "resnet8" * 30_000 + '"'), ["no model is called"])
    yield "a choice of 200 kB", (good.replace('"fp32"', '"' + "fp32" * 50_000 + '"'), ["`train.precision`"])
    yield "a number of 200 kB", (good.replace("epochs = 2\n", "epochs = " + "9" * 200_000 + "\n"), ["a value without quotes is longer"])
    yield "a date of 200 kB", (good.replace("epochs = 2\n", "epochs = 2024-01-01T00:00:00." + "9" * 200_000 + "\n"), ["a value without"])
    yield "a dotted key of 100,000 parts", ("a." * 100_000 + "a = 1\n" + good, ["more than 16 parts"])
    yield "100,000 brackets", ("x = " + "[" * 100_000 + "\n" + good, ["nested more than 16 deep"])
    yield "30,000 braces", ("x = " + "{a = " * 30_000 + "\n" + good, ["nested more than 16 deep"])
    yield "dots and braces", (("x" + ".x" * 15 + " = {") * 16 + "}" * 16 + "\n" + good, ["unknown table `x`"])
    yield (
        "overrides within overrides",
        (
            good.replace("[method]", "[teacher.overrides]\n" + "o = {" * 15 + "x = 1" + "}" * 15 + "\n[method]"),
            ["is no dotted key"],
        ),
    )


CASES = {
    f"{group.__name__}: {name}": case for group in (values, misspelt, several, damaged, files, large) for name, case in group()
}  # fmt: skip


@pytest.fixture(scope="module")
def installed():
    """The plugins are loaded once, as in every process."""
    return Registry.load()


@pytest.fixture
def folder(tmp_path, monkeypatch, installed):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Registry, "load", lambda: installed)
    (tmp_path / "teacher.toml").write_text(TEACHER)
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
    return tmp_path


def check(capsys, *arguments):
    """The messages of `check`; the rest that is asked of every answer is asked here."""
    gc.disable()  # a collection looks at what thousands of other tests have left
    begin = time.thread_time()
    code = run(["check", *arguments])
    seconds = time.thread_time() - begin
    gc.enable()
    out, error = capsys.readouterr()
    assert (code, out) == (2, "")
    assert "Traceback" not in error
    assert all(c.isprintable() or c == "\n" for c in error)
    assert len(error) < 500_000
    assert seconds < SECONDS
    told = re.split(r"^error: ", error, flags=re.MULTILINE)
    assert told[0] == ""
    return told[1:]


def test_the_profile_that_is_changed_is_right(folder, capsys):
    (folder / "p.toml").write_text(text())
    assert run(["check", "p.toml"]) == 0
    assert "ok: p.toml has no problems" in capsys.readouterr().out


@pytest.mark.parametrize("case", CASES)
def test_each_problem_is_told_once(folder, capsys, case):
    content, expected = CASES[case]
    if content is None:
        with (folder / "p.toml").open("wb") as file:
            file.truncate(300 << 20)
    else:
        (folder / "p.toml").write_bytes(content.encode(errors="surrogatepass") if isinstance(content, str) else content)
    told = check(capsys, "p.toml")
    if expected is None:
        assert len(told) == 101
        return
    assert len(told) == len(expected), told
    for sentence in expected:
        assert sum(bool(re.search(sentence, t)) for t in told) == 1, (sentence, told)


def test_there_are_enough_of_them():
    assert len({content for content, _ in CASES.values()}) == len(CASES) >= 300


def make_socket(path):
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(path)


SPECIAL = {
    "pipe": (lambda path: os.mkfifo(path), "is a pipe or device"),
    "socket": (make_socket, "cannot be read|pipe or device"),
    "folder": (os.mkdir, "is a directory"),
    "dangling": (lambda path: os.symlink("nowhere", path), "is a link that leads nowhere"),
    "loop": (lambda path: os.symlink(path, path), "cannot be read: too many levels"),
    "to a pipe": (lambda path: os.symlink("pipe", path), "is a pipe or device"),
    "to a device": (lambda path: os.symlink("/dev/zero", path), "is a pipe or device"),
}


@pytest.mark.posix
@pytest.mark.parametrize("kind", SPECIAL)
def test_a_profile_that_is_no_file(folder, capsys, kind):
    make, message = SPECIAL[kind]
    make("special.toml")
    (told,) = check(capsys, "special.toml")
    assert re.search(message, told)


@pytest.mark.parametrize(
    "name", ["/dev/zero", "/dev/null", "/dev/tty", "/proc/self/mem", "nowhere.toml", "", ".", "a\0b", "x" * 300, "y/" * 3000, "\x1b[31m"]
)
def test_a_profile_with_such_a_name(folder, capsys, name):
    assert len(check(capsys, name)) == 1


@pytest.mark.parametrize(
    "override",
    [
        "train.epochs", "train.epochs=", "=2", "", "=", ".", "train..epochs=2", "train.epochs.x=2", "x=1", "a.b.c.d.e.f.g.h.i=1",
        "train.epochs=" + "9" * 100_000, "train.epochs=" + "[" * 100_000, "train.epochs=2\n[train]", "train.epochs='''", "train={}",
        "train=3", "method=3", "method.0.0.0=1", "method.name=os:system", "\x1b[31m=1", "'train'.'epochs'=0", '"a=b"=1', "seed=1e400",
        "dataset.limit=" + '"' + "x" * 100_000 + '"', "teacher.profile=/dev/zero", "teacher.profile=pipe",
        "teacher.overrides.train.epochs=0",
    ],
)  # fmt: skip
def test_overrides_of_the_command_line(folder, capsys, override):
    (folder / "p.toml").write_text(text())
    assert check(capsys, "p.toml", "--set", override)


def test_teachers_of_teachers(folder, capsys):
    """A chain without an end, and one in a circle."""
    for i in range(500):
        (folder / f"{i}.toml").write_text(text({"teacher.profile": f'"{i + 1}.toml"'}))
    (told,) = check(capsys, "0.toml")
    assert "leads through more than 8 profiles" in told
    (folder / "7.toml").write_text(TEACHER)
    assert run(["check", "0.toml"]) == 0
    (folder / "7.toml").write_text(text({"teacher.profile": '"3.toml"'}))
    capsys.readouterr()
    (told,) = check(capsys, "0.toml")
    assert "leads back to a profile" in told


@pytest.mark.parametrize("content", [b"[" * 1_000_000, b'{"model": ' * 500_000, b"\xff", b"", b"3", b'{"model": 3}'])
def test_the_run_of_a_teacher_from_elsewhere(folder, capsys, content):
    (folder / "run").mkdir()
    (folder / "run" / "model.json").write_bytes(content)
    (folder / "p.toml").write_text(text({"train.epochs": "0"}).replace('profile = "teacher.toml"', 'run = "run"'))
    assert any("`train.epochs`" in t for t in check(capsys, "p.toml"))
