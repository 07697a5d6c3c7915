"""What people type who come from other tools, and what does it here. It comes before the nearest spelling."""

from __future__ import annotations

from collections.abc import Mapping

_LISTS = "`distillctl list-methods`, `list-models`, `list-datasets` or `plugins`"
_EVAL = "`distillctl eval RUN` evaluates a run, on the split that `--split` names"
_TRAIN = "`distillctl train PROFILE`"

COMMANDS: Mapping[str, str] = {
    **dict.fromkeys(("list", "ls", "search"), _LISTS),
    **dict.fromkeys(("methods", "distillers"), "`distillctl list-methods`"),
    **dict.fromkeys(("models", "model", "zoo"), "`distillctl list-models`"),
    **dict.fromkeys(("datasets", "dataset", "data"), "`distillctl list-datasets`"),
    **dict.fromkeys(("replicate", "verify-paper"), "`distillctl reproduce PROFILE` compares with what is published"),
    **dict.fromkeys(("help", "usage"), "`distillctl --help`, or `distillctl COMMAND --help`"),
    "version": "`distillctl --version`",
    **dict.fromkeys(("fit", "run", "start", "distill", "distil", "kd"), _TRAIN),
    **dict.fromkeys(("resume", "continue", "restart"), f"{_TRAIN}: the same command again goes on with a run that was stopped"),
    **dict.fromkeys(("test", "val", "valid", "validate", "evaluate", "score"), _EVAL),
    **dict.fromkeys(("history", "status", "experiments", "ps"), "`distillctl runs` lists the runs, and `distillctl show RUN` tells of one"),
    **dict.fromkeys(("diff", "stats", "table", "results", "leaderboard"), "`distillctl compare [RUN…]` compares runs over their seeds"),
    **dict.fromkeys(
        ("plot", "plots", "curves", "dashboard", "visualize", "visualise"), "`distillctl report RUN` writes a page with curves"
    ),
    **dict.fromkeys(("soften", "temperature", "logits"), "`distillctl softmax RUN` shows what a temperature makes of the answers"),
    **dict.fromkeys(("info", "describe", "explain", "options"), "`distillctl show NAME` for a method, model, data set or optimizer"),
    **dict.fromkeys(("benchmark", "profile", "speed"), "`distillctl bench PROFILE` measures a training step, `measure RUN` a student"),
    **dict.fromkeys(("latency", "flops", "macs", "params", "summary"), "`distillctl measure MODEL…` or `RUN…` tells what models cost"),
    **dict.fromkeys(("config", "lint", "verify", "doctor", "dry-run"), "`distillctl check PROFILE`, or `train PROFILE --dry-run`"),
    **dict.fromkeys(("create", "template", "example", "quickstart"), "`distillctl init` writes a profile to start from"),
    **dict.fromkeys(("tune", "hpo", "grid", "multirun", "ablate", "ablation"), "`distillctl sweep PROFILE --grid KEY=VALUE,VALUE`"),
    **dict.fromkeys(("submit", "slurm", "sbatch"), "`distillctl launch PROFILE` submits a training to SLURM"),
    **dict.fromkeys(("infer", "inference", "classify"), "`distillctl predict RUN PATH…` classifies images, or finds objects in them"),
    **dict.fromkeys(("deploy", "convert", "onnx"), "`distillctl export RUN` writes ONNX, a program of torch.export or safetensors"),
    **dict.fromkeys(
        ("quantize", "quantise", "int8", "ptq", "qat"), "`distillctl export RUN --int8`, `train PROFILE --set train.quantize=int8`"
    ),
    **dict.fromkeys(("install", "plugin"), "plugins are packages, which pip installs; `distillctl plugins` lists those that are there"),
}
"""Names of commands that are none."""


def _set(key: str) -> str:
    return f"`--set {key}=VALUE`, or the key in the profile"


OPTIONS: Mapping[str, str] = {
    **dict.fromkeys(("--resume", "--continue", "--auto-resume"), "the same command again goes on with a run that was stopped"),
    **dict.fromkeys(("--epochs", "--num-epochs", "--max-epochs", "--epoch"), _set("train.epochs")),
    **dict.fromkeys(("--batch-size", "--batch_size", "--bs", "-b"), _set("train.batch_size")),
    **dict.fromkeys(("--workers", "--num-workers", "--num_workers", "-j"), _set("train.workers")),
    **dict.fromkeys(("--amp", "--fp16", "--bf16", "--precision", "--half"), '`--set train.precision=bf16`, or the key in the profile'),
    **dict.fromkeys(("--accumulate", "--accum", "--grad-accum"), _set("train.accumulate")),
    **dict.fromkeys(("--lr", "--learning-rate", "--learning_rate"), _set("optimizer.lr")),
    **dict.fromkeys(("--weight-decay", "--wd"), _set("optimizer.weight_decay")),
    **dict.fromkeys(("--optimizer", "--opt", "--optim"), _set("optimizer.name")),
    **dict.fromkeys(("--scheduler", "--sched", "--schedule"), _set("schedule.name")),
    **dict.fromkeys(("--temperature", "--temp", "-T"), _set("method.temperature")),
    **dict.fromkeys(("--student", "--model", "--arch", "-a", "--model_s", "--model-s"), _set("student.name")),
    **dict.fromkeys(("--dataset",), _set("dataset.name")),
    **dict.fromkeys(("--data", "--data-dir", "--data_dir", "--data-path", "--root", "--path"), _set("dataset.root")),
    **dict.fromkeys(("--gpu", "--gpus", "--gpu-id", "--cuda"), "`--device cuda:N`, or `--nproc N` for several"),
    **dict.fromkeys(("--nproc_per_node", "--nproc-per-node", "--world-size", "--num-gpus", "--local-rank"), "`--nproc N`"),
    **{f"--{name}": f"`--track {name}`, after `pip install distillctl-{name}`" for name in ("wandb", "tensorboard", "trackio", "mlflow")},
    **dict.fromkeys(("--use-wandb", "--use_wandb", "--log-wandb", "--wandb-project", "--wandb_project"), "`--track wandb`"),
    **dict.fromkeys(("--logger", "--tracker", "--report-to", "--log-dir", "--logdir", "--tb"), "`--track NAME`, such as tensorboard"),
    **dict.fromkeys(("--output", "--output-dir", "--output_dir", "--save-dir", "-o"), "`--out FOLDER` is the run directory"),
    **dict.fromkeys(("--config", "--cfg", "-c", "--config-file"), "the profile is the first argument, without an option"),
    **dict.fromkeys(("--ckpt", "--weights", "--path_t", "--path-t"), "`train --teacher FILE`, or `eval --checkpoint FILE`"),
    **dict.fromkeys(("--distill", "--kd", "--distiller", "--trial"), "`--method NAME`"),
    **dict.fromkeys(("--verbose", "-v", "--debug"), "every epoch is printed; `--quiet` prints the result alone"),
    **dict.fromkeys(("--overwrite", "--force", "-f", "--restart"), "`--fresh` starts a new run beside the one that is there"),
    **dict.fromkeys(("--num-seeds", "--n-seeds", "--num-runs", "--repeat"), "`train PROFILE --seeds 0,1,2` trains one run for each seed"),
    **dict.fromkeys(("--multirun", "-m", "--sweep"), "`distillctl sweep PROFILE --grid KEY=VALUE,VALUE` trains one run for each value"),
    **dict.fromkeys(("--subset", "--limit", "--max-samples"), _set("dataset.limit")),
}  # fmt: skip
"""Names of options that are none."""

OF_TRAIN = ("--out", "--fresh", "--dry-run", "--nproc", "--device", "--from-previous", "--accept-change", "--quiet", "--seeds")
"""Options of `train`, which other commands are asked for."""
