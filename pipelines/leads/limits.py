"""Texts cut to what a format holds.

What enters: a column of texts and a limit. What leaves: the column with what is too long cut and marked, and how many. The
promise: nothing within the limit is touched, and a cut text says that it was cut.
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc


def within(texts: pa.Array, limit: int, mark: str) -> tuple[pa.Array, int]:
    """Texts of at most ``limit`` UTF-16 units, in which an emoji counts twice, and how many had to be cut.

    >>> within(pa.array(["short", "far too long"]), 9, " [cut]")[0].to_pylist()
    ['short', 'far [cut]']
    """
    long = are_longer(texts, limit)
    if long is None:
        return texts, 0
    cut = pa.array([_cut(text, limit, mark) for text in texts.filter(long).to_pylist()], pa.string())
    return pc.replace_with_mask(texts, long, cut), len(cut)


def are_longer(texts: pa.Array, limit: int) -> pa.Array | None:
    """Which texts take more than ``limit`` UTF-16 units; None when none does."""
    # UTF-8 never takes fewer bytes than UTF-16 takes units, so nothing too long is missed.
    suspects = pc.fill_null(pc.greater(pc.binary_length(texts), limit), False)
    if not pc.any(suspects).as_py():
        return None
    judged = pa.array([_units(text) > limit for text in texts.filter(suspects).to_pylist()])
    long = pc.replace_with_mask(suspects, suspects, judged)
    return long if pc.any(long).as_py() else None


def _units(text: str) -> int:
    return len(text.encode("utf-16-le")) // 2


def _cut(text: str, limit: int, mark: str) -> str:
    kept = text.encode("utf-16-le")[: 2 * (limit - len(mark))]
    return kept.decode("utf-16-le", errors="ignore") + mark
