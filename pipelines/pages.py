"""HTML pages that need nothing else: the elements, the look, numbers in words, the document.

What enters: words and drawings. What leaves: one page. The promise: every word that came from data is escaped, and the
browser is told to load nothing from anywhere.
"""

from __future__ import annotations

import base64
import html
import math
import re
from collections.abc import Iterable, Sequence
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


def table(head: Sequence[str], rows: Iterable[Sequence[str]], caption: str, words: int = 1) -> Html:
    """A table whose first ``words`` columns are words, and whose others are numbers."""
    titles = tag("tr", *(tag("th", text(title), scope="col") for title in head))
    body = (
        tag("tr", tag("th", text(first), scope="row"), *(tag("td", text(cell)) for cell in rest))
        for first, *rest in rows
    )
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


def document(title: str, header: Html, body: Iterable[Html], footer: Html) -> Html:
    """A whole page; empty parts are left out."""
    head = tag(
        "head",
        Html('<meta charset="utf-8">'),
        Html('<meta name="viewport" content="width=device-width, initial-scale=1">'),
        # The browser itself keeps the promise that nothing is loaded.
        Html(
            '<meta http-equiv="Content-Security-Policy" '
            "content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:\">"
        ),
        tag("title", text(title)),
        Html(f"<style>{_CSS}</style>"),
    )
    main = tag("main", *(part for part in body if part))
    return Html("<!doctype html>\n" + tag("html", head, tag("body", header, main, footer), lang="en"))


def header(title: str, simulated: bool) -> Html:
    """The page's title, and whether the people in it exist."""
    if simulated:
        words = "Simulated data. A program made these people and what they did; none of them exists."
        banner = tag("p", tag("strong", text(words)), class_="banner simulated")
    else:
        banner = tag("p", text("Taken as real data: nothing says that this list is simulated."), class_="banner real")
    return tag("header", tag("h1", text(title)), banner)


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
.wide img { width: auto; min-width: 0; max-width: none; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
caption { text-align: left; padding-bottom: .3rem; }
th, td { text-align: right; padding: .4rem .6rem; border-bottom: 1px solid #e6eaf0; vertical-align: top; }
th:first-child, .words-2 th, .words-2 td:nth-child(2) { text-align: left; }
.words-2 th:nth-child(n + 3) { text-align: right; }
thead th { color: #556172; font-size: .875rem; }
summary { cursor: pointer; color: #1f5fa8; padding: .4rem 0; }
:focus-visible { outline: 3px solid #1f5fa8; outline-offset: 2px; }
footer { color: #556172; font-size: .875rem; padding-bottom: 2rem; }
@media (max-width: 40rem) {
  section { padding: 1rem; margin: .8rem 0; }
  main { padding: 0 .6rem; }
  h1 { font-size: 1.5rem; }
  .facts, .tiles { grid-template-columns: 1fr 1fr; }
  th, td { padding: .4rem .3rem; }
  td { font-size: .9375rem; }
}
@media print { body { background: #fff; } section { break-inside: avoid; border: 0; } }
"""
