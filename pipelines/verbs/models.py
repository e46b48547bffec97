"""`inbox models`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Column, Table

from models.registry import Registry, Version
from pipelines.console import Narrator
from pipelines.promote import open_registry, verdict_of
from pipelines.verbs.options import HERE, HomeOption, ModelsArgument, chosen_models, home_at

SHOWN = 10
HEADERS = ("model", "version", "alias", "made", "AUC", "baseline", "calibration error", "verdict", "promoted")
HISTORY_HEADERS = ("model", "when (UTC)", "what", "version", "instead of", "by", "why")


def command(
    models: ModelsArgument = None,
    version: Annotated[
        str | None, typer.Option(help="Print the whole verdict of a version, by its number or alias.")
    ] = None,
    history: Annotated[bool, typer.Option("--history", help="List every promotion and rollback instead.")] = False,
    home: HomeOption = HERE,
) -> None:
    """List the newest versions of each model: when, how good beside its baseline, what the gates said, who serves.

    Example: [bold]inbox models churn --version 3[/]
    """
    narrator, place, chosen = Narrator(), home_at(home), chosen_models(models)
    registry = open_registry(place)
    if version is not None:
        for model in chosen:
            _tell_verdict(narrator, registry.resolve(model, version))
    elif history:
        _tell_history(narrator, registry, chosen)
    else:
        total = _tell_versions(narrator, registry, chosen)
        narrator.say(
            f"{total} version{'' if total == 1 else 's'}. Look closer: mlflow ui --backend-store-uri {place.tracking_uri}"
        )


def _tell_versions(narrator: Narrator, registry: Registry, models: Sequence[str]) -> int:
    table = Table(*(Column(name, overflow="fold") for name in HEADERS))
    total = 0
    for model in models:
        versions = registry.versions(model)
        total += len(versions)
        for version in versions[:SHOWN]:
            table.add_row(*_row(version))
    if total:
        narrator.console.print(table)
    return total


def _tell_verdict(narrator: Narrator, version: Version) -> None:
    narrator.say(f"[bold]{version.model} version {version.version}[/]")
    narrator.say(escape(verdict_of(version).in_full()))


def _tell_history(narrator: Narrator, registry: Registry, models: Sequence[str]) -> None:
    table = Table(*(Column(name, overflow="fold") for name in HISTORY_HEADERS))
    for model in models:
        for change in registry.promotions(model):
            when = change.promoted_at[:19].replace("T", " ")
            forced = " (forced)" if change.verdict.get("forced") else ""
            row = (model, when, change.action + forced, change.version, change.replaced or "nothing", change.by)
            table.add_row(*row, escape(change.reason))
    narrator.console.print(table)
    narrator.say(f"{table.row_count} change{'' if table.row_count == 1 else 's'} of what serves.")


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
        verdict_of(version).short(),
        f"{promoted} by {by}" if by else "",
    ]


def _number(version: Version, metric: str) -> str:
    value = version.metrics.get(metric)
    return "" if value is None else f"{value:.3f}"
