"""What DESIGN fixes about the house: who may import whom, one door per vendor, and nothing hidden in a function."""

from __future__ import annotations

import ast
import inspect
import re
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from features import errors

ROOT = Path(__file__).parent.parent
ROOMS = ("features", "models", "training", "serving", "pipelines")
MAY_IMPORT = {
    "features": {"features"},
    "models": {"features", "models"},
    "training": {"features", "models", "training"},
    "serving": {"features", "models", "serving"},
    "pipelines": set(ROOMS),
}
DOORS = {
    "feast": ("features/store.py", "features/views.py", "features/repo/"),
    "lightgbm": ("models/boosting.py",),
    "mlflow": ("models/registry.py",),
    "bentoml": ("serving/service.py",),
    "confluent_kafka": ("pipelines/streams.py",),
    "optuna": ("training/tuning.py",),
    "_bentoml_sdk": ("serving/service.py",),
    "_bentoml_impl": ("serving/service.py",),
}
NOBODYS_NAMES = {"utils", "util", "common", "helpers", "helper", "misc", "manager"}
UNSAFE_CALLS = {"eval", "exec", "compile", "__import__"}
UNSAFE_MODULES = {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
MAY_IMPORT_BY_NAME = {"pipelines/cli.py"}

CLIENT = ROOT / "client" / "inbox_client"
CLIENT_MAY_IMPORT = {"inbox_client", "httpx"}
ONLY_HERE = {"jinja.py": {"jinja2", "markupsafe"}, "wire.py": {"httpcore"}}
"""Who only calls the client need not have Jinja2; what httpx stands on is one file's affair."""

FILES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))
NAMES = [str(path.relative_to(ROOT)) for path in FILES]
every_module = pytest.mark.parametrize("name", NAMES)


@cache
def tree(name: str) -> ast.Module:
    return ast.parse((ROOT / name).read_text(encoding="utf-8"))


def dotted(name: str) -> str:
    return name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


MODULES = {dotted(name): name for name in NAMES}


def only_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def at_run_time(node: ast.AST) -> Iterator[ast.AST]:
    """Every node below, but for what only type checkers read."""
    for child in ast.iter_child_nodes(node):
        if not only_for_types(child):
            yield child
            yield from at_run_time(child)


def targets(node: ast.AST) -> list[str]:
    """What an import statement names: ``from a import b`` gives ``a.b``, which may be a module or a name in one."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        return [f"{node.module}.{alias.name}" for alias in node.names]
    return []


def imported(nodes: Iterator[ast.AST]) -> set[str]:
    return {target for node in nodes for target in targets(node)}


def own_modules(name: str) -> set[str]:
    """Modules of this project that a module imports when it is run, its packages included."""
    found = set()
    for target in imported(at_run_time(tree(name))):
        parts = target.split(".")
        prefixes = [".".join(parts[:end]) for end in range(1, len(parts) + 1)]
        found.update(prefix for prefix in prefixes if prefix in MODULES)
    return found - {dotted(name)}


def docstring_tree() -> dict[str, str | None]:
    """The classes drawn in ``features.errors``, each with its parent, from the depth of its branch."""
    drawn: dict[str, str | None] = {"ScoringError": None}
    path = ["ScoringError"]
    for indent, class_name in re.findall(r"^ {4}([ |`]*[|`]- )(\w+)", errors.__doc__ or "", flags=re.MULTILINE):
        depth = len(indent) // 3
        path = [*path[:depth], class_name]
        drawn[class_name] = path[-2]
    return drawn


def error_classes() -> dict[str, type[errors.ScoringError]]:
    found = inspect.getmembers(errors, inspect.isclass)
    return {name: kind for name, kind in found if issubclass(kind, errors.ScoringError)}


def test_there_is_something_to_look_at() -> None:
    assert {name.split("/")[0] for name in NAMES} == set(ROOMS)


@every_module
def test_imports_go_one_way(name: str) -> None:
    room = name.split("/")[0]
    rooms = {target.split(".")[0] for target in imported(ast.walk(tree(name)))} & {*ROOMS, "tests", "client"}
    assert rooms <= MAY_IMPORT[room]


@every_module
def test_a_vendor_is_reached_through_its_door_alone(name: str) -> None:
    vendors = {target.split(".")[0] for target in imported(ast.walk(tree(name)))}
    assert [vendor for vendor in vendors & set(DOORS) if not name.startswith(DOORS[vendor])] == []


@pytest.mark.parametrize("vendor", ["feast", "lightgbm", "mlflow", "bentoml"])
def test_every_door_is_used(vendor: str) -> None:
    doors = [name for name in NAMES if name.startswith(DOORS[vendor])]
    assert any(target.split(".")[0] == vendor for name in doors for target in imported(ast.walk(tree(name))))


def test_no_modules_import_each_other_in_a_circle() -> None:
    # A package is only a plaque: importing `a.b` runs `a` first, which is no circle unless `a` imports `a.b`.
    graph = {module: own_modules(name) for module, name in MODULES.items()}
    TopologicalSorter(graph).prepare()


@every_module
def test_imports_stand_at_the_top(name: str) -> None:
    functions = [node for node in ast.walk(tree(name)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    assert imported(inner for function in functions for inner in ast.walk(function)) == set()


@every_module
def test_a_relative_import_hides_nothing(name: str) -> None:
    assert [node for node in ast.walk(tree(name)) if isinstance(node, ast.ImportFrom) and node.level] == []


@every_module
def test_a_module_is_called_after_what_it_is(name: str) -> None:
    assert not NOBODYS_NAMES & set(Path(name).with_suffix("").parts)


@every_module
def test_a_module_says_what_it_is_for(name: str) -> None:
    assert ast.get_docstring(tree(name))


@every_module
def test_nothing_is_run_that_came_in_as_data(name: str) -> None:
    calls = [node.func for node in ast.walk(tree(name)) if isinstance(node, ast.Call)]
    assert not {call.id for call in calls if isinstance(call, ast.Name)} & UNSAFE_CALLS
    assert not {target.split(".")[0] for target in imported(ast.walk(tree(name)))} & UNSAFE_MODULES


@every_module
def test_only_the_command_line_imports_by_name(name: str) -> None:
    by_name = [target for target in imported(ast.walk(tree(name))) if target.split(".")[0] == "importlib"]
    allowed = name in MAY_IMPORT_BY_NAME or all(target.startswith("importlib.metadata") for target in by_name)
    assert not by_name or allowed


def test_the_tree_of_errors_is_drawn_as_it_is() -> None:
    real = {
        name: None if name == "ScoringError" else kind.__bases__[0].__name__ for name, kind in error_classes().items()
    }
    assert docstring_tree() == real


def test_every_error_has_a_code_of_its_own() -> None:
    codes = {name: vars(kind).get("code") for name, kind in error_classes().items()}
    assert None not in codes.values()
    assert len(set(codes.values())) == len(codes)
    spelled = {name: re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower() for name in codes}
    assert codes == spelled


@pytest.mark.parametrize("path", sorted(CLIENT.rglob("*.py")), ids=lambda path: path.name)
def test_the_client_stands_alone(path: Path) -> None:
    parsed = ast.parse(path.read_text(encoding="utf-8"))
    assert ast.get_docstring(parsed)
    roots = {target.split(".")[0] for target in imported(ast.walk(parsed))}
    assert roots - sys.stdlib_module_names <= CLIENT_MAY_IMPORT | ONLY_HERE.get(path.name, set())


def test_there_is_a_client_to_look_at() -> None:
    assert (CLIENT / "__init__.py").exists()
