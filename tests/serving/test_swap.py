"""A promotion comes into a running service by itself; what is broken never does, and what was in service stays."""

from __future__ import annotations

import gc
import hashlib
import hmac
import logging
import shutil
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import orjson
import pytest

from features.home import Home
from features.online import SqliteStateStore
from models.bundle import Bundle, bundle_key, load, publish, write
from pipelines.serve import running
from serving.app import ScorerLike
from serving.schemas import ScoreRequest
from serving.scorer import Scorer
from serving.swap import Shelf, Swapper
from tests.serving.stand_in import SCORED_AT, front, serving

STRANGER = "nobody-we-know"
PRIOR = {"2": 0.125, "3": 0.25, "4": 0.375, "5": 0.5}
"""What a stranger gets from each version made here."""
ANOTHER_KEY = bytes(range(32))
NEVER_AGAIN_S = 3600.0


@pytest.fixture(scope="module")
def churn(small_home: Home) -> Bundle:
    """A trained model, trees and all, to make versions of."""
    [directory] = small_home.bundles.glob("churn/*/")
    return load(directory, bundle_key(small_home))


@pytest.fixture
def home(small_home: Home, tmp_path: Path) -> Home:
    """A key and a materialized store; nothing promoted."""
    home = Home(tmp_path / "home")
    home.online.parent.mkdir(parents=True)
    with closing(sqlite3.connect(small_home.online)) as source, closing(sqlite3.connect(home.online)) as target:
        source.backup(target)
    for name in ("catalogue.json", "bundle.key"):
        shutil.copy(small_home.var / name, home.var / name)
    return home


@dataclass
class Desk:
    """Where a scorer stands in service."""

    scorer: ScorerLike


def version_of(bundle: Bundle, version: str, trees: bool = False) -> Bundle:
    """A version that says so by its scores. Without trees it loads in a millisecond: no child process is needed."""
    other = replace(bundle.calibration, intercept=bundle.calibration.intercept + int(version))
    priors = {**bundle.priors, "probability": PRIOR[version]}
    booster = bundle.booster if trees else None
    return replace(bundle, version=version, priors=priors, calibration=other, booster=booster)


def written(bundle: Bundle, directory: Path, key: bytes) -> Path:
    write(bundle, np.zeros((2, len(bundle.features))), directory, key)
    return directory


def laid(home: Home, bundle: Bundle) -> Path:
    """Written where a publisher puts it, not pointed at yet."""
    return written(bundle, home.bundles / bundle.model / bundle.version, bundle_key(home))


def pointed(home: Home, version: str, model: str = "churn") -> None:
    """The pointer moved as a publisher moves it, without a look at where it leads."""
    pointer = home.bundles / model / "current.json"
    pointer.parent.mkdir(parents=True, exist_ok=True)
    aside = pointer.with_name(".aside")
    aside.write_bytes(orjson.dumps({"version": version}))
    aside.replace(pointer)


def promoted(home: Home, bundle: Bundle) -> None:
    laid(home, bundle)
    pointed(home, bundle.version, bundle.model)


def shelf_over(home: Home, *models: str, retry_s: float = NEVER_AGAIN_S) -> Shelf:
    store = SqliteStateStore(home.online)
    return Shelf(home, lambda bundles: Scorer(bundles, store, 1e9), models or ("churn",), retry_s)


def strangers_churn(scorer: ScorerLike) -> float:
    asked = ScoreRequest(subscriber_ids=(STRANGER,), models=("churn",))
    return float(scorer.score(asked, SCORED_AT).columns["churn_probability"][0])


@contextmanager
def swapping(shelf: Shelf, desk: Any) -> Iterator[Swapper]:
    swapper = Swapper(shelf, desk, poll_s=0.01)
    yield swapper
    swapper.close()


def eventually(true: Callable[[], bool], within_s: float = 10.0) -> float:
    """Seconds until it was true."""
    started = time.monotonic()
    while not true():
        assert time.monotonic() - started < within_s
        time.sleep(0.01)
    return time.monotonic() - started


def signed_again(directory: Path, key: bytes) -> None:
    """What somebody who has the key could write: hashes and signature made to fit the files."""
    manifest = orjson.loads((directory / "MANIFEST.json").read_bytes())
    for name in manifest["files"]:
        manifest["files"][name] = hashlib.sha256((directory / name).read_bytes()).hexdigest()
    content = orjson.dumps(manifest)
    (directory / "MANIFEST.json").write_bytes(content)
    (directory / "SIGNATURE").write_text(hmac.new(key, content, hashlib.sha256).hexdigest())


def test_a_promotion_and_a_rollback_reach_the_engine(home: Home, churn: Bundle) -> None:
    promoted(home, version_of(churn, "2"))
    shelf = shelf_over(home)
    desk = Desk(shelf.scorer)
    assert (desk.scorer.versions, strangers_churn(desk.scorer)) == ({"churn": "2"}, PRIOR["2"])
    with swapping(shelf, desk):
        promoted(home, version_of(churn, "3"))
        eventually(lambda: desk.scorer.versions == {"churn": "3"})
        assert strangers_churn(desk.scorer) == PRIOR["3"]
        pointed(home, "2")
        eventually(lambda: desk.scorer.versions == {"churn": "2"})
        assert strangers_churn(desk.scorer) == PRIOR["2"]
    assert (shelf.swaps, shelf.refusals) == (3, 0)


def test_the_same_version_published_with_other_content_comes_in(home: Home, churn: Bundle) -> None:
    promoted(home, version_of(churn, "2"))
    shelf = shelf_over(home)
    promoted(home, replace(version_of(churn, "3"), version="2"))
    assert shelf.attend("churn")
    assert strangers_churn(shelf.scorer) == PRIOR["3"]


def test_models_that_were_not_promoted_keep_their_very_bundle(home: Home, churn: Bundle) -> None:
    promoted(home, version_of(churn, "2"))
    promoted(home, replace(version_of(churn, "2"), model="lead_score"))
    shelf = shelf_over(home, "churn", "lead_score")
    before = shelf.scorer.bundles
    promoted(home, version_of(churn, "3"))
    assert [shelf.attend(model) for model in shelf.models] == [True, False]
    assert shelf.scorer.bundles["lead_score"] is before["lead_score"]
    assert shelf.scorer.bundles["churn"] is not before["churn"]
    assert {name: bundle.version for name, bundle in before.items()} == {"churn": "2", "lead_score": "2"}


def test_nothing_is_loaded_while_nothing_changes(home: Home, churn: Bundle) -> None:
    promoted(home, version_of(churn, "2"))
    shelf = shelf_over(home)
    scorer = shelf.scorer
    assert not any(shelf.attend("churn") for _ in range(5))
    assert shelf.scorer is scorer


def test_a_model_never_promoted_comes_in_once_it_is(home: Home, churn: Bundle) -> None:
    shelf = shelf_over(home)
    desk = Desk(shelf.scorer)
    assert (desk.scorer.versions, shelf.problems) == ({}, ["churn: not promoted yet"])
    with swapping(shelf, desk):
        promoted(home, version_of(churn, "2"))
        eventually(lambda: desk.scorer.versions == {"churn": "2"})
    assert (shelf.problems, shelf.refusals) == ([], 0)


def test_a_pointer_that_disappears_changes_nothing(home: Home, churn: Bundle) -> None:
    promoted(home, version_of(churn, "2"))
    shelf = shelf_over(home)
    scorer = shelf.scorer
    shutil.rmtree(home.bundles)
    assert not shelf.attend("churn")
    assert shelf.scorer is scorer and strangers_churn(scorer) == PRIOR["2"]
    assert (shelf.problems, shelf.refusals) == ([], 0)
    promoted(home, version_of(churn, "3"))
    assert shelf.attend("churn")


def truncated(home: Home, directory: Path) -> None:
    text = directory / "model.lgb.txt"
    text.write_bytes(text.read_bytes()[:-1000])


def one_bit_flipped(home: Home, directory: Path) -> None:
    text = directory / "model.lgb.txt"
    content = bytearray(text.read_bytes())
    content[len(content) // 2] ^= 1
    text.write_bytes(content)


def another_manifest(home: Home, directory: Path) -> None:
    manifest = directory / "MANIFEST.json"
    manifest.write_bytes(manifest.read_bytes().replace(b'"version":"3"', b'"version":"4"'))


def signed_by_another_key(home: Home, directory: Path) -> None:
    signed_again(directory, ANOTHER_KEY)


def unsigned(home: Home, directory: Path) -> None:
    (directory / "SIGNATURE").unlink()


def without_its_text(home: Home, directory: Path) -> None:
    (directory / "model.lgb.txt").unlink()


def gone(home: Home, directory: Path) -> None:
    shutil.rmtree(directory)


def killing_lightgbm(home: Home, directory: Path) -> None:
    text = directory / "model.lgb.txt"
    text.write_bytes(text.read_bytes().replace(b"\n", b"\r\n"))
    signed_again(directory, bundle_key(home))


def scoring_golden_rows_otherwise(home: Home, directory: Path) -> None:
    golden = directory / "golden.json"
    content = orjson.loads(golden.read_bytes())
    golden.write_bytes(orjson.dumps(content | {"raw": [score + 1 for score in content["raw"]]}))
    signed_again(directory, bundle_key(home))


def with_spec(change: Callable[[Any], None]) -> Callable[[Home, Path], None]:
    def damage(home: Home, directory: Path) -> None:
        spec = orjson.loads((directory / "bundle.json").read_bytes())
        change(spec)
        (directory / "bundle.json").write_bytes(orjson.dumps(spec))
        signed_again(directory, bundle_key(home))

    return damage


def of_another_model(home: Home, directory: Path) -> None:
    written(replace(load(directory, bundle_key(home)), model="lead_score"), directory, bundle_key(home))


def pointing_into_the_void(home: Home, directory: Path) -> None:
    (directory.parent / "current.json").write_bytes(b"\x00\xff{")


def pointing_elsewhere(home: Home, directory: Path) -> None:
    pointed(home, "../../../elsewhere")


DAMAGE: dict[str, tuple[Callable[[Home, Path], None], str]] = {
    "truncated": (truncated, "is not the file that was signed"),
    "flipped": (one_bit_flipped, "is not the file that was signed"),
    "manifest": (another_manifest, "signature"),
    "foreign key": (signed_by_another_key, "signature"),
    "unsigned": (unsigned, "cannot be read"),
    "file missing": (without_its_text, "cannot be read"),
    "directory missing": (gone, "no model bundle"),
    "kills": (killing_lightgbm, "ended the checking process"),
    "scores otherwise": (scoring_golden_rows_otherwise, "golden rows"),
    "other order": (with_spec(lambda spec: spec["features"].reverse()), "other features"),
    "no spec": (with_spec(lambda spec: spec.clear()), "cannot be read"),
    "cannot score": (with_spec(lambda spec: spec["priors"].clear()), "KeyError at"),
    "scores nonsense": (with_spec(lambda spec: spec["priors"].update(probability=None)), "TypeError at"),
    "cannot score whom it knows": (with_spec(lambda spec: spec["parameters"].pop("quantiles")), " at "),
    "another model": (of_another_model, "it is lead_score 3"),
    "pointer garbage": (pointing_into_the_void, "cannot be read"),
    "pointer astray": (pointing_elsewhere, "names no version"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_what_is_broken_never_comes_in_and_the_next_good_one_does(
    home: Home, churn: Bundle, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    promoted(home, version_of(churn, "2"))
    shelf = shelf_over(home)
    before = shelf.scorer
    damage, reason = DAMAGE[name]
    promoted(home, version_of(churn, "3", trees=True))
    damage(home, home.bundles / "churn" / "3")
    with caplog.at_level(logging.INFO, "inbox.swap"):
        assert not any(shelf.attend("churn") for _ in range(4))
        assert shelf.scorer is before and strangers_churn(before) == PRIOR["2"]
        [record] = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert record.levelno == logging.ERROR
    assert record.getMessage().startswith("churn: version 2 stays. ") and reason in record.getMessage()
    [problem] = shelf.problems
    assert reason in problem
    promoted(home, version_of(churn, "4"))
    assert shelf.attend("churn")
    assert strangers_churn(shelf.scorer) == PRIOR["4"]
    assert (shelf.problems, shelf.swaps, shelf.refusals) == ([], 2, 1)


def test_features_that_are_no_longer_derived_are_refused(home: Home, churn: Bundle) -> None:
    promoted(home, version_of(churn, "2"))
    shelf = shelf_over(home)
    other = version_of(churn, "3")
    promoted(home, replace(other, features=("phase_of_the_moon", *other.features[1:])))
    assert not shelf.attend("churn")
    assert "phase_of_the_moon" in shelf.problems[0]
    assert shelf.scorer.versions == {"churn": "2"}


def test_a_broken_bundle_at_start_leaves_the_others_and_the_next_good_one_comes_in(home: Home, churn: Bundle) -> None:
    promoted(home, version_of(churn, "2"))
    promoted(home, replace(version_of(churn, "2"), model="lead_score"))
    unsigned(home, home.bundles / "churn" / "2")
    shelf = shelf_over(home, "churn", "lead_score")
    desk = Desk(shelf.scorer)
    assert desk.scorer.versions == {"lead_score": "2"}
    with swapping(shelf, desk):
        promoted(home, version_of(churn, "3"))
        eventually(lambda: desk.scorer.versions == {"churn": "3", "lead_score": "2"})


def test_a_bundle_mended_in_its_place_comes_in_without_being_published_again(home: Home, churn: Bundle) -> None:
    promoted(home, version_of(churn, "2"))
    file = home.bundles / "churn" / "2" / "SIGNATURE"
    signature = file.read_bytes()
    file.write_bytes(signature[::-1])
    shelf = shelf_over(home)
    assert shelf.refusals == 1
    assert not shelf.attend("churn")
    file.write_bytes(signature)
    assert shelf.attend("churn")


def test_what_was_refused_for_a_passing_reason_is_tried_again_and_logged_once(
    home: Home, churn: Bundle, caplog: pytest.LogCaptureFixture
) -> None:
    promoted(home, version_of(churn, "2"))
    key = bundle_key(home)
    (home.var / "bundle.key").write_bytes(ANOTHER_KEY)
    patient, eager = shelf_over(home), shelf_over(home, retry_s=0.0)
    caplog.clear()
    assert not any(eager.attend("churn") for _ in range(3))
    assert (caplog.records, eager.refusals) == ([], 1)
    (home.var / "bundle.key").write_bytes(key)
    assert eager.attend("churn")
    assert not patient.attend("churn")


def test_a_defect_while_swapping_does_not_end_the_watch(
    home: Home, churn: Bundle, caplog: pytest.LogCaptureFixture
) -> None:
    store = SqliteStateStore(home.online)

    def make(bundles: Mapping[str, Bundle]) -> Scorer:
        if bundles and bundles["churn"].version == "3":
            raise RuntimeError("anna@example.org")
        return Scorer(bundles, store, 1e9)

    promoted(home, version_of(churn, "2"))
    shelf = Shelf(home, make, ("churn",))
    desk = Desk(shelf.scorer)
    with swapping(shelf, desk):
        promoted(home, version_of(churn, "3"))
        eventually(lambda: shelf.refusals == 1)
        assert desk.scorer.versions == {"churn": "2"}
        promoted(home, version_of(churn, "4"))
        eventually(lambda: desk.scorer.versions == {"churn": "4"})
    assert "RuntimeError at" in caplog.text and "anna" not in caplog.text


def test_a_swap_does_not_depend_on_the_online_store(
    home: Home, churn: Bundle, caplog: pytest.LogCaptureFixture
) -> None:
    home.online.write_bytes(b"this is no database " * 1000)
    promoted(home, version_of(churn, "2"))
    shelf = shelf_over(home)
    promoted(home, version_of(churn, "3", trees=True))
    assert shelf.attend("churn")
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
    assert shelf.scorer.score(ScoreRequest(subscriber_ids=(STRANGER,)), SCORED_AT).store_failed


def test_closing_is_quick_and_ends_the_watch(home: Home, churn: Bundle) -> None:
    promoted(home, version_of(churn, "2"))
    shelf = shelf_over(home)
    desk = Desk(shelf.scorer)
    started = time.monotonic()
    Swapper(shelf, desk, poll_s=60.0).close()
    with swapping(shelf, desk):
        pass
    assert time.monotonic() - started < 1.0
    promoted(home, version_of(churn, "3"))
    time.sleep(0.05)
    assert desk.scorer.versions == {"churn": "2"}
    assert not [thread for thread in threading.enumerate() if thread.name == "swap"]


def test_what_is_swapped_out_or_refused_is_freed_without_a_collection(home: Home, churn: Bundle) -> None:
    promoted(home, version_of(churn, "2", trees=True))
    gc.collect()
    gc.disable()
    made: list[weakref.ref[Scorer]] = []
    store = SqliteStateStore(home.online)

    def make(bundles: Mapping[str, Bundle]) -> Scorer:
        scorer = Scorer(bundles, store, 1e9)
        made.append(weakref.ref(scorer))
        return scorer

    try:
        shelf = Shelf(home, make, ("churn",))
        bundle, booster = (weakref.ref(one) for one in (shelf.bundles["churn"], shelf.bundles["churn"].booster))
        promoted(home, version_of(churn, "3", trees=True))
        with_spec(lambda spec: spec["priors"].clear())(home, home.bundles / "churn" / "3")
        assert not shelf.attend("churn")
        assert [scorer() for scorer in made] == [None, shelf.scorer, None]
        promoted(home, version_of(churn, "4", trees=True))
        assert shelf.attend("churn")
        assert [scorer() for scorer in made] == [None, None, None, shelf.scorer]
        assert (bundle(), booster()) == (None, None)
    finally:
        gc.enable()


@pytest.mark.slow
def test_under_twenty_swaps_every_answer_over_http_is_of_one_version(home: Home, churn: Bundle) -> None:
    for version in ("2", "3"):
        laid(home, version_of(churn, version, trees=True))
    pointed(home, "2")
    shelf = shelf_over(home)
    with closing(sqlite3.connect(home.online)) as connection:
        known = [row[0] for row in connection.execute("SELECT subscriber_id FROM states LIMIT 30")]
    answers: list[httpx.Response] = []
    behind = front(home.root, shelf.scorer)  # type: ignore[arg-type]

    def ask(url: str, done: threading.Event, ids: list[str]) -> None:
        with httpx.Client(base_url=url, headers=behind.headers) as client:
            while not done.is_set():
                answers.append(client.post("/v1/scores", json={"subscriber_ids": ids}))
                time.sleep(0.002)

    done = threading.Event()
    with serving(behind.guard) as url, swapping(shelf, behind.engine), ThreadPoolExecutor(3) as pool:
        try:
            asking = [
                pool.submit(ask, url, done, ids) for ids in ([STRANGER, *known[:3]], [STRANGER, *known], [*known])
            ]
            for swap in range(20):
                version = "3" if swap % 2 == 0 else "2"
                pointed(home, version)
                eventually(lambda version=version: behind.engine.scorer.versions == {"churn": version}, within_s=30.0)
        finally:
            done.set()
        for one in asking:
            one.result()
    behind.close()
    assert {answer.status_code for answer in answers} == {200}
    expected = {version: scores_of(home, churn, version, [STRANGER, *known]) for version in ("2", "3")}
    assert expected["2"] != expected["3"]
    assert {answer.json()["models"]["churn"] for answer in answers} == {"2", "3"}
    assert all(answers_as(answer.json(), expected) for answer in answers)


def scores_of(home: Home, churn: Bundle, version: str, ids: list[str]) -> dict[str, float]:
    scorer = Scorer({"churn": version_of(churn, version, trees=True)}, SqliteStateStore(home.online), 1e9)
    scores = scorer.score(ScoreRequest(subscriber_ids=tuple(ids), models=("churn",)), SCORED_AT)
    return dict(zip(ids, np.asarray(scores.columns["churn_probability"]).tolist(), strict=True))


def answers_as(said: dict[str, Any], expected: Mapping[str, dict[str, float]]) -> bool:
    """Whether every score is the named version's own, to the bit."""
    wanted = expected[said["models"]["churn"]]
    return all(row["churn"]["probability"] == wanted[row["subscriber_id"]] for row in said["scores"])


@pytest.mark.slow
def test_a_promotion_reaches_the_running_bento_within_five_seconds(home: Home, churn: Bundle, tmp_path: Path) -> None:
    promoted(home, version_of(churn, "2", trees=True))
    made = {one: written(version_of(churn, one, trees=True), tmp_path / one, bundle_key(home)) for one in ("3", "4")}
    statuses: list[int] = []
    with running(home, now=SCORED_AT) as service, service.client() as client:

        def answering(version: str) -> bool:
            answer = client.get(f"/v1/scores/{STRANGER}")
            statuses.append(answer.status_code)
            said = answer.json()
            assert said["scores"][0]["churn"]["probability"] == PRIOR[said["models"]["churn"]]
            return bool(said["models"] == {"churn": version})

        assert answering("2")
        for version, place in (*made.items(), ("2", home.bundles / "churn" / "2")):
            publish(home, "churn", version, place)
            assert eventually(lambda version=version: answering(version)) < 5.0
        unsigned(home, home.bundles / "churn" / "3")
        pointed(home, "3")
        eventually(lambda: "inbox_bundles_refused 1.0" in client.get("/metrics").text)
        assert answering("2")
        metrics = client.get("/metrics").text
    assert set(statuses) == {200}
    for line in ("bundle_swaps_total 4.0", "bundle_refusals_total 1.0", "bundles_in_service 1.0"):
        assert f"inbox_{line}" in metrics
