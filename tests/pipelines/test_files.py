"""Files and directories that take another's place: whole, or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from features.errors import UnusableOption
from pipelines.files import replacing, replacing_directory


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
