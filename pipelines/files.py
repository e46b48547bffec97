"""Files and directories that are written whole or not at all.

What enters: where something is to be. What leaves: a path beside it to write to. The promise: what was there before stays
until everything new is on the disk, and comes back when anything goes wrong.

What is not whole yet stands in a room beside its place, whose lock the writer holds. The lock goes with the writer's process,
also when that is killed: the next writer to the same directory, and whoever forgets a person, clears the rooms nobody holds.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from features.errors import UnusableOption

_PREFIX = ".writing-"
_ROOMS = f"{_PREFIX}????????"
_LOCK, _BEFORE = ".lock", ".before"
"""Of a room: what its writer holds, and the directory whose place is being taken. What is new has its final name."""


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

    No system call that Python offers exchanges two directories, so for a moment between two renames there is none; when the
    process is killed then, the next writer beside puts the old one back first.

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
        if out.is_dir():
            out.rename(room / _BEFORE)
        # Onto a file this fails and changes nothing; the old directory goes back as the room is cleared.
        beside.rename(out)
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
    clear_rooms(out.parent)
    room, lock = _new_room(out.parent)
    with lock:
        try:
            yield room
        finally:
            # What cannot be cleared now, the next writer clears.
            with suppress(OSError):
                _clear(room)


def clear_rooms(parent: Path) -> None:
    """Remove what writers left in a directory who were killed; what a living one holds stays."""
    for room in parent.glob(_ROOMS):
        # Somebody else's, which we may not touch, is theirs to clear.
        with suppress(OSError):
            lock = _held(room)
            if lock is not None:
                with lock:
                    _clear(room)
            elif not (room / _LOCK).exists():
                # Killed before there was a lock, or after; a directory that is no room of ours is not empty, and stays.
                room.rmdir()


def _new_room(parent: Path) -> tuple[Path, BinaryIO]:
    while True:
        room = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
        # Before it is held, another may take the room for a dead one's.
        with suppress(FileNotFoundError):
            (room / _LOCK).touch()
        if (lock := _held(room)) is not None:
            return room, lock


def _held(room: Path) -> BinaryIO | None:
    """A room's lock, held until it is closed; None when another holds it or the room is gone."""
    with suppress(FileNotFoundError, BlockingIOError), ExitStack() as opened:
        lock = opened.enter_context((room / _LOCK).open("r+b"))
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(lock.fileno()), (room / _LOCK).stat()):
            opened.pop_all()
            return lock
    return None


def _clear(room: Path) -> None:
    """Remove a held room, its lock last; a directory whose place nothing took goes back there first."""
    before = room / _BEFORE
    rest = [path for path in room.iterdir() if path.name not in (_LOCK, _BEFORE)]
    if os.path.lexists(before):
        for new in rest:
            if not os.path.lexists(room.parent / new.name):
                before.rename(room.parent / new.name)
        rest.append(before)
    for path in rest:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    (room / _LOCK).unlink()
    room.rmdir()


def _refuse_strangers(out: Path, ours: str) -> None:
    held = (path for path in sorted(out.rglob("*")) if not path.is_dir()) if out.is_dir() else ()
    stranger = next((path for path in held if not re.fullmatch(ours, path.relative_to(out).as_posix())), None)
    if stranger is not None:
        raise UnusableOption(
            "--out",
            f"{out} holds {stranger.name}, which is no file of this export. Move it away, or name another place.",
        )


def _sync(path: Path) -> None:
    """A rename survives a power cut only when the bytes, and then the directory, reached the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
