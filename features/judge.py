"""Who made an event, a person or a machine: the rules, and their verdicts on a few events at once.

What enters: the events of one subscriber that are known, and a ``HumanTable``. What leaves: a human probability per event, and
the pattern of evidence behind it. The promise: the same events get the same bits here and from ``features.evidence``, which
says the same in SQL for a whole log; and a verdict does not depend on the order of events.

The evidence on an open or a click is a *pattern*: what its agent and its network say, how soon after its message it came
(haste), how many links were clicked (or campaigns opened) about that moment (burst), and whether the unsubscribe link or a
honeypot was among them (trap). Each pattern has one probability, worked out once from weights (log-likelihood ratios, naive
Bayes) that ``features.machines`` learns, so that nothing is left to add up in SQL. A page view, a form or a purchase has an
agent and a network only. What a program does itself is certain.

An event that was received more than ``PROMPT_WITHIN`` after it occurred is judged by what it says itself, and is no evidence
about others. With haste reaching ``HASTE_REACH`` back, whatever bears on an event was received within ``REVISED_WITHIN`` of it:
a verdict is final that long after the event. Weighed: comparing two events' times of receipt instead. It says almost the same,
but depends on pairs, and a burst of n clicks has n² of them.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Sequence, Set
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from features.contract import AGENTS, ENGAGEMENT_TYPES, HONEYPOT_LINK, NETWORKS, RESPONSE_TYPES, UNSUBSCRIBE_LINK
from features.event import Event

Weights = tuple[float, ...]
"""What speaks for a person, in nats: for each of ``KINDS`` its log-odds, then a log-likelihood ratio per agent, network, haste
and (burst, trap): see ``weight_positions``."""

_SECOND, _DAY = 1_000_000, 86_400_000_000
KINDS = ("open", "click", "other")
DELIVERY_TYPES = ("sent", "delivered")
HASTE_REACH_US = 2 * _DAY
HASTE_BOUNDS_US = (3 * _SECOND, 10 * _SECOND, 60 * _SECOND, 600 * _SECOND, 3600 * _SECOND, HASTE_REACH_US)
"""Upper bounds (exclusive) of the time since the latest delivery of the message. Haste 0 is none known within reach."""
HASTES = ("no send known", "under 3 s", "under 10 s", "under 60 s", "under 10 min", "under 1 h", "1 h or later")
BURSTS, TRAPS = ("not told", "1", "2", "3 or more"), ("none", "unsubscribe link", "honeypot")
CELL_US = {"open": _SECOND, "click": 5 * _SECOND}
"""Events are about one moment when they lie in the same or neighbouring cells of this length: clicks within 5 to 10 seconds
either way, opens within 1 to 2. Cells, because their summaries can be joined; a sliding window is quadratic in a burst."""
PROMPT_WITHIN_US = 5 * _DAY
REVISED_WITHIN_US = PROMPT_WITHIN_US + HASTE_REACH_US
HUMAN_THRESHOLD = 0.5
"""From here on an event counts as a person's where only yes or no will do (labels, latest times)."""
CERTAIN = 0.99
"""What is likelier than this is a person's, whole: counts of people's events stay whole numbers where nothing is in doubt."""

PROXY_HUMAN = 0.9
"""At least, of an open by a mail provider's image proxy: it fetches when a person looks, however many messages at once."""
_OPENS, _PROXY = KINDS.index("open"), AGENTS.index("image_proxy")
_BEHIND_A_PROXY = frozenset(NETWORKS.index(name) for name in ("unknown", "public", "image_proxy"))

SIZES = (len(KINDS), len(AGENTS), len(NETWORKS), len(HASTES), len(BURSTS), len(TRAPS))
PATTERNS = math.prod(SIZES)
PROGRAM, REFUSED = PATTERNS, PATTERNS + 1
"""Two codes beyond: what a program does itself, and opens of somebody who refused open tracking."""
KIND_WEIGHTS = 1 + len(AGENTS) + len(NETWORKS) + len(HASTES) + len(BURSTS) * len(TRAPS)
WEIGHTS = len(KINDS) * KIND_WEIGHTS


@dataclass(frozen=True)
class Pattern:
    """The evidence on one engagement event. Positions in ``KINDS``, ``AGENTS``, ``NETWORKS``, ``HASTES`` and so on."""

    kind: int
    agent: int = 0
    network: int = 0
    haste: int = 0
    burst: int = 0
    trap: int = 0

    @property
    def code(self) -> int:
        """Position in a ``HumanTable``.

        >>> Pattern.of_code(Pattern(1, 2, 3, 4, 2, 1).code)
        Pattern(kind=1, agent=2, network=3, haste=4, burst=2, trap=1)
        """
        code = 0
        for position, size in zip(self._positions, SIZES, strict=True):
            code = code * size + position
        return code

    @property
    def _positions(self) -> tuple[int, ...]:
        return (self.kind, self.agent, self.network, self.haste, self.burst, self.trap)

    @staticmethod
    def of_code(code: int) -> Pattern:
        return Pattern(*(int(position) for position in np.unravel_index(code, SIZES)))

    @property
    def words(self) -> dict[str, str]:
        """For people: what each part says."""
        return {
            "kind": KINDS[self.kind],
            "agent": AGENTS[self.agent],
            "network": NETWORKS[self.network],
            "haste": HASTES[self.haste],
            "burst": BURSTS[self.burst],
            "trap": TRAPS[self.trap],
        }


@dataclass(frozen=True)
class HumanTable:
    """Human probability by code of pattern, then of ``PROGRAM`` (1) and ``REFUSED`` (0)."""

    human: npt.NDArray[np.float64]


def weight_positions(pattern: Pattern) -> tuple[int, int, int, int, int]:
    """Which weights add up to a pattern's log-odds."""
    start = pattern.kind * KIND_WEIGHTS
    agent = start + 1
    network = agent + len(AGENTS)
    haste = network + len(NETWORKS)
    links = haste + len(HASTES)
    joint = pattern.burst * len(TRAPS) + pattern.trap
    return start, agent + pattern.agent, network + pattern.network, haste + pattern.haste, links + joint


@cache
def table_of(weights: Weights | None) -> HumanTable:
    """Every pattern's probability; None means the weights that are known beforehand."""
    given = DEFAULT_WEIGHTS if weights is None else weights
    if len(given) != WEIGHTS:
        raise ValueError(f"{len(given)} weights were learnt and {WEIGHTS} are needed; train again.")
    human = np.array([_probability(given, Pattern.of_code(code)) for code in range(PATTERNS)] + [1.0, 0.0])
    human.flags.writeable = False
    return HumanTable(human)


def _probability(weights: Weights, pattern: Pattern) -> float:
    log_odds = math.fsum(weights[position] for position in weight_positions(pattern))
    human = 1 / (1 + math.exp(-log_odds))
    if pattern.kind == _OPENS and pattern.agent == _PROXY and pattern.network in _BEHIND_A_PROXY:
        human = max(human, PROXY_HUMAN)
    return 1.0 if human > CERTAIN else human


def judge(events: Sequence[Event], table: HumanTable, refuses_opens: bool) -> list[float]:
    """Human probability of each event, by position.

    Parameters
    ----------
    events
        Of one subscriber: everything that is known and was received within ``REVISED_WITHIN_US`` of those asked about.
    refuses_opens
        Whether the subscriber refused open tracking.
    """
    return [float(table.human[code]) for code in codes(events, refuses_opens)]


def codes(events: Sequence[Event], refuses_opens: bool) -> list[int]:
    """Code of the evidence on each event, by position."""
    moments = _Moments(events)
    return [_code(event, moments, refuses_opens) for event in events]


def _code(event: Event, moments: _Moments, refuses_opens: bool) -> int:
    if event.event_type not in ENGAGEMENT_TYPES:
        return PROGRAM
    if event.event_type == "open" and refuses_opens:
        return REFUSED
    agent, network = AGENTS.index(event.agent), NETWORKS.index(event.network or "unknown")
    if event.event_type not in RESPONSE_TYPES:
        return Pattern(KINDS.index("other"), agent, network).code
    burst, trap = moments.burst(event)
    return Pattern(KINDS.index(event.event_type), agent, network, moments.haste(event), burst, trap).code


def is_prompt(event: Event) -> bool:
    """Whether it was received soon enough to be weighed together with others."""
    return event.received_us - event.occurred_us <= PROMPT_WITHIN_US


def item_of(event: Event) -> str | None:
    """What a burst has several of: a click's link, an open's campaign."""
    return event.link if event.event_type == "click" else event.campaign_id


def _counted(items: Set[str], kind: str) -> tuple[int, int]:
    """Positions in ``BURSTS`` and ``TRAPS``."""
    trap = 2 if HONEYPOT_LINK in items else int(UNSUBSCRIBE_LINK in items)
    return min(len(items), len(BURSTS) - 1), trap if kind == "click" else 0


class _Moments:
    """One subscriber's deliveries by campaign, and links and campaigns by cell of time."""

    def __init__(self, events: Sequence[Event]) -> None:
        self.delivered: dict[str, list[int]] = defaultdict(list)
        self.items: dict[tuple[str, str | None, int], set[str]] = defaultdict(set)
        self.found: dict[tuple[str, str | None, int], tuple[int, int]] = {}
        for event in filter(is_prompt, events):
            self._take(event)
        for times in self.delivered.values():
            times.sort()

    def _take(self, event: Event) -> None:
        if event.event_type in DELIVERY_TYPES and event.campaign_id is not None:
            self.delivered[event.campaign_id].append(event.occurred_us)
        if event.event_type in RESPONSE_TYPES and (item := item_of(event)) is not None:
            self.items[_cell(event)].add(item)

    def haste(self, event: Event) -> int:
        times = self.delivered.get(event.campaign_id or "", []) if event.campaign_id is not None else []
        before = bisect_right(times, event.occurred_us)
        if not before or not is_prompt(event):
            return 0
        passed = bisect_right(HASTE_BOUNDS_US, event.occurred_us - times[before - 1])
        return passed + 1 if passed < len(HASTE_BOUNDS_US) else 0

    def burst(self, event: Event) -> tuple[int, int]:
        """Positions in ``BURSTS`` and ``TRAPS``."""
        item = item_of(event)
        if item is None:
            return 0, 0
        if not is_prompt(event):
            return _counted({item}, event.event_type)
        cell = _cell(event)
        if cell not in self.found:
            self.found[cell] = self._around(cell)
        return self.found[cell]

    def _around(self, cell: tuple[str, str | None, int]) -> tuple[int, int]:
        kind, campaign, number = cell
        near = set().union(*(self.items.get((kind, campaign, number + step), set()) for step in (-1, 0, 1)))
        return _counted(near, kind)


def _cell(event: Event) -> tuple[str, str | None, int]:
    """Clicks are counted within their campaign, opens across campaigns."""
    campaign = event.campaign_id if event.event_type == "click" else None
    return event.event_type, campaign, event.occurred_us // CELL_US[event.event_type]


# --- what is known beforehand ------------------------------------------------------------------------------------------

PRIOR_HUMAN = 0.993
"""Of an event about which nothing is known. A log without user agents, addresses and links keeps its people."""
_MISSING = None

# Shares of each class's events, people's first: rough figures put together from what providers and vendors publish, meant to be
# overruled by what a log shows. What is missing says nothing either way.
_OPEN = {
    "agent": (_MISSING, (0.55, 0.1), (0.4497, 0.02), (0.0002, 0.75), (0.00003, 0.13)),
    "network": (_MISSING, (0.6, 0.12), (0.3745, 0.02), (0.01, 0.5), (0.0145, 0.28), (0.0005, 0.1)),
    "haste": (_MISSING, (0.0004, 0.2), (0.0009, 0.15), (0.03, 0.2), (0.11, 0.18), (0.25, 0.12), (0.602, 0.15)),
    "links": (
        *(_MISSING, _MISSING, _MISSING),
        *((0.985, 0.75), _MISSING, _MISSING),
        *((0.012, 0.15), _MISSING, _MISSING),
        *((0.003, 0.1), _MISSING, _MISSING),
    ),
}
_CLICK_AGENT = (_MISSING, (0.994, 0.45), (0.0055, 0.01), (0.0002, 0.09), (0.00005, 0.45))
_CLICK_NETWORK = (_MISSING, (0.93, 0.25), (0.002, 0.01), (0.04, 0.01), (0.027, 0.54), (0.0005, 0.19))
_CLICK = {
    "agent": _CLICK_AGENT,
    "network": _CLICK_NETWORK,
    "haste": (_MISSING, (0.0002, 0.35), (0.0005, 0.25), (0.029, 0.22), (0.13, 0.1), (0.24, 0.05), (0.6, 0.03)),
    "links": (
        *(_MISSING, _MISSING, _MISSING),
        *((0.925, 0.28), (0.025, 0.02), (0.000005, 0.02)),
        *((0.04, 0.14), (0.004, 0.05), (0.000005, 0.02)),
        *((0.001, 0.24), (0.0002, 0.2), (0.000005, 0.03)),
    ),
}
_NOTHING = {"haste": (_MISSING,) * len(HASTES), "links": (_MISSING,) * (len(BURSTS) * len(TRAPS))}
_OTHER = {"agent": _CLICK_AGENT, "network": _CLICK_NETWORK, **_NOTHING}
FACTORS = ("agent", "network", "haste", "links")
SHARES = dict(zip(KINDS, (_OPEN, _CLICK, _OTHER), strict=True))


def log_odds(probability: float) -> float:
    return math.log(probability / (1 - probability))


def _default_weights() -> Weights:
    weights: list[float] = []
    for shares in SHARES.values():
        weights.append(log_odds(PRIOR_HUMAN))
        for factor in FACTORS:
            weights += [0.0 if pair is None else math.log(pair[0] / pair[1]) for pair in shares[factor]]
    return tuple(round(weight, 4) for weight in weights)


DEFAULT_WEIGHTS = _default_weights()
