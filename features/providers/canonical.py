"""From what a provider tells to events of the log: addresses become ids, raw evidence becomes classes.

What enters: what ``read`` found, and the keys. What leaves: ``Canonical``. The promise: every record is an event, in
quarantine with a reason, or counted; no address and no raw evidence comes out; an event of a row that ``intake`` would
refuse is refused here.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from html import unescape
from urllib.parse import unquote

from features.agents import agent_of
from features.contract import EVENT_TYPES
from features.event import Event
from features.identity import Pseudonyms
from features.intake import CONTROL, FIRST_YEAR, ID_LENGTH, LARGEST_VALUE, LAST_YEAR
from features.links import link_of
from features.networks import network_of
from features.payload import digest, looks_like_an_address, redact, unread
from features.told import Aside, Found, Told, Unread

LONGEST_ADDRESS = 320
_MOST_ESCAPED = 8
_CONTROL = re.compile(CONTROL)
_FIRST_US, _AFTER_US = (
    int(datetime(year, 1, 1, tzinfo=UTC).timestamp()) * 1_000_000 for year in (FIRST_YEAR, LAST_YEAR + 1)
)
_BY_MACHINE = {"open": "prefetch", "click": "scanner"}
_KNOWN_TYPES = frozenset(EVENT_TYPES)
_EVIDENCE = ("address", "own_id", "user_agent", "ip", "url")


@dataclass(frozen=True)
class Canonical:
    """What a delivery comes to."""

    events: tuple[Event, ...]
    """In the order told; ``received_us`` is 0, for the inbox to say."""
    aliases: Mapping[str, str]
    """Ids that people met here had under older keys, and the ids they have now."""
    quarantined: tuple[Unread, ...]
    aside: Counter[str]


def canonical(found: Iterable[Found], pseudonyms: Pseudonyms) -> Canonical:
    """Events, and everything that is none."""
    people = _People(pseudonyms)
    events: list[Event] = []
    quarantined: list[Unread] = []
    aside: Counter[str] = Counter()
    for record in found:
        if isinstance(record, Aside):
            aside[record.event_type] += 1
        elif isinstance(record, Unread):
            quarantined.append(record)
        elif (fault := _fault(record)) is not None:
            quarantined.append(_refused(record, fault))
        else:
            events.append(_event(record, people))
    return Canonical(tuple(events), people.aliases, tuple(quarantined), aside)


class _People:
    """Ids by address, worked out once each: one delivery tells of the same people again and again."""

    def __init__(self, pseudonyms: Pseudonyms) -> None:
        self._pseudonyms = pseudonyms
        self._ids: dict[str, str] = {}
        self._fingerprints: dict[str, str] = {}
        self.aliases: dict[str, str] = {}

    def id_of(self, address: str) -> str:
        found = self._ids.get(address)
        if found is None:
            found = self._ids[address] = self._pseudonyms.subscriber_id(address)
            self.aliases.update(dict.fromkeys(self._pseudonyms.former_ids(address), found))
        return found

    def fingerprint_of(self, person: str) -> str:
        found = self._fingerprints.get(person)
        if found is None:
            found = self._fingerprints[person] = self._pseudonyms.fingerprint(person)
        return found


def _event(told: Told, people: _People) -> Event:
    return Event(
        _event_id(told, people),
        _subscriber_id(told, people),
        told.event_type,
        told.occurred_us,
        0,
        _campaign_id(told.campaign_id, people),
        None if told.content is None else tuple(map(redact, told.content)),
        told.value,
        _agent(told),
        network_of(told.ip),
        link_of(told.url),
    )


def _event_id(told: Told, people: _People) -> str:
    if not told.of_recipient:
        return told.event_id
    source = told.event_id.partition(":")[0]
    return f"{source}:{digest(told.event_id, people.fingerprint_of(told.address or told.own_id or ''))}"


def _subscriber_id(told: Told, people: _People) -> str:
    """The program's own id, unless there is none or it is an address after all."""
    own = told.own_id
    if own is None:
        return people.id_of(told.address or "")
    plain = _plain(own)
    return people.id_of(plain) if looks_like_an_address(plain) else own


def _plain(written: str) -> str:
    """Without the escapes of URLs and pages, however often it went through either."""
    for _ in range(_MOST_ESCAPED):
        plain = unescape(unquote(written))
        if plain == written:
            break
        written = plain
    return written


def _campaign_id(given: str | None, people: _People) -> str | None:
    """A campaign that is named by somebody's address is still one campaign."""
    if given is None or not looks_like_an_address(given):
        return given
    return f"c_{people.fingerprint_of(given)}"


def _agent(told: Told) -> str:
    """What the user agent says; the provider's word counts where that is not an image proxy, behind which is a person."""
    agent = agent_of(told.user_agent)
    return agent if not told.machine or agent == "image_proxy" else _BY_MACHINE.get(told.event_type, agent)


# --- what a row of a file would be refused for ------------------------------------------------------------------------


def _fault(told: Told) -> str | None:
    """The first reason not to take it."""
    return (
        (_address_fault(told.address) if told.own_id is None else None)
        or _id_fault("event_id", told.event_id)
        or _id_fault("subscriber_id", told.own_id)
        or _id_fault("campaign_id", told.campaign_id)
        or _other_fault(told)
    )


def _address_fault(address: str | None) -> str | None:
    if address is None:
        return "the recipient is missing, and so is subscriber_id in the custom data"
    whole = len(address) <= LONGEST_ADDRESS and looks_like_an_address(address)
    return None if whole else "the recipient is no e-mail address"


def _id_fault(name: str, word: str | None) -> str | None:
    if word is None:
        return None
    if len(word) > ID_LENGTH:
        return f"{name} is longer than {ID_LENGTH} characters"
    # Control characters are not printable, and most ids are.
    found = not word.isprintable() and _CONTROL.search(word)
    return f"{name} contains control characters" if found else None


def _other_fault(told: Told) -> str | None:
    if looks_like_an_address(told.event_id):
        return "event_id is an e-mail address: give an opaque id instead"
    if told.event_type not in _KNOWN_TYPES:
        return f"event_type is unknown; known are {', '.join(EVENT_TYPES)}"
    if not _FIRST_US <= told.occurred_us < _AFTER_US:
        return f"occurred_at is outside the years {FIRST_YEAR} to {LAST_YEAR}"
    if told.value is not None and not abs(told.value) <= LARGEST_VALUE:
        return f"value is not a finite number up to {LARGEST_VALUE:,}"
    return None


def _refused(told: Told, fault: str) -> Unread:
    return unread(fault, {name: value for name, value in asdict(told).items() if name not in _EVIDENCE})
