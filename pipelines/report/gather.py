"""From what is on disk to the report: `inbox export report`, and the last station of `inbox demo`.

What enters: a home. What leaves: the page. The promise: nothing is trained, promoted or exported here; what is missing is said
or left out, and the same home gives the same bytes.

A list without a model of leads has no lead book. Its people are scored on the spot then, so that churn and send times are told
of it, too.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import chain
from pathlib import Path

import pyarrow.parquet as pq

from features.catalogue import Catalogue
from features.contract import MODELS, SUBSCRIBER_COLUMNS
from features.errors import EmptyLog, StoreUnavailable
from features.fold import Folder
from features.home import Home
from features.log import EventLog
from models.registry import Registry, Version
from models.spec import ModelSpec
from models.specs import SPECS
from pipelines.about import About, about_home
from pipelines.console import Narrator, Share
from pipelines.inbox import drained
from pipelines.leads.changes import changes_of
from pipelines.monitor import current_experiment
from pipelines.promote import champion_of, open_registry
from pipelines.report.leads import strongest
from pipelines.report.page import ReportInput, write_report
from pipelines.report.people import People, of_book, of_scores
from pipelines.report.trust import HOURS_BASELINE, ModelCard, hours_card, model_card, refused_card
from pipelines.score import gathered, scored_parts
from serving.leads.book import Book, newest
from training.dataset import JUST_AFTER
from training.fit import JUDGEMENT, read_judgement
from training.labels import sends_by_hour
from training.week import Week, week

MEMORY_LIMIT = "1GB"
TOP_REASONS = 5
NO_SENDS = (
    "This list knows no sends: hours come from when people are active on their own, and no answer rate is claimed."
)
NEVER_TRAINED = (
    "No version of it is in service; inbox train makes one, or says why not, and inbox promote puts it there."
)
HOURS_METRIC = "hours_log_likelihood"
"""Among a run's metrics where send times were learnt without sends."""
REPORT = "report.html"


@dataclass(frozen=True)
class _Logged:
    """What the event log says."""

    folder: Folder
    start: datetime
    end: datetime
    facts: Mapping[str, str]
    has_sends: bool


def make_report(
    home: Home, narrator: Narrator, out: Path | None = None, refusals: Mapping[str, str] | None = None
) -> Path:
    """Gather all there is to tell and write the page; its path is returned.

    Parameters
    ----------
    out
        ``reports/report.html`` under the home unless given.
    refusals
        By model: why the training that has just been did not make it.

    Raises
    ------
    UnusableOption
        When the file cannot be written.
    UnreadableFile, BookUnreadable, RegistryFailed
        When something that is there cannot be read.
    """
    drained(home)
    with ExitStack() as until_written:
        with narrator.step("read the log"):
            logged = _logged(home)
        book = newest(home)
        people = None if book is None else of_book(book.path)
        versions = _champions(home)
        if book is None and logged is not None and versions and "lead_score" not in versions:
            with narrator.step("score everybody with reasons") as share:
                people = until_written.enter_context(_scored(home, logged.folder, share))
        with narrator.step("write the report"):
            report = _report(home, logged, book, people, _cards(home, versions, people, refusals or {}))
            return write_report(out or home.reports / REPORT, report)


def _report(
    home: Home, logged: _Logged | None, book: Book | None, people: People | None, cards: list[ModelCard]
) -> ReportInput:
    about = about_home(home)
    return ReportInput(
        title=about.name,
        simulated=about.simulated,
        list_facts=_facts(about, logged),
        models=cards,
        caveats=_caveats(about, cards),
        people=people,
        left_out=None if book is None else book.left_out,
        changes=None if book is None else changes_of(book),
        week=None if logged is None else _week(about, logged),
        has_sends=logged is not None and logged.has_sends,
        experiment=None if logged is None else current_experiment(home, logged.folder, logged.end),
        log_end=None if logged is None else logged.end,
        converts_within=_days(_horizon(about, "lead_score")),
        exports=_exports(home),
    )


def _logged(home: Home) -> _Logged | None:
    """None while no event was taken in."""
    log = EventLog(home)
    try:
        start, end = log.start(), log.end()
        folder = Folder(log.connect(MEMORY_LIMIT), Catalogue.known(home.catalogue))
    except EmptyLog:
        return None
    events = folder.con.table("events")
    has_sends = bool(folder.con.execute((events.event_type == "sent").any()))
    return _Logged(folder, start, end, list_facts(folder), has_sends)


def list_facts(folder: Folder) -> dict[str, str]:
    """Counts and dates a reader wants first."""
    events, subscribers = folder.con.table("events"), folder.con.table("subscribers")
    counted = events.aggregate(n=events.count(), first=events.occurred_at.min(), last=events.occurred_at.max())
    row = folder.con.to_pyarrow(counted).to_pylist()[0]
    people = folder.con.execute(subscribers.count())
    span = f"{row['first']:%d %b %Y} to {row['last']:%d %b %Y}" if row["n"] else "no events"
    return {"Subscribers": f"{people:,}", "Events": f"{row['n']:,}", "Time": span}


def _facts(about: About, logged: _Logged | None) -> dict[str, str]:
    known = {} if logged is None else dict(logged.facts)
    return known | {name: words for name, words in (("Origin", about.origin), ("Licence", about.licence)) if words}


def _caveats(about: About, cards: list[ModelCard]) -> list[str]:
    return [*about.caveats, *([NO_SENDS] if any(card.baseline_name == HOURS_BASELINE for card in cards) else [])]


def _exports(home: Home) -> list[str]:
    found = sorted(home.exports.iterdir()) if home.exports.is_dir() else []
    return [str(path) for path in found if not path.name.startswith(".")]


def _horizon(about: About, model: str) -> timedelta:
    return about.horizon(model) or SPECS[model].horizon


def _days(span: timedelta) -> str:
    days = span / timedelta(days=1)
    return "1 day" if days == 1 else f"{days:,.0f} days"


def _week(about: About, logged: _Logged) -> Week | None:
    spec = SPECS["send_time"]
    horizon = _horizon(about, spec.name)
    return week(sends_by_hour(logged.folder, spec.response, horizon, logged.start, logged.end + JUST_AFTER))


# --- cards


def _champions(home: Home) -> dict[str, Version]:
    """What serves, by model. A registry that is not there is not made."""
    if not home.mlruns.exists():
        return {}
    registry = open_registry(home)
    found = {model: champion_of(registry, model) for model in MODELS}
    return {model: version for model, version in found.items() if version is not None}


def _cards(
    home: Home, versions: Mapping[str, Version], people: People | None, refusals: Mapping[str, str]
) -> list[ModelCard]:
    registry = open_registry(home) if versions else None
    return [_card(registry, SPECS[model], versions.get(model), people, refusals.get(model)) for model in MODELS]


def _card(
    registry: Registry | None, spec: ModelSpec, version: Version | None, people: People | None, refusal: str | None
) -> ModelCard:
    if registry is None or version is None:
        return refused_card(spec, refusal or NEVER_TRAINED)
    if HOURS_METRIC in version.metrics:
        return hours_card(spec, version)
    kept = registry.artifact(version, JUDGEMENT)
    judgement = None if kept is None else read_judgement(kept)
    return model_card(spec, version.version, judgement, _common_reasons(people, spec.name))


def _common_reasons(people: People | None, model: str) -> list[str]:
    """What is most often somebody's strongest reason, numbers left out."""
    column = {"lead_score": "reasons_for", "churn": "churn_reasons"}.get(model)
    return [] if people is None or column is None else strongest(people, column, TOP_REASONS)


# --- people of a list that has no lead book


@contextmanager
def _scored(home: Home, folder: Folder, share: Share) -> Iterator[People | None]:
    """Everybody with the scores there are, in a file that is gone afterwards; None where nobody's state can be read."""
    with tempfile.TemporaryDirectory(dir=home.var) as room:
        path = Path(room) / "scored.parquet"
        try:
            _spill(home, path, share)
        except StoreUnavailable:
            yield None
            return
        own = [name for name in folder.con.table("subscribers").columns if name not in SUBSCRIBER_COLUMNS]
        profiles = folder.con.to_pyarrow(folder.con.table("subscribers").select("subscriber_id", *own))
        yield of_scores(path, profiles)


def _spill(home: Home, path: Path, share: Share) -> None:
    parts = gathered(scored_parts(home, share, explain=True))
    first = next(parts)
    with pq.ParquetWriter(path, first.schema, compression="lz4") as writer:
        for part in chain([first], parts):
            writer.write_table(part)
