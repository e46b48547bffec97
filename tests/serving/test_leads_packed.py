"""Where the service runs, its page is there, and nothing of an address that names people gets into a trace."""

from __future__ import annotations

import re
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest
import yaml

from serving.guard import BY_SESSION
from serving.leads.page import STATIC
from serving.service import Scoring

ROOT = Path(__file__).parents[2]
FILES = sorted(path.relative_to(ROOT) for path in STATIC.iterdir())


def test_the_pages_files_are_in_the_bento() -> None:
    packed = yaml.safe_load((ROOT / "bentofile.yaml").read_text())["include"]
    assert len(FILES) == 3
    assert [file for file in FILES if not any(fnmatch(str(file), pattern) for pattern in packed)] == []


def test_the_pages_files_are_in_the_installed_package() -> None:
    packed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["serving"]
    own = [file.relative_to("serving") for file in FILES]
    assert [file for file in own if not any(fnmatch(str(file), pattern) for pattern in packed)] == []


@pytest.mark.parametrize("route", sorted(route for _, route in BY_SESSION))
def test_no_route_of_the_leads_is_traced(route: str) -> None:
    excluded = Scoring.config["tracing"]["excluded_urls"]
    assert any(re.search(pattern, f"http://127.0.0.1:3000{route}?search=anna") for pattern in excluded)
