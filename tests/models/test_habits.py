"""Behaviour is read per mail, row by row."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import orjson
import pytest

from features.catalogue import Catalogue
from features.derive import feature_names
from models.habits import COLUMNS, PRIOR_LEFT, PRIOR_OPENED, Habits
from models.silence import Silence

NAMES = feature_names(Catalogue())
MAILS = Habits(NAMES, "mails", 60.0)
SILENCE = Habits(NAMES, "silence", 90.0, Silence(r=0.243, alpha=30.9, a=0.793, b=2.426))
KINDS = [Habits(NAMES), MAILS, SILENCE]
A_MONTH = 30.0 / math.log(2)
"""What a decayed sum with a half-life of 30 days comes to at one event a day."""


def somebody(rows: int = 1, **values: float) -> npt.NDArray[np.float64]:
    """Written to once a month for a year, half of it opened."""
    usual = {
        "sent_count": 12.0,
        "sent_decayed_30d": A_MONTH / 30,
        "sent_decayed_90d": 3 * A_MONTH / 30,
        "open_count": 6.0,
        "open_decayed_30d": A_MONTH / 60,
        "open_decayed_90d": 3 * A_MONTH / 60,
        "tenure_days": 360.0,
        "hours_since_last_sent": 240.0,
        "hours_since_last_engagement": 240.0,
        "days_since_first_engagement": 300.0,
        "engagement_count": 6.0,
    }
    matrix = np.zeros((rows, len(NAMES)))
    for name, value in (usual | values).items():
        matrix[:, NAMES.index(name)] = value
    return matrix


def column(habits: Habits, name: str, matrix: npt.NDArray[np.float64]) -> float:
    return float(habits.columns(matrix)[0, list(habits.speaks_for).index(name)])


def test_that_no_mail_is_opened_is_what_one_draw_after_another_says() -> None:
    mails = 8
    # As many as the pace of both spans makes come within the horizon.
    pace = mails / 60
    matrix = somebody(
        sent_decayed_30d=pace * A_MONTH, sent_decayed_90d=pace * 3 * A_MONTH, sent_count=12.0, open_count=5.0
    )
    opened, left = 5 + PRIOR_OPENED, 7 + PRIOR_LEFT
    none = math.prod((left + drawn) / (opened + left + drawn) for drawn in range(mails))
    assert column(MAILS, "habit_none_opened_ever", matrix) == pytest.approx(math.log(none / (1 - none)))


def test_whoever_gets_more_mail_is_likelier_to_open_one_but_opens_each_as_often() -> None:
    often = {name: 4 * somebody()[0, NAMES.index(name)] for name in ("sent_count", "open_count")}
    often |= {f"{kind}_decayed_{days}d": 4 * float(somebody()[0, NAMES.index(f"{kind}_decayed_{days}d")])
              for kind in ("sent", "open") for days in (30, 90)}  # fmt: skip
    assert column(MAILS, "habit_none_opened_90d", somebody(**often)) < column(
        MAILS, "habit_none_opened_90d", somebody()
    )
    assert column(MAILS, "habit_open_odds_ever", somebody(**often)) == pytest.approx(
        column(MAILS, "habit_open_odds_ever", somebody()), abs=0.25
    )


def test_no_mail_is_overdue_between_two_campaigns_and_one_is_when_they_go_by() -> None:
    overdue = [
        column(MAILS, "habit_mails_overdue_ever", somebody(hours_since_last_sent=24 * d)) for d in (1, 29, 44, 90)
    ]
    assert overdue[:3] == [0.0, 0.0, 0.0]
    assert overdue[3] == pytest.approx(math.log1p(3 - 1.5))


def test_silence_is_what_the_model_of_silences_says() -> None:
    assert SILENCE.silence is not None
    chance = SILENCE.silence.none_within([6.0], [290.0], [300.0], 90)[0]
    assert column(SILENCE, "habit_silence", somebody()) == pytest.approx(math.log(chance / (1 - chance)))
    assert np.isnan(column(SILENCE, "habit_silence", somebody(days_since_first_engagement=np.nan)))


@pytest.mark.parametrize("habits", KINDS, ids=[habits.kind for habits in KINDS])
def test_a_row_is_the_same_alone_and_among_others_and_after_a_journey(habits: Habits) -> None:
    rng = np.random.default_rng(1)
    matrix = somebody(257) * rng.gamma(2, 1, (257, len(NAMES)))
    matrix[::7, NAMES.index("hours_since_last_engagement")] = np.nan
    again = Habits.from_json(orjson.loads(orjson.dumps(habits.to_json())), NAMES)
    assert again == habits
    whole = habits.columns(matrix)
    assert whole.shape == (257, len(COLUMNS[habits.kind]))
    assert np.concatenate([again.columns(matrix[i : i + 1]) for i in range(257)]).tobytes() == whole.tobytes()
    assert not np.isinf(whole).any()


def test_every_column_speaks_for_a_feature() -> None:
    assert {feature for columns in COLUMNS.values() for feature in columns.values()} <= set(NAMES)


def test_counts_are_not_read_beside_what_they_mean() -> None:
    assert MAILS.replaces("sent_count")
    assert MAILS.replaces("hours_since_last_open")
    assert not MAILS.replaces("purchase_count")
    assert not SILENCE.replaces("engagement_count")


def test_an_unknown_kind_is_an_error() -> None:
    with pytest.raises(KeyError):
        Habits.from_json({"kind": "moods", "horizon_days": 1, "silence": None}, NAMES)
