"""`inbox score`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import pyarrow.parquet as pq
import typer

from features.clock import parse_instant
from pipelines.console import Narrator
from pipelines.export import replacing
from pipelines.score import score_list
from pipelines.verbs.options import HERE, HomeOption, ModelsArgument, chosen_models, home_at


def command(
    models: ModelsArgument = None,
    out: Annotated[Path | None, typer.Option(help="Parquet file; var/exports/scores.parquet unless given.")] = None,
    at: Annotated[
        str | None, typer.Option(help="Score as of this instant; just after the log's end unless given.")
    ] = None,
    explain: Annotated[bool, typer.Option("--explain", help="Add reasons; takes some 75 times as long.")] = False,
    home: HomeOption = HERE,
) -> None:
    """Score everybody in the log into one Parquet table, with the scorer that serves.

    Example: [bold]inbox score --explain --out scores.parquet[/]
    """
    narrator, place = Narrator(), home_at(home)
    moment = parse_instant(at, "--at") if at else None
    with narrator.step("score") as share:
        scored = score_list(place, share, moment, chosen_models(models), explain=explain)
    target = out or place.exports / "scores.parquet"
    with replacing(target) as beside:
        pq.write_table(scored, beside, compression="zstd")
    narrator.say(f"Scored {scored.num_rows:,} subscribers into {target}.")
