"""Hours of activity where no send is known: learnt from the past, judged on what came later."""

from __future__ import annotations

from datetime import datetime, timedelta

import numpy as np
import pytest

from features.fold import Folder
from tests.features.logs import CATALOGUE, START, Event, Log, Subscriber
from training.hours import OTHER_WEIGHTS, USUAL_WEIGHT, fit_hours

DAYS = 60


def folder(days: int = DAYS) -> Folder:
    """Forty people of the morning and forty of the evening, each there on every fifth day or so."""
    rng = np.random.default_rng(8)
    events = []
    for who in range(80):
        for day in np.flatnonzero(rng.random(days) < 0.2):
            at = START + timedelta(days=int(day), hours=(8, 20)[who % 2] + float(rng.normal()))
            events.append(Event(f"e{len(events)}", f"s{who}", "open", at, at))
    return Folder(Log(tuple(events), tuple(Subscriber(f"s{who}") for who in range(80))).connect(), CATALOGUE)


END = START + timedelta(days=DAYS)
CUT = START + timedelta(days=48)


def test_later_hours_are_foretold_better_than_by_everybodys_histogram() -> None:
    fitted = fit_hours(folder(), START, CUT, END)
    assert fitted.gain.low > 0.2
    assert fitted.ours.value == pytest.approx(fitted.baseline.value + fitted.gain.value)
    assert not fitted.timing.exposed
    assert fitted.timing.evidence_weight in (USUAL_WEIGHT, *OTHER_WEIGHTS)
    assert fitted.metrics()["later_events"] == fitted.later_events


@pytest.mark.parametrize(("days", "cut"), [(DAYS, END), (20, CUT)])
def test_without_later_activity_nothing_is_judged(days: int, cut: datetime) -> None:
    fitted = fit_hours(folder(days), START, cut, END)
    assert fitted.later_events == 0
    assert fitted.metrics() == {"later_events": 0.0}
