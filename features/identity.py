"""Subscriber ids for people who are known by an address: keyed digests that nobody can turn round without the key.

What enters: an address, and keys under ``var/identity.json``, made on first use. What leaves: ``{key id}_{32 hexadecimal
digits}``. The promise: one address has one id under one key however it is written, and an older key's id can still be
worked out after rotation, so that history follows.

Whoever loses the file loses who is who: it belongs into backups, apart from the log's.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import os
import secrets
import unicodedata
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import idna
import orjson

from features.errors import IdentityUnreadable, Unwritable
from features.home import Home

KEY_BYTES = 32
DIGITS = 32


def normalised(address: str) -> str:
    """An address as everybody writes it: without spaces or a name around it, in lower case, its domain in ASCII.

    >>> normalised(" Ann <Ann.Lee@Bücher.example>")
    'ann.lee@xn--bcher-kva.example'
    """
    bare = address.strip()
    if bare.endswith(">"):
        bare = bare[:-1].rpartition("<")[2].strip()
    local, at, domain = bare.rpartition("@")
    return f"{_lower(local)}{at}{_ascii(domain)}" if at else _lower(bare)


def _lower(word: str) -> str:
    """Lower case can take letters apart again, so that they are put together twice."""
    return word.lower() if word.isascii() else unicodedata.normalize("NFC", unicodedata.normalize("NFC", word).lower())


def _ascii(domain: str) -> str:
    """IDNA 2008; what it refuses stays as it is, in lower case."""
    plain = domain.rstrip(".")
    if plain.isascii():
        return plain.lower()
    try:
        return idna.encode(plain, uts46=True).decode()
    except (idna.IDNAError, UnicodeError):
        return _lower(plain)


@dataclass(frozen=True)
class Pseudonyms:
    """The keys of one installation, oldest first; the last one makes new ids."""

    keys: dict[str, bytes] = field(repr=False)
    events_key: bytes = field(repr=False)
    """Never rotated: a repeat of an event has to have the same id after rotation."""

    @classmethod
    def load(cls, home: Home) -> Pseudonyms:
        """The keys of a home; made when there are none.

        Raises
        ------
        IdentityUnreadable
            The file is there and is not what was written. New keys would make strangers of everybody.
        """
        if not home.identity.exists():
            with _alone(home):
                if not home.identity.exists():
                    _write(home.identity, {_key_id(key): key for key in [_new_key()]}, _new_key())
        return _read(home.identity)

    @property
    def key_id(self) -> str:
        """Of the key that makes new ids."""
        return next(reversed(self.keys))

    def subscriber_id(self, address: str) -> str:
        """The id of whoever has an address."""
        return self._id(self.key_id, normalised(address))

    def former_ids(self, address: str) -> tuple[str, ...]:
        """The ids it had under older keys, oldest first."""
        plain = normalised(address)
        return tuple(self._id(key_id, plain) for key_id in self.keys if key_id != self.key_id)

    def fingerprint(self, person: str) -> str:
        """What stands for a person in the id of an event, the same under every key."""
        return _digest(self.events_key, normalised(person))

    def _id(self, key_id: str, plain: str) -> str:
        return f"{key_id}_{_digest(self.keys[key_id], plain)}"


def rotate(home: Home) -> str:
    """Make a new key for new ids, keep the old ones, and give the new one's id."""
    Pseudonyms.load(home)
    with _alone(home):
        old, key = _read(home.identity), _new_key()
        _write(home.identity, {**old.keys, _key_id(key): key}, old.events_key)
    return _key_id(key)


def _digest(key: bytes, plain: str) -> str:
    return hmac.digest(key, plain.encode("utf-8", "backslashreplace"), "sha256").hex()[:DIGITS]


def _new_key() -> bytes:
    return secrets.token_bytes(KEY_BYTES)


def _key_id(key: bytes) -> str:
    """Made of the key, so that ids of different keys never look alike."""
    return "k" + hashlib.sha256(b"inbox-scoring key id" + key).hexdigest()[:8]


@contextmanager
def _alone(home: Home) -> Iterator[None]:
    """One process at a time: two first keys, or a lost rotation, would split people in two."""
    try:
        home.var.mkdir(parents=True, exist_ok=True)
        lock = os.open(home.identity.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise Unwritable(home.identity, error.strerror or "the disk does not take it") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _read(path: Path) -> Pseudonyms:
    try:
        written = orjson.loads(path.read_bytes())
        keys = {str(key_id): bytes.fromhex(key) for key_id, key in written["keys"]}
        found = Pseudonyms(keys, bytes.fromhex(written["events_key"]))
        whole = bool(keys) and all(_key_id(key) == key_id and len(key) == KEY_BYTES for key_id, key in keys.items())
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise IdentityUnreadable(path) from error
    if not whole or len(found.events_key) != KEY_BYTES:
        raise IdentityUnreadable(path)
    return found


def _write(path: Path, keys: Mapping[str, bytes], events_key: bytes) -> None:
    """Under another name first, so that a crash leaves the old file or the new one."""
    beside = path.with_suffix(".new")
    written = {"keys": [[key_id, key.hex()] for key_id, key in keys.items()], "events_key": events_key.hex()}
    try:
        _replace(path, beside, orjson.dumps(written))
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise Unwritable(path, error.strerror or "the disk does not take it") from error


def _replace(path: Path, beside: Path, written: bytes) -> None:
    beside.unlink(missing_ok=True)
    with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(written)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
