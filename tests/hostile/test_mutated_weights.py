"""Checkpoints with bits turned, parts cut out, doubled, exchanged or added: refused in a sentence, or read as they were.

The zip form has checksums, so that there is nothing between the two. The old form and safetensors have none: a turned bit in a number is
another number, and what is shown is that nothing crashes, hangs or shows a traceback. `--runs N` makes N mutants of each form.

All mutants are read by one process, so that a crash is seen.
"""

from __future__ import annotations

import io
import json
import random
import subprocess
import sys
from collections import Counter

import pytest
import safetensors.torch
import torch

DEFAULT_RUNS = 100

READ = """
import json, pathlib, sys, time
from distillctl.weights.state_dict import read_state_dict
from distillctl.errors import DataError

for path in sorted(pathlib.Path(sys.argv[1]).iterdir()):
    print(path.name, end=" ", flush=True)
    started = time.monotonic()
    try:
        state = read_state_dict(path)
        told = {"state": {name: [str(value.dtype), list(value.shape), value.flatten().tolist()] for name, value in state.items()}}
    except DataError as error:
        told = {"problem": error.problems[0].message}
    print(json.dumps(told | {"seconds": time.monotonic() - started}), flush=True)
"""


def checkpoint():
    generator = torch.Generator().manual_seed(5)
    weights = {f"block{n}.conv.weight": torch.randn(4, 3, 3, 3, generator=generator) for n in range(3)}
    weights |= {"fc.weight": torch.randn(5, 4, generator=generator), "fc.bias": torch.zeros(5), "bn.running_mean": torch.ones(4)}
    return weights


def packed(**options):
    buffer = io.BytesIO()
    torch.save({"model": checkpoint(), "epoch": 3, "optimizer": {"state": {}, "param_groups": [{"lr": 0.1}]}}, buffer, **options)
    return buffer.getvalue()


FORMS = {
    "zip": packed,
    "legacy": lambda: packed(_use_new_zipfile_serialization=False),
    "safetensors": lambda: safetensors.torch.save(checkpoint()),
}


def turned(content, draw):
    at, bit = draw.randrange(len(content)), 1 << draw.randrange(8)
    return content[:at] + bytes([content[at] ^ bit]) + content[at + 1 :]


def overwritten(content, draw):
    at = draw.randrange(len(content))
    return content[:at] + draw.randbytes(min(draw.randrange(1, 9), len(content) - at)) + content[at + 8 :]


def cut_short(content, draw):
    return content[: draw.randrange(len(content))]


def cut_out(content, draw):
    at = draw.randrange(len(content))
    return content[:at] + content[at + draw.randrange(1, 200) :]


def doubled(content, draw):
    at = draw.randrange(len(content))
    return content[: at + draw.randrange(1, 200)] + content[at:]


def exchanged(content, draw):
    a, b = sorted(draw.sample(range(len(content) - 64), 2))
    return content[:a] + content[b : b + 64] + content[a + 64 : b] + content[a : a + 64] + content[b + 64 :]


def added(content, draw):
    return content + draw.choice([b"\0", draw.randbytes(200), content])


def put_before(content, draw):
    return draw.choice([b"\x80", b"\0", draw.randbytes(30), content[:100]]) + content


def zeroed(content, draw):
    at, length = draw.randrange(len(content)), draw.randrange(1, 100)
    return content[:at] + bytes(min(length, len(content) - at)) + content[at + length :]


MUTATIONS = [turned, overwritten, cut_short, cut_out, doubled, exchanged, added, put_before, zeroed]


@pytest.fixture(scope="module")
def answers(tmp_path_factory, request):
    """Form → name of the mutant → what was told of it."""
    runs = request.config.getoption("runs", default=None) or DEFAULT_RUNS
    folder = tmp_path_factory.mktemp("mutants")
    for form, make in FORMS.items():
        content, draw = make(), random.Random(f"mutants of {form}")
        (folder / f"{form}-whole").write_bytes(content)
        for number in range(runs):
            mutate = MUTATIONS[number % len(MUTATIONS)]
            (folder / f"{form}-{number:05}-{mutate.__name__}").write_bytes(mutate(content, draw))
    process = subprocess.run([sys.executable, "-c", READ, folder], capture_output=True, text=True, timeout=60 + runs)
    lines = process.stdout.splitlines()
    assert process.returncode == 0, f"at {lines[-1]}: {process.stderr}"
    told = {name: json.loads(answer) for name, _, answer in (line.partition(" ") for line in lines)}
    assert len(told) == len(FORMS) * (runs + 1)
    return {form: {name: answer for name, answer in told.items() if name.startswith(form)} for form in FORMS}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.slow
def test_mutants_are_refused_or_read_as_they_were(form, answers):
    told = dict(answers[form])
    whole = told.pop(f"{form}-whole")["state"]
    assert whole.keys() == checkpoint().keys()
    for name, answer in told.items():
        assert answer["seconds"] < 10, name
        if form == "zip" and "state" in answer:
            assert answer["state"] == whole, name
        if "problem" in answer:
            assert answer["problem"].isprintable(), name
            assert len(answer["problem"]) < 600, name
    counts = Counter("refused" if "problem" in a else "the same" if a["state"] == whole else "other numbers" for a in told.values())
    print(f"mutated checkpoints ({form}): {dict(counts)} of {len(told)}")
    assert counts["refused"] > 0.2 * len(told)
