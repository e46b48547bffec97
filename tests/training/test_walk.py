"""Walking forward: what was not known when a block began foretells nothing, and a short memory needs a reason."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import numpy as np

from features.state import MICROSECONDS_PER_DAY
from models import lead_score
from models.habits import Habits
from training.level import Course, Examples
from training.walk import BLOCKS, blocks, chosen_memory

DAY = timedelta(days=1)
SPEC = replace(lead_score.SPEC, rounds=20)


def days(count: int) -> np.ndarray:
    return 1.7e15 + np.arange(count) * MICROSECONDS_PER_DAY / 10


def examples(turns_at: float) -> Examples:
    """A feature that speaks for converting, and from some share of the time on against it."""
    rng = np.random.default_rng(2)
    matrix = rng.normal(size=(6000, 2))
    sign = np.where(np.arange(6000) < turns_at * 6000, 1.0, -1.0)
    label = (rng.random(6000) < 1 / (1 + np.exp(1 - 2 * sign * matrix[:, 0]))).astype(np.float64)
    return Examples(matrix, label, np.ones(6000), None)


def memory_of(found: Examples) -> timedelta | None:
    as_of = days(6000)
    course = Course(SPEC, Habits(("a", "b")), ())
    memory, newest = chosen_memory(course, found, as_of, blocks(as_of, found.label, DAY), 100)
    assert len(newest) == 300
    return memory


def test_a_block_is_foretold_from_what_was_mature_when_it_began() -> None:
    as_of = days(1000)
    walk = blocks(as_of, np.arange(1000) % 2.0, 5 * DAY)
    assert [len(block.foretold) for block in walk] == [50] * BLOCKS
    assert walk[-1].foretold[-1] == 999
    for block in walk:
        assert as_of[block.known].max() + 5 * MICROSECONDS_PER_DAY <= as_of[block.foretold].min()


def test_where_too_little_was_known_there_is_no_walk() -> None:
    assert blocks(days(1000), np.arange(1000) % 2.0, timedelta(days=95)) == []
    assert blocks(days(1000), (np.arange(1000) % 100 == 0).astype(np.float64), DAY) == []
    assert blocks(days(10), np.arange(10) % 2.0, DAY) == []


def test_a_steady_world_keeps_an_endless_memory() -> None:
    assert memory_of(examples(turns_at=1.0)) is None


def test_a_world_that_turned_shortens_it() -> None:
    memory = memory_of(examples(turns_at=0.7))
    assert memory is not None
    assert memory < timedelta(days=160)


def test_only_the_rows_in_order_decide() -> None:
    found = examples(turns_at=0.7)
    assert memory_of(found) == memory_of(found.take(np.arange(6000)))
