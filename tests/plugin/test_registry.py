"""Broken plugins are named with their package and the reason, and everything else works."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from distillctl import (
    CommandSpec,
    DatasetSpec,
    Method,
    MethodSpec,
    ModelSpec,
    OptimizerSpec,
    PluginError,
    TaskSpec,
    TrackerSpec,
    WeightsInput,
    hookimpl,
)
from distillctl.api import hooks
from distillctl.plugin.catalog import Plugin
from distillctl.plugin.registry import Kind, Registry, load, load_class, load_options

PLUGINS = Path(__file__).parents[2] / "plugins"

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
    "nameless": (GOOD.format(name=""), "MethodSpec without a `name`"),
    "form": (GOOD.format(name="form").replace("nowhere:Nothing", "nowhere.Nothing"), "the implementation of `form` is not of the form"),
}
PRINTS = "import sys; print('hello'); print('careful', file=sys.stderr)\n" + GOOD.format(name="prints")


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
    for name, (code, _) in {**BROKEN, "prints": (PRINTS, "")}.items():
        install(tmp_path, name, code)
    install(tmp_path, "zz_good", GOOD.format(name="good_too"))
    yield tmp_path
    for module in [m for m in sys.modules if m.startswith("plugin_")]:
        del sys.modules[module]


@pytest.fixture
def registry(packages):
    return Registry.load({"DISTILLCTL_PLUGINS": ",".join(["a_good", "zz_good", *BROKEN, "prints"])})


@pytest.mark.parametrize("name", BROKEN)
def test_each_is_named_with_package_and_reason(registry, name):
    (plugin,) = (p for p in registry.broken if p.name == name)
    assert (plugin.package, plugin.version) == (f"package-{name.replace('_', '-')}", "1.5")
    assert plugin.problem.startswith(BROKEN[name][1])
    assert "\n" not in plugin.problem
    assert plugin.loaded == (name in {"wrong_type", "text", "duplicate", "builtin", "nameless", "form"})


def test_everything_else_works(registry):
    assert {p.name for p in registry.broken} == set(BROKEN)
    for name in ("good", "good_too", "kd", "none", "prints"):
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


def spec(kind, name="x", /, **more):
    return kind(name=name, summary="for tests", implementation="nowhere:nothing", **more)


HOOKS = {
    "method": (MethodSpec, {"kind": "logits"}),
    "model": (ModelSpec, {}),
    "dataset": (DatasetSpec, {}),
    "optimizer": (OptimizerSpec, {}),
    "task": (TaskSpec, {}),
    "tracker": (TrackerSpec, {}),
    "command": (CommandSpec, {}),
}


def module_of(**hooks):
    """A plugin's module: hook → what it returns."""
    made = {f"register_{name}": hookimpl(lambda value=value: value, specname=f"register_{name}") for name, value in hooks.items()}
    return SimpleNamespace(**made)


class TestKinds:
    def test_every_hook_has_a_kind_and_every_kind_a_hook(self):
        assert {f"register_{name}" for name in HOOKS} == {name for name in vars(hooks) if name.startswith("register_")}
        assert {kind.attribute for kind in vars(Registry).values() if isinstance(kind, Kind)} == {f"{name}s" for name in HOOKS}

    def test_every_kind_has_its_own_names(self):
        registry = Registry()
        registry.add(Plugin("made", "made", "1"), lambda: module_of(**{name: [spec(kind, **more)] for name, (kind, more) in HOOKS.items()}))
        assert not registry.broken
        for name, (kind, _) in HOOKS.items():
            catalog = getattr(registry, f"{name}s")
            assert catalog is registry.catalogs[f"{name}s"]
            assert [type(one) for one in catalog] == [kind]
            assert catalog.plugin(catalog.get("x")) is registry.plugins[0]
        assert {type(one) for one in registry.plugins[0].provides} == {kind for kind, _ in HOOKS.values()}

    def test_what_a_hook_returns_decides_and_not_the_hook(self):
        registry = Registry()
        registry.add(Plugin("made", "made", "1"), lambda: module_of(method=(spec(ModelSpec),)))
        assert "x" in registry.models

    def test_names_of_our_commands_are_refused(self):
        registry = Registry()
        registry.commands.reserve({"train"}, "distillctl")
        registry.add(Plugin("made", "made", "1"), lambda: module_of(command=[spec(CommandSpec, "train"), spec(CommandSpec, "other")]))
        assert [p.problem for p in registry.broken] == ["the command `train` is already provided by distillctl"]
        assert [one.name for one in registry.commands] == ["other"]
        assert [p.problem for p in Registry.load({"DISTILLCTL_PLUGINS": ""}, own_commands={"train"}).broken] == []

    @pytest.mark.parametrize(
        ("wrong", "problem"),
        [
            (spec(DatasetSpec, task=""), "`task` of `x` is not a name"),
            (spec(DatasetSpec, task="a b"), "`task` of `x` is not a name"),
            (spec(DatasetSpec, task=1), "`task` of `x` is not of the type that DatasetSpec declares"),
            (spec(MethodSpec, kind="logits", gives_head=1), "`gives_head` of `x` is not of the type that MethodSpec declares"),
            (
                spec(ModelSpec, weights_input={"V1": WeightsInput(mean=(0.5,), std=("a",))}),
                "`weights_input.std` of `x` is not of the type that WeightsInput declares",
            ),
            (spec(ModelSpec, weights_input={"V1": (0.5,)}), "`weights_input` of `x` is not of the type that ModelSpec declares"),
            (spec(CommandSpec, options="a:B"), "the command `x` has `options`, which are the parameters of its function"),
            (spec(TaskSpec, ""), "TaskSpec without a `name`"),
            (spec(TrackerSpec, "a b"), "TrackerSpec with a name that is no name, 'a b'"),
        ],
    )
    def test_malformed_specs(self, wrong, problem):
        registry = Registry()
        registry.add(Plugin("made", "made", "1"), lambda: module_of(dataset=[wrong]))
        (plugin,) = registry.broken
        assert plugin.problem.startswith(problem)
        assert not any(len(catalog) for catalog in registry.catalogs.values())


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


class TestLoading:
    def test_object(self):
        assert load("distillctl.builtin.kd_options:KDOptions", "kd").__name__ == "KDOptions"

    @pytest.mark.parametrize("reference", ["no_such_module:X", "distillctl.errors:NoSuchName", "plugin_syntax:X"])
    def test_missing(self, packages, reference):
        with pytest.raises(PluginError, match=f"`kd` cannot be loaded from `{reference}`"):
            load(reference, "kd")

    @pytest.mark.parametrize("other", ["distillctl.builtin.csv_tracker:CSVTracker", "distillctl.builtin.kd:kd_loss"])
    def test_a_class_of_another_kind(self, other):
        with pytest.raises(PluginError, match=r"the implementation of the method `m` is not a subclass of `distillctl\.Method`"):
            load_class(MethodSpec(name="m", summary="", implementation=other, kind="logits", formula="x"), Method, "method")

    def test_a_class(self):
        spec = MethodSpec(name="m", summary="", implementation="distillctl.builtin.kd:KD", kind="logits", formula="x")
        assert load_class(spec, Method, "method").__name__ == "KD"


@pytest.mark.parametrize("module", sorted(PLUGINS.glob("*/*/plugin.py")), ids=lambda path: path.parts[-3])
def test_each_of_ours_says_for_which_interface_it_is_written(module):
    """In the module that the entry point names, since that is where the registry looks."""
    declared = (module.parents[1] / "pyproject.toml").read_text(encoding="utf-8")
    assert re.search(rf'^\[project.entry-points.distillctl\]\n\w+ = "{module.parent.name}.plugin"$', declared, re.MULTILINE)
    assert f"\nDISTILLCTL_API = {hooks.API_VERSION}\n" in module.read_text(encoding="utf-8")


@pytest.mark.parametrize("reference", ["builtins:dict", "json:loads", "distillctl.api.options:Temperature"])
def test_options_of_another_class_are_the_plugins_fault(reference):
    with pytest.raises(PluginError, match=r"the options of `x`, is not a subclass of `distillctl\.Options`"):
        load_options(spec(ModelSpec, options=reference))
    assert load_options(spec(ModelSpec)).model_fields == {}
