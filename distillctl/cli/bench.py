"""`distillctl bench`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from distillctl.cli import options, render
from distillctl.text import counted

if TYPE_CHECKING:
    from distillctl.commands.benchmark import Bench


def bench(
    profile: options.Profile,
    set_: options.Set = None,
    method: options.Method = None,
    teacher: options.Teacher = None,
    steps: Annotated[int, typer.Option("--steps", min=1, help="Steps that count, after the warm-up.")] = 20,
    warmup: Annotated[int, typer.Option("--warmup", min=1, help="Steps before them.")] = 3,
    compile_: Annotated[bool, typer.Option("--compile", help="Measure compiled steps too; compiling takes up to minutes.")] = False,
    threads: Annotated[int, typer.Option("--threads", min=0, help="Threads of torch on a CPU; 0 keeps its own choice.")] = 0,
    device: options.Device = "auto",
    allow_code: options.AllowCode = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure where the time of a training step goes, beside the bare networks. Trains nothing and writes nothing.

    The teacher's weights do not matter here: one that another profile has yet to train stands in with fresh weights.

    Examples:
        distillctl bench profiles/cifar100/vgg13_vgg8.toml

        distillctl bench profiles/cifar100/resnet32x4_resnet8x4.toml --method crd --steps 10 --json
    """
    from distillctl.plugin.registry import Registry
    from distillctl.profile.reading import load

    registry = Registry.load()
    if allow_code:
        registry.allow_code()
    checked = load(profile, registry=registry, overrides=set_ or (), method=method, teacher=teacher)
    with render.loading():  # after what is wrong with the profile
        from distillctl.commands.benchmark import bench_profile

    results = bench_profile(checked, registry, steps=steps, warmup=warmup, device=device, threads=threads, compile_too=compile_)
    if as_json:
        render.as_json([r.as_dict() for r in results])
        return
    for result in results:
        print_bench(result)


def print_bench(result: Bench) -> None:
    """Rates, the ratio to the yardstick, and the parts."""
    render.words(
        f"{result.mode} on {result.device}, {counted(result.threads, 'thread')}, batch {result.batch_size}, "
        f"medians of {counted(result.steps, 'step')}"
    )
    render.line(f"  step        {result.step * 1000:9.2f} ms   {result.images_per_second:,.0f} images/s")
    render.words(f"  yardstick   {result.bare * 1000:9.2f} ms   bare teacher forward, student forward, backward and update", 29)
    render.line(f"  ratio       {result.ratio:9.3f}")
    total = sum(result.parts.values())
    for name, seconds in result.parts.items():
        render.line(f"  {name:<11} {seconds * 1000:9.2f} ms   {seconds / total:6.2%}")
