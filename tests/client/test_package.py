"""What is installed stands on its own."""

from __future__ import annotations

import ast
import tomllib
from importlib.metadata import version
from pathlib import Path
from sys import stdlib_module_names

import inbox_client
import pytest

CLIENT = Path(__file__).parents[2] / "client"
FILES = sorted((CLIENT / "inbox_client").glob("*.py"))
every_file = pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)


def imported(path: Path, top_only: bool = False) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = tree.body if top_only else list(ast.walk(tree))
    plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return plain | {str(node.module) for node in nodes if isinstance(node, ast.ImportFrom) and not node.level}


@every_file
def test_it_imports_nothing_of_ours_and_little_of_others(path: Path) -> None:
    rooms = {name.split(".")[0] for name in imported(path)} - stdlib_module_names
    vendors = {"httpx", "httpcore"} | ({"jinja2"} if path.name == "jinja.py" else set())
    assert rooms <= vendors | {"inbox_client"}


@every_file
def test_imports_stand_at_the_top_and_say_whence(path: Path) -> None:
    assert imported(path) == imported(path, top_only=True)
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level] == []
    assert ast.get_docstring(tree)


def test_what_it_says_of_itself_is_so() -> None:
    project = tomllib.loads((CLIENT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert version("inbox-client") == inbox_client.__version__
    assert (CLIENT / "inbox_client" / "py.typed").exists()
    assert project["license"] == "Apache-2.0"
    assert {name.partition(">")[0] for name in project["dependencies"]} == {"httpx", "httpcore"}


def test_everything_public_is_there() -> None:
    assert [name for name in inbox_client.__all__ if not hasattr(inbox_client, name)] == []
