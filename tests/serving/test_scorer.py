"""The real scorer on real bundles: whoever is asked about, whatever is missing, there is a finite answer that says why."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from features.catalogue import as_of_name
from features.clock import instant
from features.contract import MODELS
from features.errors import StoreUnavailable
from features.home import Home
from features.online import SqliteStateStore
from features.state import States
from serving.answers import SCORED_SCHEMA, Scores
from serving.schemas import Context, ScoreRequest
from serving.scorer import Scorer
from serving.swap import Shelf

STALE_AFTER = timedelta(hours=36)
STRANGER = "nobody-we-know"


def shelf_of(home: Home, models: Sequence[str] = MODELS) -> Shelf[Scorer]:
    """What is promoted, over the home's own store."""
    store = SqliteStateStore(home.online, timeout_s=0.2)
    return Shelf(home, lambda bundles: Scorer(bundles, store, STALE_AFTER / timedelta(seconds=1)), models)


@pytest.fixture(scope="module")
def loaded(small_home: Home) -> Scorer:
    """All three models over the small list's own store. Read only."""
    return shelf_of(small_home).scorer


@pytest.fixture(scope="module")
def known(loaded: Scorer) -> tuple[list[str], States]:
    """Everybody in the store whose status is `ok`, and their states."""
    with closing(sqlite3.connect(loaded.store.path)) as connection:  # type: ignore[attr-defined]
        ids = [row[0] for row in connection.execute("SELECT subscriber_id FROM states ORDER BY subscriber_id")]
    states, _ = loaded.store.read(ids, loaded.catalogue)
    consenting = np.flatnonzero(states["consent_profiling"] != 0)
    return [ids[i] for i in consenting], states[consenting]


@pytest.fixture(scope="module")
def now(loaded: Scorer) -> datetime:
    newest = loaded.store.newest()  # type: ignore[attr-defined]
    assert newest is not None
    return instant(newest)


@pytest.fixture
def home(small_home: Home, tmp_path: Path) -> Iterator[Home]:
    """What serving needs, to break."""
    copy = Home(tmp_path / "home")
    shutil.copytree(small_home.bundles, copy.bundles)
    copy.online.parent.mkdir(parents=True)
    with closing(sqlite3.connect(small_home.online)) as source, closing(sqlite3.connect(copy.online)) as target:
        source.backup(target)
    for name in ("catalogue.json", "bundle.key"):
        shutil.copy(small_home.var / name, copy.var / name)
    yield copy


def over(scorer: Scorer, path: Path, ids: Sequence[str], states: States) -> Scorer:
    """The same models over a store with just these rows."""
    store = SqliteStateStore(path)
    store.create()
    store.write(ids, states)
    return Scorer(scorer.bundles, store, scorer.stale_after_s)


def scored(
    scorer: Scorer, ids: Sequence[str], at: datetime, models: Sequence[str] = MODELS, explain: bool = False
) -> pa.Table:
    """The scored table, every number of which is finite."""
    request = ScoreRequest(subscriber_ids=tuple(ids), models=tuple(models), explain=explain)  # type: ignore[arg-type]
    table = scorer.score(request, at).to_table(scorer.versions, at)
    for field in SCORED_SCHEMA:
        if not field.nullable and field.name in table.column_names:
            assert table[field.name].null_count == 0, field.name
            if pa.types.is_floating(field.type):
                assert np.isfinite(table[field.name].to_numpy()).all(), field.name
    return table


def without_ids(table: pa.Table) -> pa.Table:
    return table.drop_columns(["subscriber_id", "status"])


def test_each_status_says_why(loaded: Scorer, known: tuple[list[str], States], now: datetime, tmp_path: Path) -> None:
    states = known[1][:5].copy()
    ids = ["fresh", "old", "half", "objected", "unanchored"]
    for name in states.dtype.names or ():
        if name.endswith("_as_of"):
            states[name][1] -= (STALE_AFTER + timedelta(seconds=1)) / timedelta(microseconds=1)
            states[name][4] = np.nan
    states[as_of_name("spending")][2] = np.nan
    states["consent_profiling"][3] = 0
    scorer = over(loaded, tmp_path / "online.db", ids, states)
    table = scored(scorer, [*ids, STRANGER, "old"], now)
    assert table["status"].to_pylist() == ["ok", "stale", "partial", "no_consent", "partial", "prior", "stale"]
    assert scorer.statuses([*ids, STRANGER, "old"], now).tolist() == table["status"].to_pylist()
    assert table["feature_age_s"].to_pylist()[:3] == [0.0, STALE_AFTER.total_seconds() + 1, 0.0]
    assert table["feature_age_s"].to_pylist()[5] is None


def test_features_exactly_as_old_as_allowed_are_not_stale(
    loaded: Scorer, known: tuple[list[str], States], now: datetime
) -> None:
    asked = known[0][:1]
    assert scored(loaded, asked, now + STALE_AFTER)["status"].to_pylist() == ["ok"]
    assert scored(loaded, asked, now + STALE_AFTER + timedelta(microseconds=1))["status"].to_pylist() == ["stale"]


def test_a_clock_that_goes_behind_the_store_gives_age_zero(
    loaded: Scorer, known: tuple[list[str], States], now: datetime
) -> None:
    table = scored(loaded, known[0][:50], now - timedelta(days=3))
    assert set(table["feature_age_s"].to_pylist()) == {0.0}


def test_people_get_scores_of_their_own(loaded: Scorer, known: tuple[list[str], States], now: datetime) -> None:
    table = scored(loaded, known[0], now)
    assert set(table["status"].to_pylist()) == {"ok"}
    for model in MODELS:
        assert len(set(table[f"{model}_probability"].to_pylist())) > 5


def test_who_objected_gets_exactly_what_a_stranger_gets(
    loaded: Scorer, known: tuple[list[str], States], now: datetime, tmp_path: Path
) -> None:
    ids, states = known[0][:40], known[1][:40].copy()
    states["consent_profiling"] = 0
    objected = scored(over(loaded, tmp_path / "one.db", ids, states), ids, now, explain=True)
    strangers = scored(over(loaded, tmp_path / "none.db", [], states[:0]), ids, now, explain=True)
    assert set(objected["status"].to_pylist()) == {"no_consent"}
    assert set(strangers["status"].to_pylist()) == {"prior"}
    # The age of what is stored, but not used, may be told.
    personal = ["subscriber_id", "status", "feature_age_s"]
    assert objected.drop_columns(personal).equals(strangers.drop_columns(personal))
    assert objected["last_engagement_at"].null_count == 40
    assert set(map(tuple, objected["churn_reasons"].to_pylist())) == {()}


def test_consent_that_was_never_asked_for_is_no_objection(
    loaded: Scorer, known: tuple[list[str], States], now: datetime, tmp_path: Path
) -> None:
    states = known[1][:1].copy()
    states["consent_profiling"] = -1
    assert scored(over(loaded, tmp_path / "online.db", ["s"], states), ["s"], now)["status"].to_pylist() == ["ok"]


def test_one_alone_is_bit_for_bit_one_among_a_thousand(
    loaded: Scorer, known: tuple[list[str], States], now: datetime
) -> None:
    everybody = [known[0][i % len(known[0])] for i in range(998)] + [STRANGER, known[0][0]]
    together = scored(loaded, everybody, now, explain=True)
    for i in (0, 1, 17, 333, 640, 998, 999):
        assert scored(loaded, [everybody[i]], now, explain=True).equals(together.slice(i, 1))
    assert without_ids(together.slice(0, 1)).equals(without_ids(together.slice(999, 1)))


def test_a_model_alone_says_what_it_says_among_others(
    loaded: Scorer, known: tuple[list[str], States], now: datetime
) -> None:
    ids = known[0][:30]
    together = scored(loaded, ids, now)
    for model in MODELS:
        alone = scored(loaded, ids, now, [model])
        assert {name.split("_probability")[0] for name in alone.column_names if "_probability" in name} == {model}
        assert alone.equals(together.select(alone.column_names))


def test_reasons_come_only_when_asked_for_and_only_to_known_people(
    loaded: Scorer, known: tuple[list[str], States], now: datetime
) -> None:
    ids = [known[0][0], STRANGER]
    assert "churn_reasons" not in scored(loaded, ids, now).column_names
    reasons = scored(loaded, ids, now, explain=True)["churn_reasons"].to_pylist()
    assert reasons[0] and reasons[1] == []


def test_a_store_of_garbage_means_priors(home: Home, known: tuple[list[str], States], now: datetime) -> None:
    home.online.write_bytes(b"this is no database " * 1000)
    check_priors(shelf_of(home).scorer, known[0][:20], now)


def test_no_store_at_all_means_priors(home: Home, known: tuple[list[str], States], now: datetime) -> None:
    home.online.unlink()
    check_priors(shelf_of(home).scorer, known[0][:20], now)


def test_a_locked_store_means_priors_and_then_scores_again(
    home: Home, known: tuple[list[str], States], now: datetime
) -> None:
    scorer = shelf_of(home).scorer
    with closing(sqlite3.connect(home.online, isolation_level=None)) as holder:
        holder.execute("PRAGMA journal_mode = DELETE")
        holder.execute("BEGIN EXCLUSIVE")
        check_priors(scorer, known[0][:5], now)
        holder.execute("ROLLBACK")
    assert set(scored(scorer, known[0][:5], now)["status"].to_pylist()) == {"ok"}


def check_priors(scorer: Scorer, ids: list[str], now: datetime) -> None:
    with pytest.raises(StoreUnavailable):
        scorer.statuses(ids, now)
    answer = scorer.score(ScoreRequest(subscriber_ids=tuple(ids)), now)
    assert answer.store_failed
    table = scored(scorer, ids, now, explain=True)
    assert set(table["status"].to_pylist()) == {"prior"}
    assert table["feature_age_s"].null_count == len(ids)
    for model in ("churn", "lead_score"):
        prior = scorer.bundles[model].priors["probability"]
        assert set(table[f"{model}_probability"].to_pylist()) == {prior}


def test_a_missing_bundle_leaves_its_model_out(home: Home, known: tuple[list[str], States], now: datetime) -> None:
    shutil.rmtree(home.bundles / "lead_score")
    shelf = shelf_of(home)
    scorer = shelf.scorer
    assert shelf.problems == ["lead_score: not promoted yet"]
    assert set(scorer.versions) == {"churn", "send_time"}
    names = scored(scorer, known[0][:3], now).column_names
    assert not any(name.startswith("lead_score") for name in names)
    assert "churn_probability" in names and "send_time_send_at" in names


@pytest.mark.parametrize("damage", ["model.lgb.txt", "bundle.json", "MANIFEST.json", "SIGNATURE"])
def test_a_corrupt_bundle_is_left_out_and_named(
    home: Home, known: tuple[list[str], States], now: datetime, damage: str
) -> None:
    file = next(home.bundles.glob(f"churn/*/{damage}"))
    file.write_bytes(file.read_bytes()[:-1] + b"X")
    shelf = shelf_of(home, ["churn", "lead_score"])
    assert [problem.split(":")[0] for problem in shelf.problems] == ["churn"]
    assert "refused" in shelf.problems[0] and "Promote again" in shelf.problems[0]
    names = scored(shelf.scorer, known[0][:3], now).column_names
    assert "lead_score_score" in names and "churn_probability" not in names


@pytest.mark.parametrize("pointer", [b"{", b'{"version": "../../elsewhere"}', b'{"version": "99"}'])
def test_a_pointer_that_leads_nowhere_is_left_out_and_named(home: Home, pointer: bytes) -> None:
    (home.bundles / "churn" / "current.json").write_bytes(pointer)
    shelf = shelf_of(home, ["churn"])
    assert shelf.bundles == {}
    assert [problem.split(":")[0] for problem in shelf.problems] == ["churn"]


def test_without_any_bundle_everybody_still_has_a_status(home: Home, now: datetime) -> None:
    shutil.rmtree(home.bundles)
    table = scored(shelf_of(home).scorer, ["s00001", STRANGER], now)
    assert table.column_names == [
        "subscriber_id",
        "status",
        "prior",
        "feature_age_s",
        "last_engagement_at",
        "scored_at",
    ]


def test_a_stranger_gets_the_prior_of_those_who_care_for_the_content(loaded: Scorer, now: datetime) -> None:
    """The ladder's last two steps, each named."""
    by_content = loaded.bundles["churn"].priors["content"]
    word = next(iter(by_content))
    assert by_content[word]["probability"] != loaded.bundles["churn"].priors["probability"]
    for content, whose, expected in (
        ((), "global", loaded.bundles["churn"].priors),
        (("nothing we know",), "global", loaded.bundles["churn"].priors),
        (("nothing we know", word), "segment", by_content[word]),
    ):
        request = ScoreRequest(subscriber_ids=(STRANGER, "another"), context=Context(content=content))
        for scores in (loaded.score(request, now), loaded.priors(request, now)):
            assert scores.listed("status") == ["prior"] * 2
            assert scores.listed("prior") == [whose] * 2
            assert scores.listed("churn_probability") == [expected["probability"]] * 2


def test_an_answer_is_about_a_segment_only_when_every_model_in_it_is(loaded: Scorer, now: datetime) -> None:
    word = next(iter(loaded.bundles["churn"].priors["content"]))
    plain = {name: value for name, value in loaded.bundles["lead_score"].priors.items() if name != "content"}
    bundles = {**loaded.bundles, "lead_score": replace(loaded.bundles["lead_score"], priors=plain)}
    scorer = Scorer(bundles, loaded.store, loaded.stale_after_s)
    context = Context(content=(word,))
    for models, whose in ((("churn",), "segment"), (("churn", "lead_score"), "global")):
        request = ScoreRequest(subscriber_ids=(STRANGER,), models=models, context=context)  # type: ignore[arg-type]
        assert scorer.score(request, now).listed("prior") == [whose]


def test_priors_are_what_a_stranger_gets_from_the_store(loaded: Scorer, now: datetime) -> None:
    ids = tuple(f"stranger {i}" for i in range(40))
    asked = ScoreRequest(subscriber_ids=ids, context=Context(campaign_id="c", quiet_hours=(22, 7)))
    read, unread = (table_of(loaded, scores, now) for scores in (loaded.score(asked, now), loaded.priors(asked, now)))
    assert read.equals(unread)


def test_the_person_is_not_in_an_answer_about_a_segment(
    loaded: Scorer, known: tuple[list[str], States], now: datetime
) -> None:
    """Whoever is known is scored in person, whatever the context says."""
    word = next(iter(loaded.bundles["churn"].priors["content"]))
    plain, with_content = (
        loaded.score(ScoreRequest(subscriber_ids=tuple(known[0][:20]), models=("churn",), context=context), now)
        for context in (None, Context(content=(word,)))
    )
    assert plain.listed("churn_probability") == with_content.listed("churn_probability")
    assert set(plain.listed("prior")) == {None}


def table_of(scorer: Scorer, scores: Scores, at: datetime) -> pa.Table:
    return scores.to_table(scorer.versions, at)
