"""One run of our materializing, in a process of its own, beside ``stock.fill``.

``python -m benchmarks.serving.fill SOURCE TARGET AS_OF`` reads everybody's state as of an instant from the offline Parquet
of one home and writes it to the online store of another (on Redis with ``INBOX_STORE_URL``), and prints JSON: seconds
without the start of the process, and the process's largest memory.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from features.catalogue import Catalogue
from features.contract import UTC_MICROSECONDS
from features.home import STORE_URL, Home
from features.store import FeatureStore


def main(source: str, target: str, as_of: str) -> None:
    home = Home(Path(source))
    catalogue = Catalogue.load(home.catalogue)
    ids = pq.read_table(home.event_log / "subscribers.parquet", columns=["subscriber_id"])["subscriber_id"]
    stamps = pa.array(np.full(len(ids), int(float(as_of)))).cast(UTC_MICROSECONDS)
    spine = pa.table({"subscriber_id": ids, "event_timestamp": stamps})
    before = time.perf_counter()
    states, _ = FeatureStore(home, catalogue).historical("churn", spine)
    written = FeatureStore(Home(Path(target), os.environ.get(STORE_URL)), catalogue).materialize(
        ids.combine_chunks(), states
    )
    seconds = time.perf_counter() - before
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    sys.stdout.write("\n" + json.dumps({"seconds": seconds, "peak_bytes": peak, "rows": written}) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
