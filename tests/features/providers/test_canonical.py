"""From what is told to events of the log, with nobody's address in them."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from features.agents import agent_of
from features.contract import AGENTS, EVENT_TYPES, NETWORKS
from features.event import Event, to_table
from features.home import Home
from features.identity import Pseudonyms, rotate
from features.intake import EMAIL
from features.links import link_of
from features.networks import network_of
from features.providers import PROVIDERS, Told, Unread, read
from features.providers.canonical import Canonical, canonical
from tests.features.providers import documented as d

BLAND = Told("x:1", "open", d.OCCURRED_US, d.ADDRESS)
GMAIL = "Mozilla/5.0 (Windows NT 5.1; rv:11.0) Gecko Firefox/11.0 (via ggpht.com GoogleImageProxy)"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


@pytest.fixture
def pseudonyms(home: Home) -> Pseudonyms:
    return Pseudonyms.load(home)


def event(told: Told, pseudonyms: Pseudonyms) -> Event:
    (made,) = canonical([told], pseudonyms).events
    return made


def from_item(provider: str, item: Any, pseudonyms: Pseudonyms) -> Canonical:
    return canonical(read(provider, json.dumps(item).encode()), pseudonyms)


@pytest.mark.parametrize(("provider", "label", "item", "expected"), d.ROWS, ids=d.LABELS)
def test_a_documented_record_is_an_event_or_quarantined_or_counted(
    provider: str, label: str, item: Any, expected: Any, pseudonyms: Pseudonyms
) -> None:
    made = from_item(provider, item, pseudonyms)
    told = expected if isinstance(expected, tuple) else ()
    assert tuple(made_of.event_type for made_of in made.events) == told
    assert len(made.quarantined) == (expected == d.UNREAD)
    assert made.aside.total() == (expected == d.ASIDE)
    for one in made.events:
        assert one.event_type in EVENT_TYPES and one.agent in AGENTS and one.network in NETWORKS
        assert one.received_us == 0
    to_table(made.events).validate(full=True)


@pytest.mark.parametrize(("provider", "label", "item", "expected"), d.ROWS, ids=d.LABELS)
def test_no_address_and_no_evidence_comes_out(
    provider: str, label: str, item: Any, expected: Any, pseudonyms: Pseudonyms
) -> None:
    shown = repr(from_item(provider, item, pseudonyms))
    assert re.search(EMAIL, shown) is None
    assert not any(secret in shown for secret in ("ann.lee", "bob@", d.PERSON, d.IP, d.URL))


@pytest.mark.parametrize(("provider", "label", "item", "expected"), d.ROWS, ids=d.LABELS)
def test_a_repeat_is_the_same_event(
    provider: str, label: str, item: Any, expected: Any, pseudonyms: Pseudonyms
) -> None:
    once = from_item(provider, item, pseudonyms)
    again = canonical(PROVIDERS[provider](json.loads(json.dumps(item))) * 3, pseudonyms)
    assert again.events == once.events * 3


def test_evidence_is_reduced_as_files_are(pseudonyms: Pseudonyms) -> None:
    made = event(replace(BLAND, event_type="click", user_agent=d.PERSON, ip=d.IP, url=d.URL), pseudonyms)
    assert (made.agent, made.network, made.link) == (agent_of(d.PERSON), network_of(d.IP), link_of(d.URL))


def test_a_person_is_one_however_the_address_is_written(pseudonyms: Pseudonyms) -> None:
    spellings = [d.ADDRESS, d.ADDRESS.upper(), f" {d.ADDRESS} ", f"Ann <{d.ADDRESS}>"]
    assert len({event(replace(BLAND, address=written), pseudonyms).subscriber_id for written in spellings}) == 1


def test_the_programs_own_id_wins(pseudonyms: Pseudonyms) -> None:
    assert event(replace(BLAND, own_id="s1"), pseudonyms).subscriber_id == "s1"


ESCAPED = ("%40", "%2540", "%252540", "&#64;", "&amp;commat;", "%26%2364%3B")


@pytest.mark.parametrize("own_id", [d.ADDRESS, *(d.ADDRESS.replace("@", at) for at in ESCAPED), d.ADDRESS.upper()])
def test_an_own_id_that_is_an_address_is_the_addresss_digest(own_id: str, pseudonyms: Pseudonyms) -> None:
    assert event(replace(BLAND, own_id=own_id), pseudonyms).subscriber_id == pseudonyms.subscriber_id(d.ADDRESS)


def test_a_campaign_that_is_named_by_an_address_is_named_by_its_digest(pseudonyms: Pseudonyms) -> None:
    first, second = (event(replace(BLAND, campaign_id=f"to {d.ADDRESS}"), pseudonyms) for _ in range(2))
    assert first.campaign_id == second.campaign_id
    assert first.campaign_id is not None and re.fullmatch("c_[0-9a-f]{32}", first.campaign_id)


def test_a_category_with_an_address_loses_it(pseudonyms: Pseudonyms) -> None:
    made = event(replace(BLAND, content=("shoes", d.ADDRESS)), pseudonyms)
    assert made.content == ("shoes", "<redacted email>")


@pytest.mark.parametrize(
    ("kind", "user_agent", "agent"),
    [
        ("open", None, "prefetch"),
        ("open", d.PERSON, "prefetch"),
        ("open", GMAIL, "image_proxy"),
        ("click", d.PERSON, "scanner"),
        ("click", GMAIL, "image_proxy"),
    ],
)
def test_the_providers_word_for_a_machine_counts_but_for_image_proxies(
    kind: str, user_agent: str | None, agent: str, pseudonyms: Pseudonyms
) -> None:
    assert event(replace(BLAND, event_type=kind, user_agent=user_agent, machine=True), pseudonyms).agent == agent


def test_two_recipients_of_one_message_have_an_event_each(pseudonyms: Pseudonyms) -> None:
    made = from_item("ses", d.ses_bounce("Permanent", "General", d.ADDRESS, d.OTHER), pseudonyms)
    assert len({one.event_id for one in made.events}) == len({one.subscriber_id for one in made.events}) == 2


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"address": None}, "recipient is missing"),
        ({"address": "nobody"}, "no e-mail address"),
        ({"address": "a" * 400 + "@shop.example"}, "no e-mail address"),
        ({"own_id": "s" * 257}, "subscriber_id is longer than 256"),
        ({"own_id": "s\x00"}, "subscriber_id contains control"),
        ({"campaign_id": "c" * 257}, "campaign_id is longer than 256"),
        ({"campaign_id": "c\x85"}, "campaign_id contains control"),
        ({"event_id": d.ADDRESS}, "event_id is an e-mail address"),
        ({"event_type": "sneeze"}, "event_type is unknown"),
        ({"occurred_us": 0}, "outside the years"),
        ({"occurred_us": 2**62}, "outside the years"),
        ({"occurred_us": -(2**62)}, "outside the years"),
        ({"value": float("nan")}, "value is not a finite number"),
        ({"value": float("inf")}, "value is not a finite number"),
        ({"value": 1e13}, "value is not a finite number"),
    ],
)
def test_what_a_file_would_be_refused_for_is_quarantined(
    change: dict[str, Any], reason: str, pseudonyms: Pseudonyms
) -> None:
    made = canonical([replace(BLAND, **change)], pseudonyms)
    (refused,) = made.quarantined
    assert made.events == ()
    assert reason in refused.reason
    assert "occurred_us" in json.loads(refused.payload)
    assert re.search(EMAIL, refused.payload) is None


def test_nothing_is_lost_and_the_order_is_kept(pseudonyms: Pseudonyms) -> None:
    found = [record for provider, _, item, _ in d.ROWS for record in PROVIDERS[provider](item)]
    made = canonical(found, pseudonyms)
    assert len(made.events) + len(made.quarantined) + made.aside.total() == len(found)
    assert [one.event_type for one in made.events] == [one.event_type for one in found if isinstance(one, Told)]
    assert list(made.quarantined) == [one for one in found if isinstance(one, Unread)]


def test_after_rotation_people_met_again_are_told_to_be_who_they_were(home: Home, pseudonyms: Pseudonyms) -> None:
    before = event(BLAND, pseudonyms)
    rotate(home)
    rotate(home)
    made = canonical([BLAND, replace(BLAND, own_id="s1")], Pseudonyms.load(home))
    assert made.events[0].subscriber_id != before.subscriber_id
    assert made.aliases[before.subscriber_id] == made.events[0].subscriber_id
    assert len(made.aliases) == 2
    assert canonical([BLAND], pseudonyms).aliases == {}


def test_a_repeat_after_rotation_is_the_same_event(home: Home, pseudonyms: Pseudonyms) -> None:
    found = [record for provider, _, item, _ in d.ROWS for record in PROVIDERS[provider](item)]
    told = [record for record in found if isinstance(record, Told) and record.own_id is None]
    before = canonical(told, pseudonyms)
    rotate(home)
    after = canonical(told, Pseudonyms.load(home))
    assert [one.event_id for one in after.events] == [one.event_id for one in before.events]
    assert all(a.subscriber_id != b.subscriber_id for a, b in zip(after.events, before.events, strict=True))
