"""Loss values on stated inputs, so that anybody can compute them again with another implementation.

    python -m distillctl.testing.golden            # JSON: generator, tensors, losses
    python -m distillctl.testing.golden --tensors  # with every number of every tensor

The inputs come from a generator that is written in ten lines of any language. Stream s is SplitMix64 with the state s at the start: state ←
state + 0x9E3779B97F4A7C15; z ← state; z ← (z ⊕ z≫30)·0xBF58476D1CE4E5B9; z ← (z ⊕ z≫27)·0x94D049BB133111EB; the output is z ⊕ z≫31,
all modulo 2⁶⁴. An output gives u = (output ≫ 11)/2⁵³. Two of them give two normal numbers, √(−2 ln(1 − u₁))·cos(2π u₂) and the same with
sin. A tensor takes its numbers in row-major order from its own stream; `scale` multiplies them. All values are computed in float64.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from distillctl.api.decoupled import is_target, other_divergence, split_target, target_divergence
from distillctl.plugin.registry import load

_MASK = (1 << 64) - 1
SEED = 20261120
"""Stream of the first tensor; each further one has the next."""

_MAPS = (4, 6, 5, 5)
SHAPES: Mapping[str, tuple[tuple[int, ...], float]] = {
    "student_logits": ((6, 10), 3.0),
    "teacher_logits": ((6, 10), 3.0),
    "student_map": (_MAPS, 1.0),
    "teacher_map": (_MAPS, 1.0),
    "student_vectors": ((6, 12), 1.0),
    "teacher_vectors": ((6, 12), 1.0),
    "log_variance": ((6,), 0.5),
    "gamma": ((6,), 1.0),
    "beta": ((6,), 0.5),
    "positive": ((6,), 4.0),
    "negatives": ((6, 16), 4.0),
}
"""Tensors in the order of their streams: shape and scale."""
LABELS = (3, 0, 9, 3, 7, 1)


def splitmix64(state: int) -> Iterator[int]:
    """The outputs of a stream, integers below 2⁶⁴. Steele, Lea, Flood, OOPSLA 2014."""
    while True:
        state = (state + 0x9E3779B97F4A7C15) & _MASK
        z = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
        yield z ^ (z >> 31)


def normals(stream: int) -> Iterator[float]:
    """Normal numbers of a stream, two from two outputs."""
    uniforms = ((output >> 11) / 2**53 for output in splitmix64(stream))
    while True:
        radius, angle = math.sqrt(-2 * math.log(1 - next(uniforms))), 2 * math.pi * next(uniforms)
        yield radius * math.cos(angle)
        yield radius * math.sin(angle)


def tensors() -> dict[str, Tensor]:
    """Every input by name, float64."""
    result = {}
    for number, (name, (shape, scale)) in enumerate(SHAPES.items()):
        values = list(islice(normals(SEED + number), math.prod(shape)))
        result[name] = torch.tensor(values, dtype=torch.float64).reshape(shape) * scale
    return result


@dataclass(frozen=True)
class Golden:
    """One loss: what it is, of which tensors, and how it is computed from them."""

    formula: str
    inputs: tuple[str, ...]
    compute: Callable[..., Tensor]


def _function(reference: str) -> Callable[..., Any]:
    function: Callable[..., Any] = load(reference, reference.partition(":")[0])
    return function


def _dkd(student: Tensor, teacher: Tensor, *, alpha: float = 1.0, beta: float = 8.0, temperature: float = 4.0) -> Tensor:
    target = is_target(torch.tensor(LABELS), student.shape[1])
    (gap_s, log_s), (gap_t, log_t) = (split_target(z / temperature, target) for z in (student, teacher))
    tckd = target_divergence(gap_s, gap_t).mean()
    nckd = other_divergence(log_s, log_t, target).mean()
    total: Tensor = temperature**2 * (alpha * tckd + beta * nckd)
    return total


def _rkd(student: Tensor, teacher: Tensor) -> Tensor:
    module = "distillctl_rkd.losses"
    total: Tensor = 25 * _function(f"{module}:distance_loss")(student, teacher) + 50 * _function(f"{module}:angle_loss")(student, teacher)
    return total


def _crd(positive: Tensor, negatives: Tensor) -> Tensor:
    module, count = "distillctl_crd.losses", 1000
    log_z = _function(f"{module}:log_normaliser")(positive, negatives, count)
    total: Tensor = _function(f"{module}:nce")(positive, negatives, log_z, count)
    return total


def _ofd(student: Tensor, teacher: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
    module = "distillctl_ofd.losses"
    total: Tensor = _function(f"{module}:partial_distance")(student, teacher, _function(f"{module}:negative_means")(gamma, beta))
    return total


_LOGITS, _MAP, _VECTORS = ((f"student_{kind}", f"teacher_{kind}") for kind in ("logits", "map", "vectors"))
GOLDEN: Mapping[str, Golden] = {
    "kd": Golden(
        "T² · mean_B KL(softmax(z_t/T) ‖ softmax(z_s/T)), T = 4",
        _LOGITS,
        lambda s, t: _function("distillctl.api.losses:kd_loss")(s, t, 4.0, 4.0),
    ),
    "dkd": Golden("TCKD + 8 · NCKD, T = 4, labels as stated", _LOGITS, _dkd),
    "at": Golden("mean_{B,hw} (N(mean_c f_s²) − N(mean_c f_t²))²", _MAP, lambda s, t: _function("distillctl_at.losses:at_loss")(s, t)),
    "sp": Golden("1/B² · ‖rows of F Fᵀ by their L2 norm: t − s‖_F²", _MAP, lambda s, t: _function("distillctl_sp.losses:sp_loss")(s, t)),
    "nst": Golden(
        "squared MMD of L2-normalised channel maps, k(a, b) = ⟨a, b⟩²", _MAP, lambda s, t: _function("distillctl_nst.losses:nst_loss")(s, t)
    ),
    "pkt": Golden(
        "mean_{B²} P_t log((P_t + 1e-7)/(P_s + 1e-7)), cosine affinities in [0, 1], rows sum to 1",
        _VECTORS,
        lambda s, t: _function("distillctl_pkt.losses:pkt_loss")(s, t),
    ),
    "rkd": Golden("25 · distance + 50 · angle, smooth L1", _VECTORS, _rkd),
    "fitnet": Golden(
        "mean (R(f_s) − f_t)², the student's map standing for R(f_s)",
        _MAP,
        lambda s, t: _function("distillctl_fitnet.losses:hint_loss")(s, t),
    ),
    "vid": Golden(
        "mean ½((μ − t)²/σ² + log σ²), σ²_c = exp(log_variance_c), the student's map standing for μ",
        (*_MAP, "log_variance"),
        lambda s, t, v: _function("distillctl_vid.losses:gaussian_loss")(s, t, v.exp()),
    ),
    "cc": Golden(
        "mean_{i<B} Σ_c δ_ic δ_{i+1,c}, δ = |e_s − e_t|, the vectors standing for e",
        _VECTORS,
        lambda s, t: _function("distillctl_cc.losses:neighbour_loss")(s, t),
    ),
    "crd": Golden(
        "NCE of one side with o = exp(x)/Z, Z = 1000 · mean exp(x) of this batch, P_n = 1/1000, K = 16", ("positive", "negatives"), _crd
    ),
    "reviewkd_hcl": Golden(
        "HCL of one level: sizes 5, 4, 2, 1 with weights 1, ½, ¼, ⅛ by their sum",
        _MAP,
        lambda s, t: _function("distillctl_reviewkd.losses:hcl")(s, t),
    ),
    "ofd": Golden(
        "mean_B Σ (s − t')² [s > t' or t > 0], t' = max(t, margin from the norm's gamma and beta)", (*_MAP, "gamma", "beta"), _ofd
    ),
}


def losses() -> dict[str, float]:
    """Every value, computed now."""
    inputs = tensors()
    return {name: float(golden.compute(*(inputs[i] for i in golden.inputs))) for name, golden in GOLDEN.items()}


def report(*, whole: bool = False) -> dict[str, Any]:
    """What the command prints; `whole` adds every number of every tensor."""
    inputs = tensors()
    values = losses()
    return {
        "generator": "SplitMix64 and Box–Muller, see the docstring of distillctl.testing.golden",
        "labels": list(LABELS),
        "tensors": {
            name: {
                "stream": SEED + number,
                "shape": list(shape),
                "scale": scale,
                "values" if whole else "first": inputs[name].flatten().tolist()[: None if whole else 4],
            }
            for number, (name, (shape, scale)) in enumerate(SHAPES.items())
        },
        "losses": {
            name: {"formula": golden.formula, "inputs": list(golden.inputs), "value": values[name]} for name, golden in GOLDEN.items()
        },
    }


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m distillctl.testing.golden", description="Loss values on stated inputs, as JSON.")
    parser.add_argument("--tensors", action="store_true", help="print every number of every tensor")
    print(json.dumps(report(whole=parser.parse_args().tensors), indent=2, ensure_ascii=False))  # noqa: T201 - the command's output


if __name__ == "__main__":
    main()
