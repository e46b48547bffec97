"""`inbox promote`."""

from __future__ import annotations

from typing import Annotated

import typer

from features.errors import ModelError
from models.registry import CHALLENGER
from pipelines.console import Narrator
from pipelines.promote import promote
from pipelines.verbs.options import HERE, HomeOption, ModelsArgument, chosen_models, home_at


def command(
    models: ModelsArgument = None,
    version: Annotated[str, typer.Option(help="A version's number or alias; the newest challenger unless given.")] = (
        CHALLENGER
    ),
    reason: Annotated[str, typer.Option(help="Kept with the promotion.")] = "",
    force: Annotated[bool, typer.Option("--force", help="Whatever the gates said; it is recorded.")] = False,
    home: HomeOption = HERE,
) -> None:
    """Make registered versions the ones that serve: ask the gates' verdict, verify the bundle, publish, move the alias.

    Exit code 1 when a model was refused; the others are promoted all the same.

    Example: [bold]inbox promote churn --version 3 --reason "retrained on autumn"[/]
    """
    narrator, place, refused = Narrator(), home_at(home), 0
    for model in chosen_models(models):
        try:
            done = promote(place, model, version, reason, force)
        except ModelError as error:
            refused += 1
            narrator.say(f"  [yellow]{model}[/]: {error}")
        else:
            before = f"; before: version {done.replaced}" if done.replaced else ""
            narrator.say(f"  [bold]{model}[/] version {done.version} serves{before}")
    narrator.say(f"Promoted {len(chosen_models(models)) - refused} of {len(chosen_models(models))} models.")
    raise typer.Exit(1 if refused else 0)
