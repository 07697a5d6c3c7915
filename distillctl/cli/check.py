"""`check`: everything that can be checked without importing torch."""

from __future__ import annotations

from distillctl.cli import options, render
from distillctl.cli.reproduce import in_words
from distillctl.plugin.registry import Registry
from distillctl.profile.schema import Profile


def check(
    profile: options.Profile,
    set_: options.Set = None,
    method: options.Method = None,
    teacher: options.Teacher = None,
    seed: options.Seed = None,
    allow_code: options.AllowCode = False,
) -> None:
    """Check a profile without training: print all its problems, or every value with where it comes from, and what data there are.

    Examples:
        distillctl check profiles/quickstart.toml

        distillctl check my.toml --method dkd --set train.epochs=2
    """
    from distillctl.build.advice import advice
    from distillctl.plugin.registry import load as load_object
    from distillctl.profile.published_table import asked
    from distillctl.profile.reading import load
    from distillctl.profile.teacher import input_of_run

    registry = Registry.load()
    if allow_code:
        registry.allow_code()
    checked = load(profile, registry=registry, overrides=set_ or (), method=method, teacher=teacher, seed=seed)
    previous = None
    for table, key, value, origin in resolved_lines(checked):
        if table != previous:
            render.line()
            if table:
                render.heading(table)
            previous = table
        render.line(f"{key + ' = ' + value:<48} # {origin}")
    render.line()
    dataset = checked.dataset.spec
    if dataset.preview:
        found = load_object(dataset.preview, dataset.name)(checked.dataset.options)
        render.words(f"data: {found}")
    for choice in checked.teachers:
        run = choice.table.run
        told = input_of_run(run) if run else {}
        if run and told.get("mean") and told.get("std"):
            seen = f"mean {told['mean']} and std {told['std']} of its run (`{run.name}/model.json`)"
            render.words(f"{choice.key}: sees {seen} where none is stated")
    for text in advice(checked):
        render.words(f"warning: {text}")
    figure, exact = checked.published.of(asked(method, teacher, set_ or ()))
    if figure is not None and exact:
        value = f"{figure.name} {figure.value:g} ± {figure.band(1):.3g} for one seed {in_words(figure)}"
        render.words(f"published: {value}; `distillctl reproduce` compares")
    if checked.sweep.model_fields_set:
        render.words("sweep: `distillctl sweep` reads [sweep]; `train` does not")
    render.words(f"ok: {checked.path} has no problems")


def resolved_lines(profile: Profile) -> list[tuple[str, str, str, str]]:
    """Every value of the resolved profile: table in brackets, key, value as TOML, origin."""
    from distillctl.profile.writing import key_text, value_text

    lines: list[tuple[str, str, str, str]] = []

    def walk(table: str, prefix: str, values: object) -> None:
        assert isinstance(values, dict)
        below = [(k, v) for k, v in values.items() if f"{prefix}{k}" not in profile.origins]
        for key, value in values.items():
            if f"{prefix}{key}" in profile.origins:
                lines.append((table, key_text(key), value_text(value), profile.origins[f"{prefix}{key}"]))
        for key, value in below:
            if isinstance(value, list):
                for i, entry in enumerate(value):
                    walk(f"[[{prefix}{key}]]" + (f"  # {i}" if len(value) > 1 else ""), f"{prefix}{key}.{i}.", entry)
            else:
                name = ".".join(part for part in f"{prefix}{key}".split(".") if not part.isdigit())
                walk(f"[{name}]", f"{prefix}{key}.", value)

    walk("", "", dict(profile.resolved))
    return lines
