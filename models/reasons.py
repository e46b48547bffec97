"""Why a score is what it is, in plain words.

What enters: what each feature added to a score on the log-odds scale, and the feature values. What leaves: for each row its
few strongest reasons, each a code, the direction it pushed, and words. The promise: the words state a fact that holds for
the row, whichever way it pushed, and are the same alone and among a thousand rows.

Features that say the same thing share a code, and what they added is summed before codes are ranked: trees deal credit out
between twins by chance, and a reason would come and go with it. For the same reason engagement is no fact of its own: its
recency is credited to the kind of event that was last, its amount to the kind that nearly all of it was. On a list that
only knows purchases, "8 purchases" and "8 engagements" would otherwise be two reasons.

Weighed: wording the feature of a code that added most. It names what moved the score, but words jump between features when
credit does; one wording for each code changes only as its fact does. Words state facts and do not judge ("last click 3
days ago", not "clicks well"), so that they never argue against their arrow.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from features.catalogue import Attribute, Catalogue

Floats = npt.NDArray[np.float64]
Row = Mapping[str, float]
"""Feature values by name; NaN = not known."""
Wording = Callable[[Row], str]

MOST = 3
LEAST_SHARE = 0.1
"""Of the strongest reason's effect: what added less is no reason."""
DIGITS = 6
"""Effects are compared to so many decimals of log-odds, equals standing in the order of the codes: enough for rounding errors
never to decide. Coarser steps look steadier and are not, for more effects lie near an edge than near each other: with one
decimal the reasons of Activate Good's and of Online Retail's churn changed in 1.6 % and 2.7 % of rows when every feature
moved by up to 1 %, without in 1.1 %."""
QUIET_DAYS = 30.0
"""From so long ago, an event is worded as its absence."""
SAME_HOURS, SAME_SHARE = 1.0, 0.1
"""Two last events whose ages differ by no more than these together are of one visit: the stronger of them is credited."""
NEARLY_ALL = 0.9
STEADY = 0.3
"""Log2 of a change of pace that is none: a quarter more or a fifth less."""

_NOUNS = {
    "open": "open",
    "click": "click",
    "page_view": "site visit",
    "form_submit": "completed form",
    "purchase": "purchase",
    "conversion": "conversion",
    "complaint": "complaint",
    "unsubscribe": "unsubscribe",
    "subscribe": "subscription",
}
_ENGAGEMENT = ("purchase", "form_submit", "click", "page_view", "open")
"""From what says most to what says least."""


@dataclass(frozen=True)
class Reason:
    """One reason code of one row: ``effect`` on the log-odds (positive pushes the probability up) and its words."""

    code: str
    effect: float
    words: str

    def __str__(self) -> str:
        return f"{'↑' if self.effect > 0 else '↓'} {self.words}"


@dataclass(frozen=True)
class ReasonCode:
    """What a group of features speaks for, and how it is worded.

    ``features`` is the pattern of their names. ``needs`` are those the words read. Where a model does not read them, or they
    are NaN and ``tells_missing`` does not say that the words know what this means, ``about`` stands in: the matter without
    a fact.
    """

    name: str
    about: str
    features: str
    needs: tuple[str, ...]
    wording: Wording
    tells_missing: bool = False

    def words(self, row: Row) -> str:
        told = all(name in row and (self.tells_missing or not math.isnan(row[name])) for name in self.needs)
        return self.wording(row) if told else self.about


class ReasonCatalogue:
    """Reason codes of one model's features: which features each sums, and how it is worded."""

    def __init__(self, features: Sequence[str], catalogue: Catalogue) -> None:
        known = (*CODES, *_own_codes(catalogue))
        code_of = [_code_of(name, known) for name in features]
        self.features = tuple(features)
        self.codes = [code for code in known if code in code_of]
        self.codes += [code for code in code_of if code not in known]
        self._place = {code.name: place for place, code in enumerate(self.codes)}
        self._places = np.array([self._place[code.name] for code in code_of], dtype=np.int64)
        self._column = {name: column for column, name in enumerate(features)}

    def explain(self, contributions: Floats, matrix: Floats, most: int = MOST) -> list[list[Reason]]:
        """The strongest reasons of each row, strongest first.

        Parameters
        ----------
        contributions
            Shape (rows, features) or (rows, features + 1) with the expected value last, on the log-odds scale.
        matrix
            The feature values, shape (rows, features), same order.

        Returns
        -------
        At most ``most`` reasons for each row, none without an effect.
        """
        effects = self.effects(contributions, matrix)
        size = np.abs(effects)
        strongest = np.argsort(-np.round(size, DIGITS), axis=1, kind="stable")[:, :most]
        least = LEAST_SHARE * size.max(axis=1, initial=0.0)
        return [
            self._reasons([code for code in strongest[i] if 0 < size[i, code] >= least[i]], effects[i], matrix[i])
            for i in range(len(matrix))
        ]

    def effects(self, contributions: Floats, matrix: Floats) -> Floats:
        """What each code adds, shape (rows, codes), in the order of ``codes``; for arrays as in ``explain``."""
        rows, codes = len(matrix), len(self.codes)
        places = np.broadcast_to(self._places, matrix.shape).copy()
        self._credit(places, matrix, "engagement_recency", "hours_since_last_engagement", _is_last)
        self._credit(places, matrix, "engagement_activity", "engagement_count", _is_nearly_all)
        places += codes * np.arange(rows)[:, None]
        added = np.ascontiguousarray(contributions[:, : len(self.features)])
        return np.asarray(
            np.bincount(places.ravel(), added.ravel(), rows * codes).reshape(rows, codes), dtype=np.float64
        )

    def _credit(self, places: npt.NDArray[np.int64], matrix: Floats, code: str, of: str, stands_for: _Test) -> None:
        """Move what engagement adds in each row to the kind of event that it is there."""
        matter = code.removeprefix("engagement_")
        columns = np.flatnonzero(self._places == self._place.get(code, -1))
        for kind in reversed(_ENGAGEMENT):
            own = of.replace("engagement", kind)
            if {own, of} <= self._column.keys():
                found = np.flatnonzero(stands_for(matrix[:, self._column[own]], matrix[:, self._column[of]]))
                places[np.ix_(found, columns)] = self._place[f"{kind}_{matter}"]

    def _reasons(self, codes: Sequence[int], effects: Floats, values: Floats) -> list[Reason]:
        row = dict(zip(self.features, values.tolist(), strict=True))
        return [Reason(self.codes[code].name, float(effects[code]), self.codes[code].words(row)) for code in codes]


def reason_code(feature: str) -> str:
    """The reason a feature speaks for.

    >>> reason_code("click_decayed_7d"), reason_code("hours_since_last_click"), reason_code("affinity_[shoes]")
    ('click_activity', 'click_recency', 'affinity')
    """
    return _code_of(feature, (*CODES, *_own_codes(Catalogue()))).name


_Test = Callable[[Floats, Floats], npt.NDArray[np.bool_]]


def _is_last(hours: Floats, engagement_hours: Floats) -> npt.NDArray[np.bool_]:
    return np.asarray(hours <= engagement_hours * (1 + SAME_SHARE) + SAME_HOURS)


def _is_nearly_all(count: Floats, engagement_count: Floats) -> npt.NDArray[np.bool_]:
    return np.asarray((count >= NEARLY_ALL * engagement_count) & (count > 0))


def _code_of(feature: str, known: Sequence[ReasonCode]) -> ReasonCode:
    for code in known:
        if re.fullmatch(code.features, feature, re.DOTALL):
            return code
    return _number(feature, feature.replace("_", " "))


def _own_codes(catalogue: Catalogue) -> list[ReasonCode]:
    """Those whose words come from the list's vocabularies."""
    top = ("affinity_top",)
    return [
        ReasonCode("affinity", "which topics are engaged with", "affinity_.*", top, _affinity(catalogue.content)),
        ReasonCode("timezone", "the time zone", "timezone", ("timezone",), _timezone(catalogue.timezones)),
        *(_attribute(attribute) for attribute in catalogue.attributes),
    ]


def _affinity(content: Sequence[str]) -> Wording:
    def words(row: Row) -> str:
        top = int(row["affinity_top"])
        if top < 0:
            return "no interest shown in any one topic"
        return f"most interested in {content[top - 1] if 0 < top <= len(content) else 'topics beyond the main ones'}"

    return words


def _timezone(zones: Sequence[str]) -> Wording:
    def words(row: Row) -> str:
        zone = int(row["timezone"])
        return f"time zone {zones[zone]}" if 0 <= zone < len(zones) else "time zone not known"

    return words


def _attribute(attribute: Attribute) -> ReasonCode:
    if attribute.categories is None:
        return _number(attribute.field_name, attribute.name.replace("_", " "))
    return _category(attribute.field_name, attribute.name.replace("_", " "), attribute.categories)


def _number(feature: str, about: str) -> ReasonCode:
    def words(row: Row) -> str:
        value = row[feature]
        return f"{about}: not known" if math.isnan(value) else f"{about}: {value:,.6g}"

    return ReasonCode(feature, about, re.escape(feature), (feature,), words, tells_missing=True)


def _category(feature: str, about: str, categories: Sequence[str]) -> ReasonCode:
    def words(row: Row) -> str:
        code = row[feature]
        if not code >= 0:
            return f"{about}: not known"
        return f"{about}: {categories[int(code) - 1] if 0 < code <= len(categories) else 'other'}"

    return ReasonCode(feature, about, re.escape(feature), (feature,), words, tells_missing=True)


def _since(kind: str) -> Wording:
    def words(row: Row) -> str:
        hours = row[f"hours_since_last_{kind}"]
        if math.isnan(hours):
            return f"no {_NOUNS[kind]} so far"
        if hours >= QUIET_DAYS * 24:
            return f"no {_NOUNS[kind]} for {_span(hours / 24)}"
        return f"last {_NOUNS[kind]} {_ago(hours)}"

    return words


def _since_engagement(row: Row) -> str:
    hours = row["hours_since_last_engagement"]
    if math.isnan(hours):
        return "never active so far"
    return f"not active for {_span(hours / 24)}" if hours >= QUIET_DAYS * 24 else f"last active {_ago(hours)}"


def _counted(kind: str) -> Wording:
    """How many ever and, where they are few, when the last one was."""

    def words(row: Row) -> str:
        said, hours = _count(row[f"{kind}_count"], _NOUNS[kind]), row.get(f"hours_since_last_{kind}", math.nan)
        return said if math.isnan(hours) else f"{said}, the last {_ago(hours)}"

    return words


def _number_of(kind: str) -> Wording:
    return lambda row: _count(row[f"{kind}_count"], _NOUNS[kind])


def _responses(kind: str, did: str, did_not: str) -> Wording:
    """How many of the last mails were opened or clicked.

    The state keeps no list of mails but decayed sums, and a mail may be opened twice: the share is what is known, and
    "about" is said of all that is not plain zero or plain one. On Activate Good the share that is said lies .04 from that
    of the very mails on average, and is the same in most rows.
    """

    def words(row: Row) -> str:
        sent, late, responses = row["sent_count"], row["sent_decayed_90d"], row[f"{kind}_count"]
        if sent < 0.5:
            return _count(responses, _NOUNS[kind])
        if round(sent) == 1:
            return f"{did if responses >= 0.5 else did_not} the only email so far"
        if responses < 0.5:
            return f"{did} none of the {sent:,.0f} emails so far"
        if late < 1.5:
            return f"{did} {_part(responses / sent, sent)} so far"
        share = row[f"{kind}_decayed_90d"] / late
        return f"{did} {_part(share, late, 'the last ')}{'' if late < LAST_MAILS + 0.5 else ' of late'}"

    return words


LAST_MAILS = 10
"""Mails are told one by one up to here; of more, tenths are."""


def _part(share: float, mails: float, which: str = "") -> str:
    """
    >>> _part(0.8, 5, "the last "), _part(0.31, 40), _part(0.01, 40)
    ('about 4 of the last 5 emails', 'about 3 in 10 emails', 'hardly any emails')
    """
    if mails >= LAST_MAILS + 0.5:
        tenths = round(10 * share)
        return f"{_few_or_most(tenths, 10) or f'about {tenths} in 10'} emails"
    count, of = round(share * round(mails)), round(mails)
    some = _few_or_most(count, of)
    return f"{f'{some} of' if some else f'about {count} of'} {which}{of} emails"


def _few_or_most(count: int, of: int) -> str:
    return "hardly any" if count <= 0 else "nearly all" if count >= of else ""


def _mail(row: Row) -> str:
    sent, hours = row["sent_count"], row.get("hours_since_last_sent", math.nan)
    if sent < 0.5:
        return "no email sent so far"
    said = f"{sent:,.0f} {_plural('email', sent)} sent so far"
    return said if math.isnan(hours) else f"{said}, the last {_ago(hours)}"


def _bounces(row: Row) -> str:
    return _count(row["soft_bounce_count"] + row["hard_bounce_count"], "bounce")


def _engagements(row: Row) -> str:
    count = row["engagement_count"]
    return "no activity so far" if count < 0.5 else f"{count:,.0f} {_plural('action', count)} of their own so far"


def _bought(row: Row) -> str:
    count, value = row["purchase_count"], row.get("purchase_value_sum", 0.0)
    said = _count(count, "purchase")
    return f"{said}, about {_rounded(value):,.0f} in all" if count >= 0.5 and value >= 1 else said


def _automatic(row: Row) -> str:
    tenths = round(10 * row["machine_open_rate_ever"])
    return f"about {tenths} in 10 opens made by machines" if tenths else "hardly any opens made by machines"


def _pace(row: Row) -> str:
    week, month = row["engagement_velocity_7d_90d"], row["engagement_velocity_30d_90d"]
    if row.get("engagement_count", 1.0) < 0.5:
        return "no activity so far"
    if max(abs(week), abs(month)) < STEADY:
        return "about as active as before"
    if min(week, month) > -STEADY:
        return "more active lately than before"
    return "less active lately than before" if max(week, month) < STEADY else "active on and off lately"


def _tenure(row: Row) -> str:
    days, active = row["tenure_days"], row.get("days_since_first_engagement", math.nan)
    if math.isnan(days):
        return "joining date not known" if math.isnan(active) else f"first active {_ago(24 * active)}"
    return "joined within the last day" if days < 1 else f"on the list for {_span(days)}"


def _hours(row: Row) -> str:
    for part in ("night", "morning", "afternoon", "evening"):
        if row[f"active_{part}_rate"] >= 0.5:
            return f"mostly active {'at night' if part == 'night' else f'in the {part}'}"
    return "no one time of day preferred"


def _weekend(row: Row) -> str:
    tenths = round(10 * row["active_weekend_rate"])
    return f"about {tenths} in 10 actions on weekends" if tenths else "hardly active on weekends"


def _count(count: float, noun: str) -> str:
    return f"no {noun} so far" if count < 0.5 else f"{count:,.0f} {_plural(noun, count)} so far"


def _rounded(value: float) -> float:
    """Two digits of it, or whole units: an amount that grows a little says the same.

    >>> _rounded(1692.3), _rounded(7.6)
    (1700.0, 8.0)
    """
    return round(value, min(0, 1 - math.floor(math.log10(value))))


def _ago(hours: float) -> str:
    return "within the last day" if hours < 24 else f"{_span(hours / 24)} ago"


def _span(days: float) -> str:
    """
    >>> _span(1.2), _span(63), _span(200), _span(760)
    ('1 day', '63 days', '7 months', '2 years')
    """
    unit, length = ("day", 1.0) if days < 100 else ("month", 30.44) if days < 730 else ("year", 365.25)
    return f"{days / length:,.0f} {_plural(unit, days / length)}"


def _plural(noun: str, count: float) -> str:
    return noun if round(count) == 1 else f"{noun}s"


def _recency(kind: str, more: str = "") -> ReasonCode:
    feature = f"hours_since_last_{kind}"
    about = f"when the last {_NOUNS[kind]} was"
    return ReasonCode(f"{kind}_recency", about, feature + more, (feature,), _since(kind), tells_missing=True)


def _activity(kind: str, about: str, features: str, wording: Wording, *more: str) -> ReasonCode:
    return ReasonCode(f"{kind}_activity", about, features, (f"{kind}_count", *more), wording)


def _event(kind: str) -> ReasonCode:
    """An event so rare that when and how often are one matter."""
    features = f"{kind}_(count|value_sum)|hours_since_last_{kind}"
    return ReasonCode(kind, f"{_NOUNS[kind]}s and when", features, (f"{kind}_count",), _counted(kind))


_LATE = ("sent_count", "sent_decayed_90d")
_PACE = ("engagement_velocity_7d_90d", "engagement_velocity_30d_90d")
_PARTS = tuple(f"active_{part}_rate" for part in ("night", "morning", "afternoon", "evening"))

CODES: tuple[ReasonCode, ...] = (
    _recency("purchase", "|purchase_silence_ratio"),
    _recency("click"),
    _recency("form_submit"),
    _recency("page_view"),
    _recency("open"),
    ReasonCode(
        "engagement_recency",
        "when they were last active",
        "hours_since_last_engagement|engagement_silence_ratio",
        ("hours_since_last_engagement",),
        _since_engagement,
        tells_missing=True,
    ),
    _activity("purchase", "how much they buy", r"purchase_(count|decayed_.*|value_.*)", _bought),
    _activity(
        "click",
        "how much they click",
        r"click_(count|decayed_.*|rate_.*|to_open_rate_.*)",
        _responses("click", "clicked in", "did not click in"),
        "click_decayed_90d",
        *_LATE,
    ),
    _activity(
        "open",
        "how much they open",
        r"open_(count|decayed_.*|rate_.*)",
        _responses("open", "opened", "did not open"),
        "open_decayed_90d",
        *_LATE,
    ),
    _activity(
        "form_submit", "how many forms they complete", r"form_submit_(count|decayed_.*)", _number_of("form_submit")
    ),
    _activity("page_view", "how much they visit the site", r"page_view_(count|decayed_.*)", _number_of("page_view")),
    _activity("engagement", "how active they are", r"engagement_(count|decayed_.*)", _engagements),
    ReasonCode(
        "pace",
        "whether they are more or less active than before",
        r"(open|click|page_view|purchase|engagement)_velocity_.*",
        _PACE,
        _pace,
    ),
    _event("conversion"),
    _event("subscribe"),
    _event("unsubscribe"),
    _event("complaint"),
    ReasonCode(
        "bounces",
        "mail that came back",
        r"(soft|hard)_bounce_count|hours_since_last_(soft|hard)_bounce",
        ("soft_bounce_count", "hard_bounce_count"),
        _bounces,
    ),
    ReasonCode(
        "automatic_opens",
        "opens made by machines",
        "machine_open_rate_ever",
        ("machine_open_rate_ever",),
        _automatic,
    ),
    ReasonCode(
        "mail",
        "how much mail they get",
        r"(sent|delivered)_(count|decayed_.*)|hours_since_last_(sent|delivered)",
        ("sent_count",),
        _mail,
    ),
    ReasonCode(
        "tenure", "how long on the list", "tenure_days|days_since_first_engagement", ("tenure_days",), _tenure, True
    ),
    ReasonCode("active_hours", "the time of day they are active", "|".join(_PARTS), _PARTS, _hours),
    ReasonCode("active_weekend", "how active on weekends", "active_weekend_rate", ("active_weekend_rate",), _weekend),
)
"""In the order in which equally strong ones are given. A list's own topics, time zone and attributes follow."""
