"""Long lists made of a short one: as many leads as asked for, with real scores, reasons and attributes.

What enters: a home in service. What leaves: homes with a long list's profiles and states, and scored tables part by part.
The promise: every lead has an id of its own and a row that a real person of the short list has, so that scores, reasons
and attributes go together as they do; no part is longer than ``PART_ROWS``.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from features.catalogue import Catalogue
from features.contract import UTC_MICROSECONDS
from features.home import Home
from features.log import EventLog
from features.stores import open_store
from pipelines.console import Narrator
from pipelines.score import score_list

PART_ROWS = 50_000
CHANGED_SHARE = 0.1
"""Of the people of a later book, how many have somebody else's score."""


def scored(home: Home, work: Path, narrator: Narrator) -> pa.Table:
    """Everybody of the short list, scored with reasons; kept between runs."""
    path = work / "scored.parquet"
    if not path.exists():
        with narrator.step("score the short list with reasons") as share:
            table = score_list(home, share, explain=True)
        pq.write_table(table, path.with_suffix(".tmp"))
        path.with_suffix(".tmp").replace(path)
    return pq.read_table(path)


def parts(table: pa.Table, leads: int, day: int = 0) -> Iterator[pa.Table]:
    """A long list's scored table. On a later ``day`` a tenth of the people have another's lead score."""
    for start in range(0, leads, PART_ROWS):
        numbers = np.arange(start, min(start + PART_ROWS, leads))
        rows = table.take(pa.array(numbers % len(table)))
        if day:
            rows = _moved(rows, np.random.default_rng([day, start]))
        stamp = pc.add(rows["scored_at"], pa.scalar(timedelta(days=day))).cast(UTC_MICROSECONDS)
        rows = _with(rows, "scored_at", stamp)
        yield _with(rows, "subscriber_id", pa.array(ids_of(numbers)))


def ids_of(numbers: np.ndarray) -> list[str]:
    return [f"s{number:07d}" for number in numbers.tolist()]


def long_home(home: Home, target: Path, leads: int, narrator: Narrator) -> Home:
    """A copy of a home whose log knows this many people; it is made anew when it is of another size."""
    copy, made = Home(target), target / f"{leads}.made"
    if not made.exists():
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(home.root, target, ignore=shutil.ignore_patterns("simulated", "mlruns", "log", "leads"))
        with narrator.step(f"a log of {leads:,} people") as share:
            listed = _listed(home, target / "list", leads)
            EventLog(copy).append(*listed, None, share)
        made.touch()
    return copy


def fill_store(home: Home, copy: Home, leads: int, narrator: Narrator) -> None:
    """The short list's states in the online store, again and again under the long list's ids."""
    catalogue = Catalogue.load(home.materialized)
    short = people_of(home)["subscriber_id"].to_pylist()
    with narrator.step(f"a store of {leads:,} people") as share, closing(open_store(home)) as source:
        states, _ = source.read(short, catalogue)
        with closing(open_store(copy)) as target:
            for start in range(0, leads, PART_ROWS):
                numbers = np.arange(start, min(start + PART_ROWS, leads))
                target.write(ids_of(numbers), states[numbers % len(short)])
                share(start / leads)


def _listed(home: Home, directory: Path, leads: int) -> tuple[Path, Path]:
    """Everybody's profile, and one event so that the log ends when the short one does."""
    directory.mkdir(parents=True)
    people = people_of(home)
    numbers = np.arange(leads)
    long = _with(people.take(pa.array(numbers % len(people))), "subscriber_id", pa.array(ids_of(numbers)))
    pq.write_table(long, directory / "subscribers.parquet")
    end = pa.array([EventLog(home).end()], UTC_MICROSECONDS)
    event = {"event_id": ["e1"], "subscriber_id": ids_of(numbers[:1]), "event_type": ["open"], "occurred_at": end}
    pq.write_table(pa.table(event), directory / "events.parquet")
    return directory / "events.parquet", directory / "subscribers.parquet"


def people_of(home: Home) -> pa.Table:
    con = EventLog(home).connect()
    return con.to_pyarrow(con.table("subscribers").order_by("subscriber_id"))


def _moved(rows: pa.Table, rng: np.random.Generator) -> pa.Table:
    places = np.arange(len(rows))
    chosen = rng.random(len(rows)) < CHANGED_SHARE
    places[chosen] = rng.permutation(places[chosen])
    for name in rows.column_names:
        if name.startswith("lead_score_"):
            rows = _with(rows, name, rows[name].take(pa.array(places)))
    return rows


def _with(rows: pa.Table, name: str, column: pa.Array) -> pa.Table:
    return rows.set_column(rows.column_names.index(name), rows.schema.field(name), column)
