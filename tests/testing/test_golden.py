"""The golden values, computed again with NumPy and plain loops from the formulas, without any function of ours."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from itertools import islice

import numpy as np
import pytest

from distillctl.testing.golden import GOLDEN, LABELS, SHAPES, losses, normals, report, splitmix64, tensors

X = {name: value.numpy() for name, value in tensors().items()}
ZS, ZT, FS, FT, PS, PT = (X[f"{side}_{kind}"] for kind in ("logits", "map", "vectors") for side in ("student", "teacher"))


def softmax(z):
    e = np.exp(z - z.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def kl(p, q):
    return (p * np.log(p / q)).sum(1).mean()


def kd():
    return 16 * kl(softmax(ZT / 4), softmax(ZS / 4))


def dkd():
    y, rows = np.array(LABELS), np.arange(6)
    p = [softmax(z / 4) for z in (ZS, ZT)]
    b = [np.stack([q[rows, y], 1 - q[rows, y]], 1) for q in p]
    others = [softmax(np.stack([np.delete(z[i], y[i]) for i in rows]) / 4) for z in (ZS, ZT)]
    return 16 * kl(b[1], b[0]) + 8 * 16 * kl(others[1], others[0])


def at():
    maps = [(f**2).mean(1).reshape(len(f), -1) for f in (FS, FT)]
    a, b = (m / np.linalg.norm(m, axis=1, keepdims=True) for m in maps)
    return ((a - b) ** 2).mean()


def sp():
    def rows(f):
        f = f.reshape(len(f), -1)
        g = f @ f.T
        return g / np.linalg.norm(g, axis=1, keepdims=True)

    return ((rows(FT) - rows(FS)) ** 2).sum() / len(FS) ** 2


def nst():
    total = 0.0
    for s, t in zip(FS, FT, strict=True):
        s, t = (m.reshape(len(m), -1) / np.linalg.norm(m.reshape(len(m), -1), axis=1, keepdims=True) for m in (s, t))
        kernel = lambda a, b: np.mean([[np.dot(i, j) ** 2 for j in b] for i in a])  # noqa: E731
        total += kernel(t, t) + kernel(s, s) - 2 * kernel(s, t)
    return total / len(FS)


def pkt():
    def p(v):
        v = v / (np.linalg.norm(v, axis=1, keepdims=True) + 1e-7)
        s = (v @ v.T + 1) / 2
        return s / s.sum(1, keepdims=True)

    a, b = p(PS), p(PT)
    return (b * np.log((b + 1e-7) / (a + 1e-7))).mean()


def smooth(x):
    return np.where(np.abs(x) < 1, x**2 / 2, np.abs(x) - 0.5)


def rkd():
    def distances(v):
        d = np.array([[np.linalg.norm(a - b) for b in v] for a in v])
        return d / d[d > 0].mean()

    def angles(v):
        n = len(v)
        out = np.zeros((n, n, n))
        for i in range(n):
            e = [(v[i] - v[j]) / max(np.linalg.norm(v[i] - v[j]), 1e-12) for j in range(n)]
            out[i] = [[np.dot(a, b) for b in e] for a in e]
        return out

    return 25 * smooth(distances(PS) - distances(PT)).mean() + 50 * smooth(angles(PS) - angles(PT)).mean()


def fitnet():
    return ((FS - FT) ** 2).mean()


def vid():
    v = np.exp(X["log_variance"])[None, :, None, None]
    return (((FS - FT) ** 2 / v + np.log(v)) / 2).mean()


def cc():
    d = np.abs(PS - PT)
    return np.mean([(d[i] * d[i + 1]).sum() for i in range(len(d) - 1)])


def crd():
    o = np.exp(np.concatenate([X["positive"][:, None], X["negatives"]], 1))
    o /= o.mean() * 1000
    c = 16 / 1000
    return -(np.log(o[:, 0] / (o[:, 0] + c + 1e-7)).sum() + np.log(c / (o[:, 1:] + c + 1e-7)).sum()) / len(o)


def pool(f, size):
    n = f.shape[-1]
    cut = [(math.floor(k * n / size), math.ceil((k + 1) * n / size)) for k in range(size)]
    return np.stack([np.stack([f[:, :, a:b, c:d].mean((2, 3)) for c, d in cut], -1) for a, b in cut], -2)


def reviewkd_hcl():
    total, weights, w = ((FS - FT) ** 2).mean(), 1.0, 1.0
    for size in (4, 2, 1):
        w /= 2
        total += w * ((pool(FS, size) - pool(FT, size)) ** 2).mean()
        weights += w
    return total / weights


def ofd():
    margins = []
    for g, b in zip(np.abs(X["gamma"]), X["beta"], strict=True):
        below = 0.5 * math.erfc(b / g / math.sqrt(2))
        density = math.exp(-((b / g) ** 2) / 2) / math.sqrt(2 * math.pi)
        margins.append(b - g * density / below if below > 1e-3 else -3 * g)
    target = np.maximum(FT, np.array(margins)[None, :, None, None])
    return ((FS - target) ** 2 * ((target < FS) | (FT > 0))).sum() / len(FS)


@pytest.mark.parametrize("name", GOLDEN)
def test_value(name: str) -> None:
    assert losses()[name] == pytest.approx(globals()[name](), rel=1e-6)


def test_generator_is_the_published_one() -> None:
    """The first outputs of SplitMix64 for the seed 1234567, as its reference gives them."""
    assert list(islice(splitmix64(1234567), 3)) == [6457827717110365317, 3203168211198807973, 9817491932198370423]
    drawn = np.fromiter(islice(normals(5), 20_000), float)
    assert abs(drawn.mean()) < 0.03
    assert abs(drawn.std() - 1) < 0.03


@pytest.mark.slow
def test_command_prints_what_one_needs_to_compute_them_again() -> None:
    done = subprocess.run([sys.executable, "-m", "distillctl.testing.golden"], capture_output=True, text=True, timeout=120, check=True)
    printed = json.loads(done.stdout)
    assert printed == json.loads(json.dumps(report()))
    assert set(printed["losses"]) >= {"kd", "dkd", "at", "sp", "nst", "pkt", "rkd", "fitnet", "vid", "cc", "crd", "reviewkd_hcl", "ofd"}
    assert set(printed["tensors"]) == set(SHAPES)
    whole = report(whole=True)["tensors"]
    assert all(len(entry["values"]) == math.prod(entry["shape"]) for entry in whole.values())
