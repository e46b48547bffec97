"""Why a score is what it is, in plain words.

What enters: LightGBM's contributions and the feature values they belong to. What leaves: for each row its few strongest
reasons. The promise: contributions of features that say the same thing are added before they are ranked, and a reason is
only given in the direction it pushed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from features.catalogue import Catalogue

NOUNS = {
    "sent": "mail",
    "delivered": "delivered mail",
    "open": "open",
    "click": "click",
    "page_view": "site visit",
    "form_submit": "form",
    "purchase": "purchase",
    "conversion": "conversion",
    "engagement": "engagement",
    "complaint": "complaint",
    "unsubscribe": "unsubscribe",
    "subscribe": "subscription",
    "soft_bounce": "soft bounce",
    "hard_bounce": "hard bounce",
    "machine_open": "automatic open",
}
_KIND = "|".join(sorted(NOUNS, key=len, reverse=True))
MOST = 3


@dataclass(frozen=True)
class Reason:
    """One reason code of one row: ``effect`` on the log-odds (positive pushes the probability up) and its words."""

    code: str
    effect: float
    words: str

    def __str__(self) -> str:
        return f"{'↑' if self.effect > 0 else '↓'} {self.words}"


Row = Mapping[str, float]
Wording = Callable[[Row], str]


class ReasonCatalogue:
    """Reason codes of one model's features: which features each sums, and how it is worded."""

    def __init__(self, features: Sequence[str], catalogue: Catalogue) -> None:
        self.features, self.catalogue = tuple(features), catalogue
        self.codes = [reason_code(name) for name in features]
        self.order = sorted(set(self.codes))
        self._column = np.array([self.order.index(code) for code in self.codes])

    def explain(
        self, contributions: npt.NDArray[np.float64], matrix: npt.NDArray[np.float64], most: int = MOST
    ) -> list[list[Reason]]:
        """The strongest reasons of each row, strongest first.

        Parameters
        ----------
        contributions
            Shape (rows, features) or (rows, features + 1) with the expected value last, on the log-odds scale.
        matrix
            The feature values, shape (rows, features), same order.
        """
        effects = self._grouped(contributions)
        strongest = np.argsort(-np.abs(effects), axis=1, kind="stable")[:, :most]
        return [
            [self._reason(code, effects[i], matrix[i]) for code in strongest[i] if effects[i, code] != 0]
            for i in range(len(matrix))
        ]

    def _grouped(self, contributions: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        grouped = np.zeros((len(contributions), len(self.order)))
        np.add.at(grouped.T, self._column, contributions[:, : len(self.features)].T)
        return grouped

    def _reason(self, code: int, effects: npt.NDArray[np.float64], row: npt.NDArray[np.float64]) -> Reason:
        values = dict(zip(self.features, row.tolist(), strict=True))
        name = self.order[code]
        return Reason(name, float(effects[code]), self._words(name, values))

    def _words(self, code: str, row: Row) -> str:
        if code.startswith("profile_"):
            return self._profile_words(code, row)
        if code == "affinity":
            return self._affinity_words(row)
        if code == "timezone":
            zone = int(row[code])
            return f"time zone {self.catalogue.timezones[zone] if zone >= 0 else 'not known'}"
        if code in _WORDINGS:
            return _WORDINGS[code](row)
        return _activity_words(code.removesuffix("_activity"), row)

    def _profile_words(self, code: str, row: Row) -> str:
        attribute = next(a for a in self.catalogue.attributes if a.field_name == code)
        value = row[code]
        words = attribute.name.replace("_", " ")
        if np.isnan(value) or (attribute.categories is not None and value < 0):
            return f"{words}: not known"
        if attribute.categories is None:
            return f"{words}: {value:,.6g}"
        return f"{words}: {attribute.categories[int(value) - 1] if value > 0 else 'other'}"

    def _affinity_words(self, row: Row) -> str:
        top = int(row.get("affinity_top", -1))
        if top < 1 or top > len(self.catalogue.content):
            return "no interest shown in any one topic"
        return f"most interested in {self.catalogue.content[top - 1]}"


def reason_code(feature: str) -> str:
    """The reason a feature speaks for.

    >>> reason_code("click_decayed_7d"), reason_code("hours_since_last_click"), reason_code("affinity_[shoes]")
    ('click_activity', 'click_recency', 'affinity')
    """
    if feature.startswith("profile_"):
        return feature
    for pattern, code in _CODES:
        match = re.fullmatch(pattern, feature)
        if match:
            return match.expand(code)
    return feature


_CODES = (
    (rf"hours_since_last_({_KIND})", r"\1_recency"),
    (r"engagement_silence_ratio", "engagement_recency"),
    (r"purchase_silence_ratio", "purchase_recency"),
    (r"purchase_value_.*|conversion_value_sum", "spending"),
    (rf"({_KIND})_(?:decayed_.*|count|rate_.*)", r"\1_activity"),
    (r"click_to_open_rate_ever", "click_activity"),
    (rf"({_KIND})_velocity_.*", "velocity"),
    (r"affinity_.*", "affinity"),
    (r"active_.*_rate", "active_hours"),
    (r"tenure_days|days_since_first_engagement", "tenure"),
)


def _activity_words(kind: str, row: Row) -> str:
    noun = NOUNS[kind]
    if kind in ("open", "click"):
        return f"{noun} rate of {100 * row[f'{kind}_rate_90d']:.0f} % over the last months"
    count = row.get(f"{kind}_count", 0.0)
    return f"no {noun} so far" if count < 0.5 else f"{count:.0f} {_plural(noun, count)} so far"


def _recency_words(kind: str) -> Wording:
    def words(row: Row) -> str:
        hours = row[f"hours_since_last_{kind}"]
        if np.isnan(hours):
            return f"no {NOUNS[kind]} ever"
        return f"last {NOUNS[kind]} {_ago(hours)}"

    return words


def _velocity_words(row: Row) -> str:
    pace = row["engagement_velocity_7d_90d"]
    if abs(pace) < 0.3:
        return "engagement steady"
    return f"engagement {'speeding up' if pace > 0 else 'slowing down'}"


def _spending_words(row: Row) -> str:
    return "nothing bought yet" if row["purchase_count"] < 0.5 else f"spent {row['purchase_value_sum']:,.0f} so far"


def _tenure_words(row: Row) -> str:
    days = row["tenure_days"]
    return "joining date not known" if np.isnan(days) else f"on the list for {_days(days)}"


def _hours_words(row: Row) -> str:
    return f"{100 * row['active_evening_rate']:.0f} % of activity in the evening"


def _ago(hours: float) -> str:
    return "within the last day" if hours < 24 else f"{_days(hours / 24)} ago"


def _days(days: float) -> str:
    return f"{days:.0f} {_plural('day', round(days))}"


def _plural(noun: str, count: float) -> str:
    return noun if round(count) == 1 else f"{noun}s"


_WORDINGS: dict[str, Wording] = {
    **{f"{kind}_recency": _recency_words(kind) for kind in NOUNS if kind != "machine_open"},
    "velocity": _velocity_words,
    "spending": _spending_words,
    "tenure": _tenure_words,
    "active_hours": _hours_words,
}
