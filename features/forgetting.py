"""Forgetting a person: what is kept of the events of theirs, everywhere where events are kept.

What enters: a subscriber id, any that the person has or had. What leaves: how much was removed. The promise: afterwards
neither the log nor the inbox nor the quarantine holds anything of the person, and the same events told again do not bring
it back; a call that was killed is completed by calling again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from features.clock import microseconds
from features.errors import EmptyLog
from features.home import Home
from features.inbox import Inbox
from features.log import EventLog
from features.merges import Merges


@dataclass(frozen=True)
class Forgotten:
    """What was removed. Under ``subscriber_ids``, the one that stands first, other stores may know the person."""

    subscriber_ids: tuple[str, ...]
    events: int
    profiles: int
    quarantined: int


def forget(home: Home, subscriber_id: str, now: datetime | None = None, also: Sequence[str] = ()) -> Forgotten:
    """Remove a person's events and profile from the log, the inbox and the quarantine.

    Parameters
    ----------
    also
        Further ids of the same person that may never have been merged.

    What happened up to now is refused when it is told again; what the same id does later is a new story.

    Raises
    ------
    InboxUnavailable, UnreadableFile
        When a part could not be done; call again.
    """
    merges, inbox, log = Merges(home), Inbox(home), EventLog(home)
    until_us = _until_us(log, now or datetime.now(UTC))
    # In this order: what is on its way into the inbox or the log finds the digests, or is there to be removed.
    merges.forget(ids_of(merges, subscriber_id, also), until_us)
    # Again: an id that became the person's meanwhile. After the digests none does.
    ids = ids_of(merges, subscriber_id, also)
    merges.forget(ids, until_us)
    waiting, named = inbox.forget(ids)
    removed = log.forget(ids)
    # Last: until here a call that was killed can be done again for all ids of the person.
    merges.drop(ids)
    return Forgotten(ids, removed.events + waiting, removed.profiles, removed.quarantined + named)


def ids_of(merges: Merges, subscriber_id: str, also: Sequence[str] = ()) -> tuple[str, ...]:
    """All ids of a person who is known by some; the one that stands first."""
    return tuple(dict.fromkeys(each for who in (subscriber_id, *also) for each in merges.person(who)))


def _until_us(log: EventLog, now: datetime) -> int:
    """A log may end in the future, such as a simulated one."""
    try:
        return microseconds(max(now, log.end()))
    except EmptyLog:
        return microseconds(now)
