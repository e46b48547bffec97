"""`inbox forget`."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from features.errors import UnusableOption
from pipelines.console import Narrator
from pipelines.people import forget_person
from pipelines.verbs.options import HERE, HomeOption, home_at


def command(
    subscriber_id: Annotated[str, typer.Argument(help="Any id the person has or had, or the address.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    home: HomeOption = HERE,
) -> None:
    """Remove a person: events, profile, state, predictions, lead books, merged ids included. It cannot be undone.

    What is told again of the time before is refused; of the id only a digest is kept for that. Models stay as they are:
    they hold no row of anybody. Exports and reports are yours to replace.

    Example: [bold]inbox forget s00042 --yes[/]
    """
    if not yes:
        _confirm()
    narrator, place = Narrator(), home_at(home)
    with narrator.step("forget"):
        gone = forget_person(place, subscriber_id)
    events = gone.events
    for path in gone.left:
        narrator.say(f"  [yellow]mind[/]: files in {path} may name the person; remove them or write them again")
    done = gone.states + gone.predictions + events.events + events.profiles + events.quarantined
    if gone.again and not done:
        narrator.say("The person was forgotten already.")
    narrator.say(
        f"Removed {events.events:,} events, {events.profiles:,} profiles, {gone.states:,} states, {gone.predictions:,} rows "
        f"of predictions, trainings and lead books, {events.quarantined:,} rows in quarantine. Backups are not reached."
    )


def _confirm() -> None:
    if not sys.stdin.isatty():
        raise UnusableOption("--yes", "nobody is there to ask whether it is meant; give --yes")
    typer.confirm("Remove everything about this person? It cannot be undone.", abort=True)
