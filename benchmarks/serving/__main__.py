"""The command: prepare, measure, show, write.

What enters: options. What leaves: a table on the terminal and ``serving.json``. The promise: what was measured before
something failed is shown and written all the same.
"""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Annotated, get_args

import typer

from benchmarks.report import Measured, show, write_json
from benchmarks.serving.contenders import Bench, Database
from benchmarks.serving.data import prepare_data
from benchmarks.serving.measures import MEASURES
from features.errors import UnusableOption
from pipelines.console import Narrator

HERE = Path("var/benchmarks/serving")
SUBSCRIBERS, FEW_SUBSCRIBERS = 50_000, 5_000


def main(
    quick: Annotated[bool, typer.Option("--quick", help="Few rounds, 5,000 subscribers: does it run?")] = False,
    only: Annotated[list[str] | None, typer.Option(help=f"One of {', '.join(MEASURES)}; repeat for more.")] = None,
    out: Annotated[Path, typer.Option(help="Directory for serving.json.")] = HERE,
    work: Annotated[Path, typer.Option(help="Keeps the list, the fits and the stores between runs.")] = HERE / "work",
    database: Annotated[list[str] | None, typer.Option(help="sqlite or redis; both unless given.")] = None,
    subscribers: Annotated[int | None, typer.Option(help="Size of the list; 50,000, or 5,000 with --quick.")] = None,
) -> None:
    """Measure the serving path beside the stock stack and the floor."""
    _silence_vendors()
    names = only or list(MEASURES)
    for name in names:
        if name not in MEASURES:
            raise UnusableOption("--only", f"{name!r} is none of {', '.join(MEASURES)}")
    databases = tuple(one for one in get_args(Database) if one in (database or get_args(Database)))
    if not databases:
        raise UnusableOption("--database", "give sqlite or redis")
    count = subscribers or (FEW_SUBSCRIBERS if quick else SUBSCRIBERS)
    narrator, measured = Narrator(), list[Measured]()
    directory = (work / str(count)).resolve()
    data = prepare_data(directory, count, narrator)
    settings = {
        "quick": quick,
        "subscribers": count,
        "features": len(data.features.names),
        "row_bytes": data.states.dtype.itemsize,
        "measures": names,
        "databases": databases,
    }
    document = out / "serving.json"
    try:
        with Bench(data, directory, narrator, quick, databases) as bench:
            for name in names:
                measured.append(MEASURES[name](bench))
                write_json(document, settings, measured)
    finally:
        show(narrator.console, "Serving, beside the stock stack and the floor", measured)
        narrator.say(f"Every round is in {document}.")


def _silence_vendors() -> None:
    """Ibis' and MLflow's deprecations and MLflow's news of its own database."""
    warnings.simplefilter("ignore", DeprecationWarning)
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)


if __name__ == "__main__":
    typer.run(main)
