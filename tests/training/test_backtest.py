"""A backtest knows nothing of the future, asks everybody it should, and scores as serving does."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from features.catalogue import Catalogue
from features.clock import microseconds
from features.errors import NoMatureLabels
from features.fold import Folder, Spine
from features.home import Home
from features.log import EventLog
from features.online import SqliteStateStore
from features.state import States
from features.vocabulary import learn
from models import churn, lead_score, send_time
from models.spec import ModelSpec
from serving.schemas import ScoreRequest
from serving.scorer import Scorer
from training.backtest import Origin, ask, judge, stretches, train_until

DAY = timedelta(days=1)
UNTIL = datetime(2025, 5, 1, tzinfo=UTC)
LATER = UNTIL + 10 * DAY
ENOUGH_LEADS = datetime(2025, 7, 1, tzinfo=UTC)
"""By then enough have converted to learn from."""
CHURN = replace(churn.SPEC, horizon=30 * DAY, rounds=30)


def folder_at(home: Home, until: datetime) -> Folder:
    con = EventLog(home).connect()
    return Folder(con, learn(con, until, Catalogue()))


def end_of(home: Home) -> datetime:
    return EventLog(home).end() + timedelta(microseconds=1)


def asked(
    home: Home, spec: ModelSpec = CHURN, instants: tuple[datetime, ...] = (UNTIL, LATER), since: datetime = UNTIL
) -> Origin:
    folder, until = folder_at(home, since), end_of(home)
    return ask(train_until(spec, folder, EventLog(home).start(), since, until), folder, instants, until, until)


def states_at(home: Home, ids: list[str]) -> States:
    return folder_at(home, UNTIL).fold(Spine(pa.array(ids), np.full(len(ids), float(microseconds(LATER)))))


@pytest.fixture(scope="module")
def whole(small_home: Home) -> Origin:
    return asked(small_home)


@pytest.fixture(scope="module")
def cut_home(small_list: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """The same list as it was known at ``UNTIL``: whatever was received later never happened."""
    directory = tmp_path_factory.mktemp("cut")
    events = pq.read_table(small_list / "events.parquet")
    pq.write_table(events.filter(pc.less(events["received_at"], UNTIL)), directory / "events.parquet")
    home = Home(directory / "home")
    rest = (small_list / f"{name}.parquet" for name in ("subscribers", "campaigns"))
    EventLog(home).append(directory / "events.parquet", *rest)
    yield home


@pytest.fixture(scope="module")
def cut(cut_home: Home) -> Origin:
    folder, start = folder_at(cut_home, UNTIL), EventLog(cut_home).start()
    return ask(train_until(CHURN, folder, start, UNTIL, UNTIL), folder, [UNTIL], UNTIL + DAY, UNTIL)


def test_what_was_received_after_the_origin_changes_no_score_at_it(whole: Origin, cut: Origin) -> None:
    at_origin = whole.asked.as_of == microseconds(UNTIL)
    assert cut.asked.subscriber_id.to_pylist() == whole.asked.subscriber_id.filter(pa.array(at_origin)).to_pylist()
    assert cut.probability.tobytes() == whole.probability[at_origin].tobytes()
    assert cut.learnt.bundle.booster is not None and whole.learnt.bundle.booster is not None
    assert cut.learnt.bundle.booster.text == whole.learnt.bundle.booster.text
    assert np.isnan(cut.asked.label).all()


def test_the_scores_are_those_that_serving_gives(whole: Origin, small_home: Home, tmp_path: Path) -> None:
    at_later = np.flatnonzero(whole.asked.as_of == microseconds(LATER))
    ids = whole.asked.subscriber_id.take(pa.array(at_later)).to_pylist()
    store = SqliteStateStore(tmp_path / "online.db", timeout_s=5.0)
    store.create()
    store.write(ids, states_at(small_home, ids))
    scorer = Scorer({"churn": whole.learnt.bundle}, store, stale_after_s=1e9)
    scores = scorer.score(ScoreRequest(subscriber_ids=tuple(ids[:1000]), models=("churn",)), LATER)
    allowed = scores.columns["status"] == "ok"
    assert allowed.sum() > 100
    assert (
        scores.columns["churn_probability"][allowed].tobytes() == whole.probability[at_later][:1000][allowed].tobytes()
    )
    store.close()


def test_churn_labels_are_what_a_person_would_count(whole: Origin, small_home: Home) -> None:
    con = EventLog(small_home).connect()
    told = con.table("events").to_pyarrow().to_pandas()
    rows = whole.asked
    window = told[(told.occurred_at >= LATER) & (told.occurred_at < LATER + CHURN.horizon)]
    visited = set(window[window.event_type.isin(["page_view", "form_submit", "purchase"])].subscriber_id)
    left = set(window[window.event_type.isin(["unsubscribe", "complaint"])].subscriber_id)
    at_later = rows.as_of == microseconds(LATER)
    for who, label in zip(np.array(rows.subscriber_id.to_pylist())[at_later], rows.label[at_later], strict=True):
        if who in left:
            assert label == 1
        elif who in visited:
            assert label == 0


def test_everybody_created_after_the_origin_is_asked_about_once_as_of_that_moment(small_home: Home) -> None:
    spec = replace(lead_score.SPEC, rounds=20)
    found = asked(small_home, spec, (), ENOUGH_LEADS)
    subscribers = EventLog(small_home).connect().table("subscribers").to_pyarrow().to_pandas()
    later = subscribers[subscribers.created_at >= ENOUGH_LEADS]
    assert sorted(found.asked.subscriber_id.to_pylist()) == sorted(later.subscriber_id)
    created = dict(zip(later.subscriber_id, later.created_at, strict=True))
    for who, as_of in zip(found.asked.subscriber_id.to_pylist(), found.asked.as_of, strict=True):
        assert microseconds(created[who].to_pydatetime()) == as_of


def test_every_send_after_the_origin_is_asked_about_and_unfinished_ones_have_no_label(small_home: Home) -> None:
    found = asked(small_home, replace(send_time.SPEC, rounds=20, horizon=5 * DAY), ())
    events = EventLog(small_home).connect().table("events").to_pyarrow().to_pandas()
    sent = events[(events.event_type == "sent") & (events.occurred_at >= UNTIL)]
    assert found.asked.event_id is not None
    assert sorted(found.asked.event_id.to_pylist()) == sorted(sent.event_id)
    unfinished = found.asked.as_of + 432_000e6 > microseconds(end_of(small_home))
    assert unfinished.any()
    assert np.array_equal(np.isnan(found.asked.label), unfinished)


def test_the_judgement_counts_only_known_answers_and_names_its_baselines(whole: Origin) -> None:
    judged = judge([whole])
    known = int(np.isfinite(whole.asked.label).sum())
    assert judged.ours.rows == known
    assert judged.unknown == len(whole.asked) - known
    assert {"recency", "past rate", "logistic regression"} <= {rival.name for rival in judged.rivals}
    assert [part.name for part in judged.by_age] == ["0 days", "10 days"]
    assert sum(part.ours.rows for part in judged.by_age) == known


def test_without_any_known_answer_nothing_is_judged(cut: Origin) -> None:
    with pytest.raises(NoMatureLabels, match="needs 30 days after it"):
        judge([cut])


def test_stretches_follow_each_other_without_gap() -> None:
    assert stretches(UNTIL, LATER, None) == [(UNTIL, LATER)]
    assert stretches(UNTIL, LATER, 4 * DAY) == [
        (UNTIL, UNTIL + 4 * DAY),
        (UNTIL + 4 * DAY, UNTIL + 8 * DAY),
        (UNTIL + 8 * DAY, LATER),
    ]
    assert stretches(UNTIL, UNTIL + 8 * DAY, 4 * DAY)[-1] == (UNTIL + 4 * DAY, UNTIL + 8 * DAY)


def test_a_horizon_that_the_log_does_not_reach_is_not_over_however_late_one_trains(cut_home: Home) -> None:
    end = end_of(cut_home)
    late = end + 90 * DAY
    learnt = train_until(CHURN, folder_at(cut_home, late), EventLog(cut_home).start(), late, end)
    assert learnt.rows.as_of.max() + 30 * 86_400e6 <= microseconds(end)
