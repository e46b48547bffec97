"""What an adapter finds in a payload: an event told of a person, something nobody can read, or nothing about anybody.

What enters: values from a provider's payload, already of the right type. What leaves: three plain records. The promise: a
``Told`` still knows an address and raw evidence, and shows neither in its ``repr``; an ``Unread`` knows neither.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Told:
    """One event as its provider tells it. ``canonical.canonical`` makes an ``Event`` of it."""

    event_id: str
    """Digest of what the provider identifies the event by; the same for every repeat."""
    event_type: str
    occurred_us: int
    address: str | None = field(default=None, repr=False)
    own_id: str | None = field(default=None, repr=False)
    """The program's own subscriber id, from the custom data it gave the provider with the message."""
    campaign_id: str | None = None
    content: tuple[str, ...] | None = None
    value: float | None = None
    user_agent: str | None = field(default=None, repr=False)
    ip: str | None = field(default=None, repr=False)
    url: str | None = field(default=None, repr=False)
    machine: bool = False
    """The provider itself says that a program did it."""
    of_recipient: bool = False
    """``event_id`` does not say whose event it is: several recipients of one message would share it."""


@dataclass(frozen=True, slots=True)
class Unread:
    """What is kept in quarantine. ``payload`` is JSON without addresses and raw evidence."""

    reason: str
    payload: str


@dataclass(frozen=True, slots=True)
class Aside:
    """Documented by the provider, but it says nothing about a person that we keep; only counted."""

    event_type: str


Found = Told | Unread | Aside
