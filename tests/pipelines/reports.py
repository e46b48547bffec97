"""Reports made by hand, for tests of the page."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from models import churn, lead_score, send_time
from models.lead_score import grade
from pipelines.leads.changes import changes_of
from pipelines.report.page import ReportInput
from pipelines.report.people import People, of_book
from pipelines.report.trust import ModelCard, model_card, refused_card
from serving.leads.book import Book
from tests.pipelines.lead_books import NOW, book_of, lead
from training.evaluation import compare, evaluate, score_bands
from training.fit import Judgement
from training.week import Week, week

NASTY = "<script>alert('x')</script> & \"quoted\" 🎉 ‮שלום"
LONG = "ü" * 40_000


def crowd(count: int = 200, /, **changes: Any) -> list[dict[str, Any]]:
    """Rows of a book, best first. Every tenth moved 20 up, every ninth of the others 30 down."""
    scores = np.linspace(100, 0, count).round().astype(np.int64)
    grades = grade(scores).tolist()
    return [_row(number, int(score), grades[number]) | changes for number, score in enumerate(scores)]


def _row(number: int, score: int, now: str) -> dict[str, Any]:
    change = 20 if number % 10 == 0 else -30 if number % 9 == 0 else 0
    before = min(max(score - change, 0), 100)
    was = str(grade(np.array([before]))[0])
    return lead(
        f"s{number:04d}",
        score,
        grade=now,
        score_before=before,
        score_change=score - before,
        grade_before=was,
        movement="up" if now < was else "down" if now > was else "same",
        change_reason="engaged again, last on 20 Nov 2026"
        if score > before
        else "time passed without a new engagement",
        churn_probability=0.9 if number % 2 else 0.1,
        churn_band="high" if number % 2 else "low",
        churn_reasons=[f"↑ last click {number} days ago", "↓ opens"],
        send_time_confident=number % 4 == 0,
        send_time_gain=0.12,
        last_engagement_at=NOW - timedelta(days=number) if number else None,
    )


def judgement(skill: float = 2.0, baseline_skill: float = 0.5) -> Judgement:
    draw = np.random.default_rng(1)
    label = (draw.random(600) < 0.3).astype(np.float64)
    ours, base = (
        1 / (1 + np.exp(-(np.log(3 / 7) + strength * (label - 0.3) + 0.5 * draw.normal(size=600))))
        for strength in (skill, baseline_skill)
    )
    score = np.argsort(np.argsort(ours)) * 101 // 600
    return Judgement(
        evaluate(ours, label, resamples=40),
        evaluate(base, label, resamples=40),
        "hours_since_last_engagement",
        compare(ours, base, label, resamples=40),
        score_bands(score, label, np.arange(600)),
    )


def cards() -> list[ModelCard]:
    """A clear win, a draw and a refusal."""
    return [
        model_card(churn.SPEC, "7", judgement(2.0, 0.5), [f"clicks {NASTY}"]),
        model_card(lead_score.SPEC, f"4{NASTY}", judgement(1.0, 1.0)),
        refused_card(send_time.SPEC, f"send_time: too few {NASTY}"),
    ]


def hours() -> Week:
    """Six campaigns at each hour of Tuesday; at 19:00 more is answered."""
    hour = np.repeat(np.arange(24, 48), 6)
    answers = np.where(hour == 43, 40, 20) + np.arange(len(hour)) % 3
    counted = {"hour_of_week": hour, "campaign": [f"c{i}" for i in range(len(hour))], "sends": 200, "answers": answers}
    found = week(pa.table(counted | {"sends": np.full(len(hour), 200)}))
    assert found is not None
    return found


def book(tmp_path: Path, rows: Sequence[dict[str, Any]] | None = None, **more: Any) -> Book:
    return book_of(tmp_path / "leads", *(crowd() if rows is None else rows), **more)


def people(tmp_path: Path, rows: Sequence[dict[str, Any]] | None = None, **more: Any) -> People:
    return of_book(book(tmp_path, rows, **more).path)


def report_of(tmp_path: Path, rows: Sequence[dict[str, Any]] | None = None, **more: Any) -> ReportInput:
    """A page about everything; ``more`` replaces parts of it."""
    made = book(tmp_path, rows, attributes=more.pop("attributes", None), **more.pop("facts", {}))
    told: dict[str, Any] = {
        "title": f"Spring {NASTY}",
        "simulated": True,
        "list_facts": {f"Sub {NASTY}": NASTY},
        "models": cards(),
        "caveats": [f"No complaints {NASTY}"],
        "people": of_book(made.path),
        "left_out": made.left_out,
        "changes": changes_of(made),
        "week": hours(),
        "has_sends": True,
        "log_end": NOW,
        "exports": ["var/exports/leads.csv", NASTY],
    }
    return ReportInput(**(told | more))
