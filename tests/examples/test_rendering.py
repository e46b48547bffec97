"""The example a renderer's engineer copies: as its command is used, with the service there, killed in the middle, and away."""

from __future__ import annotations

import email
import mailbox
import re
import shutil
import time
import tomllib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import timedelta
from email.message import EmailMessage
from email.policy import default
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from inbox_client import ChurnAnswer, Defaults, LeadScoreAnswer, ScoresClient

from examples.rendering import render
from examples.rendering.render import Campaign, Subscriber, main, people_in
from features.home import Home
from features.log import EventLog
from pipelines.serve import free_port, running

SOMEBODY = Subscriber("s1", "Chloé <b>", "reader-1@example.com", "retail")
ARTICLES = (
    "What happened when we wrote half as often",
    "Three automations to switch off today",
    "A workshop on reading",
)


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "key.txt"
    path.write_text("nobody-checks-this\n")
    return path


@pytest.fixture
def people(small_list: Path, tmp_path: Path) -> Path:
    """The small list's ids, as a CSV that Excel has written."""
    ids = pq.read_table(small_list / "subscribers.parquet", columns=["subscriber_id"])["subscriber_id"].to_pylist()
    path = tmp_path / "people.csv"
    path.write_text("\r\n".join(["subscriber_id", *ids]), encoding="utf-8-sig")
    return path


@contextmanager
def killed_when(path: Path, messages: int, before: set[psutil.Process]) -> Iterator[None]:
    """Kill every process that was started since, as soon as so many messages are there."""

    def kill() -> None:
        while not path.exists() or sum(1 for _ in path.iterdir()) < messages:
            time.sleep(0.01)
        for process in set(psutil.Process().children(recursive=True)) - before:
            with suppress(psutil.NoSuchProcess):
                process.kill()

    with ThreadPoolExecutor(1) as aside:
        killing = aside.submit(kill)
        yield
        killing.result(10)


def command(out: Path, people: Path, key_file: Path, *more: str, url: str | None = None) -> list[str]:
    where = url or f"http://127.0.0.1:{free_port()}"
    return ["--url", where, "--key-file", str(key_file), "--people", str(people), "--out", str(out), *more]


def texts_of(message: EmailMessage) -> tuple[str, str]:
    """Plain text and HTML of a message that any mail program can read."""
    parts = [part for part in message.walk() if not part.is_multipart()]
    assert [part.get_content_type() for part in parts] == ["text/plain", "text/html"]
    assert not message.defects
    assert [part.defects for part in parts] == [[], []]
    plain, html = (str(part.get_content()) for part in parts)
    return plain, html


def rendered(churn: ChurnAnswer, lead: LeadScoreAnswer, subscriber: Subscriber = SOMEBODY) -> tuple[str, str]:
    """A newsletter for somebody with these answers."""
    issue = tomllib.loads((render.HERE / "issue.toml").read_text(encoding="utf-8"))
    with ScoresClient("http://127.0.0.1:9", "unused", defaults=Defaults(churn, lead)) as client:
        campaign = Campaign("newsletter", issue, client)
        client.close()
        campaign.prefetch([subscriber], 0.1)
        return campaign.rendered(subscriber)


@pytest.mark.slow
def test_a_kill_in_the_middle_of_a_send_fails_no_message(
    small_home: Home, people: Path, key_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, before = tmp_path / "outbox", set(psutil.Process().children(recursive=True))
    now = EventLog(small_home).end() + timedelta(seconds=1)
    with running(small_home, now=now, key_name="example") as service:
        key_file.write_text(service.key)
        with killed_when(tmp_path / "outbox.partial", 100, before):
            asked = ("--messages", "300", "--ahead", "50", "--wait", "0.2")
            code = main(command(out, people, key_file, *asked, url=service.url))
    said = capsys.readouterr().out
    assert code == 0, said
    files = sorted(out.iterdir())
    assert len(files) == 300
    assert all(texts_of(email.message_from_bytes(path.read_bytes(), policy=default)) for path in files)
    counts = {
        words.split()[1]: int(words.split()[0]) for words in said.split("statuses: ")[1].splitlines()[0].split(", ")
    }
    assert sum(counts.values()) == 300
    # Two segments were fetched before the kill, and nobody came back.
    assert 100 <= 300 - counts["fallback"] <= 250
    assert "messages in" in said
    assert "scores: " in said


@pytest.mark.parametrize("template", render.TEMPLATES)
@pytest.mark.parametrize("ahead", ["1", "1000"])
def test_without_a_service_everybody_gets_the_letter_that_everybody_could_get(
    template: str, ahead: str, people: Path, key_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "send.mbox"
    asked = ("--messages", "12", "--ahead", ahead, "--wait", "0.1", "--template", template)
    assert main(command(out, people, key_file, *asked)) == 0
    box = mailbox.mbox(out, factory=lambda file: email.message_from_binary_file(file, policy=default))
    try:
        letters = [texts_of(message) for message in box]
    finally:
        box.close()
    assert len(letters) == 12
    said = capsys.readouterr().out
    assert "personal: 0 (0%)" in said
    assert "12 fallback" in said
    assert not any("Pick a time" in html for _, html in letters)


def test_a_longer_list_than_messages_is_cut_and_a_shorter_one_gone_through_again(
    key_file: Path, tmp_path: Path
) -> None:
    few = tmp_path / "few.csv"
    few.write_text("subscriber_id\ns1\ns2\n")
    assert main(command(tmp_path / "five", few, key_file, "--messages", "5", "--wait", "0.05")) == 0
    assert main(command(tmp_path / "all", few, key_file, "--wait", "0.05")) == 0
    assert [len(list((tmp_path / name).iterdir())) for name in ("five", "all")] == [5, 2]


def test_who_slips_away_gets_one_piece_and_who_is_keen_is_asked_to_talk() -> None:
    for text in rendered(ChurnAnswer(band="high"), LeadScoreAnswer(grade="A")):
        assert "this one is short" in text
        assert [title in text for title in ARTICLES] == [True, False, False]
        assert "Pick a time" in text
    for text in rendered(ChurnAnswer(band="medium"), LeadScoreAnswer(grade="C")):
        assert [title in text for title in ARTICLES] == [True, True, False]
        assert "as a PDF" in text
    for text in rendered(ChurnAnswer(band="low"), LeadScoreAnswer(grade="E")):
        assert [title in text for title in ARTICLES] == [True, True, True]
        assert "a shop for garden tools" in text
        assert "Pick a time" not in text
        assert "PDF" not in text


def test_a_name_is_text_in_both_parts() -> None:
    text, html = rendered(ChurnAnswer(), LeadScoreAnswer())
    assert "Hello Chloé <b>," in text
    assert "Hello Chloé &lt;b&gt;," in html


def test_people_come_from_a_lead_export_or_the_newest_lead_book(tmp_path: Path) -> None:
    for name, ids in (("20260101T000000000000Z-000001", ["old"]), ("20260102T000000000000Z-000001", ["s2", "=s3"])):
        leads = pa.table(
            {"rank": range(len(ids)), "subscriber_id": ids, "profile_industry": [None, "retail"][: len(ids)]}
        )
        pq.write_table(leads, tmp_path / f"{name}.parquet")
    found = people_in(tmp_path)
    assert [(one.subscriber_id, one.industry) for one in found] == [("s2", ""), ("=s3", "retail")]
    assert found == people_in(tmp_path / "20260102T000000000000Z-000001.parquet")
    assert all(one.address.endswith("@example.com") for one in found)


def test_what_is_wrong_is_said_and_leaves_nothing_half_written(
    people: Path, key_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    taken, nobody, empty = tmp_path / "taken", tmp_path / "nobody.csv", tmp_path / "empty.csv"
    taken.mkdir()
    nobody.write_text("email\nx@example.com\n")
    empty.write_text("subscriber_id\n")
    copied = tmp_path / "copied"
    shutil.copytree(render.HERE, copied)
    broken = copied / "templates" / "newsletter.html.j2"
    broken.write_text(broken.read_text() + "\n{% if %}")
    lines = broken.read_text().count("\n") + 1
    misspelt = copied / "templates" / "winback.txt.j2"
    misspelt.write_text("{{ subscriber.frist_name }}")
    monkeypatch.setattr(render, "HERE", copied)
    for out, listed, more, words in (
        (taken, people, (), "is there already"),
        (tmp_path / "new", nobody, (), "has no column subscriber_id"),
        (tmp_path / "new", empty, (), "names nobody"),
        (tmp_path / "new", tmp_path / "gone.csv", (), "gone.csv"),
        (tmp_path / "new", people, (), f"newsletter.html.j2, line {lines}"),
        (tmp_path / "new", people, ("--template", "winback"), "frist_name"),
        (tmp_path / "new.mbox", people, ("--template", "winback"), "frist_name"),
    ):
        assert main(command(out, listed, key_file, "--wait", "0.05", *more)) == 1
        assert words in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.glob("new*")) == []
    assert list(taken.iterdir()) == []


def test_the_readme_names_every_option_and_template() -> None:
    readme = (render.HERE / "README.md").read_text(encoding="utf-8")
    options = re.findall(r"--[a-z-]+", render.options().format_usage())
    assert len(options) == 8
    assert [option for option in options if option not in readme] == []
    assert [template for template in render.TEMPLATES if f"`{template}`" not in readme] == []


def test_an_address_to_unsubscribe_at_stays_one_however_long_the_id(tmp_path: Path) -> None:
    folder = render.Folder(tmp_path / "out")
    for length in (42, 256):
        url = f"https://example.com/unsubscribe?of={'k' * length}"
        message = EmailMessage(folder.policy)
        message["List-Unsubscribe"] = f"<{url}>"
        folder.add(message)
        written = (tmp_path / "out").joinpath(f"{(42, 256).index(length) + 1:06d}.eml").read_bytes()
        assert f"List-Unsubscribe: <{url}>\r\n".encode() in written


def test_a_row_without_an_id_is_nobody(tmp_path: Path) -> None:
    path = tmp_path / "people.csv"
    path.write_text("name,subscriber_id\nann,s1\nbob\ncy,\n")
    with pytest.raises(ValueError, match="2 rows without a subscriber_id"):
        people_in(path)
