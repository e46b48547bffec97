"""`inbox monitor` end to end: the real scorer decides, the real log is written, outcomes are played, the numbers are known."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import ibis
import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from features.catalogue import Catalogue
from features.clock import instant, microseconds
from features.fold import Folder
from features.home import Home
from features.log import EventLog
from models.send_time import SPEC, Curves, Window, decide
from pipelines.decisions import OWN_MODEL, Followed, carried_out, decided, experiment, numbers, parts
from pipelines.monitor import Monitored, Watched, calibration_gone, current_experiment, monitor, read_predictions
from pipelines.monitor_page import page, write_findings
from pipelines.score import scorer_of
from serving.prediction_log import PredictionLog, Served
from serving.schemas import Context, ScoreRequest
from tests.front_door import Said, inbox
from training.dataset import JUST_AFTER
from training.evaluation import Interval, auc

ROUNDS = 10
MINUTE, DAY = 60e6, 86_400e6
Flags = npt.NDArray[np.bool_]
Truth = Callable[[pa.Table, np.random.Generator], Flags]
"""Which of the decided sends are answered."""


def as_the_model_said(decisions: pa.Table, rng: np.random.Generator) -> Flags:
    return rng.random(decisions.num_rows) < numbers(decisions, "probability")


def better_at_the_default(decisions: pa.Table, rng: np.random.Generator) -> Flags:
    _, default = parts(numbers(decisions, "propensity"))
    return rng.random(decisions.num_rows) < np.where(default, 0.95, 0.05)


def copied(home: Home, root: Path) -> Home:
    """A home of one's own with the same log, models and store."""
    shutil.copytree(home.var, root / "var")
    return Home(root)


def serve(home: Home) -> None:
    """Ask about everybody for a campaign every 38 hours, each time twice, a minute apart."""
    scorer, log = scorer_of(home), PredictionLog(home.predictions)
    begin = EventLog(home).end().replace(hour=8, minute=0, second=0, microsecond=0) + timedelta(days=1)
    con = EventLog(home).connect()
    ids = tuple(con.to_pyarrow(con.table("subscribers").order_by("subscriber_id"))["subscriber_id"].to_pylist())
    for number in range(2 * ROUNDS):
        at = begin + timedelta(hours=38 * (number // 2), minutes=number % 2)
        default = at.replace(minute=0) + timedelta(hours=1)
        context = Context(campaign_id=f"later-{number // 2}", default_send_at=default)
        scores = scorer.score(ScoreRequest(subscriber_ids=ids, context=context), at)
        assert log.offer(Served(f"request-{number}", context, at, scorer.versions, scores))
    log.close()
    assert log.written_rows == 3 * 2 * ROUNDS * len(ids)


def play(home: Home, truth: Truth) -> pa.Table:
    """Send what was decided last, minutes after the decided moment, and let people answer. Returns what was played."""
    table, rng = read_predictions(home, "send_time"), np.random.default_rng(0)
    final = table.filter(pc.equal(pc.minute(table["scored_at"]), 1))
    sent_at = numbers(final, "send_at") + MINUTE * rng.integers(0, 50, final.num_rows)
    answered = truth(final, rng)
    rows = [event("sent", nth, row, sent_at[nth]) for nth, row in enumerate(final.to_pylist())]
    rows += [event("click", nth, rows[nth], sent_at[nth] + 60 * MINUTE) for nth in np.flatnonzero(answered).tolist()]
    # The log goes on, so that every window is over, churn's too.
    rows.append(event("page_view", 0, rows[0], sent_at.max() + 61 * DAY))
    pq.write_table(pa.Table.from_pylist(rows), home.root / "played.parquet")
    assert EventLog(home).append(home.root / "played.parquet", None, None).accepted == len(rows)
    return final.append_column("answered", pa.array(answered))


def event(kind: str, nth: int, row: dict[str, Any], at: float) -> dict[str, Any]:
    who = {"subscriber_id": row["subscriber_id"], "campaign_id": row["campaign_id"]}
    return who | {"event_id": f"{kind}-{nth}", "event_type": kind, "occurred_at": instant(at)}


@dataclass(frozen=True)
class Played:
    """A home after its rounds, what was played, and what the monitor found."""

    home: Home
    sends: pa.Table
    found: Monitored

    def of(self, model: str) -> Watched:
        return next(seen for seen in self.found.watched if seen.model == model)


@pytest.fixture(scope="module")
def served(small_home: Home, tmp_path_factory: pytest.TempPathFactory) -> Home:
    home = copied(small_home, tmp_path_factory.mktemp("served") / "home")
    serve(home)
    return home


@pytest.fixture(scope="module")
def played(served: Home, tmp_path_factory: pytest.TempPathFactory) -> Played:
    home = copied(served, tmp_path_factory.mktemp("played") / "home")
    sends = play(home, as_the_model_said)
    return Played(home, sends, monitor(home, ["churn", "lead_score", "send_time"]))


@pytest.fixture(scope="module")
def harmed(served: Home, tmp_path_factory: pytest.TempPathFactory) -> Home:
    home = copied(served, tmp_path_factory.mktemp("harmed") / "home")
    play(home, better_at_the_default)
    return home


@pytest.fixture(scope="module")
def unsent(served: Home, tmp_path_factory: pytest.TempPathFactory) -> Home:
    """Moments were decided and nothing was sent; nobody asked for the other models."""
    home = copied(served, tmp_path_factory.mktemp("unsent") / "home")
    for path in home.predictions.glob("*.parquet"):
        rows = pq.read_table(path)
        pq.write_table(rows.filter(pc.equal(rows["model"], "send_time")), path)
    return home


def monitored(home: Home, *models: str) -> Said:
    return inbox("monitor", *models, "--home", home.root)


def test_every_prediction_is_counted_with_what_it_rested_on(played: Played) -> None:
    people = pc.count_distinct(read_predictions(played.home, "churn")["subscriber_id"]).as_py()
    assert played.found.silent == () and [seen.model for seen in played.found.watched] == [
        "churn",
        "lead_score",
        "send_time",
    ]
    for seen in played.found.watched:
        assert (seen.predictions, seen.subscribers, seen.versions) == (
            2 * ROUNDS * people,
            people,
            {"1": 2 * ROUNDS * people},
        )
        assert set(seen.statuses) == {"ok", "stale", "no_consent"}
        assert sum(seen.statuses.values()) == pytest.approx(1) and "ok" not in seen.recent_statuses
        assert set(seen.promised) == {"auc", "log_loss", "expected_calibration_error", "base_rate"}


def test_send_time_is_judged_by_what_followed_its_sends(played: Played) -> None:
    own = played.sends.filter(pc.not_equal(played.sends["status"], "no_consent"))
    ours = played.of("send_time").outcomes.ours
    assert ours is not None and ours.rows == own.num_rows
    assert ours.base_rate == pytest.approx(numbers(own, "answered").mean())
    assert ours.auc.value == pytest.approx(auc(numbers(own, "probability"), numbers(own, "answered")))
    # People answered as the model said they would.
    assert ours.expected_calibration_error.low < 0.005 and ours.auc.low > 0.65
    weeks = played.of("send_time").outcomes.weeks
    assert sum(week.ours.rows for week in weeks) == own.num_rows
    assert all(week.begins.weekday() == 0 and week.begins.hour == 0 for week in weeks)


def test_churn_is_judged_by_the_labels_of_training_once_a_day(played: Played) -> None:
    outcomes, said = played.of("churn").outcomes, read_predictions(played.home, "churn")
    first = said.filter(pc.and_(pc.equal(pc.minute(said["scored_at"]), 0), pc.not_equal(said["status"], "no_consent")))
    assert outcomes.judged + outcomes.waiting + outcomes.ineligible == first.num_rows and outcomes.waiting == 0
    answers = played.sends.filter(played.sends["answered"])
    last: dict[str, float] = {}
    for who, at in zip(answers["subscriber_id"].to_pylist(), numbers(answers, "scored_at"), strict=True):
        last[who] = max(at, last.get(who, 0.0))
    asked = zip(first["subscriber_id"].to_pylist(), numbers(first, "scored_at"), strict=True)
    # Whoever answers a campaign of that moment or later stays; the rest go, unless they were gone before.
    gone = sum(last.get(who, 0.0) < at for who, at in asked)
    assert outcomes.judged > 1_000 and 0 <= gone - outcomes.label.sum() <= outcomes.ineligible + 1


def test_arms_are_compared_as_they_were_played(played: Played) -> None:
    experiment = played.of("send_time").experiment
    assert experiment is not None
    usable = decided(played.sends)
    arm, answered = np.array(usable["arm"].to_pylist()), numbers(usable, "answered")
    for one in experiment.lift.arms:
        assert (one.sends, one.answers) == ((arm == one.arm).sum(), answered[arm == one.arm].sum())
    assert experiment.followed == tuple(
        Followed(name, int((arm == name).sum()), int((arm == name).sum())) for name in ("exploit", "explore", "holdout")
    )
    assert experiment.lift.balance.balanced and not experiment.surely_worse


def test_the_report_tells_of_the_same_experiment(played: Played, tmp_path: Path) -> None:
    home, log = played.home, EventLog(played.home)
    folder = Folder(log.connect(), Catalogue.known(home.catalogue))
    assert repr(current_experiment(home, folder, log.end())) == repr(played.of("send_time").experiment)
    assert inbox("export", "report", "--home", home.root, "--out", tmp_path / "report.html").code == 0
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Mail sent when the model said, against mail held out" in page
    assert "held out: sent at the default" in page


def test_policies_are_valued_at_what_they_would_truly_have_brought(harmed: Home) -> None:
    [seen] = monitor(harmed, ["send_time"]).watched
    experiment = seen.experiment
    assert experiment is not None
    usable = decided(read_predictions(harmed, "send_time"))
    usable = usable.filter(pc.equal(pc.minute(usable["scored_at"]), 1))
    exploit = usable.filter(pc.equal(usable["arm"], "exploit"))
    at_default = parts(numbers(exploit, "propensity"))[1].mean()
    truth = {"exploit": 0.05 + 0.9 * at_default, "default": 0.95}
    for name, policy in (("exploit", experiment.exploit), ("default", experiment.default)):
        for one in (policy.ips, policy.snips, policy.doubly_robust):
            assert abs(one.value - truth[name]) < 1.5 * (one.high - one.value), name
        assert policy.warning == "" and policy.mean_weight.low < 1 < policy.mean_weight.high
    assert experiment.gain.high < 0 and experiment.surely_worse


def test_features_and_scores_are_held_against_those_of_training(played: Played) -> None:
    churn, sending = played.of("churn").drift, played.of("send_time").drift
    assert churn.learnt is not None and churn.first_week is not None and sending.learnt is not None
    # The store was not filled again for two weeks: recency grows, and with it everybody's risk.
    assert churn.learnt.word == "shifted" and sending.learnt.psi < churn.learnt.psi / 2
    assert "hours_since_last_sent" in {one.name for one in churn.features} and churn.compared > 100
    assert [one.shift.psi for one in churn.features] == sorted((f.shift.psi for f in churn.features), reverse=True)


def test_what_is_not_fine_ends_with_1_and_a_reason(played: Played, harmed: Home) -> None:
    bad = monitored(harmed, "send_time")
    assert bad.code == 1 and "thing(s) need a person" in bad.out
    assert "answered less than sending at the default, beyond doubt" in bad.out
    assert "probabilities no longer come true" in bad.out
    assert any(words.startswith("churn: scores shifted against those it was judged") for words in played.found.alarms)


def test_what_is_fine_ends_with_0_and_again_with_the_same_files_and_nothing_else_changed(
    played: Played, tmp_path: Path
) -> None:
    home = answered_as(played.home, tmp_path / "home", "ok")
    write_findings(monitor(home, ["send_time"]), tmp_path / "first")
    before = contents(home.var)
    said = inbox("monitor", "send_time", "--home", home.root, "--out", tmp_path / "second")
    assert said.code == 0 and "nothing needs a person" in said.out and "fine" in said.out
    reports = contents(tmp_path / "first")
    assert contents(tmp_path / "second") == reports and set(reports) == {"monitor.json", "monitor.html"}
    assert contents(home.var) == before
    told = orjson.loads(reports["monitor.json"])
    [sending] = told["watched"]
    assert told["alarms"] == [] and sending["outcomes"]["ours"]["rows"] == played.of("send_time").outcomes.judged
    assert sending["experiment"]["exploit"]["effective_size"] > 200 and sending["drift"]["learnt"]["word"] != "shifted"


def answered_as(home: Home, root: Path, status: str) -> Home:
    """A copy whose log says that everybody who consents was answered so."""
    home = copied(home, root)
    for path in home.predictions.glob("*.parquet"):
        rows = pq.read_table(path)
        withheld = pc.equal(rows["status"], "no_consent")
        told = pc.if_else(withheld, rows["status"], status)
        pq.write_table(rows.set_column(rows.column_names.index("status"), rows.schema.field("status"), told), path)
    return home


def test_a_service_whose_store_was_never_filled_needs_a_person(unsent: Home, tmp_path: Path) -> None:
    found = monitor(answered_as(unsent, tmp_path / "home", "prior"), ["send_time"])
    [alarm] = found.alarms
    assert "only 0% of the last week's answers were personal and fresh (100% prior)" in alarm
    assert "inbox materialize" in alarm and "inbox doctor" in alarm
    stale, fresh = (monitor(unsent, ["send_time"]), monitor(answered_as(unsent, tmp_path / "ok", "ok"), ["send_time"]))
    assert any("stale)" in words for words in stale.alarms)
    assert not any("fresh" in words for words in fresh.alarms)


def test_answers_given_after_the_log_ended_are_held_against_no_more_than_it_knows(unsent: Home) -> None:
    [seen] = monitor(unsent, ["send_time"]).watched
    end = EventLog(unsent).end()
    assert seen.first > end and seen.drift.compared > 100


def test_each_decision_without_a_campaign_counts_once(harmed: Home) -> None:
    log = EventLog(harmed)
    folder, until = Folder(log.connect(), Catalogue.known(harmed.catalogue)), log.end() + JUST_AFTER
    decisions = decided(read_predictions(harmed, "send_time"))
    nameless = decisions.set_column(1, "campaign_id", pa.nulls(decisions.num_rows, pa.string()))
    folder.events = folder.events.mutate(campaign_id=ibis.null("string"))
    carried = carried_out(nameless, folder, SPEC, until)
    followed = experiment(nameless, carried, folder, SPEC, log.end()).followed
    assert sum(one.decided for one in followed) > ROUNDS and all(0.9 < one.share <= 1 for one in followed)


def test_weeks_that_cannot_be_ranked_have_no_chart_and_say_why(played: Played) -> None:
    seen = played.of("send_time")
    flat = tuple(
        replace(week, ours=replace(week.ours, auc=Interval(float("nan"), float("nan"), float("nan"))))
        for week in seen.outcomes.weeks
    )
    assert len(flat) > 1
    without = replace(seen, outcomes=replace(seen.outcomes, weeks=flat))
    html = page(replace(played.found, watched=(without,)))
    assert "No chart of the ranking by week" in html
    assert "look: something" in html and "By chance below:" in html


def contents(directory: Path) -> dict[str, bytes]:
    files = (path for path in sorted(directory.rglob("*")) if path.is_file())
    return {str(path.relative_to(directory)): path.read_bytes() for path in files}


def test_the_page_says_first_what_needs_a_person_and_loads_nothing(played: Played) -> None:
    html = page(replace(played.found, title="<b>List</b>", watched=(played.of("churn"), played.of("send_time"))))
    assert "<b>List" not in html and "&lt;b&gt;List" in html
    assert html.index("scores shifted") < html.index("What answers rested on")
    assert "http" not in html.replace("http-equiv", "").replace("http://www.w3.org", "") and "<script" not in html
    assert "Simulated data" in html and "Off-policy: every send counts" in html


def test_without_a_prediction_log_it_says_how_to_get_one(small_home: Home) -> None:
    said = monitored(small_home)
    assert said.code == 1 and "no prediction" in said.err and "inbox serve" in said.err and "no_predictions" in said.err


def test_a_damaged_file_is_named_and_one_that_is_being_written_is_not_looked_at(unsent: Home, tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    shutil.copytree(unsent.predictions, home.predictions)
    (home.predictions / "x.tmp").write_bytes(b"half")
    assert read_predictions(home, "send_time").num_rows == read_predictions(unsent, "send_time").num_rows
    (home.predictions / "x.parquet").write_bytes(b"PAR1 no more")
    said = monitored(home)
    assert said.code == 1 and "prediction log" in said.err and "unreadable_file" in said.err


def test_decisions_that_nobody_followed_yet_are_no_evidence(unsent: Home) -> None:
    found = monitor(unsent, ["churn", "send_time"])
    assert found.silent == ("churn",)
    [seen] = found.watched
    assert seen.experiment is not None and seen.experiment.sends == 0 and not seen.experiment.surely_worse
    assert seen.outcomes.ours is None and "50 are judged at the least" in seen.notes[0]
    assert "Never asked: churn" in page(found)
    shutil.rmtree(unsent.bundles / "send_time" / "1")
    [bare] = monitor(unsent, ["send_time"]).watched
    assert bare.drift.learnt is None and "the bundle of version 1 is not here" in bare.notes[0]


def test_only_a_decision_before_a_send_and_near_its_moment_counts_as_its_cause(harmed: Home) -> None:
    log = EventLog(harmed)
    folder, until = Folder(log.connect(), Catalogue.known(harmed.catalogue)), log.end() + JUST_AFTER
    decisions = decided(read_predictions(harmed, "send_time"))
    carried = carried_out(decisions, folder, SPEC, until)
    # Asked twice, sent once: the later answer is what was done.
    assert len(carried) == decisions.num_rows // 2 and set(carried.scored_at / MINUTE % 60) == {1.0}
    assert "no_consent" not in decisions["status"].to_pylist()
    for column, later in (("scored_at", timedelta(days=3)), ("send_at", timedelta(hours=2))):
        moved = decisions.set_column(
            decisions.column_names.index(column), column, pc.add(decisions[column], pa.scalar(later))
        )
        assert len(carried_out(moved, folder, SPEC, until)) < 0.3 * len(carried)
    # What the log may say of other moments makes the outcome model the model itself.
    said = carried.probability
    told = replace(carried, exploit_probability=said, default_probability=said)
    assert experiment(decisions, told, folder, SPEC, log.end()).outcome_model == OWN_MODEL


def test_mail_without_a_campaign_finds_its_decision_by_the_hour(harmed: Home) -> None:
    log = EventLog(harmed)
    folder = Folder(log.connect(), Catalogue.known(harmed.catalogue))
    decisions = decided(read_predictions(harmed, "send_time"))
    nameless = decisions.set_column(1, "campaign_id", pa.nulls(decisions.num_rows, pa.string()))
    assert nameless.column_names == decisions.column_names
    assert len(carried_out(nameless, folder, SPEC, log.end() + JUST_AFTER)) == 0
    folder.events = folder.events.mutate(campaign_id=ibis.null("string"))
    assert len(carried_out(nameless, folder, SPEC, log.end() + JUST_AFTER)) == decisions.num_rows // 2


@pytest.mark.parametrize("window", [{"hours": 24, "quiet_hours": (22, 7)}, {"hours": 168}, {"hours": 1}, {"hours": 2}])
def test_a_propensity_tells_whether_its_moment_is_the_default_and_the_best(window: dict[str, Any]) -> None:
    asked = Window(instant(1.8e15), campaign_id="c", **window)
    people = [f"p{number}" for number in range(4_000)]

    def curves_at(slots: npt.NDArray[np.int64]) -> Curves:
        # Two kinds of people: those who answer best at hour 19, and those who do at any.
        keen = (np.arange(len(slots)) % 2 == 0)[:, None]
        probability = np.where(keen & (slots % 24 == 19), 0.3, 0.1)
        return Curves(probability, lambda ours, theirs: np.zeros(len(ours)), np.ones(len(slots)))

    columns = decide(curves_at, people, np.zeros(len(people), np.int64), ("UTC",), asked)
    exploits, defaults = parts(np.asarray(columns["propensity"]))
    sent = np.array([microseconds(at) for at in columns["send_at"]])
    arm = np.asarray(columns["arm"])
    [default] = set(sent[arm == "holdout"].tolist())
    best = np.full(len(people), default)
    for kind in range(2):
        theirs = np.arange(len(people)) % 2 == kind
        [best[theirs]] = set(sent[theirs & (arm == "exploit")].tolist())
    assert (exploits == (sent == best)).all() and (defaults == (sent == default)).all()


def test_a_handful_of_cases_is_no_reason_to_distrust_probabilities(played: Played) -> None:
    outcomes = played.of("churn").outcomes
    assert outcomes.ours is not None
    assert calibration_gone(outcomes)
    assert not calibration_gone(replace(outcomes, judged=30))
