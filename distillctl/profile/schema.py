"""The tables of a profile. Tables of plugins have the core keys below and, beside them, the plugin's own options.

A profile is checked in two phases: the core tables first, then each plugin's keys against its own `Options`; so that an
error names the key as the user wrote it. Nothing here imports torch.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import AfterValidator, Field

from distillctl.api.options import Factor, Options, PathOption
from distillctl.api.specs import DatasetSpec, MethodSpec, ModelSpec, OptimizerSpec, Spec, TrackerSpec, Unit
from distillctl.profile.published import Published

S = TypeVar("S", bound=Spec)
T = TypeVar("T", bound=Options)

MAX_SEED = 2**32 - 1
WAYS = ("run", "checkpoint", "weights", "profile")
"""How a teacher's weights can be named."""
MAX_RUNS = 10_000
"""Combinations of one sweep; more are a slip of the pen."""


class DatasetTable(Options):
    """`[dataset]`: core keys; all others are the data set's own options."""

    name: str
    """Name of the data set: `distillctl list-datasets`."""
    limit: Annotated[int, Field(ge=0)] = 0
    """Use only so many training images, the same share of every class, chosen by seed; 0 means all."""
    split_seed: Annotated[int, Field(ge=0, le=MAX_SEED)] | None = None
    """Carve splits and choose the images of `limit` by this number and not by `seed`: runs of several seeds then have the same images in
    each split, and a teacher of one of them has seen no other's test images."""


class StudentTable(Options):
    """`[student]`: core keys; all others are the model's own options."""

    name: str
    """Name of the model: `distillctl list-models`."""
    weights: str = ""
    """Pretrained weights by name, to start from. A classifier for other classes is left out."""
    checkpoint: PathOption | None = None
    """A file of weights to start from. A classifier for other classes is left out."""
    key: Annotated[str, Field(min_length=1)] | None = None
    """With `checkpoint`: where in the file the weights are, as keys with dots between: `state_dict_ema`, `model.student`."""
    freeze: Annotated[str, Field(min_length=1)] | None = None
    """Train only what lies above this stage (`stem`, `stage1`, …): all up to its end keeps its `weights` or those of its `checkpoint`, with
    the statistics of batch normalisation, and computes as in an evaluation."""


class TeacherTable(Options):
    """`[teacher]`, or several `[[teacher]]`: exactly one of `run`, `checkpoint`, `weights` or `profile`; other keys are the model's own
    options.
    """

    name: str = ""
    """Name of the model. `run` and `profile` know it already."""
    run: PathOption | None = None
    """A finished run directory: its best student is the teacher."""
    checkpoint: PathOption | None = None
    """A file of weights, in any of the common layouts."""
    key: Annotated[str, Field(min_length=1)] | None = None
    """With `checkpoint`: where in the file the weights are, as keys with dots between: `state_dict_ema`, `model.teacher`."""
    weights: str = ""
    """Pretrained weights that the model plugin knows by this name."""
    profile: PathOption | None = None
    """Another profile, looked up beside this one: trained first if its finished run is not there, reused if it is."""
    overrides: dict[str, object] = {}  # noqa: RUF012 - pydantic copies defaults
    """With `profile`: keys of that profile to replace, as dotted keys: `overrides = {"train.epochs" = 2}`. A table with a `name`
    replaces the whole table."""
    mean: Annotated[list[Annotated[float, Field(ge=0, le=1)]], Field(min_length=1, max_length=4)] | None = None
    """Mean of each channel with which it was trained, for images scaled to [0, 1], where it is not that of the data: the student's view is
    normalised anew for the teacher. A `run` or `profile` knows its own, and so do `weights` of torchvision."""
    std: Annotated[list[Annotated[float, Field(gt=0, le=10)]], Field(min_length=1, max_length=4)] | None = None
    """Standard deviation of each channel with which it was trained, where it is not that of the data. A `run` or `profile` knows its
    own, and so do `weights` of torchvision."""
    image_size: Annotated[int, Field(ge=8, le=4096)] | None = None
    """Side length in pixels at which it was trained, where it is not that of the data: the student's view is resized for the teacher.
    A model that works at one size alone is built for it."""
    allow_untrained: bool = False
    """Go on with a teacher that is no better than chance (for tests)."""


class MethodTable(Options):
    """`[method]`, or several `[[method]]`: core keys; all others are the method's own options."""

    name: str
    """Name of the method: `distillctl list-methods`."""
    weight: Factor = 1.0
    """Factor of the method's terms. The default comes from the method's paper."""
    task_weight: Factor = 1.0
    """Factor of the label loss. The default comes from the method's paper."""
    warmup_epochs: Annotated[float, Field(ge=0, le=1e6)] = 0.0
    """The weight grows linearly over so many epochs: in epoch e (from 1) it is multiplied by min(e / warmup_epochs, 1)."""
    gather: bool = False
    """With several processes, for methods that compare images: compare those of all processes, not only of each one's share."""
    teachers: Literal["mean", "each"] | None = None
    """With several `[[teacher]]`. `mean`: the method sees one teacher, whose logits are the logarithms of their mean probabilities; the
    default of methods that read logits alone. `each`: there is one such method for each teacher, and their terms are averaged; the default
    of methods that read features, and for `kd` what averages softened probabilities."""
    teacher_weights: Literal["confidence"] | list[float] | None = None
    """With several `[[teacher]]`: what each counts in that mean, or its terms, in their order: [0.7, 0.3]. They sum to 1; by default all
    are equal. `confidence`, with `mean`: for each image anew, who is nearer to the label counts more (CA-MKD, Zhang et al. 2022)."""


def _other_than_one(value: float) -> float:
    if value == 1:
        raise ValueError("a factor of 1 changes nothing; leave it out")
    return value


class OptimizerTable(Options):
    """`[optimizer]`: core keys; all others are the optimizer's own options."""

    name: str = "sgd"
    """Name of the optimizer: `distillctl plugins`."""
    head_lr_scale: Annotated[float, Field(gt=0, le=1e6), AfterValidator(_other_than_one)] | None = None
    """The student's classifier learns at so many times the rate of the rest."""
    layer_decay: Annotated[float, Field(gt=0, lt=1)] | None = None
    """The student's last stage learns at so many times the rate of what lies above it, the stage below at so many times that, and so on
    down to the stem; what methods train is not scaled. By layers in Clark et al. 2020, arXiv 2003.10555, Bao et al. 2022, 2106.08254."""


def _milestones(value: list[float]) -> list[float]:
    if any(not 0 < m < 1 for m in value):
        raise ValueError("milestones are shares of the run, between 0 and 1: epoch 150 of 240 is 0.625")
    if value != sorted(set(value)):
        raise ValueError("milestones must rise")
    return value


class ScheduleTable(Options):
    """`[schedule]`: the learning rate as a pure function of the progress; what is said in shares holds for cut runs too."""

    name: Literal["constant", "step", "cosine"] = "constant"
    """The shape after the warm-up."""
    milestones: Annotated[list[float], AfterValidator(_milestones)] = []  # noqa: RUF012 - pydantic copies defaults
    """step: shares of the run at which the rate is multiplied by `gamma`: epoch 150 of 240 is 0.625."""
    gamma: Annotated[float, Field(gt=0, le=1)] = 0.1
    """step: the factor at each milestone."""
    min_lr: Annotated[float, Field(ge=0, le=1e3)] = 0.0
    """cosine: the rate at the end."""
    cycles: Annotated[float, Field(gt=1, le=1e6)] | None = None
    """cosine: how often it is gone through after the warm-up; by default once."""
    cycle: Literal["restart", "wave"] | None = None
    """With `cycles`: each begins anew at the full rate (`restart`, the default: Loshchilov, Hutter 2017, arXiv 1608.03983), or goes down
    and up again (`wave`, what torch's `CosineAnnealingLR` does after its `T_max`, which is half a cycle)."""
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the run over which the rate rises linearly."""
    warmup_lr: Annotated[float, Field(ge=0, le=1e3)] = 0.0
    """The rate at the start of the warm-up."""


_DURATION = re.compile(r"(\d+(?:\.\d+)?) ?(s|min|h)")
_SECONDS = {"s": 1, "min": 60, "h": 3600}


def _duration(value: str) -> str:
    if value != "never" and seconds(value) <= 0:
        raise ValueError("a time is a number above 0 with its unit: `90s`, `5min`, `2h`; or `never`")
    return value


def seconds(value: str) -> float:
    """Of a time such as `5min`; infinite for `never`, 0 for what is not a time."""
    if value == "never":
        return math.inf
    found = _DURATION.fullmatch(value)
    return float(found[1]) * _SECONDS[found[2]] if found else 0.0


class TrainTable(Options):
    """`[train]`."""

    epochs: Annotated[int, Field(ge=1, le=1_000_000)]
    """Passes over the training images."""
    batch_size: Annotated[int, Field(ge=1, le=1 << 30)] = 64
    """Images in one step, over all processes together."""
    precision: Literal["fp32", "bf16", "fp16", "auto"] = "fp32"
    """Precision of the forward passes; weights, optimizer and losses stay in fp32. `fp16` needs a GPU; `auto`
    is bf16 on a GPU that has it, fp16 on an older one, and fp32 on a CPU."""
    compile: Literal["auto", "off", "on"] = "auto"
    """`torch.compile` for teacher, student and losses. `auto`: on a GPU for runs long enough to repay it, where it can work."""
    cuda_graph: Literal["auto", "off", "on"] | None = None
    """Send a whole step to a GPU as one CUDA graph instead of kernel by kernel: small networks train several times as fast. `auto`:
    wherever methods, optimizer and precision allow it; `on` refuses what does not; `off` is the default until it has run on a GPU."""
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Decay of an exponential moving average of the student, which is then evaluated and deployed; 0 means none."""
    ema_ramp: Annotated[float, Field(ge=0, le=1e9)] = 2000.0
    """The decay after n updates is ema·(1 − exp(−n/ema_ramp)); 0 keeps it constant."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the label's mass spread over all classes, in the label loss."""
    focal: Annotated[float, Field(gt=0, le=20)] | None = None
    """The label loss is the focal loss (Lin et al. 2017, arXiv 1708.02002) with this γ: what is answered surely counts less."""
    poly: Annotated[float, Field(gt=-1, le=100)] | None = None
    """The label loss is the poly loss (Leng et al. 2022, arXiv 2204.12511), Poly-1 with this ε."""
    class_weights: Literal["balanced"] | list[Annotated[float, Field(gt=0, le=1e6)]] | None = None
    """Weights of the classes in the label loss: one for each, or `balanced`, in inverse proportion to their training images."""
    sampler: Literal["balanced"] | None = None
    """`balanced`: an epoch, as long as ever, draws each class equally often. Images of rare classes come several times, in different views;
    of frequent classes, each epoch has others."""
    patience: Annotated[int, Field(ge=1)] | None = None
    """Stop early: after so many epochs without a better figure on the validation split."""
    quantize: Literal["int8"] | None = None
    """`int8`: the student is trained with weights and inputs of its convolutions and linear layers rounded as 8 bits will have them (Jacob
    et al. 2018, arXiv 1712.05877), under the same distillation. For a few epochs from a trained student, before `export --int8`."""
    clip_grad_norm: Annotated[float, Field(ge=0, le=1e6)] = 0.0
    """Largest norm of all gradients together; 0 means no limit."""
    mixup: Annotated[float, Field(gt=0, le=1e3)] | None = None
    """Mixup (Zhang et al. 2018, arXiv 1710.09412): images of a batch are blended in pairs, with a share from Beta(mixup, mixup); 1 draws it
    evenly. Teacher and student see the same image. With several processes the pairs are of one process."""
    cutmix: Annotated[float, Field(gt=0, le=1e3)] | None = None
    """CutMix (Yun et al. 2019, arXiv 1905.04899): a rectangle of another image stands in each, with a share of the area from
    Beta(cutmix, cutmix). Beside `mixup`, each batch takes one of the two."""
    mix_share: Annotated[float, Field(gt=0, le=1)] | None = None
    """With `mixup` or `cutmix`: share of the batches that are mixed; by default all."""
    erase: Annotated[float, Field(gt=0, le=1)] | None = None
    """Random erasing (Zhong et al. 2017, arXiv 1708.04896): share of the images in which a rectangle becomes the mean colour."""
    keep_every: Annotated[int, Field(ge=0)] = 0
    """Keep a checkpoint every so many epochs; 0 keeps only the last and the best."""
    workers: Annotated[int, Field(ge=0)] | Literal["auto"] = "auto"
    """Processes that decode images; data in memory need none. `auto`: a GPU gets one for each core, at most 16; a CPU half as many."""
    accumulate: Annotated[int, Field(ge=1)] = 1
    """Compute each batch in so many parts, one after the other, and take one step: less memory for the same batch. Batch normalisation
    and methods that compare images see one part at a time."""
    save_every: Annotated[str, AfterValidator(_duration)] = "5min"
    """Time between two checkpoints within an epoch: `90s`, `5min`, `2h`, or `never`. Each finished epoch is saved, too."""
    deterministic: bool = False
    """On a GPU: only algorithms that give the same bits each time, so that a resumed run is bit-identical; slower. A CPU always does."""
    sync_batchnorm: bool = False
    """With several processes: batch normalisation over the whole batch instead of each process's share."""


class EvaluateTable(Options):
    """`[evaluate]`."""

    batch_size: Annotated[int, Field(ge=1)] = 256
    """Images in one forward of an evaluation."""
    every: Annotated[int, Field(ge=1)] = 1
    """Epochs between evaluations; the last epoch is always evaluated."""
    tta: Literal["auto", "flip", "five_crop", "ten_crop", "multi_scale"] = "auto"
    """What `eval --tta` does: `auto` is `ten_crop` for image files and `flip` for arrays. `five_crop` and `multi_scale` mirror nothing."""
    tta_resize: Annotated[int, Field(ge=0)] = 0
    """five_crop, ten_crop: length of the short side before the crops; 0 means 1.1 times the crop."""
    tta_scales: Annotated[list[Annotated[float, Field(ge=0.1, le=10)]], Field(min_length=1, max_length=16)] | None = None
    """multi_scale: sizes to which the view is resized, as multiples of its side; by default 0.75, 1 and 1.25. From 96 pixels on they are
    rounded to multiples of 32."""


class TrackerTable(Options):
    """`[[tracker]]`: core keys; all others are the tracker's own options. Trackers change nothing of a run."""

    name: str
    """Name of the tracker: `distillctl plugins`."""


def _distinct(seeds: list[int]) -> list[int]:
    if len(set(seeds)) < len(seeds):
        raise ValueError("a seed is named twice")
    return seeds


class SweepTable(Options):
    """`[sweep]`: the runs that `distillctl sweep` makes of the profile. `train` does not read it, and it is not part of what a run is."""

    grid: dict[str, Any] = Field(default_factory=dict)
    """By dotted key the values that it has in turn, such as `"method.temperature" = [1, 2, 4]`; `method = ["kd", "dkd"]` names methods."""
    seeds: Annotated[list[Annotated[int, Field(ge=0, le=MAX_SEED)]], Field(min_length=1), AfterValidator(_distinct)] | None = None
    """Every combination is trained with each of these seeds; by default with the profile's own."""
    control: bool = False
    """Whether there are runs on labels alone, too, for every seed."""
    jobs: Annotated[int, Field(ge=1, le=1024)] = 1
    """How many runs are trained at once."""
    random: Annotated[int, Field(ge=1, le=MAX_RUNS)] | None = None
    """Draw so many combinations instead of taking all; a range such as `"0.1..10 log"` can then stand for a list."""
    optimize: Annotated[str, Field(min_length=1)] | None = None
    """The figure on the validation split that Optuna makes better; a range can then stand for a list."""
    trials: Annotated[int, Field(ge=1, le=MAX_RUNS)] | None = None
    """With `optimize`: how many combinations are tried."""


@dataclass(frozen=True)
class Choice(Generic[S, T]):
    """What a plugin's table chooses: the spec that `name` means, the core's keys, and the plugin's own."""

    spec: S
    table: T
    options: Options


class DatasetChoice(Choice[DatasetSpec, DatasetTable]):
    """The data set of a run."""

    @property
    def task(self) -> str:
        """Name of its task."""
        return getattr(self.options, "task", "") or self.spec.task


class StudentChoice(Choice[ModelSpec, StudentTable]):
    """The student of a run."""

    @property
    def part_file(self) -> Path | None:
        """The file for a part of the model (`ModelSpec.weights_file`)."""
        found: Path | None = getattr(self.options, self.spec.weights_file) if self.spec.weights_file else None
        return found

    @property
    def starts_from_weights(self) -> bool:
        """Whether it starts from weights that were trained before."""
        return bool(self.table.weights or self.table.checkpoint or self.part_file)


class OptimizerChoice(Choice[OptimizerSpec, OptimizerTable]):
    """The optimizer of a run."""


@dataclass(frozen=True)
class MethodChoice(Choice[MethodSpec, MethodTable]):
    """One method of a run. `inner` is the wrapped method of a wrapper; only its name and options count."""

    inner: MethodChoice | None = None

    @property
    def unit(self) -> Unit:
        """What it works on: a wrapper, on what the method that it wraps works on."""
        return self.spec.unit if self.inner is None else self.inner.unit


@dataclass(frozen=True)
class TeacherChoice:
    """A teacher of a run. `spec` and `options` are None where `run` or `profile` decides them.

    key: its table, as a user writes it: `teacher`, or of several `teacher.0`, `teacher.1`, …
    """

    table: TeacherTable
    spec: ModelSpec | None
    options: Options | None
    key: str = "teacher"


@dataclass(frozen=True)
class TrackerChoice:
    """Somebody who is told what happens in a run."""

    spec: TrackerSpec
    options: Options


@dataclass(frozen=True)
class Profile:
    """A checked profile with every value filled in.

    path, text: the file and its bytes as given.
    teachers: all; `teacher` is the first of them, None if there is none.
    task_weight: factor of the label loss.
    resolved: every value as plain TOML data; reading it back gives the same run.
    origins: for each dotted key of `resolved`, where its value comes from: `default`, `profile:12`, `command line`,
        or the source of a preset.
    digest: hash of `resolved`; two runs with the same digest are the same run.
    trackers, sweep, published: no part of what the run is.
    """

    path: Path
    text: bytes
    seed: int
    dataset: DatasetChoice
    student: StudentChoice
    teachers: tuple[TeacherChoice, ...]
    methods: tuple[MethodChoice, ...]
    task_weight: float
    optimizer: OptimizerChoice
    schedule: ScheduleTable
    train: TrainTable
    evaluate: EvaluateTable
    resolved: Mapping[str, object]
    origins: Mapping[str, str]
    digest: str
    trackers: tuple[TrackerChoice, ...] = ()
    sweep: SweepTable = field(default_factory=SweepTable)
    published: Published = field(default_factory=Published)

    @property
    def name(self) -> str:
        """The file's name without its ending."""
        return self.path.stem

    @property
    def teacher(self) -> TeacherChoice | None:
        """The teacher, or the first of several."""
        return self.teachers[0] if self.teachers else None

    @property
    def by_teacher(self) -> tuple[Profile, ...]:
        """The profile as each of its teachers alone has it."""
        return tuple(replace(self, teachers=(choice,)) for choice in self.teachers)

    @property
    def split_seed(self) -> int:
        """By which the data set's splits are carved."""
        stated = self.dataset.table.split_seed
        return self.seed if stated is None else stated
