"""What every measure here is given: a short list in service, and how much time there is.

What enters: a work directory. What leaves: a ``Bench``. The promise: what takes long to make (the list, its models, the long
lists) is kept under the work directory and used again; delete it to begin anew.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from features.home import Home
from features.log import EventLog
from pipelines.about import about_files
from pipelines.console import Narrator
from pipelines.materialize import materialize
from pipelines.promote import promote
from pipelines.simulator import simulate, write
from pipelines.train import train_models

SUBSCRIBERS, DAYS, SEED = 4_000, 200, 1


@dataclass(frozen=True)
class Bench:
    """A list to measure on, trained, promoted and materialized."""

    home: Home
    work: Path
    narrator: Narrator
    quick: bool

    @property
    def rounds(self) -> int:
        return 2 if self.quick else 5


def prepared(work: Path, narrator: Narrator) -> Home:
    """The home under the work directory, made now or found there whole."""
    home, made = Home(work / "home"), work / "home.made"
    if made.exists():
        return home
    listed = work / "list"
    for half_made in (home.root, listed):
        shutil.rmtree(half_made, ignore_errors=True)
    with narrator.step(f"simulate {SUBSCRIBERS:,} subscribers over {DAYS} days") as share:
        write(simulate(SUBSCRIBERS, DAYS, SEED, share), listed)
    about_files(listed).save(home)
    with narrator.step("ingest") as share:
        EventLog(home).append(*(listed / f"{name}.parquet" for name in ("events", "subscribers", "campaigns")), share)
    for outcome in train_models(home, ("churn", "lead_score", "send_time"), narrator, {}):
        if outcome.version is not None:
            promote(home, outcome.spec.name, outcome.version, "benchmark", force=True)
    with narrator.step("materialize") as share:
        materialize(home, share)
    made.touch()
    return home


def seconds(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun
