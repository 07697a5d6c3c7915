"""Contrastive representation distillation: the two embeddings of an image must agree, and differ from those of other classes.

    v_s = N(W_s·p_s + b_s),  v_t = N(W_t·p_t + b_t);   x_s = M_t[y, n]·v_s/τ,  x_t = M_s[y, n]·v_t/τ;   L = ℓ(x_s, Z_s) + ℓ(x_t, Z_t)

p → `pooled` features, the teacher's detached; W, b → `embed_student`, `embed_teacher`; N → `F.normalize`; M → `student_bank`,
`teacher_bank`, one row for every training image, each contrasted with the *other* side's embedding; y → `batch.index`;
n → K negatives of other classes, shared by both sides; ℓ → `losses.nce`; Z → `log_z`, set by the first training step for ever.

Tian, Krishnan, Isola, "Contrastive Representation Distillation", ICLR 2020, arXiv 1910.10699.

Where we differ from the authors' code: negatives are drawn on the device, with replacement, instead of by the data loader
without it (a list of 16,384 numbers an image, which takes longer than the loss); rows are scored by one matrix product;
a zero embedding stays finite; Z and the banks are part of checkpoints.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distillctl import Batch, Features, Method, Progress, Setup, Wants, gather_rows
from distillctl_crd.losses import log_normaliser, log_normaliser_of_rows, nce, scores
from distillctl_crd.modules import OtherClasses, move_rows, new_bank
from distillctl_crd.options import CRDOptions


class _Pending(NamedTuple):
    """What a training forward leaves for `after_step`; buffers must not change before the backward."""

    batch: Batch
    student: Tensor  # (B, d)
    teacher: Tensor  # (B, d)
    log_z: Tensor  # (2,)


class CRD(Method):
    """ℓ(x_s, Z_s) + ℓ(x_t, Z_t), arXiv 1910.10699.

    Reduction: sum over the positive and all negatives and over both sides, mean over the batch. Negatives come from PyTorch's
    global generator, which the engine seeds at every step. With several processes each has its rows of the negatives that one would draw;
    Z, and what moves the banks, come from the images of all. State dict: both embeddings, both banks (N, d), log Z (2,) and
    whether it is set.

    Raises:
        RunError: all training images have one label.
    """

    student_bank: Tensor
    teacher_bank: Tensor
    log_z: Tensor
    z_known: Tensor

    def __init__(self, options: CRDOptions, setup: Setup) -> None:
        super().__init__(options, setup)
        self.options = options
        count = len(setup.labels)
        self.embed_student = nn.Linear(math.prod(setup.student.shapes["pooled"]), options.feat_dim)
        self.embed_teacher = nn.Linear(math.prod(setup.require_teacher().shapes["pooled"]), options.feat_dim)
        self.negatives = OtherClasses(setup.labels)
        self.register_buffer("student_bank", new_bank(count, options.feat_dim))
        self.register_buffer("teacher_bank", new_bank(count, options.feat_dim))
        self.register_buffer("log_z", torch.zeros(2))  # of the student's and of the teacher's scores
        self.register_buffer("z_known", torch.tensor(False))
        self._pending: tuple[_Pending, Any] | None = None  # and what was pending before it
        self._z_seen: tuple[Tensor, int] | None = None

    @classmethod
    def wants(cls, options: CRDOptions) -> Wants:
        """What the classifiers receive, of both sides."""
        return Wants(student=("pooled",), teacher=("pooled",))

    def forward(self, batch: Batch, student: Features, teacher: Features, progress: Progress) -> Tensor:
        """The unweighted loss, 0-dim. In training with gradients it also keeps what `after_step` writes into the buffers."""
        v_s = F.normalize(self.embed_student(student["pooled"].flatten(1)), dim=1)  # (B, d)
        v_t = F.normalize(self.embed_teacher(teacher["pooled"].detach().flatten(1)), dim=1)  # (B, d)
        others = self.negatives(batch, self.options.negatives)  # (B, K)
        x_s = self._score(v_s, self.teacher_bank, batch.index, others)
        x_t = self._score(v_t, self.student_bank, batch.index, others)
        count = len(self.student_bank)
        learns = self.training and torch.is_grad_enabled()
        log_z = self.log_z
        if torch.compiler.is_compiling() or not self._knows_z():
            if learns and batch.total > len(batch.index):
                rows = gather_rows(batch, torch.stack([_log_sums(*x_s), _log_sums(*x_t)], 1))  # (all rows, 2)
                fresh = log_normaliser_of_rows(rows, 1 + others.shape[1], count)
            else:
                fresh = torch.stack([log_normaliser(*x_s, count), log_normaliser(*x_t, count)])
            log_z = torch.where(self.z_known, log_z, fresh)
        if learns:
            # Not a list: the compiler would make one graph for each length of it, and it does not look into what it only passes on.
            self._pending = (_Pending(batch, v_s.detach(), v_t.detach(), log_z), self._pending)
        return nce(*x_s, log_z[0], count) + nce(*x_t, log_z[1], count)

    def _knows_z(self) -> bool:
        """Whether Z is known to be set without a look at the device: `after_step` set it, and nobody has written there since."""
        return self._z_seen is not None and self._z_seen[0] is self.z_known and self._z_seen[1] == self.z_known._version

    def _score(self, v: Tensor, bank: Tensor, index: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
        """Inner products over the temperature: of each image's own row (B,), and of its negatives (B, K)."""
        v = v / self.options.temperature  # on (B, d) instead of (B, K)
        return (bank[index] * v).sum(1), scores(v, bank, others)

    @torch.no_grad()
    def after_step(self) -> None:
        """Moves the rows of the last training batch in both banks, of all processes; the first time, keeps Z for ever.

        Of several passes over the same images the last one counts. A batch that was computed in parts has them all moved, and its last
        part gives Z.
        """
        latest: dict[int, _Pending] = {}  # of each batch the last, the newest first
        while self._pending is not None:
            one, self._pending = self._pending
            latest.setdefault(id(one.batch), one)
        for one in reversed(latest.values()):
            rows, *vectors = (gather_rows(one.batch, value) for value in (one.batch.index, one.student, one.teacher))
            move_rows((self.student_bank, self.teacher_bank), rows, vectors, self.options.momentum)
            self.log_z.copy_(one.log_z)
            self.z_known.fill_(True)
            self._z_seen = self.z_known, self.z_known._version


@torch.no_grad()
def _log_sums(positive: Tensor, negatives: Tensor) -> Tensor:
    """The log of Σ exp(x) over the positive and the negatives of each image: (B,)."""
    return torch.logaddexp(positive, negatives.logsumexp(1))
