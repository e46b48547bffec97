"""Files and directories that take another's place: whole, or not at all."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from features.errors import UnusableOption
from pipelines.files import clear_rooms, replacing, replacing_directory


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_a_file_takes_the_place_of_another_when_it_is_done(tmp_path: Path) -> None:
    out = tmp_path / "out.txt"
    out.write_text("before")
    with replacing(out) as beside:
        beside.write_text("after")
        assert out.read_text() == "before"
    assert (out.read_text(), names(tmp_path)) == ("after", ["out.txt"])


def test_a_directory_takes_the_place_of_another_with_all_that_is_in_it(tmp_path: Path) -> None:
    out = tmp_path / "out"
    for words in ("before", "after"):
        with replacing_directory(out, r"deep/\w+") as beside:
            (beside / "deep").mkdir()
            (beside / "deep" / words).write_text(words)
    assert (names(tmp_path), names(out / "deep")) == (["out"], ["after"])


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_what_was_there_stays_when_the_block_fails(tmp_path: Path, error: type[BaseException]) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "before").write_text("before")
    with pytest.raises(error), replacing_directory(tmp_path / "out", ".*") as beside:
        (beside / "half").write_text("half")
        raise error
    assert (names(tmp_path), names(tmp_path / "out")) == (["out"], ["before"])


def test_the_old_directory_comes_back_when_the_new_one_cannot_be_put_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "before").write_text("before")
    rename = Path.rename

    def refused(self: Path, target: Path) -> Path:
        if self.name == "out" and target == tmp_path / "out":
            raise PermissionError(1, "refused")
        return rename(self, target)

    with pytest.raises(UnusableOption, match="out could not be written"), replacing_directory(tmp_path / "out", ".*"):
        monkeypatch.setattr(Path, "rename", refused)
    assert (names(tmp_path), names(tmp_path / "out")) == (["out"], ["before"])


def test_a_place_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UnusableOption, match="out could not be written"), replacing(tmp_path / "file" / "out"):
        pass
    with pytest.raises(UnusableOption, match="out could not be"), replacing_directory(tmp_path / "file" / "out", ""):
        pass


KILLED_WHILE_WRITING = """
import os, signal, sys
from pathlib import Path
from pipelines.files import replacing
with replacing(Path(sys.argv[1])) as beside:
    beside.write_text("rows of people")
    os.kill(os.getpid(), signal.SIGKILL)
"""
KILLED_BETWEEN_THE_RENAMES = """
import os, signal, sys
from pathlib import Path
from pipelines.files import replacing_directory
rename = Path.rename
def killed(self, target):
    if target == Path(sys.argv[1]):
        os.kill(os.getpid(), signal.SIGKILL)
    return rename(self, target)
Path.rename = killed
with replacing_directory(Path(sys.argv[1]), ".*") as beside:
    (beside / "after").write_text("after")
"""


def killed(program: str, out: Path) -> None:
    done = subprocess.run([sys.executable, "-c", program, out], timeout=60, cwd=Path(__file__).parents[2])
    assert done.returncode == -signal.SIGKILL


def test_what_a_killed_writer_left_is_cleared_by_the_next_one_beside(tmp_path: Path) -> None:
    killed(KILLED_WHILE_WRITING, tmp_path / "killed.csv")
    assert len(names(tmp_path)) == 1 and list(tmp_path.glob(".writing-*/killed.csv"))
    with replacing(tmp_path / "out.txt") as beside:
        beside.write_text("after")
    assert names(tmp_path) == ["out.txt"]


def test_a_directory_whose_writer_was_killed_between_the_renames_comes_back(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with replacing_directory(out, ".*") as beside:
        (beside / "before").write_text("before")
    killed(KILLED_BETWEEN_THE_RENAMES, out)
    assert not out.exists()
    with pytest.raises(KeyboardInterrupt), replacing(tmp_path / "another"):
        raise KeyboardInterrupt
    assert (names(tmp_path), names(out)) == (["out"], ["before"])


def test_a_place_that_was_taken_since_is_not_given_back(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with replacing_directory(out, ".*") as beside:
        (beside / "before").write_text("before")
    killed(KILLED_BETWEEN_THE_RENAMES, out)
    out.mkdir()
    (out / "since").touch()
    clear_rooms(tmp_path)
    assert (names(tmp_path), names(out)) == (["out"], ["since"])


def test_what_another_writer_is_at_stays(tmp_path: Path) -> None:
    with replacing(tmp_path / "one") as first, replacing_directory(tmp_path / "two", ".*") as second:
        first.write_text("one")
        with replacing(tmp_path / "three") as third:
            third.write_text("three")
        clear_rooms(tmp_path)
        (second / "file").write_text("two")
    assert names(tmp_path) == ["one", "three", "two"]


def test_a_directory_that_only_looks_like_a_room_stays_and_an_empty_one_goes(tmp_path: Path) -> None:
    for name in (".writing-a-long-name", ".writing-empty_8_", ".writing-notebook"):
        (tmp_path / name).mkdir()
    (tmp_path / ".writing-notebook" / "mine.txt").touch()
    (tmp_path / ".writing-letter_s").touch()
    clear_rooms(tmp_path)
    clear_rooms(tmp_path / "nowhere")
    assert names(tmp_path) == [".writing-a-long-name", ".writing-letter_s", ".writing-notebook"]
