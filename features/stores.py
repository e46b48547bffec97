"""Which online store a home has.

What enters: a home. What leaves: its ``StateStore``. The promise: everybody who asks about one home gets the same rows,
and nobody else knows which kinds of stores there are. Importing this does not import Feast.
"""

from __future__ import annotations

from pathlib import Path

from features.home import Home
from features.online import READ_TIMEOUT_S, SqliteStateStore, StateStore
from features.online_redis import RedisStateStore
from features.resp import Address


def open_store(home: Home, timeout_s: float = READ_TIMEOUT_S) -> StateStore:
    """The home's online store. See ``store_at``."""
    return store_at(home.online, home.store_url, timeout_s)


def store_at(path: Path, url: str | None, timeout_s: float = READ_TIMEOUT_S) -> StateStore:
    """Redis or Valkey where there is a URL, else SQLite.

    Parameters
    ----------
    path
        SQLite's file. It need not exist.
    url
        See ``resp.Address.parse``. Whether anybody is there shows when the store is used.
    timeout_s
        How long a read may take.

    Raises
    ------
    UnusableOption
        When the URL is none.
    """
    return SqliteStateStore(path, timeout_s) if url is None else RedisStateStore(url, timeout_s)


def place(home: Home) -> str:
    """Where the home's store is, in words that may be shown: without a password."""
    return str(home.online) if home.store_url is None else str(Address.parse(home.store_url))
