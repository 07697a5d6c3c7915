"""`byot`: a network with an exit at every stage; what its last exit knows is taught to the shallow ones.

    L = (1 − α) · Σ_k CE(z_k, y) + α · T² · Σ_k H(softmax(z_s/T), softmax(z_k/T)) + β · Σ_k Σ_B ‖M_k ⊙ (F_k − F_s)‖²

k: every stage of `student_stages` but the last; F_k (B, d), z_k (B, C): features and logits of `exits[k]` on the stage's map
(`modules.py`); z_s: `student["logits"]`; F_s: `student["pooled"]` (B, d), what the classifier receives; y: `batch.labels`;
H(p, q) = mean_B −Σ_c p_c log q_c; M_k: 1 where F_k or F_s is positive. α: `alpha`, T: `temperature`, β: `beta`.
No gradient goes into z_s and F_s: the end of the network learns from the labels alone, by the label loss of the run.
Zhang, Song, Gao, Chen, Bao, Ma, "Be Your Own Teacher", ICCV 2019, arXiv 1905.08094.

The label loss of the last exit is that of the run: with `task_weight` = 1 − α (0.9 by default) and `weight` = 1, the sum is
(1 − α) times the label losses of all exits, as it should be. The paper leaves open what an exit looks like; here it is that of the
public implementation, without biases before a normalisation.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distillctl import Batch, Features, Method, Progress, RunError, Setup, Side, Wants, fp32, gather_rows, input_of, widen
from distillctl_byot.losses import feature_distance, soft_cross_entropy
from distillctl_byot.modules import Exit
from distillctl_byot.options import BYOTOptions


class BYOT(Method):
    """Label loss, soft targets and feature distance of all exits. Terms: `labels`, `kd`, `features`, with 1 − α, α and β included.

    Reduction: sums over the exits; `labels` and `kd` are means over the batch, `features` is a sum over the batch (`feature_reduction`
    "mean": a mean over batch and features). A term whose factor is 0 is not computed. `kd` is a cross-entropy: not zero where an exit
    agrees with the network. The exits normalise over the batch, are trained with the student, and are not part of it.
    With several processes the sum over the batch is estimated from this one's share, so that its mean over the processes is the sum.
    `metrics` has the accuracy of every exit on the training images of the current epoch, of all processes.
    Zhang, Song, Gao, Chen, Bao, Ma 2019, arXiv 1905.08094.

    Raises:
        RunError: fewer than two stages, or not in the order shallow to deep, or a stage is not a feature map (C, H, W).
    """

    # The convolutions of the exits take a fair share of the student's own work.
    autocast = True

    right: Tensor
    seen: Tensor
    epoch: Tensor

    def __init__(self, options: BYOTOptions, setup: Setup) -> None:
        super().__init__(options, setup)
        self.options = options
        side = setup.student
        names = tuple(dict.fromkeys(side.expand(options.student_stages)))
        if len(names) < 2:
            has = f"there is only `{names[0]}`" if names else "it declares none"
            raise RunError(
                f"`byot` needs at least two stages of the student `{side.name}`, all but the last of which get an exit, but {has}",
                hint="name stages or module paths, shallow to deep, in `student_stages`",
            )
        _check_order(side, names)
        self.stages = names[:-1]
        _, *deepest = side.feature_map(names[-1], "byot")
        width = math.prod(side.shapes["pooled"])
        self.exits = nn.ModuleList(
            Exit(side.feature_map(name, "byot"), (deepest[0], deepest[1]), width, setup.num_classes, kaiming=options.init == "kaiming")
            for name in self.stages
        )
        self.register_buffer("right", torch.zeros(len(self.stages)))  # images of the epoch that each exit got right
        self.register_buffer("seen", torch.zeros(()))
        self.register_buffer("epoch", torch.zeros(()))

    @classmethod
    def wants(cls, options: BYOTOptions) -> Wants:
        """Maps for the exits, and what the classifier receives."""
        return Wants(student=(*options.student_stages, "pooled"))

    def forward(self, batch: Batch, student: Features, teacher: Features, progress: Progress) -> dict[str, Tensor]:
        """The terms, 0-dim, float32 (float64 for float64 features). In training with gradients it also counts what exits got right."""
        options = self.options
        outputs = [exit_(input_of(self.exits, student[name])) for name, exit_ in zip(self.stages, self.exits, strict=True)]
        terms = {}
        with fp32(batch.images.device):
            features, logits = [widen(f) for f, _ in outputs], [widen(z) for _, z in outputs]
            if options.alpha < 1:
                labels = batch.labels if batch.soft is None else batch.soft.to(logits[0].dtype)
                terms["labels"] = (1 - options.alpha) * _sum([F.cross_entropy(z, labels) for z in logits])
            if options.alpha:
                target = widen(student["logits"].detach())
                terms["kd"] = options.alpha * _sum([soft_cross_entropy(z, target, options.temperature) for z in logits])
            if options.beta:
                target = widen(student["pooled"].detach().flatten(1))
                share = batch.share if options.feature_reduction == "sum" else 1.0
                distances = [feature_distance(f, target, options.feature_reduction) for f in features]
                terms["features"] = options.beta / share * _sum(distances)
        if self.training and torch.is_grad_enabled():
            self._count(logits, batch, progress.epoch)
        return terms

    @torch.no_grad()
    def _count(self, logits: list[Tensor], batch: Batch, epoch: Tensor) -> None:
        """Adds a batch of all processes to the counts, which begin anew with every epoch."""
        kept = (epoch == self.epoch).to(self.seen.dtype)
        hits = gather_rows(batch, torch.stack([(z.argmax(1) == batch.labels).float() for z in logits], 1))  # (B, exits)
        self.right.mul_(kept).add_(hits.sum(0))
        self.seen.mul_(kept).add_(len(hits))
        self.epoch.copy_(epoch)

    def metrics(self) -> dict[str, Tensor]:
        """`STAGE_top1`: the share of the epoch's training images that the exit at the stage got right while it learnt."""
        shares = self.right / self.seen.clamp(min=1)
        return {f"{name}_top1": share for name, share in zip(self.stages, shares, strict=True)}


def _check_order(side: Side, names: tuple[str, ...]) -> None:
    """Compares the stages among the names with the model's; of module paths nobody knows how deep they are.

    Raises:
        RunError: a stage stands behind a deeper one.
    """
    known = ("stem", *side.stages, "last", "final")
    stages = [name for name in names if name.removesuffix(":pre") in known]
    ordered = sorted(stages, key=lambda name: known.index(name.removesuffix(":pre")))
    if stages != ordered:
        has, rightly = (", ".join(f"`{name}`" for name in some) for some in (stages, ordered))
        raise RunError(
            f"`byot` needs the stages of `{side.name}` shallow to deep, but `student_stages` has {has}", hint=f"their order is {rightly}"
        )


def _sum(losses: list[Tensor]) -> Tensor:
    return torch.stack(losses).sum()
