"""One run of Feast's own ``materialize``, in a process of its own.

``python -m benchmarks.serving.stock.fill REPOSITORY BEGIN END`` prints JSON: seconds that ``materialize`` took without
the start of the process, and the process's largest memory.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from datetime import datetime

import feast


def main(repository: str, begin: str, end: str) -> None:
    store = feast.FeatureStore(repo_path=repository)
    before = time.perf_counter()
    store.materialize(start_date=datetime.fromisoformat(begin), end_date=datetime.fromisoformat(end))
    seconds = time.perf_counter() - before
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    sys.stdout.write("\n" + json.dumps({"seconds": seconds, "peak_bytes": peak}) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
