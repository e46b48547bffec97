"""What the gates said of one candidate, in words and in numbers.

What enters: gates that were asked, see ``training.gates``. What leaves: a ``Verdict``, as JSON and back. The promise: a verdict
that is read is the verdict that was written; whoever only reads one imports nothing of training.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson


@dataclass(frozen=True)
class Gate:
    """One question a candidate was asked. ``mind``: passed, with something a person should know."""

    name: str
    passed: bool
    words: str
    numbers: Mapping[str, float] = field(default_factory=dict)
    mind: bool = False

    @property
    def mark(self) -> str:
        """``passed``, ``mind`` or ``refused``."""
        if not self.passed:
            return "refused"
        return "mind" if self.mind else "passed"


@dataclass(frozen=True)
class Verdict:
    """All gates of one candidate. ``champion`` is the version it was compared with, None when nothing served."""

    model: str
    champion: str | None
    gates: tuple[Gate, ...]

    @property
    def passed(self) -> bool:
        """Whether every gate was; without a gate nothing was judged, and nothing passes."""
        return bool(self.gates) and all(gate.passed for gate in self.gates)

    @property
    def mark(self) -> str:
        """``passed`` or ``refused``."""
        return "passed" if self.passed else "refused"

    def words(self) -> str:
        """One line: what speaks against it, or what to mind.

        >>> Verdict("churn", None, (Gate("calibration", False, "error .2"),)).words()
        'calibration: error .2'
        """
        if not self.gates:
            return "it was never judged on later rows"
        against = [gate for gate in self.gates if not gate.passed] or [gate for gate in self.gates if gate.mind]
        return "; ".join(f"{gate.name}: {gate.words}" for gate in against) or "every gate passed"

    def short(self) -> str:
        """For a cell of a table: ``passed``, or the names of the gates that refuse."""
        refusing = [gate.name for gate in self.gates if not gate.passed]
        return f"no: {', '.join(refusing)}" if refusing else "passed" if self.gates else "never judged"

    def in_full(self) -> str:
        """As a person reads it, a line per gate."""
        against = "no champion" if self.champion is None else f"champion {self.champion}"
        lines = [f"{self.model}, judged against {against}: {self.short()}"]
        return "\n".join([*lines, *(f"  {gate.mark:8}{gate.name}: {gate.words}" for gate in self.gates)])

    def to_json(self) -> bytes:
        return orjson.dumps(self, option=orjson.OPT_INDENT_2)

    @staticmethod
    def from_json(text: bytes | str) -> Verdict:
        """Numbers that did not exist come back as NaN.

        Raises
        ------
        ValueError
            When the text is no verdict.
        """
        try:
            raw = orjson.loads(text)
            return Verdict(raw["model"], raw["champion"], tuple(_gate(gate) for gate in raw["gates"]))
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"no verdict: {type(error).__name__} {error}") from error


def _gate(raw: Mapping[str, Any]) -> Gate:
    numbers = {name: float("nan") if value is None else value for name, value in raw["numbers"].items()}
    return Gate(raw["name"], raw["passed"], raw["words"], numbers, raw["mind"])
