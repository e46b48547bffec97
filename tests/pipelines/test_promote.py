"""What serves changes only by a passed verdict or by force, one change at a time, and can be taken back."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from features.catalogue import Catalogue
from features.errors import PromotionConflict, PromotionRefused, RollbackRefused
from features.home import Home
from models.bundle import Bundle, bundle_key, current, load, write
from models.calibration import identity
from models.registry import CHALLENGER, Registry
from pipelines.promote import VERDICT_TAG, open_registry, promote, rollback, served
from tests.front_door import inbox
from training.verdict import Gate, Verdict

FINE, BAD = Gate("baseline", True, "better"), Gate("calibration", False, "error .2 is above .05")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """One database for the module: making its tables takes a second or two. Each test has its own model name."""
    return Home(tmp_path_factory.mktemp("promote") / "home")


@pytest.fixture(scope="module")
def registry(home: Home) -> Registry:
    return open_registry(home)


@pytest.fixture
def model(request: pytest.FixtureRequest) -> Iterator[str]:
    yield request.node.name[:100]


def registered(home: Home, model: str, *gates: Gate, champion: str | None = None, judged: bool = True) -> str:
    """A version with a bundle that loads and a verdict; the newest challenger."""
    registry = open_registry(home)
    tags = {VERDICT_TAG: Verdict(model, champion, gates or (FINE,)).to_json().decode()} if judged else {}
    with registry.run(model, "nightly", {}) as run:
        two = np.zeros(2)
        bundle = Bundle(
            model, run.reserve(), ("a",), Catalogue(), None, identity(two, two), {}, {}, datetime.now(UTC), {}
        )
        directory = home.var / "made" / model / bundle.version
        write(bundle, np.zeros((1, 1)), directory, bundle_key(home))
        run.register(directory, features=["a"], example=np.zeros((1, 1)), tags=tags)
    registry.alias(model, CHALLENGER, bundle.version)
    return bundle.version


def serving(home: Home, model: str) -> tuple[str, str]:
    """What the registry calls champion and what serving would load."""
    directory = current(home, model)
    assert directory is not None
    return open_registry(home).resolve(model, "champion").version, load(directory, bundle_key(home)).version


def three_in_a_row(home: Home, model: str) -> None:
    for champion in (None, "1", "2"):
        promote(home, model, registered(home, model, champion=champion))


def test_a_version_that_passed_every_gate_serves(home: Home, model: str) -> None:
    registered(home, model)
    assert promote(home, model).replaced is None
    assert serving(home, model) == ("1", "1")


def test_a_version_that_a_gate_refused_serves_only_by_force_and_the_record_says_so(
    home: Home, registry: Registry, model: str
) -> None:
    registered(home, model, FINE, BAD)
    with pytest.raises(PromotionRefused, match=r"calibration: error \.2 is above"):
        promote(home, model)
    assert current(home, model) is None
    promote(home, model, reason="I know why", force=True)
    [promotion] = registry.promotions(model)
    assert (promotion.action, promotion.reason, promotion.verdict["forced"]) == ("promote", "I know why", True)
    assert "calibration" in promotion.verdict["doubt"]


def test_a_version_that_nobody_judged_is_refused(home: Home, model: str) -> None:
    registered(home, model, judged=False)
    with pytest.raises(PromotionRefused, match="never judged on later rows"):
        promote(home, model)


def test_a_verdict_about_another_champion_than_the_one_that_serves_is_no_verdict(home: Home, model: str) -> None:
    for _ in range(2):
        registered(home, model)
    promote(home, model, "1")
    with pytest.raises(PromotionRefused, match="judged without a champion, and 1 serves now"):
        promote(home, model, "2")
    assert serving(home, model) == ("1", "1")


def test_promoting_twice_changes_nothing_and_heals_a_promotion_that_was_killed_before_it_published(
    home: Home, registry: Registry, model: str
) -> None:
    registered(home, model)
    promote(home, model)
    shutil.rmtree(home.bundles / model)
    assert promote(home, model).version == "1"
    assert serving(home, model) == ("1", "1")
    assert len(registry.promotions(model)) == 1


def test_of_two_promotions_at_once_what_is_published_is_what_is_champion(home: Home, model: str) -> None:
    promote(home, model, registered(home, model))
    for _ in range(2):
        registered(home, model, champion="1")

    def attempt(version: str) -> str | None:
        try:
            return promote(home, model, version).version
        except (PromotionConflict, PromotionRefused):
            return None

    with ThreadPoolExecutor(2) as pool:
        outcomes = list(pool.map(attempt, ["2", "3"]))
    assert outcomes.count(None) == 1
    champion, published = serving(home, model)
    assert champion == published and champion in outcomes


def test_rollbacks_go_further_back_each_time_until_there_is_nothing(home: Home, registry: Registry, model: str) -> None:
    three_in_a_row(home, model)
    assert (rollback(home, model, reason="complaints").version, serving(home, model)) == ("2", ("2", "2"))
    assert (rollback(home, model).version, serving(home, model)) == ("1", ("1", "1"))
    with pytest.raises(RollbackRefused, match="nothing served before version 1"):
        rollback(home, model)
    assert serving(home, model) == ("1", "1")
    first = registry.promotions(model)[3]
    assert (first.action, first.replaced, first.version, first.reason) == ("rollback", "3", "2", "complaints")
    assert first.by and first.promoted_at


def test_a_rollback_to_a_version_that_served_once_skips_those_between(home: Home, model: str) -> None:
    three_in_a_row(home, model)
    assert rollback(home, model, to="1").replaced == "3"
    assert rollback(home, model, to="3").version == "3"
    assert rollback(home, model).version == "1"


@pytest.mark.parametrize(("to", "words"), [("4", "never served"), ("3", "serves already")])
def test_a_rollback_to_what_never_served_or_serves_is_refused(home: Home, model: str, to: str, words: str) -> None:
    three_in_a_row(home, model)
    registered(home, model, champion="3")
    with pytest.raises(RollbackRefused, match=words):
        rollback(home, model, to=to)


def test_a_rollback_without_a_champion_is_refused(home: Home) -> None:
    with pytest.raises(RollbackRefused, match="nothing serves"):
        rollback(home, "nobody")


@pytest.mark.parametrize("harm", ["gone", "damaged"])
def test_a_rollback_takes_the_registrys_bundle_where_the_published_one_is_no_good(
    home: Home, model: str, harm: str
) -> None:
    for champion in (None, "1"):
        promote(home, model, registered(home, model, champion=champion))
    published: Path = home.bundles / model / "1"
    if harm == "gone":
        shutil.rmtree(published)
    else:
        (published / "bundle.json").write_bytes(b"{}")
    assert rollback(home, model).version == "1"
    assert serving(home, model) == ("1", "1")


def test_of_two_rollbacks_at_once_only_one_step_is_taken_back(home: Home, registry: Registry, model: str) -> None:
    three_in_a_row(home, model)

    def attempt(_: int) -> str | None:
        try:
            return rollback(home, model).version
        except PromotionConflict:
            return None

    with ThreadPoolExecutor(2) as pool:
        outcomes = list(pool.map(attempt, range(2)))
    # Side by side one is told; one after the other each takes a step.
    assert outcomes in (["2", None], [None, "2"], ["2", "1"], ["1", "2"])
    champion, published = serving(home, model)
    assert champion == published
    assert len(registry.promotions(model)) == 3 + sum(outcome is not None for outcome in outcomes)


def test_the_way_back_is_what_served_last_without_what_was_taken_back(
    home: Home, registry: Registry, model: str
) -> None:
    three_in_a_row(home, model)
    rollback(home, model)
    promote(home, model, registered(home, model, champion="2"))
    assert served(registry.promotions(model)) == ["1", "2", "4"]


def test_a_publish_that_fails_leaves_everything_as_it_was(home: Home, registry: Registry, model: str) -> None:
    promote(home, model, registered(home, model))
    registered(home, model, champion="1")

    def full() -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        registry.promote(model, "2", expected="1", by="ada", reason="", verdict={}, publish=full)
    assert serving(home, model) == ("1", "1")
    assert registry.resolve(model, CHALLENGER).version == "2"
    assert "promotion.by" not in registry.resolve(model, "2").tags
    assert len(registry.promotions(model)) == 1


def test_a_promotion_killed_before_it_was_recorded_is_on_record_and_a_torn_line_is_skipped(
    home: Home, registry: Registry, model: str
) -> None:
    three_in_a_row(home, model)
    log = home.mlruns / "promotions.jsonl"
    log.write_bytes(log.read_bytes()[:-40])
    assert [change.version for change in registry.promotions(model)] == ["1", "2", "3"]
    assert rollback(home, model).version == "2"
    assert [(c.version, c.action) for c in registry.promotions(model)][2:] == [("3", "promote"), ("2", "rollback")]


def test_a_rollback_that_was_not_published_is_finished_not_repeated(home: Home, model: str) -> None:
    three_in_a_row(home, model)
    rollback(home, model)
    for pointer in (file for file in (home.bundles / model).iterdir() if file.is_file()):
        pointer.unlink()
    assert (rollback(home, model).version, serving(home, model)) == ("2", ("2", "2"))


def test_a_verdict_that_cannot_be_read_refuses(home: Home, registry: Registry, model: str) -> None:
    version = registered(home, model)
    registry._client.set_model_version_tag(model, version, VERDICT_TAG, "{")
    with pytest.raises(PromotionRefused, match="cannot be read"):
        promote(home, model)


def test_the_verbs_tell_the_verdict_the_history_and_what_serves_again(home: Home) -> None:
    for champion in (None, "1"):
        promote(home, "churn", registered(home, "churn", FINE, champion=champion), reason="autumn")
    registered(home, "churn", FINE, BAD, champion="2")
    listed = inbox("models", "churn", "--home", home.root)
    assert "no: calibration" in listed.out and listed.out.count("passed") == 2
    whole = inbox("models", "churn", "--version", "3", "--home", home.root)
    assert "refused calibration: error .2 is above .05" in whole.out and "judged against champion 2" in whole.out
    back = inbox("rollback", "churn", "--reason", "complaints rose", "--home", home.root)
    assert back.code == 0 and "version 1 serves again; taken back: version 2" in back.out
    history = inbox("models", "churn", "--history", "--home", home.root)
    assert all(word in history.out for word in ("rollback", "complaints rose", "autumn", "3 changes of what serves"))
    again = inbox("rollback", "churn", "--home", home.root)
    assert again.code == 1 and "nothing served before version 1" in again.err and "rollback_refused" in again.err
    assert inbox("rollback", "chrun", "--home", home.root).code == 1
