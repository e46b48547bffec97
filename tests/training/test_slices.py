"""Slices have words, enough rows, and know only what was known."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from features.catalogue import Attribute, Catalogue
from features.clock import MICROSECONDS_PER_HOUR
from features.state import MICROSECONDS_PER_DAY, identity
from training.dataset import Dataset, Rows, dataset
from training.slices import LEAST_ROWS, slices

CATALOGUE = Catalogue(
    attributes=(Attribute("lead_source", ("ads", "fair")), Attribute("job", ("cook",))), timezones=("UTC", "Asia/Tokyo")
)
NOW = 1.7e15


def people(count: int = 600) -> Dataset:
    """Of every six, one is new, one long silent, one never engaged; half are in Tokyo, a third came from the fair."""
    states = identity(CATALOGUE, count)
    nth = np.arange(count) % 6
    states["created_at"] = NOW - np.where(nth == 0, 5, 400) * MICROSECONDS_PER_DAY
    states["last_open_at"] = NOW - np.where(nth == 1, 24 * 90, 24) * MICROSECONDS_PER_HOUR
    states["last_open_at"][nth == 2] = np.nan
    states["timezone"] = nth % 2
    states["profile_lead_source"] = np.where(nth < 2, 2, -1)
    ids = pa.array([f"s{i}" for i in range(count)])
    moments = np.full(count, NOW)
    return dataset(Rows(ids, moments, moments, np.zeros(count)), states, CATALOGUE)


def test_every_slice_has_its_words_and_its_rows() -> None:
    counts = {name: int(mask.sum()) for name, mask in slices(people()).items()}
    assert counts == {
        "on the list for less than 30 days": 100,
        "on the list for 30 days or more": 500,
        "engaged within 30 days": 400,
        "silent for 30 days or more": 100,
        "never engaged": 100,
        "time zone: UTC": 300,
        "time zone: Asia/Tokyo": 300,
        "lead source: not known": 400,
        "lead source: fair": 200,
    }


def test_a_slice_of_too_few_or_of_all_is_left_out() -> None:
    assert 6 * LEAST_ROWS > 540
    names = set(slices(people(540)))
    assert "never engaged" not in names
    assert "time zone: UTC" in names


def test_an_attribute_that_says_no_origin_makes_no_slice() -> None:
    assert not any(name.startswith("job") for name in slices(people()))
