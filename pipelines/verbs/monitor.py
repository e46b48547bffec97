"""`inbox monitor`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Column, Table

from pipelines.console import Narrator
from pipelines.monitor import Monitored, monitor
from pipelines.monitor_page import COLUMNS, row, verdicts, write_findings
from pipelines.verbs.options import HERE, HomeOption, ModelsArgument, chosen_models, home_at


def command(
    models: ModelsArgument = None,
    out: Annotated[
        Path | None, typer.Option(help="Directory for monitor.json and monitor.html; var/reports unless given.")
    ] = None,
    home: HomeOption = HERE,
) -> None:
    """Hold what the service said against what happened since: drift, quality, and what deciding send times is worth.

    Exit code 1 when something needs a person, which is said.

    Example: [bold]inbox monitor send_time --out var/reports[/]
    """
    narrator, place = Narrator(), home_at(home)
    with narrator.step("join predictions to outcomes"):
        found = monitor(place, chosen_models(models))
    target = out or place.reports
    with narrator.step("write the findings"):
        write_findings(found, target)
    _tell(narrator, found)
    narrator.say(summary(found, target))
    raise typer.Exit(1 if found.alarms else 0)


def _tell(narrator: Narrator, found: Monitored) -> None:
    table = Table(*(Column(name, overflow="fold") for name in COLUMNS))
    for seen in found.watched:
        table.add_row(*row(seen))
    narrator.console.print(table)
    for seen in found.watched:
        for note in seen.notes:
            narrator.say(f"  {seen.model}: {escape(note)}")
        if seen.experiment is not None:
            for words in verdicts(seen.experiment):
                narrator.say(f"  {seen.model}: {escape(words)}")
    for words in found.alarms:
        narrator.say(f"  [yellow]look[/] {escape(words)}")


def summary(found: Monitored, target: Path) -> str:
    """The last line."""
    rows = sum(seen.predictions for seen in found.watched)
    judged = sum(seen.outcomes.judged for seen in found.watched)
    needs = f"{len(found.alarms)} thing(s) need a person" if found.alarms else "nothing needs a person"
    return (
        f"Monitored {len(found.watched)} models: {rows:,} predictions, {judged:,} with an outcome; {needs}. "
        f"Read {target / 'monitor.html'}."
    )
