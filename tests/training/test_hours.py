"""Hours of activity where no send is known: learnt from the past, judged on what came later."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pytest

from features.errors import NothingEligible
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


def test_later_hours_are_foretold_better_than_by_everybodys_histogram() -> None:
    fitted = fit_hours(folder(), START, START + timedelta(days=DAYS))
    assert fitted.gain.low > 0.2
    assert fitted.ours.value == pytest.approx(fitted.baseline.value + fitted.gain.value)
    assert not fitted.timing.exposed
    assert fitted.timing.evidence_weight in (USUAL_WEIGHT, *OTHER_WEIGHTS)
    assert fitted.metrics()["later_events"] == fitted.later_events


def test_without_a_test_everything_is_learnt_from_and_nothing_judged() -> None:
    fitted = fit_hours(folder(), START, START + timedelta(days=DAYS), with_test=False)
    assert fitted.later_events == 0
    assert fitted.metrics() == {"later_events": 0.0}


def test_a_log_that_falls_silent_cannot_be_judged() -> None:
    with pytest.raises(NothingEligible, match="activity in the last fifth of the log"):
        fit_hours(folder(days=20), START, START + timedelta(days=DAYS))
