"""Learning a list's words: the most frequent, from the past alone, each for ever in its place."""

from __future__ import annotations

from datetime import datetime, timedelta

from hypothesis import HealthCheck, Phase, given, settings

from features.catalogue import CONTENT_SLOTS, Attribute, Catalogue
from features.vocabulary import learn
from tests.features.logs import START, Event, Log, Subscriber, logs, moments

DAY = timedelta(days=1)
END = START + 40 * DAY


def clicks(*words: str, at: datetime = START, late: timedelta = 0 * DAY) -> tuple[Event, ...]:
    return tuple(Event(f"{at} {i}", "ann", "click", at, at + late, content=(word,)) for i, word in enumerate(words))


def learnt(log: Log, until: datetime = END, known: Catalogue | None = None) -> Catalogue:
    return learn(log.connect(), until, known or Catalogue())


def test_the_most_frequent_come_first_and_ties_by_the_alphabet() -> None:
    assert learnt(Log(clicks("hats", "shoes", "shoes", "bags"))).content == ("shoes", "bags", "hats")


def test_events_without_content_teach_their_campaigns() -> None:
    event = Event("e", "ann", "click", START, START, "c1")
    assert learnt(Log((event,), campaigns={"c1": ("hats",), "never seen": ("boats",)})).content == ("hats",)


def test_attributes_are_numeric_or_have_categories() -> None:
    people = (Subscriber("a", job="cook"), Subscriber("b", job="smith", age=3), Subscriber("c", job="cook"))
    assert learnt(Log(clicks("x"), people)).attributes == (Attribute("age"), Attribute("job", ("cook", "smith")))


def test_only_zones_that_exist_are_learnt() -> None:
    people = tuple(Subscriber(str(i), timezone=zone) for i, zone in enumerate(["Nowhere/Land", None, "Asia/Tokyo"]))
    assert learnt(Log(clicks("x"), people)).timezones == ("UTC", "Asia/Tokyo")


def test_what_is_received_or_created_at_the_instant_or_later_teaches_nothing() -> None:
    until = START + 10 * DAY
    log = Log(
        (*clicks("early"), *clicks("late", at=START + DAY, late=9 * DAY), *clicks("later", at=until)),
        (
            Subscriber("a", job="cook", timezone="Asia/Tokyo"),
            Subscriber("b", created_at=until, job="spy", timezone="Asia/Kathmandu"),
        ),
    )
    before = learnt(log, until)
    assert before.content == ("early",)
    assert before.timezones == ("UTC", "Asia/Tokyo")
    assert before.attributes == (Attribute("age"), Attribute("job", ("cook",)))


@settings(max_examples=5, deadline=None, phases=[Phase.generate], suppress_health_check=[HealthCheck.too_slow])
@given(logs(), moments())
def test_the_future_changes_nothing_and_growing_only_appends(log: Log, until: datetime) -> None:
    past = log.where(events=tuple(event for event in log.events if event.received_at < until))
    before = learnt(log, until)
    assert learnt(past, until) == before
    after = learnt(log, END, before)
    assert after.content[: len(before.content)] == before.content
    assert after.timezones[: len(before.timezones)] == before.timezones
    assert [field.name for field in after.fields][: len(before.fields)] == [field.name for field in before.fields]
    assert learnt(log, END, after) == after


def test_thirty_one_categories_are_told_apart_and_a_newcomer_never_displaces_one() -> None:
    words = [f"word {i:02}" for i in range(40)]
    first = learnt(Log(clicks(*words)))
    assert first.content == tuple(words[: CONTENT_SLOTS - 1])
    assert len(first.content) == 31
    assert learnt(Log(clicks(*["newcomer"] * 9)), known=first).content == first.content


def test_an_empty_log_teaches_nothing() -> None:
    assert learnt(Log()) == Catalogue(attributes=(Attribute("age"), Attribute("job", ())))
