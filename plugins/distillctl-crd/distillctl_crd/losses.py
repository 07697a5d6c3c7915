"""Noise contrastive estimation, and the scores that it compares.

The estimation has a normaliser Z and is computed from logarithms: nothing is exponentiated that could overflow.

    o = exp(x)/Z;   ℓ = −1/B · Σ_b [ log(o_0/(o_0 + c)) + Σ_k log((K/N)/(o_k + c)) ],   c = K/N + 10⁻⁷

x_0 → `positive` (B,), x_k → `negatives` (B, K), both already divided by the temperature; log Z → `log_z`; N → `count`.
With a = x − log Z − log c the two logarithms are −softplus(−a_0) and −softplus(a_k) − log(c·N/K).

The scores are inner products of embeddings with many rows of a memory bank, without keeping the gathered rows. Gathering first, as the
formula suggests, writes B·(K+1)·d floats (0.5 GB for 64 anchors, 16,384 negatives and length 128) and reads them twice. Instead every row
is scored by one matrix product and the wanted scores are picked, as long as the bank is not much larger than K; beyond that, rows are
gathered in portions that stay in the cache. The gradient of an embedding is a weighted sum of rows. On a CPU PyTorch's `embedding_bag`
computes it without gathering. On a GPU that would be K additions one after the other: there the weights are scattered over all rows of the
bank, and the sums are one matrix product; or, for a large bank, rows are gathered in portions. A row that was drawn twice gets its weights
in no fixed order then, but for `torch.use_deterministic_algorithms`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

_EPS = 1e-7
SCORE_ALL_UP_TO = 8
"""The largest ratio of rows to negatives at which all rows of the bank are scored (measured on a CPU)."""


def nce(positive: Tensor, negatives: Tensor, log_z: Tensor, count: int) -> Tensor:
    """ℓ above, 0-dim: sum over the positive and the K negatives, mean over B.

    positive: (B,). negatives: (B, K). log_z: 0-dim. count: images in the bank.
    """
    share = negatives.shape[1] / count  # K·P_n
    shift = log_z + math.log(share + _EPS)
    total = _softplus(shift - positive).sum() + _softplus(negatives - shift).sum()
    return total / len(positive) + negatives.shape[1] * math.log1p(_EPS / share)


def log_normaliser(positive: Tensor, negatives: Tensor, count: int) -> Tensor:
    """The logarithm of Z = N · mean(exp(x)) over all positives (B,) and negatives (B, K): 0-dim, without gradient."""
    with torch.no_grad():
        total = torch.logaddexp(positive.logsumexp(0), negatives.logsumexp((0, 1)))
        return total + math.log(count / (positive.numel() + negatives.numel()))


def log_normaliser_of_rows(rows: Tensor, scores: int, count: int) -> Tensor:
    """The same from the logarithms of each image's Σ exp(x), (B, …), over the images; `scores` is K + 1. Keeps what stands behind B."""
    return rows.logsumexp(0) + math.log(count / (len(rows) * scores))


def _softplus(x: Tensor) -> Tensor:
    # Above its default threshold of 20, PyTorch takes x itself, which is not exact enough for float64.
    return F.softplus(x, threshold=40)


def scores(v: Tensor, bank: Tensor, rows: Tensor) -> Tensor:
    """⟨bank[rows[b, k]], v[b]⟩ as (B, K), in the way that is quicker for these sizes; both give the same numbers.

    v: (B, d). bank: (N, d), no gradient goes into it. rows: int64, (B, K).
    """
    result: Tensor = _Scores.apply(v, bank, rows)
    return result


def score_all(v: Tensor, bank: Tensor, rows: Tensor) -> Tensor:
    """The values of `scores` by one product with the whole bank: memory B·N."""
    return (v @ bank.T).gather(1, rows)


def gather_rows(v: Tensor, bank: Tensor, rows: Tensor) -> Tensor:
    """The values of `scores` from the wanted rows alone, a few anchors at a time: memory B·K."""
    parts = [(gathered @ v[some].unsqueeze(2)).squeeze(2) for some, gathered in _portions(bank, rows)]
    return torch.cat(parts)


def sum_rows(weights: Tensor, bank: Tensor, rows: Tensor) -> Tensor:
    """Σ_k weights[b, k] · bank[rows[b, k]] as (B, d), which is the gradient of `scores`, in the way that is quicker on this device.

    weights: (B, K).
    """
    if weights.device.type == "cpu":
        return F.embedding_bag(rows, bank, per_sample_weights=weights.contiguous(), mode="sum")
    return (scatter_and_multiply if _scores_all(bank, rows) else gather_and_sum)(weights, bank, rows)


def scatter_and_multiply(weights: Tensor, bank: Tensor, rows: Tensor) -> Tensor:
    """The values of `sum_rows` by one product with the whole bank: memory B·N."""
    return weights.new_zeros(len(rows), len(bank)).scatter_add_(1, rows, weights) @ bank


def gather_and_sum(weights: Tensor, bank: Tensor, rows: Tensor) -> Tensor:
    """The values of `sum_rows` from the wanted rows alone, a few anchors at a time."""
    parts = [(weights[some].unsqueeze(1) @ gathered).squeeze(1) for some, gathered in _portions(bank, rows)]
    return torch.cat(parts)


def _scores_all(bank: Tensor, rows: Tensor) -> bool:
    return len(bank) <= SCORE_ALL_UP_TO * rows.shape[1]


def _portions(bank: Tensor, rows: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Anchors, and their rows of the bank (b, K, d), which the next portion overwrites."""
    count, dim = rows.shape[1], bank.shape[1]
    floats = 1 << (21 if bank.device.type == "cpu" else 26)  # of gathered rows: 8 MB fit into a cache, a GPU wants few launches
    step = min(max(1, floats // (count * dim)), len(rows))
    # One buffer for all: fresh memory costs more than the sums. Indexing by a matrix is four times slower than `index_select`.
    buffer = bank.new_empty(step * count, dim)
    for start in range(0, len(rows), step):
        wanted = rows[start : start + step]
        gathered = torch.index_select(bank, 0, wanted.flatten(), out=buffer[: wanted.numel()])
        yield slice(start, start + step), gathered.view(-1, count, dim)


class _Scores(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, v: Tensor, bank: Tensor, rows: Tensor) -> Tensor:
        ctx.save_for_backward(bank, rows)
        return (score_all if _scores_all(bank, rows) else gather_rows)(v, bank, rows)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        bank, rows = ctx.saved_tensors
        return sum_rows(grads[0], bank, rows), None, None
