"""A session of the leads page: good as long as its key and its hours, good for nothing but to look at leads."""

from __future__ import annotations

import hashlib
import hmac
import logging
import time
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.home import Home
from serving.keys import KeyRing, create_key, digest, revoke_key
from serving.leads.session import COOKIE, LASTS_S, is_good, issue, read_cookie, set_cookie
from tests.pipelines.lead_books import book_of, lead
from tests.serving.stand_in import Front, front, serving

NOW = 1_795_000_000.0
READ = ("/v1/leads", "/v1/leads.csv", "/v1/leads/ann", "/leads")


@pytest.fixture
def ring(tmp_path: Path) -> KeyRing:
    """Two keys, read again at every look."""
    for name in ("anna", "bert|1"):
        create_key(tmp_path / "keys.json", name)
    ticks = iter(range(10**6))
    return KeyRing(tmp_path / "keys.json", lambda: float(2 * next(ticks)))


def session(ring: KeyRing, name: str = "anna", at: float = NOW) -> str:
    record = ring.named(name)
    assert record is not None
    return issue(record, at)


@pytest.mark.parametrize("name", ["anna", "bert|1"])
def test_a_session_is_good_for_its_hours_and_no_longer(ring: KeyRing, name: str) -> None:
    cookie = session(ring, name)
    assert is_good(cookie, ring, NOW) and is_good(cookie, ring, NOW + LASTS_S - 1)
    assert not is_good(cookie, ring, NOW + LASTS_S)


def test_a_session_ends_with_its_key_and_does_not_come_back_with_a_new_one_of_that_name(ring: KeyRing) -> None:
    cookie, other = session(ring), session(ring, "bert|1")
    revoke_key(ring.path, "anna")
    assert not is_good(cookie, ring, NOW)
    create_key(ring.path, "anna")
    assert not is_good(cookie, ring, NOW)
    assert is_good(session(ring), ring, NOW) and is_good(other, ring, NOW)


def test_nothing_in_a_session_can_be_changed(ring: KeyRing) -> None:
    name, until, signature = session(ring).split(".")
    other = urlsafe_b64encode(b"bert|1").decode()
    shifted = urlsafe_b64encode(f"anna|{until[:3]}".encode()).decode()
    for forged in (
        f"{name}.{int(until) + 1}.{signature}",
        f"{name}.0{until}.{signature[:-1]}{'0' if signature[-1] != '0' else '1'}",
        f"{other}.{until}.{signature}",
        f"{shifted}.{until[3:]}.{signature}",
        f"{name}.{until}.{signature.upper()}X",
        f"{name}.{until}.{'0' * 64}",
        f"{name}.{until}.",
    ):
        assert not is_good(forged, ring, NOW)


def test_a_name_nobody_has_opens_nothing_even_signed_with_an_empty_secret(ring: KeyRing) -> None:
    for name in ("", "nobody"):
        until = int(NOW) + 60
        signed = hmac.new(b"", f"leads|{name}|{until}".encode(), hashlib.sha256).hexdigest()
        empty = hmac.new(b"", f"leads||{until}".encode(), hashlib.sha256).hexdigest()
        encoded = urlsafe_b64encode(name.encode()).decode()
        assert not is_good(f"{encoded}.{until}.{signed}", ring, NOW)
        assert not is_good(f"{encoded}.{until}.{empty}", ring, NOW)


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=60) | st.from_regex(r"[A-Za-z0-9_=-]{1,9}\.[0-9]{1,13}\.[0-9a-f]{64}"))
def test_garbage_is_no_session_and_breaks_nothing(text: str) -> None:
    nobody = KeyRing(Path("no such file"))
    assert not is_good(text, nobody, NOW)
    assert not is_good(read_cookie(f"{COOKIE}={text}".encode()), nobody, NOW)


def test_a_cookie_is_found_among_others_and_only_under_its_name() -> None:
    assert read_cookie(b"a=b;inbox_leads=x.1.f; c=d") == "x.1.f"
    assert read_cookie(b"old_inbox_leads=x; Inbox_leads=y; inbox_leads") == ""
    assert read_cookie(b"\xff\x00;;==") == read_cookie(b"") == ""


def test_a_cookie_is_kept_from_scripts_other_sites_and_plain_lines_and_goes_when_it_should() -> None:
    flags = "; Path=/; HttpOnly; SameSite=Strict"
    assert set_cookie("x", secure=True) == f"{COOKIE}=x; Max-Age={LASTS_S}{flags}; Secure"
    assert set_cookie("x", secure=False) == f"{COOKIE}=x; Max-Age={LASTS_S}{flags}"
    assert set_cookie("", secure=False, lasts_s=0) == f"{COOKIE}=; Max-Age=0{flags}"


# --- before the service


@pytest.fixture
def behind(tmp_path: Path) -> Iterator[Front]:
    book_of(Home(tmp_path).leads, lead("ann"))
    behind = front(tmp_path)
    yield behind
    behind.close()


@pytest.fixture
def client(behind: Front) -> Iterator[httpx.Client]:
    with serving(behind.guard) as url, httpx.Client(base_url=url) as client:
        yield client


def begin(client: httpx.Client, behind: Front) -> None:
    answer = client.post("/leads/session", json={}, headers=behind.headers)
    assert (answer.status_code, answer.content) == (204, b"")


def test_a_key_is_exchanged_for_a_session_that_reads_leads(client: httpx.Client, behind: Front) -> None:
    assert [client.get(path).status_code for path in READ] == [401] * 4
    begin(client, behind)
    assert [client.get(path).status_code for path in READ] == [200] * 4
    assert behind.key not in str(client.cookies) and digest(behind.key.encode()) not in str(client.cookies)


def test_a_session_opens_nothing_else(client: httpx.Client, behind: Front) -> None:
    begin(client, behind)
    assert client.get("/v1/scores/s1").status_code == 401
    assert client.post("/v1/scores", json={"subscriber_ids": ["s1"]}).status_code == 401
    assert client.post("/leads/session", json={}).status_code == 401
    assert client.get("/leads/session").status_code == 401
    for method in ("POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"):
        assert client.request(method, "/v1/leads", json={}).status_code == 401
    for path in ("/leads/", "/v1/leads.json", "/schema.json", "/v1/leads.csv/", "/v1/leads/../scores/s1"):
        assert client.get(path).status_code in (401, 404)
    assert client.get("/v1/leads/..%2fscores%2fs1").status_code == 404


@pytest.mark.parametrize(
    ("sent", "beside_a_session"), [("Bearer wrong", 401), ("bearer", 401), ("Basic eDp5", 200), ("", 200)]
)
def test_a_wrong_key_begins_no_session_and_is_not_excused_by_one_but_what_is_no_key_does_not_end_it(
    client: httpx.Client, behind: Front, sent: str, beside_a_session: int
) -> None:
    refused = client.post("/leads/session", json={}, headers={"authorization": sent})
    assert refused.status_code == 401 and "set-cookie" not in refused.headers
    assert client.get("/v1/leads", headers={"authorization": sent}).status_code == 401
    begin(client, behind)
    assert client.get("/v1/leads", headers={"authorization": sent}).status_code == beside_a_session
    assert client.get("/v1/scores/s1", headers={"authorization": sent}).status_code == 401


def test_a_page_of_another_site_cannot_begin_one_with_a_form(client: httpx.Client, behind: Front) -> None:
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        headers = behind.headers | {"content-type": kind}
        assert client.post("/leads/session", content="{}", headers=headers).status_code == 415


def test_a_session_ends_itself(client: httpx.Client, behind: Front) -> None:
    begin(client, behind)
    gone = client.delete("/leads/session")
    assert gone.status_code == 204 and f"{COOKIE}=; Max-Age=0; Path=/;" in gone.headers["set-cookie"]
    assert len(client.cookies) == 0 and client.get("/v1/leads").status_code == 401
    assert client.delete("/leads/session").status_code == 401


def test_revoking_the_key_ends_a_session_within_a_second(client: httpx.Client, behind: Front) -> None:
    begin(client, behind)
    revoke_key(behind.guard.keys.path, "test")
    deadline = time.monotonic() + 5
    while client.get("/v1/leads").status_code == 200 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert [client.get(path).status_code for path in READ] == [401] * 4


def test_neither_keys_nor_sessions_are_in_the_log(
    client: httpx.Client, behind: Front, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        begin(client, behind)
        client.get("/v1/leads")
        client.get("/v1/leads", headers={"cookie": f"{COOKIE}=forged.1.{'0' * 64}"})
    ours = [record.getMessage() for record in caplog.records if record.name.startswith("inbox")]
    cookie = client.cookies[COOKIE]
    assert any("/leads/session" in line for line in ours)
    assert not any(secret in line for line in ours for secret in (behind.key, cookie, "forged"))
