"""`inbox models`."""

from __future__ import annotations

from rich.table import Column, Table

from models.registry import Registry, Version
from pipelines.console import Narrator
from pipelines.verbs.options import HERE, HomeOption, ModelsArgument, chosen_models, home_at

SHOWN = 10
HEADERS = ("model", "version", "alias", "made", "AUC", "baseline", "calibration error", "promoted")


def command(models: ModelsArgument = None, home: HomeOption = HERE) -> None:
    """List the newest versions of each model: when, how good beside its baseline, who serves.

    Example: [bold]inbox models churn[/]
    """
    narrator, place = Narrator(), home_at(home)
    registry = Registry(place.tracking_uri, place.mlruns / "artifacts")
    table = Table(*(Column(name, overflow="fold") for name in HEADERS))
    total = 0
    for model in chosen_models(models):
        versions = registry.versions(model)
        total += len(versions)
        for version in versions[:SHOWN]:
            table.add_row(*_row(version))
    if total:
        narrator.console.print(table)
    narrator.say(f"{total} versions. Look closer: mlflow ui --backend-store-uri {place.tracking_uri}")


def _row(version: Version) -> list[str]:
    promoted = version.tags.get("promotion.promoted_at", "")[:16].replace("T", " ")
    by = version.tags.get("promotion.by")
    return [
        version.model,
        version.version,
        ", ".join(version.aliases),
        f"{version.created_at:%Y-%m-%d %H:%M}",
        _number(version, "test_auc"),
        _number(version, "baseline_auc"),
        _number(version, "test_expected_calibration_error"),
        f"{promoted} by {by}" if by else "",
    ]


def _number(version: Version, metric: str) -> str:
    value = version.metrics.get(metric)
    return "" if value is None else f"{value:.3f}"
