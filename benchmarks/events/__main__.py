"""The command: prepare a list, measure, show, write.

What enters: options. What leaves: a table on the terminal and ``events.json``. The promise: what was measured before
something failed is shown and written all the same.
"""

from __future__ import annotations

import os
import shutil
import warnings
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.events.measures import MEASURES, Bench
from benchmarks.events.payloads import SendGridSender
from benchmarks.report import Measured, show, write_json
from features.errors import UnusableOption
from features.home import Home
from features.log import EventLog
from pipelines.console import Narrator
from pipelines.materialize import materialize
from pipelines.promote import promote
from pipelines.simulator import simulate, write
from pipelines.train import train_models

HERE = Path("var/benchmarks/events")
SUBSCRIBERS, DAYS, SEED = 4_000, 200, 1


def main(
    quick: Annotated[bool, typer.Option("--quick", help="Few rounds: does it run?")] = False,
    only: Annotated[list[str] | None, typer.Option(help=f"One of {', '.join(MEASURES)}; repeat for more.")] = None,
    out: Annotated[Path, typer.Option(help="Directory for events.json.")] = HERE,
) -> None:
    """Measure how events get in, beside their floors."""
    names = only or list(MEASURES)
    for name in names:
        if name not in MEASURES:
            raise UnusableOption("--only", f"{name!r} is none of {', '.join(MEASURES)}")
    warnings.simplefilter("ignore", DeprecationWarning)
    narrator, measured, work = Narrator(), list[Measured](), (out / "work").resolve()
    sender = SendGridSender()
    os.environ["INBOX_SENDGRID_PUBLIC_KEY"] = sender.public_key
    home = _home(work, narrator)
    # The day that is told lies well after the log: what bears on its events is in the inbox, as it is in the long run.
    end = EventLog(home).end() + timedelta(days=4)
    try:
        bench = Bench(home, work, narrator, quick, end, sender)
        for name in names:
            measured.append(MEASURES[name](bench))
            write_json(out / "events.json", {"quick": quick, "subscribers": SUBSCRIBERS, "measures": names}, measured)
    finally:
        show(narrator.console, "Events, beside their floors", measured)
        narrator.say(f"Every round is in {out / 'events.json'}.")


def _home(work: Path, narrator: Narrator) -> Home:
    """A fresh home with a list in service: every run begins with an empty inbox."""
    shutil.rmtree(work, ignore_errors=True)
    listed, home = work / "list", Home(work / "home")
    with narrator.step(f"simulate {SUBSCRIBERS:,} subscribers over {DAYS} days") as share:
        write(simulate(SUBSCRIBERS, DAYS, SEED, share), listed)
    with narrator.step("ingest") as share:
        EventLog(home).append(*(listed / f"{name}.parquet" for name in ("events", "subscribers", "campaigns")), share)
    for outcome in train_models(home, ("churn", "lead_score", "send_time"), narrator, {}):
        if outcome.version is not None:
            promote(home, outcome.spec.name, outcome.version, "benchmark", force=True)
    with narrator.step("materialize") as share:
        materialize(home, share)
    return home


if __name__ == "__main__":
    typer.run(main)
