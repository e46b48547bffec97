"""Scores in Jinja2 templates: ``{% scores subscriber %}`` and ``{{ subscriber | send_time }}``.

What enters: whatever a template calls a subscriber. What leaves: ``SubscriberScores`` under a name, or one word of them. The
promise: a subscriber who is undefined, unknown or of an odd kind gets the defaults, and the render goes on; only the
template's own text can be wrong, and then it is Jinja's TemplateSyntaxError with its line.

In an ``enable_async`` environment Jinja awaits what the client returns, so an ``AsyncScoresClient`` never holds up the
event loop there. A ``ScoresClient`` works there too, and does hold it up, unless everybody was prefetched.

Nothing of a client is compiled into a template, so compiled templates may be kept and shared.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from typing import Any, TypeVar, cast
from zoneinfo import ZoneInfo

from jinja2 import Environment, TemplateRuntimeError, Undefined, nodes, pass_context
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.runtime import Context as Rendering

from inbox_client.answers import SubscriberScores
from inbox_client.asking import Context, as_id
from inbox_client.clients import AsyncScoresClient, ScoresClient

E = TypeVar("E", bound=Environment)
T = TypeVar("T")

_NAMES = ("subscriber_id", "id")


@dataclass(frozen=True, slots=True)
class Source:
    """Where an environment's scores come from."""

    client: ScoresClient | AsyncScoresClient
    context: Context | None
    prefetched: Mapping[str, SubscriberScores]

    def scores(self, subscriber: object) -> SubscriberScores | Awaitable[SubscriberScores]:
        """From what was prefetched, else from the service."""
        name = id_of(subscriber)
        if name is not None and name in self.prefetched:
            return self.prefetched[name]
        return self.client.score(name, context=self.context)


def use(
    environment: E,
    client: ScoresClient | AsyncScoresClient,
    *,
    context: Context | None = None,
    prefetched: Mapping[str, SubscriberScores] | None = None,
) -> E:
    """Let an environment's templates ask this client, and return the environment.

    For another message or segment, use an overlay of it: ``use(environment.overlay(), client, prefetched=…)``.

    Raises
    ------
    TypeError
        When the client or the context is none, or the client is asynchronous and the environment is not.
    """
    if not isinstance(client, ScoresClient | AsyncScoresClient):
        raise TypeError("client should be inbox_client.ScoresClient or AsyncScoresClient.")
    if not isinstance(context, Context | None):
        raise TypeError("context should be inbox_client.Context.")
    if isinstance(client, AsyncScoresClient) and not environment.is_async:
        raise TypeError("An AsyncScoresClient needs Environment(enable_async=True); ScoresClient works everywhere.")
    environment.add_extension(ScoresExtension)
    _extension(environment).source = Source(client, context, {} if prefetched is None else prefetched)
    return environment


def id_of(subscriber: object) -> str | None:
    """An id, or what carries one as ``subscriber_id`` or ``id``; None when there is none.

    >>> id_of("s1"), id_of({"id": 17}), id_of(None)
    ('s1', '17', None)
    """
    # Of the type: isinstance may ask the object itself, which may raise.
    if subscriber is None or issubclass(type(subscriber), Undefined):
        return None
    return as_id(subscriber) or next(filter(None, (as_id(_part(subscriber, name)) for name in _NAMES)), None)


def _part(subscriber: object, name: str) -> object:
    try:
        return subscriber.get(name) if isinstance(subscriber, Mapping) else getattr(subscriber, name, None)
    except Exception:  # noqa: BLE001 - the object is the caller's, and a render never fails
        return None


class ScoresExtension(Extension):
    """The tag ``{% scores subscriber %}``, or ``{% scores subscriber as name %}``, and the filters.

    The name is set as ``{% set %}`` would set it: for what follows in the same scope.
    """

    tags = {"scores"}  # noqa: RUF012 - as Jinja declares it

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        self.source: Source | None = None
        environment.filters |= {"send_time": send_time, "churn_band": churn_band, "lead_grade": lead_grade}

    def parse(self, parser: Parser) -> nodes.Node:
        """Make of the tag what ``{% set scores = … %}`` is made of."""
        line = next(parser.stream).lineno
        if parser.stream.current.type == "block_end":
            parser.fail("scores needs a subscriber: {% scores subscriber %} or {% scores subscriber as name %}", line)
        subscriber = parser.parse_expression()
        name = nodes.Name("scores", "store", lineno=line)
        if parser.stream.skip_if("name:as"):
            name = parser.parse_assign_target(name_only=True)
        if parser.stream.current.type not in ("block_end", "eof"):
            parser.fail("after its subscriber scores takes nothing but: as name", line)
        asked = self.call_method("scores_of", [nodes.ContextReference(), subscriber], lineno=line)
        return nodes.Assign(name, asked, lineno=line)

    def scores_of(self, rendering: Rendering, subscriber: object) -> Any:
        """What the tag asks for when it is rendered."""
        return _scores(rendering, subscriber)


def _extension(environment: Environment) -> ScoresExtension:
    return cast(ScoresExtension, environment.extensions[ScoresExtension.identifier])


def _scores(rendering: Rendering, subscriber: object) -> SubscriberScores | Awaitable[SubscriberScores]:
    source = _extension(rendering.environment).source
    if source is None:
        raise TemplateRuntimeError("No client yet: call inbox_client.jinja.use(environment, client) first.")
    return source.scores(subscriber)


def _told(asked: SubscriberScores | Awaitable[SubscriberScores], told: Callable[[SubscriberScores], T]) -> Any:
    """A part of the answer, now or when it has come."""
    return told(asked) if isinstance(asked, SubscriberScores) else _told_later(asked, told)


async def _told_later(asked: Awaitable[SubscriberScores], told: Callable[[SubscriberScores], T]) -> T:
    return told(await asked)


# Filters take the context so that Jinja does not run them on a constant while it compiles.
@pass_context
def send_time(rendering: Rendering, subscriber: object, format: str | None = None, zone: str = "UTC") -> Any:
    """When to send to them: a moment in that zone, or its text in ``strftime``'s format."""

    def told(one: SubscriberScores) -> datetime | str:
        moment = _local(one.send_time.send_at, zone)
        return moment.strftime(format) if format else moment

    return _told(_scores(rendering, subscriber), told)


@pass_context
def churn_band(rendering: Rendering, subscriber: object) -> Any:
    """``low``, ``medium`` or ``high``."""
    return _told(_scores(rendering, subscriber), lambda one: one.churn.band)


@pass_context
def lead_grade(rendering: Rendering, subscriber: object) -> Any:
    """``A`` to ``E``."""
    return _told(_scores(rendering, subscriber), lambda one: one.lead_score.grade)


def _local(moment: datetime, zone: object) -> datetime:
    """The moment there; in UTC where it would be after the last year there is, or before the first."""
    try:
        return moment.astimezone(_zone(zone))
    except OverflowError:
        return moment.astimezone(UTC)


def _zone(name: Any) -> tzinfo:
    """The zone; UTC where a subscriber's own is missing or no zone's name."""
    if issubclass(type(name), Undefined):
        return UTC
    try:
        return ZoneInfo(name)
    except (OSError, TypeError, ValueError, KeyError):
        return UTC
