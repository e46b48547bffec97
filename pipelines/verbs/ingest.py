"""`inbox ingest`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from features.errors import UnusableOption
from features.log import EventLog, IntakeReport
from pipelines.about import about_files
from pipelines.console import Narrator
from pipelines.verbs.options import HERE, HomeOption, home_at


def command(
    events: Annotated[
        Path | None, typer.Option(help="Parquet, CSV or JSON Lines file, or a directory of them.")
    ] = None,
    subscribers: Annotated[Path | None, typer.Option(help="Likewise; profiles and attributes.")] = None,
    campaigns: Annotated[Path | None, typer.Option(help="Likewise; optional.")] = None,
    home: HomeOption = HERE,
) -> None:
    """Take events, subscribers and campaigns into the log.

    A bad row goes to quarantine with its reason and stops no other. Taking the same file twice changes nothing.

    Example: [bold]inbox ingest --events events.parquet --subscribers subscribers.parquet[/]
    """
    given = next((path for path in (events, subscribers, campaigns) if path is not None), None)
    if given is None:
        raise UnusableOption("--events", "give at least one of --events, --subscribers and --campaigns")
    narrator, place = Narrator(), home_at(home)
    # What the list says of itself is read first: when it is not understood, nothing is taken.
    about = about_files(given)
    with narrator.step("ingest") as share:
        report = EventLog(place).append(events, subscribers, campaigns, share)
        about.save(place)
    tell(narrator, report)


def tell(narrator: Narrator, report: IntakeReport) -> None:
    """Say what was taken and, by reason, what was not."""
    for reason, count in sorted(report.reasons.items(), key=lambda item: -item[1]):
        narrator.say(f"  [yellow]quarantined {count:,}[/]: {reason}")
    for note in report.notes:
        narrator.say(f"  [yellow]note[/]: {note}")
    narrator.say(report.summary())
