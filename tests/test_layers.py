"""The house of the core: a room imports only rooms of lower floors, and plugins stand on the public API alone.

Every import counts, those inside of functions and those for type checkers too.
"""

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

import distillctl

ROOT = Path(__file__).parents[1]
CORE = ROOT / "distillctl"

# From the ground up. Rooms on one floor do not know each other.
FLOORS = (
    ("errors", "files", "text"),
    ("distributed",),
    ("api",),
    ("plugin", "rundir", "weights"),
    ("data", "models", "profile"),
    ("builtin", "engine", "slurm"),
    ("analysis", "build", "testing"),
    ("pages",),
    ("commands",),
    ("cli",),
    ("__main__",),
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}

# Built-in plugins stand on the API like all others; what large data sets and foreign files need is shared with them.
BUILTIN_MAY = {"errors", "text", "files", "api", "data", "weights"}
WITHOUT_TORCH = (
    "analysis",
    "pages",
    "commands.report",
    "errors",
    "text",
    "files",
    "plugin",
    "profile",
    "rundir",
    "slurm",
    "api.class_folders",
    "api.hooks",
    "api.options",
    "api.specs",
)
TERMINAL = {"typer", "rich", "click"}
# The display is loaded by a command that trains, when it trains.
LATE = {"distillctl.cli.display"}


@dataclass(frozen=True)
class Import:
    """`module` is what is imported, `names` what is taken from it; `late` inside of a function, `typing` for checkers alone."""

    module: str
    names: tuple[str, ...]
    late: bool
    typing: bool


def imports(tree: ast.AST, late: bool = False, typing: bool = False) -> Iterator[Import]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, (), late, typing)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield Import(node.module or "", tuple(alias.name for alias in node.names), late, typing)
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            yield from imports(node, late, True)
        else:
            yield from imports(node, late or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef), typing)


def module_name(path: Path, above: Path) -> str:
    return ".".join(path.relative_to(above).with_suffix("").parts).removesuffix(".__init__")


@cache
def modules(package: Path) -> dict[str, tuple[Import, ...]]:
    """Every module of a package with what it imports; `from package import module` counts as importing the module."""
    files = {module_name(path, package.parent): path for path in sorted(package.rglob("*.py"))}
    result = {}
    for name, path in files.items():
        found: list[Import] = []
        for one in imports(ast.parse(path.read_text(encoding="utf-8"), str(path))):
            inner = tuple(n for n in one.names if f"{one.module}.{n}" in files)
            found += [Import(f"{one.module}.{n}", (), one.late, one.typing) for n in inner]
            rest = tuple(n for n in one.names if n not in inner)
            if rest or not one.names:
                found.append(Import(one.module, rest, one.late, one.typing))
        result[name] = tuple(found)
    return result


def core() -> dict[str, tuple[Import, ...]]:
    return modules(CORE)


def room(module: str) -> str:
    """`distillctl.api.specs` → `api`; empty for the package itself."""
    return module.split(".")[1] if "." in module else ""


def within(module: str, part: str) -> bool:
    return module == part or module.startswith(f"{part}.")


def plugin_packages() -> list[Path]:
    return sorted(p.parent for p in ROOT.glob("plugins/*/*/plugin.py"))


def test_every_room_has_a_floor():
    assert {room(m) for m in core()} - {""} == set(FLOOR)


def test_rooms_import_lower_floors_only():
    wrong = [
        f"{module} imports {one.module}"
        for module, found in core().items()
        for one in found
        if within(one.module, "distillctl")
        and "" != room(one.module) != room(module) != ""
        and FLOOR[room(one.module)] >= FLOOR[room(module)]
    ]
    assert not wrong


def test_the_core_takes_only_the_version_from_the_top_level():
    taken = {name for found in core().values() for one in found if one.module == "distillctl" for name in one.names}
    assert taken == {"__version__"}


def test_the_top_level_offers_what_plugins_need_and_what_commands_do():
    taken = {room(one.module) for one in core()["distillctl"] if within(one.module, "distillctl")}
    assert taken <= {"api", "errors", "data", "files", "build", "commands"}
    assert all(one.typing for one in core()["distillctl"] if within(one.module, "distillctl")), "the public names load when they are used"


def test_built_ins_are_plugins():
    wrong = [
        f"{module} imports {one.module}"
        for module, found in core().items()
        for one in found
        if room(module) == "builtin" and within(one.module, "distillctl") and room(one.module) not in BUILTIN_MAY | {"builtin"}
    ]
    assert not wrong


def test_nobody_imports_a_built_in():
    wrong = [m for m, found in core().items() if room(m) != "builtin" and any(room(one.module) == "builtin" for one in found)]
    assert not wrong, "built-ins are found by name, like all plugins"


def test_the_terminal_belongs_to_the_command_line():
    users = {m for m, found in core().items() for i in found if i.module.partition(".")[0] in TERMINAL}
    assert users, "has typer gone?"
    assert {room(m) for m in users} == {"cli"}


def test_light_rooms_have_no_torch():
    wrong = [
        f"{module} imports {one.module}"
        for module, found in core().items()
        for one in found
        if any(within(module, f"distillctl.{light}") for light in WITHOUT_TORCH)
        and (one.module.partition(".")[0] in ("torch", "torchvision"))
    ]
    assert not wrong


def reached(start: str, graph: dict[str, tuple[Import, ...]]) -> dict[str, str]:
    """What is imported when `start` is: module → who imports it."""
    seen, pending = {start: ""}, [start]
    while pending:
        module = pending.pop()
        for one in graph.get(module, ()):
            if not (one.late or one.typing) and one.module not in seen:
                seen[one.module] = module
                pending.append(one.module)
    return seen


def test_importing_commands_and_profiles_loads_no_torch():
    heavy: set[str] = set()
    for module in core():
        if room(module) in ("cli", "plugin", "profile") and module not in LATE:
            found = reached(module, core())
            heavy |= {f"{module}, through {found[m]}" for m in found if m.partition(".")[0] == "torch"}
    assert not heavy


def test_no_import_runs_in_a_circle():
    graph = {m: [i.module for i in found if not i.typing and i.module in core()] for m, found in core().items()}
    done: set[str] = set()

    def visit(module: str, way: tuple[str, ...]) -> None:
        assert module not in way, " → ".join((*way[way.index(module) :], module))
        if module not in done:
            for other in graph[module]:
                if other != "distillctl":  # the top level loads its names when they are used
                    visit(other, (*way, module))
            done.add(module)

    for module in graph:
        visit(module, ())


@pytest.mark.parametrize("package", plugin_packages(), ids=lambda p: p.name)
def test_plugins_stand_on_the_public_api(package):
    others = {p.name for p in plugin_packages()} - {package.name}
    for module, found in modules(package).items():
        for one in found:
            top = one.module.partition(".")[0]
            assert top not in others, f"{module} imports another plugin: {one.module}"
            if top == "distillctl":
                assert one.module == "distillctl", f"{module} imports {one.module}, not the top level"
                assert set(one.names) <= set(distillctl.__all__), f"{module} imports {one.names}"


@pytest.mark.parametrize("package", plugin_packages(), ids=lambda p: p.name)
def test_declaring_a_plugin_is_light(package):
    graph = modules(package)
    own = f"{package.name}.plugin"
    loaded = {m.partition(".")[0] for m in reached(own, graph)} | {m.partition(".")[0] for m in reached(package.name, graph)}
    assert not loaded & {"torch", "torchvision", "pydantic", "sklearn", "numpy"}
    for module in graph:
        if module.rpartition(".")[2].endswith("options"):
            assert not {m.partition(".")[0] for m in reached(module, graph)} & {"torch", "torchvision"}, module


def test_cifar_models_need_nothing_of_distillctl():
    found = modules(ROOT / "plugins" / "distillctl-cifar" / "distillctl_cifar")
    models = {m: i for m, i in found.items() if within(m, "distillctl_cifar.models")}
    assert len(models) > 3
    taken = {one.module for found in models.values() for one in found if not within(one.module, "distillctl_cifar.models")}
    assert {module.partition(".")[0] for module in taken} <= {"torch", *sys.stdlib_module_names}


def test_the_scan_sees_every_kind_of_import():
    """The tests above can fail: imports in functions, for types, and of modules by `from`."""
    text = "import a.b\nfrom c import d\nif TYPE_CHECKING:\n    import e\ndef f():\n    with x:\n        from g import h\n"
    assert list(imports(ast.parse(text))) == [
        Import("a.b", (), False, False),
        Import("c", ("d",), False, False),
        Import("e", (), False, True),
        Import("g", ("h",), True, False),
    ]
