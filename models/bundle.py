"""The bundle: the one directory serving loads, written whole, signed, and read with suspicion.

What enters: a fitted model's parts. What leaves: a directory, and from a directory the same parts. The promise: nothing
is parsed before its signature and hashes are verified, LightGBM's text is parsed in a child process first, and a load
gives either exactly what was written or a ``BundleCorrupt`` that says why.

::

    bundle.json     what the model is: ordered features, habits, line, catalogue, calibration, priors, parameters, metrics
    model.lgb.txt   LightGBM's native text (absent when the model has no booster)
    golden.json     rows of the feature matrix and the raw scores they must get of the whole model, to the bit
    MANIFEST.json   model, version, creation time, sha256 of each file above
    SIGNATURE       HMAC-SHA256 of MANIFEST.json, hexadecimal
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import orjson

from features.catalogue import Catalogue
from features.errors import BundleCorrupt, BundleMissing, FeatureMismatch, TrainerFailed
from features.home import Home
from models.boosting import Booster
from models.calibration import Calibration
from models.habits import Habits
from models.level import Level
from models.linear import Linear

Json: TypeAlias = Any
"""What JSON can say; mypy cannot follow a recursive alias through every use."""
Floats = npt.NDArray[np.float64]

FORMAT = 2
GOLDEN_ROWS = 32
CHECK_SECONDS = 20.0
"""How long the child process may take before its model counts as hanging."""
KEY_BYTES = 32

_SPEC, _TEXT, _GOLDEN, _MANIFEST, _SIGNATURE = (
    "bundle.json",
    "model.lgb.txt",
    "golden.json",
    "MANIFEST.json",
    "SIGNATURE",
)
_POINTER = "current.json"
# LightGBM imports pandas and scikit-learn when they are there; without them the child starts in a third of the time.
_CHILD = """
import sys
sys.modules.update(dict.fromkeys(("pandas", "sklearn")))
from models.bundle import check
sys.exit(check(sys.stdin.buffer.read()))
"""
_OTHER_SCORES, _OTHER_FEATURES = 3, 4
"""Exit status of the child when the golden rows get other scores, and when the trees read other columns than are named."""


@dataclass(frozen=True)
class Bundle:
    """Everything a scorer needs of one model version.

    ``features`` are the matrix's columns, in order. ``parameters`` are the model's own numbers, arrays as lists, and
    ``priors`` what to answer without features; in both, and in ``metrics``, a NaN comes back as None.
    """

    model: str
    version: str
    features: tuple[str, ...]
    catalogue: Catalogue
    booster: Booster | None
    calibration: Calibration
    priors: Mapping[str, Json]
    parameters: Mapping[str, Json]
    created_at: datetime
    metrics: Mapping[str, Json]
    habits: Habits | None = None
    """Columns the model reads beside its features."""
    line: Linear | None = None
    """What is averaged with the trees."""
    start: float = 0.0
    """What the trees add to."""

    @cached_property
    def level(self) -> Level | None:
        """What scores; None without a booster."""
        if self.booster is None:
            return None
        return Level(self.habits or Habits(self.features), self.booster, self.line, self.start)

    def raw(self, matrix: Floats) -> Floats:
        """Log-odds before calibration of a matrix with the bundle's features in order; 0 without a booster."""
        return np.zeros(len(matrix)) if self.level is None else self.level.raw(matrix)

    def contributions(self, matrix: Floats) -> Floats:
        """What each feature adds to ``raw``, shape (rows, features + 1), base last; all 0 without a booster."""
        return (
            np.zeros((len(matrix), len(self.features) + 1)) if self.level is None else self.level.contributions(matrix)
        )

    def refuse_other_features(self, found: Sequence[str]) -> None:
        """Compare a matrix's column names with the model's own, order included.

        Raises
        ------
        FeatureMismatch
            Naming what is absent, what is unexpected, or that only the order differs.
        """
        if tuple(found) != self.features:
            raise FeatureMismatch(self.model, self.features, found)


def write(bundle: Bundle, golden_rows: Floats, directory: Path, key: bytes) -> None:
    """Write a bundle beside its place, then rename it there: a reader sees all of it or nothing.

    Parameters
    ----------
    golden_rows
        Rows of the feature matrix, shape (rows, features). The first 32 are kept with their raw scores, infinities as
        NaN.
    directory
        Replaced when it exists.

    Raises
    ------
    FeatureMismatch
        When the booster's features are not the bundle's.
    """
    if bundle.level is not None and bundle.level.booster.features != bundle.level.reads:
        raise FeatureMismatch(bundle.model, bundle.level.reads, bundle.level.booster.features)
    files = _files(bundle, golden_rows[:GOLDEN_ROWS])
    manifest = _dumps(
        {
            "format": FORMAT,
            "model": bundle.model,
            "version": bundle.version,
            "created_at": bundle.created_at.isoformat(),
            "files": {name: hashlib.sha256(content).hexdigest() for name, content in files.items()},
        }
    )
    with _beside(directory) as place:
        for name, content in {**files, _MANIFEST: manifest, _SIGNATURE: _signature(manifest, key)}.items():
            _write_through(place / name, content)
        _take_the_place_of(directory, place)


def load(directory: Path, key: bytes) -> Bundle:
    """Read a bundle: verify, try in a child process, parse. The child takes about half a second.

    Raises
    ------
    BundleMissing
        When there is no such directory.
    BundleCorrupt
        On anything else than exactly what was written with this key.
    """
    if not directory.is_dir():
        raise BundleMissing(directory)
    with _corrupt_when_unreadable(directory):
        manifest, files = _verified(directory, key)
        bundle, text = _parsed(manifest, orjson.loads(files[_SPEC])), files.get(_TEXT)
        if text is None:
            return bundle
        _try_in_child(directory, text, files)
        return replace(bundle, booster=Booster.from_text(text.decode()))


def bundle_key(home: Home) -> bytes:
    """The signing key of one home, 32 bytes in ``var/bundle.key``, made on first use, readable by its owner alone.

    Raises
    ------
    BundleCorrupt
        When the file is no key.
    """
    path = home.var / "bundle.key"
    if not path.exists():
        _make_key(path)
    key = path.read_bytes()
    if len(key) != KEY_BYTES:
        raise BundleCorrupt(path, f"a key has {KEY_BYTES} bytes and this has {len(key)}; remove it")
    return key


def publish(home: Home, model: str, version: str, directory: Path) -> Path:
    """Make a bundle the one to serve: copy it under ``home.bundles``, load it there, then swap the pointer.

    Earlier versions stay where they are, so that publishing one again is a matter of seconds.

    Returns
    -------
    The published directory.

    Raises
    ------
    BundleMissing, BundleCorrupt
        When it does not load or is another model or version; the pointer stays as it was.
    """
    target = home.bundles / model / version
    if directory.resolve() == target.resolve():
        _refuse_other_identity(directory, load(directory, bundle_key(home)), model, version)
    else:
        _install(directory, target, model, version, bundle_key(home))
    pointer = target.parent / _POINTER
    with _beside(pointer) as place:
        _write_through(place / _POINTER, _dumps({"version": version}))
        (place / _POINTER).replace(pointer)
    return target


def current(home: Home, model: str) -> Path | None:
    """Directory of the bundle to serve, None when none was published.

    Raises
    ------
    BundleCorrupt
        When the pointer cannot be read or leads elsewhere than to a version of this model.
    """
    pointer = home.bundles / model / _POINTER
    if not pointer.exists():
        return None
    with _corrupt_when_unreadable(pointer):
        version: str = orjson.loads(pointer.read_bytes())["version"]
        if not re.fullmatch(r"\w[\w.-]*", version):
            raise BundleCorrupt(pointer, "it names no version")
        return pointer.parent / version


def check(payload: bytes) -> int:
    """What the child process does: parse the text, score the golden rows, say by exit status whether they agree."""
    request = orjson.loads(payload)
    spec, golden = request["spec"], request["golden"]
    level = Level(_habits(spec), Booster.from_text(request["text"]), _line(spec), spec["start"])
    if level.booster.features != level.reads:
        return _OTHER_FEATURES
    rows = np.array(golden["rows"], dtype=np.float64).reshape(len(golden["rows"]), len(spec["features"]))
    return 0 if level.raw(rows).tolist() == golden["raw"] else _OTHER_SCORES


def _files(bundle: Bundle, golden_rows: Floats) -> dict[str, bytes]:
    # JSON has no infinity, and what is scored here must be what a load reads.
    golden_rows = np.where(np.isfinite(golden_rows), golden_rows, np.nan)
    expected = [] if bundle.booster is None else bundle.raw(golden_rows).tolist()
    spec = {
        "features": bundle.features,
        "habits": None if bundle.habits is None else bundle.habits.to_json(),
        "line": None if bundle.line is None else bundle.line.to_json(),
        "start": bundle.start,
        "catalogue": orjson.loads(bundle.catalogue.to_json()),
        "calibration": bundle.calibration.to_json(),
        "priors": bundle.priors,
        "parameters": bundle.parameters,
        "metrics": bundle.metrics,
    }
    files = {_SPEC: _dumps(spec), _GOLDEN: _dumps({"rows": golden_rows.tolist(), "raw": expected})}
    return files if bundle.booster is None else {**files, _TEXT: bundle.booster.text.encode()}


def _verified(directory: Path, key: bytes) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The manifest and the content of every file it lists, read once: what is verified is what is used."""
    manifest_bytes = (directory / _MANIFEST).read_bytes()
    if not hmac.compare_digest((directory / _SIGNATURE).read_bytes(), _signature(manifest_bytes, key)):
        raise BundleCorrupt(directory, "its signature is not by this installation's key")
    manifest = orjson.loads(manifest_bytes)
    if manifest["format"] != FORMAT:
        raise BundleCorrupt(directory, f"its format is {manifest['format']} and {FORMAT} is understood")
    files = {name: (directory / name).read_bytes() for name in manifest["files"]}
    for name, content in files.items():
        if hashlib.sha256(content).hexdigest() != manifest["files"][name]:
            raise BundleCorrupt(directory, f"{name} is not the file that was signed")
    return manifest, files


def _parsed(manifest: Mapping[str, Any], spec: Mapping[str, Any]) -> Bundle:
    """Without the booster."""
    return Bundle(
        model=manifest["model"],
        version=manifest["version"],
        features=tuple(spec["features"]),
        catalogue=Catalogue.from_json(orjson.dumps(spec["catalogue"])),
        booster=None,
        calibration=Calibration.from_json(spec["calibration"]),
        priors=spec["priors"],
        parameters=spec["parameters"],
        created_at=datetime.fromisoformat(manifest["created_at"]),
        metrics=spec["metrics"],
        habits=None if spec["habits"] is None else _habits(spec),
        line=_line(spec),
        start=spec["start"],
    )


def _habits(spec: Mapping[str, Any]) -> Habits:
    features = tuple(spec["features"])
    return Habits(features) if spec["habits"] is None else Habits.from_json(spec["habits"], features)


def _line(spec: Mapping[str, Any]) -> Linear | None:
    return None if spec["line"] is None else Linear.from_json(spec["line"])


def _try_in_child(directory: Path, text: bytes, files: Mapping[str, bytes]) -> None:
    """Let another process risk the parsing: a damaged text can abort LightGBM, hang it, or load and score otherwise."""
    spec, golden = (orjson.Fragment(files[name]) for name in (_SPEC, _GOLDEN))
    payload = orjson.dumps({"text": text.decode(), "spec": spec, "golden": golden})
    try:
        done = subprocess.run(
            [sys.executable, "-c", _CHILD],
            input=payload,
            cwd=Path(__file__).resolve().parents[1],
            capture_output=True,
            timeout=CHECK_SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise BundleCorrupt(directory, f"parsing its model took more than {CHECK_SECONDS:g} s") from None
    if done.returncode != 0:
        raise BundleCorrupt(directory, _what_befell(done.returncode))


def _what_befell(status: int) -> str:
    if status == _OTHER_SCORES:
        return "its model gives the golden rows other scores than when it was written"
    if status == _OTHER_FEATURES:
        return "its booster was trained on other features than it names"
    if status < 0:
        return f"parsing its model ended the checking process ({signal.Signals(-status).name})"
    return f"its model cannot be parsed (exit status {status} of the checking process)"


@contextmanager
def _corrupt_when_unreadable(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, KeyError, TypeError, ValueError, AttributeError, TrainerFailed) as error:
        raise BundleCorrupt(path, f"it cannot be read ({type(error).__name__}: {str(error)[:200]})") from error


def _install(directory: Path, target: Path, model: str, version: str, key: bytes) -> None:
    if not directory.is_dir():
        raise BundleMissing(directory)
    with _beside(target) as place:
        shutil.copytree(directory, place, dirs_exist_ok=True)
        _refuse_other_identity(directory, load(place, key), model, version)
        _take_the_place_of(target, place)


def _refuse_other_identity(directory: Path, bundle: Bundle, model: str, version: str) -> None:
    if (bundle.model, bundle.version) != (model, version):
        raise BundleCorrupt(directory, f"it is {bundle.model} {bundle.version}, not {model} {version}")


def _make_key(path: Path) -> None:
    """Written aside and linked into place: of two processes one wins, and neither reads half a key."""
    with _beside(path) as place:
        descriptor = os.open(place / path.name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(KEY_BYTES))
            os.fsync(file.fileno())
        try:
            os.link(place / path.name, path)
        except FileExistsError:
            return


@contextmanager
def _beside(target: Path) -> Iterator[Path]:
    """A temporary directory in the same file system as ``target``, gone afterwards."""
    target.parent.mkdir(parents=True, exist_ok=True)
    place = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _take_the_place_of(target: Path, place: Path) -> None:
    """Rename ``place`` to ``target``. What stood there is moved into a temporary directory first and goes with it."""
    with _beside(target) as aside:
        if target.exists():
            target.rename(aside / target.name)
        place.rename(target)


def _write_through(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _signature(manifest: bytes, key: bytes) -> bytes:
    return hmac.new(key, manifest, hashlib.sha256).hexdigest().encode()


def _dumps(value: object) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_SORT_KEYS)
