"""Events of the input contract as JSON, one a message: what a program puts on a stream.

What enters: a message's bytes, an object with the columns of ``events``, or an array of such. What leaves: what it tells.
The promise: a message is judged as the same row of a file would be, and none raises.

Other than a row, a message may name its subscriber by ``email`` instead of ``subscriber_id``; the address becomes a
pseudonym like those of the providers' webhooks. When it was received is for the inbox to say.
"""

from __future__ import annotations

import re
from codecs import BOM_UTF8
from collections.abc import Iterator, Mapping
from typing import Any

from features.contract import EVENT_TYPES, REQUIRED_EVENT_COLUMNS
from features.intake import EMAIL, ID_LENGTH
from features.payload import as_list, iso_us, looks_like_an_address, parse, text, texts, unread
from features.told import Found, Told

FORMAT = "events"

_TEXTS = ("event_id", "subscriber_id", "event_type", "campaign_id", "user_agent", "ip", "url")
_EXAMPLE = "write it in UTC, e.g. 2026-01-31T09:00:00Z"
_NAIVE = re.compile(r"\s*\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}(\.\d+)?)?)?\s*")


def read(body: bytes) -> list[Found]:
    """What a message tells: events, or why an item is none.

    >>> read(b'{"event_id": "1", "subscriber_id": "s1", "event_type": "open"}')[0].reason
    'occurred_at is missing'
    """
    try:
        parsed = parse(body)
    except ValueError:
        return [unread("the message is not JSON", body.decode("utf-8", "replace"))]
    return [_read(item) for item in as_list(parsed)]


def is_document(line: bytes) -> bool:
    """Whether a line is a JSON object or array by itself."""
    if not line.removeprefix(BOM_UTF8).lstrip().startswith((b"{", b"[")):
        return False
    try:
        return isinstance(parse(line), dict | list)
    except ValueError:
        return False


def _read(item: Any) -> Found:
    if not isinstance(item, dict):
        return unread("the message is not a JSON object", item)
    told = {name: text(item.get(name)) for name in _TEXTS}
    occurred_us = iso_us(item.get("occurred_at"))
    fault = next(_faults(item, told, occurred_us), None)
    if fault is not None:
        return unread(fault, item)
    return Told(
        event_id=str(told["event_id"]),
        event_type=str(told["event_type"]),
        occurred_us=occurred_us or 0,
        address=None if told["subscriber_id"] else text(item.get("email")),
        own_id=told["subscriber_id"],
        campaign_id=told["campaign_id"],
        content=_content(item.get("content")),
        value=_number(item.get("value")),
        user_agent=told["user_agent"],
        ip=told["ip"],
        url=told["url"],
    )


def _faults(item: Mapping[str, Any], told: Mapping[str, str | None], occurred_us: int | None) -> Iterator[str]:
    """What `canonical` cannot see any more: the rest of a row's faults is found there."""
    for name in REQUIRED_EVENT_COLUMNS:
        instead = name == "subscriber_id" and text(item.get("email"))
        if text(item.get(name)) is None and not instead:
            yield f"{name} is missing"
    if looks_like_an_address(told["subscriber_id"] or ""):
        yield "subscriber_id is an e-mail address: give an opaque id instead, or the address as email"
    if re.search(EMAIL, (told["campaign_id"] or "")[: ID_LENGTH + 1]):
        yield "campaign_id contains an e-mail address: give an opaque id instead"
    if told["event_type"] not in EVENT_TYPES:
        yield f"event_type is unknown; known are {', '.join(EVENT_TYPES)}"
    if occurred_us is None:
        naive = _NAIVE.fullmatch(str(item["occurred_at"]))
        yield f"occurred_at {'has no time zone' if naive else 'is not a timestamp'}: {_EXAMPLE}"
    if item.get("value") not in (None, "") and _number(item["value"]) is None:
        yield "value is not a number"


def _number(given: Any) -> float | None:
    if isinstance(given, bool) or not isinstance(given, int | float | str):
        return None
    if isinstance(given, str) and "_" in given:
        # Which is a number in Python alone.
        return None
    try:
        return float(given)
    except (ValueError, OverflowError):
        return None


def _content(given: Any) -> tuple[str, ...] | None:
    """A list of texts, or texts between bars."""
    return texts(given.split("|") if isinstance(given, str) and not given.startswith("[") else given)
