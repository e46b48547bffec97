"""`inbox train`."""

from __future__ import annotations

import typer
from rich.markup import escape

from pipelines.console import Narrator
from pipelines.train import Outcome, train_models
from pipelines.verbs.options import (
    HERE,
    AllowFeatureOption,
    HomeOption,
    HorizonOption,
    ModelsArgument,
    chosen_models,
    home_at,
    horizons,
)


def command(
    models: ModelsArgument = None,
    horizon: HorizonOption = None,
    allow_feature: AllowFeatureOption = None,
    home: HomeOption = HERE,
) -> None:
    """Train models on the log, judge them by the gates and register them in MLflow as challengers. Nothing is promoted.

    What was trained from this log already is left alone.

    Exit code 1 when no asked model could be trained.

    Example: [bold]inbox train churn --horizon churn=90d[/]
    """
    narrator = Narrator()
    chosen = chosen_models(models)
    outcomes = train_models(home_at(home), chosen, narrator, horizons(horizon), allow_feature or (), repeat=False)
    for outcome in outcomes:
        narrator.say(f"  {describe(outcome)}")
        if outcome.verdict is not None:
            narrator.say(f"    gates {outcome.verdict.mark}: {escape(outcome.verdict.words())}")
    trained = [outcome.spec.name for outcome in outcomes if outcome.version]
    narrator.say(f"Trained {len(trained)} of {len(outcomes)} models: {', '.join(trained) or 'none'}.")
    raise typer.Exit(0 if trained else 1)


def describe(outcome: Outcome) -> str:
    """One line: the version and how good it is beside its simplest baseline, or why there is none."""
    if outcome.refusal is not None:
        return f"[yellow]not possible[/] {outcome.refusal}"
    name = f"[bold]{outcome.spec.name}[/] version {outcome.version}"
    if outcome.hours is not None:
        ours, base = outcome.hours.ours, outcome.hours.baseline
        return (
            f"{name}: from hours of activity alone, log-likelihood of later hours {ours.value:.3f} "
            f"({ours.low:.3f} to {ours.high:.3f}); everybody's histogram {base.value:.3f}"
        )
    if outcome.fitted is None:
        return f"{name}: nothing new; it was trained from this log already"
    judgement = outcome.fitted.judgement
    if judgement is None:
        return f"{name}: not judged"
    ours, base = judgement.ours.auc, judgement.baseline.auc
    return (
        f"{name}: AUC {ours.value:.3f} ({ours.low:.3f} to {ours.high:.3f}) on {judgement.ours.rows:,} later rows; "
        f"{judgement.baseline_name.replace('_', ' ')} alone {base.value:.3f}; "
        f"calibration error {judgement.ours.expected_calibration_error.value:.3f}"
    )
