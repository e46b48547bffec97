"""Files and directories that are written whole or not at all.

What enters: where something is to be. What leaves: a path beside it to write to. The promise: what was there before stays
until everything new is on the disk, and comes back when anything goes wrong.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from features.errors import UnusableOption


@contextmanager
def replacing(out: Path) -> Iterator[Path]:
    """Lend a path on ``out``'s own disk; the file written there takes ``out``'s place when the block ends well.

    Raises
    ------
    UnusableOption
        On any error of the file system inside or at the end of the block; ``out`` is then as it was.
    """
    with _explained(out), _room_beside(out) as room:
        beside = room / out.name
        yield beside
        _sync(beside)
        beside.replace(out)
        _sync(out.parent)


@contextmanager
def replacing_directory(out: Path, ours: str) -> Iterator[Path]:
    """Lend an empty directory on ``out``'s own disk; it takes ``out``'s place when the block ends well.

    No system call that Python offers exchanges two directories, so for a moment between two renames there is none; a
    process that dies then leaves the old one beside, under a name that begins with ``.writing-``.

    Parameters
    ----------
    out
        The directory to make or replace.
    ours
        A pattern of all the relative paths such a directory may hold.

    Raises
    ------
    UnusableOption
        On any error of the file system, and when a file of somebody else's is in ``out``; ``out`` is then as it was.
    """
    with _explained(out), _room_beside(out) as room:
        _refuse_strangers(out, ours)
        beside = room / out.name
        beside.mkdir()
        yield beside
        for path in (*beside.rglob("*"), beside):
            _sync(path)
        _swap(beside, out, room / "before")
        _sync(out.parent)


@contextmanager
def _explained(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UnusableOption(
            "--out",
            f"{out} could not be written ({error.strerror or error}). Nothing was changed there; free some space, "
            "close the file where it is open, or name another file.",
        ) from error


@contextmanager
def _room_beside(out: Path) -> Iterator[Path]:
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".writing-", dir=out.parent) as room:
        yield Path(room)


def _refuse_strangers(out: Path, ours: str) -> None:
    held = (path for path in sorted(out.rglob("*")) if not path.is_dir()) if out.is_dir() else ()
    stranger = next((path for path in held if not re.fullmatch(ours, path.relative_to(out).as_posix())), None)
    if stranger is not None:
        raise UnusableOption(
            "--out",
            f"{out} holds {stranger.name}, which is no file of this export. Move it away, or name another place.",
        )


def _swap(beside: Path, out: Path, before: Path) -> None:
    if not out.is_dir():
        # Onto a file this fails and changes nothing.
        beside.rename(out)
        return
    out.rename(before)
    try:
        beside.rename(out)
    except OSError:
        before.rename(out)
        raise


def _sync(path: Path) -> None:
    """A rename survives a power cut only when the bytes, and then the directory, reached the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
