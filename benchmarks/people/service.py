"""A service that can be killed and comes back: `inbox serve` and all that it starts.

What enters: a home in service. What leaves: an address that stays and a key that is accepted whenever somebody is there.
The promise: a kill is SIGKILL for every process of it at once, nothing is said goodbye to, and none is left behind.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from features.home import STORE_URL, Home
from pipelines.serve import READY_WITHIN_S, ROOT, free_port, ready
from serving.keys import create_key, read_keys, revoke_key
from serving.settings import ServingSettings

KEY_NAME = "killable"


@dataclass
class Killable:
    """One service, dead or alive."""

    home: Home
    url: str
    key: str
    log: Path
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def start(self) -> None:
        """Begin to start; ``await_ready`` says when it answers."""
        port = self.url.rpartition(":")[2]
        command = [str(Path(sys.executable).with_name("inbox")), "serve", "--replay", "--port", port]
        with self.log.open("ab") as words:
            self._process = subprocess.Popen(
                [*command, "--home", str(self.home.root.resolve())],
                cwd=ROOT,
                # The home's own store, as `running` has it.
                env=os.environ | {STORE_URL: self.home.store_url or ""},
                stdout=words,
                stderr=subprocess.STDOUT,
            )

    def await_ready(self) -> float:
        """Seconds from now until it answers.

        Raises
        ------
        RuntimeError
            When it ended, or took too long.
        """
        begun = time.perf_counter()
        while not ready(self.url):
            if self._process is None or self._process.poll() is not None:
                raise RuntimeError(f"the service is not running; its last words are in {self.log}")
            if time.perf_counter() - begun > READY_WITHIN_S:
                raise RuntimeError(f"the service was not ready within {READY_WITHIN_S:g} s")
            time.sleep(0.05)
        return time.perf_counter() - begun

    def kill(self) -> None:
        """SIGKILL to all of it: the worker is in a session of its own, and would go on answering."""
        if self._process is None:
            return
        with suppress(psutil.NoSuchProcess):
            parent = psutil.Process(self._process.pid)
            alive = [parent, *parent.children(recursive=True)]
            for process in alive:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            self._process.wait()
            psutil.wait_procs(alive)
        self._process = None


@contextmanager
def killable(home: Home, log: Path) -> Iterator[Killable]:
    """A service that has been started and answers; it is killed at the end."""
    keys = ServingSettings(home=home.root).keys
    if KEY_NAME in {record.name for record in read_keys(keys)}:
        revoke_key(keys, KEY_NAME)
    log.parent.mkdir(parents=True, exist_ok=True)
    service = Killable(home, f"http://127.0.0.1:{free_port()}", create_key(keys, KEY_NAME), log)
    try:
        service.start()
        service.await_ready()
        yield service
    finally:
        service.kill()
        revoke_key(keys, KEY_NAME)
