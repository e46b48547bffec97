"""What may be asked, and how it is written.

What enters: ids of any kind and number, models, a context. What leaves: bodies of ``POST /v1/scores``. The promise: what
the programmer got wrong is said at once and by name; a bad id, which is data, costs its own answer and nobody else's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from numbers import Integral
from typing import Any
from uuid import UUID

from inbox_client.answers import MODELS, Model

MAX_BATCH = 1000
BODY_BYTES = 900_000
"""Of ids in one request. The service takes 1 MiB; what surrounds the ids is far below the rest."""

_WORD = re.compile(r"[^\x00-\x1f\x7f-\x9f\ud800-\udfff]{1,256}")
_EARLIEST, _LATEST = datetime(2000, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)
_WEEK_HOURS, _MAX_CONTENT, _DAY_HOURS = 168, 32, 24


@dataclass(frozen=True, slots=True)
class Context:
    """What is known of the message the scores are for.

    Attributes
    ----------
    campaign_id
        The send these scores are for.
    content
        Its categories, 32 at most.
    default_send_at
        When it would be sent without us, with its zone; now unless given.
    window_hours
        How long after that it may still be sent, 1 to 168; 24 unless given.
    quiet_hours
        Local hours [from, to) in which nothing is sent; may pass midnight.

    Raises
    ------
    ValueError
        When the service would not take it.

    >>> Context(quiet_hours=(22, 7)).fields()
    {'quiet_hours': [22, 7]}
    """

    campaign_id: str | None = None
    content: tuple[str, ...] = ()
    default_send_at: datetime | None = None
    window_hours: int | None = None
    quiet_hours: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        _check(self.campaign_id is None or _is_word(self.campaign_id), "campaign_id", _WORDS)
        listed = isinstance(self.content, tuple | list) and len(self.content) <= _MAX_CONTENT
        _check(listed and all(map(_is_word, self.content)), "content", f"at most {_MAX_CONTENT} texts, each {_WORDS}")
        _check(self.default_send_at is None or _is_moment(self.default_send_at), "default_send_at", _MOMENT)
        within = self.window_hours is None or _is_whole(self.window_hours, 1, _WEEK_HOURS)
        _check(within, "window_hours", f"a whole number from 1 to {_WEEK_HOURS}")
        _check(self.quiet_hours is None or _is_span(self.quiet_hours), "quiet_hours", "two different hours, 0 to 23")

    def fields(self) -> dict[str, Any]:
        """What JSON says of it: nothing of what was not given."""
        send_at = self.default_send_at
        said = {
            "campaign_id": self.campaign_id,
            "content": list(self.content) or None,
            "default_send_at": send_at.astimezone(UTC).isoformat() if send_at else None,
            "window_hours": self.window_hours,
            "quiet_hours": list(self.quiet_hours) if self.quiet_hours else None,
        }
        return {name: value for name, value in said.items() if value is not None}


_WORDS = "1 to 256 characters, none of them a control character"
_MOMENT = "a datetime with its zone, between the years 2000 and 2199"


def _check(holds: bool, field: str, wanted: str) -> None:
    if not holds:
        raise ValueError(f"Context.{field} should be {wanted}.")


def _is_word(value: object) -> bool:
    return isinstance(value, str) and _WORD.fullmatch(value) is not None


def _is_whole(value: object, low: int, high: int) -> bool:
    return type(value) is int and low <= value <= high


def _is_span(value: object) -> bool:
    if not isinstance(value, tuple | list) or not all(_is_whole(hour, 0, _DAY_HOURS - 1) for hour in value):
        return False
    return len(value) == len(set(value)) == len(("from", "to"))


def _is_moment(value: object) -> bool:
    return isinstance(value, datetime) and value.tzinfo is not None and _EARLIEST <= value < _LATEST


def as_id(value: object) -> str | None:
    """The id as the service knows it; None for what cannot be one.

    Databases number people or give them UUIDs: whole numbers of any type, but no truth values, and UUIDs are taken as
    their text.

    >>> as_id(17), as_id(""), as_id(True), as_id(None)
    ('17', None, None, None)
    """
    try:
        text = _id_text(value)
        return text if text is not None and _WORD.fullmatch(text) else None
    except Exception:  # noqa: BLE001 - the value is the caller's, and a bad id costs nobody else's answer
        return None


def _id_text(value: object) -> str | None:
    if isinstance(value, str):
        # The text itself: what a subclass makes of it in its own __str__ is for show.
        return str.__str__(value)
    if isinstance(value, Integral) and not isinstance(value, bool):
        return str(int(value))
    return str(value) if isinstance(value, UUID) else None


def checked_models(models: Iterable[str]) -> tuple[Model, ...]:
    """The models asked for, in the contract's order.

    Raises
    ------
    ValueError
        When there is none, or one that is not known.
    """
    asked = {models} if isinstance(models, str) else set(models)
    if not asked or not asked <= set(MODELS):
        raise ValueError(f"models should be some of {', '.join(MODELS)}.")
    return tuple(model for model in MODELS if model in asked)


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked of everybody in a call."""

    models: tuple[Model, ...] = MODELS
    context: Context | None = None
    explain: bool = False

    def body(self, subscriber_ids: list[str]) -> bytes:
        """The JSON that asks it of these."""
        asked: dict[str, Any] = {"subscriber_ids": subscriber_ids, "models": self.models}
        if self.context is not None:
            asked["context"] = self.context.fields()
        if self.explain:
            asked["explain"] = True
        return json.dumps(asked, ensure_ascii=False, separators=(",", ":")).encode()


def batches(subscriber_ids: Iterable[str], size: int) -> Iterator[list[str]]:
    """The ids in order, as many at a time as one request takes, by number and by bytes."""
    batch: list[str] = []
    room = BODY_BYTES
    for subscriber_id in subscriber_ids:
        # Quotes, a comma, and a backslash before each character at worst: a bound that need not be written to be known.
        needs = 2 * len(subscriber_id.encode()) + len('"",')
        if batch and (len(batch) == size or needs > room):
            yield batch
            batch, room = [], BODY_BYTES
        batch.append(subscriber_id)
        room -= needs
    if batch:
        yield batch
