"""`inbox demo`: the whole loop, once, in front of a person.

What enters: nothing (a list is simulated) or a directory with the input contract's tables. What leaves: a log, three models or
the reasons why not, a served answer, an export, a report, and an account of all that. The promise: everything is the real
thing, the same functions the verbs call, and what was started is stopped.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from features.errors import ScoringError, UnusableOption
from features.home import Home
from features.log import EventLog
from pipelines.about import About, about_files, about_home
from pipelines.console import Narrator
from pipelines.inbox import files_taken
from pipelines.leads.book import lead_book
from pipelines.leads.files import NAMES, ExportFormat, write_leads
from pipelines.leads.selection import Selection
from pipelines.materialize import materialize
from pipelines.promote import promote
from pipelines.report.gather import make_report
from pipelines.serve import Running, running
from pipelines.simulator import simulate, write
from pipelines.train import Outcome, train_models
from pipelines.verbs.ingest import tell
from pipelines.verbs.train import describe
from serving.schemas import MAX_IDS

SUBSCRIBERS, DAYS, SEED = 4000, 270, 1
ONE_TIMES, THOUSAND_TIMES = 200, 20
EXPORTED: tuple[ExportFormat, ...] = ("csv", "xlsx", "parquet")


@dataclass(frozen=True)
class Latency:
    """Round-trip times over HTTP in milliseconds."""

    median_ms: float
    p99_ms: float


def run_demo(home: Home, data: Path | None, horizons: Mapping[str, timedelta], narrator: Narrator) -> None:
    """Run every station on one list.

    Raises
    ------
    UnusableOption
        When the home already holds another list, or the directory holds no events.
    DemoFailed
        When no model can be trained, or the service answers with an error.
    """
    begun = time.perf_counter()
    directory = data or home.var / "simulated"
    narrator.say("\n[bold]1. The list[/]")
    if data is None:
        _simulate(directory, narrator)
    about = _ingest(home, directory, narrator)
    narrator.say("\n[bold]2. Features and models[/]")
    outcomes = train_models(home, ("churn", "lead_score", "send_time"), narrator, horizons)
    for outcome in outcomes:
        narrator.say(f"    {describe(outcome)}")
    if not any(outcome.version for outcome in outcomes):
        raise DemoFailed("no model can be learnt from this list, for the reasons above; `inbox train` names them again")
    narrator.say("\n[bold]3. Into service[/]")
    _promote(home, outcomes, narrator)
    with narrator.step("materialize the online store") as share:
        done = materialize(home, share)
    narrator.say("\n[bold]4. Scores over HTTP[/]")
    _ask(home, done.as_of, narrator)
    narrator.say("\n[bold]5. For people[/]")
    exports, report = _write_down(home, outcomes, narrator)
    _look_around(home, about, exports, report, narrator)
    narrator.say(f"Done in {time.perf_counter() - begun:.0f} s.")


def _simulate(directory: Path, narrator: Narrator) -> None:
    title = f"simulate {SUBSCRIBERS:,} subscribers over {DAYS} days"
    with narrator.step(title) as share:
        write(simulate(SUBSCRIBERS, DAYS, SEED, share), directory)
    narrator.say("    [yellow]SIMULATED[/]: nobody in this list exists; the truth behind it is beside it.")


def _ingest(home: Home, directory: Path, narrator: Narrator) -> About:
    events = directory / "events.parquet"
    if not events.exists():
        raise UnusableOption("--data", f"{directory} holds no events.parquet (input contract v1)")
    about, before = about_files(events), about_home(home)
    if (home.var / "log" / "events").exists() and before.name != about.name:
        raise UnusableOption("--home", f"{home.root} already holds {before.name!r}; give the demo a home of its own")
    subscribers, campaigns = (_if_there(directory / f"{name}.parquet") for name in ("subscribers", "campaigns"))
    about.save(home)
    with narrator.step("ingest") as share:
        report = EventLog(home).append(events, subscribers, campaigns, share)
        files_taken(home)
    tell(narrator, report)
    for caveat in about.caveats:
        narrator.say(f"    [yellow]mind[/]: {caveat}")
    return about


def _if_there(path: Path) -> Path | None:
    return path if path.exists() else None


def _promote(home: Home, outcomes: Sequence[Outcome], narrator: Narrator) -> None:
    for outcome in outcomes:
        if outcome.version is None:
            continue
        with narrator.step(f"promote {outcome.spec.name} {outcome.version}"):
            # A demo shows the whole loop even where a model is no better than its baseline; the record says it was forced.
            promote(home, outcome.spec.name, outcome.version, "demo", force=True)


def _ask(home: Home, now: datetime, narrator: Narrator) -> None:
    with ExitStack() as until_done:
        with narrator.step("start the service"):
            served = until_done.enter_context(running(home, now=now))
        _show_answers(home, served, narrator)
    narrator.say("    The service was stopped again.")


def _show_answers(home: Home, served: Running, narrator: Narrator) -> None:
    ids = _some_ids(home)
    with served.client() as client:
        first = _post(client, ids[:1])
        narrator.console.print_json(data=first["scores"][0])
        many = _post(client, ids)
        statuses = ", ".join(sorted({row["status"] for row in many["scores"]}))
        one, thousand = _timed(client, ids[:1], ONE_TIMES), _timed(client, ids, THOUSAND_TIMES)
        stranger = _post(client, ["nobody-we-know"])["scores"][0]["status"]
    models = len(many["models"])
    narrator.say(f"    one subscriber, {models} models: {one.median_ms:.1f} ms (p99 {one.p99_ms:.1f} ms)")
    rate = len(ids) / thousand.median_ms * 1000
    narrator.say(
        f"    {len(ids):,} subscribers, {models} models: {thousand.median_ms:.0f} ms, {rate:,.0f} subscribers/s; "
        f"statuses: {statuses}; a stranger: {stranger}"
    )


def _some_ids(home: Home) -> list[str]:
    con = EventLog(home).connect()
    found = con.to_pyarrow(con.table("subscribers").select("subscriber_id").order_by("subscriber_id").limit(MAX_IDS))
    return [str(subscriber_id) for subscriber_id in found["subscriber_id"].to_pylist()]


def _post(client: httpx.Client, ids: Sequence[str]) -> dict[str, Any]:
    answer = client.post("/v1/scores", json={"subscriber_ids": list(ids)})
    if answer.status_code != httpx.codes.OK:
        raise DemoFailed(f"the service answered {answer.status_code}")
    body: dict[str, Any] = answer.json()
    return body


def _timed(client: httpx.Client, ids: Sequence[str], times: int) -> Latency:
    took = []
    for _ in range(times):
        begun = time.perf_counter()
        _post(client, ids)
        took.append(1000 * (time.perf_counter() - begun))
    return Latency(float(np.median(took)), float(np.quantile(took, 0.99)))


class DemoFailed(ScoringError):
    """Something in the demo did not do what it should."""

    code = "demo_failed"


def _write_down(home: Home, outcomes: Sequence[Outcome], narrator: Narrator) -> tuple[list[Path], Path]:
    exports = _export(home, outcomes, narrator)
    refusals = {outcome.spec.name: outcome.refusal for outcome in outcomes if outcome.refusal is not None}
    return exports, make_report(home, narrator, refusals=refusals)


def _export(home: Home, outcomes: Sequence[Outcome], narrator: Narrator) -> list[Path]:
    if not any(outcome.spec.name == "lead_score" and outcome.version for outcome in outcomes):
        narrator.say("    no lead export: there is no lead score on this list")
        return []
    with narrator.step("score everybody with reasons") as share:
        book = lead_book(home, share)
    with narrator.step("write the lead export"):
        return [write_leads(book, Selection(), home.exports / NAMES[kind], kind).path for kind in EXPORTED]


def _look_around(home: Home, about: About, exports: Sequence[Path], report: Path, narrator: Narrator) -> None:
    at = "" if home.root.resolve() == Path.cwd() else f" --home {home.root}"
    narrator.say("\n[bold]Where to look[/]")
    narrator.say(f"  report       {report}")
    for path in exports:
        narrator.say(f"  export       {path}")
    narrator.say(
        f"  serve again  inbox serve --replay{at}   (API documentation at http://127.0.0.1:3000, the leads at /leads)"
    )
    narrator.say(f"  models       inbox models{at}; mlflow ui --backend-store-uri {home.tracking_uri}")
    narrator.say(
        f"  features     feast -c {'features/repo' if not at else home.root / 'var' / 'feast'} ui --host 127.0.0.1"
    )
    narrator.say(f"  anything     inbox doctor{at}\n")
    if about.simulated:
        narrator.say("[yellow]Everything above is about a SIMULATED list.[/]")
