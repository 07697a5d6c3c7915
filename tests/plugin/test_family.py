"""Models of a family are declared when they are asked for: names, errors, and who may have which."""

from __future__ import annotations

import json

import pytest

from distillctl import ModelFamily, ModelSpec, PluginError
from distillctl.cli import listing, run
from distillctl.plugin import catalog as catalog_module
from distillctl.plugin.registry import Registry

from .test_catalog import model, registry_of

ZOO = {"vit_tiny": "6 M", "vit_small": "22 M", "resnet18": "12 M"}
ASKED: list[str] = []


def find(name: str) -> object:
    ASKED.append(name)
    if name == "tower":
        raise PluginError("`tower` is not a classifier")
    if name == "liar":
        return model("resnet18", "zoo")
    if name == "text":
        return "resnet18"
    return model(name, "zoo") if name in ZOO else None


def names() -> dict[str, str]:
    return ZOO


def family(**changes: str) -> ModelFamily:
    here = __name__
    return ModelFamily(**{"name": "zoo", "summary": "for tests", "implementation": f"{here}:find", "names": f"{here}:names", **changes})


@pytest.fixture
def registry() -> Registry:
    ASKED.clear()
    return registry_of(zoo=[family(), model("plain")], vision=model("resnet18", "torchvision"))


def test_a_model_is_declared_when_it_is_asked_for_and_once(registry):
    assert not registry.broken
    assert [spec.name for spec in registry.models] == ["plain", "resnet18"]
    assert ASKED == []
    found = registry.models.get("zoo/vit_tiny")
    assert found.qualified == registry.models.shown_name(found) == "zoo/vit_tiny"
    assert registry.models.plugin(found).package == "zoo"
    assert registry.models.get("zoo/vit_tiny") is found
    assert ASKED == ["vit_tiny"]


def test_a_family_takes_no_bare_name_away(registry):
    assert registry.models.get("resnet18").namespace == "torchvision"
    assert registry.models.get("zoo/resnet18").namespace == "zoo"
    assert "vit_tiny" not in registry.models
    assert "zoo/vit_tiny" in registry.models


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("zoo/vit_tinny", "did you mean `zoo/vit_tiny`"),
        ("zoo/qqqq", "`distillctl list-models 'zoo/*'` lists all"),
        ("vit_tiny", "did you mean `zoo/vit_tiny`? `distillctl list-models` lists all"),
    ],
)
def test_unknown_names_get_the_nearest(registry, name, hint):
    with pytest.raises(PluginError) as caught:
        registry.models.get(name)
    assert caught.value.problems[0].message == f"no model is called `{name}`"
    assert caught.value.problems[0].hint.startswith(hint)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tower", "`tower` is not a classifier"),
        ("liar", "the family `zoo` gives for `liar` a model called `zoo/resnet18`"),
        ("text", "the family `zoo` gives for `text` 'str' instead of a ModelSpec"),
    ],
)
def test_what_a_family_gives_is_looked_at(registry, name, message):
    with pytest.raises(PluginError) as caught:
        registry.models.get(f"zoo/{name}")
    assert caught.value.problems[0].message == message
    assert f"zoo/{name}" not in registry.models


def test_names_before_the_slash_belong_to_one_package():
    for packages in (
        {"first": family(), "second": model("x", "zoo")},
        {"first": model("x", "zoo"), "second": family()},
        {"first": family(), "second": family()},
    ):
        registry = registry_of(**packages)
        assert [(p.package, p.problem) for p in registry.broken] == [("second", "the models `zoo/…` are already provided by first")]


def test_a_family_must_be_well_formed():
    assert registry_of(first=family(names="")).broken[0].problem == "the family `zoo` has no `names`"
    assert "names of `zoo` is not of the form" in registry_of(first=family(names="nowhere")).broken[0].problem


def test_the_package_to_install_is_told_for_a_family(monkeypatch):
    monkeypatch.setattr(catalog_module, "known_packages", lambda: {"model": {"distillctl-zoo": ["zoo/*"]}})
    for name, told in (("zoo/vit_tiny", True), ("zoo", False), ("other/vit_tiny", False)):
        with pytest.raises(PluginError) as caught:
            registry_of(first=model("x")).models.get(name)
        assert ("`distillctl-zoo`: pip install distillctl-zoo" in caught.value.problems[0].hint) is told


def test_a_list_has_one_row_for_a_family_unless_a_pattern_asks_for_more(registry, monkeypatch, capsys):
    monkeypatch.setattr(listing.Registry, "load", lambda **_: registry)

    def rows(*arguments: str) -> dict[str, str]:
        assert run(["list-models", *arguments, "--json"]) == 0
        return {row["name"]: row["summary"] for row in json.loads(capsys.readouterr().out)["models"]}

    assert rows()["zoo/…"] == "3 models: for tests; `distillctl list-models 'zoo/*'`"
    assert set(rows()) == {"zoo/…", "plain", "resnet18"}
    assert rows("zoo/*vit*") == {"zoo/vit_tiny": "6 M", "zoo/vit_small": "22 M"}
    assert set(rows("resnet")) == {"resnet18", "zoo/resnet18"}
    assert set(rows("--package", "zoo")) == {"zoo/…", "plain"}
    assert ASKED == []


def test_plugins_names_the_family(registry):
    provided = {row["package"]: row["provides"] for row in listing.plugin_rows(registry)}
    assert provided["zoo"] == {"models": ["plain", "zoo/…"]}
    assert isinstance(registry.models.get("zoo/resnet18"), ModelSpec)
