"""`inbox export`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, get_args

import typer

from features.clock import parse_instant
from features.errors import BundleMissing, UnusableOption
from pipelines.about import about_home
from pipelines.console import Narrator
from pipelines.export import ExportContext, ExportFormat, write_leads
from pipelines.score import score_list
from pipelines.verbs.options import HERE, HomeOption, home_at

FORMATS: tuple[ExportFormat, ...] = get_args(ExportFormat)


def command(
    what: Annotated[str, typer.Argument(help="`leads`, the one export there is.")] = "leads",
    format: Annotated[
        list[str] | None, typer.Option(help=f"{', '.join(FORMATS)}; all unless given. Repeatable.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Directory; var/exports unless given.")] = None,
    at: Annotated[
        str | None, typer.Option(help="Score as of this instant; just after the log's end unless given.")
    ] = None,
    home: HomeOption = HERE,
) -> None:
    """Score everybody and write the leads, best first, with grades and reasons, for a marketer to open.

    Example: [bold]inbox export leads --format xlsx --out exports[/]
    """
    if what != "leads":
        raise UnusableOption("export", f"{what!r} is not known; `inbox export leads` is")
    narrator, place = Narrator(), home_at(home)
    moment = parse_instant(at, "--at") if at else None
    with narrator.step("score with reasons") as share:
        scored = score_list(place, share, moment, explain=True)
    if "lead_score_score" not in scored.column_names:
        raise BundleMissing(place.bundles / "lead_score")
    about = about_home(place)
    version, scored_at = scored["lead_score_model_version"][0].as_py(), scored["scored_at"][0].as_py()
    context = ExportContext(version, scored_at, about.simulated, about.name)
    for kind in _formats(format):
        with narrator.step(f"write {kind}"):
            summary = write_leads(scored, (out or place.exports) / f"leads.{kind}", kind, context)
        narrator.say(f"  {summary.path}: {summary.rows:,} leads")
    grades = ", ".join(f"{grade} {count:,}" for grade, count in summary.grades.items())
    left_out = f"{summary.no_consent:,} without consent, {summary.converted:,} converted before"
    narrator.say(f"Exported {summary.rows:,} leads ({grades}); left out: {left_out}.")


def _formats(asked: Sequence[str] | None) -> list[ExportFormat]:
    unknown = sorted(set(asked or ()) - set(FORMATS))
    if unknown:
        raise UnusableOption("--format", f"{unknown[0]!r} is not known; there are {', '.join(FORMATS)}")
    return [kind for kind in FORMATS if not asked or kind in asked]
