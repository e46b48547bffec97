"""`inbox retrain`."""

from __future__ import annotations

import re
from typing import Annotated

import typer

from features.errors import UnusableOption
from features.home import Home
from pipelines.console import Narrator
from pipelines.retrain import RUNNING, Ending, Step, exit_code, retrain, tuned_recipe
from pipelines.train import Recipe, TrainingRunning
from pipelines.verbs.options import (
    HERE,
    AllowFeatureOption,
    HomeOption,
    HorizonOption,
    ModelsArgument,
    chosen_models,
    home_at,
    horizons,
)
from training.tuning import Budget

COLOURS = {Ending.PROMOTED: "green", Ending.REFUSED: "yellow", Ending.UNTRAINABLE: "yellow"}


def command(
    models: ModelsArgument = None,
    tune: Annotated[
        str | None,
        typer.Option(help="Search for better parameters first: so many trials, like 30, or for so long, like 600s."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
    horizon: HorizonOption = None,
    allow_feature: AllowFeatureOption = None,
    home: HomeOption = HERE,
) -> None:
    """Train what is new in the log, judge it by the gates, and promote what passes. For cron or any orchestrator.

    An unchanged log is left alone; what was killed is taken up where it stopped.

    Exit codes: 0 promoted, or nothing new. 1 failed, the reason was said. 2 wrongly called. 3 refused by a gate: the champion
    stays. 4 not trainable on this list. 5 another training is at work. Of several models the first of 3, 4, 0 counts.

    Example: [bold]inbox retrain churn --tune 30[/]
    """
    narrator, place = Narrator(), home_at(home)
    recipe = _recipe(place, Recipe(horizons(horizon), tuple(allow_feature or ())), tune, narrator)
    try:
        steps = retrain(place, chosen_models(models), narrator, recipe, dry_run)
    except TrainingRunning as error:
        narrator.say(f"[yellow]{error}[/]")
        raise typer.Exit(RUNNING) from None
    for step in steps:
        narrator.say(f"  {_line(step)}")
    endings = [step.ending for step in steps]
    counts = (f"{endings.count(ending)} {ending}" for ending in dict.fromkeys(endings))
    narrator.say(f"Retrain: {', '.join(counts)}.")
    raise typer.Exit(exit_code(steps))


def _recipe(home: Home, recipe: Recipe, tune: str | None, narrator: Narrator) -> Recipe:
    return recipe if tune is None else tuned_recipe(home, recipe, budget(tune), narrator)


def budget(text: str) -> Budget:
    """
    >>> budget("30"), budget("600s")
    (Budget(trials=30, seconds=inf), Budget(trials=10000, seconds=600.0))
    """
    found = re.fullmatch(r"([1-9]\d{0,5})(s?)", text.strip())
    if found is None:
        raise UnusableOption("--tune", f"{text!r} is no budget; give trials, like 30, or seconds, like 600s")
    return Budget(10_000, float(found[1])) if found[2] else Budget(int(found[1]))


def _line(step: Step) -> str:
    colour = COLOURS.get(step.ending)
    ending = f"[{colour}]{step.ending}[/]" if colour else step.ending.value
    version = f" version {step.version}" if step.version else ""
    words = step.words.removeprefix(f"{step.ending}; ")
    return f"[bold]{step.model}[/]{version} {ending}: {words}"
