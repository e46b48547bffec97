"""Which store a home has: SQLite unless it names a server, and nobody sees a password."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from features.errors import UnusableOption
from features.home import Home
from features.online import SqliteStateStore
from features.online_redis import RedisStateStore
from features.stores import open_store, place
from pipelines.doctor import Finding, Verdict, examine
from pipelines.verbs.options import home_at
from tests.serving import faults

URL = "redis://ann:s3cret@example.invalid/3"


def test_a_home_keeps_its_rows_in_a_file_unless_it_names_a_server(tmp_path: Path) -> None:
    embedded, served = open_store(Home(tmp_path), 0.5), open_store(Home(tmp_path, URL), 0.5)
    assert isinstance(embedded, SqliteStateStore)
    assert isinstance(served, RedisStateStore)
    assert embedded.path == Home(tmp_path).online
    assert embedded.timeout_s == served.timeout_s == 0.5


def test_no_password_is_shown(tmp_path: Path) -> None:
    assert place(Home(tmp_path, URL)) == "redis://***@example.invalid:6379/3"
    assert "s3cret" not in repr(Home(tmp_path, URL))


def test_the_verbs_take_the_server_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for value, url in ((URL, URL), ("", None)):
        monkeypatch.setenv("INBOX_STORE_URL", value)
        assert home_at(tmp_path).store_url == url
    monkeypatch.setenv("INBOX_STORE_URL", "http://ann:s3cret@example.invalid")
    with pytest.raises(UnusableOption, match="INBOX_STORE_URL") as caught:
        home_at(tmp_path)
    assert "s3cret" not in str(caught.value)


def test_the_doctor_says_which_store_and_how_it_is(tmp_path: Path, valkey: faults.Valkey) -> None:
    url = valkey.url.replace("//", "//default:s3cret@").removesuffix("/0")

    def said(home: Home) -> Finding:
        return next(finding for finding in examine(home, port=1) if finding.part == "online store")

    assert said(Home(tmp_path)).detail.startswith(str(tmp_path))
    empty = said(Home(tmp_path, f"{url}/7"))
    assert (empty.verdict, empty.detail.split()[0]) == (Verdict.MISSING, f"redis://***@127.0.0.1:{valkey.port}/7")
    broken = said(Home(tmp_path, "redis://default:s3cret@127.0.0.1:1"))
    assert broken.verdict is Verdict.BROKEN
    assert "refused" in broken.detail
    assert "s3cret" not in str(empty) + str(broken)


def test_opening_a_store_does_not_take_feast() -> None:
    code = "import sys, features.stores; sys.exit('feast' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
