"""Labels beside a naive loop over the events."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import datetime, timedelta

import numpy as np
import pyarrow as pa
from hypothesis import HealthCheck, Phase, given, settings

from features.clock import microseconds
from features.contract import ENGAGEMENT_TYPES, OPT_OUT_TYPES
from features.fold import Folder, Spine
from models import churn, lead_score
from tests.features.logs import CATALOGUE, START, Event, Log, logs, moments, naive_human
from training.labels import Labels, Sends, churn_labels, lead_labels, sends, sends_by_hour

PEOPLE = ("ann", "bob", "nobody")
END, H, A = START + timedelta(days=25), timedelta(days=9), timedelta(days=12)
few = settings(max_examples=10, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))


def asked(at: datetime) -> Spine:
    return Spine(pa.array(PEOPLE), np.full(len(PEOPLE), float(microseconds(at))))


def answers(found: Labels) -> dict[str, float]:
    return {PEOPLE[row]: label for row, label in zip(found.row, found.label, strict=True)}


def of(log: Log, who: str, kinds: tuple[str, ...]) -> list[Event]:
    told = [e for e in log.events if e.subscriber_id == who and e.event_type in kinds and e.received_at < END]
    return [e for e in told if naive_human(log, e, END) >= 0.5]


def before(found: list[Event], at: datetime) -> list[Event]:
    return [e for e in found if e.received_at < at]


def within(found: list[Event], at: datetime, span: timedelta) -> list[Event]:
    return [e for e in found if at <= e.occurred_at < at + span]


@few
@given(logs(), moments())
def test_churn_and_lead_labels_are_what_a_naive_loop_gives(log: Log, at: datetime) -> None:
    churned, won = {}, {}
    for who in PEOPLE:
        engaged, left = of(log, who, ENGAGEMENT_TYPES), of(log, who, OPT_OUT_TYPES)
        if any(e.occurred_at >= at - A for e in before(engaged, at)) and not before(left, at):
            churned[who] = float(not within(engaged, at, H) or bool(within(left, at, H)))
        sold = of(log, who, ("conversion",))
        if not before(sold, at):
            won[who] = float(bool(within(sold, at, H)))
    folder = Folder(log.connect(), CATALOGUE)
    spec = {"horizon": H, "activity_window": A}
    assert answers(churn_labels(folder, asked(at), replace(churn.SPEC, **spec), END)) == churned
    assert answers(lead_labels(folder, asked(at), replace(lead_score.SPEC, **spec), END)) == won


@few
@given(logs())
def test_send_labels_are_what_a_naive_loop_gives(log: Log) -> None:
    expected = {}
    for sent in log.events:
        if sent.event_type == "sent" and sent.occurred_at >= START and sent.received_at < END:
            told = within(of(log, sent.subscriber_id, ("open", "click")), sent.occurred_at, H)
            answered = float(any(e.campaign_id == sent.campaign_id for e in told))
            expected[sent.event_id] = answered if sent.occurred_at <= END - H else None
    folder = Folder(log.connect(), CATALOGUE)
    found = sends(folder, "any", H, START, END)
    labels = [None if np.isnan(label) else label for label in found.label]
    assert dict(zip(found.event_id.to_pylist(), labels, strict=True)) == expected
    assert sends_by_hour(folder, "any", H, START, END).to_pylist() == counted(found)


def counted(found: Sends) -> list[dict[str, object]]:
    """Mature sends by hour and campaign, in a plain loop; without a campaign by day."""
    sent, answered = Counter[tuple[int, str]](), Counter[tuple[int, str]]()
    each = zip(
        found.hour_of_week.tolist(), found.campaign_id.to_pylist(), found.sent_at.tolist(), found.label, strict=True
    )
    for hour, campaign, at, label in each:
        if not np.isnan(label):
            key = (hour, campaign or f"no campaign, day {int(at // 86_400e6)}")
            sent[key] += 1
            answered[key] += int(label)
    names = ("hour_of_week", "campaign", "sends", "answers")
    return [dict(zip(names, (*key, sent[key], answered[key]), strict=True)) for key in sorted(sent)]
