"""The report in a real browser: the slider says what the table says, nothing leaves, and it fits a phone."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Browser

from pipelines.report.cut import FIRST_CUT
from pipelines.report.page import write_report
from tests.browser import DESKTOP, PHONE, Watched, watched
from tests.pipelines.reports import report_of

NARROWEST = (360, 740)
CONTROLS = "a[href], button, input, select, textarea, summary, [tabindex]"
TEXTS = ("contacts", "of_leads", "expected", "of_all", "per_hundred", "at_random")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Where a page about everything is."""
    place = tmp_path_factory.mktemp("report")
    return write_report(place / "report.html", report_of(place)).as_uri()


def shown(seen: Watched) -> list[str]:
    """What the slider's place says, from the score on."""
    places = seen.page.locator("#cut-result [data-cut]")
    texts = {place.get_attribute("data-cut"): place.inner_text() for place in places.all()}
    return [texts[str(number)] for number in range(len(TEXTS) + 1)]


def width(seen: Watched, place: str) -> float:
    box = seen.page.locator(place).bounding_box()
    return 0.0 if box is None else box["width"]


def in_table(seen: Watched, score: int) -> list[str]:
    """The row of the table that cuts at a score."""
    table = seen.page.get_by_role("table", name="Expected contacts and conversions by where one cuts")
    row = next(
        row for row in table.locator("tbody tr").all() if row.locator("th").inner_text().split(" ")[0] == str(score)
    )
    return [str(score), *row.locator("td").all_inner_texts()]


def test_the_slider_says_at_every_stop_what_the_table_says(browser: Browser, page: str) -> None:
    with watched(browser) as seen:
        seen.page.goto(page)
        slider = seen.page.get_by_label("Contact everybody scored at least")
        assert slider.is_visible()
        assert shown(seen) == in_table(seen, FIRST_CUT)
        for score in range(0, 101, 10):
            slider.fill(str(score))
            assert shown(seen) == in_table(seen, score)
        assert slider.get_attribute("aria-valuetext") == f"score 100 or more: {shown(seen)[1]} contacts"
        assert seen.complaints == []


def test_the_slider_moves_with_the_keyboard_and_its_bars_with_it(browser: Browser, page: str) -> None:
    with watched(browser) as seen:
        seen.page.goto(page)
        seen.page.get_by_label("Contact everybody scored at least").focus()
        before = width(seen, ".bar .leads")
        seen.page.keyboard.press("ArrowLeft")
        assert shown(seen)[0] == str(FIRST_CUT - 1)
        seen.page.keyboard.press("Home")
        assert shown(seen)[0] == "0"
        seen.page.wait_for_function("document.querySelector('.bar .leads').style.width === '100%'")
        seen.page.wait_for_timeout(200)
        assert width(seen, ".bar .leads") > 2 * before


def test_nothing_leaves_and_nothing_is_refused(browser: Browser, page: str) -> None:
    with watched(browser) as seen:
        seen.page.goto(page)
        seen.page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
        assert [one for one in seen.requests if not one.startswith("data:")] == [page]
        assert seen.complaints == []
        assert all(seen.page.eval_on_selector_all("img", "all => all.map(one => one.naturalWidth > 0)"))


def test_the_browser_runs_no_other_script(browser: Browser, page: str, tmp_path: Path) -> None:
    text = Path(page.removeprefix("file://")).read_text(encoding="utf-8")
    forged = tmp_path / "forged.html"
    forged.write_text(text.replace("</body>", "<script>document.title = 'taken'</script></body>"), encoding="utf-8")
    with watched(browser) as seen:
        seen.page.goto(forged.as_uri())
        assert seen.page.title() != "taken"
        assert any("Content Security Policy" in one for one in seen.complaints)


def test_without_scripts_the_table_is_there_and_the_slider_is_not(browser: Browser, page: str) -> None:
    with watched(browser, scripts=False) as seen:
        seen.page.goto(page)
        assert seen.page.locator("#cut-control").is_hidden()
        assert seen.page.locator("#cut-result").is_visible()
        assert shown(seen) == in_table(seen, FIRST_CUT)


@pytest.mark.parametrize("size", [DESKTOP, PHONE, NARROWEST])
def test_the_page_never_scrolls_sideways(browser: Browser, page: str, size: tuple[int, int]) -> None:
    with watched(browser, size) as seen:
        seen.page.goto(page)
        seen.page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
        assert not seen.scrolls_sideways


def test_every_image_and_every_control_has_a_name(browser: Browser, page: str) -> None:
    with watched(browser) as seen:
        seen.page.goto(page)
        assert seen.page.locator("img:not([alt])").count() == 0
        assert seen.page.locator(CONTROLS).count() > 15
        named = "one.getAttribute('aria-label') || one.innerText || (one.labels && one.labels[0].innerText) || ''"
        names = seen.page.eval_on_selector_all(CONTROLS, f"all => all.map(one => ({named}).trim())")
        assert all(names)


def test_words_stand_out_from_what_is_behind_them(browser: Browser, page: str) -> None:
    with watched(browser) as seen:
        seen.page.goto(page)
        seen.page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
        assert seen.page.evaluate(CONTRASTS) == []


CONTRASTS = """() => {
  const channel = (value) => value <= 10.31475 ? value / 3294.6 : Math.pow((value / 255 + 0.055) / 1.055, 2.4);
  const parts = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = (colour) => 0.2126 * channel(colour[0]) + 0.7152 * channel(colour[1]) + 0.0722 * channel(colour[2]);
  const behind = (one) => {
    for (let at = one; at; at = at.parentElement) {
      const colour = parts(getComputedStyle(at).backgroundColor);
      if (colour.length < 4 || colour[3] > 0) { return colour; }
    }
    return [255, 255, 255];
  };
  const weak = [];
  for (const one of document.querySelectorAll("body *")) {
    const own = [...one.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    if (!own || one.tagName === "SCRIPT") { continue; }
    const pair = [light(parts(getComputedStyle(one).color)), light(behind(one))].sort((a, b) => b - a);
    const contrast = (pair[0] + 0.05) / (pair[1] + 0.05);
    if (contrast < 4.5) { weak.push(one.tagName + " " + one.className + " " + contrast.toFixed(2)); }
  }
  return [...new Set(weak)];
}"""
"""What has a contrast below 4.5 (WCAG 2.2 AA), by the formula given there."""
