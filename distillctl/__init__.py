"""Knowledge distillation for vision models: one TOML profile, every method in its own package.

The names below are the public API. They are loaded on first use, so that importing `distillctl` costs no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from distillctl.api.class_folders import ClassFolders, find_folder_or_archive, list_images, require_folder, scan_classes
    from distillctl.api.data import (
        ArrayImages,
        FileImages,
        Images,
        ImageStore,
        JointViews,
        LazyTargets,
        Splits,
        StoredImages,
        UnequalViews,
        View,
        size_between,
    )
    from distillctl.api.decoupled import is_target, other_divergence, others, split_target, target_divergence
    from distillctl.api.distributed import draw_rows, gather_rows
    from distillctl.api.hooks import hookimpl
    from distillctl.api.layers import LenientBatchNorm2d, end_after, input_of, matching_convolution
    from distillctl.api.losses import kd_loss, kl_divergence, match_size, unit_rows, widen
    from distillctl.api.method import (
        Batch,
        Features,
        Head,
        Method,
        Phase,
        Progress,
        Setup,
        Side,
        TemperatureMethod,
        Wants,
        Wrapper,
        fp32,
    )
    from distillctl.api.optimizer import SeparateGradients, split_decay
    from distillctl.api.options import (
        Epsilon,
        Factor,
        FileAugment,
        FileCache,
        Options,
        PathOption,
        StageName,
        StageNames,
        Temperature,
        check_image_sizes,
    )
    from distillctl.api.pairing import pair_stages, require_positions
    from distillctl.api.pooling import pool_average, pool_maximum
    from distillctl.api.relabel import Guesses, Relabels
    from distillctl.api.series import SeriesTracker
    from distillctl.api.specs import (
        CommandSpec,
        DatasetSpec,
        MethodSpec,
        ModelFamily,
        ModelSpec,
        OptimizerSpec,
        Preset,
        TaskSpec,
        TrackerSpec,
        WeightsInput,
    )
    from distillctl.api.task import Answer, Evaluation, Meter, Outputs, Seen, Task
    from distillctl.api.tracker import RunStart, StepReport, Tracker
    from distillctl.build.student import Student, load_student
    from distillctl.commands.compare import compare
    from distillctl.commands.export import export
    from distillctl.commands.from_python import evaluate, train
    from distillctl.commands.opened_run import OpenedRun, open_run
    from distillctl.commands.predict import predict
    from distillctl.commands.report import report
    from distillctl.data.archives import unpacked
    from distillctl.data.decode import open_image, to_rgb, upright_size
    from distillctl.data.splits import listing_hash, stratified_split, three_way_split
    from distillctl.errors import DataError, DistillError, PluginError, Problem, ProfileError, RunError
    from distillctl.files import cache_folder

_WHERE = {
    "distillctl.api.class_folders": ("ClassFolders", "find_folder_or_archive", "list_images", "require_folder", "scan_classes"),
    "distillctl.api.data": (
        "ArrayImages", "FileImages", "ImageStore", "Images", "JointViews", "LazyTargets", "Splits", "StoredImages",
        "UnequalViews", "View", "size_between",
    ),
    "distillctl.api.hooks": ("hookimpl",),
    "distillctl.api.decoupled": ("is_target", "other_divergence", "others", "split_target", "target_divergence"),
    "distillctl.api.layers": ("LenientBatchNorm2d", "end_after", "input_of", "matching_convolution"),
    "distillctl.api.losses": ("kd_loss", "kl_divergence", "match_size", "unit_rows", "widen"),
    "distillctl.api.method": (
        "Batch", "Features", "Head", "Method", "Phase", "Progress", "Setup", "Side", "TemperatureMethod", "Wants", "Wrapper", "fp32",
    ),
    "distillctl.api.optimizer": ("SeparateGradients", "split_decay"),
    "distillctl.api.options": (
        "Epsilon", "Factor", "FileAugment", "FileCache", "Options", "PathOption", "StageName", "StageNames", "Temperature",
        "check_image_sizes",
    ),
    "distillctl.api.distributed": ("draw_rows", "gather_rows"),
    "distillctl.api.relabel": ("Guesses", "Relabels"),
    "distillctl.api.series": ("SeriesTracker",),
    "distillctl.api.specs": (
        "CommandSpec", "DatasetSpec", "MethodSpec", "ModelFamily", "ModelSpec", "OptimizerSpec", "Preset", "TaskSpec", "TrackerSpec",
        "WeightsInput",
    ),
    "distillctl.api.task": ("Answer", "Evaluation", "Meter", "Outputs", "Seen", "Task"),
    "distillctl.api.tracker": ("RunStart", "StepReport", "Tracker"),
    "distillctl.build.student": ("Student", "load_student"),
    "distillctl.commands.compare": ("compare",),
    "distillctl.commands.export": ("export",),
    "distillctl.commands.from_python": ("evaluate", "train"),
    "distillctl.commands.opened_run": ("OpenedRun", "open_run"),
    "distillctl.commands.predict": ("predict",),
    "distillctl.commands.report": ("report",),
    "distillctl.api.pairing": ("pair_stages", "require_positions"),
    "distillctl.api.pooling": ("pool_average", "pool_maximum"),
    "distillctl.data.archives": ("unpacked",),
    "distillctl.data.decode": ("open_image", "to_rgb", "upright_size"),
    "distillctl.data.splits": ("listing_hash", "stratified_split", "three_way_split"),
    "distillctl.errors": ("DataError", "DistillError", "PluginError", "Problem", "ProfileError", "RunError"),
    "distillctl.files": ("cache_folder",),
}  # fmt: skip
_MODULE_OF = {name: module for module, names in _WHERE.items() for name in names}

__all__ = [
    "Answer", "ArrayImages", "Batch", "ClassFolders", "CommandSpec", "DataError", "DatasetSpec", "DistillError", "Epsilon", "Evaluation",
    "Factor", "Features", "FileAugment", "FileCache", "FileImages", "Guesses", "Head", "ImageStore", "Images", "JointViews", "LazyTargets",
    "LenientBatchNorm2d", "Meter", "Method", "MethodSpec", "ModelFamily", "ModelSpec", "OpenedRun", "OptimizerSpec", "Options",
    "Outputs", "PathOption", "Phase", "PluginError", "Preset", "Problem", "ProfileError", "Progress", "Relabels", "RunError", "RunStart",
    "Seen", "SeparateGradients", "SeriesTracker", "Setup", "Side", "Splits", "StageName", "StageNames", "StepReport", "StoredImages",
    "Student", "Task", "TaskSpec", "Temperature", "TemperatureMethod", "Tracker", "TrackerSpec", "UnequalViews", "View", "Wants",
    "WeightsInput", "Wrapper", "__version__",
    "cache_folder", "check_image_sizes", "compare", "draw_rows", "end_after", "evaluate", "export", "find_folder_or_archive", "fp32",
    "gather_rows", "hookimpl", "input_of", "is_target", "kd_loss", "kl_divergence", "list_images", "listing_hash", "load_student",
    "match_size",
    "matching_convolution", "open_image", "open_run", "other_divergence", "others", "pair_stages", "pool_average", "pool_maximum",
    "predict", "report", "require_folder", "require_positions", "scan_classes", "size_between", "split_decay", "split_target",
    "stratified_split", "target_divergence", "three_way_split", "to_rgb", "train", "unit_rows", "unpacked", "upright_size", "widen",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _MODULE_OF:
        return getattr(import_module(_MODULE_OF[name]), name)
    raise AttributeError(f"module 'distillctl' has no attribute {name!r}")
