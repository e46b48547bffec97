"""A Valkey server for all tests of this room."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.serving import faults


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[faults.Valkey]:
    """Running, and shared: who wants to kill one starts another. Each test keeps to a prefix or a database."""
    with faults.valkey(tmp_path_factory.mktemp("valkey")) as server:
        yield server
