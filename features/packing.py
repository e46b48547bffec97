"""How a state lies in an online store: a row of bytes with a header that says whether it can be believed.

What enters: states, or bytes from a store. What leaves: bytes, or states. The promise: what was not written by ``pack``
under this layout, whole and unaltered, is not taken for somebody's state; and nothing is done per value, only per row.

::

    bytes 0-3     ``catalogue.LAYOUT``, which names the fixed fields and their order
    bytes 4-7     how many words the state has
    bytes 8-15    checksum of all that follows, as unsigned 64-bit words
    bytes 16-     the state (``Catalogue.dtype``), a whole number of words

Weighed: a CRC of each row costs a call per row, more than reading the row does. The checksum is a sum of the words, each
times its own odd number, modulo 2^64: one vectorized pass finds any change of one word, cut and shifted rows, and rows of
another kind. It does not stand against somebody who wants to deceive; who can write to the store can.
Nor does it say whose row it is, or of which list: that is the key's affair, so two lists must not share one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from features.catalogue import LAYOUT, Catalogue
from features.state import States, identity, words

Words = npt.NDArray[np.uint64]

HEADER_BYTES = 16
_HEADER_WORDS = HEADER_BYTES // 8


@dataclass(frozen=True)
class Unpacked:
    """States in the order of the rows, perhaps read-only and not side by side. Who is not ``found`` has the identity."""

    states: States
    found: npt.NDArray[np.bool_]
    damaged: int
    """Rows that were there, but were not what ``pack`` had written."""


def pack(states: States) -> list[bytes]:
    """One row of bytes per state."""
    width = states.dtype.itemsize // 8
    lines = np.empty((len(states), _HEADER_WORDS + width), dtype=np.uint64)
    lines[:, 0] = _kind(width)
    lines[:, 1] = checksums_of(states)
    lines[:, _HEADER_WORDS:] = words(states, np.uint64)
    # Bytes, because views of them would be looked at by every garbage collection meanwhile.
    rows: list[bytes] = lines.view(f"V{lines.shape[1] * 8}")[:, 0].tolist()
    return rows


def unpack(rows: Sequence[bytes | memoryview | None], catalogue: Catalogue) -> Unpacked:
    """States of rows, None for an absent one.

    A row written under an older catalogue is filled up with the identity, one written under a newer is cut: both are
    prefixes of each other.
    """
    size = HEADER_BYTES + catalogue.dtype.itemsize
    present = [row for row in rows if row is not None]
    if len(present) == len(rows) and all(len(row) == size for row in present):
        return _believed(b"".join(present), catalogue)
    lengths = np.array([-1 if row is None else len(row) for row in rows])
    states, found = identity(catalogue, len(rows)), np.zeros(len(rows), dtype=np.bool_)
    # By length: rows of each catalogue that is still in the store.
    for length in np.unique(lengths[(lengths > HEADER_BYTES) & (lengths % 8 == 0)]):
        places = np.flatnonzero(lengths == length)
        lines = np.frombuffer(b"".join(row for row in present if len(row) == length), dtype=np.uint64)
        lines = lines.reshape(len(places), -1)
        good = _is_whole(lines)
        states[places[good]] = _resized(lines[good], catalogue)
        found[places[good]] = True
    return Unpacked(states, found, len(present) - int(found.sum()))


def checksums(lines: Words) -> Words:
    """Of each line of words."""
    return np.asarray(np.einsum("ij,j->i", lines, _multipliers(lines.shape[1])))


def checksums_of(states: States) -> Words:
    """Of each state what its stored row says: whoever works a state out again can tell whether it is the same."""
    return checksums(words(states, np.uint64))


def _believed(joined: bytes, catalogue: Catalogue) -> Unpacked:
    """The usual case: every row is there and of the expected length."""
    lines = np.frombuffer(joined, dtype=np.uint64).reshape(-1, _HEADER_WORDS + catalogue.dtype.itemsize // 8)
    found = _is_whole(lines)
    # Not copied: a megabyte or two got from the system for every read takes longer than all the rest of it.
    states = lines[:, _HEADER_WORDS:].view(catalogue.dtype)[:, 0]
    if not found.all():
        states = states.copy()
        states[~found] = catalogue.blank
    return Unpacked(states, found, int((~found).sum()))


def _is_whole(lines: Words) -> npt.NDArray[np.bool_]:
    state = lines[:, _HEADER_WORDS:]
    return np.asarray((lines[:, 0] == _kind(state.shape[1])) & (lines[:, 1] == checksums(state)))


def _kind(width: int) -> np.uint64:
    return np.uint64(width << 32 | LAYOUT)


def _resized(lines: Words, catalogue: Catalogue) -> States:
    """Rows of one other length, cut or filled up to the catalogue's."""
    width = catalogue.dtype.itemsize // 8
    resized = identity(catalogue, len(lines)).view(np.uint64).reshape(len(lines), width)
    shared = min(width, lines.shape[1] - _HEADER_WORDS)
    resized[:, :shared] = lines[:, _HEADER_WORDS : _HEADER_WORDS + shared]
    return resized.view(catalogue.dtype).reshape(len(lines))


@lru_cache(maxsize=64)
def _multipliers(count: int) -> Words:
    """Odd numbers without a pattern: multiples of the golden ratio's 64 bits, mixed."""
    numbers = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    return np.asarray((numbers ^ (numbers >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9) | np.uint64(1))
