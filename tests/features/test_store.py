"""The Feast door: history comes back bit for bit and never from the future; Feast itself agrees, offline and online."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import feast
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from hypothesis import given, settings
from hypothesis import strategies as st

from features.asof import EVENT_TIMESTAMP, SUBSCRIBER_ID
from features.catalogue import VIEWS, Attribute, Catalogue, as_of_name
from features.contract import MODELS, UTC_MICROSECONDS
from features.errors import FeatureStoreFailed
from features.home import Home
from features.packing import pack, unpack
from features.state import CEILINGS, States, identity
from features.store import REPOSITORY, FeatureStore, PackedOnlineStore
from features.views import define
from tests.serving import faults

CATALOGUE = Catalogue(
    content=("shoes",),
    attributes=(Attribute("age"), Attribute("plan", ("free", "paid"))),
    timezones=("UTC", "Europe/Paris"),
)
GROWN = replace(CATALOGUE, attributes=(*CATALOGUE.attributes, Attribute("score"), Attribute("country", ("FR",))))
DAY = 86_400_000_000.0
MONDAY = 1.7e15

pytestmark = pytest.mark.filterwarnings(
    # ibis 12.0 has not followed DuckDB 2.0.
    "ignore:fetch_arrow_table:DeprecationWarning"
)


def some_states(count: int, as_of: float | npt.NDArray[np.float64], seed: int = 0) -> States:
    """States full of what could get lost on the way: NaN, negative zero, tiny numbers, missing codes."""
    rng = np.random.default_rng(seed)
    states = identity(CATALOGUE, count)
    for field in CATALOGUE.fields:
        shape = states[field.name].shape
        if field.dtype in CEILINGS:
            states[field.name] = rng.integers(0, CEILINGS[field.dtype] + 1, shape)
        elif field.missing == -1:
            states[field.name] = rng.integers(-1, 3, shape)
        else:
            odd = rng.choice([np.nan, -0.0, 5e-324, 1e300], shape)
            states[field.name] = np.where(rng.random(shape) < 0.2, odd, rng.random(shape) * 1e15)
    for view in VIEWS:
        states[as_of_name(view)] = as_of
    return states


def spine_of(*rows: tuple[str | None, float | None]) -> pa.Table:
    instants = [None if instant is None else int(instant) for _, instant in rows]
    return pa.table(
        {
            SUBSCRIBER_ID: pa.array([subscriber for subscriber, _ in rows], pa.string()),
            EVENT_TIMESTAMP: pa.array(instants, pa.int64()).cast(UTC_MICROSECONDS),
        }
    )


def bytes_by_view(states: States) -> list[bytes]:
    return [b"".join(states[field.name].tobytes() for field in CATALOGUE.fields_of(view)) for view in VIEWS]


def feasts_own_answer(store: FeatureStore, model: str, spine: pa.Table) -> States:
    """Feast's historical join, put back into the spine's order and into packed rows."""
    own = store.feast_store
    asked = spine.append_column("spine_row", pa.array(range(spine.num_rows))).to_pandas()
    answer = own.get_historical_features(asked, own.get_feature_service(model)).to_arrow().sort_by("spine_row")
    assert answer["spine_row"].to_pylist() == list(range(spine.num_rows))
    states = identity(store.catalogue, spine.num_rows)
    for field in store.catalogue.fields:
        values = answer[field.name].combine_chunks()
        known = np.flatnonzero(values.is_valid().to_numpy(zero_copy_only=False))
        flat = values.drop_null()
        states[field.name][known] = (
            flat.to_numpy() if field.length == 1 else flat.flatten().to_numpy().reshape(-1, field.length)
        )
    return states


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path)
    CATALOGUE.save(home.catalogue)
    return home


@pytest.fixture
def store(home: Home) -> FeatureStore:
    return FeatureStore(home, CATALOGUE)


@pytest.fixture(params=["sqlite", "redis"])
def served(request: pytest.FixtureRequest, store: FeatureStore) -> Iterator[FeatureStore]:
    """A feature store over each of our online stores."""
    if request.param == "sqlite":
        yield store
    else:
        # A database of its own: others use the same prefix.
        url = request.getfixturevalue("valkey").url.removesuffix("/0") + "/9"
        served = FeatureStore(replace(store.home, store_url=url), CATALOGUE)
        served.online().drop()
        yield served
        assert not store.home.online.exists()


def test_what_is_read_back_is_what_was_written_in_the_order_of_the_spine(store: FeatureStore) -> None:
    states = some_states(3, MONDAY)
    store.write_states(pa.array(["a", "b", "c"]), states, MONDAY)
    read, found = store.historical("churn", spine_of(("c", MONDAY), ("a", MONDAY + DAY), ("c", MONDAY), ("b", MONDAY)))
    assert read.tobytes() == states[[2, 0, 2, 1]].tobytes()
    assert found.all()


def test_a_row_stamped_at_the_instant_is_seen_and_one_a_microsecond_later_is_not(store: FeatureStore) -> None:
    earlier, later = some_states(1, MONDAY, seed=1), some_states(1, MONDAY + DAY, seed=2)
    store.write_states(pa.array(["a"]), earlier, MONDAY)
    store.write_states(pa.array(["a"]), later, MONDAY + DAY)
    read, found = store.historical(
        "churn", spine_of(("a", MONDAY - 1), ("a", MONDAY), ("a", MONDAY + DAY - 1), ("a", MONDAY + DAY))
    )
    assert found.tolist() == [False, True, True, True]
    assert read[:1].tobytes() == identity(CATALOGUE, 1).tobytes()
    assert read[1:].tobytes() == np.concatenate([earlier, earlier, later]).tobytes()


def test_a_view_whose_rows_stand_in_another_order_is_joined_by_its_own_keys(
    store: FeatureStore, tmp_path: Path
) -> None:
    """Views written together are joined once; a write that was cut short between two of them leaves others."""
    states = some_states(2, MONDAY)
    store.write_states(pa.array(["a", "b"]), states, MONDAY)
    other = FeatureStore(Home(tmp_path / "other"), CATALOGUE)
    other.write_states(pa.array(["b", "a"]), states[::-1], MONDAY)
    [file] = (other.home.offline / "recency").glob("*.parquet")
    assert (store.home.offline / "recency" / file.name).exists()
    shutil.copy(file, store.home.offline / "recency")
    read, _ = store.historical("churn", spine_of(("a", MONDAY), ("b", MONDAY)))
    assert read.tobytes() == states.tobytes()


def test_the_unknown_are_not_found(store: FeatureStore) -> None:
    store.write_states(pa.array(["a"]), some_states(1, MONDAY), MONDAY)
    read, found = store.historical("churn", spine_of(("b", MONDAY), (None, MONDAY), ("a", None)))
    assert not found.any()
    assert read.tobytes() == identity(CATALOGUE, 3).tobytes()


@settings(max_examples=20, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 6)), unique=True, min_size=1, max_size=10),
    st.lists(st.tuples(st.sampled_from("abcd"), st.integers(-1, 7)), max_size=10),
)
def test_the_latest_row_not_after_the_instant_is_found_as_a_naive_search_finds_it(
    tmp_path_factory: pytest.TempPathFactory, stored: list[tuple[str, int]], asked: list[tuple[str, int]]
) -> None:
    store = FeatureStore(Home(tmp_path_factory.mktemp("naive")), CATALOGUE)
    instants = np.array([MONDAY + instant for _, instant in stored])
    states = some_states(len(stored), instants)
    store.write_states(pa.array([subscriber for subscriber, _ in stored]), states, instants)
    read, found = store.historical(
        "churn", spine_of(*((subscriber, MONDAY + instant) for subscriber, instant in asked))
    )
    for row, (subscriber, instant) in enumerate(asked):
        earlier = [(t, i) for i, (who, t) in enumerate(stored) if who == subscriber and t <= instant]
        assert found[row] == bool(earlier)
        expected = states[max(earlier)[1] :][:1] if earlier else identity(CATALOGUE, 1)
        assert read[row].tobytes() == expected.tobytes()


@pytest.mark.parametrize("model", MODELS)
def test_feasts_own_historical_join_agrees_bit_for_bit(store: FeatureStore, model: str) -> None:
    store.apply()
    ids = [f"s{i}" for i in range(40)]
    for week in range(3):
        at = MONDAY + 7 * DAY * week
        store.write_states(pa.array(ids[: 20 + 10 * week]), some_states(20 + 10 * week, at, seed=week), at)
    moments = MONDAY + DAY * np.arange(1.0, 31.0)
    store.write_states(pa.array(ids[:30]), some_states(30, moments, seed=9), moments)
    rng = np.random.default_rng(0)
    who, day = rng.integers(0, 45, 200), rng.integers(-1, 40, 200)
    rows = [(f"s{i}", MONDAY + DAY * days) for i, days in zip(who, day, strict=True)]
    spine = spine_of(*rows, *rows[:5])
    read, found = store.historical(model, spine)
    assert 100 < found.sum() < len(rows)
    assert read.tobytes() == feasts_own_answer(store, model, spine).tobytes()


def test_writing_an_instant_again_replaces_it(store: FeatureStore) -> None:
    mended = some_states(1, MONDAY, seed=2)
    store.write_states(pa.array(["a", "gone"]), some_states(2, MONDAY, seed=1), MONDAY)
    store.write_states(pa.array(["a"]), mended, MONDAY)
    read, found = store.historical("churn", spine_of(("a", MONDAY), ("gone", MONDAY)))
    assert found.tolist() == [True, False]
    assert read[:1].tobytes() == mended.tobytes()
    assert len(list((store.home.offline / "recency").iterdir())) == 1


def test_writing_rows_of_many_instants_again_replaces_them(store: FeatureStore) -> None:
    instants = np.array([MONDAY, MONDAY + DAY])
    for seed in (1, 2):
        store.write_states(pa.array(["a", "b"]), some_states(2, instants, seed=seed), instants)
    assert len(list((store.home.offline / "recency").iterdir())) == 1
    store.write_states(pa.array(["b", "a"]), some_states(2, instants, seed=3), instants)
    assert len(list((store.home.offline / "recency").iterdir())) == 2


def test_of_two_rows_with_one_stamp_the_later_written_counts_for_feast_too(store: FeatureStore) -> None:
    store.apply()
    instants = np.array([MONDAY, MONDAY + DAY])
    later = some_states(1, MONDAY, seed=2)
    store.write_states(pa.array(["a", "b"]), some_states(2, instants, seed=1), instants)
    store.write_states(pa.array(["a"]), later, MONDAY)
    spine = spine_of(("a", MONDAY))
    assert store.historical("churn", spine)[0].tobytes() == later.tobytes()
    assert feasts_own_answer(store, "churn", spine).tobytes() == later.tobytes()


def test_history_from_before_the_catalogue_grew_stays_readable_for_both(store: FeatureStore) -> None:
    old = some_states(1, MONDAY)
    store.write_states(pa.array(["a"]), old, MONDAY)
    grown = FeatureStore(store.home, GROWN)
    spine = spine_of(("a", MONDAY))
    before, _ = grown.historical("churn", spine)
    grown.apply()
    after, _ = grown.historical("churn", spine)
    expected = unpack(pack(old), GROWN).states
    assert before.tobytes() == after.tobytes() == expected.tobytes()
    grown.write_states(pa.array(["b"]), expected, MONDAY + DAY)
    assert feasts_own_answer(grown, "churn", spine).tobytes() == expected.tobytes()


def test_an_interrupted_write_is_no_part_of_the_history_and_goes_with_it(store: FeatureStore) -> None:
    store.apply()
    states = some_states(1, MONDAY)
    store.write_states(pa.array(["a"]), states, MONDAY)
    half = store.home.offline / "recency" / ".20300101T000000.000000Z.parquet.1.tmp"
    half.write_bytes(b"PAR1 and then the power went")
    spine = spine_of(("a", MONDAY))
    assert store.historical("churn", spine)[0].tobytes() == states.tobytes()
    assert feasts_own_answer(store, "churn", spine).tobytes() == states.tobytes()
    store.clear()
    assert not list((store.home.offline / "recency").iterdir())


def test_a_history_replaced_while_it_is_read_is_an_error_and_never_a_mixture(store: FeatureStore) -> None:
    ids, spine = pa.array(["a", "b"]), spine_of(("a", MONDAY), ("b", MONDAY))
    versions = [some_states(2, MONDAY, seed=seed) for seed in range(8)]
    known = {part for version in versions for part in bytes_by_view(version)}
    store.write_states(ids, versions[0], MONDAY)

    def write_all() -> None:
        for version in versions:
            store.write_states(ids, version, MONDAY)

    with ThreadPoolExecutor(1) as writer:
        writing = writer.submit(write_all)
        while not writing.done():
            try:
                read, _ = store.historical("churn", spine)
            except FeatureStoreFailed:
                continue
            assert known.issuperset(bytes_by_view(read))
        writing.result()
    assert store.historical("churn", spine)[0].tobytes() == versions[-1].tobytes()


def test_without_history_the_answer_is_an_error_with_a_name(store: FeatureStore) -> None:
    with pytest.raises(FeatureStoreFailed, match="nothing was written yet"):
        store.historical("churn", spine_of(("a", MONDAY)))


def test_a_truncated_file_is_an_error_with_a_name(store: FeatureStore) -> None:
    store.write_states(pa.array(["a"]), some_states(1, MONDAY), MONDAY)
    for path in (store.home.offline / "recency").iterdir():
        path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(FeatureStoreFailed):
        store.historical("churn", spine_of(("a", MONDAY)))


def test_an_unknown_model_has_no_feature_service(store: FeatureStore) -> None:
    with pytest.raises(FeatureStoreFailed, match="churn, lead_score, send_time"):
        store.historical("weather", spine_of(("a", MONDAY)))


def test_applying_registers_six_views_and_a_service_per_model_quietly_and_again(
    store: FeatureStore, capfd: pytest.CaptureFixture[str]
) -> None:
    store.apply()
    store.apply()
    own = store.feast_store
    assert {view.name for view in own.list_feature_views()} == set(VIEWS)
    assert {service.name for service in own.list_feature_services()} == set(MODELS)
    assert [entity.name for entity in own.list_entities()] == ["subscriber"]
    assert capfd.readouterr() == ("", "")


def test_every_stored_field_is_registered_once_under_its_own_name_and_description() -> None:
    features = [feature for view in define(CATALOGUE, Path()).views for feature in view.features]
    described = {(feature.name, feature.description) for feature in features}
    assert described == {(field.name, field.description) for field in CATALOGUE.fields}
    assert len(features) == len(CATALOGUE.fields)


def test_a_broken_registry_is_an_error_with_a_name_and_is_left_as_it_is(store: FeatureStore) -> None:
    store.apply()
    store.home.registry.write_bytes(b"\xff\xff\xff not a registry")
    with pytest.raises(FeatureStoreFailed):
        store.apply()
    assert store.home.registry.read_bytes() == b"\xff\xff\xff not a registry"


def test_materialized_rows_are_read_by_serving_and_by_feast(served: FeatureStore) -> None:
    served.apply()
    states = some_states(2, MONDAY)
    states["click_count"] = [3, 4]
    assert served.materialize(pa.array(["a", "b"]), states) == 2
    assert served.online().read(["b", "a"], CATALOGUE)[0].tobytes() == states[[1, 0]].tobytes()
    asked = ["recency:click_count", "send_time_profile:sent_by_hour", "profile:timezone"]
    answer = served.feast_store.get_online_features(asked, [{"subscriber_id": "b"}, {"subscriber_id": "z"}]).to_dict()
    assert answer["sent_by_hour"] == [states["sent_by_hour"][1].tolist(), None]
    assert answer["click_count"] == [4, None]
    assert answer["timezone"] == [states["timezone"][1], None]


def test_feast_materializes_into_packed_rows_what_it_materializes_into_its_own_store(
    served: FeatureStore, tmp_path: Path
) -> None:
    served.apply()
    ids = [f"s{i}" for i in range(30)]
    newest = some_states(30, MONDAY + DAY, seed=2)
    served.write_states(pa.array(ids), some_states(30, MONDAY, seed=1), MONDAY)
    served.write_states(pa.array(ids), newest, MONDAY + DAY)
    stock = stock_store(served, tmp_path / "stock")
    for one in (served.feast_store, stock):
        one.materialize(datetime(2023, 1, 1, tzinfo=UTC), datetime(2024, 1, 1, tzinfo=UTC))
    assert served.online().read(ids, CATALOGUE)[0].tobytes() == newest.tobytes()
    asked = [{"subscriber_id": one} for one in [*ids, "nobody", "s3"]]
    for model in MODELS:
        answers = [
            one.get_online_features(one.get_feature_service(model), asked).to_dict()
            for one in (served.feast_store, stock)
        ]
        assert repr(answers[0]) == repr(answers[1])


def stock_store(store: FeatureStore, directory: Path) -> feast.FeatureStore:
    """The same views over Feast's own SQLite store."""
    directory.mkdir()
    config = store.feast_store.config.model_dump(mode="json", by_alias=True, exclude_unset=True)
    config |= {"registry": str(directory / "registry.db"), "online_store": {"path": str(directory / "online.db")}}
    stock = feast.FeatureStore(config=feast.RepoConfig(**config))
    stock.apply(define(store.catalogue, store.home.offline).objects)
    return stock


def feast_row(subscriber_id: str, day: int, **values: Value) -> tuple[EntityKey, dict[str, Value], datetime, None]:
    key = EntityKey(join_keys=["subscriber_id"], entity_values=[Value(string_val=subscriber_id)])
    return key, values, datetime(2024, 1, 1) + timedelta(days=day), None


def test_feast_writes_one_view_and_leaves_the_others_and_never_goes_back_in_time(served: FeatureStore) -> None:
    served.apply()
    own, packed = served.feast_store, PackedOnlineStore()
    recency = own.get_feature_view("recency")
    states = some_states(1, MONDAY)
    served.materialize(pa.array(["a"]), states)

    def write(*rows: Any) -> None:
        packed.online_write_batch(own.config, recency, list(rows), None)

    write(
        feast_row("a", 2, click_count=Value(double_val=2)),
        feast_row("a", 1, click_count=Value(double_val=1)),
        feast_row("b", 1, click_count=Value(double_val=7)),
    )
    write(feast_row("a", 0, click_count=Value(double_val=99)))
    (a, b), found = served.online().read(["a", "b"], CATALOGUE)
    assert found.all()
    assert (a["click_count"], b["click_count"]) == (2, 7)
    assert a["recency_as_of"] == datetime(2024, 1, 3, tzinfo=UTC).timestamp() * 1e6
    assert a["send_time_profile_as_of"] == MONDAY
    assert a["sent_by_hour"].tobytes() == states["sent_by_hour"].tobytes()
    keys = [row[0] for row in (feast_row("b", 0), feast_row("c", 0))]
    spending = own.get_feature_view("spending")
    assert packed.online_read(own.config, spending, keys) == [(None, None), (None, None)]
    stamp, values = packed.online_read(own.config, recency, keys, ["click_count"])[0]
    assert stamp == datetime(2024, 1, 2, tzinfo=UTC)
    assert values == {"click_count": Value(double_val=7)}


def test_a_view_registered_under_another_catalogue_is_refused(store: FeatureStore) -> None:
    FeatureStore(store.home, GROWN).apply()
    with pytest.raises(FeatureStoreFailed, match="profile_score"):
        store.feast_store.get_online_features(["profile:profile_score"], [{"subscriber_id": "a"}])


def test_feast_tears_down_the_packed_rows(served: FeatureStore) -> None:
    served.apply()
    served.materialize(pa.array(["a"]), some_states(1, MONDAY))
    served.feast_store.teardown()  # type: ignore[no-untyped-call]
    served.apply()
    assert served.online().count() == 0


def test_feasts_own_entrance_takes_the_server_from_the_environment_and_no_file_holds_it(
    home: Home, valkey: faults.Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = valkey.url.replace("//", "//default:s3cret@").removesuffix("/0") + "/8"
    served, embedded = FeatureStore(replace(home, store_url=url), CATALOGUE), FeatureStore(home, CATALOGUE)
    served.apply()
    for store, clicks in ((served, 3), (embedded, 4)):
        states = some_states(1, MONDAY)
        states["click_count"] = clicks
        store.materialize(pa.array(["a"]), states)
    assert not [path for path in home.root.rglob("*") if path.is_file() and b"s3cret" in path.read_bytes()]
    yaml = home.registry.with_name("feature_store.yaml")
    for setting, clicks in ((url, 3), ("", 4), (None, 4)):
        if setting is None:
            monkeypatch.delenv("INBOX_STORE_URL")
        else:
            monkeypatch.setenv("INBOX_STORE_URL", setting)
        own = feast.FeatureStore(repo_path=str(REPOSITORY), fs_yaml_file=yaml)
        answer = own.get_online_features(["recency:click_count"], [{"subscriber_id": "a"}]).to_dict()
        assert answer["click_count"] == [clicks]


def test_nothing_learnt_yet_is_an_empty_catalogue(tmp_path: Path) -> None:
    assert Catalogue.known(tmp_path / "catalogue.json") == Catalogue()


@pytest.mark.slow
def test_feasts_command_line_applies_and_reads_the_repository(tmp_path: Path) -> None:
    shutil.copytree(Path(__file__).parents[2] / "features", tmp_path / "features")
    CATALOGUE.save(Home(tmp_path).catalogue)
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    environment = {name: value for name, value in environment.items() if not name.startswith("INBOX_")}
    command = [str(Path(sys.executable).with_name("feast")), "-c", "features/repo", "apply"]
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True, timeout=120)
    own = FeatureStore(Home(tmp_path), CATALOGUE).feast_store
    assert {view.name for view in own.list_feature_views()} == set(VIEWS)
    assert "profile_plan" in {feature.name for feature in own.get_feature_view("profile").features}
    source = own.get_feature_view("recency").batch_source
    assert isinstance(source, feast.FileSource)
    assert source.path == str(tmp_path / "var" / "feast" / "offline" / "recency")
