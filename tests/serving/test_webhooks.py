"""Providers' posts through the guard into a real inbox: what is taken in, what is refused, and that scores do not suffer."""

from __future__ import annotations

import asyncio
import json
import logging
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.types import Message

from features.errors import EventsNotTaken, InboxUnavailable
from features.event import Event
from features.home import Home
from features.identity import Pseudonyms, rotate
from features.inbox import Accepted, Delivery, Inbox
from features.providers import PROVIDERS
from serving.guard import LINES_A_MINUTE, Strangers
from serving.webhooks import reception
from serving.webhooks.certificates import Certificates
from serving.webhooks.door import ONE_EVENT_BYTES
from serving.webhooks.writer import Writer
from tests.serving.posting import (
    Answer,
    ask,
    deliver,
    delivered,
    exchange,
    inbox_rows,
    on_their_way,
    open_for_business,
    together,
)
from tests.serving.senders import (
    CERTIFICATE_URL,
    CONFIRM_URL,
    NOW,
    SECRETS,
    Post,
    basic,
    click,
    genuine,
    listed,
    mailgun,
    mailgun_open,
    mailjet,
    mailjet_open,
    postmark,
    sendgrid,
    sendgrid_key,
    ses,
    ses_click,
    sns_key,
)
from tests.serving.stand_in import Front, front, serving

ADDRESS = "anna@example.org"
NOW_US = int(NOW.timestamp() * 1_000_000)


@pytest.fixture
def behind(tmp_path: Path) -> Iterator[Front]:
    with open_for_business(tmp_path) as behind:
        yield behind


def refused(front: Front, post: Post, status: int, code: str) -> None:
    answer = delivered(front, post)[0]
    assert (answer.status, answer.said["code"]) == (status, code)
    assert answer.headers[b"content-type"] == b"application/problem+json"


# --- taken in


def test_every_provider_is_taken_in_once_however_often_it_repeats(behind: Front, tmp_path: Path) -> None:
    posts = genuine()
    assert {post.provider for post in posts} == set(PROVIDERS)
    assert [answer.counts for answer in delivered(behind, *posts)] == [(1, 0, 0, 0)] * 6
    assert [answer.counts for answer in delivered(behind, *posts * 46)] == [(0, 1, 0, 0)] * 6 * 46
    assert len(inbox_rows(tmp_path)) == 6
    person = Pseudonyms.load(Home(tmp_path)).subscriber_id(ADDRESS)
    assert {row[2] for row in inbox_rows(tmp_path)} == {person}


def test_when_it_answers_the_events_are_on_disk_for_another_program(behind: Front, tmp_path: Path) -> None:
    for number in range(20):
        assert delivered(behind, sendgrid(listed([click(number)])))[0].counts == (1, 0, 0, 0)
        assert len(inbox_rows(tmp_path)) == number + 1


def test_many_at_once_are_counted_each_on_its_own_and_share_transactions(behind: Front, tmp_path: Path) -> None:
    posts = [sendgrid(listed(click(number * 10 + one) for one in range(10))) for number in range(30)]
    assert [answer.counts for answer in together(behind, posts)] == [(10, 0, 0, 0)] * 30
    assert behind.reception.writer.commits < 30
    same = [posts[0]] * 10
    assert [answer.counts for answer in together(behind, same)] == [(0, 10, 0, 0)] * 10
    rows = inbox_rows(tmp_path)
    assert len(rows) == 300
    received = [row[0] for row in rows]
    assert len(set(received)) == 300 and min(received) >= NOW_US


def test_the_same_new_event_sent_at_once_by_many_is_accepted_once(behind: Front, tmp_path: Path) -> None:
    answers = together(behind, [sendgrid(listed([click(1)]))] * 25)
    assert sorted(answer.counts for answer in answers) == [(0, 1, 0, 0)] * 24 + [(1, 0, 0, 0)]
    assert len(inbox_rows(tmp_path)) == 1


def test_a_signed_body_that_nobody_can_read_is_quarantined_and_answered(behind: Front, tmp_path: Path) -> None:
    for body in (b"not json, but anna@example.org is in it", b"", b"\xff\xfe", b"[" * 50_000, b'"text"', b"7"):
        assert delivered(behind, sendgrid(body))[0].counts == (0, 0, 1, 0)
    rows = inbox_rows(tmp_path, "quarantined")
    assert rows and inbox_rows(tmp_path) == []
    assert ADDRESS not in str(rows)


def test_unknown_events_are_quarantined_known_ones_about_nobody_are_set_aside(behind: Front) -> None:
    events = [click(1), click(2) | {"event": "hologram"}, click(3) | {"event": "deferred"}, click(1)]
    assert delivered(behind, sendgrid(listed(events)))[0].counts == (1, 1, 1, 1)
    metrics = behind.guard.meters.to_text().decode()
    for outcome in ("accepted", "repeated", "quarantined", "set_aside"):
        assert f'inbox_events_total{{outcome="{outcome}",provider="sendgrid"}} 1.0' in metrics


def test_no_address_comes_into_the_inbox_anywhere(behind: Front, tmp_path: Path) -> None:
    delivered(behind, *genuine(), sendgrid(listed([click(9) | {"event": f"for {ADDRESS}"}, {"email": ADDRESS}])))
    files = b"".join(path.read_bytes() for path in (tmp_path / "var").glob("inbox.db*"))
    assert b"anna" not in files and b"203.0.113.7" not in files and b"shop.example" not in files
    assert len(inbox_rows(tmp_path)) == 6


def test_a_new_identity_key_counts_at_once_and_history_follows(behind: Front, tmp_path: Path) -> None:
    home = Home(tmp_path)
    delivered(behind, sendgrid(listed([click(1)])))
    former = Pseudonyms.load(home).subscriber_id(ADDRESS)
    rotate(home)
    assert delivered(behind, sendgrid(listed([click(2)])))[0].counts == (1, 0, 0, 0)
    person = Pseudonyms.load(home).subscriber_id(ADDRESS)
    with closing(Inbox(home)) as inbox:
        assert person != former and len(inbox.events_of([person])[person]) == 2
    home.identity.write_bytes(b"{}")
    refused(behind, sendgrid(listed([click(3)])), 503, "events_not_taken")
    assert home.identity.read_bytes() == b"{}"


# --- Mailgun's tokens


def test_a_token_lets_one_body_in_however_often_and_no_other(behind: Front, tmp_path: Path) -> None:
    first, second = mailgun(mailgun_open(1), "a" * 50), mailgun(mailgun_open(2), "a" * 50)
    assert [answer.counts for answer in delivered(behind, first, first)] == [(1, 0, 0, 0), (0, 1, 0, 0)]
    refused(behind, second, 409, "replayed_events")
    refused(behind, Post("mailgun", first.body + b" "), 409, "replayed_events")
    assert delivered(behind, first, mailgun(mailgun_open(2), "b" * 50))[1].counts == (1, 0, 0, 0)
    assert len(inbox_rows(tmp_path)) == 2


def test_a_token_is_remembered_when_the_service_starts_again(tmp_path: Path) -> None:
    with open_for_business(tmp_path) as behind:
        assert delivered(behind, mailgun(mailgun_open(1), "a" * 50))[0].status == 200
    with open_for_business(tmp_path) as behind:
        refused(behind, mailgun(mailgun_open(2), "a" * 50), 409, "replayed_events")


def test_of_two_bodies_with_one_token_at_once_one_gets_in(behind: Front, tmp_path: Path) -> None:
    posts = [mailgun(mailgun_open(number), "a" * 50) for number in range(10)]
    statuses = sorted(answer.status for answer in together(behind, posts))
    assert statuses == [200] + [409] * 9
    assert len(inbox_rows(tmp_path)) == 1


# --- SNS


class Amazon:
    """What is on SNS's hosts; remembers what was asked for."""

    def __init__(self, answers: dict[str, bytes]) -> None:
        self.answers, self.asked = answers, list[str]()

    def __call__(self, url: str) -> bytes:
        self.asked.append(url)
        if url not in self.answers:
            raise EventsNotTaken("SNS answered with 404")
        return self.answers[url]


def test_a_certificate_is_fetched_once_for_all_that_wait_for_it(tmp_path: Path) -> None:
    amazon = Amazon({CERTIFICATE_URL: sns_key().pem})
    with open_for_business(tmp_path, Certificates(fetch=amazon)) as behind:
        answers = together(behind, [ses(ses_click(number)) for number in range(10)])
        assert [answer.counts for answer in answers] == [(1, 0, 0, 0)] * 10
    assert amazon.asked == [CERTIFICATE_URL]


def test_a_subscription_to_an_allowed_topic_is_confirmed(tmp_path: Path) -> None:
    amazon = Amazon({CERTIFICATE_URL: sns_key().pem, CONFIRM_URL: b"<ConfirmSubscriptionResponse/>"})
    with open_for_business(tmp_path, Certificates(fetch=amazon)) as behind:
        talk = ("SubscriptionConfirmation", "UnsubscribeConfirmation")
        answers = delivered(behind, *(ses("You have chosen", kind=kind) for kind in talk))
    assert [answer.counts for answer in answers] == [(0, 0, 0, 0)] * 2
    assert amazon.asked == [CERTIFICATE_URL, CONFIRM_URL]
    assert inbox_rows(tmp_path) == inbox_rows(tmp_path, "quarantined") == []


def test_while_amazon_cannot_be_reached_sns_may_come_again_and_nobody_else_waits(tmp_path: Path) -> None:
    gate, entered = threading.Event(), threading.Event()

    def stuck(url: str) -> bytes:
        entered.set()
        assert gate.wait(10)
        raise EventsNotTaken("SNS could not be reached")

    async def exchange(behind: Front) -> tuple[int, int, bytes]:
        waiting = asyncio.create_task(deliver(behind, ses(ses_click())))
        await asyncio.to_thread(entered.wait, 5)
        other = await asyncio.wait_for(deliver(behind, sendgrid(listed([click()]))), 2)
        gate.set()
        answer = await waiting
        return other.status, answer.status, answer.headers[b"retry-after"]

    with open_for_business(tmp_path, Certificates(fetch=stuck)) as behind:
        assert asyncio.run(exchange(behind)) == (200, 503, b"10")


# --- refused


def test_what_is_not_the_providers_is_refused_with_a_problem_that_says_why(behind: Front, tmp_path: Path) -> None:
    good = sendgrid(listed([click()]))
    refused(behind, Post("sendgrid", good.body + b" ", good.headers), 401, "untrusted_events")
    refused(behind, Post("sendgrid", good.body), 401, "untrusted_events")
    refused(behind, Post("postmark", b"{}", basic("postmark", "wrong")), 401, "untrusted_events")
    answer = delivered(behind, Post("mailjet", b"[]"))[0]
    assert answer.headers[b"www-authenticate"] == b'Basic realm="events"'
    metrics = behind.guard.meters.to_text().decode()
    assert 'inbox_events_refused_total{provider="sendgrid",reason="forged"} 1.0' in metrics
    assert 'inbox_events_refused_total{provider="sendgrid",reason="unsigned"} 1.0' in metrics
    assert inbox_rows(tmp_path) == []


def test_a_provider_without_a_secret_is_refused_and_told_so(tmp_path: Path) -> None:
    behind = front(tmp_path, now=NOW)
    for post in genuine():
        answer = delivered(behind, post)[0]
        assert (answer.status, answer.said["code"]) == (401, "untrusted_events")
        assert "nothing is configured" in answer.said["detail"]
    behind.close()
    assert not (tmp_path / "var" / "inbox.db").exists()


def test_our_own_key_opens_no_providers_door(behind: Front) -> None:
    for post in genuine():
        if post.provider == "mailgun":  # Its signature is in the body.
            continue
        keyed = Post(post.provider, post.body, {"content-type": "application/json"} | behind.headers)
        refused(behind, keyed, 401, "untrusted_events")


@pytest.mark.parametrize(
    "path", ["/v1/events/", "/v1/events/nobody", "/v1/events/sendgrid/", "/v1/events/SendGrid", "/v1/events/a/b"]
)
def test_an_unknown_provider_is_not_found(behind: Front, path: str) -> None:
    good = sendgrid(listed([click()]))
    answer = asyncio.run(ask(behind.guard, path, good.raw_headers, (good.body,)))
    assert (answer.status, answer.said["code"]) == (404, "not_found")


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND"])
def test_only_posts_are_taken(behind: Front, method: str) -> None:
    good = sendgrid(listed([click()]))
    answer = asyncio.run(ask(behind.guard, good.path, good.raw_headers, (good.body,), method))
    assert answer.status == 405 and answer.headers[b"allow"] == b"POST"


@pytest.mark.parametrize(
    ("provider", "media_type", "status"),
    [
        ("sendgrid", "application/json; charset=utf-8", 200),
        ("sendgrid", "text/plain", 415),
        ("sendgrid", "application/x-www-form-urlencoded", 415),
        ("mailgun", "multipart/form-data; boundary=x", 415),
        ("ses", "text/plain; charset=UTF-8", 200),
        ("ses", "application/json", 200),
        ("ses", "text/html", 415),
        ("postmark", "", 415),
    ],
)
def test_each_is_taken_in_its_own_form(behind: Front, provider: str, media_type: str, status: int) -> None:
    good = next(post for post in genuine() if post.provider == provider)
    post = Post(provider, good.body, dict(good.headers) | {"content-type": media_type})
    assert delivered(behind, post)[0].status == status
    zipped = Post(provider, good.body, dict(good.headers) | {"content-encoding": "gzip"})
    assert delivered(behind, zipped)[0].status == 415


def test_a_body_of_events_has_its_own_limit_announced_or_not(tmp_path: Path) -> None:
    with open_for_business(tmp_path, webhook_limit_bytes=5_000, body_limit_bytes=100) as behind:
        good = sendgrid(listed(click(number) for number in range(10)))
        assert 100 < len(good.body) < 5_000
        assert delivered(behind, good)[0].counts == (10, 0, 0, 0)
        large = sendgrid(listed(click(number) for number in range(100)))
        refused(behind, large, 413, "body_too_large")
        silent = [header for header in large.raw_headers if header[0] != b"content-length"]
        answer = asyncio.run(ask(behind.guard, large.path, silent, [large.body[:4_000], large.body[4_000:]]))
        assert answer.status == 413
        assert on_their_way(behind) == (0, 0)
    assert len(inbox_rows(tmp_path)) == 10


def test_half_a_body_is_not_taken_in(behind: Front, tmp_path: Path) -> None:
    good = postmark(json.dumps({"RecordType": "Open"}).encode())
    answer = asyncio.run(ask(behind.guard, good.path, good.raw_headers, (good.body[:10],), whole=False))
    assert answer.status == 499
    assert inbox_rows(tmp_path, "quarantined") == []
    assert on_their_way(behind) == (0, 0)


def test_a_body_that_dawdles_is_cut_off(tmp_path: Path) -> None:
    with open_for_business(tmp_path, body_deadline_s=0.1) as behind, serving(behind.guard) as url:

        def slowly() -> Iterator[bytes]:
            yield b"["
            time.sleep(0.5)
            yield b"]"

        good = mailjet(b"[]")
        headers = dict(good.headers) | {"content-type": "application/json"}
        assert httpx.post(url + good.path, content=slowly(), headers=headers).status_code == 408


def test_nothing_that_was_sent_is_logged_or_answered(
    behind: Front, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    said = b""
    with caplog.at_level(logging.DEBUG):
        for good in genuine():
            for post in (good, Post(good.provider, good.body + b"x", good.headers), Post(good.provider, good.body)):
                answer = delivered(behind, post)[0]
                said += answer.body + repr(answer.headers).encode()
        answer = asyncio.run(ask(behind.guard, f"/v1/events/{ADDRESS}", good.raw_headers, (good.body,)))
        said += answer.body
    told = caplog.text.encode() + said + behind.guard.meters.to_text()
    for secret in (ADDRESS, "anna", "203.0.113.7", "shop.example", *SECRETS):
        assert secret.encode() not in told
    lines = [record.getMessage() for record in caplog.records if record.name == "inbox.access"]
    assert lines[0].startswith("POST /v1/events/{provider} 200 ")
    assert len(lines) == 19


# --- when it cannot be written


class Unwritable:
    """An inbox that fails as asked."""

    def __init__(self, home: Home) -> None:
        self.inbox, self.fault, self.home = Inbox(home), None, home
        self.poison: str | None = None

    fault: Exception | None

    def accept(self, deliveries: Sequence[Delivery], now_us: int) -> list[Accepted]:
        if self.fault:
            raise self.fault
        if any(event.event_id == self.poison for delivery in deliveries for event in delivery.events):
            raise ValueError("cannot bind anna@example.org")
        return self.inbox.accept(deliveries, now_us)

    def close(self) -> None:
        self.inbox.close()


def test_a_locked_inbox_is_said_to_be_busy_in_time_and_the_same_post_gets_in_afterwards(
    behind: Front, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reception, "WRITTEN_WITHIN_S", 0.2)
    post = sendgrid(listed([click(1)]))
    delivered(behind, sendgrid(listed([click(2)])))
    with closing(sqlite3.connect(tmp_path / "var" / "inbox.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        began = time.monotonic()
        answer = delivered(behind, post)[0]
        assert time.monotonic() - began < 2
        other.execute("ROLLBACK")
    assert (answer.status, answer.headers[b"retry-after"]) == (503, b"10")
    assert sum(delivered(behind, post)[0].counts) == 1
    assert len(inbox_rows(tmp_path)) == 2


def test_who_gave_up_before_the_writing_began_is_not_written(behind: Front, tmp_path: Path) -> None:
    with held_up(behind) as gate:
        offer = behind.reception.writer.offer
        first, second = offer(Delivery("sendgrid", token="first")), offer(Delivery("sendgrid", token="second"))
        assert second.cancel()
        gate.set()
        first.result(5)
    behind.reception.writer.close()
    assert len(inbox_rows(tmp_path, "tokens")) == 1


def test_a_full_disk_is_told_and_loses_nothing_but_time(behind: Front, tmp_path: Path) -> None:
    inbox = Unwritable(Home(tmp_path))
    behind.reception.writer._inbox = inbox
    inbox.fault = InboxUnavailable(tmp_path, "SQLITE_FULL")
    posts = [sendgrid(listed([click(number)])) for number in range(5)]
    assert [answer.status for answer in together(behind, posts)] == [503] * 5
    inbox.fault = None
    assert [answer.counts for answer in together(behind, posts)] == [(1, 0, 0, 0)] * 5
    assert 'reason="events_not_taken"} 5.0' in behind.guard.meters.to_text().decode()


def test_one_delivery_that_cannot_be_written_spoils_none_beside_it(
    behind: Front, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    delivered(behind, sendgrid(listed([click(1)])))
    inbox = Unwritable(Home(tmp_path))
    inbox.poison = inbox_rows(tmp_path)[0][1]
    behind.reception.writer._inbox = inbox
    with caplog.at_level(logging.DEBUG):
        answers = together(behind, [sendgrid(listed([click(number)])) for number in (1, *range(10, 20))])
    assert [answer.status for answer in answers] == [500] + [200] * 10
    assert "anna" not in "".join(answer.body.decode() for answer in answers)
    assert "anna" not in "".join(record.getMessage() for record in caplog.records)
    assert len(inbox_rows(tmp_path)) == 11


def test_what_the_inbox_itself_refuses_spoils_none_beside_it(tmp_path: Path) -> None:
    home = Home(tmp_path)
    Inbox(home).push_clock(0)
    with closing(sqlite3.connect(home.inbox)) as con:
        con.execute(
            "CREATE TRIGGER no BEFORE INSERT ON events WHEN new.event_id = '3' BEGIN SELECT raise(ABORT, 'no'); END"
        )
    gate = threading.Event()

    class Slow(Unwritable):
        def accept(self, deliveries: Sequence[Delivery], now_us: int) -> list[Accepted]:
            assert gate.wait(5)
            return super().accept(deliveries, now_us)

    writer = Writer(Slow(home), lambda: NOW_US)
    events = [Event(str(number), "s1", "click", NOW_US, 0) for number in range(6)]
    waiting = [writer.offer(Delivery("sendgrid", [event])) for event in events]
    gate.set()
    writer.close()
    assert [type(one.exception()) for one in waiting] == [type(None)] * 3 + [sqlite3.IntegrityError] + [type(None)] * 2
    assert len(inbox_rows(tmp_path)) == 5


def test_closing_writes_what_waits_and_then_takes_nothing_more(tmp_path: Path) -> None:
    home = Home(tmp_path)
    gate = threading.Event()

    class Slow(Unwritable):
        def accept(self, deliveries: Sequence[Delivery], now_us: int) -> list[Accepted]:
            assert gate.wait(5)
            return super().accept(deliveries, now_us)

    writer = Writer(Slow(home), lambda: NOW_US)
    waiting = [writer.offer(Delivery("sendgrid", token=f"t{number}")) for number in range(10)]
    with ThreadPoolExecutor(1) as pool:
        closed = pool.submit(writer.close)
        gate.set()
        closed.result(5)
    assert all(one.done() for one in waiting)
    assert len(inbox_rows(tmp_path, "tokens")) == 10
    with pytest.raises(EventsNotTaken):
        writer.offer(Delivery("sendgrid"))


# --- load


@contextmanager
def held_up(behind: Front) -> Iterator[threading.Event]:
    """Nothing is written until the block says so."""
    gate, accept = threading.Event(), behind.reception.inbox.accept

    def wait(deliveries: Sequence[Delivery], now_us: int) -> list[Accepted]:
        assert gate.wait(20)
        return accept(deliveries, now_us)

    behind.reception.inbox.accept = wait  # type: ignore[method-assign]
    try:
        yield gate
    finally:
        gate.set()


def test_a_flood_of_events_sheds_itself_and_takes_no_place_from_scores(tmp_path: Path) -> None:
    async def flood(behind: Front, gate: threading.Event) -> list[int]:
        tasks = [asyncio.create_task(deliver(behind, sendgrid(listed([click(number)])))) for number in range(40)]
        await asyncio.sleep(0.2)
        assert on_their_way(behind)[0] == 4
        key = (b"authorization", behind.headers["authorization"].encode())
        scores = [await ask(behind.guard, "/v1/scores/s1", [key], method="GET") for _ in range(20)]
        gate.set()
        answers = await asyncio.gather(*tasks)
        assert {answer.headers.get(b"retry-after") for answer in answers} == {None, b"5"}
        assert [answer.status for answer in scores] == [200] * 20
        return sorted(answer.status for answer in answers)

    with open_for_business(tmp_path, max_webhooks=4, max_in_flight=2) as behind, held_up(behind) as gate:
        assert asyncio.run(flood(behind, gate)) == [200] * 4 + [429] * 36
        assert on_their_way(behind) == (0, 0)
        assert behind.guard.meters.shed["events"] == 36 and behind.guard.meters.shed["send"] == 0
        assert delivered(behind, sendgrid(listed([click(1)])))[0].status == 200


def test_large_bodies_of_events_are_bounded_together_until_they_are_answered(tmp_path: Path) -> None:
    async def flood(behind: Front, gate: threading.Event) -> list[int]:
        posts = [sendgrid(listed([click(number)]) + b" " * 9_000) for number in range(16)]
        tasks = [asyncio.create_task(deliver(behind, post)) for post in posts]
        await asyncio.sleep(0.3)
        assert on_their_way(behind)[1] <= 80_000
        gate.set()
        return sorted({answer.status for answer in await asyncio.gather(*tasks)})

    with open_for_business(tmp_path, webhook_limit_bytes=10_000) as behind, held_up(behind) as gate:
        assert asyncio.run(flood(behind, gate)) == [200, 429]
        assert on_their_way(behind) == (0, 0)


async def half_sent(behind: Front, post: Post, over: asyncio.Event) -> Answer:
    """All of a post but its end, which never comes."""
    parts = [{"type": "http.request", "body": post.body, "more_body": True}]

    async def receive() -> Message:
        if parts:
            return parts.pop()
        await over.wait()
        return {"type": "http.disconnect"}

    return await exchange(behind.guard, post.path, post.raw_headers, receive)


@pytest.mark.parametrize("stranger", ["mailgun", "sendgrid"])
def test_half_sent_bodies_at_one_provider_shut_nobody_elses_batches_out(tmp_path: Path, stranger: str) -> None:
    forged = Post("mailgun", b"[" * 9_000) if stranger == "mailgun" else sendgrid(b"[" * 9_000, sendgrid_key("forger"))

    async def beside(behind: Front) -> set[int]:
        over = asyncio.Event()
        tasks = [asyncio.create_task(half_sent(behind, forged, over)) for _ in range(60)]
        await asyncio.sleep(0.1)
        assert behind.guard.gates[stranger].bodies.arriving_bytes >= 72_000
        mailjets = mailjet(listed([mailjet_open(number) for number in range(30)]))
        others = [post for post in genuine() if post.provider != stranger]
        answers = [await deliver(behind, post) for post in (mailjets, *others)]
        over.set()
        assert {answer.status for answer in await asyncio.gather(*tasks)} == {429, 499}
        return {answer.status for answer in answers}

    with open_for_business(tmp_path, webhook_limit_bytes=10_000) as behind:
        assert asyncio.run(beside(behind)) == {200}
        assert on_their_way(behind) == (0, 0)


# --- what strangers cost


def test_where_events_come_one_by_one_bodies_are_small_announced_or_not(behind: Front, tmp_path: Path) -> None:
    too_much = b" " * ONE_EVENT_BYTES
    for good in genuine():
        post = Post(good.provider, good.body + too_much, good.headers)
        if good.provider in ("sendgrid", "mailjet", "brevo"):
            continue
        refused(behind, post, 413, "body_too_large")
        silent = [header for header in post.raw_headers if header[0] != b"content-length"]
        parts = [post.body[at : at + 65_536] for at in range(0, len(post.body), 65_536)]
        assert asyncio.run(ask(behind.guard, post.path, silent, parts)).status == 413
    assert inbox_rows(tmp_path) == [] and on_their_way(behind) == (0, 0)
    for batch in (sendgrid(listed([click()]) + too_much), mailjet(listed([mailjet_open()]) + too_much)):
        assert delivered(behind, batch)[0].counts == (1, 0, 0, 0)


@pytest.mark.parametrize(
    "block",
    [
        b'{"timestamp":"\\ud800","token":"aaaaaaaaaaaaaaaaaaaa","signature":"%s"}',
        b'{"timestamp":"1795421700","token":"\\udfffaaaaaaaaaaaaaaaaaaaa","signature":"%s"}',
        b'{"timestamp":"\\u0661","token":"aaaaaaaaaaaaaaaaaaaa","signature":"%s"}',
        b'{"timestamp":"\xed\xa0\x80","token":"aaaaaaaaaaaaaaaaaaaa","signature":"%s"}',
    ],
)
def test_half_a_surrogate_pair_in_a_strangers_signature_is_refused(behind: Front, block: bytes) -> None:
    refused(behind, Post("mailgun", b'{"signature":' + block % (b"a" * 64) + b"}"), 401, "untrusted_events")


def test_what_is_not_plain_json_is_read_once_it_is_trusted_and_not_before(
    behind: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, slow = [], json.loads

    def counted(*given: Any, **options: Any) -> Any:
        read.append(given)
        return slow(*given, **options)

    halved = mailgun_open(1) | {"message": {"headers": {"message-id": "1@example.org", "subject": "half \ud83d"}}}
    signed = mailgun(halved, "c" * 50)
    of_amazon = Post("ses", b"[" + b"{}," * 80_000 + b"NaN]", ses(ses_click()).headers)
    strangers = [Post("mailgun", b"[" + b"{}," * 80_000 + b"NaN]"), mailgun(halved, key="somebody's"), of_amazon]
    monkeypatch.setattr(json, "loads", counted)
    for post in strangers:
        assert delivered(behind, post)[0].status == 401
    assert not read
    assert delivered(behind, signed)[0].counts == (1, 0, 0, 0)
    assert read


def test_strangers_cannot_fill_the_disk_with_log_lines(behind: Front, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, logger="inbox"):
        forged = [Post("postmark", b"{}", basic("postmark", "wrong"))] * 100
        nobody = [Post("nobody", b"{}")] * 100
        assert {answer.status for answer in delivered(behind, *forged, *nobody)} == {401, 404}
        assert len(caplog.records) == LINES_A_MINUTE
        assert delivered(behind, *genuine())[0].status == 200
        assert len(caplog.records) == LINES_A_MINUTE + 6
    assert 'refused_total{provider="postmark",reason="forged"} 100.0' in behind.guard.meters.to_text().decode()


def test_once_a_minute_it_is_said_how_many_had_no_line(caplog: pytest.LogCaptureFixture) -> None:
    now = [0.0]
    strangers = Strangers(lambda: now[0])
    with caplog.at_level(logging.DEBUG, logger="inbox"):
        for _ in range(3):
            assert sum(strangers.may_be_logged() for _ in range(500)) == LINES_A_MINUTE
            strangers.sum_up()
            now[0] += 60
            strangers.sum_up()
            strangers.sum_up()
    assert [record.getMessage() for record in caplog.records] == [
        f"{500 - LINES_A_MINUTE} more requests of unknown callers"
    ] * 3


# --- described


def test_the_description_lists_it(tmp_path: Path) -> None:
    with open_for_business(tmp_path) as behind:
        app = behind.app
        described = app.openapi()["paths"]["/v1/events/{provider}"]["post"]
    assert set(described["responses"]) == {"200", "401", "408", "409", "413", "415", "429", "503"}
    (provider,) = described["parameters"]
    assert provider["schema"]["enum"] == sorted(PROVIDERS)
    assert set(described["requestBody"]["content"]) == {"application/json", "text/plain"}
    assert "security" not in described
    counts = app.openapi()["components"]["schemas"]["Taken"]["properties"]
    assert set(counts) == {"accepted", "repeated", "quarantined", "set_aside"}
