"""How likely it is that a person made an event, and what else an event brings to a fold.

What enters: the log's raw views. What leaves: one Ibis table with a row per event and *verdict* on it: the human probability
that followed from what was known, since when (``judged_us``) and until when (``superseded_us``, null: it stands); and the
event's content and local hour of week. The promise: as of any instant one verdict on each event counts, it rests on nothing
received from then on, and once all is received it does not matter in which order it was.

The rules are ``features.judge``'s, which says the same of a few events in Python; here they are joins and windows that stay
linear (but for sorting) however many events share a moment. A verdict changes when a delivery is heard of that came shortly
before, when a second or third link of a burst is, or a trap among them: for each of these there is one moment from which on it
is known, so a handful of columns per event says everything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import ibis
import ibis.expr.types as ir
import pyarrow as pa

from features.catalogue import Catalogue
from features.clock import EPOCH, HOURS_TO_FIRST_MONDAY, MICROSECONDS_PER_HOUR, instant, utc_offsets
from features.contract import (
    AGENTS,
    ENGAGEMENT_TYPES,
    HONEYPOT_LINK,
    HOURS_OF_WEEK,
    NETWORKS,
    RESPONSE_TYPES,
    UNSUBSCRIBE_LINK,
)
from features.judge import (
    BURSTS,
    CELL_US,
    DELIVERY_TYPES,
    HASTE_BOUNDS_US,
    HASTES,
    HUMAN_THRESHOLD,
    KINDS,
    PROGRAM,
    PROMPT_WITHIN_US,
    REFUSED,
    TRAPS,
    HumanTable,
    table_of,
)

__all__ = ["HUMAN_THRESHOLD", "epoch_us", "evidence", "known", "verdicts", "verdicts_on"]

REACHED = tuple(f"reached_{place}" for place in range(len(HASTE_BOUNDS_US)))
"""Columns: since when a delivery is known that came less than each of ``HASTE_BOUNDS_US`` before."""
CHANGES = (*REACHED, "second_item", "third_item", "unsubscribe_link", "honeypot_link")
MOMENT = ("subscriber_id", "event_type", "scope", "cell")


def epoch_us(instants: ir.Value) -> ir.IntegerValue:
    """Microseconds since 1970 UTC of a timestamp column."""
    return instants.delta(ibis.literal(EPOCH), unit="microsecond")


LaidDown = Callable[[ir.Table], ir.Table]
"""Makes a temporary table of rows that are asked for twice: within one query DuckDB would work them out anew each time."""


@contextmanager
def _laying_down(con: ibis.BaseBackend) -> Iterator[LaidDown]:
    names: list[str] = []

    def lay_down(rows: ir.Table) -> ir.Table:
        names.append(ibis.util.gen_name("evidence_part"))
        return con.create_table(names[-1], rows, temp=True)

    try:
        yield lay_down
    finally:
        for name in names:
            con.raw_sql(f"drop table {name}")


@contextmanager
def verdicts_on(con: ibis.BaseBackend, events: ir.Table) -> Iterator[ir.Table]:
    """The verdicts on some events, to be asked about while the context lasts."""
    with _laying_down(con) as laid_down:
        yield verdicts(events, con.table("subscribers"), laid_down)


def verdicts(events: ir.Table, subscribers: ir.Table, laid_down: LaidDown) -> ir.Table:
    """Events with ``code`` (the pattern of evidence, see ``judge.Pattern``), ``judged_us`` and ``superseded_us``."""
    stamped = events.mutate(occurred_us=epoch_us(events.occurred_at), received_us=epoch_us(events.received_at))
    stamped = stamped.mutate(prompt=stamped.received_us - stamped.occurred_us <= PROMPT_WITHIN_US)
    responses = laid_down(_with_refusal(stamped.filter(stamped.event_type.isin(RESPONSE_TYPES)), subscribers))
    deliveries = _deliveries(stamped)
    met = laid_down(_with_latest_delivery(_in_bursts(responses), deliveries))
    columns = [*events.columns, "occurred_us", "received_us", "code", "judged_us", "superseded_us"]
    return _by_themselves(stamped).select(columns).union(_judged(_hastened(met, deliveries)).select(columns))


def with_human_probability(judged: ir.Table, table: HumanTable) -> ir.Table:
    """Verdicts with ``human`` (0 to 1)."""
    codes = pa.table({"code": pa.array(range(len(table.human)), pa.int64()), "human": pa.array(table.human)})
    return judged.join(ibis.memtable(codes), "code")


def _by_themselves(stamped: ir.Table) -> ir.Table:
    """What is neither open nor click: its verdict stands from the beginning."""
    alone = stamped.filter(~stamped.event_type.isin(RESPONSE_TYPES))
    own = _code(alone, ibis.literal(0), ibis.literal(0), ibis.literal(0))
    return alone.mutate(
        code=alone.event_type.isin(ENGAGEMENT_TYPES).ifelse(own, PROGRAM),
        judged_us=alone.received_us,
        superseded_us=ibis.null("int64"),
    )


def _code(events: ir.Table, haste: ir.Value, burst: ir.Value, trap: ir.Value) -> ir.Value:
    """``judge.Pattern.code`` in SQL."""
    positions = (
        (KINDS, events.event_type.cases(*((kind, place) for place, kind in enumerate(KINDS)), else_=len(KINDS) - 1)),
        (AGENTS, events.agent.cases(*((agent, place) for place, agent in enumerate(AGENTS)), else_=0)),
        (NETWORKS, events.network.cases(*((network, place) for place, network in enumerate(NETWORKS)), else_=0)),
        (HASTES, haste),
        (BURSTS, burst),
        (TRAPS, trap),
    )
    code: ir.Value = ibis.literal(0, "int64")
    for words, position in positions:
        code = code * len(words) + position.cast("int64")
    return code


def _with_refusal(responses: ir.Table, subscribers: ir.Table) -> ir.Table:
    refused = subscribers.filter(~subscribers.consent_open_tracking).select("subscriber_id", refused=ibis.literal(True))
    joined = responses.left_join(refused, "subscriber_id").drop("subscriber_id_right")
    return joined.mutate(refused=joined.refused.notnull() & (joined.event_type == "open"))


def _judged(weighed: ir.Table) -> ir.Table:
    """A row per moment at which something became known that bears on an event."""
    at = ibis.array([weighed.received_us, *(weighed[name] for name in CHANGES)]).unique().unnest()
    moments = weighed.mutate(judged_us=at)
    moments = moments.filter(moments.judged_us.notnull())
    later = [(moments[name] > moments.judged_us).ifelse(moments[name], ibis.null("int64")) for name in CHANGES]
    known = {name: (moments[name] <= moments.judged_us).fill_null(False).cast("int64") for name in CHANGES}
    reached = sum((known[name] for name in REACHED[1:]), start=known[REACHED[0]])
    haste = (reached > 0).ifelse(len(HASTES) - reached, 0)
    told = moments.item.notnull().cast("int64")
    burst = told + known["second_item"] + known["third_item"]
    trap = ibis.greatest(_own_trap(moments), 2 * known["honeypot_link"], known["unsubscribe_link"])
    code = moments.refused.ifelse(REFUSED, _code(moments, haste, burst, trap))
    return moments.mutate(code=code, superseded_us=ibis.least(*later))


def _own_trap(responses: ir.Table) -> ir.Value:
    traps = responses.link.cases((HONEYPOT_LINK, 2), (UNSUBSCRIBE_LINK, 1), else_=0)
    return (responses.event_type == "click").ifelse(traps, 0)


# --- haste: the latest delivery before ---------------------------------------------------------------------------------


def _deliveries(stamped: ir.Table) -> ir.Table:
    told = (stamped.event_type.isin(DELIVERY_TYPES), stamped.campaign_id.notnull(), stamped.prompt)
    return stamped.filter(*told).select("subscriber_id", "campaign_id", "occurred_us", "received_us")


def _with_latest_delivery(responses: ir.Table, deliveries: ir.Table) -> ir.Table:
    """Add when the campaign's last delivery to the subscriber came, and when the last of them was heard of."""
    summed = deliveries.group_by("subscriber_id", "campaign_id").aggregate(
        latest_us=deliveries.occurred_us.max(), heard_us=deliveries.received_us.max()
    )
    joined = _left(responses, summed, ("subscriber_id", "campaign_id"))
    return joined.mutate(latest_us=joined.prompt.ifelse(joined.latest_us, ibis.null("int64")))


def _hastened(met: ir.Table, deliveries: ir.Table) -> ir.Table:
    """Add ``REACHED``. Where all of a campaign's deliveries to somebody came and were known before, the latest says it."""
    plain = (met.latest_us <= met.occurred_us) & (met.heard_us <= met.received_us)
    entangled = met.filter(met.prompt, ~plain).select("event_id", "subscriber_id", "campaign_id", "occurred_us")
    joined = _left(met, _reached(entangled, deliveries), ("event_id",))
    plain = (joined.latest_us <= joined.occurred_us) & (joined.heard_us <= joined.received_us)
    gap = joined.occurred_us - joined.latest_us
    within = {
        name: (plain & (gap < bound)).ifelse(joined.received_us, _not_before(joined, f"heard_{name}"))
        for name, bound in zip(REACHED, HASTE_BOUNDS_US, strict=True)
    }
    return joined.mutate(**within)


def _reached(entangled: ir.Table, deliveries: ir.Table) -> ir.Table:
    """For responses among deliveries before, after and heard of late: since when one within each bound is known."""
    theirs = deliveries.semi_join(entangled, ["subscriber_id", "campaign_id"])
    none = ibis.null("int64")
    stream = entangled.mutate(heard_us=none).union(
        theirs.select(
            event_id=ibis.null("string"),
            subscriber_id="subscriber_id",
            campaign_id="campaign_id",
            occurred_us="occurred_us",
            heard_us="received_us",
        )
    )
    key = ["subscriber_id", "campaign_id"]
    heard = {
        f"heard_{name}": stream.heard_us.min().over(
            ibis.range_window(preceding=bound - 1, following=0, group_by=key, order_by="occurred_us")
        )
        for name, bound in zip(REACHED, HASTE_BOUNDS_US, strict=True)
    }
    found = stream.mutate(**heard)
    return found.filter(found.event_id.notnull()).select("event_id", *heard)


def _not_before(responses: ir.Table, name: str) -> ir.Value:
    """A moment of evidence, not before the event's own; null where there is none."""
    moment = responses[name]
    return (moment > responses.received_us).ifelse(
        moment, moment.notnull().ifelse(responses.received_us, ibis.null("int64"))
    )


def _left(left: ir.Table, right: ir.Table, keys: tuple[str, ...]) -> ir.Table:
    return left.left_join(right, list(keys)).drop(*(f"{key}_right" for key in keys))


# --- bursts: several links or campaigns about one moment ---------------------------------------------------------------


def _in_bursts(responses: ir.Table) -> ir.Table:
    """Add ``item`` and since when a second and a third one about the same moment are known, and the traps."""
    click = responses.event_type == "click"
    scope = click.ifelse(responses.campaign_id.fill_null(""), "")
    length = responses.event_type.cases(*CELL_US.items(), else_=1)
    placed = responses.mutate(
        item=click.ifelse(responses.link, responses.campaign_id), scope=scope, cell=responses.occurred_us // length
    )
    told = placed.filter(placed.prompt, placed.item.notnull())
    around = _around(told).select(*MOMENT, *(f"{name}_heard" for name in CHANGES[len(REACHED) :]))
    joined = _left(placed, around, MOMENT)
    told_itself = joined.prompt & joined.item.notnull()
    changes = {
        name: told_itself.ifelse(_not_before(joined, f"{name}_heard"), ibis.null("int64"))
        for name in CHANGES[len(REACHED) :]
    }
    return joined.mutate(**changes)


def _around(told: ir.Table) -> ir.Table:
    """Per cell with its two neighbours: when the second and third distinct item, and each trap, were first known.

    The three first of three cells are among the three first of each, so a cell is summed up before it meets its neighbours.
    """
    first = told.group_by(*MOMENT, "item").aggregate(known_us=told.received_us.min())
    near = ibis.range_window(preceding=1, following=1, group_by=list(MOMENT[:-1]), order_by="cell")
    first = first.mutate(near=first.item.count().over(near))
    crowded = _foremost(first.filter(first.near > 1).drop("near"))
    spread = crowded.drop("place")
    for step in (-1, 1):
        spread = spread.union(crowded.drop("place").mutate(cell=crowded.cell + step))
    met = spread.group_by(*MOMENT, "item").aggregate(known_us=spread.known_us.min())
    ranked = _foremost(met)
    click = ranked.event_type == "click"
    return ranked.group_by(*MOMENT).aggregate(
        second_item_heard=ranked.known_us.min(where=ranked.place == 1),
        third_item_heard=ranked.known_us.min(where=ranked.place == 2),
        unsubscribe_link_heard=ranked.known_us.min(where=click & (ranked.item == UNSUBSCRIBE_LINK)),
        honeypot_link_heard=ranked.known_us.min(where=click & (ranked.item == HONEYPOT_LINK)),
    )


def _foremost(items: ir.Table) -> ir.Table:
    """The three first known of each cell, with their place, and the traps."""
    order = ibis.window(group_by=list(MOMENT), order_by=["known_us", "item"])
    placed = items.mutate(place=ibis.row_number().over(order))
    return placed.filter((placed.place < len(BURSTS) - 1) | placed.item.isin([UNSUBSCRIBE_LINK, HONEYPOT_LINK]))


# --- content and local hour --------------------------------------------------------------------------------------------


def with_content(events: ir.Table, campaigns: ir.Table) -> ir.Table:
    """An event without content of its own concerns its campaign's."""
    theirs = campaigns.select("campaign_id", campaign_content="content")
    joined = events.left_join(theirs, "campaign_id").drop("campaign_id_right")
    return joined.mutate(content=ibis.coalesce(joined.content, joined.campaign_content)).drop("campaign_content")


def with_local_hour(events: ir.Table, subscribers: ir.Table, catalogue: Catalogue, span: tuple[int, int]) -> ir.Table:
    """Add ``hour_of_week`` (0 = Monday 00:00) in the subscriber's zone, the list's default where there is none.

    Parameters
    ----------
    span
        First and last moment of all events.
    """
    known = list(catalogue.timezones)
    zone = ibis.coalesce(
        subscribers.timezone.isin(known).ifelse(subscribers.timezone, None), catalogue.default_timezone
    )
    zones = subscribers.select("subscriber_id", zone=zone)
    joined = events.left_join(zones, "subscriber_id").drop("subscriber_id_right")
    joined = joined.mutate(zone=ibis.coalesce(joined.zone, catalogue.default_timezone))
    offsets = ibis.memtable(utc_offsets(known, instant(span[0]), instant(span[1])))
    offsets = offsets.select(
        "timezone", "offset_us", from_us=epoch_us(offsets.valid_from), until_us=epoch_us(offsets.valid_until)
    )
    local = joined.join(
        offsets,
        [
            joined.zone == offsets.timezone,
            joined.occurred_us >= offsets.from_us,
            joined.occurred_us < offsets.until_us,
        ],
    )
    hours = ((local.occurred_us + local.offset_us) / MICROSECONDS_PER_HOUR).floor().cast("int64")
    return local.mutate(hour_of_week=(hours + HOURS_TO_FIRST_MONDAY) % HOURS_OF_WEEK).drop(
        "zone", "timezone", "offset_us", "from_us", "until_us"
    )


def _span(occurred_us: ir.IntegerColumn) -> tuple[int, int]:
    """First and last moment, both 0 without any."""
    ends = occurred_us.as_table().aggregate(first=occurred_us.min().fill_null(0), last=occurred_us.max().fill_null(0))
    row = ends.to_pyarrow().to_pylist()[0]
    return row["first"], row["last"]


def evidence(con: ibis.BaseBackend, catalogue: Catalogue) -> ir.Table:
    """Every verdict on every event of the log, ready to fold, worked out once and kept as a temporary table.

    Beside the log's columns: ``human``, ``code``, ``hour_of_week``, and in microseconds since 1970 UTC ``occurred_us``,
    ``received_us``, ``judged_us`` and ``superseded_us``. As of an instant the rows count for which ``known`` is true.

    Parameters
    ----------
    con
        A backend with the views ``events``, ``subscribers`` and ``campaigns``, as ``EventLog.connect`` gives.
    """
    events, subscribers, campaigns = con.table("events"), con.table("subscribers"), con.table("campaigns")
    with _laying_down(con) as laid_down:
        judged = with_human_probability(verdicts(events, subscribers, laid_down), table_of(catalogue.machines))
        span = _span(epoch_us(events.occurred_at))
        told = with_local_hour(with_content(judged, campaigns), subscribers, catalogue, span)
        return con.create_table(ibis.util.gen_name("evidence"), told, temp=True)


def known(verdicts: ir.Table, as_of_us: int | ir.IntegerValue) -> ir.BooleanValue:
    """Which verdict counts as of an instant: one for each event that was received before it."""
    superseded = verdicts.superseded_us.notnull() & (verdicts.superseded_us < as_of_us)
    return (verdicts.judged_us < as_of_us) & ~superseded
