"""Numbers and texts from data as the report words them.

What enters: shares, amounts, texts of any length. What leaves: plain words. The promise: no text from data is longer on the
page than a reader reads, and one that was cut says so.
"""

from __future__ import annotations

import math

from pipelines.pages import Html, tag, text

DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
STATUS_MEANINGS = {
    "ok": "fresh data",
    "stale": "old data: the score may lag behind",
    "partial": "some of the data was missing",
    "prior": "nothing known about them: the list's average",
    "no_consent": "withheld consent: no personal score, in no ranking",
}
PERCENT = "\N{NO-BREAK SPACE}%"
LONGEST = 200
"""Characters of one text from data."""
CUT_MARK = "… [cut]"


def percent(share: float) -> str:
    r"""
    >>> percent(0.3), percent(0.0123), percent(0.0004)
    ('30\xa0%', '1.2\xa0%', '0.04\xa0%')
    """
    size = abs(share)
    digits = 0 if size >= 0.095 or size == 0 else 1 if size >= 0.0095 else 2
    return f"{100 * share:.{digits}f}{PERCENT}"


def rate(share: float) -> str:
    r"""A share whose neighbours differ little from it.

    >>> rate(0.173), rate(0.0312)
    ('17.3\xa0%', '3.1\xa0%')
    """
    return f"{100 * share:.{_digits(share)}f}{PERCENT}"


def span(low: float, high: float) -> str:
    r"""An interval of shares.

    >>> span(0.042, 0.051)
    '4.2 to 5.1\xa0%'
    """
    digits = max(_digits(low), _digits(high))
    return f"{100 * low:.{digits}f} to {100 * high:.{digits}f}{PERCENT}"


def _digits(share: float) -> int:
    return 1 if abs(share) >= 0.0095 or share == 0 else 2


def amount(expected: float | None) -> str:
    value = expected or 0.0
    return f"{value:.1f}" if 0 < value < 9.95 else f"{value:,.0f}"


def part(some: float, whole: float) -> float:
    return some / whole if whole else 0.0


def crowd(rate: float, least: float = 1.95) -> int:
    """The round number of people of whom about so many or more are expected."""
    return next((size for size in (100, 1_000) if size * rate >= least), 10_000)


def people(count: int, one: str = "person", many: str = "people") -> str:
    """
    >>> people(1), people(4_000), people(1, "lead", "leads")
    ('1 person', '4,000 people', '1 lead')
    """
    return f"{count:,} {one if count == 1 else many}"


def short(words: str, most: int = LONGEST) -> str:
    """
    >>> short("abcdef", 3)
    'abc… [cut]'
    """
    return words if len(words) <= most else words[:most] + CUT_MARK


def from_data(words: str, most: int = LONGEST) -> Html:
    """A text from data: cut, escaped, and kept from turning the writing direction of what stands around it."""
    return tag("bdi", text(short(words, most)))


def known(number: float | None) -> bool:
    return number is not None and math.isfinite(number)
