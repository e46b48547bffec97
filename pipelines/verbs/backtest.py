"""`inbox backtest`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeVar, get_args

import typer

from features.clock import parse_duration, parse_instant
from features.contract import MODELS
from features.errors import UnknownModel, UnusableOption
from models.spec import AsOfPolicy, Response
from pipelines.backtest import Backtest, Files, backtest, plan
from pipelines.backtest_page import UNJUDGED, verdict, write_report
from pipelines.console import Narrator
from pipelines.verbs.ingest import tell
from training.hours import FittedHours

POLICIES: tuple[AsOfPolicy, ...] = ("grid", "creation")


def command(
    model: Annotated[str, typer.Argument(help=f"One of {', '.join(MODELS)}.")],
    events: Annotated[Path, typer.Option(help="Parquet, CSV or JSON Lines file, or a directory of them.")],
    train_until: Annotated[
        str, typer.Option(help="Nothing received at or after this moment is learnt from, like 2026-03-01.")
    ],
    out: Annotated[Path, typer.Option(help="Directory for predictions.parquet, report.json and report.html.")],
    subscribers: Annotated[Path | None, typer.Option(help="Likewise; profiles and attributes.")] = None,
    campaigns: Annotated[Path | None, typer.Option(help="Likewise; optional.")] = None,
    test_as_of: Annotated[
        list[str] | None, typer.Option(help="When to ask about everybody: moments, with commas or repeated.")
    ] = None,
    activity_window: Annotated[str | None, typer.Option(help="Churn: who engaged in it is asked about [90d].")] = None,
    horizon: Annotated[
        str | None, typer.Option(help="How far the label looks [churn 60d, lead_score 30d, send_time 24h].")
    ] = None,
    as_of_policy: Annotated[
        str | None, typer.Option(help="grid: ask everybody at --test-as-of; creation: each new one when created.")
    ] = None,
    response: Annotated[
        str | None, typer.Option(help="send_time: any, open or click counts as an answer [any].")
    ] = None,
    retrain_every: Annotated[
        str | None, typer.Option(help="Train again so often on everything mature by then, like 30d. Once unless given.")
    ] = None,
) -> None:
    """Train as of a moment in the past and judge what the model would have said since, beside simple baselines.

    Example: [bold]inbox backtest churn --events events.parquet --subscribers subscribers.parquet
    --train-until 2010-08-01 --test-as-of 2010-08-01,2010-09-01 --horizon 90d --out var/backtest[/]
    """
    if model not in MODELS:
        raise UnknownModel(model, MODELS)
    narrator = Narrator()
    asked = plan(
        model,
        parse_instant(train_until, "--train-until"),
        [parse_instant(text.strip(), "--test-as-of") for text in ",".join(test_as_of or ()).split(",") if text.strip()],
        activity_window=None if activity_window is None else parse_duration(activity_window, "--activity-window"),
        horizon=None if horizon is None else parse_duration(horizon, "--horizon"),
        as_of_policy=_one_of("--as-of-policy", POLICIES, as_of_policy),
        response=_one_of("--response", get_args(Response), response),
        retrain_every=None if retrain_every is None else parse_duration(retrain_every, "--retrain-every"),
    )
    found = backtest(Files(events, subscribers, campaigns), asked, out, narrator)
    with narrator.step("write the report"):
        write_report(found, out)
    tell(narrator, found.intake)
    narrator.say(summary(found, out))


def summary(found: Backtest, out: Path) -> str:
    """What came out, in a few lines."""
    words: list[str] = []
    week = ", send_time.parquet" if found.plan.spec.as_of_policy == "sent" else ""
    if found.hours is not None:
        words.append(f"The log knows no sends. Hours of later activity: {_hours(found.hours)}.")
    if found.judged is not None:
        ours = found.judged.ours
        words += [
            *verdict(found.plan.spec.outcome, found.judged),
            f"AUC {ours.auc.value:.3f} ({ours.auc.low:.3f} to {ours.auc.high:.3f}), log loss {ours.log_loss.value:.3f}, "
            f"calibration error {ours.expected_calibration_error.value:.3f}.",
        ]
    return "\n".join(
        [*(words or [UNJUDGED]), f"Written to {out}: report.html, report.json, predictions.parquet{week}."]
    )


def _hours(hours: FittedHours) -> str:
    if not hours.later_events:
        return "there was none, so nothing could be judged"
    later, base = hours.ours, hours.baseline
    return (
        f"log-likelihood {later.value:.3f} ({later.low:.3f} to {later.high:.3f}); "
        f"everybody's histogram {base.value:.3f}"
    )


Word = TypeVar("Word", bound=str)


def _one_of(option: str, words: tuple[Word, ...], text: str | None) -> Word | None:
    found = [word for word in words if word == text]
    if text is not None and not found:
        raise UnusableOption(option, f"{text!r} is none; give {', '.join(words)}")
    return found[0] if found else None
