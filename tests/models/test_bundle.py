"""The bundle: what was written comes back, anything else is refused, and nothing takes the process down."""

from __future__ import annotations

import hashlib
import hmac
import stat
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt
import orjson
import pytest

from features.catalogue import Attribute, Catalogue
from features.derive import feature_names
from features.errors import BundleCorrupt, BundleMissing, FeatureMismatch
from features.home import Home
from models import bundle as bundles
from models.boosting import Booster, train
from models.bundle import Bundle, bundle_key, current, load, publish, write
from models.calibration import Calibration
from models.habits import Habits
from models.level import Level
from models.linear import fit_linear

KEY = bytes(range(32))
FEATURES = ("click_decayed_30d", "hours_since_last_open", "profile_plan", "größe, [cm]")
FILES = ("bundle.json", "model.lgb.txt", "golden.json", "MANIFEST.json", "SIGNATURE")


def rows(seed: int, count: int = 400) -> npt.NDArray[np.float64]:
    rng = np.random.default_rng(seed)
    matrix = rng.normal(size=(count, len(FEATURES)))
    matrix[:, 2] = rng.integers(-1, 5, count)
    matrix[rng.random(matrix.shape) < 0.1] = np.nan
    matrix[0] = [1e300, -1e300, -1, np.inf]
    return matrix


@pytest.fixture(scope="module")
def booster() -> Booster:
    matrix = np.nan_to_num(rows(0, 800), posinf=0)
    label = (matrix[:, 0] + matrix[:, 1] > 0).astype(np.float64)
    return train(
        matrix[:600],
        label[:600],
        features=FEATURES,
        categorical=["profile_plan"],
        validation=(matrix[600:], label[600:], None),
        parameters={"num_leaves": 5},
        rounds=8,
        patience=8,
    ).booster


def parts(booster: Booster | None, version: str = "7") -> Bundle:
    return Bundle(
        model="churn",
        version=version,
        features=FEATURES,
        catalogue=Catalogue(("shoes",), (Attribute("plan", ("free", "pro")),), ("Europe/Paris",)),
        booster=booster,
        calibration=Calibration("beta", 0.1 + 0.2, 1.3, -1 / 3, 0.2),
        priors={"probability": 0.1},
        parameters={"quantiles": [0.1, 0.2, 5e-324], "nested": {"a": None}},
        created_at=datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC),
        metrics={"auc": 0.75},
    )


@pytest.fixture
def written(booster: Booster, tmp_path: Path) -> Path:
    write(parts(booster), rows(1), tmp_path / "bundle", KEY)
    return tmp_path / "bundle"


def signed_again(directory: Path, key: bytes = KEY) -> None:
    """What somebody who has the key could write: hashes and signature made to fit the files."""
    manifest = orjson.loads((directory / "MANIFEST.json").read_bytes())
    for name in manifest["files"]:
        manifest["files"][name] = hashlib.sha256((directory / name).read_bytes()).hexdigest()
    content = orjson.dumps(manifest)
    (directory / "MANIFEST.json").write_bytes(content)
    (directory / "SIGNATURE").write_text(hmac.new(key, content, hashlib.sha256).hexdigest())


def test_what_was_written_is_what_is_loaded(written: Path, booster: Booster) -> None:
    loaded = load(written, KEY)
    wanted = parts(booster)
    for field in fields(Bundle):
        if field.name != "booster":
            assert getattr(loaded, field.name) == getattr(wanted, field.name), field.name
    assert loaded.booster is not None
    assert loaded.booster.text == booster.text
    assert loaded.booster.raw(rows(2)).tobytes() == booster.raw(rows(2)).tobytes()
    assert sorted(path.name for path in written.parent.iterdir()) == ["bundle"]


def test_a_bundle_without_a_booster_needs_no_golden_rows(tmp_path: Path) -> None:
    write(parts(None), np.empty((0, len(FEATURES))), tmp_path / "bundle", KEY)
    assert load(tmp_path / "bundle", KEY) == parts(None)
    assert not (tmp_path / "bundle" / "model.lgb.txt").exists()


def test_a_line_and_habits_go_along_and_are_checked_with_the_trees(tmp_path: Path) -> None:
    catalogue, rng = Catalogue(), np.random.default_rng(3)
    names = feature_names(catalogue)
    habits = Habits(names, "mails", 60.0)
    matrix = rng.gamma(1, 2, (200, len(names)))
    level = Level(habits, _small(np.zeros((1, 1)), ["a"]))
    inputs, label = level.inputs(matrix), (matrix[:, 0] > 1).astype(np.float64)
    line = fit_linear(inputs, label, codes=[], weight=np.ones(200), offset=np.zeros(200), share=0.4)
    whole = Bundle(
        **{
            **vars(parts(_small(inputs, level.reads, label))),
            **{"features": names, "catalogue": catalogue, "habits": habits, "line": line, "start": -0.3},
        }
    )
    write(whole, matrix, tmp_path / "bundle", KEY)
    loaded = load(tmp_path / "bundle", KEY)
    assert (loaded.habits, loaded.line, loaded.start) == (habits, line, -0.3)
    assert loaded.raw(matrix).tobytes() == whole.raw(matrix).tobytes()
    assert loaded.contributions(matrix[:3]).shape == (3, len(names) + 1)
    (tmp_path / "bundle" / "bundle.json").write_bytes(
        (tmp_path / "bundle" / "bundle.json").read_bytes().replace(b'"start":-0.3', b'"start":-0.4')
    )
    signed_again(tmp_path / "bundle")
    with pytest.raises(BundleCorrupt, match="golden rows"):
        load(tmp_path / "bundle", KEY)


def _small(
    matrix: npt.NDArray[np.float64], names: Sequence[str], label: npt.NDArray[np.float64] | None = None
) -> Booster:
    answers = np.zeros(len(matrix)) if label is None else label
    return train(matrix, answers, features=names, categorical=[], parameters={"num_leaves": 3}, rounds=3).booster


def test_writing_again_replaces_the_whole_directory(written: Path, booster: Booster) -> None:
    (written / "stray").touch()
    write(parts(booster, version="8"), rows(1), written, KEY)
    assert load(written, KEY).version == "8"
    assert not (written / "stray").exists()


def test_a_booster_trained_on_another_order_of_features_is_not_written(tmp_path: Path, booster: Booster) -> None:
    swapped = Bundle(**{**vars(parts(booster)), "features": FEATURES[::-1]})
    with pytest.raises(FeatureMismatch, match="same names in another order"):
        write(swapped, rows(1), tmp_path / "bundle", KEY)


def test_a_matrix_with_other_columns_is_refused_by_name(booster: Booster) -> None:
    parts(booster).refuse_other_features(FEATURES)
    with pytest.raises(FeatureMismatch, match="another order"):
        parts(booster).refuse_other_features(FEATURES[::-1])
    with pytest.raises(FeatureMismatch, match=r"absent.*profile_plan.*unexpected.*profile_tariff"):
        parts(booster).refuse_other_features([*FEATURES[:2], "profile_tariff", FEATURES[3]])


def test_no_directory_is_a_missing_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleMissing):
        load(tmp_path / "nowhere", KEY)


@pytest.mark.parametrize("name", FILES)
def test_any_flipped_bit_is_refused_before_parsing(written: Path, name: str) -> None:
    content = (written / name).read_bytes()
    rng = np.random.default_rng(3)
    for position in {0, len(content) - 1, *rng.integers(0, len(content), 60).tolist()}:
        damaged = bytearray(content)
        damaged[position] ^= 1 << int(rng.integers(8))
        (written / name).write_bytes(damaged)
        with pytest.raises(BundleCorrupt):
            load(written, KEY)


@pytest.mark.parametrize("name", FILES)
def test_any_truncation_or_addition_is_refused(written: Path, name: str) -> None:
    content = (written / name).read_bytes()
    for damaged in (b"", content[: len(content) // 2], content[:-1], content + b"\n"):
        (written / name).write_bytes(damaged)
        with pytest.raises(BundleCorrupt):
            load(written, KEY)
    (written / name).unlink()
    with pytest.raises(BundleCorrupt, match="cannot be read"):
        load(written, KEY)


def test_another_key_is_refused(written: Path) -> None:
    with pytest.raises(BundleCorrupt, match="signature"):
        load(written, KEY[::-1])


@pytest.mark.parametrize("cut", [0.3, 0.5, 0.9])
def test_a_signed_text_that_breaks_lightgbm_only_breaks_the_child(written: Path, cut: float) -> None:
    text = (written / "model.lgb.txt").read_bytes()
    (written / "model.lgb.txt").write_bytes(text[: int(len(text) * cut)])
    signed_again(written)
    with pytest.raises(BundleCorrupt, match=r"parsing its model|cannot be parsed|other scores"):
        load(written, KEY)


def test_a_signed_text_that_kills_its_process_is_refused(written: Path) -> None:
    text = (written / "model.lgb.txt").read_bytes()
    (written / "model.lgb.txt").write_bytes(text.replace(b"\n", b"\r\n"))
    signed_again(written)
    with pytest.raises(BundleCorrupt, match=r"ended the checking process \(SIG"):
        load(written, KEY)


def test_a_signed_text_that_scores_otherwise_is_refused(written: Path, booster: Booster) -> None:
    leaf = next(line for line in booster.text.splitlines() if line.startswith("leaf_value="))
    # The same length, as the text states the size of each tree; one digit, far behind the point.
    other = leaf[:-3] + ("1" if leaf[-3] != "1" else "2") + leaf[-2:]
    (written / "model.lgb.txt").write_text(booster.text.replace(leaf, other))
    signed_again(written)
    with pytest.raises(BundleCorrupt, match="golden rows"):
        load(written, KEY)


def test_a_signed_bundle_that_names_other_features_is_refused(written: Path) -> None:
    spec = orjson.loads((written / "bundle.json").read_bytes())
    spec["features"] = spec["features"][::-1]
    (written / "bundle.json").write_bytes(orjson.dumps(spec))
    signed_again(written)
    with pytest.raises(BundleCorrupt, match="other features"):
        load(written, KEY)


def test_a_signed_bundle_of_another_shape_is_refused(written: Path) -> None:
    (written / "bundle.json").write_bytes(b'{"features": 3}')
    signed_again(written)
    with pytest.raises(BundleCorrupt, match="cannot be read"):
        load(written, KEY)


def test_a_model_that_hangs_is_given_up(written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundles, "CHECK_SECONDS", 0.01)
    with pytest.raises(BundleCorrupt, match=r"more than 0\.01 s"):
        load(written, KEY)


def test_the_key_is_made_once_and_readable_by_its_owner_alone(tmp_path: Path) -> None:
    home = Home(tmp_path)
    with ThreadPoolExecutor(8) as pool:
        keys = set(pool.map(lambda _: bundle_key(home), range(16)))
    assert len(keys) == 1
    assert len(keys.pop()) == 32
    assert stat.S_IMODE((home.var / "bundle.key").stat().st_mode) == 0o600
    assert [path.name for path in home.var.iterdir()] == ["bundle.key"]


def test_half_a_key_is_no_key(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.var.mkdir()
    (home.var / "bundle.key").write_bytes(b"half")
    with pytest.raises(BundleCorrupt, match="32 bytes"):
        bundle_key(home)


def test_publishing_moves_the_pointer_and_keeps_the_version_before(tmp_path: Path, booster: Booster) -> None:
    home = Home(tmp_path)
    assert current(home, "churn") is None
    for version in ("7", "8"):
        write(parts(booster, version), rows(1), tmp_path / f"made-{version}", bundle_key(home))
        published = publish(home, "churn", version, tmp_path / f"made-{version}")
        assert current(home, "churn") == published == home.bundles / "churn" / version
    assert publish(home, "churn", "7", home.bundles / "churn" / "7") == current(home, "churn")
    assert sorted(path.name for path in (home.bundles / "churn").iterdir()) == ["7", "8", "current.json"]


def test_what_does_not_load_is_not_published(tmp_path: Path, booster: Booster) -> None:
    home = Home(tmp_path)
    write(parts(booster), rows(1), tmp_path / "good", bundle_key(home))
    publish(home, "churn", "7", tmp_path / "good")
    write(parts(booster, "8"), rows(1), tmp_path / "foreign", KEY)
    with pytest.raises(BundleCorrupt, match="signature"):
        publish(home, "churn", "8", tmp_path / "foreign")
    with pytest.raises(BundleCorrupt, match="it is churn 7, not churn 9"):
        publish(home, "churn", "9", tmp_path / "good")
    with pytest.raises(BundleMissing):
        publish(home, "churn", "9", tmp_path / "nowhere")
    assert current(home, "churn") == home.bundles / "churn" / "7"
    assert sorted(path.name for path in (home.bundles / "churn").iterdir()) == ["7", "current.json"]


@pytest.mark.parametrize("content", [b"", b"{}", b"7", b'{"version": "../../secrets"}', b'{"version": ".."}'])
def test_a_pointer_to_nowhere_is_refused(tmp_path: Path, content: bytes) -> None:
    home = Home(tmp_path)
    (home.bundles / "churn").mkdir(parents=True)
    (home.bundles / "churn" / "current.json").write_bytes(content)
    with pytest.raises(BundleCorrupt):
        current(home, "churn")
