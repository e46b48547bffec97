"""Walking forward: blocks of the newest rows, each foretold by what was known when it began.

What enters: how a model is learnt, and rows in order of time. What leaves: how long a memory foretells the next block best, and
what the newest block says of the level of the probabilities. The promise: a block is foretold from labels that were mature when
it began; a shorter memory is taken only beyond doubt.

Weighed on leads, several cuts of time: on X Education and Olist a short memory costs .005 and .015 of AUC and is never chosen;
on Bank it is from the autumn of 2009 on, when the list changes, and takes the AUC of the last five weeks from .39 to .68.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

import numpy as np
import numpy.typing as npt

from features.state import MICROSECONDS_PER_DAY
from models.calibration import log_loss
from training.level import Array, Course, Examples, recency
from training.splits import Positions

BLOCKS, BLOCK_SHARE = 4, 0.05
MEMORY_SHARES = (1 / 4, 1 / 16)
"""Memories tried besides an endless one: half-lives as parts of the time the rows span."""
LEAST_POSITIVES = 30
"""Known before a block, of the rarer class: with fewer there is nothing to walk on."""
DOUBT = 2.0
"""Standard errors by which a shorter memory must be better."""
MOST_ROWS = 20_000
"""Of more known rows every so-many-th is learnt from: only memories are compared."""


@dataclass(frozen=True)
class Block:
    """Rows foretold together, and the rows whose labels were known by then."""

    known: Positions
    foretold: Positions


def blocks(as_of: Array, label: Array, horizon: timedelta) -> list[Block]:
    """The newest rows in blocks of equal size, oldest first; none where too little was known before one.

    Parameters
    ----------
    as_of
        Microseconds since 1970 UTC, rising.
    """
    size, span = int(len(as_of) * BLOCK_SHARE), horizon / timedelta(microseconds=1)
    found = []
    for number in range(BLOCKS, 0, -1) if size else ():
        begin = len(as_of) - number * size
        known = np.flatnonzero(as_of + span <= as_of[begin])
        rarer = min(label[known].sum(), len(known) - label[known].sum())
        if rarer < LEAST_POSITIVES:
            return []
        found.append(Block(known[:: max(1, len(known) // MOST_ROWS)], np.arange(begin, begin + size)))
    return found


def chosen_memory(
    course: Course, examples: Examples, as_of: Array, walk: Sequence[Block], rounds: int
) -> tuple[timedelta | None, Array]:
    """The longest memory whose loss is not surely above the least, and what it said of the newest block.

    Returns
    -------
    The memory (None: endless), and log-odds of ``walk[-1].foretold``.
    """
    span = timedelta(days=float(as_of[-1] - as_of[0]) / MICROSECONDS_PER_DAY)
    memories = [None, *(span * share for share in MEMORY_SHARES)]
    said = [_foretold(course, examples, as_of, walk, memory, rounds) for memory in memories]
    label = np.concatenate([examples.label[block.foretold] for block in walk])
    losses = [log_loss(_chance(np.concatenate(raw)), label) for raw in said]
    worse = [loss - min(losses, key=np.mean) for loss in losses]
    # The best itself is no worse than itself: there is always one.
    chosen = next(k for k, one in enumerate(worse) if one.mean() <= DOUBT * one.std() / np.sqrt(len(one)))
    return memories[chosen], said[chosen][-1]


def _foretold(
    course: Course, examples: Examples, as_of: Array, walk: Sequence[Block], memory: timedelta | None, rounds: int
) -> list[Array]:
    """Log-odds of each block's rows, offsets included."""
    said = []
    for block in walk:
        known = replace(examples.take(block.known), weight=recency(as_of[block.known], memory))
        level = course.level(known, rounds)
        said.append(level.scores(examples.matrix[block.foretold]) + examples.start[block.foretold])
    return said


def _chance(raw: Array) -> npt.NDArray[np.float64]:
    return np.asarray(1 / (1 + np.exp(-np.clip(raw, -30.0, 30.0))))
