"""The leads page in a real browser before the real service: what a marketer does with it, and what nobody can do to it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from playwright.sync_api import Browser, expect

from features.home import Home
from features.log import EventLog
from pipelines.serve import Running, running
from serving.keys import create_key, revoke_key
from serving.leads.session import COOKIE
from serving.settings import ServingSettings
from tests.browser import DESKTOP, PHONE, Watched, watched
from tests.pipelines.lead_books import BEFORE, NOW, book_of, lead
from tests.pipelines.test_report_browser import CONTRASTS

pytestmark = pytest.mark.slow

EVIL = "<img src=x onerror=document.title='taken'>"
EVIL_ID = "\"><script>document.title='taken'</script>"
LONG = "x" * 200
LEADS = 120


@dataclass(frozen=True)
class Shown:
    service: Running
    home: Home
    key: str


def objector(small_list: Path) -> str:
    """Somebody who has withdrawn consent; the book is of a moment when they had not."""
    people = pq.read_table(small_list / "subscribers.parquet", columns=["subscriber_id", "consent_profiling"])
    return str(people.filter(pc.equal(people["consent_profiling"], False))["subscriber_id"][0])


@pytest.fixture(scope="module")
def shown(small_home: Home, small_list: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shown]:
    """One service for all, over a book of 120 and the one before it."""
    root = tmp_path_factory.mktemp("leads") / "home"
    shutil.copytree(small_home.root, root, ignore=shutil.ignore_patterns("mlruns", "bentoml"))
    home = Home(root)
    own = {"country": pa.string(), "size": pa.float64()}
    rows = [
        lead(
            f"lead{number:03}",
            99 - number // 2,
            score_change=number % 7 - 3,
            profile_country="AT" if number % 4 else "DE",
            profile_size=float(number % 3),
        )
        for number in range(LEADS - 4)
    ]
    rows += [
        lead("evil", 30, reasons_for=[EVIL], change_reason=EVIL, profile_country=EVIL),
        lead(EVIL_ID, 29, profile_country="javascript:alert(1)"),
        lead(LONG, 28, reasons_for=[LONG], profile_country=LONG),
        lead(objector(small_list), 27, profile_country="Atlantis"),
    ]
    then = NOW - timedelta(days=7)
    facts = {"book_id": BEFORE, "scored_at": then.isoformat(), "model_version": "3", "previous_book_id": ""}
    earlier = lead("lead000", 40, scored_at=then, model_version="3")
    before = book_of(home.leads / "beside", earlier, attributes=own, **facts)
    before.path.rename(home.leads / f"{BEFORE}.parquet")
    book_of(home.leads, *rows, attributes=own)
    key = create_key(ServingSettings(home=root).keys, "browser")
    with running(home, now=EventLog(small_home).end() + timedelta(seconds=1)) as service:
        yield Shown(service, home, key)


def log_in(seen: Watched, shown: Shown, query: str = "") -> None:
    """Open the page as a stranger and type the key."""
    seen.page.goto(f"{shown.service.url}/leads{query}")
    seen.page.get_by_label("API key").fill(shown.key)
    seen.page.keyboard.press("Enter")
    expect(seen.page.locator("#count")).to_contain_text("leads.")
    # The browser itself complains of the two answers that asked for a key.
    assert all("401" in one for one in seen.complaints)
    seen.complaints.clear()


def ids(seen: Watched) -> list[str]:
    return [str(one.get_attribute("data-id")) for one in seen.page.locator("#rows [data-id]").all()]


def counted(seen: Watched, words: str) -> None:
    expect(seen.page.locator("#count")).to_have_text(words)


def test_a_key_lets_in_and_is_kept_nowhere(browser: Browser, shown: Shown) -> None:
    with watched(browser) as seen:
        seen.page.goto(f"{shown.service.url}/leads")
        key = seen.page.get_by_label("API key")
        expect(key).to_be_focused()
        for wrong in ("inbox_wrong", "schlüssel"):
            key.fill(wrong)
            seen.page.get_by_role("button", name="Show the leads").click()
            expect(seen.page.get_by_role("alert")).to_have_text("This key is not known here, or was revoked.")
        key.fill(shown.key)
        seen.page.keyboard.press("Enter")
        counted(seen, "119 of 120 leads.")
        assert key.is_hidden() and key.input_value() == ""
        kept = seen.page.evaluate("JSON.stringify([localStorage, sessionStorage, document.cookie, location.href])")
        assert shown.key not in kept and COOKIE not in kept
        [cookie] = seen.context.cookies()
        assert (cookie["name"], cookie["httpOnly"], cookie["sameSite"]) == (COOKIE, True, "Strict")
        assert seen.page.get_by_text("Simulated data.").is_visible()
        seen.page.get_by_role("button", name="Sign out").click()
        expect(key).to_be_focused()
        assert seen.page.locator("#rows tr").count() == 0 and seen.context.cookies() == []


def test_leads_are_searched_chosen_sorted_and_the_address_says_so(browser: Browser, shown: Shown) -> None:
    with watched(browser) as seen:
        log_in(seen, shown)
        page = seen.page
        assert ids(seen)[:2] == ["lead000", "lead001"]
        page.get_by_label("Search by id").fill("lead00")
        counted(seen, "10 of 120 leads.")
        page.get_by_label("Attribute", exact=True).select_option("country")
        page.get_by_label("Its value").fill("DE")
        page.get_by_role("button", name="Add").click()
        counted(seen, "3 of 120 leads.")
        page.get_by_role("button", name="Change", exact=True).click()
        heading = page.get_by_role("columnheader", name="Change", exact=True)
        expect(heading).to_have_attribute("aria-sort", "descending")
        expect(page.locator("#rows [data-id]").first).to_have_text("lead004")
        assert ids(seen) == ["lead004", "lead008", "lead000"]
        page.reload()
        counted(seen, "3 of 120 leads.")
        assert ids(seen) == ["lead004", "lead008", "lead000"]
        assert page.get_by_label("Search by id").input_value() == "lead00"
        page.get_by_role("button", name="Remove country=DE").click()
        counted(seen, "10 of 120 leads.")
        page.go_back()
        counted(seen, "3 of 120 leads.")
        page.get_by_role("button", name="Show all").click()
        counted(seen, "119 of 120 leads.")
        page.get_by_label("A", exact=True).check()
        counted(seen, "20 of 120 leads.")
        assert "grade=A" in page.url
        page.get_by_label("Churn risk").select_option("high")
        expect(page.get_by_text("No lead is like that.")).to_be_visible()
        assert seen.complaints == []


def test_pages_turn_and_an_address_can_be_given_to_somebody_else(browser: Browser, shown: Shown) -> None:
    with watched(browser) as seen:
        log_in(seen, shown, "?sort=-subscriber_id&search=lead")
        page = seen.page
        assert ids(seen)[0] == "lead115"
        assert page.get_by_role("button", name="Previous").is_disabled()
        page.get_by_role("button", name="Next", exact=True).click()
        expect(page.locator("#place")).to_have_text("51–100 of 116")
        assert ids(seen)[0] == "lead065"
        page.get_by_role("button", name="Next", exact=True).click()
        expect(page.locator("#place")).to_have_text("101–116 of 116")
        assert len(ids(seen)) == 16 and page.get_by_role("button", name="Next", exact=True).is_disabled()
        page.go_back()
        expect(page.locator("#place")).to_have_text("51–100 of 116")


def test_one_lead_opens_with_reasons_and_history_and_escape_gives_focus_back(browser: Browser, shown: Shown) -> None:
    with watched(browser) as seen:
        log_in(seen, shown)
        page = seen.page
        page.locator("[data-id=lead000]").focus()
        page.keyboard.press("Enter")
        dialog = page.get_by_role("dialog", name="lead000")
        expect(dialog.get_by_text("Speaks for this lead")).to_be_visible()
        expect(dialog.get_by_role("heading", name="lead000")).to_be_focused()
        expect(dialog.get_by_role("img", name="Score: 40 on 16 Nov 2026, 99 on 23 Nov 2026")).to_be_visible()
        assert dialog.get_by_text("Score now").count() == 1
        assert dialog.get_by_text("from 96 (C) to 99 (A): engaged again").count() == 1
        assert dialog.get_by_text("country", exact=True).count() == 1
        assert "lead=lead000" in page.url
        page.keyboard.press("Escape")
        expect(dialog).to_be_hidden()
        expect(page.locator("[data-id=lead000]")).to_be_focused()
        assert "lead=" not in page.url
        page.go_back()
        expect(dialog).to_be_visible()
        page.reload()
        expect(dialog.get_by_text("Speaks for this lead")).to_be_visible()
        dialog.get_by_role("button", name="Close").click()
        expect(dialog).to_be_hidden()
        assert seen.complaints == []


def test_the_download_is_the_selection_as_the_api_gives_it(browser: Browser, shown: Shown, tmp_path: Path) -> None:
    with watched(browser) as seen:
        log_in(seen, shown, "?grade=A&segment=country%3DDE&sort=score")
        link = seen.page.get_by_role("link", name="Download these 5 (CSV)")
        with seen.page.expect_download() as begun:
            link.click()
        begun.value.save_as(tmp_path / "leads.csv")
        assert begun.value.suggested_filename.startswith("leads-2026")
    with shown.service.client() as client:
        expected = client.get("/v1/leads.csv", params={"grade": "A", "segment": "country=DE"}).content
    assert (tmp_path / "leads.csv").read_bytes() == expected and expected.count(b"\r\n") == 6


def test_what_people_are_called_runs_nowhere_and_nothing_is_asked_elsewhere(browser: Browser, shown: Shown) -> None:
    with watched(browser) as seen:
        log_in(seen, shown, "?sort=score")
        page = seen.page
        assert ids(seen)[:3] == [LONG, EVIL_ID, "evil"]
        expect(page.locator("#rows")).to_contain_text(EVIL)
        for who in ("evil", EVIL_ID, LONG):
            page.locator("#rows [data-id]").nth(ids(seen).index(who)).click()
            dialog = page.get_by_role("dialog")
            expect(dialog.get_by_text("Speaks for this lead")).to_be_visible()
            expect(dialog.get_by_role("heading").first).to_have_text(who)
            page.keyboard.press("Escape")
            expect(dialog).to_be_hidden()
        page.get_by_label("Attribute", exact=True).select_option("country")
        page.get_by_label("Its value").fill(EVIL)
        page.keyboard.press("Enter")
        counted(seen, "1 of 120 leads.")
        assert page.title() == "Leads" and page.locator("img, #rows script").count() == 0
        assert all(one.startswith((shown.service.url + "/", "data:")) for one in seen.requests)
        assert seen.complaints == []


def test_of_who_has_withdrawn_consent_since_nothing_is_shown(browser: Browser, shown: Shown, small_list: Path) -> None:
    who = objector(small_list)
    with watched(browser) as seen:
        log_in(seen, shown, f"?sort=score&lead={who}")
        expect(seen.page.get_by_role("dialog")).to_contain_text("This person has withdrawn consent.")
        seen.page.keyboard.press("Escape")
        counted(seen, "119 of 120 leads.")
        assert who not in ids(seen) and "Atlantis" not in seen.page.content()
        assert len(ids(seen)) == 50


def test_a_new_export_is_shown_and_said(browser: Browser, shown: Shown) -> None:
    newer = NOW + timedelta(days=1)
    name = "20261124T081502120000Z-000004"
    with watched(browser) as seen:
        log_in(seen, shown)
        facts = {"book_id": name, "scored_at": newer.isoformat()}
        book = book_of(shown.home.leads / "beside", lead("newcomer", 99), **facts)
        path = book.path.rename(shown.home.leads / f"{name}.parquet")
        try:
            seen.page.get_by_role("button", name="Score", exact=True).click()
            expect(seen.page.locator("#notice")).to_contain_text("A new export from 24 Nov 2026")
            assert ids(seen) == ["newcomer"]
            assert seen.page.get_by_label("Attribute", exact=True).is_hidden()
        finally:
            path.unlink()


def test_words_stand_out_from_what_is_behind_them(browser: Browser, shown: Shown) -> None:
    with watched(browser) as seen:
        seen.page.goto(f"{shown.service.url}/leads")
        seen.page.get_by_label("API key").wait_for()
        assert seen.page.evaluate(CONTRASTS) == []
        log_in(seen, shown, "?lead=lead000&segment=size%3D0")
        expect(seen.page.get_by_text("Speaks for this lead")).to_be_visible()
        assert seen.page.evaluate(CONTRASTS) == []


@pytest.mark.parametrize("size", [DESKTOP, PHONE, (320, 700)])
def test_the_page_never_scrolls_sideways(browser: Browser, shown: Shown, size: tuple[int, int]) -> None:
    with watched(browser, size) as seen:
        seen.page.goto(f"{shown.service.url}/leads")
        seen.page.get_by_label("API key").wait_for()
        assert not seen.scrolls_sideways
        log_in(seen, shown, "?sort=score&segment=country%3D" + LONG)
        assert not seen.scrolls_sideways
        seen.page.get_by_role("button", name="Show all").click()
        counted(seen, "119 of 120 leads.")
        assert not seen.scrolls_sideways
        seen.page.locator("#rows [data-id]").first.click()
        seen.page.get_by_text("Speaks for this lead").wait_for()
        assert not seen.scrolls_sideways
        panel = seen.page.locator("#lead")
        assert panel.evaluate("one => one.scrollWidth <= one.clientWidth")


def test_grades_stand_side_by_side(browser: Browser, shown: Shown) -> None:
    for size in (DESKTOP, PHONE):
        with watched(browser, size) as seen:
            log_in(seen, shown)
            boxes = [box.bounding_box() for box in seen.page.locator("#grades input").all()]
            assert len({round(box["y"]) for box in boxes if box}) == 1


def test_after_the_key_is_revoked_the_page_asks_for_one_and_keeps_its_place(browser: Browser, shown: Shown) -> None:
    keys = ServingSettings(home=shown.home.root).keys
    passing = create_key(keys, "passing")
    with watched(browser) as seen:
        seen.page.goto(f"{shown.service.url}/leads?grade=A")
        seen.page.wait_for_timeout(1_100)
        seen.page.get_by_label("API key").fill(passing)
        seen.page.keyboard.press("Enter")
        counted(seen, "20 of 120 leads.")
        revoke_key(keys, "passing")
        seen.page.wait_for_timeout(1_100)
        seen.page.get_by_role("button", name="Score", exact=True).click()
        expect(seen.page.get_by_label("API key")).to_be_focused()
        expect(seen.page.get_by_text("The session is over")).to_be_visible()
        assert seen.page.locator("#rows tr").count() == 0
        seen.page.get_by_label("API key").fill(shown.key)
        seen.page.keyboard.press("Enter")
        counted(seen, "20 of 120 leads.")
        assert "grade=A" in seen.page.url and "sort=-score" in seen.page.url
