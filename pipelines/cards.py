"""From what training found to the cards and caveats of the report.

What enters: outcomes of training, the scored table, the list's own words. What leaves: a ``ReportInput``. The promise: a model
that was refused has a card that says so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from features.fold import Folder
from pipelines.about import About
from pipelines.report import MetricRow, ModelCard, ReportInput, model_card, refused_card
from pipelines.train import Outcome
from training.dataset import Rows

TOP_REASONS = 5
LEAST_SENDS = 30
"""Hours with fewer sends stay blank in the heat map."""

NO_SENDS = (
    "This list knows no sends: hours come from when people are active on their own, and no answer rate is claimed."
)


def report_input(
    about: About,
    facts: dict[str, str],
    outcomes: Sequence[Outcome],
    scored: pa.Table,
    exports: Sequence[Path],
    heat: npt.NDArray[np.float64] | None,
) -> ReportInput:
    """Everything the page tells."""
    caveats = list(about.caveats)
    if any(outcome.hours is not None for outcome in outcomes):
        caveats.append(NO_SENDS)
    return ReportInput(
        title=about.name,
        simulated=about.simulated,
        list_facts=facts | {name: words for name, words in _origin(about).items() if words},
        models=[_card(outcome, scored) for outcome in outcomes],
        scored=scored,
        caveats=caveats,
        heat=heat,
        exports=[str(path) for path in exports],
    )


def response_by_hour(sends: Rows) -> npt.NDArray[np.float64]:
    """Part of the sends answered by weekday (0 = Monday) and local hour, shape (7, 24); NaN where hardly any was sent."""
    slots = sends.slot if sends.slot is not None else np.zeros(0, dtype=np.int64)
    sent = np.bincount(slots, minlength=168)
    answered = np.bincount(slots, sends.label, minlength=168)
    rate = np.where(sent >= LEAST_SENDS, answered / np.maximum(sent, 1), np.nan)
    return np.asarray(rate.reshape(7, 24))


def list_facts(folder: Folder) -> dict[str, str]:
    """Counts and dates a reader wants first."""
    events, subscribers = folder.con.table("events"), folder.con.table("subscribers")
    counted = events.aggregate(n=events.count(), first=events.occurred_at.min(), last=events.occurred_at.max())
    row = counted.to_pyarrow().to_pylist()[0]
    people = folder.con.execute(subscribers.count())
    span = f"{row['first']:%d %b %Y} to {row['last']:%d %b %Y}" if row["n"] else "no events"
    return {"Subscribers": f"{people:,}", "Events": f"{row['n']:,}", "Time": span}


def _origin(about: About) -> dict[str, str]:
    return {"Origin": about.origin, "Licence": about.licence}


def _card(outcome: Outcome, scored: pa.Table) -> ModelCard:
    spec, version = outcome.spec, outcome.version or ""
    if outcome.hours is not None:
        hours = outcome.hours
        return ModelCard(
            model=spec.name,
            question=spec.question,
            version=version,
            judged_on=f"{hours.later_events:,} later activities",
            baseline_name="everybody's histogram of hours",
            metrics=(
                MetricRow(
                    "Foretells the hour",
                    "Mean log-likelihood of the local hour of later activity; nearer to 0 is better.",
                    hours.ours,
                    hours.baseline.value,
                    hours.gain,
                ),
            ),
        )
    if outcome.fitted is None:
        return refused_card(spec, outcome.refusal or "it was not trained")
    return model_card(spec, version, outcome.fitted.judgement, _common_reasons(scored, spec.name))


def _common_reasons(scored: pa.Table, model: str) -> list[str]:
    """What was most often somebody's strongest reason."""
    column = f"{model}_reasons"
    if column not in scored.column_names:
        return []
    counted = Counter(reason for reasons in scored[column].to_pylist() for reason in reasons[:1])
    return [reason for reason, _ in counted.most_common(TOP_REASONS)]
