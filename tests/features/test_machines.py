"""What is learnt of machines: only from the past, only where there is something to learn, and people stay people."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import ibis
import numpy as np
import pytest

from features.catalogue import Catalogue
from features.clock import microseconds
from features.contract import AGENTS, NETWORKS
from features.event import Event, to_table
from features.judge import HASTES, KINDS, PATTERNS, Pattern, table_of
from features.machines import LEAST_TRACES, learn_machines, pattern_counts
from features.vocabulary import learn
from tests.features.logs import NULLABLE, Log

START = datetime(2026, 3, 2, tzinfo=UTC)
SECOND = 1_000_000


def pattern(kind: str, agent: str = "unknown", network: str = "unknown", haste: int = 0, burst: int = 0) -> Pattern:
    return Pattern(KINDS.index(kind), AGENTS.index(agent), NETWORKS.index(network), haste, burst)


def counts(**of: dict[Pattern, float]) -> np.ndarray:
    found = np.zeros(PATTERNS)
    for one, count in of["patterns"].items():
        found[one.code] = count
    return found


@pytest.mark.parametrize("kind", ["open", "click", "other"])
@pytest.mark.parametrize("haste", [0, 1, 6])
def test_a_log_without_traces_of_machines_teaches_nothing(kind: str, haste: int) -> None:
    assert learn_machines(counts(patterns={pattern(kind, haste=haste): 1e6})) is None


def test_few_traces_teach_nothing() -> None:
    few = {pattern("open", "prefetch"): LEAST_TRACES - 1, pattern("open", "person", haste=6): 1e5}
    assert learn_machines(counts(patterns=few)) is None


def test_a_list_whose_scanners_hide_is_told_by_their_company() -> None:
    """Named scanners click within 3 s from clouds; so do unnamed ones. People of this list click fast from elsewhere."""
    found = counts(
        patterns={
            pattern("click", "scanner", "datacentre", 1, 1): 400,
            pattern("click", "person", "datacentre", 1, 1): 600,
            pattern("click", "person", "public", 3, 1): 800,
            pattern("click", "person", "public", 6, 1): 4_000,
            pattern("click", "person", "public", 1, 1): 50,
        }
    )
    weights = learn_machines(found)
    assert weights is not None
    human, before = table_of(weights).human, table_of(None).human
    assert human[pattern("click", "person", "datacentre", 1, 1).code] < 0.02
    assert human[pattern("click", "person", "public", 6, 1).code] > 0.99
    assert human[pattern("click", "person", "public", 3, 1).code] > 0.9
    assert (
        before[pattern("click", "person", "datacentre", 1, 1).code]
        > human[pattern("click", "person", "datacentre", 1, 1).code]
    )


def test_gmails_proxy_is_a_person_even_where_most_opens_are_machines() -> None:
    found = counts(
        patterns={
            pattern("open", "prefetch", "prefetch", 4, 1): 90_000,
            pattern("open", "image_proxy", "image_proxy", 6, 1): 2_000,
            pattern("open", "image_proxy", "image_proxy", 3, 1): 300,
            pattern("open", "person", "public", 6, 1): 3_000,
        }
    )
    human = table_of(learn_machines(found)).human
    proxied = [pattern("open", "image_proxy", "image_proxy", haste, 1).code for haste in range(1, len(HASTES))]
    assert (human[proxied] > 0.9).all()


def events(chance: random.Random, count: int) -> list[Event]:
    listed = []
    for number in range(count):
        sent = microseconds(START) + number * 60 * SECOND
        who = f"s{number % 50}"
        listed.append(Event(f"s{number}", who, "sent", sent, sent, f"c{number}"))
        machine = chance.random() < 0.5
        at = sent + (SECOND if machine else 7200 * SECOND)
        agent, network = ("scanner", "datacentre") if machine else ("person", "public")
        listed.append(Event(f"k{number}", who, "click", at, at, f"c{number}", None, None, agent, network, "a"))
    return listed


def connected(listed: list[Event]) -> ibis.BaseBackend:
    con = Log().connect()
    con.raw_sql("drop table events")
    con.create_table("events", ibis.memtable(to_table(listed).cast(NULLABLE)))
    return con


def test_nothing_received_from_the_instant_on_teaches_anything() -> None:
    listed = events(random.Random(1), 600)
    until = START + timedelta(minutes=500)
    later = [
        replace(event, event_id=f"later {event.event_id}", agent="scanner", received_us=event.received_us + 10**12)
        for event in listed
    ]
    before = learn(
        connected([event for event in listed if event.received_us < microseconds(until)]), until, Catalogue()
    )
    assert before.machines is not None
    assert learn(connected([*listed, *later]), until, Catalogue()) == before


def test_each_event_is_counted_once_under_its_standing_verdict() -> None:
    at = microseconds(START)
    burst = [Event(f"k{n}", "ann", "click", at + n, at + n + n * 3600 * SECOND, "c1", link=f"l{n}") for n in range(3)]
    found = pattern_counts(connected(burst), START + timedelta(days=1))
    assert {Pattern.of_code(int(code)).burst: found[code] for code in np.flatnonzero(found)} == {3: 3}


def test_a_catalogue_keeps_what_was_learnt_and_older_ones_still_load() -> None:
    weights = learn_machines(counts(patterns={pattern("open", "prefetch"): 500, pattern("open", "person"): 500}))
    catalogue = Catalogue(content=("shoes",), machines=weights)
    assert Catalogue.from_json(catalogue.to_json()) == catalogue
    assert catalogue.fingerprint != replace(catalogue, machines=None).fingerprint
    assert Catalogue.from_json(b'{"attributes":[],"content":["shoes"],"timezones":["UTC"]}') == Catalogue(("shoes",))
