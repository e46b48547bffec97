"""`inbox score`."""

from __future__ import annotations

from itertools import chain
from pathlib import Path
from typing import Annotated

import pyarrow.parquet as pq
import typer

from features.clock import parse_instant
from pipelines.console import Narrator
from pipelines.files import replacing
from pipelines.score import gathered, scored_parts
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
    target, rows = out or place.exports / "scores.parquet", 0
    with narrator.step("score") as share, replacing(target) as beside:
        parts = gathered(scored_parts(place, share, moment, chosen_models(models), explain=explain))
        first = next(parts)
        with pq.ParquetWriter(beside, first.schema, compression="zstd") as writer:
            for part in chain([first], parts):
                writer.write_table(part)
                rows += part.num_rows
    narrator.say(f"Scored {rows:,} subscribers into {target}.")
