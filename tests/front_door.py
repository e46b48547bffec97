"""`inbox` as a person meets it: arguments in; exit code and words out."""

from __future__ import annotations

from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import pytest

from pipelines.cli import run


@dataclass(frozen=True)
class Said:
    """What a verb answered. Both texts with their line breaks taken out: where a line wraps is the terminal's affair."""

    code: int
    out: str
    err: str


def inbox(*arguments: str | Path) -> Said:
    """Run a verb through the front door, in this process."""
    out, err = StringIO(), StringIO()
    with redirect_stdout(out), redirect_stderr(err), pytest.MonkeyPatch.context() as terminal:
        # So wide that no table cuts a word off.
        for name in ("COLUMNS", "TERMINAL_WIDTH"):
            terminal.setenv(name, "400")
        code = run([str(argument) for argument in arguments])
    return Said(code, _joined(out), _joined(err))


def _joined(text: StringIO) -> str:
    return " ".join(text.getvalue().split())
