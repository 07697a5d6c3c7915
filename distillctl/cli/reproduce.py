"""`distillctl reproduce`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from distillctl.cli import options, render

if TYPE_CHECKING:
    from distillctl.commands.reproduce import Reproduction
    from distillctl.profile.published import Figure


def reproduce(
    profile: options.Profile,
    seeds: Annotated[int, typer.Option("--seeds", metavar="N", min=1, max=1000, help="How many seeds: 0, 1, … N - 1.")] = 3,
    jobs: Annotated[int, typer.Option("--jobs", metavar="N", min=1, help="How many runs are trained at once.")] = 1,
    set_: options.Set = None,
    method: options.Method = None,
    teacher: options.Teacher = None,
    device: options.Device = "auto",
    allow_code: options.AllowCode = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print only the result.")] = False,
    json: options.Json = False,
) -> None:
    """Train what PROFILE publishes and say PASS if the mean over seeds lies within the band around the published figure.

    The runs are those of `train --seeds`: finished ones are taken, and the same command continues what was stopped.
    Exit code 0 for PASS, 1 otherwise.

    Examples:
        distillctl reproduce profiles/cifar100/resnet32x4_resnet8x4.toml

        distillctl reproduce profiles/cub/distilled.toml --method mgd --seeds 1
    """
    from distillctl.cli.sweep import print_head, teller
    from distillctl.commands.reproduce import reproduce as run
    from distillctl.commands.sweep import Plan
    from distillctl.commands.sweep_runner import Event
    from distillctl.plugin.registry import Registry
    from distillctl.slurm.request import Request

    registry = Registry.load()
    if allow_code:
        registry.allow_code()
    request = Request(profile, tuple(set_ or ()), method, teacher, device=device)

    def told(plan: Plan) -> Callable[[Event], object]:
        if quiet or json:
            return lambda _: None
        print_head(plan)
        return teller(plan)

    found = run(request, registry, seeds=seeds, jobs=jobs, teller=told, flags=["--allow-code"] if allow_code else [])
    if json:
        render.as_json(as_dict(found))
    else:
        print_reproduction(found)
    raise typer.Exit(0 if found.passed else 1)


def number(value: float, unit: str) -> str:
    """`73.33 %`, or `0.8123` where the figure is not told in percent."""
    return f"{value:.2f}{unit}" if unit else f"{value:.4f}"


def in_words(figure: Figure) -> str:
    """`(last epoch on test; RepDistiller's README)`."""
    epoch = "last epoch" if figure.table.epoch == "last" else "the epoch that validation chose"
    return f"({epoch} on {figure.table.split}; {figure.table.source})"


def print_reproduction(found: Reproduction) -> None:
    """What was published, what each seed reached, and the verdict."""

    def say(name: str, text: str) -> None:
        render.words(f"{name:<11}{text}", 11)

    def told(value: float) -> str:
        return number(value, found.unit)

    say("published", f"{told(found.figure.value)} ± {found.band:.3g} {found.words} {in_words(found.figure)}")
    teachers = [one.teacher for one in found.seeds if one.teacher is not None]
    if teachers:
        published = "" if found.teacher is None else f", published {told(found.teacher)}"
        say("teacher", f"{told(teachers[0])}{published}")
    for one in found.seeds:
        say(f"seed {one.seed}", f"{told(one.value)}  {one.path}")
    if found.sd is not None:
        say("mean", f"{told(found.mean)}, standard deviation {found.sd:.2g} of {len(found.seeds)} seeds")
    side = "above" if found.difference > 0 else "below"
    distance = f"{told(abs(found.difference)).removesuffix(' %')}{' points' if found.unit else ''} {side} what is published"
    beyond = abs(found.difference) - found.band
    where = f"within {found.band:.3g}" if found.within else f"{beyond:.2g} more than the {found.band:.3g} that are allowed"
    say("PASS" if found.passed else "no PASS", f"{distance}, {where}")
    for other in found.others:
        say("", f"not the published recipe: {other}")


def as_dict(found: Reproduction) -> dict[str, Any]:
    """All of it as plain data."""
    return {
        "passed": found.passed,
        "figure": found.figure.name,
        "published": found.figure.value,
        "source": found.figure.table.source,
        "split": found.figure.table.split,
        "epoch": found.figure.table.epoch,
        "band": found.band,
        "mean": found.mean,
        "sd": found.sd,
        "difference": found.difference,
        "teacher": found.teacher,
        "seeds": [{"seed": one.seed, "run": str(one.path), "value": one.value, "teacher": one.teacher} for one in found.seeds],
        "not_the_published_recipe": list(found.others),
    }
