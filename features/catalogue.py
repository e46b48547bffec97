"""What a list's state consists of: its vocabularies, and from them every stored field, generated.

What enters: the content categories, attributes and time zones found in a log. What leaves: a ``Catalogue`` and the
ordered ``Field``s of a subscriber's state. The promise: vocabularies only ever grow at their end, so a code or a slot
never changes its meaning and a row written under an older catalogue is a prefix of one written under a newer.
"""

from __future__ import annotations

import hashlib
import math
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import Enum
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from features.contract import EVENT_TYPES, HOURS_OF_WEEK
from features.errors import CatalogueMissing

VIEWS = ("engagement_velocity", "recency", "spending", "content_affinity", "send_time_profile", "profile")
DECAYED_VIEWS = ("engagement_velocity", "spending", "content_affinity")
"""Those with decayed sums, each measured from its landmark."""

DECAYED_TYPES = ("sent", "open", "click", "page_view", "form_submit", "purchase")
HALF_LIVES_DAYS = (1, 7, 30, 90)
AFFINITY_HALF_LIFE_DAYS = 90

CONTENT_SLOTS = 32
"""Slot 0 is every category the catalogue does not know; 31 are the list's own most frequent ones."""
CONTENT_UNITS = 2**18
"""Weights by content are kept in whole units of this: some 16,000 events of one category fit, each to 2 millionths."""
HOUR_UNITS = 64
"""Events by local hour are kept in whole 64ths of a person's event, up to 65,535 of them (1,023 events of one hour)."""
CATEGORY_LIMIT = 255
"""At most this many categories of one attribute are told apart; later ones are "other" (code 0). Missing is -1."""


class Fold(Enum):
    """How two values of a field become one. Each has an identity and forgets the order of events."""

    SUM = "sum"
    DECAYED = "decayed"
    MAX = "max"
    MIN = "min"
    LATEST = "latest"


@dataclass(frozen=True)
class Field:
    """One stored field: its name, its Feast view, how it folds, and how it lies in a packed row.

    Every single value is a float64, codes too, so that a row can be read as one line of a matrix; vectors over content
    are uint32 (see ``CONTENT_UNITS``), vectors over local hours uint16 (see ``HOUR_UNITS``). All three are whole numbers of
    some unit, so that an event can be added, and taken away again, without rounding.
    """

    name: str
    view: str
    fold: Fold
    dtype: str = "<f8"
    length: int = 1
    half_life_days: float | None = None
    description: str = ""
    missing: float = math.nan
    """What stands for "not known" where the fold has no zero: NaN, or -1 for a code."""

    @property
    def identity(self) -> float:
        """The fold's neutral element."""
        return 0 if self.fold in (Fold.SUM, Fold.DECAYED) else self.missing


@dataclass(frozen=True)
class Attribute:
    """One attribute column of ``subscribers``; ``categories`` is None for a numeric one."""

    name: str
    categories: tuple[str, ...] | None = None

    @property
    def field_name(self) -> str:
        """Its own for every name: ``as_of`` would be the view's anchor, so names that begin like it get one more ``_``.

        >>> Attribute("age").field_name, Attribute("as_of").field_name, Attribute("as_of_").field_name
        ('profile_age', 'profile_as_of_', 'profile_as_of__')
        """
        field_name = f"profile_{self.name}"
        return f"{field_name}_" if field_name.rstrip("_") == as_of_name("profile") else field_name


@dataclass(frozen=True)
class Catalogue:
    """A list's own words. Codes are positions: append-only.

    ``timezones[0]`` is the list's default zone, used for everybody who has none or an unknown one.
    """

    content: tuple[str, ...] = ()
    attributes: tuple[Attribute, ...] = ()
    timezones: tuple[str, ...] = ("UTC",)
    machines: tuple[float, ...] | None = None
    """What tells machines from people in this list (``features.judge.Weights``); None: what is known beforehand."""

    @property
    def default_timezone(self) -> str:
        return self.timezones[0]

    @cached_property
    def fields(self) -> tuple[Field, ...]:
        """Every stored field in packed order: the fixed ones first, attributes in order of arrival."""
        return (*_FIXED_FIELDS, *(_attribute_field(attribute) for attribute in self.attributes))

    @cached_property
    def dtype(self) -> np.dtype[Any]:
        """A state in memory: little-endian, without padding, a whole number of 8-byte words."""
        return _dtype(self.fields)

    @cached_property
    def blank(self) -> npt.NDArray[Any]:
        """One row of somebody about whom nothing is known; read-only."""
        row = np.zeros(1, dtype=self.dtype)
        for field in self.fields:
            row[field.name] = field.identity
        row.flags.writeable = False
        return row

    def fields_of(self, view: str) -> tuple[Field, ...]:
        return tuple(field for field in self.fields if field.view == view)

    @cached_property
    def fingerprint(self) -> str:
        """First 16 hex digits of the sha256 of the catalogue's canonical JSON."""
        return hashlib.sha256(self.to_json()).hexdigest()[:16]

    def grown(self, content: Iterable[str], attributes: Iterable[Attribute], timezones: Iterable[str]) -> Catalogue:
        """Take in what is new, keep what is there where it is. ``machines`` stays.

        >>> Catalogue(content=("shoes",)).grown(["hats", "shoes"], [], ["Europe/Paris"]).content
        ('shoes', 'hats')
        """
        return replace(
            self,
            content=_appended(self.content, content, CONTENT_SLOTS - 1),
            attributes=_grown_attributes(self.attributes, attributes),
            timezones=_appended(self.timezones, timezones, 10_000),
        )

    def to_json(self) -> bytes:
        attributes = [{"name": a.name, "categories": a.categories} for a in self.attributes]
        words: dict[str, object] = {"content": self.content, "attributes": attributes, "timezones": self.timezones}
        if self.machines is not None:
            words["machines"] = self.machines
        return orjson.dumps(words, option=orjson.OPT_SORT_KEYS)

    @staticmethod
    def from_json(text: bytes) -> Catalogue:
        raw = orjson.loads(text)
        attributes = tuple(
            Attribute(a["name"], None if a["categories"] is None else tuple(a["categories"])) for a in raw["attributes"]
        )
        machines = tuple(raw["machines"]) if "machines" in raw else None
        return Catalogue(tuple(raw["content"]), attributes, tuple(raw["timezones"]), machines)

    def save(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_suffix(".tmp")
        beside.write_bytes(self.to_json())
        beside.replace(path)

    @staticmethod
    def load(path: Path) -> Catalogue:
        """Read a saved catalogue.

        Raises
        ------
        CatalogueMissing
            When nothing was learnt yet under this home.
        """
        if not path.exists():
            raise CatalogueMissing(path)
        return Catalogue.from_json(path.read_bytes())

    @staticmethod
    def known(path: Path) -> Catalogue:
        """The catalogue saved there, or an empty one while nothing was learnt yet."""
        return Catalogue.load(path) if path.exists() else Catalogue()


def _appended(known: tuple[str, ...], found: Iterable[str], limit: int) -> tuple[str, ...]:
    present = set(known)
    new = [word for word in dict.fromkeys(found) if word not in present]
    return (*known, *new)[: max(limit, len(known))]


def _grown_attributes(known: tuple[Attribute, ...], found: Iterable[Attribute]) -> tuple[Attribute, ...]:
    grown = {attribute.name: attribute for attribute in known}
    for attribute in found:
        old = grown.get(attribute.name)
        if old is None:
            new = attribute if attribute.categories is None else Attribute(attribute.name, ())
            old = grown[attribute.name] = new
        if old.categories is not None and attribute.categories is not None:
            grown[attribute.name] = replace(
                old, categories=_appended(old.categories, attribute.categories, CATEGORY_LIMIT)
            )
    return tuple(grown.values())


def _attribute_field(attribute: Attribute) -> Field:
    description = f"subscribers.{attribute.name}"
    if attribute.categories is None:
        return Field(attribute.field_name, "profile", Fold.LATEST, description=description)
    return _code(attribute.field_name, description)


def _code(name: str, description: str) -> Field:
    return Field(name, "profile", Fold.LATEST, description=description, missing=-1)


def _dtype(fields: Iterable[Field]) -> np.dtype[Any]:
    return np.dtype([(f.name, f.dtype) if f.length == 1 else (f.name, f.dtype, (f.length,)) for f in fields])


def decayed_name(event_type: str, half_life_days: float) -> str:
    """
    >>> decayed_name("click", 30)
    'click_decayed_30d'
    """
    return f"{event_type}_decayed_{half_life_days:g}d"


def as_of_name(view: str) -> str:
    return f"{view}_as_of"


def _anchor(view: str) -> Field:
    text = "microseconds since 1970 UTC up to which (exclusive) the view's events are folded; NaN = never written"
    return Field(as_of_name(view), view, Fold.LATEST, description=text)


def decayed_at_name(view: str) -> str:
    return f"{view}_decayed_at"


def _landmark(view: str) -> Field:
    text = "microseconds since 1970 UTC at which an event weighs 1 in the view's decayed sums; NaN = never written"
    return Field(decayed_at_name(view), view, Fold.LATEST, description=text)


def _velocity_fields() -> list[Field]:
    return [
        Field(
            decayed_name(kind, days),
            "engagement_velocity",
            Fold.DECAYED,
            half_life_days=days,
            description=f"{kind} events by people, each halved every {days} days",
        )
        for kind in DECAYED_TYPES
        for days in HALF_LIVES_DAYS
    ]


def _recency_fields() -> list[Field]:
    stamps = "microseconds since 1970 UTC, NaN = never"
    return [
        *(Field(f"{kind}_count", "recency", Fold.SUM, description=f"{kind} events, ever") for kind in EVENT_TYPES),
        *(Field(f"last_{kind}_at", "recency", Fold.MAX, description=stamps) for kind in EVENT_TYPES),
        Field("first_engagement_at", "recency", Fold.MIN, description=stamps),
        Field("machine_open_count", "recency", Fold.SUM, description="opens, less the part that people made"),
    ]


def _spending_fields() -> list[Field]:
    return [
        Field("purchase_value_sum", "spending", Fold.SUM, description="in the list's currency"),
        Field("purchase_value_max", "spending", Fold.MAX, description="in the list's currency, NaN = none"),
        Field("first_purchase_at", "spending", Fold.MIN, description="microseconds since 1970 UTC, NaN = never"),
        Field("conversion_value_sum", "spending", Fold.SUM, description="in the list's currency"),
        *(
            Field(decayed_name("purchase_value", days), "spending", Fold.DECAYED, half_life_days=days)
            for days in HALF_LIVES_DAYS[2:]
        ),
    ]


def _content_field(name: str, description: str) -> Field:
    text = f"{description}, in 2^18ths"
    return Field(name, "content_affinity", Fold.DECAYED, "<u4", CONTENT_SLOTS, AFFINITY_HALF_LIFE_DAYS, text)


def _hours_field(name: str, description: str) -> Field:
    return Field(name, "send_time_profile", Fold.SUM, "<u2", HOURS_OF_WEEK, None, f"{description}, in 64ths")


_FIXED_FIELDS = (
    *(_anchor(view) for view in VIEWS),
    *(_landmark(view) for view in DECAYED_VIEWS),
    *_velocity_fields(),
    *_recency_fields(),
    *_spending_fields(),
    Field("created_at", "profile", Fold.MIN, description="microseconds since 1970 UTC, NaN = unknown"),
    _code("timezone", "position in the catalogue's time zones, -1 = default"),
    _code("consent_profiling", "1 yes, 0 no, -1 not asked"),
    _code("consent_open_tracking", "1 yes, 0 no, -1 not asked"),
    _content_field("content_engaged", "engagement by content slot; an event's categories share its weight"),
    _content_field("content_sent", "sends by content slot; a send's categories share its weight"),
    _hours_field("sent_by_hour", "sends by local hour of week, 0 = Monday 00:00"),
    _hours_field("response_by_hour", "opens and clicks by people, by local hour of week"),
    _hours_field("visit_by_hour", "page views, forms and purchases, by local hour of week"),
)
"""Single values first, then vectors: a row's length is a multiple of 8 bytes and every float64 lies on one."""

LAYOUT = zlib.crc32(repr([(field.name, field.dtype, field.length) for field in _FIXED_FIELDS]).encode())
"""Version of the fixed fields' layout, 32 bits: a row stored under another one is not misread but not read."""
