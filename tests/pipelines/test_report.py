"""The report: it loads nothing, escapes everything, says what is simulated, and calls a win only a win."""

from __future__ import annotations

import base64
import re
import shutil
from dataclasses import replace
from datetime import timedelta
from hashlib import sha256
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from mlflow import MlflowClient

from features.errors import UnusableOption
from features.home import Home
from models import churn
from models.registry import CHAMPION
from pipelines.decisions import Experiment, Followed
from pipelines.leads.book import lead_book
from pipelines.report.churn import FEW_PEOPLE, LEAST_PEOPLE, segmented
from pipelines.report.cut import cuts
from pipelines.report.page import ReportInput, write_report
from pipelines.report.people import of_scores
from pipelines.report.trust import MetricRow, ModelCard, model_card
from pipelines.report.words import CUT_MARK
from tests.front_door import inbox
from tests.pipelines.lead_books import NOW
from tests.pipelines.reports import LONG, NASTY, cards, crowd, hours, people, report_of
from training.evaluation import Band, CalibrationBin, Interval
from training.offpolicy import PolicyValue, lift

VOID = {"meta", "img", "input"}
NOTHING = Interval(float("nan"), float("nan"), float("nan"))


class Page(HTMLParser):
    """What a browser would make of the page: words outside style and script, tags with attributes, whether tags nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.words, self.tags, self.open = "", list[tuple[str, dict[str, str | None]]](), list[str]()
        self.scripts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            self.scripts.append(data)
        elif self.open and self.open[-1] != "style":
            self.words += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def page_of(report: ReportInput, tmp_path: Path) -> Page:
    page = Page(write_report(tmp_path / "report.html", report).read_text(encoding="utf-8"))
    assert page.open == []
    return page


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Page]:
    """A page about everything, as text and as a browser reads it."""
    place = tmp_path_factory.mktemp("whole")
    text = write_report(place / "report.html", report_of(place)).read_text(encoding="utf-8")
    return text, Page(text)


def bare(**more: Any) -> ReportInput:
    """Nothing but a name."""
    told: dict[str, Any] = {"title": "Spring", "simulated": False, "list_facts": {}, "models": (), "caveats": ()}
    return ReportInput(**(told | more))


# --- what a browser is given


def test_the_page_loads_nothing_from_anywhere(whole: tuple[str, Page]) -> None:
    text, page = whole
    assert {tag for tag, _ in page.tags} & {"link", "iframe", "object", "base", "form"} == set()
    assert page.all("img") and all(
        (one["src"] or "").startswith("data:image/svg+xml;base64,") for one in page.all("img")
    )
    assert {tag for tag, attributes in page.tags if "src" in attributes} == {"img"}
    ids = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    links = [attributes["href"] or "" for _, attributes in page.tags if "href" in attributes]
    assert len(links) == len(page.all("section")) > 8
    assert all(link[0] == "#" and link[1:] in ids for link in links)
    assert not re.search(r"url\(|@import", text)


def test_the_browser_is_told_to_run_the_slider_and_nothing_else(whole: tuple[str, Page]) -> None:
    _, page = whole
    data, script = page.scripts
    assert [one.get("type") for one in page.all("script")] == ["application/json", None]
    assert len(orjson.loads(data)) == 101
    told = base64.b64encode(sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src 'sha256-{told}'"
    assert page.all("meta")[2]["content"] == policy
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)


def test_every_word_from_data_is_escaped(tmp_path: Path) -> None:
    rows = crowd(change_reason=NASTY, reasons_for=[NASTY], churn_reasons=[f"↑ {NASTY}"], model_version=NASTY)
    for number, row in enumerate(rows):
        row |= {"subscriber_id": f"{NASTY}{number}", "profile_plan": f"{NASTY} {number % 3}"}
    report = report_of(tmp_path, rows, attributes={"plan": pa.string()})
    page = page_of(report, tmp_path)
    assert page.words.count(NASTY) >= 25
    assert len(page.scripts) == 2
    assert "<script>alert" not in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_what_turns_the_writing_direction_stays_in_its_own_place(whole: tuple[str, Page]) -> None:
    text, _ = whole
    assert re.search(r"<bdi>[^<]*‮", text)
    assert not re.search(r"<(td|th|li|p|span)[^>]*>[^<]*‮", text)


def test_long_texts_from_data_are_cut_with_a_mark(tmp_path: Path) -> None:
    rows = crowd(change_reason=LONG, reasons_for=[LONG], churn_reasons=[LONG])
    for number, row in enumerate(rows):
        row |= {"subscriber_id": f"{LONG}{number}", "profile_plan": f"{number % 2}{LONG}"}
    report = report_of(tmp_path, rows, attributes={"plan": pa.string()}, title=LONG, caveats=[LONG], exports=[LONG])
    page = page_of(report, tmp_path)
    assert page.words.count(CUT_MARK) >= 25
    assert (tmp_path / "report.html").stat().st_size < 250_000


def test_half_a_character_does_not_stop_the_page(tmp_path: Path) -> None:
    assert "Spring ?" in page_of(bare(title="Spring \ud83d"), tmp_path).words


def test_charts_are_whole_images_with_an_alternative_text(whole: tuple[str, Page]) -> None:
    for image in whole[1].all("img"):
        assert len(image["alt"] or "") > 40
        drawing = base64.b64decode((image["src"] or "").partition(",")[2])
        assert ElementTree.fromstring(drawing).tag == "{http://www.w3.org/2000/svg}svg"


def test_a_screen_reader_finds_language_one_title_and_headings_without_gaps(whole: tuple[str, Page]) -> None:
    page = whole[1]
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h\d", tag)]
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert page.all("html") == [{"lang": "en"}]
    assert levels.count(1) == 1
    assert all(deeper - level <= 1 for level, deeper in pairwise(levels))
    assert len(ids) == len(set(ids))
    assert {attributes["aria-labelledby"] for attributes in page.all("section")} <= set(ids)
    assert [len(page.all(landmark)) for landmark in ("header", "nav", "main", "footer")] == [1, 1, 1, 1]


def test_tables_have_captions_and_headings_and_the_slider_a_label(whole: tuple[str, Page]) -> None:
    page = whole[1]
    assert len(page.all("table")) == len(page.all("caption")) > 10
    assert {attributes["scope"] for attributes in page.all("th")} == {"col", "row"}
    assert [one["for"] for one in page.all("label")] == [one["id"] for one in page.all("input")] == ["cut-score"]
    live = [attributes for _, attributes in page.tags if attributes.get("aria-live") == "polite"]
    assert [one["id"] for one in live] == ["cut-result"]


@pytest.mark.parametrize(("simulated", "told"), [(True, "Simulated data."), (False, "Taken as real data")])
def test_the_page_says_first_whether_the_people_exist(tmp_path: Path, simulated: bool, told: str) -> None:
    words = page_of(bare(simulated=simulated), tmp_path).words
    assert told in words
    assert ("Simulated data" in words) is simulated


def test_the_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    first = write_report(tmp_path / "one.html", report_of(tmp_path)).read_bytes()
    assert write_report(tmp_path / "two.html", report_of(tmp_path)).read_bytes() == first


def test_a_page_that_cannot_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "report.html").mkdir()
    with pytest.raises(UnusableOption, match="could not be written"):
        write_report(tmp_path / "report.html", bare())
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


# --- models


def test_a_clear_win_and_a_draw_are_called_by_their_names(tmp_path: Path) -> None:
    win, draw, refused = (page_of(bare(models=[card]), tmp_path).words for card in cards())
    assert "Better than the simplest rule" in win
    assert "hours since last engagement alone" in win
    assert "Better than the simplest rule" not in draw
    assert "No clear difference from the simplest rule" in draw
    assert "There is no such model. Too few" in refused


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
    assert verdict in page_of(bare(models=[card]), tmp_path).words


def test_calibration_is_told_in_round_crowds_of_people(tmp_path: Path) -> None:
    groups = (
        CalibrationBin(0.30, 0.29, 400, 0.25, 0.34),
        CalibrationBin(0.004, 0.007, 400, 0.002, 0.02),
        CalibrationBin(0.10, 0.20, 400, 0.17, 0.24),
    )
    words = page_of(bare(models=[ModelCard("lead_score", "Who?", calibration=groups)]), tmp_path).words
    assert "Of 100 people scored about 30\xa0%, 29 converted." in words
    assert "Of 1,000 people scored about 0.40\xa0%, 7 converted." in words
    assert "In 2 of 3 groups" in words


def test_a_model_that_could_not_be_judged_says_so(tmp_path: Path) -> None:
    words = page_of(bare(models=[model_card(churn.SPEC, "1", None)]), tmp_path).words
    assert "Nothing is on record of how well it does on later data" in words


def test_what_a_score_came_to_is_told_with_its_range(tmp_path: Path) -> None:
    bands = (
        Band(0, 9, 500, 0, Interval(0.0, 0.0, 0.008)),
        Band(70, 79, 400, 124, Interval(0.31, 0.25, 0.38)),
        Band(80, 89, 20, 9, Interval(0.45, 0.2, 0.7)),
    )
    card = ModelCard("lead_score", "Who?", "4", bands=bands)
    words = page_of(report_of(tmp_path, models=[card], converts_within="14 days"), tmp_path).words
    assert "Of 100 leads scored 70–79, 31 converted (range 25 to 38)." in words
    assert "Of 1,000 leads scored 0–9, 0 converted (range 0 to 8)." in words
    assert "scored 80–89" not in words
    assert "within 14 days of the score" in words
    assert "Every higher score came to more" in words


def test_a_champion_trained_before_bands_were_recorded_says_so(tmp_path: Path) -> None:
    words = page_of(report_of(tmp_path, models=[ModelCard("lead_score", "Who?", "1")]), tmp_path).words
    assert "Nothing is on record of what each score came to" in words


# --- leads


def test_the_first_figures_are_the_books(whole: tuple[str, Page]) -> None:
    words = whole[1].words
    assert "Leads200" in words
    assert "Grade A21" in words
    assert "Expected conversions50" in words
    assert "At high risk100" in words
    assert "Own best hour50" in words
    assert "last click … ago (100\xa0% of them)" in words


def test_every_cut_adds_up_what_is_above_it(tmp_path: Path) -> None:
    rows = crowd(311)
    found = cuts(people(tmp_path, rows))
    total = sum(row["probability"] for row in rows)
    for score in (0, 1, 37, 70, 99, 100):
        above = [row["probability"] for row in rows if row["score"] >= score]
        assert found[score].contacts == f"{len(above):,}"
        assert float(found[score].expected.replace(",", "")) == pytest.approx(sum(above), abs=0.5)
        assert float(found[score].at_random.replace(",", "")) == pytest.approx(total * len(above) / 311, abs=0.5)
        per_hundred = float(found[score].per_hundred)
        assert per_hundred == pytest.approx(100 * sum(above) / len(above), abs=0.5)
    assert [one.score for one in found] == [str(score) for score in range(101)]
    assert (found[0].of_leads, found[0].of_all) == ("100\xa0%", "100\xa0%")


def test_a_cut_above_everybody_divides_by_nobody(tmp_path: Path) -> None:
    found = cuts(people(tmp_path, [row | {"probability": 0.0} for row in crowd() if row["score"] < 90]))
    assert (found[95].contacts, found[95].per_hundred, found[95].of_all) == ("0", "0", "0\xa0%")


def test_who_moved_is_told_with_where_to_and_why(whole: tuple[str, Page]) -> None:
    rows, words = crowd(), whole[1].words
    up, down = (sum(row["movement"] == way for row in rows) for way in ("up", "down"))
    assert f"{up + down} leads changed grade since 16 November 2026: {up} up, {down} down." in words
    assert "7 are no longer among the leads" in words
    assert f"▼ {sum((row['grade_before'], row['grade']) == ('C', 'D') for row in rows)}" in words
    farthest = min(rows, key=lambda row: (row["score_change"], -row["score"]))
    who = farthest["subscriber_id"]
    moved = f"{farthest['score_before']} ({farthest['grade_before']}) → {farthest['score']} ({farthest['grade']})"
    assert f"{who}time passed without a new engagement{moved}" in words


def test_a_first_book_says_that_the_next_will_compare(tmp_path: Path) -> None:
    nothing = {
        "score_before": None,
        "grade_before": None,
        "score_change": None,
        "movement": None,
        "change_reason": None,
    }
    words = page_of(report_of(tmp_path, crowd(**nothing), facts={"previous_book_id": ""}), tmp_path).words
    assert "This is the first lead book" in words
    assert "The farthest" not in words


# --- churn


def grouped(**groups: tuple[int, float]) -> list[dict[str, Any]]:
    """So many people of each plan with this risk; a second attribute deals them out in turn and tells nothing."""
    rows, who = [], iter(crowd(sum(count for count, _ in groups.values())))
    for plan, (count, risk) in groups.items():
        for number in range(count):
            rows.append(next(who) | {"churn_probability": risk, "profile_plan": plan, "profile_turn": f"t{number % 8}"})
    return rows


PLANS = {"plan": pa.string(), "turn": pa.string()}


def test_groups_are_those_of_the_attribute_in_which_risk_differs(tmp_path: Path) -> None:
    found = segmented(people(tmp_path, grouped(free=(200, 0.6), gold=(160, 0.1)), attributes=PLANS))
    assert [one.attribute for one in found] == ["plan"]
    free, gold = found[0].groups
    assert (free.value, free.count, gold.value, gold.count) == ("free", 200, "gold", 160)
    assert free.expected == pytest.approx(120)
    reach = 1.96 * (200 * 0.6 * 0.4) ** 0.5
    assert free.ends == pytest.approx((120 - reach, 120 + reach))


def test_many_small_groups_do_not_win_by_being_many(tmp_path: Path) -> None:
    draw = np.random.default_rng(3)
    rows = crowd(400)
    for row in rows:
        row |= {"churn_probability": float(draw.random()), "profile_plan": f"p{draw.integers(12)}"}
    shown = [bool(segmented(people(tmp_path, rows, attributes={"plan": pa.string()})))]
    for row in rows:
        row["churn_probability"] = 0.3 * row["churn_probability"] + (0.4 if row["profile_plan"] < "p3" else 0.0)
    shown.append(bool(segmented(people(tmp_path, rows, attributes={"plan": pa.string()}))))
    assert shown == [False, True]


def test_a_group_of_few_is_never_shown_alone(tmp_path: Path) -> None:
    groups = {f"rare{number}": (5, 0.9) for number in range(6)}
    rows = grouped(free=(200, 0.6), gold=(LEAST_PEOPLE, 0.1), **groups)
    (found,) = segmented(people(tmp_path, rows, attributes=PLANS))
    assert [(group.value, group.count) for group in found.groups] == [(None, 30), ("free", 200), ("gold", LEAST_PEOPLE)]
    (few,) = segmented(people(tmp_path, grouped(free=(200, 0.6), gold=(90, 0.1), rare=(5, 0.9)), attributes=PLANS))
    assert ([group.value for group in few.groups], few.left_out) == (["free", "gold"], 5)


def test_small_groups_carry_a_warning(tmp_path: Path) -> None:
    rows = grouped(free=(200, 0.6), gold=(FEW_PEOPLE - 1, 0.1), rare=(5, 0.9))
    words = page_of(report_of(tmp_path, rows, attributes=PLANS), tmp_path).words
    assert f"{FEW_PEOPLE - 1} (few)" in words
    assert "Not shown: 5 of groups with fewer than 20 people." in words
    assert "Expected losses by plan" in words


@pytest.mark.parametrize("values", [1, 13, 400])
def test_an_attribute_of_one_value_or_of_very_many_is_not_shown(tmp_path: Path, values: int) -> None:
    rows = crowd(400)
    for number, row in enumerate(rows):
        row |= {"churn_probability": (number % values) / values, "profile_plan": f"p{number % values}"}
    assert segmented(people(tmp_path, rows, attributes={"plan": pa.string()})) == []


def test_an_attribute_may_be_called_anything(tmp_path: Path) -> None:
    name = 'a "quoted"; DROP TABLE people --'
    rows = [row | {f"profile_{name}": row["churn_band"]} for row in crowd()]
    assert [one.attribute for one in segmented(people(tmp_path, rows, attributes={name: pa.string()}))] == [name]


# --- send time


def test_hours_that_really_differ_are_named_with_their_range(whole: tuple[str, Page]) -> None:
    words = whole[1].words
    found = hours()
    assert f"Surely more than that: Tuesday 19:00 ({100 * found.rate[43]:.1f}\xa0%" in words
    assert f"{100 * found.low[43]:.1f} to {100 * found.high[43]:.1f}\xa0%" in words
    assert "Tue 19:00" in words and "more than average" in words


def test_a_list_whose_hours_have_too_few_sends_says_so(tmp_path: Path) -> None:
    assert "No hour of the week has 30 sends" in page_of(report_of(tmp_path, week=None), tmp_path).words


def experiment(exploit: int, holdout: int, answers: float, better: float) -> Experiment:
    """So many sends of two arms; the model's are answered so much more often."""
    arm = np.array(["exploit"] * exploit + ["holdout"] * holdout)
    rate = np.where(arm == "exploit", answers + better, answers)
    outcome = (np.arange(len(arm)) % 100 < 100 * rate).astype(np.float64)
    value = PolicyValue(NOTHING, NOTHING, NOTHING, len(arm), 0, 0, 0.0, NOTHING, 0.0, 0.0)
    told = lift(arm, outcome, np.arange(len(arm)), np.zeros(len(arm), dtype=np.int64), 1.0)
    return Experiment((Followed("exploit", 900, 10),), len(arm), 3, value, value, NOTHING, "none", told)


def test_without_an_experiment_there_is_no_number_but_how_it_comes_to_be(tmp_path: Path) -> None:
    words = page_of(report_of(tmp_path), tmp_path).words
    assert "the service has not chosen a moment to send at" in words
    assert "5% are held out" in words
    waiting = page_of(report_of(tmp_path, experiment=experiment(0, 0, 0.1, 0.0)), tmp_path).words
    assert "of 900 chosen moments that have come" in waiting
    assert "3 are waiting for theirs" in waiting
    none_came = replace(experiment(0, 0, 0.1, 0.0), followed=(Followed("exploit", 0, 0),), waiting=0)
    assert "end before the first of them" in page_of(report_of(tmp_path, experiment=none_came), tmp_path).words


@pytest.mark.parametrize(
    ("sends", "better", "told"),
    [
        (4_000, 0.05, "Choosing the moment is worth it."),
        (4_000, -0.05, "Choosing the moment does harm"),
        (400, 0.01, "it is not shown to be worth it yet"),
        (60, 0.05, "It is too early to tell"),
    ],
)
def test_the_lift_is_called_what_its_interval_says(tmp_path: Path, sends: int, better: float, told: str) -> None:
    words = page_of(report_of(tmp_path, experiment=experiment(sends, sends, 0.1, better)), tmp_path).words
    assert told in words
    assert "held out: sent at the default" in words


# --- freshness, and what is missing


def test_old_scores_are_called_old(tmp_path: Path) -> None:
    words = page_of(report_of(tmp_path, log_end=NOW + timedelta(days=9)), tmp_path).words
    assert "The scores are as of 23 November 2026, 08:15 UTC. That is 9 days before" in words
    assert "the oldest was 90 minutes old" in words
    assert "withheld consent12" in words
    assert "within 7 days7" in words and "never1" in words


def test_without_a_book_the_page_says_what_makes_one(tmp_path: Path) -> None:
    words = page_of(bare(models=cards()), tmp_path).words
    assert "Nobody has been scored yet: inbox export leads scores everybody." in words
    assert "No event has been taken in yet" in words
    for left_out in ("Your leads", "Who moved", "How many to contact", "Who is slipping away", "What this data cannot"):
        assert f"{left_out}" not in words.replace("Who is slipping away?", "")


def test_models_that_nobody_has_are_left_out(tmp_path: Path) -> None:
    nothing = ("churn_band", "churn_probability", "churn_reasons", "send_time_confident", "send_time_gain")
    words = page_of(
        report_of(tmp_path, crowd(**dict.fromkeys(nothing)), models=(), week=None, has_sends=False), tmp_path
    ).words
    assert "Who is slipping away" not in words
    assert "When to send" not in words
    assert "How many to contact" in words


def test_a_list_without_lead_scores_still_tells_of_churn(tmp_path: Path) -> None:
    rows = crowd()
    columns = ("subscriber_id", "churn_band", "churn_probability", "churn_reasons", "last_engagement_at", "scored_at")
    scored = pa.table({name: pa.array([row[name] for row in rows]) for name in columns})
    scored = scored.append_column("status", pa.array(["no_consent"] + ["ok"] * (len(rows) - 1)))
    scored = scored.append_column("feature_age_s", pa.array([3_600.0] * len(rows)))
    pq.write_table(scored, tmp_path / "scored.parquet")
    plan = ["free" if row["churn_band"] == "high" else "gold" for row in rows]
    profiles = pa.table({"subscriber_id": scored["subscriber_id"], "plan": plan})
    words = page_of(bare(people=of_scores(tmp_path / "scored.parquet", profiles), log_end=NOW), tmp_path).words
    assert "People scored199" in words
    assert "Expected losses by plan" in words
    assert "Your leads" not in words and "How many to contact" not in words


# --- from a home


@pytest.fixture(scope="module")
def home(small_home: Home, tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A home with a lead book."""
    root = tmp_path_factory.mktemp("report") / "home"
    shutil.copytree(small_home.root, root)
    lead_book(Home(root), lambda share: None)
    return Home(root)


def test_the_verb_writes_what_is_on_disk_and_twice_the_same(home: Home, tmp_path: Path) -> None:
    said = inbox("export", "report", "--home", home.root)
    assert (said.code, said.err) == (0, "")
    written = (home.reports / "report.html").read_bytes()
    assert inbox("export", "report", "--home", home.root, "--out", tmp_path / "again.html").code == 0
    assert (tmp_path / "again.html").read_bytes() == written
    words = Page(written.decode()).words
    assert re.search(r"Of 1,?0+ leads scored 90–100, \d+ converted \(range \d+ to \d+\)", words)
    assert words.count("Better than the simplest rule") >= 1
    assert "This is the first lead book" in words
    assert "Tue 10:00" in words or "Thu 10:00" in words


def test_the_report_takes_no_selection(home: Home) -> None:
    said = inbox("export", "report", "--grade", "A", "--home", home.root)
    assert said.code == 1
    assert "knows only --out FILE and --home" in said.err


def test_a_list_without_a_model_of_leads_is_scored_on_the_spot(home: Home, tmp_path: Path) -> None:
    shutil.copytree(home.root, tmp_path / "home")
    without = Home(tmp_path / "home")
    for gone in (without.leads, without.bundles / "lead_score"):
        shutil.rmtree(gone)
    MlflowClient(tracking_uri=without.tracking_uri).delete_registered_model_alias("lead_score", CHAMPION)
    said = inbox("export", "report", "--home", without.root, "--out", tmp_path / "report.html")
    assert (said.code, said.err) == (0, "")
    words = Page((tmp_path / "report.html").read_text(encoding="utf-8")).words
    assert "People scored" in words and "Where the risk lies" in words
    assert "Your leads" not in words
    assert "There is no such model. No version of it is in service" in words
    assert not list(without.var.glob("tmp*"))


def test_a_home_with_nothing_in_it_still_makes_a_page(tmp_path: Path) -> None:
    said = inbox("export", "report", "--home", tmp_path)
    assert (said.code, said.err) == (0, "")
    assert not Home(tmp_path).mlruns.exists()
    assert "No event has been taken in yet" in Home(tmp_path).reports.joinpath("report.html").read_text(
        encoding="utf-8"
    )
