"""The report: it loads nothing, escapes everything, says what is simulated, and calls a win only a win."""

from __future__ import annotations

import base64
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pyarrow as pa
import pytest

from features.errors import UnusableOption
from models import churn, lead_score, send_time
from pipelines.report import MetricRow, ModelCard, ReportInput, model_card, refused_card, write_report
from training.evaluation import CalibrationBin, Interval, compare, evaluate
from training.fit import Judgement

NOW = datetime(2026, 11, 23, 8, 15, tzinfo=UTC)
NASTY = "<script>alert('x')</script> & \"quoted\""
VOID = {"meta", "img"}


class Page(HTMLParser):
    """What a browser would make of the page: words outside style, tags with attributes, and whether tags nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.words, self.tags, self.open = "", list[tuple[str, dict[str, str | None]]](), list[str]()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words += data + "\n"

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def scored(count: int = 200) -> pa.Table:
    grades = np.repeat(["A", "B", "C", "D", "E"], count // 5)
    moment = pa.timestamp("us", tz="UTC")
    return pa.table(
        {
            "subscriber_id": [f"s{i}" for i in range(count)],
            "status": ["no_consent", "stale"] + ["ok"] * (count - 2) if count else pa.array([], pa.string()),
            "feature_age_s": pa.array([3_600.0] * count, pa.float64()),
            "last_engagement_at": pa.array([NOW - timedelta(days=i) if i else None for i in range(count)], moment),
            "churn_probability": np.linspace(0, 1, count),
            "churn_band": pa.array(np.where(np.arange(count) < count / 2, "low", "high").tolist(), pa.string()),
            "churn_reasons": pa.array([[f"↑ last click {i} days ago", "↓ opens"] for i in range(count)]),
            "lead_score_probability": np.linspace(0.5, 0, count),
            "lead_score_grade": pa.array(grades.tolist(), pa.string()),
            "lead_score_reasons": pa.array([[f"↑ {NASTY}"]] * count, pa.list_(pa.string())),
            "send_time_confident": pa.array([i % 4 == 0 for i in range(count)], pa.bool_()),
            "send_time_gain": np.full(count, 0.12),
            "scored_at": pa.array([NOW] * count, moment),
        }
    )


def judgement(skill: float, baseline_skill: float) -> Judgement:
    draw = np.random.default_rng(1)
    label = (draw.random(600) < 0.3).astype(np.float64)
    ours, base = (
        1 / (1 + np.exp(-(np.log(3 / 7) + strength * (label - 0.3) + 0.5 * draw.normal(size=600))))
        for strength in (skill, baseline_skill)
    )
    return Judgement(
        evaluate(ours, label, resamples=40),
        evaluate(base, label, resamples=40),
        "hours_since_last_engagement",
        compare(ours, base, label, resamples=40),
    )


def report_of(*cards: ModelCard, simulated: bool = True, table: pa.Table | None = None) -> ReportInput:
    heat = np.full((7, 24), 0.02)
    heat[1, 19], heat[0, 3] = 0.143, np.nan
    return ReportInput(
        title=f"Spring {NASTY}",
        simulated=simulated,
        list_facts={f"Sub {NASTY}": NASTY},
        models=cards,
        scored=scored() if table is None else table,
        caveats=[f"No complaints {NASTY}"],
        heat=heat,
        exports=["var/exports/leads.csv", NASTY],
    )


def page_of(report: ReportInput, tmp_path: Path) -> Page:
    page = Page(write_report(tmp_path / "report.html", report).read_text(encoding="utf-8"))
    assert page.open == []
    return page


@pytest.fixture(scope="module")
def cards() -> list[ModelCard]:
    return [
        model_card(churn.SPEC, "7", judgement(2.0, 0.5), [f"clicks {NASTY}"]),
        model_card(lead_score.SPEC, f"4{NASTY}", judgement(1.0, 1.0)),
        refused_card(send_time.SPEC, f"send_time: too few {NASTY}"),
    ]


def test_the_page_loads_nothing_from_anywhere(tmp_path: Path, cards: list[ModelCard]) -> None:
    page = page_of(report_of(*cards), tmp_path)
    assert {tag for tag, _ in page.tags} & {"script", "link", "iframe", "object", "a", "base"} == set()
    sources = [value for _, attributes in page.tags for name, value in attributes.items() if name in ("src", "href")]
    assert len(sources) == 5
    assert all((source or "").startswith("data:image/svg+xml;base64,") for source in sources)
    assert page.all("meta")[2]["content"] == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    assert not re.search(r"url\(|@import", (tmp_path / "report.html").read_text(encoding="utf-8"))


def test_every_word_from_data_is_escaped(tmp_path: Path, cards: list[ModelCard]) -> None:
    page = page_of(report_of(*cards), tmp_path)
    assert page.words.count(NASTY) >= 9
    assert "<script" not in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_charts_are_whole_images_with_an_alternative_text(tmp_path: Path, cards: list[ModelCard]) -> None:
    images = page_of(report_of(*cards), tmp_path).all("img")
    for image in images:
        assert len(image["alt"] or "") > 40
        drawing = base64.b64decode((image["src"] or "").partition(",")[2])
        assert ElementTree.fromstring(drawing).tag == "{http://www.w3.org/2000/svg}svg"


def test_a_screen_reader_finds_language_one_title_and_headings_without_gaps(
    tmp_path: Path, cards: list[ModelCard]
) -> None:
    page = page_of(report_of(*cards), tmp_path)
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h\d", tag)]
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert page.all("html") == [{"lang": "en"}]
    assert levels.count(1) == 1
    assert all(deeper - level <= 1 for level, deeper in pairwise(levels))
    assert len(ids) == len(set(ids))
    assert {attributes["aria-labelledby"] for attributes in page.all("section")} == set(ids)


@pytest.mark.parametrize(("simulated", "told"), [(True, "Simulated data."), (False, "Taken as real data")])
def test_the_page_says_first_whether_the_people_exist(tmp_path: Path, simulated: bool, told: str) -> None:
    words = page_of(report_of(simulated=simulated), tmp_path).words
    assert told in words
    assert ("Simulated data" in words) is simulated


def test_the_same_input_gives_the_same_bytes(tmp_path: Path, cards: list[ModelCard]) -> None:
    first = write_report(tmp_path / "one.html", report_of(*cards)).read_bytes()
    assert write_report(tmp_path / "two.html", report_of(*cards)).read_bytes() == first


def test_a_clear_win_and_a_draw_are_called_by_their_names(tmp_path: Path, cards: list[ModelCard]) -> None:
    win, draw, refused = (page_of(report_of(card), tmp_path).words for card in cards)
    assert "Better than the simplest rule" in win
    assert "hours since last engagement alone" in win
    assert "Better than the simplest rule" not in draw
    assert "No clear difference from the simplest rule" in draw
    assert "Not made from this data. \nToo few" in refused


@pytest.mark.parametrize(
    ("ours", "higher_is_better", "verdict"),
    [
        (Interval(0.8, 0.75, 0.85), True, "Better than"),
        (Interval(0.8, 0.75, 0.85), False, "Worse than"),
        (Interval(0.6, 0.55, 0.65), True, "Worse than"),
        (Interval(0.6, 0.55, 0.65), False, "Better than"),
        (Interval(0.72, 0.66, 0.78), True, "No clear difference"),
        (Interval(0.8, float("nan"), float("nan")), True, "Too little data to tell"),
    ],
)
def test_without_a_paired_difference_only_an_interval_clear_of_the_baseline_decides(
    tmp_path: Path, ours: Interval, higher_is_better: bool, verdict: str
) -> None:
    row = MetricRow("Ranking", "", ours, 0.7, form="pairs", higher_is_better=higher_is_better)
    card = ModelCard("churn", "Who?", baseline_name="age", metrics=(row,))
    assert verdict in page_of(report_of(card), tmp_path).words


def test_calibration_is_told_in_round_crowds_of_people(tmp_path: Path) -> None:
    groups = (
        CalibrationBin(0.30, 0.29, 400, 0.25, 0.34),
        CalibrationBin(0.004, 0.007, 400, 0.002, 0.02),
        CalibrationBin(0.10, 0.20, 400, 0.17, 0.24),
    )
    words = page_of(report_of(ModelCard("lead_score", "Who?", calibration=groups)), tmp_path).words
    assert "Of 100 people scored about 30\xa0%, 29 converted." in words
    assert "Of 1,000 people scored about 0.40\xa0%, 7 converted." in words
    assert "In 2 of 3 groups" in words


def test_the_figures_come_from_the_scored_table_without_those_who_objected(tmp_path: Path) -> None:
    page = page_of(report_of(), tmp_path)
    assert "People scored\n199\n" in page.words
    assert "Grade A leads\n39\n" in page.words
    assert "Grade A is 20\xa0% of the leads and 35\xa0% of the expected conversions." in page.words
    assert "last click … days ago: 100\xa0% of them" in page.words
    assert "Tuesday 19:00 (14\xa0%)" in page.words
    assert "no_consent\nwithheld consent" in page.words
    assert "the oldest was 60 minutes old" in page.words


def test_a_list_with_nobody_scored_and_no_models_still_makes_a_page(tmp_path: Path) -> None:
    bare = replace(report_of(table=scored(0)), heat=None, caveats=(), exports=())
    words = page_of(bare, tmp_path).words
    assert "People scored\n0\n" in words
    assert "What this data cannot tell" not in words


def test_sections_of_models_that_were_not_scored_are_left_out(tmp_path: Path) -> None:
    only = scored().select(["subscriber_id", "status", "feature_age_s", "last_engagement_at", "scored_at"])
    words = page_of(report_of(table=only), tmp_path).words
    assert "Your leads" not in words
    assert "Who is slipping away" not in words


def test_a_model_that_could_not_be_judged_says_so(tmp_path: Path) -> None:
    words = page_of(report_of(model_card(churn.SPEC, "1", None)), tmp_path).words
    assert "Too little data was left to judge it on" in words


def test_a_page_that_cannot_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "report.html").mkdir()
    with pytest.raises(UnusableOption, match="could not be written"):
        write_report(tmp_path / "report.html", report_of())
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
