"""`inbox materialize`."""

from __future__ import annotations

from typing import Annotated

import typer

from features.clock import parse_instant
from pipelines.console import Narrator
from pipelines.materialize import Materialized, materialize
from pipelines.verbs.options import HERE, HomeOption, home_at


def command(
    as_of: Annotated[str | None, typer.Option(help="Instant in UTC; just after the log's end unless given.")] = None,
    home: HomeOption = HERE,
) -> None:
    """Write everybody's state to the online store. Running it again changes nothing.

    A run that was interrupted is continued. Memory does not grow with the list.

    Example: [bold]inbox materialize[/]
    """
    narrator = Narrator()
    moment = parse_instant(as_of, "--as-of") if as_of else None
    with narrator.step("materialize") as share:
        done = materialize(home_at(home), share, moment)
    if done.started_over:
        narrator.say(
            "  [yellow]mind[/]: an interrupted run was for another log, catalogue, instant or store; done anew."
        )
    narrator.say(f"{_summary(done, narrator.seconds['materialize'])}.")


def _summary(done: Materialized, seconds: float) -> str:
    said = (
        f"{done.subscribers:,} subscribers as of {done.as_of:%Y-%m-%d %H:%M} UTC, {done.folded / seconds:,.0f} rows/s"
    )
    if not done.taken_over:
        return said
    return f"{said}; {done.taken_over} of {done.parts} parts were taken over from an interrupted run"
