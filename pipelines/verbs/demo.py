"""`inbox demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from features.errors import UnusableOption
from features.home import Home
from pipelines.about import FILE_NAME, about_home
from pipelines.console import Narrator
from pipelines.demo import run_demo
from pipelines.verbs.options import HERE, HorizonOption, home_at, horizons

SIMULATED = "simulated list"


def command(
    data: Annotated[
        Path | None,
        typer.Option(help=f"Directory with events.parquet, subscribers.parquet, campaigns.parquet and {FILE_NAME}."),
    ] = None,
    horizon: HorizonOption = None,
    home: Annotated[
        Path | None,
        typer.Option(help="Where to keep everything: here for the simulated list, var/demo/NAME for another."),
    ] = None,
) -> None:
    """Run the whole loop on a simulated list, or on yours: events in, scores out.

    Examples: [bold]inbox demo[/]; [bold]inbox demo --data examples/online_retail[/]
    """
    if data is not None and not data.is_dir():
        raise UnusableOption("--data", f"{data} is no directory")
    run_demo(_home(home, data), data, horizons(horizon), Narrator())


def _home(home: Path | None, data: Path | None) -> Home:
    """Lists are not mixed: the root is the simulated list's unless somebody's own list lives there."""
    if home is not None:
        return home_at(home)
    if data is not None:
        return Home(HERE / "var" / "demo" / data.resolve().name)
    here = Home(HERE)
    taken = here.event_log.exists() and not about_home(here).simulated
    return Home(HERE / "var" / "demo" / "simulated") if taken else here
