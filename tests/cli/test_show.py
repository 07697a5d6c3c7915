"""`show`: everything a user needs to write a table, and an example that is valid."""

from __future__ import annotations

import dataclasses
import json
import re
import tomllib
from itertools import accumulate

import pytest

from distillctl import MethodSpec, PluginError, ProfileError
from distillctl.cli import run
from distillctl.cli.description import SECTIONS, description, option_rows
from distillctl.cli.show import find
from distillctl.plugin.citation import bibtex
from distillctl.plugin.registry import Registry, load
from distillctl.profile.schema import DatasetTable, MethodTable, OptimizerTable, StudentTable

CORE = {"method": MethodTable, "model": StudentTable, "data set": DatasetTable, "optimizer": OptimizerTable}
REGISTRY = Registry.load()
ALL = [(c, s) for c in (REGISTRY.methods, REGISTRY.datasets, REGISTRY.optimizers) for s in c] + [
    (REGISTRY.models, s) for s in REGISTRY.models
]


def test_method(capsys):
    assert run(["show", "kd", "--json"]) == 0
    (entry,) = json.loads(capsys.readouterr().out)["found"]
    assert entry["kind"] == "method"
    assert entry["formula"].startswith("T²")
    assert entry["needs_teacher"] is True
    assert entry["presets"][0]["source"] == "mdistiller's ImageNet setting"
    options = {o["name"]: o for o in entry["options"]}
    assert options["weight"]["default"] == 0.9
    assert options["task_weight"]["default"] == 0.1
    assert options["temperature"] == {
        "name": "temperature",
        "type": "number or table with teacher and student",
        "default": 4.0,
        "required": False,
        "bounds": "at least 0.001 and at most 10000",
        "description": "Divides the logits: one number for both sides, or `{teacher = 4.0, student = 2.0}`.",
        "default_from": "package; mdistiller's ImageNet setting",
    }


def test_printed(capsys):
    assert run(["show", "kd"]) == 0
    out = capsys.readouterr().out
    for text in (
        "method kd: match",
        "arXiv 1503.02531",
        "formula",
        "T²",
        "at least 0.001",
        "presets",
        "dataset",
        '[method]\nname = "kd"\n',
    ):
        assert text in out.replace("data set", "dataset")
    assert run(["show", "torchvision/resnet18"]) == 0
    out = capsys.readouterr().out
    for text in ("model", "stage1", "layer1", "224 pixels", "11,689,512 with 1000 classes", "IMAGENET1K_V1", '[student]\nname = "'):
        assert text in out


CITED = [pytest.param(s, id=s.name) for s in (*REGISTRY.methods, *REGISTRY.optimizers) if s.paper]


@pytest.mark.parametrize("spec", CITED)
def test_every_paper_is_an_entry_that_parses(spec):
    entry = bibtex(spec)
    found = re.fullmatch(r"@(inproceedings|misc)\{([a-z]+\d{4}[a-z]+),\n((?:  [a-z]+ = \{.+\},\n)+)\}", entry)
    assert found, entry
    fields = dict(re.findall(r"^  ([a-z]+) = \{(.+)\},$", found[3], re.MULTILINE))
    assert {"title", "author", "year"} <= set(fields)
    assert ("booktitle" in fields) == (found[1] == "inproceedings")
    assert "eprint" in fields or "booktitle" in fields
    for value in fields.values():
        depths = list(accumulate({"{": 1, "}": -1}.get(c, 0) for c in value))
        assert depths[-1] == 0
        assert min(depths) >= 0
        assert not re.search(r"(?<!\\)[&%$#_]", value)
    surnames = [author.partition(",")[0] for author in fields["author"].split(" and ")]
    assert spec.paper.startswith(f"{', '.join(surnames)} {fields['year']}")


def test_keys_mean_one_paper_each():
    entries = {bibtex(param.values[0]) for param in CITED}
    assert len({entry.partition(",")[0] for entry in entries}) == len(entries)
    assert {spec.name for spec in REGISTRY.methods if not spec.paper} == {"none"}


def test_bibtex(capsys):
    assert run(["show", "kd", "--bibtex"]) == 0
    assert capsys.readouterr().out == (
        "@misc{hinton2015distilling,\n"
        "  title = {{Distilling the Knowledge in a Neural Network}},\n"
        "  author = {Hinton, Geoffrey and Vinyals, Oriol and Dean, Jeff},\n"
        "  year = {2015},\n"
        "  eprint = {1503.02531},\n"
        "  archiveprefix = {arXiv},\n"
        "}\n"
    )
    for name, hint in (("resnet18", "its paper is He, Zhang, Ren, Sun 2016, arXiv 1512.03385"), ("none", "")):
        assert run(["show", name, "--bibtex"]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert "too little of its paper for BibTeX" in err
        assert hint in err


def test_signs_of_latex_and_braces_stay_inside_the_entry():
    spec = MethodSpec(
        name="odd", kind="logits", summary="x", implementation="x:y", paper="Ö 2020", title="}R&D_{ of r\\ain", authors="Ö, A", venue="C#"
    )
    entry = bibtex(spec)
    assert entry.splitlines() == [
        "@inproceedings{o2020rain,",
        "  title = {{R\\&D\\_ of rain}},",
        "  author = {Ö, A},",
        "  booktitle = {C\\#},",
        "  year = {2020},",
        "}",
    ]
    assert bibtex(dataclasses.replace(spec, authors="")) == ""
    assert bibtex(dataclasses.replace(spec, paper="Ö")) == ""


def test_options_fit_a_narrow_terminal(capsys, monkeypatch):
    """Their descriptions stand below the table then, with the sources of defaults that are not the package's alone."""
    monkeypatch.setenv("COLUMNS", "80")
    assert run(["show", "dkd"]) == 0
    out = capsys.readouterr().out
    lines = out.splitlines()
    assert max(map(len, lines)) <= 80
    assert "  option         type    default  bounds" in lines
    assert "  alpha          number  1.0      at least 0 and at most 1e9" in lines
    assert "  alpha: Factor of the part on the target class." in lines
    assert "  beta: Factor of the part on all other classes. (default: package; mdistiller's" in lines
    monkeypatch.setenv("COLUMNS", "200")
    assert run(["show", "dkd"]) == 0
    assert "default from  " in capsys.readouterr().out


def test_choices_and_bounds():
    rows = {o["name"]: o for o in option_rows(REGISTRY.optimizers.get("sgd"))}
    assert (rows["momentum"]["type"], rows["momentum"]["bounds"]) == ("number", "at least 0 and below 1")
    assert (rows["decay"]["type"], rows["decay"]["default"]) == ('"all" or "weights"', "all")


@pytest.mark.parametrize(("catalog", "spec"), [pytest.param(c, s, id=s.qualified) for c, s in ALL])
def test_every_example_is_valid(catalog, spec):
    entry = description(catalog, spec)
    kind = catalog.kind
    table = tomllib.loads(entry["example"])[SECTIONS[kind]]
    assert catalog.get(table["name"]) is spec
    core = CORE[kind]
    inner = table.pop("inner", None)
    core.model_validate({k: v for k, v in table.items() if k in core.model_fields})
    own = {k: v for k, v in table.items() if k not in core.model_fields}
    if spec.options:
        load(spec.options, spec.name).model_validate(own)
    else:
        assert not own
    assert inner == ({"name": spec.inner} if getattr(spec, "inner", "") else None)
    for option in entry["options"]:
        assert option["description"], option["name"]
        assert option["type"]
        assert (option["default"] is None) or not option["required"]


def test_unknown_names():
    for name, hint in (
        ("kdd", "did you mean `kd`"),
        ("adamm", "did you mean `adamw`?"),
        ("qqqqqq", "lists all"),
    ):
        with pytest.raises(ProfileError) as caught:
            find(REGISTRY, name)
        assert caught.value.problems[0].message == f"no method, model, data set or optimizer is called `{name}`"
        assert hint in caught.value.problems[0].hint


def test_package_that_is_left_out(monkeypatch):
    monkeypatch.setenv("DISTILLCTL_PLUGINS", "")
    with pytest.raises(ProfileError) as caught:
        find(Registry.load(), "crd")
    assert caught.value.problems[0].hint == (
        "it comes with the package `distillctl-crd`, which is installed but left out by `DISTILLCTL_PLUGINS`"
    )


def test_ambiguous_name(capsys):
    with pytest.raises(PluginError, match="ambiguous"):
        find(REGISTRY, "vgg13")
    assert run(["show", "vgg13"]) == 2
    assert "`cifar/vgg13`" in capsys.readouterr().err
