"""What a plugin raises is its own fault, what signals and other threads do is not; stdout is kept for the caller."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap

import pytest

from distillctl.plugin.importing import RefusedError, attempt, reason


def raiser(error):
    def action():
        raise error

    return action


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (RuntimeError("first\nsecond"), "RuntimeError: first"),
        (SystemExit(3), "it ends the program while it is imported (exit code 3)"),
        (SyntaxError("bad"), "SyntaxError: bad"),
        (GeneratorExit(), "GeneratorExit"),
        (type("Odd", (BaseException,), {})("strange"), "Odd: strange"),
        (MemoryError(), "MemoryError"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_it_raises_is_refused_with_the_cause(error, words):
    with pytest.raises(RefusedError) as caught:
        attempt(raiser(error))
    assert str(caught.value) == words
    assert caught.value.__cause__ is error


def test_its_value_comes_back():
    assert attempt(lambda: 3) == 3


def test_an_exception_that_cannot_be_printed():
    class Mute(Exception):
        def __str__(self):
            return 1 / 0

    assert reason(Mute()) == "Mute"


def test_ctrl_c_passes():
    with pytest.raises(KeyboardInterrupt):
        attempt(lambda: signal.raise_signal(signal.SIGINT))


class TestSignalHandlers:
    @pytest.mark.parametrize("error", [SystemExit(143), TimeoutError("too slow")], ids=["SIGTERM of a program", "a caller's own timer"])
    def test_what_they_raise_passes(self, error):
        def handler(number, frame):
            raise error

        before = signal.signal(signal.SIGTERM, handler)
        try:
            with pytest.raises(type(error)) as caught:
                attempt(lambda: signal.raise_signal(signal.SIGTERM))
            assert caught.value is error
            assert signal.getsignal(signal.SIGTERM) is handler
            with pytest.raises(RefusedError):
                attempt(raiser(error.__class__(1)))
        finally:
            signal.signal(signal.SIGTERM, before)


def python(code, *arguments, **options):
    """Runs code in a process of its own, with an empty argument line."""
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        stdin=subprocess.DEVNULL,
        **options,
    )


PRINTING = """
    import os, sys
    from distillctl.plugin.importing import stdout_to_stderr
    streams = sys.stdout, sys.stderr
    print("before")
    with stdout_to_stderr():
        print("printed")
        print("past", file=sys.__stdout__)
        os.system("echo program")
        os.write(1, b"low\\n")
        kept = sys.stdout
    print("after", file=kept)
    assert (sys.stdout, sys.stderr) == streams
"""


def test_everything_that_is_printed_goes_to_stderr():
    done = python(PRINTING)
    assert (done.returncode, done.stdout) == (0, "before\nafter\n"), done.stderr
    assert sorted(done.stderr.split()) == ["low", "past", "printed", "program"]


@pytest.mark.parametrize("closed", [1, 2])
def test_a_closed_stream_is_no_obstacle(closed):
    code = """
        import os, sys
        from distillctl.plugin.importing import stdout_to_stderr
        os.close(int(sys.argv[1]))
        with stdout_to_stderr():
            os._exit(7)
        """
    assert python(code, str(closed)).returncode == 7


def test_what_is_raised_puts_it_back():
    done = python(
        """
        from distillctl.plugin.importing import stdout_to_stderr
        try:
            with stdout_to_stderr():
                print("inside")
                raise KeyboardInterrupt
        except KeyboardInterrupt:
            print("outside")
        """
    )
    assert (done.stdout, done.stderr) == ("outside\n", "inside\n")


SLOW_PLUGIN = """
import os, sys, threading, time
importing = sys.modules["__main__"].importing
importing.set()
assert sys.modules["__main__"].told.wait(30)
from distillctl import MethodSpec, hookimpl

@hookimpl
def register_method():
    return MethodSpec(name="slow", kind="logits", summary="for tests", implementation="nowhere:Nothing")
"""


def test_a_callers_threads_are_left_alone(tmp_path):
    """While a plugin is imported, one of the caller's threads starts another, which prints: it keeps its flag, its words and its peace."""
    (tmp_path / "plugin_slow.py").write_text(SLOW_PLUGIN)
    info = tmp_path / "package_slow-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: package-slow\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[distillctl]\nslow = plugin_slow\n")
    done = python(
        """
        import os, signal, sys, threading, warnings
        importing, told = threading.Event(), threading.Event()
        def speak():
            print("said while it is imported")
            os.write(1, b"written while it is imported\\n")
            told.set()
        spoken = []
        def caller():
            assert importing.wait(30)
            spoken.append(threading.Thread(target=speak))
            spoken[0].start()
        first = threading.Thread(target=caller)
        first.start()
        from distillctl.plugin.registry import Registry
        def state():
            signals = [signal.getsignal(number) for number in signal.valid_signals()]
            return [threading.Thread.start, sys.stdout, sys.stderr, signals, sys.excepthook, signal.getitimer(signal.ITIMER_REAL),
                    list(warnings.filters), dict(os.environ), os.getcwd(), sys.getrecursionlimit()]
        before = state()
        registry = Registry.load({"DISTILLCTL_PLUGINS": "slow"})
        assert state() == before
        (plugin,) = (p for p in registry.plugins if p.name == "slow")
        assert (plugin.loaded, plugin.problem) == (True, ""), plugin
        first.join(30)
        spoken[0].join(30)
        assert (first.daemon, spoken[0].daemon) == (False, False)
        print("ended")
        """,
        env={**os.environ, "PYTHONPATH": str(tmp_path), "PYTHONUNBUFFERED": "1"},
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == ["said while it is imported", "written while it is imported", "ended"]
