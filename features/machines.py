"""Learning what tells machines from people in one list, without labels.

What enters: a log's counts of evidence patterns up to an instant. What leaves: ``judge.Weights``, or None where the log does
not show enough of both. The promise: nothing received from the instant on is looked at, and a log without traces of machines
learns nothing: its people stay people.

A mixture of two classes whose evidence is independent within each (naive Bayes), fitted by expectation maximization to the
counts of patterns, with what is known beforehand as pseudo-counts. Fast, because there are at most a few thousand patterns
however long the log. What makes it identifiable are events whose class hardly anybody doubts (a crawler's agent, a security
gateway's address, a honeypot); the rest is learnt from their company. Where they are few, what is known beforehand stands.
"""

from __future__ import annotations

from datetime import datetime

import ibis
import numpy as np
import numpy.typing as npt

from features.contract import AGENTS, NETWORKS
from features.evidence import verdicts_on
from features.judge import (
    DEFAULT_WEIGHTS,
    FACTORS,
    HASTES,
    KIND_WEIGHTS,
    KINDS,
    PATTERNS,
    PRIOR_HUMAN,
    SHARES,
    SIZES,
    TRAPS,
    Weights,
    log_odds,
)

LEAST_TRACES = 100
"""So many events of a kind must be beyond doubt a machine's, and as many a person's, before that kind teaches anything."""
PRIOR_COUNT, PRIOR_SHARE = 200.0, 0.02
"""What is known beforehand weighs like so many events of each class, and this share of all events."""
LARGEST_WEIGHT = 9.0
ROUNDS, SETTLED = 300, 1e-9

Array = npt.NDArray[np.float64]
Positions = npt.NDArray[np.int64]


def pattern_counts(con: ibis.BaseBackend, until: datetime) -> Array:
    """How many engagement events show each pattern, by code, of those received before an instant and as judged by then."""
    events = con.table("events")
    events = events.filter(events.received_at < ibis.literal(until)).drop("content", "value")
    with verdicts_on(con, events) as judged:
        standing = judged.filter(judged.superseded_us.isnull(), judged.code < PATTERNS)
        found = con.to_pyarrow(standing.group_by("code").aggregate(count=standing.count()))
    counts = np.zeros(PATTERNS)
    counts[found["code"].to_numpy()] = found["count"].to_numpy()
    return counts


def learn_machines(counts: Array) -> Weights | None:
    """Weights fitted to counts by code of pattern; None when no kind of event shows enough of machines and people."""
    positions = np.array(np.unravel_index(np.arange(PATTERNS), SIZES))
    weights: list[float] = []
    for kind in range(len(KINDS)):
        chosen = (positions[0] == kind) & (counts > 0)
        learnt = _fitted(KINDS[kind], positions[:, chosen], counts[chosen])
        weights += DEFAULT_WEIGHTS[kind * KIND_WEIGHTS : (kind + 1) * KIND_WEIGHTS] if learnt is None else learnt
    return None if tuple(weights) == DEFAULT_WEIGHTS else tuple(weights)


def _fitted(kind: str, positions: Positions, counts: Array) -> list[float] | None:
    """Weights of one kind of event: its log-odds, then the log-likelihood ratios factor by factor."""
    machine, person = _beyond_doubt(positions)
    if min(counts[machine].sum(), counts[person & ~machine].sum()) < LEAST_TRACES:
        return None
    _, agent, network, haste, burst, trap = positions
    places = (agent, network, haste, burst * len(TRAPS) + trap)
    known = [np.array([pair is not None for pair in SHARES[kind][factor]]) for factor in FACTORS]
    strength = PRIOR_COUNT + PRIOR_SHARE * counts.sum()
    prior = [strength * _prior_shares(kind, factor) for factor in FACTORS]
    share, tables = PRIOR_HUMAN, [table / table.sum(axis=1, keepdims=True) for table in prior]
    for _ in range(ROUNDS):
        human = _human(share, tables, known, places)
        before, share = share, float((human @ counts + PRIOR_COUNT * PRIOR_HUMAN) / (counts.sum() + PRIOR_COUNT))
        tables = [
            _shares(table, place, human * counts, (1 - human) * counts)
            for table, place in zip(prior, places, strict=True)
        ]
        if abs(share - before) < SETTLED:
            break
    return _weights(kind, share, tables, known)


def _beyond_doubt(positions: Positions) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Patterns of machines, and of people, about which there is hardly a doubt."""
    _, agent, network, haste, _, trap = positions
    machine = np.isin(agent, [AGENTS.index("prefetch"), AGENTS.index("scanner")])
    machine |= (network == NETWORKS.index("scanner")) | (trap == len(TRAPS) - 1)
    person = np.isin(agent, [AGENTS.index("person"), AGENTS.index("image_proxy")]) | (haste == len(HASTES) - 1)
    return machine, person


def _prior_shares(kind: str, factor: str) -> Array:
    """Shape (2, values): people's and machines' shares; 0 for what says nothing."""
    pairs = [(0.0, 0.0) if pair is None else pair for pair in SHARES[kind][factor]]
    shares = np.array(pairs).T
    return np.asarray(shares / np.maximum(shares.sum(axis=1, keepdims=True), 1e-300))


def _human(
    share: float, tables: list[Array], known: list[npt.NDArray[np.bool_]], places: tuple[Positions, ...]
) -> Array:
    """Chance that each pattern's events are people's."""
    odds = np.full(len(places[0]), log_odds(share))
    for table, says, place in zip(tables, known, places, strict=True):
        odds += _ratios(table, says)[place]
    return np.asarray(1 / (1 + np.exp(-odds)))


def _ratios(table: Array, says: npt.NDArray[np.bool_]) -> Array:
    ratios = np.zeros(len(says))
    ratios[says] = np.log(table[0, says]) - np.log(table[1, says])
    return np.clip(ratios, -LARGEST_WEIGHT, LARGEST_WEIGHT)


def _shares(prior: Array, place: Positions, people: Array, machines: Array) -> Array:
    """Shares of each value in both classes; what says nothing has none."""
    found = np.array([np.bincount(place, mass, minlength=prior.shape[1]) for mass in (people, machines)])
    total = np.where(prior > 0, prior + found, 0.0)
    return np.asarray(total / np.maximum(total.sum(axis=1, keepdims=True), 1e-300))


def _weights(kind: str, share: float, tables: list[Array], known: list[npt.NDArray[np.bool_]]) -> list[float]:
    ratios = [_ratios(table, says) for table, says in zip(tables, known, strict=True)]
    if kind == "open":
        # Behind a mail provider's image proxy there is a person, whatever else a list's machines look like.
        for ratio, words in zip(ratios, (AGENTS, NETWORKS), strict=False):
            ratio[words.index("image_proxy")] = max(ratio[words.index("image_proxy")], 0.0)
    return [round(log_odds(share), 4), *(round(float(ratio), 4) for part in ratios for ratio in part)]
