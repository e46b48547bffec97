"""The command: prepare a list, measure, show, write.

What enters: options. What leaves: a table on the terminal and ``people.json``. The promise: what was measured before
something failed is shown and written all the same.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.people.bench import SUBSCRIBERS, Bench, prepared
from benchmarks.people.client import overhead
from benchmarks.people.exports import exports
from benchmarks.people.pages import leads_page, report_page
from benchmarks.people.rendering import killed, rendering
from benchmarks.report import Measured, show, write_json
from features.errors import UnusableOption
from pipelines.console import Narrator

HERE = Path("var/benchmarks/people")
MEASURES: dict[str, Callable[[Bench], Measured]] = {
    "rendering": rendering,
    "killed": killed,
    "overhead": overhead,
    "exports": exports,
    "leads": leads_page,
    "report": report_page,
}


def main(
    quick: Annotated[bool, typer.Option("--quick", help="Few rounds, short lists: does it run?")] = False,
    only: Annotated[list[str] | None, typer.Option(help=f"One of {', '.join(MEASURES)}; repeat for more.")] = None,
    out: Annotated[Path, typer.Option(help="Directory for people.json.")] = HERE,
    work: Annotated[Path, typer.Option(help="Keeps the lists between runs.")] = HERE / "work",
) -> None:
    """Measure what renderers and marketers get, beside what else they could use."""
    names = only or list(MEASURES)
    for name in names:
        if name not in MEASURES:
            raise UnusableOption("--only", f"{name!r} is none of {', '.join(MEASURES)}")
    warnings.simplefilter("ignore", DeprecationWarning)
    narrator, measured = Narrator(), list[Measured]()
    work.mkdir(parents=True, exist_ok=True)
    bench = Bench(prepared(work.resolve(), narrator), work.resolve(), narrator, quick)
    settings = {"quick": quick, "subscribers": SUBSCRIBERS, "measures": names}
    try:
        for name in names:
            measured.append(MEASURES[name](bench))
            write_json(out / "people.json", settings, measured)
    finally:
        show(narrator.console, "What people and renderers get", measured)
        narrator.say(f"Every round is in {out / 'people.json'}.")


if __name__ == "__main__":
    typer.run(main)
