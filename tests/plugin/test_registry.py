"""Broken plugins are named with their package and the reason, and everything else works."""

from __future__ import annotations

import signal
import sys
from types import SimpleNamespace

import pytest

from distillctl import DatasetSpec, MethodSpec, ModelSpec, OptimizerSpec, PluginError, hookimpl
from distillctl.plugin.registry import Plugin, Registry, load

GOOD = """
from distillctl import MethodSpec, ModelSpec, hookimpl

@hookimpl
def register_method():
    return MethodSpec(name="{name}", kind="logits", summary="for tests", implementation="nowhere:Nothing")
"""
BROKEN = {
    "missing": ("import no_such_module_at_all", "ModuleNotFoundError: No module named 'no_such_module_at_all'"),
    "syntax": ("def broken(:\n    pass", "SyntaxError: "),
    "exits": ("import sys; sys.exit(3)", "it ends the program while it is imported (exit code 3)"),
    "raises": ("raise RuntimeError('first line\\nsecond line')", "RuntimeError: first line"),
    "silent": ("raise RuntimeError", "RuntimeError"),
    "odd": ("class Odd(BaseException): pass\nraise Odd('strange')", "Odd: strange"),
    "no_hook": ("x = 1", "it implements no hook; is `@hookimpl` missing?"),
    "misspelt": (GOOD.format(name="x").replace("register_method", "register_methods"), "it implements a hook that does not exist: "),
    "arguments": (GOOD.format(name="x").replace("register_method()", "register_method(registry)"), "PluginValidationError: "),
    "wrong_type": (
        "from distillctl import hookimpl\n@hookimpl\ndef register_method(): return {'name': 'x'}",
        "a hook returned 'dict' instead of a spec",
    ),
    "text": ("from distillctl import hookimpl\n@hookimpl\ndef register_method(): return 'kd'", "a hook returned 'str' instead of a spec"),
    "fails": ("from distillctl import hookimpl\n@hookimpl\ndef register_method(): return 1 / 0", "ZeroDivisionError: division by zero"),
    "duplicate": (GOOD.format(name="good"), "the method `good` is already provided by package-a-good"),
    "builtin": (GOOD.format(name="kd"), "the method `kd` is already provided by distillctl"),
    "interrupts": ("raise KeyboardInterrupt", "it raises KeyboardInterrupt"),
    "nameless": (GOOD.format(name=""), "MethodSpec without a `name`"),
    "form": (GOOD.format(name="form").replace("nowhere:Nothing", "nowhere.Nothing"), "the implementation of `form` is not of the form"),
}
NOTED = {
    "prints": ("print('hello\\nthere')\n" + GOOD.format(name="prints"), "it prints while it is imported: 'hello'"),
    "warns": ("import sys; print('careful', file=sys.stderr)\n" + GOOD.format(name="warns"), "it prints while it is imported: 'careful'"),
}


def install(folder, name, code):
    """A package as pip would have installed it."""
    (folder / f"plugin_{name}.py").write_text(code)
    info = folder / f"package_{name}-1.5.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: package-{name.replace('_', '-')}\nVersion: 1.5\n")
    (info / "entry_points.txt").write_text(f"[distillctl]\n{name} = plugin_{name}\n")


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """Two good packages, whose entry points come first and last, and all the broken ones."""
    monkeypatch.syspath_prepend(str(tmp_path))
    install(tmp_path, "a_good", GOOD.format(name="good"))
    for name, (code, _) in {**BROKEN, **NOTED}.items():
        install(tmp_path, name, code)
    install(tmp_path, "zz_good", GOOD.format(name="good_too"))
    yield tmp_path
    for module in [m for m in sys.modules if m.startswith("plugin_")]:
        del sys.modules[module]


@pytest.fixture
def registry(packages, capfd):
    registry = Registry.load({"DISTILLCTL_PLUGINS": ",".join(["a_good", "zz_good", *BROKEN, *NOTED])})
    assert capfd.readouterr() == ("", "")
    return registry


@pytest.mark.parametrize("name", BROKEN)
def test_each_is_named_with_package_and_reason(registry, name):
    (plugin,) = (p for p in registry.broken if p.name == name)
    assert (plugin.package, plugin.version) == (f"package-{name.replace('_', '-')}", "1.5")
    assert plugin.problem.startswith(BROKEN[name][1])
    assert plugin.notes == []
    assert "\n" not in plugin.problem
    assert plugin.loaded == (name in {"wrong_type", "text", "duplicate", "builtin", "nameless", "form"})


@pytest.mark.parametrize("name", NOTED)
def test_what_it_does_besides_is_no_problem(registry, name):
    (plugin,) = (p for p in registry.plugins if p.name == name)
    assert (plugin.problem, plugin.notes, plugin.loaded) == ("", [NOTED[name][1]], True)


def test_everything_else_works(registry):
    assert {p.name for p in registry.broken} == set(BROKEN)
    for name in ("good", "good_too", "kd", "none", "prints", "warns"):
        assert registry.methods.get(name).name == name
    assert registry.methods.plugin(registry.methods.get("kd")).package == "distillctl"
    assert registry.optimizers.get("sgd").name == "sgd"
    for name in ("x", "form", ""):
        assert name not in registry.methods


def test_one_broken_plugin_breaks_no_later_one(packages):
    """Each broken plugin alone, before a good one: a failed registration leaves nothing behind."""
    for name in BROKEN:
        registry = Registry.load({"DISTILLCTL_PLUGINS": f"{name},zz_good"})
        assert "good_too" in registry.methods, name
        assert not next(p for p in registry.plugins if p.name == "zz_good").problem, name


def test_the_users_signals_are_not_swallowed():
    def stop(*_):
        raise SystemExit(143)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        for number, expected, text in ((signal.SIGINT, KeyboardInterrupt, "^$"), (signal.SIGTERM, SystemExit, "^143$")):
            with pytest.raises(expected, match=text):
                Registry().add(Plugin("slow", "slow", "1"), lambda number=number: signal.raise_signal(number))
        assert signal.getsignal(signal.SIGTERM) is stop
    finally:
        signal.signal(signal.SIGTERM, before)


class TestChoosingPlugins:
    def test_by_name_or_package(self, packages):
        def names(chosen):
            registry = Registry.load({"DISTILLCTL_PLUGINS": chosen})
            return {p.name for p in registry.plugins if p.package != "distillctl"}

        assert names("a_good") == {"a_good"}
        assert names("a_good, package-zz-good ,") == {"a_good", "zz_good"}
        assert names("") == set()

    def test_without_the_variable_all_are_loaded(self, packages):
        assert {"a_good", "zz_good", *BROKEN} <= {p.name for p in Registry.load({}).plugins}

    def test_built_ins_are_always_there(self, packages):
        assert "kd" in Registry.load({"DISTILLCTL_PLUGINS": ""}).methods

    def test_a_name_that_nobody_has_is_told(self, packages):
        registry = Registry.load({"DISTILLCTL_PLUGINS": "a_good,nothing"})
        assert [(p.name, p.problem) for p in registry.broken] == [
            ("nothing", "`DISTILLCTL_PLUGINS` names it, but no installed plugin or package is called so")
        ]

    def test_what_is_left_out_is_not_to_be_installed(self):
        registry = Registry.load({"DISTILLCTL_PLUGINS": ""})
        for catalog, name in ((registry.methods, "crd"), (registry.models, "cifar/vgg13"), (registry.models, "resnet20")):
            with pytest.raises(PluginError) as caught:
                catalog.get(name)
            assert caught.value.problems[0].hint.endswith("which is installed but left out by `DISTILLCTL_PLUGINS`")

    def test_from_the_environment(self, packages, monkeypatch):
        monkeypatch.setenv("DISTILLCTL_PLUGINS", "a_good")
        assert [p.name for p in Registry.load().plugins if p.package != "distillctl"] == ["a_good"]


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
            ("vgg8", "pip install distillctl-cifar"),
            ("cifar/vgg13", "pip install distillctl-cifar"),
            ("cifar/resnet20", "pip install distillctl-cifar"),
        ):
            with pytest.raises(PluginError) as caught:
                registry.models.get(name)
            assert caught.value.problems[0].message == f"no model is called `{name}`"
            assert hint in caught.value.problems[0].hint

    def test_every_kind_has_its_own_names(self):
        common = {"summary": "for tests", "implementation": "nowhere:nothing"}
        made = SimpleNamespace(
            register_method=hookimpl(lambda: MethodSpec(name="x", kind="logits", **common), specname="register_method"),
            register_dataset=hookimpl(lambda: [DatasetSpec(name="x", **common)], specname="register_dataset"),
            register_optimizer=hookimpl(lambda: (OptimizerSpec(name="x", **common),), specname="register_optimizer"),
        )
        registry = Registry()
        registry.add(Plugin("made", "made", "1"), lambda: made)
        assert not registry.broken
        assert [len(c) for c in (registry.methods, registry.models, registry.datasets, registry.optimizers)] == [1, 0, 1, 1]
        assert sorted(type(s).__name__ for s in registry.plugins[0].provides) == ["DatasetSpec", "MethodSpec", "OptimizerSpec"]


class TestLoading:
    def test_object(self):
        assert load("distillctl.builtin.kd_options:KDOptions", "kd").__name__ == "KDOptions"

    @pytest.mark.parametrize("reference", ["no_such_module:X", "distillctl.errors:NoSuchName", "plugin_syntax:X"])
    def test_missing(self, packages, reference):
        with pytest.raises(PluginError, match=f"`kd` cannot be loaded from `{reference}`"):
            load(reference, "kd")
