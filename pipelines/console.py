"""What a person sees while a verb works.

What enters: steps and shares done. What leaves: a spinner or a bar on a terminal, plain lines in a log file. The promise:
every step says how long it took, and nothing but the summary is needed to know what happened.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

Share = Callable[[float], None]
"""Called with the finished share, 0 to 1."""


class Narrator:
    """Tells a person what is going on. ``seconds`` keeps what each step took."""

    def __init__(self, console: Console | None = None, quiet: bool = False) -> None:
        self.console = console or Console(quiet=quiet, highlight=False)
        if not self.console.is_terminal:
            # A file or a pipe has no edge to fit in: cells and paths stay whole.
            self.console.width = 200
        self.seconds: dict[str, float] = {}

    def say(self, text: str = "") -> None:
        self.console.print(text)

    @contextmanager
    def step(self, title: str) -> Iterator[Share]:
        """One station of a long job: a bar while it runs, a line with its seconds after."""
        begun = time.perf_counter()
        bar = Progress(
            TextColumn("  {task.description}"),
            BarColumn(bar_width=24),
            TaskProgressColumn(),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
        )
        with bar:
            task = bar.add_task(title, total=1.0)
            yield lambda share: bar.update(task, completed=share)
        took = time.perf_counter() - begun
        self.seconds[title] = took
        self.console.print(f"  [green]✓[/] {title} [dim]({took:.1f} s)[/]")
