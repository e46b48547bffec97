"""`inbox materialize`."""

from __future__ import annotations

from typing import Annotated

import typer

from features.clock import parse_instant
from pipelines.console import Narrator
from pipelines.materialize import materialize
from pipelines.verbs.options import HERE, HomeOption, home_at


def command(
    as_of: Annotated[str | None, typer.Option(help="Instant in UTC; just after the log's end unless given.")] = None,
    home: HomeOption = HERE,
) -> None:
    """Write everybody's state to the online store. Running it again changes nothing.

    Example: [bold]inbox materialize[/]
    """
    narrator = Narrator()
    moment = parse_instant(as_of, "--as-of") if as_of else None
    with narrator.step("materialize") as share:
        done = materialize(home_at(home), share, moment)
    narrator.say(f"{done.subscribers:,} subscribers as of {done.as_of:%Y-%m-%d %H:%M} UTC.")
