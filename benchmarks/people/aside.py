"""One piece of work in a process of its own, with the memory it took.

What enters: the dotted name of a function and its arguments, as JSON. What leaves: what it returned, with seconds and peak
memory. The promise: the peak is that process's alone, of the measured part alone. It is Linux's ``VmHWM``, put back to what is
resident when the measured part begins; ``ru_maxrss`` begins with what the process that forked it had, and never goes back.

The function gets an ``Account`` and the arguments; it says where what is measured begins and ends. What came before, such
as reading a frame, is resident and so in the peak; ``before_mb`` says how much that is.
"""

from __future__ import annotations

import gc
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import orjson

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Account:
    """What a piece of work took, as far as it has come."""

    before_mb: float = 0.0
    seconds: float = 0.0
    facts: dict[str, Any] = field(default_factory=dict)

    @contextmanager
    def measured(self) -> Iterator[None]:
        gc.collect()
        self.before_mb = memory_mb("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")
        begun = time.perf_counter()
        yield
        self.seconds = time.perf_counter() - begun


@dataclass(frozen=True)
class Took:
    """Memory in MB of resident pages: before the measured part, and the most there ever was."""

    seconds: float
    before_mb: float
    peak_mb: float
    facts: dict[str, Any]


def aside(work: str, **given: Any) -> Took:
    """Run ``work``, such as ``benchmarks.people.exports:pandas_csv``, in a new process.

    Raises
    ------
    RuntimeError
        When it failed, with its last words.
    """
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.people.aside", work]
    done = subprocess.run(command, input=orjson.dumps(given), cwd=ROOT, capture_output=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{work} failed: {done.stderr.decode(errors='replace')[-2000:]}")
    return Took(**orjson.loads(done.stdout.splitlines()[-1]))


def memory_mb(name: str) -> float:
    """``VmRSS`` or ``VmHWM`` of this process."""
    found = re.search(rf"^{name}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    return int(found[1]) / 1024 if found else 0.0


def main() -> None:
    module, _, name = sys.argv[1].partition(":")
    account = Account()
    getattr(import_module(module), name)(account, **orjson.loads(sys.stdin.buffer.read()))
    took = {"seconds": account.seconds, "before_mb": account.before_mb, "peak_mb": memory_mb("VmHWM")}
    sys.stdout.write(
        "\n" + orjson.dumps(took | {"facts": account.facts}, option=orjson.OPT_SERIALIZE_NUMPY).decode() + "\n"
    )


if __name__ == "__main__":
    main()
