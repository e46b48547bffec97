"""The command of a schedule: what is done is left alone, what was killed is taken up, what a gate refuses does not serve."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from mlflow import MlflowClient

from features.fold import Spine
from features.home import Home
from features.log import EventLog
from models.bundle import current
from models.registry import PARENT_TAG
from pipelines.console import Narrator
from pipelines.judge import champion, judge, refolded
from pipelines.promote import open_registry, rollback, verdict_of
from pipelines.retrain import Ending, Ledger, Step, exit_code, retrain, tuned_recipe
from pipelines.train import (
    Outcome,
    Prepared,
    Recipe,
    alone,
    code_fingerprint,
    prepare,
    read_dataset,
    train_recipe,
    write_history,
)
from tests.front_door import Said, inbox
from training.dataset import Dataset, dataset, labelled_rows
from training.fit import fit
from training.gates import point_in_time_gate, sampled
from training.tuning import Budget

pytestmark = pytest.mark.slow
START = datetime(2026, 1, 1, tzinfo=UTC)
QUIET = Narrator(quiet=True)
CHURN = Recipe({"churn": timedelta(days=30)})
HORIZON = ("--horizon", "churn=30d")


def letters(people: int, first_day: int, days: int) -> list[dict[str, Any]]:
    """A letter every second day. Half open most of them for ever; half open one in forty days, or miss it.

    So 30 days of silence are plain to foretell, whatever the model: they follow an opening of the second half. The order of
    silence alone says little. The list is the same at every time, so that what was learnt holds later.
    """
    rng = np.random.default_rng(5)
    person = np.arange(people)
    slow = person % 2 == 1
    events = []
    for day in range(0, first_day + days, 2):
        due = (day + person // 2 * 2) % 40 == 0
        opens = np.where(slow, due & (rng.random(people) < 0.8), rng.random(people) < 0.6)
        at = START + timedelta(days=day, hours=9)
        for one in range(people if day >= first_day else 0):
            shared = {"subscriber_id": f"s{one}", "campaign_id": f"c{day}"}
            events.append(shared | {"event_id": f"{day}-{one}-s", "event_type": "sent", "occurred_at": at})
            if opens[one]:
                opened = {"event_id": f"{day}-{one}-o", "event_type": "open", "occurred_at": at + timedelta(hours=2)}
                events.append(shared | opened)
    return events


def ingest(home: Home, first_day: int, days: int) -> None:
    people = 160
    events, subscribers = home.root / "events.parquet", home.root / "subscribers.parquet"
    home.root.mkdir(exist_ok=True)
    pq.write_table(pa.Table.from_pylist(letters(people, first_day, days)), events)
    pq.write_table(
        pa.Table.from_pylist([{"subscriber_id": f"s{i}", "created_at": START} for i in range(people)]), subscribers
    )
    EventLog(home).append(events, subscribers, None)


class Killed(Exception):
    """What ends a run in these tests."""


def killed_after_training(home: Home) -> None:
    def done(outcome: Outcome) -> None:
        raise Killed

    with pytest.raises(Killed):
        train_recipe(home, ["churn"], QUIET, CHURN, done)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A home whose first retrain was killed when churn was registered and not yet promoted."""
    home = Home(tmp_path_factory.mktemp("retrain") / "home")
    ingest(home, 0, 220)
    killed_after_training(home)
    return home


@pytest.fixture(scope="module")
def story(home: Home) -> dict[str, Said]:
    """What a schedule sees from then on."""

    def said(*arguments: str) -> Said:
        return inbox("retrain", "churn", "lead_score", *HORIZON, *arguments, "--home", home.root)

    told = {"planned": said("--dry-run"), "first": said(), "second": said()}
    with alone(home):
        told["busy"] = said()
    rollback_refused = inbox("rollback", "churn", "--home", home.root)
    ingest(home, 220, 14)
    return told | {"rollback": rollback_refused, "planned again": said("--dry-run"), "third": said()}


def test_a_dry_run_says_what_would_be_done_and_does_nothing(story: dict[str, Said]) -> None:
    planned = story["planned"]
    assert planned.code == 0 and "2 planned" in planned.out
    assert "trained already; would be promoted" in planned.out and "would be trained, judged" in planned.out


def test_a_version_that_was_registered_before_the_kill_is_promoted_not_trained_again(
    home: Home, story: dict[str, Said]
) -> None:
    assert "churn version 1 promoted: taken up" in story["first"].out
    assert current(home, "churn") is not None
    first = open_registry(home).resolve("churn", "1")
    assert verdict_of(first).passed, verdict_of(first).words()
    assert [gate.name for gate in verdict_of(first).gates][:2] == ["champion", "baseline"]
    assert first.tags["training.code"] == code_fingerprint()
    assert first.metrics["gates_passed"] == 1


def test_a_model_that_cannot_be_trained_has_an_exit_code_of_its_own_and_stops_no_other(story: dict[str, Said]) -> None:
    assert story["first"].code == 4
    assert "lead_score not trainable" in story["first"].out and "1 promoted" in story["first"].out


def test_a_second_run_on_an_unchanged_log_does_nothing_and_says_so(story: dict[str, Said]) -> None:
    second = story["second"]
    assert second.code == 0 and "2 nothing new" in second.out and "train churn" not in second.out


def test_two_at_once_are_told_apart(story: dict[str, Said]) -> None:
    assert story["busy"].code == 5 and "Another training holds" in story["busy"].out


def test_after_new_events_a_challenger_is_judged_against_the_champion_on_rows_new_to_both(
    home: Home, story: dict[str, Said]
) -> None:
    assert "would be trained, judged" in story["planned again"].out
    assert "2 nothing new" not in story["third"].out
    verdict = verdict_of(open_registry(home).resolve("churn", "2"))
    assert verdict.champion == "1"
    named = {gate.name: gate for gate in verdict.gates}
    assert {"champion", "slices", "score shift", "drift", "leak", "point in time"} <= set(named)
    assert named["champion"].passed and "not surely worse" in named["champion"].words
    assert named["point in time"].passed and "same bits" in named["point in time"].words
    ended = Ledger(home).read()["churn"]
    assert (ended.version, ended.ending) == ("2", "promoted" if verdict.passed else "refused")


def test_what_was_taken_back_is_not_promoted_again(home: Home, story: dict[str, Said]) -> None:
    registry = open_registry(home)
    serves = registry.resolve("churn", "champion").version
    earlier = rollback(home, "churn").version if serves == "2" else serves
    Ledger(home).path.unlink()
    [step] = retrain(home, ["churn"], QUIET, CHURN)
    assert step.ending in (Ending.NOTHING_NEW, Ending.REFUSED)
    assert registry.resolve("churn", "champion").version == earlier
    assert len(registry.versions("churn")) == 2


@pytest.fixture(scope="module")
def learnt(home: Home, story: dict[str, Said]) -> tuple[Prepared, Dataset]:
    """The log opened once more, and what churn was trained on."""
    prepared = prepare(home)
    spec = CHURN.spec(home, "churn")
    rows = labelled_rows(spec, prepared.folder, prepared.start, prepared.end)
    write_history(prepared, [rows], lambda share: None)
    return prepared, read_dataset(spec, rows, prepared)


def test_a_future_planted_in_the_offline_store_is_found_by_folding_a_cut_log(learnt: tuple[Prepared, Dataset]) -> None:
    prepared, data = learnt
    sample = sampled(data)
    again = refolded(data, sample, prepared.folder)
    assert point_in_time_gate(data, sample, again).passed
    gate = point_in_time_gate(folded_a_week_later(data, prepared), sample, again)
    assert not gate.passed, gate.words


def test_a_champion_that_is_better_than_the_candidate_is_kept(home: Home, learnt: tuple[Prepared, Dataset]) -> None:
    prepared, data = learnt
    fitted = fit(data, CHURN.spec(home, "churn"))
    serving = champion(home, open_registry(home), "churn")
    assert serving is not None and serving.bundle is not None
    confused = replace(fitted, probability=np.random.default_rng(1).permutation(fitted.probability))
    verdict = judge(data, confused, prepared.folder, serving, ())
    assert not verdict.passed
    assert f"surely worse than version {serving.version.version} in AUC and log loss" in verdict.words()
    lost = replace(serving, bundle=None, why="its files are gone")
    [first, *_] = judge(data, fitted, prepared.folder, lost, ()).gates
    assert first.passed and first.mind and "its files are gone" in first.words


def folded_a_week_later(data: Dataset, prepared: Prepared) -> Dataset:
    """What a store would give that reads past a row's moment."""
    spine = Spine(data.rows.subscriber_id, data.rows.stored_as_of + 7 * 86_400e6)
    return dataset(data.rows, prepared.folder.fold(spine), data.catalogue)


def test_tuning_is_logged_as_runs_below_the_trainings_own(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    ingest(home, 0, 220)
    recipe = tuned_recipe(home, CHURN, Budget(2), QUIET)
    [outcome] = train_recipe(home, ["churn"], QUIET, recipe, lambda outcome: None)
    assert outcome.tuned is not None and outcome.version == "1"
    version = open_registry(home).resolve("churn", "1")
    assert version.metrics["tuning_trials"] == len(outcome.tuned.trials)
    client = MlflowClient(tracking_uri=home.tracking_uri)
    experiment = client.get_run(version.run_id).info.experiment_id
    below = client.search_runs([experiment], f"tags.`{PARENT_TAG}` = '{version.run_id}'")
    assert {run.info.run_name for run in below} == {f"trial {n}" for n in range(len(outcome.tuned.trials))}
    assert all("inner_log_loss" in run.data.metrics and "num_leaves" in run.data.params for run in below)


def test_a_budget_that_is_none_is_a_wrong_option(tmp_path: Path) -> None:
    said = inbox("retrain", "--tune", "soon", "--home", tmp_path)
    assert said.code == 1 and "'soon' is no budget" in said.err


def test_a_schedule_before_the_first_event_is_told_to_ingest(tmp_path: Path) -> None:
    said = inbox("retrain", "--home", tmp_path)
    assert said.code == 1 and "inbox ingest" in said.err


@pytest.mark.parametrize(
    ("endings", "code"),
    [
        ([Ending.PROMOTED, Ending.NOTHING_NEW, Ending.PLANNED], 0),
        ([Ending.UNTRAINABLE, Ending.REFUSED, Ending.PROMOTED], 3),
        ([Ending.UNTRAINABLE, Ending.PROMOTED], 4),
    ],
)
def test_the_most_serious_of_several_endings_is_the_exit_code(endings: list[Ending], code: int) -> None:
    assert exit_code([Step("churn", ending, None, "") for ending in endings]) == code
