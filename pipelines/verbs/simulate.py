"""`inbox simulate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipelines.console import Narrator
from pipelines.simulator import simulate, write


def command(
    out: Annotated[Path, typer.Option(help="Directory to write the tables to.")],
    subscribers: Annotated[int, typer.Option(help="How many people.")] = 3000,
    days: Annotated[int, typer.Option(help="Length of the log, from 2025-01-06 on.")] = 270,
    seed: Annotated[int, typer.Option(help="The same seed gives the same list, byte for byte.")] = 1,
) -> None:
    """Make a simulated list: the input contract's tables, and the truth behind them.

    Example: [bold]inbox simulate --subscribers 3000 --days 270 --seed 1 --out var/simulated[/]
    """
    narrator = Narrator()
    with narrator.step("simulate") as share:
        simulation = simulate(subscribers, days, seed, share)
    with narrator.step("write"):
        write(simulation, out)
    events = simulation.events.num_rows
    narrator.say(f"Wrote {events:,} SIMULATED events of {subscribers:,} subscribers over {days} days to {out}.")
