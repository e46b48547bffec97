"""The command: run every task, show, write.

What enters: options. What leaves: a table on the terminal and ``quality.json``. The promise: a set that is not there is said
to be skipped, and what was measured before something failed is written all the same.
"""

from __future__ import annotations

import logging
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import orjson
import pyarrow.parquet as pq
import typer
from rich.table import Table

from benchmarks.quality.humans import ablation, planted, simulated
from benchmarks.quality.oracle import shares, states_of, truth_of
from benchmarks.quality.people import unseen_people
from benchmarks.quality.tasks import TASKS, Task
from features.clock import microseconds
from features.errors import UnusableOption
from features.home import Home
from features.log import EventLog
from pipelines.about import about_files
from pipelines.backtest import Files, backtest, folder_of, plan
from pipelines.console import Narrator
from pipelines.simulator import START, simulate, write
from training.backtest import Judged
from training.evaluation import Interval

DATA = Path("../shared/data")
HERE = Path("var/benchmarks/quality")
SUBSCRIBERS, DAYS, SEEDS = 20_000, 270, (1, 2, 3)
FEW_SUBSCRIBERS, FEW_SEEDS = 3_000, (1,)
SIMULATED, HUMANS = "simulated", "humans"
HUMANS_SUBSCRIBERS, HUMANS_DAYS, HUMANS_SEEDS = 2_000, 240, (1, 2, 3)


@dataclass(frozen=True)
class Line:
    """One row of the table; ``figures`` maps a heading to what stands under it."""

    task: str
    goal: str
    figures: dict[str, str]
    details: dict[str, Any]


def main(
    quick: Annotated[
        bool, typer.Option("--quick", help="One small simulated list instead of three large ones.")
    ] = False,
    only: Annotated[
        list[str] | None, typer.Option(help="A directory's name, `simulated` or `humans`; repeat for more.")
    ] = None,
    data: Annotated[Path, typer.Option(help="Directory with a directory per list.")] = DATA,
    out: Annotated[Path, typer.Option(help="Directory for quality.json; also keeps the simulated lists.")] = HERE,
) -> None:
    """Measure every model on every list it can serve, beside baselines."""
    _silence_vendors()
    known = {*(task.directory for task in TASKS), SIMULATED, HUMANS}
    for name in only or ():
        if name not in known:
            raise UnusableOption("--only", f"{name!r} is none of {', '.join(sorted(known))}")
    narrator, lines = Narrator(), list[Line]()
    out.mkdir(parents=True, exist_ok=True)
    document = out / "quality.json"
    try:
        for line in _lines(data, out, only or sorted(known), quick, narrator):
            lines.append(line)
            document.write_bytes(orjson.dumps([asdict(one) for one in lines], option=orjson.OPT_INDENT_2))
    finally:
        _show(narrator, lines)
        narrator.say(f"All of it is in {document}.")


def _lines(data: Path, out: Path, wanted: list[str], quick: bool, narrator: Narrator) -> Iterator[Line]:
    for task in TASKS:
        if task.directory not in wanted:
            continue
        if not (data / task.directory).is_dir():
            narrator.say(f"  [yellow]skipped[/] {task.name}: there is no {data / task.directory}")
            continue
        narrator.say(f"[bold]{task.name}[/]")
        yield _measured(task, data / task.directory, narrator)
    if SIMULATED in wanted:
        for seed in FEW_SEEDS if quick else SEEDS:
            narrator.say(f"[bold]simulated list, seed {seed}[/]")
            yield from _simulated(out, seed, FEW_SUBSCRIBERS if quick else SUBSCRIBERS, narrator)
    if HUMANS in wanted:
        narrator.say("[bold]people and machines[/]")
        yield from _humans(data, FEW_SEEDS if quick else HUMANS_SEEDS)


def _humans(data: Path, seeds: Sequence[int]) -> Iterator[Line]:
    """People told from machines, by rule; then what it is worth to the models."""
    size = (HUMANS_SUBSCRIBERS, HUMANS_DAYS)
    lists = {"simulated": [simulated(seed, *size) for seed in seeds]}
    opens = data / "outspot" / "events.parquet"
    if opens.exists():
        lists["Outspot's opens with machines planted"] = [planted(opens, seed) for seed in seeds]
    for name, found in lists.items():
        for rule in found[0]:
            figures = {figure: _over([one[rule][figure] for one in found]) for figure in found[0][rule]}
            shown = {"ours": "; ".join(f"{figure} {told}" for figure, told in figures.items())}
            yield Line(f"people or machines, {name}: {rule}", "", shown, {"seeds": found})
    worth = [ablation(seed, *size) for seed in seeds]
    for model in worth[0]:
        shown = {"ours": "; ".join(f"{name} {_over([one[model][name] for one in worth])}" for name in worth[0][model])}
        yield Line(f"what it is worth: {model}, AUC by true labels", "", shown, {"seeds": worth})


def _over(values: Sequence[float]) -> str:
    """The mean, and from where to where the seeds lie."""
    return f"{sum(values) / len(values):.4f} ({min(values):.4f} to {max(values):.4f})"


def _measured(task: Task, directory: Path, narrator: Narrator) -> Line:
    begun = time.perf_counter()
    if task.kind == "people":
        judged = unseen_people(task, directory, narrator)
    else:
        with tempfile.TemporaryDirectory() as place:
            found = backtest(_files(directory), task.plan, Path(place), narrator)
        if found.hours is not None:
            figures = {
                "ours": _interval(found.hours.ours),
                "best baseline": f"everybody's histogram {_interval(found.hours.baseline)}",
                "gain": _interval(found.hours.gain),
            }
            return Line(task.name, task.goal, figures, {"hours": found.hours.metrics()})
        judged = found.judged
    if judged is None:
        return Line(task.name, task.goal, {"ours": "nothing could be judged"}, {})
    return Line(task.name, task.goal, _figures(judged), {"judged": judged, "seconds": time.perf_counter() - begun})


def _figures(judged: Judged) -> dict[str, str]:
    ours, best = judged.ours, max(judged.rivals, key=lambda rival: rival.evaluation.auc.value)
    return {
        "rows": f"{ours.rows:,}",
        "ours": f"AUC {_interval(ours.auc)}",
        "best baseline": f"{best.name} {_interval(best.evaluation.auc)}",
        "gain": _interval(best.gain.auc_gain),
        "log loss": f"{ours.log_loss.value:.3f}, baseline {best.evaluation.log_loss.value:.3f}",
        "ECE": _interval(ours.expected_calibration_error),
    }


def _simulated(out: Path, seed: int, subscribers: int, narrator: Narrator) -> Iterator[Line]:
    """Shares of the oracle's gain as of the log's end."""
    directory = out / f"simulated-{subscribers}-{DAYS}-{seed}"
    if not (directory / "events.parquet").exists():
        with narrator.step("simulate") as share:
            write(simulate(subscribers, DAYS, seed, share), directory)
    until = START + timedelta(days=DAYS)
    with tempfile.TemporaryDirectory() as place:
        backtest(_files(directory), plan("send_time", until), Path(place), narrator)
        weeks = pq.read_table(Path(place) / "send_time.parquet")
    with tempfile.TemporaryDirectory() as place, narrator.step("the truth"):
        log = EventLog(Home(Path(place)))
        files = _files(directory)
        log.append(files.events, files.subscribers, files.campaigns)
        ids = weeks["subscriber_id"].combine_chunks()
        states = states_of(folder_of(log, until, about_files(files.events)), ids, float(microseconds(until)))
    truth, zones = truth_of(directory, ids)
    for name, found in shares(weeks, states, zones, truth).items():
        figures = {
            "rows": f"{len(truth):,}",
            "ours": f"{found.over_uniform:.3f} of the oracle's gain over a uniform hour",
            "gain": f"{found.over_best_hour:+.3f} over the best single hour",
        }
        goal = ".47 / .18" if name == "ours" else ""
        yield Line(f"simulated list {seed}: {name}", goal, figures, asdict(found))


def _files(directory: Path) -> Files:
    campaigns = directory / "campaigns.parquet"
    return Files(
        directory / "events.parquet", directory / "subscribers.parquet", campaigns if campaigns.exists() else None
    )


def _interval(one: Interval) -> str:
    return f"{one.value:.3f} ({one.low:.3f} – {one.high:.3f})"


HEADINGS = ("rows", "ours", "best baseline", "gain", "log loss", "ECE")


def _show(narrator: Narrator, lines: list[Line]) -> None:
    table = Table("list and question", *HEADINGS, "goal")
    for line in lines:
        table.add_row(line.task, *(line.figures.get(name, "") for name in HEADINGS), line.goal)
    narrator.console.print(table)


def _silence_vendors() -> None:
    """Ibis' deprecations."""
    warnings.simplefilter("ignore", DeprecationWarning)
    logging.getLogger("mlflow").setLevel(logging.ERROR)


if __name__ == "__main__":
    typer.run(main)
