"""`inbox rollback`."""

from __future__ import annotations

from typing import Annotated

import typer

from features.contract import MODELS
from pipelines.console import Narrator
from pipelines.promote import rollback
from pipelines.verbs.options import HERE, HomeOption, chosen_models, home_at


def command(
    model: Annotated[str, typer.Argument(help=f"Which model: {', '.join(MODELS)}.")],
    to: Annotated[str | None, typer.Option(help="A version that served once; the one before unless given.")] = None,
    reason: Annotated[str, typer.Option(help="Kept with the rollback.")] = "",
    home: HomeOption = HERE,
) -> None:
    """Make the version that served before serve again: seconds, no restart. Once more goes further back.

    Exit code 1 when there is nothing to go back to.

    Example: [bold]inbox rollback churn --reason "complaints rose"[/]
    """
    narrator = Narrator()
    [chosen] = chosen_models([model])
    done = rollback(home_at(home), chosen, to, reason)
    narrator.say(f"[bold]{chosen}[/] version {done.version} serves again; taken back: version {done.replaced}.")
