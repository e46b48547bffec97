"""Pages load nothing, and what came from data stays text."""

from __future__ import annotations

import base64
import re
from hashlib import sha256

from pipelines import pages
from tests.training.test_plots import CHARTS
from training.evaluation import Interval
from training.plots import importance_chart


def test_a_page_holds_every_chart_and_loads_nothing() -> None:
    page = pages.document(
        "Churn", pages.header("Churn", simulated=True), map(pages.drawn, CHARTS.values()), pages.Html("")
    )
    assert page.count("<figure>") == len(CHARTS)
    assert "<script" not in page and "@import" not in page and "url(" not in page
    sources = re.findall(r'(?:src|href)\s*=\s*"([^"]{0,26})', page)
    assert sources == ["data:image/svg+xml;base64,"] * len(CHARTS)
    for picture in re.findall(r"base64,([^\"]+)", page):
        svg = base64.b64decode(picture).decode()
        assert not re.search(r'(?:src|href)\s*=\s*"(?!#)|@import|url\((?!#|\'#|"#)', svg)


def test_names_from_the_data_are_escaped() -> None:
    chart = importance_chart({'<img src="x" onerror="alert(1)">': 1.0})
    page = pages.document("<b>", pages.header("<b>", simulated=False), [pages.drawn(chart)], pages.paragraph("<i>&"))
    assert page.count("<img ") == 1 and "onerror=&quot;" in page
    assert "<b>" not in page and "&lt;i&gt;&amp;" in page


def test_a_number_that_does_not_exist_is_a_dash() -> None:
    nothing = float("nan")
    assert pages.interval(Interval(nothing, nothing, nothing)) == "–" == pages.percent(nothing)
    assert pages.interval(Interval(0.5, nothing, nothing), digits=1) == "0.5"
    assert pages.interval(Interval(0.5, 0.4, 0.6), digits=1) == "0.5 (0.4 to 0.6)"
    assert pages.percent(0.125) == "12.5 %"


def test_the_browser_may_run_the_pages_own_script_and_no_other() -> None:
    plain = pages.document("t", pages.header("t", simulated=False), [], pages.Html(""))
    assert "script" not in plain
    page = pages.document("t", pages.header("t", simulated=False), [], pages.Html(""), script="let a = 1;")
    told = base64.b64encode(sha256(b"let a = 1;").digest()).decode()
    assert f"img-src data:; script-src 'sha256-{told}'" in page
    assert page.endswith("<script>let a = 1;</script></body></html>")


def test_what_is_to_be_typed_is_told_apart_and_escaped() -> None:
    assert pages.told("say `inbox <x>` now") == "<p>say <code>inbox &lt;x&gt;</code> now</p>"
