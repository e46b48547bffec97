"""The page of leads and the report in a real browser: Debian's Chromium without a window.

What enters: a ``Bench``. What leaves: bytes, paints, and how long each thing takes that somebody does on the page. The promise:
the page is the real service's with a long book and everybody's state in its store, opened anew each round with nothing
cached; a time ends when what changed has been painted, and includes the 250 ms that the search waits for the next letter.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
from playwright.sync_api import Browser, Page, sync_playwright

from benchmarks.people.aside import aside
from benchmarks.people.bench import Bench
from benchmarks.people.lists import fill_store, long_home, scored
from benchmarks.people.service import Killable, killable
from benchmarks.report import Measured
from features.home import Home
from pipelines.serve import ROOT

LEADS, FEW_LEADS = 100_000, 5_000
DOWNLOADS = 3
GIVE_UP_S = 60.0

_WATCH = """
addEventListener("DOMContentLoaded", () => {
  const rows = document.getElementById("rows"), body = document.getElementById("lead-body");
  const painted = (then) => requestAnimationFrame(() => requestAnimationFrame(() => then(performance.now())));
  if (rows) new MutationObserver(() => rows.children.length && painted((at) => { window.rowsAt = at; }))
    .observe(rows, {childList: true});
  if (body) new MutationObserver(() => body.querySelector("h3") && painted((at) => { window.leadAt = at; }))
    .observe(body, {childList: true});
});
"""
_PAINT = "performance.getEntriesByName('first-contentful-paint')"
_DID = "document.getElementById('scroll').getAttribute('aria-busy') === 'false'"

ACTIONS: dict[str, Callable[[Page], None]] = {
    "search by part of an id": lambda page: page.fill("#search", "s00012"),
    "forget the search": lambda page: page.fill("#search", ""),
    "sort by churn risk": lambda page: page.click("#head [data-sort=churn_probability] button"),
    "only grade A": lambda page: page.check("#grades input[value=A]"),
    "next page": lambda page: page.click("#next"),
}
"""In this order, each on what the one before left."""


def leads_page(bench: Bench) -> Measured:
    """First paint, first rows, what people do, and the download."""
    leads = FEW_LEADS if bench.quick else LEADS
    measured = Measured("leads", f"The page of {leads:,} leads, in Chromium")
    home = _long(bench, leads)
    with killable(home, bench.work / "service.log") as service, chromium() as browser:
        measured.facts["memory_before_mb"] = _memory_mb()
        with bench.narrator.step("the page of leads") as share:
            rounds = []
            for number in range(bench.rounds + 1):
                rounds.append(_visit(browser, service))
                share((number + 1) / (bench.rounds + 1))
        with bench.narrator.step("download"):
            downloads = [_download(service) for _ in range(DOWNLOADS)]
        measured.facts["memory_after_mb"] = _memory_mb()
    cold, *warm = rounds
    measured.facts |= {"first_visit": cold, "visits": warm}
    for words in warm[0]:
        unit = "bytes" if "bytes" in words else "ms"
        measured.add(words, [one[words] for one in warm], unit)
    measured.add("first visit after the service started: first rows painted", [cold["first rows painted"]], "ms")
    measured.add("CSV of everybody", [rows / seconds for rows, seconds in downloads], "rows/s")
    measured.add("the service's memory, after", [measured.facts["memory_after_mb"]], "MB")
    measured.add("… before anybody asked for leads", [measured.facts["memory_before_mb"]], "MB")
    return measured


def report_page(bench: Bench) -> Measured:
    """How large it is, and when it is painted, from a file."""
    measured = Measured("report", "The report, in Chromium")
    path = bench.work / "report.html"
    with bench.narrator.step("export the leads"):
        _inbox(bench, "export", "leads", "--format", "parquet", "--out", str(bench.work / "out"))
    with bench.narrator.step("write the report"):
        begun = time.perf_counter()
        _inbox(bench, "export", "report", "--out", str(path))
        took = time.perf_counter() - begun
    with bench.narrator.step("the report"), chromium() as browser:
        visits = [_opened(browser, path) for _ in range(bench.rounds)]
    measured.add("bytes", [path.stat().st_size], "bytes")
    for words in visits[0]:
        measured.add(words, [one[words] for one in visits], "ms")
    measured.add("inbox export report, the whole command", [took], "s")
    return measured


def _inbox(bench: Bench, *arguments: str) -> None:
    """A verb, as somebody would call it."""
    command = [str(Path(sys.executable).with_name("inbox")), *arguments, "--home", str(bench.home.root)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"inbox {arguments[0]} {arguments[1]} failed: {done.stderr[-1000:]}")


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser without a window.

    Raises
    ------
    RuntimeError
        When the machine has none.
    """
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
    if path is None:
        raise RuntimeError("there is no Chromium here; `apt-get install chromium` brings it")
    with sync_playwright() as playwright:
        # A container has no user namespaces for Chromium's sandbox; the pages are our own.
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


def _long(bench: Bench, leads: int) -> Home:
    """A home with a book of so many, one before it, and everybody's state in the store."""
    target = bench.work / "leads"
    filled = target / f"{leads}.filled"
    home = long_home(bench.home, target, leads, bench.narrator)
    if not filled.exists():
        fill_store(bench.home, home, leads, bench.narrator)
        filled.touch()
    scored(bench.home, bench.work, bench.narrator)
    with bench.narrator.step(f"books of {leads:,} leads"):
        for day in (0, 1):
            given = {"home": str(home.root), "scored": str(bench.work / "scored.parquet")}
            aside("benchmarks.people.exports:book", **given, leads=leads, day=day)
    return home


def _visit(browser: Browser, service: Killable) -> dict[str, float]:
    """One person's, from opening the page with a session to looking at a lead."""
    context = browser.new_context(viewport={"width": 1200, "height": 900})
    try:
        context.add_init_script(_WATCH)
        key = {"authorization": f"Bearer {service.key}"}
        context.request.post(f"{service.url}/leads/session", headers=key, data={})
        page = context.new_page()
        page.goto(f"{service.url}/leads")
        _await(page, f"window.rowsAt && {_PAINT}.length")
        found = _first(page)
        for words, act in ACTIONS.items():
            found[words] = _after(page, "rowsAt", act)
        found["look at one lead"] = _after(page, "leadAt", lambda page: page.click("#rows button >> nth=0"))
        return found
    finally:
        context.close()


def _first(page: Page) -> dict[str, float]:
    said: dict[str, Any] = page.evaluate(f"""() => {{
        const sized = (entry) => entry ? entry.encodedBodySize : 0;
        const data = performance.getEntriesByType("resource").filter((entry) => entry.name.includes("/v1/leads"));
        return {{page: sized(performance.getEntriesByType("navigation")[0]), data: sized(data[0]),
                 answered: data[0].responseEnd - data[0].startTime, paint: {_PAINT}[0].startTime, rows: window.rowsAt}};
    }}""")
    return {
        "bytes of the page": said["page"],
        "bytes of the first data": said["data"],
        "first contentful paint": said["paint"],
        "first data answered in": said["answered"],
        "first rows painted": said["rows"],
    }


def _after(page: Page, sign: str, act: Callable[[Page], None]) -> float:
    """Milliseconds until what was done is to be seen."""
    begun = page.evaluate("performance.now()")
    act(page)
    _await(page, f"window.{sign} > {begun} && {_DID}")
    return float(page.evaluate(f"window.{sign}")) - begun


def _await(page: Page, holds: str) -> None:
    """Playwright's own way to wait is an eval in the page, which its content security policy forbids."""
    until = time.monotonic() + GIVE_UP_S
    while not page.evaluate(f"Boolean({holds})"):
        if time.monotonic() > until:
            raise RuntimeError(f"{holds} did not come true within {GIVE_UP_S:g} s")
        time.sleep(0.01)


def _opened(browser: Browser, path: Path) -> dict[str, float]:
    context = browser.new_context(viewport={"width": 1200, "height": 900})
    try:
        page = context.new_page()
        page.goto(path.resolve().as_uri())
        _await(page, f"{_PAINT}.length")
        return {
            "first contentful paint": float(page.evaluate(f"{_PAINT}[0].startTime")),
            "loaded": float(page.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd")),
        }
    finally:
        context.close()


def _download(service: Killable) -> tuple[int, float]:
    """Rows of everybody's CSV, and seconds."""
    begun, lines = time.perf_counter(), 0
    key = {"authorization": f"Bearer {service.key}"}
    with httpx.stream("GET", f"{service.url}/v1/leads.csv", headers=key, timeout=120.0) as answer:
        answer.raise_for_status()
        for piece in answer.iter_bytes():
            lines += piece.count(b"\r\n")
    return lines - 1, time.perf_counter() - begun


def _memory_mb() -> float:
    """Of the service's largest process: its worker."""
    children = psutil.Process().children(recursive=True)
    served = [one for one in children if "serving.service:Scoring" in " ".join(one.cmdline())]
    return max(float(one.memory_info().rss) for one in served) / 2**20
