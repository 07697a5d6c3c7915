"""`sdd`: distil the logits of regions of the last map as well, more where the teacher contradicts itself.

    L = 1/(B·R) · Σ_b Σ_r w_r · ℓ(W_s v_s,r + c_s, W_t v_t,r + c_t),    w_r = β where right_r ≠ right_1, else 1

v_r (d,): the mean of the map over region r. R = Σ s² regions, from grids of s×s for s in `scales`; the first is the whole map.
W, c: the last Linear layer of student and teacher themselves, `Side.classifier`; the student's receives a gradient here.
right_r: whether the teacher's logits of region r are highest at the label. ℓ: KD, DKD or NKD of one row (`losses.py`).
Maps: `student[student_stage]`, `teacher[teacher_stage]`, (B, d, H, W); the whole map's vector is `pooled`, (B, d).
β: `complementary_weight`. Wei, Luo, Luo, CVPR 2024, arXiv 2403.13512.

Where we differ: the whole map's vector is what the classifier receives, which the authors' code averages from the 4×4 grid;
the two are the same where 4 divides the map's size. Losses that are not finite stay so; the authors' code makes them 0.
"""

from __future__ import annotations

from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from distillctl import Batch, Features, Progress, RunError, Setup, Side, TemperatureMethod, Wants
from distillctl_sdd.losses import Rows, dkd_rows, kd_rows, nkd_rows, regional_vectors, sdd_parts
from distillctl_sdd.options import SDDOptions

_TOLERANCE = 1e-3


class SDD(TemperatureMethod):
    """Σ w·ℓ over all samples and regions, divided by B·R. Terms: `consistent`, and `complementary` with its weight.

    A mean over the batch: feeding it twice leaves the values as they are. With the bases `kd` and `dkd` 0 where the logits of
    all regions agree up to a shift; with `nkd` at the teacher's entropy. `batch.labels` say where the teacher is right.
    With `scales = [1]` or a weight of 0 there is no `complementary`. With `scales = [1]` it is the base method, unless there is
    dropout before the student's classifier: the logits computed here drop nothing.

    Raises:
        RunError: a model does not end in average pooling and one Linear layer; or its map is another one than the named stage.
    """

    def __init__(self, options: SDDOptions, setup: Setup) -> None:
        super().__init__(options, setup)
        if options.base != "kd" and setup.num_classes < 2:
            raise RunError(f"`sdd` with the base `{options.base}` needs at least 2 classes, not {setup.num_classes}")
        part = {"dkd": "beta", "nkd": "gamma"}.get(options.base)
        if setup.num_classes == 2 and part and getattr(options, part):
            self.notes = (f"`sdd`: with two classes one other is left, so the part on the other classes (`{part}`) is 0",)
        if setup.num_classes == 2 and part == "beta" and not options.alpha:
            raise RunError("`sdd` has nothing to learn from with `alpha = 0` and two classes: no other class is left to be compared")
        self.options = options
        # A tuple keeps the classifiers out of this module: they belong to student and teacher.
        self._classifiers = (
            _classifier(setup.student, options.student_stage, "student_stage"),
            _classifier(setup.require_teacher(), options.teacher_stage, "teacher_stage"),
        )
        self._rows = _base(options)
        maps = [setup.student.shapes[options.student_stage], setup.require_teacher().shapes[options.teacher_stage]]
        if len(options.scales) > 1 and all(shape[1:] == (1, 1) for shape in maps):
            self.notes = (*self.notes, "`sdd`: both maps have one position, so that `scales` and `complementary_weight` have no effect")
        self._has_complementary = options.complementary_weight > 0 and len(options.scales) > 1

    @classmethod
    def wants(cls, options: SDDOptions) -> Wants:
        """The map and its average, of either side."""
        return Wants(student=(options.student_stage, "pooled"), teacher=(options.teacher_stage, "pooled"))

    def forward(
        self, batch: Batch, student: Features, teacher: Features, progress: Progress, *, temperature: Tensor | None = None
    ) -> dict[str, Tensor]:
        """The terms, 0-dim, T² and weights included. `temperature`, 0-dim or (B, 1), replaces the option."""
        options = self.options
        ours, theirs = self._classifiers
        logits_s = _apply(ours, regional_vectors(student[options.student_stage], student["pooled"], options.scales))
        # All of it is detached: the teacher's classifier may require gradients, too.
        logits_t = _apply(theirs, regional_vectors(teacher[options.teacher_stage], teacher["pooled"], options.scales)).detach()
        scale = options.temperature if temperature is None else temperature
        consistent, complementary = sdd_parts(logits_s, logits_t, batch.labels, scale, self._rows)
        terms = {"consistent": consistent}
        if self._has_complementary:
            terms["complementary"] = options.complementary_weight * complementary
        return terms


def _apply(classifier: nn.Linear, vectors: Tensor) -> Tensor:
    """Regional logits, past the hooks that take `pooled` where the classifier receives it."""
    return F.linear(vectors, classifier.weight, classifier.bias)


def _base(options: SDDOptions) -> Rows:
    if options.base == "dkd":
        return partial(dkd_rows, alpha=options.alpha, beta=options.beta)
    return kd_rows if options.base == "kd" else partial(nkd_rows, gamma=options.gamma)


def _classifier(side: Side, stage: str, option: str) -> nn.Linear:
    """The last Linear layer of a model, once it is sure that it receives the average of this map.

    Raises:
        RunError: there is no such layer, or it receives something else.
    """
    if not isinstance(side.classifier, nn.Linear):
        has = "declares none" if side.classifier is None else f"ends in {type(side.classifier).__name__}"
        raise RunError(
            f"`sdd` applies the last Linear layer of a model to regions of `{stage}`, but `{side.name}` {has}",
            hint="choose a model that ends in average pooling and one Linear layer",
        )
    shape, pooled = side.feature_map(stage, "sdd"), side.sample["pooled"]
    average = F.adaptive_avg_pool2d(side.sample[stage], 1).flatten(1)
    if average.shape != pooled.shape or not (average - pooled).abs().max() <= _TOLERANCE * pooled.abs().max():
        raise RunError(
            f"`sdd` needs the map whose average the classifier receives, but the average of `{stage}` {shape} of `{side.name}` is not "
            f"its `pooled` {side.shapes['pooled']}",
            hint=f"name that map in `{option}`, a stage or a module path; a model whose classifier receives anything else than the average "
            "of a map, such as a class token, cannot take part",
        )
    return side.classifier
