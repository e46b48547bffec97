"""`inbox doctor`."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Column, Table

from pipelines.console import Narrator
from pipelines.doctor import DEFAULT_PORT, Verdict, examine
from pipelines.verbs.options import HERE, HomeOption, home_at

COLOURS = {Verdict.OK: "green", Verdict.MISSING: "yellow", Verdict.BROKEN: "red"}


def command(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Where a service would be.")] = DEFAULT_PORT,
    home: HomeOption = HERE,
) -> None:
    """Say what is configured, what is running, what is missing and how to mend it. Changes nothing.

    Exit code 1 when something is broken; what is merely missing is not.

    Example: [bold]inbox doctor[/]
    """
    narrator = Narrator()
    findings = examine(home_at(home), port)
    headers = (Column(name, overflow="fold") for name in ("part", "", "what is there", "to mend it"))
    table = Table(*headers, box=None, padding=(0, 2, 0, 0))
    for found in findings:
        verdict = f"[{COLOURS[found.verdict]}]{found.verdict.value}[/]"
        table.add_row(found.part, verdict, escape(found.detail), escape(found.remedy))
    narrator.console.print(table)
    counts = {verdict: sum(found.verdict is verdict for found in findings) for verdict in Verdict}
    narrator.say(", ".join(f"{count} {verdict.value}" for verdict, count in counts.items()) + ".")
    raise typer.Exit(1 if counts[Verdict.BROKEN] else 0)
