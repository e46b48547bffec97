"""HTML pages that need nothing else: the elements, the look, numbers in words, the document.

What enters: words and drawings. What leaves: one page. The promise: every word that came from data is escaped, and the
browser is told to load nothing from anywhere.
"""

from __future__ import annotations

import base64
import html
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from typing import NewType

from training.evaluation import Interval
from training.plots import Chart, to_svg
from training.plots import caption as caption_of

Html = NewType("Html", str)
"""Text that is safe to put into a page: made by ``text`` and ``tag``, or written by hand."""


def text(words: str) -> Html:
    """Words from anywhere, escaped."""
    return Html(html.escape(words))


def tag(name: str, *children: Html, **attributes: str) -> Html:
    """An element. Attributes are escaped; ``class_`` is written ``class``, ``aria_label`` ``aria-label``."""
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(value)}"' for key, value in attributes.items()
    )
    return Html(f"<{name}{written}>{''.join(children)}</{name}>")


def paragraph(words: str, class_: str | None = None) -> Html:
    """Plain words."""
    return tag("p", text(words), **({"class_": class_} if class_ else {}))


def section(title: str, *parts: Html) -> Html:
    """A part of the page with its heading."""
    name = re.sub(r"\W+", "-", title.lower())
    return tag("section", tag("h2", text(title), id=name), *parts, aria_labelledby=name)


def bullets(items: Iterable[str]) -> Html:
    """A list of plain words."""
    return tag("ul", *(tag("li", text(item)) for item in items))


def told(words: str) -> Html:
    """Words of our own, in which what stands between backticks is to be typed."""
    return tag("p", Html(re.sub(r"`([^`]+)`", r"<code>\1</code>", text(words))))


def bar(share: float, kind: str, **attributes: str) -> Html:
    """A share (0–1) as a bar, for the eye alone: the number must stand beside it."""
    inner = tag("span", class_=kind, style=f"width: {100 * share:.1f}%", **attributes)
    return tag("span", inner, class_="bar", aria_hidden="true")


def table(head: Sequence[str], rows: Iterable[Sequence[str]], caption: str, words: int = 1) -> Html:
    """A table whose first ``words`` columns are words, and whose others are numbers."""
    return rich_table(head, ([text(cell) for cell in row] for row in rows), caption, words)


def rich_table(head: Sequence[str], rows: Iterable[Sequence[Html]], caption: str, words: int = 1) -> Html:
    """The same of cells that are more than plain words."""
    titles = tag("tr", *(tag("th", text(title), scope="col") for title in head))
    body = (tag("tr", tag("th", first, scope="row"), *(tag("td", cell) for cell in rest)) for first, *rest in rows)
    inner = tag("table", tag("caption", text(caption)), tag("thead", titles), tag("tbody", *body))
    return tag("div", inner, class_=f"scroll words-{words}", tabindex="0", role="region", aria_label=caption)


def figure(svg: str, alternative: str, caption: str) -> Html:
    """A drawing as an image; ``alternative`` is for who cannot see it."""
    picture = base64.b64encode(svg.encode()).decode()
    image = Html(f'<img src="data:image/svg+xml;base64,{picture}" alt="{html.escape(alternative)}">')
    return tag("figure", image, *([tag("figcaption", text(caption))] if caption else []))


def drawn(chart: Chart) -> Html:
    """A chart as a figure; its title is the text for who cannot see it."""
    return figure(to_svg(chart), caption_of(chart), "")


def interval(one: Interval, digits: int = 3) -> str:
    """A number with its interval, a dash where there is none."""
    if not math.isfinite(one.value):
        return "–"
    ends = f" ({one.low:.{digits}f} to {one.high:.{digits}f})" if math.isfinite(one.low) else ""
    return f"{one.value:.{digits}f}{ends}"


def percent(share: float) -> str:
    """A share (0–1) of hundred, a dash where there is none."""
    return f"{100 * share:.1f} %" if math.isfinite(share) else "–"


def document(title: str, header: Html, body: Iterable[Html], footer: Html, script: str = "") -> Html:
    """A whole page; empty parts are left out.

    Parameters
    ----------
    script
        The only one the browser will run on this page, by its hash. Nothing from data may be in it.
    """
    run = f"; script-src 'sha256-{base64.b64encode(sha256(script.encode()).digest()).decode()}'" if script else ""
    head = tag(
        "head",
        Html('<meta charset="utf-8">'),
        Html('<meta name="viewport" content="width=device-width, initial-scale=1">'),
        # The browser itself keeps the promise that nothing is loaded.
        Html(
            '<meta http-equiv="Content-Security-Policy" '
            f"content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:{run}\">"
        ),
        tag("title", text(title)),
        Html(f"<style>{_CSS}</style>"),
    )
    main = tag("main", *(part for part in body if part))
    last = Html(f"<script>{script}</script>" if script else "")
    return Html("<!doctype html>\n" + tag("html", head, tag("body", header, main, footer, last), lang="en"))


def facts(told: Mapping[str, str]) -> Html:
    """Names with their values."""
    pairs = (tag("div", tag("dt", text(name)), tag("dd", text(value), dir="auto")) for name, value in told.items())
    return tag("dl", *pairs, class_="facts")


def header(title: str, simulated: bool) -> Html:
    """The page's title, and whether the people in it exist."""
    if simulated:
        words = "Simulated data. A program made these people and what they did; none of them exists."
        banner = tag("p", tag("strong", text(words)), class_="banner simulated")
    else:
        banner = tag("p", text("Taken as real data: nothing says that this list is simulated."), class_="banner real")
    return tag("header", tag("h1", text(title), dir="auto"), banner)


_CSS = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0; background: #f3f5f8; color: #1d2733; font: 16px/1.55 system-ui, "Segoe UI", Arial, sans-serif; }
header { background: #16304f; color: #fff; padding: 2rem max(1rem, calc(50% - 32rem)) 1.6rem; }
main, footer { max-width: 66rem; margin: 0 auto; padding: 0 1rem; }
h1 { margin: 0 0 .9rem; font-size: 1.9rem; line-height: 1.2; overflow-wrap: anywhere; }
h2 { margin: 0 0 .8rem; font-size: 1.35rem; color: #16304f; }
h3 { margin: 1.4rem 0 .4rem; font-size: 1.1rem; }
h4 { margin: 1rem 0 .3rem; font-size: 1rem; }
p, ul { margin: .4rem 0 .8rem; overflow-wrap: anywhere; }
ul { padding-left: 1.2rem; }
section { background: #fff; border: 1px solid #dfe4ea; border-radius: 10px; padding: 1.3rem 1.4rem; margin: 1.2rem 0; }
.banner { display: inline-block; margin: 0; padding: .45rem .8rem; border-radius: 6px; }
.simulated { background: #ffe2a0; color: #4a3000; }
.real { background: #d5ecdf; color: #10402a; }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(13rem, 1fr)); gap: .8rem 1.4rem; margin: 0; }
dt, .name, .label { color: #556172; font-size: .875rem; }
dd { margin: 0; font-weight: 600; overflow-wrap: anywhere; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(10.5rem, 1fr)); gap: .8rem; }
.tile { display: flex; flex-direction: column; margin: 0; padding: .8rem 1rem; background: #f3f6fa; }
.tile span:last-child { font-size: .875rem; line-height: 1.35; color: #556172; }
.number { font-size: 1.45rem; font-weight: 700; font-variant-numeric: tabular-nums; }
.card { border-top: 1px solid #dfe4ea; margin-top: 1.3rem; padding-top: .2rem; }
.card h3 { margin: 1rem 0 0; font-size: 1.2rem; }
.card summary h3 { margin: 0 .7rem 0 .2rem; }
.card .label { margin: 0 0 .5rem; }
.refused { background: #fdf3ef; border: 1px solid #e6c4b8; border-radius: 8px; padding: .2rem 1rem; }
.metrics { display: grid; grid-template-columns: repeat(auto-fit, minmax(16rem, 1fr)); gap: .9rem; }
.metric { border: 1px solid #dfe4ea; border-radius: 8px; padding: .3rem 1rem; }
.metric h4 { margin: .5rem 0 .1rem; }
.metric p { margin: .15rem 0 .4rem; }
.meaning, figcaption, caption { color: #556172; font-size: .875rem; }
.verdict { display: inline-block; padding: .1rem .55rem; border-radius: 5px; font-size: .875rem; font-weight: 600; }
.better { background: #d5ecdf; color: #10402a; }
.even { background: #e6eaf0; color: #333f4d; }
.worse { background: #fadbd3; color: #6b1d0f; }
.beside { display: grid; gap: .5rem 2rem; align-items: center; }
.beside { grid-template-columns: repeat(auto-fit, minmax(min(100%, 20rem), 1fr)); }
figure { margin: .5rem 0; overflow-x: auto; }
img { display: block; max-width: 100%; height: auto; }
figure img { width: 100%; min-width: 34rem; max-width: 52rem; }
.beside img { width: auto; min-width: 0; max-width: 100%; }
.scroll { overflow-x: auto; margin: .6rem 0 1.2rem; }
/* A shade at the edge where there is more to scroll to. */
.scroll {
  background: linear-gradient(to right, #fff 30%, #fff0) left / 3rem 100% no-repeat local,
    linear-gradient(to left, #fff 30%, #fff0) right / 3rem 100% no-repeat local,
    linear-gradient(to right, #16304f2e, #16304f00) left / .8rem 100% no-repeat scroll,
    linear-gradient(to left, #16304f2e, #16304f00) right / .8rem 100% no-repeat scroll;
}
.wide img { width: auto; min-width: 0; max-width: none; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
caption { text-align: left; padding-bottom: .3rem; }
th, td { text-align: right; padding: .4rem .6rem; border-bottom: 1px solid #e6eaf0; vertical-align: top; }
th:first-child, .words-2 th, .words-2 td:nth-child(2) { text-align: left; }
.words-2 th:nth-child(n + 3) { text-align: right; }
thead th { color: #556172; font-size: .875rem; }
.words-1 td, .words-2 td:nth-child(n + 3), .words-2 th { white-space: nowrap; }
.words-2 td:nth-child(2) { min-width: 10rem; }
summary { cursor: pointer; color: #1f5fa8; padding: .4rem 0; }
summary h3 { display: inline; }
code { background: #eef2f7; border-radius: 4px; padding: .05rem .3rem; font-size: .9em; overflow-wrap: anywhere; }
nav { max-width: 66rem; margin: 1rem auto 0; padding: 0 1rem; }
nav ul { display: flex; flex-wrap: wrap; gap: .4rem .5rem; list-style: none; margin: 0; padding: 0; }
nav a { display: block; background: #fff; border: 1px solid #cfd7e1; border-radius: 999px; padding: .25rem .8rem; }
nav a { color: #16304f; font-size: .9rem; text-decoration: none; }
nav a:hover { border-color: #1f5fa8; text-decoration: underline; }
.first { font-size: 1.1rem; font-weight: 600; }
.bar { display: block; height: .55rem; border-radius: 3px; background: #e6eaf0; overflow: hidden; }
.bar span { display: block; height: 100%; }
.leads { background: #7d90a8; }
.conversions { background: #2c7a57; }
.risk { background: #b3402e; }
td .bar { display: inline-block; width: 7rem; margin-right: .7rem; }
.cut { background: #f3f6fa; border-radius: 8px; padding: .8rem 1.1rem; margin: .8rem 0 1.2rem; }
.cut p { margin: .35rem 0; }
.cut label { display: block; font-size: 1.1rem; }
.cut input { width: 100%; height: 2.2rem; margin: 0; accent-color: #1f5fa8; cursor: pointer; }
.cut strong { font-variant-numeric: tabular-nums; }
.ends { display: flex; justify-content: space-between; color: #556172; font-size: .875rem; }
.rose { background: #d5ecdf; color: #10402a; }
.fell { background: #fadbd3; color: #6b1d0f; }
.stayed { background: #f0f2f5; font-weight: 600; }
.none { color: #6b7684; }
.moves { max-width: 40rem; }
:focus-visible { outline: 3px solid #1f5fa8; outline-offset: 2px; }
footer { color: #556172; font-size: .875rem; padding-bottom: 2rem; }
@media (max-width: 40rem) {
  section { padding: 1rem; margin: .8rem 0; }
  main { padding: 0 .6rem; }
  h1 { font-size: 1.5rem; }
  nav { padding: 0 .6rem; }
  nav ul { flex-wrap: nowrap; overflow-x: auto; padding-bottom: .4rem; }
  nav a { white-space: nowrap; }
  .facts, .tiles { grid-template-columns: 1fr 1fr; }
  .tile, .cut { padding: .7rem .8rem; }
  .words-2 td:nth-child(2) { min-width: 6.5rem; }
  td .bar { display: block; width: 3.5rem; margin: .2rem 0 .1rem auto; }
  th, td { padding: .4rem .3rem; }
  td { font-size: .9375rem; }
}
@media (prefers-reduced-motion: no-preference) { .cut .bar span { transition: width .12s; } }
@media print {
  body { background: #fff; }
  header { background: #fff; color: #1d2733; }
  section { border: 0; padding: 0; }
  table, figure, .tile, .metric, .cut { break-inside: avoid; }
  h2, h3, h4 { break-after: avoid; }
  nav, #cut-control { display: none; }
  details::details-content { content-visibility: visible; block-size: auto; }
  * { print-color-adjust: exact; }
}
"""
