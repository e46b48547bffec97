"""The guides, as somebody follows them who types what is there.

What enters: a guide's text. What leaves: its blocks, and what a shell said when they were run in order. The promise: nothing
is run but the guide's own words, with the substitutions of ``spoken`` and no others.

A block marked ``sh`` is run in one shell per guide, and the block ``text`` after it is what it says, with ``...`` for what may
differ. A block ``python`` or ``jinja`` is saved under the name in its first line. A block ``console`` belongs to the checkout
and is only looked at.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
GUIDES = ("engineers", "marketers", "renderers")
PORT = "3000"
"""Which the guides name, and which is not free everywhere."""
MARK = "=== block {} ==="
WITHIN_S = 240.0

_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_NAMED = re.compile(r"^(?:#|\{#) ?(\S+)")


@dataclass(frozen=True)
class Block:
    """A fenced block: its language and its text."""

    language: str
    text: str

    @property
    def file(self) -> str:
        """The name it is to be saved under."""
        found = _NAMED.match(self.text)
        assert found, f"the first line names no file: {self.text.splitlines()[0]}"
        return found[1]


@dataclass(frozen=True)
class Followed:
    """A guide that was followed: where, its blocks, and what each one that was run said."""

    place: Path
    blocks: Sequence[Block]
    said: Sequence[str | None]


def blocks_of(text: str) -> list[Block]:
    return [Block(language, words) for language, words in _BLOCK.findall(text)]


def guide(name: str) -> list[Block]:
    return blocks_of((DOCS / f"{name}.md").read_text(encoding="utf-8"))


def beginning(blocks: Sequence[Block]) -> list[Block]:
    """What makes a list and trains on it: everything before the first promotion or verdict."""
    before = takewhile(lambda block: "inbox train" not in block.text, blocks)
    return [*before, next(block for block in blocks if "inbox train" in block.text)]


def spoken(block: Block, port: int) -> str:
    return block.text.replace(PORT, str(port))


def follow(blocks: Sequence[Block], place: Path, port: int) -> Followed:
    """Type it all, in one shell, in a directory beside which the checkout's ``client`` and ``examples`` are."""
    script = ["set -e"]
    for number, block in enumerate(blocks):
        script.append(f"echo; echo '{MARK.format(number)}'")
        if block.language == "sh":
            script.append(spoken(block, port))
        elif block.language in ("python", "jinja"):
            (place / block.file).write_text(spoken(block, port), encoding="utf-8")
    said = _typed("\n".join(script), place)
    parts = re.split(MARK.format(r"(\d+)"), said)
    told = {int(number): words for number, words in zip(parts[1::2], parts[2::2], strict=True)}
    return Followed(place, blocks, [told.get(number) for number in range(len(blocks))])


def _typed(script: str, place: Path) -> str:
    """What a shell answers. Whatever it left running is ended: it has a session of its own."""
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "COLUMNS": "250"}
    with (place / "transcript.txt").open("w+", encoding="utf-8") as told:
        shell = subprocess.Popen(
            ["bash", "-c", script], cwd=place, env=environment, stdout=told, stderr=told, start_new_session=True
        )
        try:
            code = shell.wait(WITHIN_S)
        finally:
            _end(shell)
        told.seek(0)
        said = told.read()
    assert code == 0, f"it ended with {code}: {said[-3000:]}"
    return said


def _end(shell: subprocess.Popen[bytes]) -> None:
    try:
        os.killpg(shell.pid, signal.SIGTERM)
    except ProcessLookupError:
        return
    shell.wait(10)


def promised(expected: str, said: str) -> bool:
    r"""Whether what a block prints is there, in order, ``...`` standing for anything; spaces and line ends do not count.

    >>> promised("Wrote ... events\nDone", "x Wrote  3 events of 5\n and Done.")
    True
    >>> promised("Done ... Wrote", "Wrote it. Done.")
    False
    """
    # What begins a line may come after anything.
    pieces = [piece for line in expected.splitlines() for piece in line.split("...")]
    there, start = " ".join(said.split()), 0
    for piece in (" ".join(piece.split()) for piece in pieces):
        found = there.find(piece, start)
        if found < 0:
            return False
        start = found + len(piece)
    return True
