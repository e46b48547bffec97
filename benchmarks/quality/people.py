"""People the model never met: one part of a list teaches, the other is asked about.

What enters: a task and its list. What leaves: the judgement on everybody who was held out. The promise: nothing of theirs, not
even their categories, is in what was learnt from; when they are asked about, their own history counts, as it would in service.
"""

from __future__ import annotations

import tempfile
import zlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.quality.tasks import Task
from features.fold import Folder
from features.home import Home
from features.log import EventLog
from pipelines.about import about_files
from pipelines.backtest import JUST_AFTER, folder_of
from pipelines.console import Narrator
from training.backtest import Judged, ask, judge, train_until

PARTS = 4
"""One in so many people is held out."""


def unseen_people(task: Task, directory: Path, narrator: Narrator) -> Judged:
    """Train on most people until the task's moment and judge the later rows of the others."""
    asked = task.plan
    with tempfile.TemporaryDirectory() as place, narrator.step("split the people, train, ask the others"):
        about = about_files(directory / "events.parquet")
        seen, unseen = (_part(directory, Path(place), held_out) for held_out in (False, True))
        folder = folder_of(seen, asked.train_until, about)
        known_until = unseen.end() + JUST_AFTER
        learnt = train_until(asked.spec, folder, seen.start(), asked.train_until, known_until)
        others = Folder(unseen.connect(), folder.catalogue)
        return judge([ask(learnt, others, asked.test_as_of, known_until, known_until)])


def _part(directory: Path, place: Path, held_out: bool) -> EventLog:
    target = place / f"held-out-{held_out}"
    target.mkdir()
    for name in ("events", "subscribers"):
        table = pq.read_table(directory / f"{name}.parquet")
        ids = table["subscriber_id"].combine_chunks().dictionary_encode()
        aside = pa.array([zlib.crc32(one.encode()) % PARTS == 0 for one in ids.dictionary.to_pylist()])
        chosen = aside.take(ids.indices)
        pq.write_table(table.filter(chosen if held_out else pa.compute.invert(chosen)), target / f"{name}.parquet")
    log = EventLog(Home(target / "home"))
    campaigns = directory / "campaigns.parquet"
    log.append(target / "events.parquet", target / "subscribers.parquet", campaigns if campaigns.exists() else None)
    return log
