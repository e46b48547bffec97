"""`inbox classify-events`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipelines.classify import classify, refuse_unusable, write_evidence, write_probabilities
from pipelines.classify_page import page
from pipelines.console import Narrator


def command(
    events: Annotated[Path, typer.Option(help="Parquet, CSV or JSON Lines file, or a directory of them.")],
    out: Annotated[Path, typer.Option(help="File to write event_id and human_probability to: .parquet or .csv.")],
    report: Annotated[
        Path | None,
        typer.Option(help="Directory for the evidence on each event, and what counting machines would change."),
    ] = None,
) -> None:
    """Say of every event how likely a person made it, and not a machine.

    Nothing needs to be labelled: what machines are like is learnt from the file itself. No log is touched.

    Example: [bold]inbox classify-events --events events.parquet --out human.parquet --report var/machines[/]
    """
    refuse_unusable(out)
    narrator = Narrator()
    found = classify(events, narrator)
    write_probabilities(found, out)
    if report:
        write_evidence(found, report, page(found))
    narrator.say(found.intake.summary())
    narrator.say(f"Judged {len(found.events):,} events, {found.machines:,} more likely a machine's; written to {out}.")
