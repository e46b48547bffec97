"""The leads over HTTP: what is shown, what is held back, what a download holds, and what happens when much is asked."""

from __future__ import annotations

import csv
import io
import logging
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any
from urllib.parse import quote, urlsplit

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from features.home import Home
from pipelines.leads.files import write_leads
from pipelines.leads.selection import Selection as Everybody
from serving.leads import desk
from serving.leads.cells import BYTE_ORDER_MARK, csv_block, csv_header
from serving.leads.columns import columns_of
from serving.leads.reader import BLOCK_ROWS
from serving.leads.schemas import LeadAnswer, LeadsAnswer
from serving.service import Scoring
from tests.pipelines.lead_books import BEFORE, NAME, NOW, book_of, lead
from tests.serving.stand_in import FixedScorer, Front, front, serving

COUNTRY = {"country": pa.string(), "size": pa.float64()}
SAFE = {
    "cache-control": "no-store",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
}


@contextmanager
def asking(home: Path, scorer: FixedScorer | None = None, **settings: Any) -> Iterator[tuple[httpx.Client, Front]]:
    behind = front(home, scorer, **settings)
    with serving(behind.guard) as url, httpx.Client(base_url=url, headers=behind.headers, timeout=20) as client:
        yield client, behind
    behind.close()


@pytest.fixture
def client(tmp_path: Path) -> Iterator[httpx.Client]:
    """Before a book of four, one of whom has objected since."""
    book_of(
        Home(tmp_path).leads,
        lead("ann", 95, profile_country="DE", profile_size=3.0),
        lead("shy1", 90, profile_country="DE", profile_size=1.0),
        lead("bob/ü", 60, churn_band="high", score_change=None, profile_country='a;b"=c', profile_size=None),
        lead("cy", 50, movement="new", score_change=-2, profile_country="AT", profile_size=3.0),
        attributes=COUNTRY,
    )
    with asking(tmp_path) as (client, _):
        yield client


def ids(answer: httpx.Response) -> list[str]:
    assert answer.status_code == 200, answer.text
    LeadsAnswer.model_validate_json(answer.content)
    return [row["subscriber_id"] for row in answer.json()["leads"]]


def code(answer: httpx.Response) -> tuple[int, str]:
    assert answer.headers["content-type"] == "application/problem+json"
    return answer.status_code, answer.json()["code"]


# --- many


def test_the_answer_says_whose_leads_these_are_and_holds_back_who_objected_since(client: httpx.Client) -> None:
    answer = client.get("/v1/leads")
    said = answer.json()
    assert ids(answer) == ["ann", "bob/ü", "cy"] and "shy1" not in answer.text
    assert (said["total"], said["withheld"], said["offset"], said["limit"]) == (3, 0, 0, 50)
    book = said["book"]
    assert (book["id"], book["previous_id"], book["list_name"], book["simulated"]) == (
        NAME,
        BEFORE,
        "Spring list",
        True,
    )
    assert (book["leads"], book["attributes"]) == (4, ["country", "size"])
    assert book["left_out"] == {"no_consent": 12, "converted": 40, "unscored": 3}
    row = said["leads"][0]
    assert (row["rank"], row["score"], row["grade"]) == (1, 95, "A")
    assert row["recommended_send_at"] == "2026-11-23T17:15:02.120000Z"


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({"search": "AN"}, ["ann"]),
        ({"search": "/Ü"}, ["bob/ü"]),
        ({"search": "%"}, []),
        ({"search": "_"}, []),
        ({"grade": "A"}, ["ann"]),
        ({"grade": "A,C"}, ["ann", "bob/ü", "cy"]),
        ({"churn_band": "high,medium"}, ["bob/ü"]),
        ({"movement": "new"}, ["cy"]),
        ({"segment": "country=DE"}, ["ann"]),
        ({"segment": ["country=DE", "country=AT"]}, ["ann", "cy"]),
        ({"segment": ["country=DE", "size=1"]}, []),
        ({"segment": 'country=a;b"=c'}, ["bob/ü"]),
        ({"segment": "country=' or '1'='1"}, []),
        ({"segment": "size=3.00"}, ["ann", "cy"]),
        ({"sort": "score"}, ["cy", "bob/ü", "ann"]),
        ({"sort": "score_change"}, ["cy", "ann", "bob/ü"]),
        ({"sort": "-score_change"}, ["ann", "cy", "bob/ü"]),
        ({"sort": "-churn_probability"}, ["ann", "bob/ü", "cy"]),
        ({"sort": "-subscriber_id", "limit": "3"}, ["cy", "bob/ü", "ann"]),
        ({"sort": "-subscriber_id", "limit": "2", "offset": "1"}, ["bob/ü", "ann"]),
        ({"offset": "1", "limit": "1"}, ["bob/ü"]),
        ({"offset": "3"}, []),
    ],
)
def test_leads_are_searched_chosen_sorted_and_turned_over(
    client: httpx.Client, query: dict[str, Any], expected: list[str]
) -> None:
    assert ids(client.get("/v1/leads", params=query)) == expected


def test_no_count_tells_what_somebody_was_like_who_objected_since(client: httpx.Client) -> None:
    selections = ("grade=A", "grade=C", "segment=country%3DDE", "segment=size%3D1", "churn_band=low", "movement=up", "")
    for selection in selections:
        said = client.get(f"/v1/leads?search=shy1&{selection}").json()
        assert (said["total"], said["withheld"], said["leads"]) == (0, 0, [])
    for selection, total in (
        ("segment=size%3D1", 0),
        ("grade=A", 1),
        ("segment=country%3DDE", 1),
        ("churn_band=low", 2),
    ):
        said = client.get(f"/v1/leads?{selection}").json()
        assert (said["total"], said["withheld"], len(said["leads"])) == (total, 0, total)


def test_whoever_objected_is_counted_only_among_more_than_a_thousand(tmp_path: Path) -> None:
    each = ["shy" if number % 500 == 1 else "s" for number in range(2 * BLOCK_ROWS)]
    rows = [lead(f"{kind}{number}", 95 if number < BLOCK_ROWS else 50) for number, kind in enumerate(each)]
    book_of(Home(tmp_path).leads, *rows)
    with asking(tmp_path) as (client, _):

        def counted(query: str) -> tuple[int, int, int]:
            said = client.get("/v1/leads?" + query).json()
            return said["total"], said["withheld"], len(said["leads"])

        assert counted("limit=2") == (2000, 1, 1)
        assert counted("movement=up,same&limit=2") == (2000, 1, 1)
        assert counted("movement=up,same&sort=-subscriber_id&offset=1995") == (1996, 0, 1)
        assert counted("grade=A&limit=2") == (998, 0, 2)
        assert counted("search=s&limit=2") == (2000, 1, 1)
        assert counted("search=s&grade=A&offset=990") == (998, 0, 8)
        assert counted("search=s150&limit=200") == (10, 0, 10)
        assert counted("search=shy1") == (0, 0, 0)
        assert counted("search=hy") == (0, 0, 0)
        pages = (client.get(f"/v1/leads?search=S&limit=200&offset={offset}") for offset in range(0, 2000, 200))
        seen = [who for page in pages for who in ids(page)]
    assert seen == [row["subscriber_id"] for row in rows if row["subscriber_id"][:3] != "shy"]


def test_what_cannot_be_asked_is_refused_by_name_and_not_repeated(client: httpx.Client) -> None:
    for query, field in (("sort=anna", "sort"), ("segment=anna%3D1", "segment"), ("segment=size%3Danna", "segment")):
        for path in ("/v1/leads", "/v1/leads.csv"):
            answer = client.get(f"{path}?{query}")
            assert code(answer) == (400, "malformed_request")
            assert answer.json()["field"] == field and "anna" not in answer.text


# --- one


def test_one_lead_is_its_row_its_history_and_its_score_at_this_moment(client: httpx.Client) -> None:
    answer = client.get("/v1/leads/" + quote("bob/ü", safe=""))
    assert answer.status_code == 200
    LeadAnswer.model_validate_json(answer.content)
    said = answer.json()
    assert (said["subscriber_id"], said["status"]) == ("bob/ü", "ok")
    assert said["lead"]["attributes"] == {"country": 'a;b"=c', "size": None}
    assert said["lead"]["reasons_against"] == ["no purchase so far"]
    assert [(one["score"], one["model_version"]) for one in said["history"]] == [(60, "4")]
    assert said["now"]["lead_score"] == {"probability": 0.07, "score": 81, "grade": "B", "reasons": ["opened often"]}
    assert said["now"]["models"] == {"churn": "7", "lead_score": "4", "send_time": "9"}


def test_of_whoever_objected_since_only_that_is_said(tmp_path: Path) -> None:
    book_of(Home(tmp_path).leads, lead("shy1", 95, profile_country="Atlantis"), attributes=COUNTRY)

    def objected(columns: dict[str, Any]) -> None:
        columns["status"] = ["no_consent"]
        columns["prior"] = ["global"]

    with asking(tmp_path, FixedScorer(spoil=objected)) as (client, _):
        answer = client.get("/v1/leads/shy1")
    LeadAnswer.model_validate_json(answer.content)
    said = answer.json()
    assert (said["status"], said["lead"], said["history"]) == ("no_consent", None, [])
    assert said["now"] == {"status": "no_consent"}
    assert "Atlantis" not in answer.text and "95" not in answer.text.replace(said["request_id"], "")


def test_who_is_no_lead_is_not_found_and_not_named(client: httpx.Client) -> None:
    for path in ("/v1/leads/anna", "/v1/leads/AN", "/v1/leads/", "/v1/leads/ann%00"):
        answer = client.get(path)
        assert code(answer) == (404, "unknown_lead") and "anna" not in answer.text
    assert code(client.get("/v1/leads/ann?explain=true")) == (400, "malformed_request")
    assert code(client.get("/v1/leads/%ff")) == (400, "malformed_request")


def test_nothing_that_is_looked_at_gets_into_the_prediction_log(tmp_path: Path) -> None:
    book_of(Home(tmp_path).leads, lead("ann"))
    with asking(tmp_path) as (client, behind):
        for path in ("/v1/leads", "/v1/leads/ann", "/v1/leads.csv"):
            assert client.get(path).status_code == 200
        assert behind.engine.predictions.waiting_rows == behind.engine.predictions.written_rows == 0
    assert not [*Home(tmp_path).predictions.glob("*")]


# --- a download


def test_a_download_is_the_exports_own_file_but_for_who_objected_since(client: httpx.Client, tmp_path: Path) -> None:
    path = Home(tmp_path).leads / f"{NAME}.parquet"
    columns = columns_of(pq.read_schema(path))
    rows = pq.read_table(path).combine_chunks().to_batches()[0]
    answer = client.get("/v1/leads.csv")
    kept = rows.filter(pa.array([True, False, True, True]))
    assert answer.content == csv_header(columns) + csv_block(kept, columns)
    assert "shy1" not in answer.text
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert answer.headers["content-disposition"] == f'attachment; filename="leads-{NAME}.csv"'
    chosen = client.get("/v1/leads.csv", params={"grade": "C", "segment": "size=3"}).content
    assert chosen == csv_header(columns) + csv_block(rows.slice(3, 1), columns)
    assert client.get("/v1/leads.csv", params={"search": "nobody"}).content == csv_header(columns)


def test_a_download_of_everybody_is_the_file_that_an_export_writes(tmp_path: Path) -> None:
    rows = (
        lead(f"s{number}", profile_country=f"=1+{number}", profile_size=0.5) for number in range(2 * BLOCK_ROWS + 5)
    )
    book = book_of(Home(tmp_path).leads, *rows, attributes=COUNTRY)
    write_leads(book, Everybody(), tmp_path / "leads.csv", "csv")
    with asking(tmp_path) as (client, _):
        assert client.get("/v1/leads.csv").content == (tmp_path / "leads.csv").read_bytes()


def test_no_cell_of_a_download_starts_a_formula(tmp_path: Path) -> None:
    evil = ["=cmd()", "+1", "-1", "@a", "\t=1", 'x;=1"']
    rows = (lead(text, profile_country=text, reasons_for=[text]) for text in evil)
    book_of(Home(tmp_path).leads, *rows, attributes=COUNTRY)
    with asking(tmp_path) as (client, _):
        text = client.get("/v1/leads.csv").content.removeprefix(BYTE_ORDER_MARK).decode()
    read = list(csv.DictReader(io.StringIO(text, newline="")))
    assert len(read) == len(evil)
    for row in read:
        assert not any(cell[:1] in "=+@" and cell for name, cell in row.items() if name != "score_change")


def test_a_download_is_sent_as_it_is_read(tmp_path: Path) -> None:
    book_of(Home(tmp_path).leads, *(lead(f"s{number}") for number in range(4 * BLOCK_ROWS)))
    with asking(tmp_path) as (client, _), client.stream("GET", "/v1/leads.csv") as answer:
        assert answer.headers["transfer-encoding"] == "chunked"
        assert len([*answer.iter_raw()]) > 1


# --- when something is in the way


def test_before_the_first_export_the_problem_says_how_to_make_one(tmp_path: Path) -> None:
    with asking(tmp_path) as (client, _):
        for path in ("/v1/leads", "/v1/leads/ann", "/v1/leads.csv"):
            answer = client.get(path)
            assert code(answer) == (404, "no_lead_book") and "inbox export leads" in answer.json()["detail"]


def test_a_damaged_book_is_a_problem_and_a_new_one_mends_it(tmp_path: Path) -> None:
    book = book_of(Home(tmp_path).leads, *(lead(f"anna{number}") for number in range(500)))
    whole = book.path.read_bytes()
    for damaged in (whole[:-9], whole[:4] + b"\xff" * (len(whole) // 2) + whole[4 + len(whole) // 2 :]):
        book.path.write_bytes(damaged)
        with asking(tmp_path) as (client, _):
            for path in ("/v1/leads", "/v1/leads/anna499", "/v1/leads.csv"):
                answer = client.get(path)
                assert code(answer) == (503, "leads_unavailable")
                assert int(answer.headers["retry-after"]) >= 1 and "anna" not in answer.text
            book_of(book.path.parent, lead("bob"))
            assert ids(client.get("/v1/leads")) == ["bob"]


def test_where_nobody_can_tell_who_objected_nobody_is_shown(tmp_path: Path) -> None:
    book_of(Home(tmp_path).leads, lead("ann"))
    with asking(tmp_path, FixedScorer(store_failed=True)) as (client, _):
        for path in ("/v1/leads", "/v1/leads/ann", "/v1/leads.csv"):
            answer = client.get(path)
            assert code(answer) == (503, "leads_unavailable") and "ann" not in answer.text.replace("cannot", "")


def test_a_download_that_fails_half_way_breaks_off(tmp_path: Path) -> None:
    book_of(Home(tmp_path).leads, *(lead(f"s{number}") for number in range(40 * BLOCK_ROWS)))
    scorer = FixedScorer()
    with asking(tmp_path, scorer) as (client, behind):
        with pytest.raises(httpx.RemoteProtocolError), client.stream("GET", "/v1/leads.csv") as answer:
            assert answer.status_code == 200
            scorer.store_failed = True
            for _ in answer.iter_raw():
                pass
        scorer.store_failed = False
        assert_soon(lambda: behind.leads.downloads.taken == 0)
        assert client.get("/v1/leads.csv").status_code == 200


def assert_soon(met: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not met() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert met()


class Slow(FixedScorer):
    """Says who objected only once it may."""

    def __init__(self) -> None:
        super().__init__()
        self.may, self.asked = Event(), Event()

    def statuses(self, *asked: Any) -> Any:
        self.asked.set()
        assert self.may.wait(20)
        return super().statuses(*asked)


@pytest.mark.parametrize(("path", "most"), [("/v1/leads", desk.MOST_WAITING), ("/v1/leads.csv", desk.MOST_DOWNLOADS)])
def test_more_than_can_wait_is_shed_and_scores_go_on(tmp_path: Path, path: str, most: int) -> None:
    book_of(Home(tmp_path).leads, lead("ann"))
    slow = Slow()
    with asking(tmp_path, slow, max_in_flight=400) as (client, behind), ThreadPoolExecutor(most) as callers:
        places = behind.leads.questions if path == "/v1/leads" else behind.leads.downloads
        waiting = [callers.submit(client.get, path) for _ in range(most)]
        assert_soon(lambda: places.taken == most)
        refused = client.get(path)
        assert code(refused) == (429, "overloaded") and refused.headers["retry-after"] == "1"
        assert client.get("/v1/scores/s1").status_code == 200
        slow.may.set()
        assert {answer.result().status_code for answer in waiting} == {200}
        assert places.taken == 0 and behind.guard.admission.in_flight == 0


def test_leads_take_places_of_the_many_so_that_renderers_come_first(tmp_path: Path) -> None:
    book_of(Home(tmp_path).leads, lead("ann"))
    slow = Slow()
    with asking(tmp_path, slow, max_in_flight=4) as (client, behind), ThreadPoolExecutor(4) as callers:
        bulk = behind.guard.admission.bulk_places
        waiting = [callers.submit(client.get, "/v1/leads") for _ in range(bulk)]
        assert_soon(lambda: behind.guard.admission.taken["bulk"] == bulk)
        assert code(client.get("/v1/leads")) == (429, "overloaded")
        assert client.get("/v1/scores/s1").status_code == 200
        slow.may.set()
        assert {answer.result().status_code for answer in waiting} == {200}


def test_who_leaves_a_download_frees_its_place_and_its_work_ends(tmp_path: Path) -> None:
    book_of(Home(tmp_path).leads, *(lead(f"s{number}") for number in range(60 * BLOCK_ROWS)))
    with asking(tmp_path) as (client, behind):
        parts = urlsplit(str(client.base_url))
        for _ in range(desk.MOST_DOWNLOADS):
            with socket.create_connection((parts.hostname or "", parts.port or 0), timeout=5) as line:
                head = f"GET /v1/leads.csv HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {behind.key}\r\n\r\n"
                line.sendall(head.encode())
                assert line.recv(100).startswith(b"HTTP/1.1 200")
        assert_soon(lambda: behind.leads.downloads.taken == 0)
        assert behind.guard.admission.in_flight == 0
        assert client.get("/v1/leads.csv?search=s1").status_code == 200


def test_who_does_not_take_what_is_sent_is_left_at_the_deadline(tmp_path: Path) -> None:
    book_of(Home(tmp_path).leads, *(lead(f"s{number}") for number in range(60 * BLOCK_ROWS)))
    with asking(tmp_path, answer_deadline_s=1) as (client, behind):
        parts = urlsplit(str(client.base_url))
        with socket.socket() as line:
            line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            line.connect((parts.hostname or "", parts.port or 0))
            head = f"GET /v1/leads.csv HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {behind.key}\r\n\r\n"
            line.sendall(head.encode())
            assert_soon(lambda: behind.leads.downloads.taken == 1)
            assert_soon(lambda: behind.leads.downloads.taken == 0)


def test_a_download_may_take_longer_than_an_answer(tmp_path: Path) -> None:
    book_of(Home(tmp_path).leads, *(lead(f"s{number}") for number in range(6 * BLOCK_ROWS)))

    class Leisurely(FixedScorer):
        def statuses(self, *asked: Any) -> Any:
            time.sleep(0.2)
            return super().statuses(*asked)

    with asking(tmp_path, Leisurely(), answer_deadline_s=0.7) as (client, _):
        started = time.monotonic()
        assert client.get("/v1/leads.csv").text.count("\r\n") == 6 * BLOCK_ROWS + 1
        assert time.monotonic() - started > 1


# --- who sees what


def test_ids_search_words_and_values_are_in_no_log_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    book_of(Home(tmp_path).leads, lead("anna", profile_country="annaland"), attributes=COUNTRY)
    with asking(tmp_path) as (client, _), caplog.at_level(logging.DEBUG):
        paths = (
            "/v1/leads?search=anna",
            "/v1/leads/anna",
            "/v1/leads/annabel",
            "/v1/leads.csv?segment=country%3Dannaland",
        )
        for path in (*paths, "/v1/leads?anna=1", "/leads?search=anna&lead=anna"):
            assert client.get(path).status_code in (200, 400, 404)
        metrics = client.get("/metrics").text
    ours = [record.getMessage() for record in caplog.records if not record.name.startswith("http")]
    assert any("/v1/leads/{subscriber_id}" in line for line in ours)
    assert not any("anna" in line for line in ours) and "anna" not in metrics


def test_every_answer_about_leads_is_kept_from_caches_frames_and_other_sites(client: httpx.Client) -> None:
    for path in ("/v1/leads", "/v1/leads/ann", "/v1/leads.csv", "/leads"):
        headers = client.get(path).headers
        assert SAFE.items() <= dict(headers).items()
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert "default-src 'none'" in headers["content-security-policy"]
    assert SAFE.items() <= dict(client.post("/leads/session", json={}).headers).items()


def test_a_stranger_gets_a_page_that_asks_for_a_key_and_holds_nobodys_data(client: httpx.Client) -> None:
    with httpx.Client(base_url=client.base_url) as stranger:
        page = stranger.get("/leads?search=ann&lead=ann")
        assert (page.status_code, page.headers["content-type"]) == (401, "text/html; charset=utf-8")
        assert page.headers["www-authenticate"] == "Bearer" and SAFE.items() <= dict(page.headers).items()
        assert "API key" in page.text and "search=ann" not in page.text and "Spring list" not in page.text
        for path in ("/v1/leads", "/v1/leads/ann", "/v1/leads.csv"):
            assert code(stranger.get(path)) == (401, "unknown_key")
    assert client.get("/leads").content == page.content


def test_the_page_runs_only_its_own_script_and_names_no_other_place(client: httpx.Client) -> None:
    page = client.get("/leads")
    policy = page.headers["content-security-policy"]
    assert "unsafe" not in policy and "http" not in policy and "connect-src 'self'" in policy
    text = page.text.replace("http://www.w3.org/2000/svg", "")
    assert "http://" not in text and "https://" not in text and "//cdn" not in text
    assert not any(f" on{event}=" in text for event in ("click", "load", "error", "input", "submit", "change"))
    assert "innerHTML" not in text and "eval(" not in text and "/*script*/" not in text


def test_openapi_lists_the_routes_with_what_they_take_and_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INBOX_HOME", str(tmp_path))
    with serving(Scoring.to_asgi(), "on") as url:
        paths = httpx.get(f"{url}/docs.json").json()["paths"]
    assert {"/v1/leads", "/v1/leads.csv", "/v1/leads/{subscriber_id}", "/leads", "/leads/session"} <= paths.keys()
    asked = {one["name"] for one in paths["/v1/leads"]["get"]["parameters"]}
    selected = {"search", "grade", "churn_band", "movement", "segment"}
    assert asked == selected | {"sort", "offset", "limit"}
    assert {one["name"] for one in paths["/v1/leads.csv"]["get"]["parameters"]} == selected
    assert paths["/v1/leads"]["get"]["responses"].keys() == {"200", "400", "401", "404", "429", "503"}
    assert paths["/v1/leads/{subscriber_id}"]["get"]["security"] and paths["/leads/session"].keys() == {
        "post",
        "delete",
    }


def test_moments_in_answers_are_utc_to_the_microsecond(client: httpx.Client) -> None:
    said = client.get("/v1/leads/ann").json()
    assert said["book"]["scored_at"] == said["lead"]["scored_at"] == "2026-11-23T08:15:02.120000Z"
    assert said["history"][0]["scored_at"] == NOW.isoformat().replace("+00:00", "Z")
