"""What a plugin declares: plain data that imports neither torch nor pydantic.

A plugin's entry-point module returns these from its hooks. What costs time to import (the module with the
computation, the pydantic model of the options) is named by a string `"package.module:attribute"` and is loaded
when somebody needs it. That is why `distillctl list-methods` stays fast with thirty plugins installed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Literal

Reads = Literal["labels", "logits"]
Unit = Literal["images", "rows"]
Mixed = Literal["dominant", "soft", "refused"]
MethodKind = Literal["logits", "features", "relations", "self", "wrapper", "labels"]

_EMPTY: Mapping[str, str] = MappingProxyType({})
_NOTHING: Mapping[str, object] = MappingProxyType({})
_NO_INPUTS: Mapping[str, WeightsInput] = MappingProxyType({})


@dataclass(frozen=True, kw_only=True)
class Spec:
    """What every plugin object has.

    name: what the user writes in a profile.
    summary: one line for the lists.
    implementation: `"package.module:attribute"`, loaded when a run is assembled; what it must be, the subclass says.
    options: `"package.module:Class"`, a subclass of `distillctl.Options`; empty if there is nothing to set.
    namespace: set for objects whose names others use too (model zoos). `cifar/vgg13` always works; the bare
        `vgg13` works as long as only one installed package has it.
    aliases: other names that mean the same.
    paper: surnames of the authors, year and arXiv id, or where the data come from.
    title, authors, venue: of the paper, for `distillctl show NAME --bibtex`, which takes year and arXiv id from `paper`. Authors as BibTeX
        has them: `"Hinton, Geoffrey and Vinyals, Oriol"`. `venue` is the conference, empty where there is none.
    """

    name: str
    summary: str
    implementation: str
    options: str = ""
    namespace: str = ""
    aliases: tuple[str, ...] = ()
    paper: str = ""
    title: str = ""
    authors: str = ""
    venue: str = ""

    @property
    def qualified(self) -> str:
        """The name that is never ambiguous."""
        return f"{self.namespace}/{self.name}" if self.namespace else self.name


@dataclass(frozen=True, kw_only=True)
class Preset:
    """Defaults of a method for certain data or pairs, as its paper or the benchmark gives them.

    values: keys of the `[method]` table (`weight`, `task_weight`, `warmup_epochs` or the method's own options). A wrapper's may also have
        options of the method that it wraps, as `inner.NAME`, with `inner` to say which method that is; they win over its own presets.
    dataset, teacher, student: names, or patterns with `*`; empty matches everything.
    when: options of the method that must have these values.
    inner: for wrappers, name of the method that they wrap; empty matches every one.
    of_epochs: length of the run for which `warmup_epochs` is published: in a run of another length it is the same share. 0 if it is not.
    source: where the values come from, shown by `check` beside each value.
    Later presets win over earlier ones; what the profile states wins over all.
    """

    values: Mapping[str, object]
    dataset: str = ""
    teacher: str = ""
    student: str = ""
    when: Mapping[str, object] = field(default_factory=lambda: _NOTHING)
    inner: str = ""
    of_epochs: int = 0
    source: str = ""


@dataclass(frozen=True, kw_only=True)
class MethodSpec(Spec):
    """A distillation method. `implementation` names a subclass of `distillctl.Method`.

    kind: what it compares.
    formula: the loss in one line of text.
    weight, task_weight, warmup_epochs: defaults of the keys that every `[method]` table has.
    of_epochs: length of the run for which `warmup_epochs` is published: in a run of another length it is the same share. 0 if it is not.
    needs_teacher: False for methods that work without one.
    compares_images: its loss is no mean over images: it compares those of a batch with each other, or with a memory of others.
        Then the key `gather` of its table says whether, with several processes, it sees the whole batch.
    remembers_images: of those, even a batch of one image has something to be compared with: a memory, or other positions of its own map.
    reads: what it reads beside the features that it wants: the `labels` of a batch or of `Setup`, the `logits` of either side. A method
        is refused for a task that does not give it.
    mixed: what it makes of images that are mixed from two (mixup, CutMix): a method that reads labels learns from those of the `dominant`
        image, or from the `soft` labels; `refused` if it takes every image for one of the data set's.
    unit: what the rows of its batch are: whole `images`, or the `rows` that a task cuts out of them (the proposals of a detector).
        For classification the two are the same. A method that reads nothing but logits and labels works on `rows`; a wrapper, on
        what the method that it wraps works on.
    binary: of a method on rows: whether its formula holds where each row is one outcome (`ModelSpec.binary`), as that of a divergence
        between distributions does.
    relabels: before the student's forward it replaces targets of the batch by what the teacher takes them for: its class overrides
        `relabel`. It has no terms, and a run has one such method.
    gives_head: it replaces the student's classifier: its class overrides `head`.
    takes_temperature: its forward has the keyword `temperature`, so that wrappers can steer it
        (the class derives from `distillctl.TemperatureMethod`).
    capturable: whether a step with it may be captured as one CUDA graph and replayed: nothing in its terms (in phases too) and
        `after_step` depends on Python state that changes from step to step, waits for the device, moves tensors between the CPU and the
        device, or has a shape that depends on data. A wrapper's step is captured if the inner method's may be, too.
    inner: for wrappers, the method that is wrapped when the profile names none in `[method.inner]`.
    inner_kinds: for wrappers, the kinds of methods that can be wrapped; empty means those that take a temperature.
    presets: defaults by data set and pair.
    """

    kind: MethodKind
    formula: str = ""
    weight: float = 1.0
    task_weight: float = 1.0
    warmup_epochs: float = 0.0
    of_epochs: int = 0
    needs_teacher: bool = True
    compares_images: bool = False
    remembers_images: bool = False
    reads: tuple[Reads, ...] = ()
    mixed: Mixed = "dominant"
    unit: Unit = "images"
    binary: bool = False
    relabels: bool = False
    gives_head: bool = False
    takes_temperature: bool = False
    capturable: bool = False
    inner: str = ""
    inner_kinds: tuple[MethodKind, ...] = ()
    presets: tuple[Preset, ...] = ()


@dataclass(frozen=True, kw_only=True)
class WeightsInput:
    """What a set of pretrained weights was made to see, of images scaled to [0, 1]; and what `show` tells beside it.

    mean, std: of each channel.
    size: side length in pixels at which they are published; 0 if it is not known.
    crop: share of the resized image's side that the published evaluation crops; 0 if it is not known.
    interpolation: by which it resizes.
    license: of the weights, as their publisher names it; it is kept in the run.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: int = 0
    crop: float = 0.0
    interpolation: str = ""
    license: str = ""


@dataclass(frozen=True, kw_only=True)
class ModelSpec(Spec):
    """A network. If its options have `image_size`, it works at that size alone, and a teacher's images are resized to it.

    If they have `stages`, it ends after so many of its stages (`distillctl.end_after`).

    implementation: a function `build(name: str, num_classes: int, options: Options) -> torch.nn.Module`.
    stages: ordered names of features and where to take them: a module path with optional suffixes.
        `:input` takes what the module receives instead of what it returns, `:nhwc` turns (B, H, W, C) into
        (B, C, H, W), `:tokens` drops a class token and folds (B, 1 + h·w, C) into (B, C, h, w), `:tokens5` drops
        the first five (class token and registers).
        `:final` takes the last of several calls of a module in one forward.
        By convention `stem`, `stage1` … `stageN`, `stageK:pre` for the tensor before the last ReLU of a stage, and `final` for
        the map whose average the classifier receives, where that is not the last stage.
    aside: names among `stages` for which neither `stages` nor `last` stands.
    classifier: path of the last Linear layer; its input is the feature called `pooled`. Empty where images have none.
    binary: it says of each class by itself whether it is there, by a sigmoid and not by one softmax. Rows of methods (`MethodSpec.unit`)
        are then single outcomes, of two classes with the logits 0 and z: whether it is not, and whether it is. Methods on rows that do
        not declare `binary` are refused.
    weights: names of pretrained weights that can be asked for by `weights = "…"`.
    weights_loader: `"module:function"`, called with (name, weights), or (name, weights, options) if it takes three, gives a state dict.
    weights_file: an option that names a file of weights for a part of the model, such as its backbone: a student that states it starts from
        it. A finished run does not need the file.
    weights_of_part: `"module:function"`, called with (name, state dict of that file, options), gives tensors of the model by name; the
        others stay new.
    weights_input: for names of pretrained weights, what they were made to see: a teacher with these weights sees it.
    weights_top1: `"module:function"`, called with a name, gives for names of pretrained weights their top-1 accuracy on ImageNet's
        validation images, 0 to 1, as it is published; empty where the package does not know it.
    replaceable: paths of modules that options may build otherwise than published: a student that starts from pretrained weights keeps its
        own where theirs have another shape.
    own_file: a `checkpoint` is not a file of weights for it, but what it is made of, in a format of its own: `implementation` is called
        with the path as `file`, and `Task.adopt` with the model. It teaches or is evaluated, and is never a student. What it was made to
        see, `weights_input` says under the empty name.
    input_size: side length in pixels that the model was designed for.
    parameters: how many it trains, with the defaults of its options and `classes` classes; 0 if it is not said.
    classes: how many classes `parameters` is counted with.
    """

    stages: Mapping[str, str] = field(default_factory=lambda: _EMPTY)
    aside: tuple[str, ...] = ()
    classifier: str = ""
    binary: bool = False
    weights: tuple[str, ...] = ()
    weights_loader: str = ""
    weights_file: str = ""
    weights_of_part: str = ""
    weights_input: Mapping[str, WeightsInput] = field(default_factory=lambda: _NO_INPUTS)
    weights_top1: str = ""
    replaceable: tuple[str, ...] = ()
    own_file: bool = False
    input_size: int = 224
    parameters: int = 0
    classes: int = 1000

    def ending_after(self, stages: int | None) -> ModelSpec:
        """The declaration of the model that ends after so many of its stages; None for all."""
        if stages is None:
            return self
        kept = {"stem", *(f"stage{number}" for number in range(1, stages + 1))}
        return replace(self, stages={name: tap for name, tap in self.stages.items() if name.partition(":")[0] in kept})


@dataclass(frozen=True, kw_only=True)
class ModelFamily(Spec):
    """Many models under one name, each declared when somebody asks for it, so that their number costs nothing to those who do not.

    name: what stands before the slash: a model of the family `timm` is always called `timm/…`.
    implementation: `"module:function"`, called with a name without that. It gives its `ModelSpec`, whose `namespace` is the family's
        name, or None. It may raise `distillctl.PluginError` where the name is known but the model cannot be had.
    names: `"module:function"`, called with nothing: name → summary of each model, for the lists. Without torch.
    """

    names: str


@dataclass(frozen=True, kw_only=True)
class DatasetSpec(Spec):
    """A data set of images with targets.

    implementation: a function `build(options: Options, seed: int) -> distillctl.Splits`.
    task: name of the task that says what its targets are. Options with a property `task` may name another one.
    family: a name that presets may match for several data sets alike (`cifar100`); empty means the name itself, and the option
        `family` where the data set has one.
    preview: a function `preview(options: Options) -> str`, which `check` calls: it says in a line what lies there, or raises
        `distillctl.DataError`. It neither downloads nor imports torch.
    """

    task: str = "classification"
    family: str = ""
    preview: str = ""


@dataclass(frozen=True, kw_only=True)
class OptimizerSpec(Spec):
    """An optimizer.

    implementation: a function `build(groups: list[dict[str, Any]], options: Options) -> torch.optim.Optimizer`.
        Every group has `params`, and may have `lr_scale` (multiplies the schedule's learning rate), `weight_decay` (overrides the option)
        and `decay` (`all` or `weights`, which `distillctl.split_decay` takes out). The options must have a field `lr`.
    separate_gradients: the optimizer wants the gradients of the label loss and of the methods' terms apart; what `implementation`
        returns is then a `distillctl.SeparateGradients`.
    """

    separate_gradients: bool = False


@dataclass(frozen=True, kw_only=True)
class TaskSpec(Spec):
    """A task: what the targets of a data set are, and how they are learnt and judged.

    implementation: a subclass of `distillctl.Task`, which the engine builds for the data sets whose spec names the task.
    labelled: whether there is a label loss. Without one, all is learnt from a teacher, and what would change the loss is refused.
    figures: names of what evaluations tell, the one that chooses the best epoch first, by which `[published]` is checked; they may be left
        out.
    """

    labelled: bool = True
    figures: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class TrackerSpec(Spec):
    """A tracker: it is told what happens in a run, and cannot change it.

    implementation: a subclass of `distillctl.Tracker`, called with its options.
    """


@dataclass(frozen=True, kw_only=True)
class CommandSpec(Spec):
    """A command of the command line: `distillctl NAME`.

    implementation: a function that typer can take as a command. Its parameters are the arguments and options, so that `options` stays
        empty; its docstring is the help, and what stands there below `Examples:` is printed as it is. A `DistillError` that it raises is
        shown in one sentence and sets the exit code, and so does an integer that it returns.
    summary: the line of `distillctl --help`, for which `implementation` is not loaded.
    """
