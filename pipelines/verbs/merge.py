"""`inbox merge`."""

from __future__ import annotations

from typing import Annotated

import typer

from pipelines.console import Narrator
from pipelines.people import merge_people
from pipelines.verbs.options import HERE, HomeOption, home_at


def command(
    former: Annotated[str, typer.Argument(metavar="FROM", help="The id that is given up.")],
    into: Annotated[str, typer.Argument(metavar="INTO", help="The id that the person has from now on.")],
    home: HomeOption = HERE,
) -> None:
    """Two subscribers are one person: all that FROM did counts as done by INTO, also for earlier moments.

    The online store has the person's state at once; models learn of it when they are trained again. The same merge again
    changes nothing. It cannot be undone.

    Example: [bold]inbox merge s00042 s00017[/]
    """
    narrator, place = Narrator(), home_at(home)
    with narrator.step("merge"):
        done = merge_people(place, former, into)
    if done.failed:
        narrator.say("  [yellow]mind[/]: the state could not be folded anew; `inbox materialize` does it")
    state = "its state is folded anew" if done.refolded else "no state is stored yet"
    narrator.say(f"{'Merged' if done.merged.new else 'They were one already'}; {state}.")
