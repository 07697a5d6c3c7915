"""Names: who has them, which of several is meant, and what is said of one that nobody has."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from distillctl import ModelSpec, PluginError, hookimpl
from distillctl.plugin import catalog as catalog_module
from distillctl.plugin.catalog import Catalog, Plugin
from distillctl.plugin.registry import Registry


def model(name, namespace="", aliases=()):
    return ModelSpec(name=name, namespace=namespace, aliases=aliases, summary="for tests", implementation="nowhere:nothing")


def registry_of(**packages):
    """A registry with one plugin for each keyword, all with the same entry-point name."""
    registry = Registry()
    for package, specs in packages.items():
        registry.add(
            Plugin("same", package, "1"),
            lambda specs=specs: SimpleNamespace(register_model=hookimpl(lambda: specs, specname="register_model")),
        )
    return registry


class TestNames:
    def test_bare_name_of_two_namespaces_is_ambiguous(self):
        registry = registry_of(cifar=[model("vgg13", "cifar"), model("vgg8", "cifar")], vision=[model("vgg13", "torchvision")])
        assert not registry.broken
        assert "vgg13" not in registry.models
        with pytest.raises(PluginError) as caught:
            registry.models.get("vgg13")
        assert caught.value.problems[0].message == "the model name `vgg13` is ambiguous"
        assert caught.value.problems[0].hint == "write `cifar/vgg13` or `torchvision/vgg13`"
        assert registry.models.get("cifar/vgg13").namespace == "cifar"
        assert registry.models.get("torchvision/vgg13").namespace == "torchvision"
        assert registry.models.get("vgg8").namespace == "cifar"
        shown = [registry.models.shown_name(s) for s in registry.models]
        assert shown == ["cifar/vgg13", "torchvision/vgg13", "vgg8"]

    def test_bare_name_of_one_namespace_is_enough(self):
        registry = registry_of(cifar=[model("vgg13", "cifar")])
        assert registry.models.get("vgg13") is registry.models.get("cifar/vgg13")

    def test_the_same_qualified_name_is_a_clash(self):
        registry = registry_of(first=model("vgg13", "zoo"), second=model("vgg13", "zoo"))
        assert [p.problem for p in registry.broken] == ["the model `zoo/vgg13` is already provided by first"]
        assert registry.models.plugin(registry.models.get("vgg13")).package == "first"

    def test_alias(self):
        registry = registry_of(first=model("resnet", aliases=("rn",)), second=model("rn"))
        assert registry.models.get("rn").name == "resnet"
        assert [p.package for p in registry.broken] == ["second"]

    def test_a_namespace_takes_no_name_away(self):
        """What has no namespace, and an alias, can be written in no other way."""
        for specs in ([model("kd"), model("kd", "evil")], [model("kd", "evil"), model("kd")]):
            registry = registry_of(first=specs[0], second=specs[1])
            assert not registry.broken
            assert "kd" in registry.models
            assert registry.models.get("kd").namespace == ""
            assert registry.models.get("evil/kd").namespace == "evil"
            assert {registry.models.shown_name(s) for s in registry.models} == {"kd", "evil/kd"}
        registry = registry_of(first=model("resnet", aliases=("rn",)), second=model("rn", "evil"))
        assert registry.models.get("rn").name == "resnet"
        assert registry.models.shown_name(registry.models.get("evil/rn")) == "evil/rn"

    def test_unknown_names(self):
        registry = registry_of(first=[model("resnet20"), model("resnet56")])
        for name, hint in (
            ("resnet21", "did you mean `resnet20`"),
            ("ResNet20", "did you mean `resnet20`"),
            ("zzz", "`distillctl list-models` lists all"),
            ("vgg8", "plugins/distillctl-cifar"),
            ("cifar/vgg13", "plugins/distillctl-cifar"),
            ("cifar/resnet20", "plugins/distillctl-cifar"),
        ):
            with pytest.raises(PluginError) as caught:
                registry.models.get(name)
            assert caught.value.problems[0].message == f"no model is called `{name}`"
            assert hint in caught.value.problems[0].hint

    def test_a_name_of_a_broken_package_names_it_and_its_reason(self):
        catalog = Catalog("method", plugins=[Plugin("dkd", "distillctl-dkd", "1", problem="it fails"), Plugin("x", "distillctl-x", "1")])
        with pytest.raises(PluginError, match=r"no method is called `dkd`\n\nhint: `distillctl-dkd` is installed but broken: it fails$"):
            catalog.get("dkd")
        with pytest.raises(PluginError, match=r"lists all; `distillctl-dkd` is installed but broken: it fails$"):
            catalog.get("mine")

    def test_outside_of_a_clone_the_package_is_named(self, monkeypatch, tmp_path):
        monkeypatch.setattr(catalog_module, "__file__", str(tmp_path / "distillctl" / "plugin" / "catalog.py"))
        with pytest.raises(PluginError, match=r"pip install distillctl-dkd$"):
            Catalog("method").get("dkd")
        (tmp_path / "plugins" / "distillctl-dkd").mkdir(parents=True)
        monkeypatch.chdir(tmp_path)
        with pytest.raises(PluginError, match=r"pip install \./plugins/distillctl-dkd$"):
            Catalog("method").get("dkd")

    def test_a_reserved_name_is_taken(self):
        catalog = Catalog("model")
        catalog.reserve(["resnet"], "distillctl")
        for taken in (model("resnet"), model("other", aliases=("resnet",))):
            with pytest.raises(PluginError, match="the model `resnet` is already provided by distillctl"):
                catalog.add(taken, Plugin("zoo", "zoo", "1"))
        catalog.add(model("resnet", "zoo"), Plugin("zoo", "zoo", "1"))
        assert [spec.qualified for spec in catalog] == ["zoo/resnet"]
        with pytest.raises(PluginError) as caught:
            catalog.get("resnt")
        assert "did you mean `resnet`" in caught.value.problems[0].hint
