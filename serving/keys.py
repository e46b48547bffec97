"""API keys: made once, shown once, kept as hashes.

What enters: names and presented keys. What leaves: a new key, or whose a presented one is. The promise: no key is ever on
disk, and how long a refusal takes says nothing about the keys there are.

A key is 256 random bits, so a plain SHA-256 is as good as a slow hash, and cheap enough for every request.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic

import orjson

from features.errors import UnusableOption

log = logging.getLogger("inbox.keys")

RELOAD_AFTER_S = 1.0
"""A key made or revoked counts in a running service after at most this long."""


@dataclass(frozen=True)
class KeyRecord:
    """What is kept of a key."""

    name: str
    sha256: str
    created_at: str


def new_key() -> str:
    """A fresh random key, recognisable as ours to those who scan for leaked secrets."""
    return f"inbox_{secrets.token_urlsafe(32)}"


def digest(key: bytes) -> str:
    return hashlib.sha256(key).hexdigest()


def read_keys(path: Path) -> tuple[KeyRecord, ...]:
    """The active keys in order of creation; none when there is no file.

    Raises
    ------
    UnusableOption
        When the file is there but is not a key file.
    """
    try:
        return tuple(KeyRecord(**record) for record in orjson.loads(path.read_bytes())["keys"])
    except FileNotFoundError:
        return ()
    except (OSError, ValueError, TypeError, KeyError):
        raise UnusableOption(str(path), "is not a readable key file; move it away and create keys again") from None


def create_key(path: Path, name: str) -> str:
    """Make a key, keep its hash under ``name`` and return it. This is the only moment it can be seen.

    Raises
    ------
    UnusableOption
        When the name is taken, or the file is not a key file.
    """
    records = read_keys(path)
    if name in {record.name for record in records}:
        raise UnusableOption(name, "is the name of an active key; revoke that one first or choose another name")
    key = new_key()
    created_at = datetime.now(UTC).isoformat(timespec="seconds")
    _write(path, (*records, KeyRecord(name, digest(key.encode()), created_at)))
    return key


def revoke_key(path: Path, name: str) -> None:
    """Forget a key. A running service refuses it within a second.

    Raises
    ------
    UnusableOption
        When there is no key of that name.
    """
    records = read_keys(path)
    kept = tuple(record for record in records if record.name != name)
    if len(kept) == len(records):
        raise UnusableOption(name, f"is no active key; there are {', '.join(r.name for r in records) or 'none'}")
    _write(path, kept)


def _write(path: Path, records: tuple[KeyRecord, ...]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".tmp")
    beside.unlink(missing_ok=True)
    with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(orjson.dumps({"keys": records}, option=orjson.OPT_INDENT_2))
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)


class KeyRing:
    """The keys a running service accepts, read again when the file changes.

    A file that cannot be read changes nothing: the keys known before stay, and without any nobody is let in.
    """

    def __init__(self, path: Path, now: Callable[[], float] = monotonic) -> None:
        self.path, self._now = path, now
        self._records: tuple[KeyRecord, ...] = ()
        self._seen: tuple[int, int, int] | None = (0, 0, 0)
        self._checked_at = -RELOAD_AFTER_S
        self._refresh()

    def __len__(self) -> int:
        return len(self._records)

    def record(self, presented: bytes) -> KeyRecord | None:
        """What is kept of this key, if it is active. Compares with every one, whichever matches."""
        self._refresh()
        asked, found = digest(presented), None
        for known in self._records:
            if hmac.compare_digest(asked, known.sha256):
                found = known
        return found

    def named(self, name: str) -> KeyRecord | None:
        """The active key of that name."""
        self._refresh()
        return next((record for record in self._records if record.name == name), None)

    def _refresh(self) -> None:
        if self._now() - self._checked_at < RELOAD_AFTER_S:
            return
        self._checked_at = self._now()
        seen = _mark(self.path)
        if seen == self._seen:
            return
        self._seen = seen
        try:
            self._records = read_keys(self.path)
        except UnusableOption as error:
            log.error("%s; %d keys stay in force", error, len(self))
        if not self._records:
            log.warning("no API key is active: every request for scores is refused")


def _mark(path: Path) -> tuple[int, int, int] | None:
    """What changes with a file's content: its inode, size and time."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
