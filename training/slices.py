"""Parts of a list that a mean can hide: newcomers, the dormant, time zones, where people came from.

What enters: a dataset. What leaves: named masks over its rows. The promise: only what was known at a row's moment decides
where it belongs, and a slice is named in words that need no legend.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt

from training.dataset import Dataset

Mask = npt.NDArray[np.bool_]

NEW_DAYS = 30.0
DORMANT_HOURS = 30 * 24.0
LEAST_ROWS = 100
"""A slice with fewer says nothing."""
MOST_VALUES = 6
"""Of one attribute or of the time zones: the most frequent."""
SOURCE_WORDS = ("source", "origin", "channel")
"""An attribute whose name holds one of these says where somebody came from."""


def slices(data: Dataset) -> dict[str, Mask]:
    """Masks over the rows by name: those that tell something."""
    return telling(memberships(data))


def memberships(data: Dataset) -> dict[str, Mask]:
    """Masks over the rows by name, the smallest included: a dataset too large for memory is looked at in parts."""
    return dict([*_by_age(data), *_by_silence(data), *_by_zone(data), *_by_source(data)])


def telling(masks: Mapping[str, Mask]) -> dict[str, Mask]:
    """Those with at least ``LEAST_ROWS`` rows that are not all rows; of the values of one thing the most frequent."""
    ranked = sorted(masks, key=lambda name: -int(masks[name].sum()))
    seen: Counter[str] = Counter()
    kept = set()
    for name in ranked:
        family = name.split(": ")[0]
        seen[family] += 1
        if seen[family] <= MOST_VALUES and LEAST_ROWS <= masks[name].sum() < len(masks[name]):
            kept.add(name)
    return {name: mask for name, mask in masks.items() if name in kept}


def _by_age(data: Dataset) -> Iterator[tuple[str, Mask]]:
    tenure = data.features.column("tenure_days")
    yield f"on the list for less than {NEW_DAYS:.0f} days", tenure < NEW_DAYS
    yield f"on the list for {NEW_DAYS:.0f} days or more", tenure >= NEW_DAYS


def _by_silence(data: Dataset) -> Iterator[tuple[str, Mask]]:
    silent = data.features.column("hours_since_last_engagement")
    days = f"{DORMANT_HOURS / 24:.0f} days"
    yield f"engaged within {days}", silent < DORMANT_HOURS
    yield f"silent for {days} or more", silent >= DORMANT_HOURS
    yield "never engaged", np.isnan(silent)


def _by_zone(data: Dataset) -> Iterator[tuple[str, Mask]]:
    words = ("not known", *data.catalogue.timezones)
    return _by_value("time zone", data.features.column("timezone") + 1, words)


def _by_source(data: Dataset) -> Iterator[tuple[str, Mask]]:
    for attribute in data.catalogue.attributes:
        if attribute.categories is not None and any(word in attribute.name for word in SOURCE_WORDS):
            words = ("not known", "other", *attribute.categories)
            yield from _by_value(
                attribute.name.replace("_", " "), data.features.column(attribute.field_name) + 1, words
            )


def _by_value(name: str, codes: npt.NDArray[np.float64], words: tuple[str, ...]) -> Iterator[tuple[str, Mask]]:
    """One mask for each value there is; ``codes`` are positions in ``words``."""
    for code in np.unique(codes.astype(np.int64)):
        yield f"{name}: {words[code]}", codes == code
