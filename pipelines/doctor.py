"""`inbox doctor`: what is configured, what is running, what is missing, and how to mend it.

What enters: a home. What leaves: findings, each with its remedy. The promise: looking changes nothing, and a broken part is a
finding, not a crash.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from importlib.metadata import PackageNotFoundError, version

from features.catalogue import Catalogue
from features.clock import instant
from features.contract import MODELS
from features.errors import ScoringError
from features.home import Home
from features.identity import Pseudonyms
from features.inbox import Inbox
from features.log import EventLog
from features.stores import open_store, place
from models.bundle import bundle_key, current, load
from models.registry import CHAMPION, Registry
from pipelines.about import about_home
from pipelines.serve import ready
from serving.keys import read_keys
from serving.settings import ServingSettings

PACKAGES = ("bentoml", "confluent-kafka", "duckdb", "feast", "ibis-framework", "lightgbm", "mlflow", "pyarrow")
LEAST_FREE_GIB = 2
DEFAULT_PORT = 3000


class Verdict(Enum):
    """How a finding should be read."""

    OK = "ok"
    MISSING = "missing"
    BROKEN = "broken"


@dataclass(frozen=True)
class Finding:
    """One part of the installation."""

    part: str
    verdict: Verdict
    detail: str
    remedy: str = ""


def examine(home: Home, port: int = DEFAULT_PORT) -> list[Finding]:
    """Look at every part; a part that raises is a broken one."""
    findings: list[Finding] = []
    for part, look in _PARTS.items():
        try:
            findings.extend(look(home))
        except ScoringError as error:
            findings.append(Finding(part, Verdict.BROKEN, str(error)))
    return [*findings, _service(port)]


def _python(home: Home) -> Iterator[Finding]:
    yield Finding("python", Verdict.OK, sys.version.split()[0])
    for name in PACKAGES:
        try:
            yield Finding(name, Verdict.OK, version(name))
        except PackageNotFoundError:
            yield Finding(name, Verdict.MISSING, "not installed", "pip install -r requirements.lock")


def _disk(home: Home) -> Iterator[Finding]:
    place = next(path for path in (home.root.resolve(), *home.root.resolve().parents) if path.exists())
    free = shutil.disk_usage(place).free / 2**30
    if free < LEAST_FREE_GIB:
        yield Finding("disk", Verdict.BROKEN, f"{free:.1f} GiB free", f"make room: {LEAST_FREE_GIB} GiB at least")
    else:
        yield Finding("disk", Verdict.OK, f"{free:.0f} GiB free at {place}")


def _log(home: Home) -> Iterator[Finding]:
    log = EventLog(home)
    if not home.event_log.exists():
        yield Finding("event log", Verdict.MISSING, "empty", "inbox ingest --events FILE --subscribers FILE")
        return
    start, end = log.start(), log.end()
    age = datetime.now(UTC) - end
    detail = f"{about_home(home).title}: {start:%Y-%m-%d} to {end:%Y-%m-%d %H:%M} UTC"
    if age > timedelta(days=7):
        old = f"{detail}; its last event came {age.days:,} days ago"
        yield Finding("event log", Verdict.OK, old, "ingest newer events, or `inbox serve --replay` to replay it")
    else:
        yield Finding("event log", Verdict.OK, detail)
    files = list(home.quarantine.glob("*.parquet"))
    if files:
        yield Finding("quarantine", Verdict.OK, f"{len(files)} file(s) of refused rows", f"read {home.quarantine}")


def _inbox(home: Home) -> Iterator[Finding]:
    """What was accepted and is not in the log yet: the next verb that reads the log takes it in."""
    if not home.inbox.exists():
        return
    inbox = Inbox(home)
    newest, waiting = inbox.newest(), inbox.waiting()
    if newest is None:
        yield Finding("inbox", Verdict.OK, "empty")
    else:
        detail = f"last event {instant(newest):%Y-%m-%d %H:%M} UTC; {waiting:,} wait for the log"
        yield Finding("inbox", Verdict.OK, detail, "inbox materialize" if waiting else "")


def _identity(home: Home) -> Iterator[Finding]:
    if home.identity.exists():
        key = Pseudonyms.load(home).key_id
        detail = f"addresses become ids under key {key}; {home.identity} belongs into a backup of its own"
        yield Finding("identity", Verdict.OK, detail)


def _catalogue(home: Home) -> Iterator[Finding]:
    if not home.catalogue.exists():
        yield Finding("catalogue", Verdict.MISSING, "nothing learnt yet", "inbox train")
        return
    catalogue = Catalogue.load(home.catalogue)
    detail = (
        f"{len(catalogue.content)} categories, {len(catalogue.attributes)} attributes, {len(catalogue.fields)} fields"
    )
    yield Finding("catalogue", Verdict.OK, detail)
    if not home.registry.exists():
        yield Finding("feast registry", Verdict.MISSING, "not applied", "inbox train")
    else:
        yield Finding("feast registry", Verdict.OK, str(home.registry))


def _online(home: Home) -> Iterator[Finding]:
    where, store = place(home), open_store(home)
    to_be_made = home.store_url is None and not home.online.exists()
    newest = None if to_be_made else store.newest()
    if newest is None:
        yield Finding(
            "online store", Verdict.MISSING, f"{where} is empty: everybody gets the prior", "inbox materialize"
        )
        return
    detail = f"{store.count():,} subscribers as of {instant(newest):%Y-%m-%d %H:%M} UTC in {where}"
    if EventLog(home).end() >= instant(newest):
        yield Finding("online store", Verdict.OK, f"{detail}; the log is newer", "inbox materialize")
    else:
        yield Finding("online store", Verdict.OK, detail)


def _models(home: Home) -> Iterator[Finding]:
    if not (home.mlruns / "mlflow.db").exists():
        yield Finding("mlflow", Verdict.MISSING, "no run yet", "inbox train")
        return
    registry = Registry(home.tracking_uri, home.mlruns / "artifacts")
    yield Finding("mlflow", Verdict.OK, home.tracking_uri)
    for model in MODELS:
        versions = registry.versions(model)
        champion = next((found.version for found in versions if CHAMPION in found.aliases), None)
        yield _model(home, model, len(versions), champion)


def _model(home: Home, model: str, versions: int, champion: str | None) -> Finding:
    if not versions:
        return Finding(model, Verdict.MISSING, "never trained", f"inbox train {model} (it says why if it cannot)")
    directory = current(home, model)
    if directory is None or champion is None:
        return Finding(model, Verdict.MISSING, f"{versions} version(s), none serves", f"inbox promote {model}")
    try:
        served = load(directory, bundle_key(home)).version
    except ScoringError as error:
        return Finding(model, Verdict.BROKEN, str(error), f"inbox promote {model} --version {champion}")
    if served != champion:
        detail = f"{served} is published but {champion} is champion"
        return Finding(model, Verdict.BROKEN, detail, f"inbox promote {model} --version {champion}")
    return Finding(model, Verdict.OK, f"version {served} of {versions} serves; its bundle verifies")


def _keys(home: Home) -> Iterator[Finding]:
    keys = read_keys(ServingSettings(home=home.root).keys)
    if keys:
        yield Finding("API keys", Verdict.OK, ", ".join(record.name for record in keys))
    else:
        yield Finding("API keys", Verdict.MISSING, "none: every request would be refused", "inbox serve --new-key NAME")


def _service(port: int) -> Finding:
    url = f"http://127.0.0.1:{port}"
    if ready(url):
        return Finding("service", Verdict.OK, f"one is ready at {url} (of whichever home it was started for)")
    return Finding("service", Verdict.MISSING, f"nothing ready at {url}", "inbox serve")


_PARTS: dict[str, Callable[[Home], Iterator[Finding]]] = {
    "python": _python,
    "disk": _disk,
    "event log": _log,
    "inbox": _inbox,
    "identity": _identity,
    "catalogue": _catalogue,
    "online store": _online,
    "mlflow": _models,
    "API keys": _keys,
}
