"""From ids to scores: one store read, one derivation, one predict per model, all on arrays.

What enters: a parsed request and the moment it is scored at. What leaves: columns, one element per asked subscriber, always
finite. The promise: whoever is unknown, refused profiling or cannot be read gets a prior and a status that says so; the
same subscriber at the same moment gets the same bits, alone or among a thousand, over HTTP or in a batch.

The ladder, from best to last: fresh state (``ok``), old state (``stale``), a state that lacks views (``partial``), the
mean of those who care most for the message's content (``prior``, segment), everybody's mean (``prior``, global).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from features.catalogue import VIEWS, Catalogue, as_of_name
from features.clock import microseconds
from features.contract import HOURS_OF_WEEK
from features.derive import Deriver, Features, deriver, last_engagement_at
from features.errors import FeatureMismatch, StoreUnavailable
from features.online import Found
from features.packing import checksums_of
from features.state import States, anchors, identity
from models import churn, lead_score
from models.bundle import Bundle
from models.reasons import ReasonCatalogue
from models.send_time import Curves, Window, decide
from models.timing import Shape, Timing, shape
from serving.answers import Scores
from serving.schemas import Context, ScoreRequest

Array = npt.NDArray[np.float64]
STATUSES = np.array(["ok", "stale", "partial", "prior", "no_consent"])
OK, STALE, PARTIAL, PRIOR, NO_CONSENT = range(5)
"""Positions in ``STATUSES``; from ``PRIOR`` on nothing of a person's own is used."""
ANSWERS = {"churn": churn.answer, "lead_score": lead_score.answer}
NO_CONTEXT = Context()
LEAST_PROBABILITY = 1e-9
NOBODY: Array = np.empty((0, 0))
ROWS_FOR_THREADS = 128
"""From so many rows on the models' trees are asked at once, each on a thread of its own. Two threads of one core, which is
what this was measured on, save a seventh of the time.
"""


class Reader(Protocol):
    """What a scorer needs of an online store; see ``features.online.StateStore.read``."""

    def read(
        self, subscriber_ids: Sequence[str], catalogue: Catalogue, timeout_s: float | None = None
    ) -> tuple[States, Found]: ...


@dataclass(frozen=True)
class Subjects:
    """The asked subscribers as they stand in the store."""

    ids: Sequence[str]
    states: States
    status: npt.NDArray[np.int64]
    """Positions in ``STATUSES``."""
    anchor: Array
    """Up to when the newest of their views was folded, microseconds since 1970 UTC; NaN where nothing was ever stored."""
    feature_age_s: Array
    """Of the oldest view; NaN likewise."""
    store_failed: bool

    @property
    def personal(self) -> npt.NDArray[np.bool_]:
        """Whose own state may be used."""
        return self.status < PRIOR


class _InService:
    """A bundle with everything worked out that does not depend on the request."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        self.deriver = deriver(bundle.catalogue)
        if not set(bundle.features) <= set(self.deriver.names):
            # Every request would fail instead of the start.
            raise FeatureMismatch(bundle.model, bundle.features, self.deriver.names)
        self._columns = _columns(bundle, self.deriver)
        self.reasons = ReasonCatalogue(bundle.features, bundle.catalogue)
        self.quantiles = np.asarray(bundle.parameters.get("quantiles", ()))
        timing = bundle.parameters.get("timing")
        self.timing = None if timing is None else Timing.from_parameters(timing)

    def matrix(self, features: Features) -> Array:
        """The bundle's features in the bundle's order."""
        matrix = features.matrix
        return matrix if self._columns is None else np.ascontiguousarray(matrix[:, self._columns])

    def prior(self, content: Sequence[str]) -> tuple[Mapping[str, float], bool]:
        """What to say of somebody unknown, and whether it is said of those who care for this content."""
        by_content = self.bundle.priors.get("content", {})
        for word in content:
            if word in by_content:
                return by_content[word], True
        return self.bundle.priors, False

    def raw(self, matrix: Array, personal: npt.NDArray[np.bool_], otherwise: float) -> Array:
        """Log-odds before calibration; trees are not asked about strangers."""
        raw = np.full(len(personal), otherwise)
        if self.bundle.booster is None or not personal.any():
            return raw
        if personal.all():
            return self.bundle.raw(matrix)
        raw[personal] = self.bundle.raw(matrix[personal])
        return raw


class Scorer:
    """The models in service over one online store. Any model may be missing; a missing store means priors.

    Parameters
    ----------
    bundles
        By model.
    store
        Outlives the scorer: another one may be put in service over it.
    stale_after_s
        Features older than this are labelled stale.

    Raises
    ------
    FeatureMismatch
        When a bundle reads what is no longer derived.
    """

    def __init__(self, bundles: Mapping[str, Bundle], store: Reader, stale_after_s: float) -> None:
        self.bundles, self.store, self.stale_after_s = bundles, store, stale_after_s
        self.versions: Mapping[str, str] = {name: bundle.version for name, bundle in bundles.items()}
        self.catalogue = _widest(bundle.catalogue for bundle in bundles.values())
        self._served = {name: _InService(bundle) for name, bundle in bundles.items()}
        self._threads = ThreadPoolExecutor(min(max(len(bundles), 1), os.cpu_count() or 1), "trees")

    def score(self, request: ScoreRequest, scored_at: datetime, budget_s: float | None = None) -> Scores:
        """Score every asked subscriber with every asked model that is in service.

        Parameters
        ----------
        budget_s
            How long the store may take; its own time-out unless given.
        """
        now = float(microseconds(scored_at))
        return self._scores(request, self._read(request.subscriber_ids, now, budget_s), scored_at)

    def priors(self, request: ScoreRequest, scored_at: datetime) -> Scores:
        """What is said of strangers, of everybody asked for: neither store nor trees, for whoever cannot wait."""
        return self._scores(request, self._strangers(request.subscriber_ids, store_failed=False), scored_at)

    def statuses(self, subscriber_ids: Sequence[str], now: datetime) -> npt.NDArray[np.str_]:
        """How they stand at the moment, one of ``STATUSES`` each, without a score.

        Raises
        ------
        StoreUnavailable
            When nobody can tell, not even who has objected.
        """
        subjects = self._read(subscriber_ids, float(microseconds(now)), None)
        if subjects.store_failed:
            raise StoreUnavailable("it did not say how these subscribers stand")
        standing: npt.NDArray[np.str_] = STATUSES[subjects.status]
        return standing

    def _scores(self, request: ScoreRequest, subjects: Subjects, scored_at: datetime) -> Scores:
        context, personal = request.context or NO_CONTEXT, subjects.personal
        columns: dict[str, Any] = {
            "subscriber_id": list(subjects.ids),
            "status": STATUSES[subjects.status],
            "feature_age_s": subjects.feature_age_s,
            "last_engagement_at": np.where(personal, last_engagement_at(subjects.states), np.nan),
            "state_as_of": np.where(personal, subjects.anchor, np.nan),
            "state_checksum": checksums_of(subjects.states),
        }
        served = [self._served[model] for model in request.models if model in self._served]
        # Strangers are all alike: nothing is derived for a request without anybody else.
        matrices = _matrices(served, subjects.states, scored_at) if personal.any() else [NOBODY] * len(served)
        priors, of_segment = [], bool(served)
        for one in served:
            prior, of_content = one.prior(context.content)
            priors.append(prior)
            of_segment &= of_content
        raws = self._raws(served, matrices, personal, priors)
        for one, matrix, prior, raw in zip(served, matrices, priors, raws, strict=True):
            if one.bundle.model == "send_time":
                answer = _send_time(one, subjects, raw, prior, context, scored_at)
            else:
                answer = _ranked(one, subjects, raw, prior)
                if request.explain:
                    answer["reasons"] = _reasons(one, subjects, matrix)
            columns |= {f"{one.bundle.model}_{name}": values for name, values in answer.items()}
        whose = "segment" if of_segment else "global"
        columns["prior"] = [None if own else whose for own in personal.tolist()]
        return Scores(columns, store_failed=subjects.store_failed)

    def _raws(
        self,
        served: Sequence[_InService],
        matrices: Sequence[Array],
        personal: npt.NDArray[np.bool_],
        priors: Sequence[Mapping[str, float]],
    ) -> list[Array]:
        """Each model's log-odds: one predict per model on one thread each, at once where there are many rows."""
        calls = [
            partial(one.raw, matrix, personal, prior["raw"])
            for one, matrix, prior in zip(served, matrices, priors, strict=True)
        ]
        if len(personal) < ROWS_FOR_THREADS:
            return [call() for call in calls]
        return list(self._threads.map(lambda call: call(), calls))

    def _read(self, ids: Sequence[str], now: float, budget_s: float | None) -> Subjects:
        try:
            states, found = self.store.read(ids, self.catalogue, budget_s)
        except StoreUnavailable:
            # Said once, when it begins, by the breaker before the store.
            return self._strangers(ids, store_failed=True)
        by_view = np.stack([states[as_of_name(view)] for view in VIEWS])
        age = np.maximum(now - np.fmin.reduce(by_view), 0.0) / 1e6
        status = np.where(age > self.stale_after_s, STALE, OK)
        status[np.isnan(by_view).any(axis=0)] = PARTIAL
        status[states["consent_profiling"] == 0] = NO_CONSENT
        status[~found] = PRIOR
        # Nothing of a person's own may reach a model once they objected: their row becomes a stranger's.
        if (status >= PRIOR).any():
            states = states.copy()
            states[status >= PRIOR] = self.catalogue.blank
        return Subjects(ids, states, status, anchors(states), np.where(found, age, np.nan), store_failed=False)

    def _strangers(self, ids: Sequence[str], store_failed: bool) -> Subjects:
        unknown = np.full(len(ids), np.nan)
        status = np.full(len(ids), PRIOR)
        return Subjects(ids, identity(self.catalogue, len(ids)), status, unknown, unknown, store_failed)


def _matrices(served: Sequence[_InService], states: States, scored_at: datetime) -> list[Array]:
    """What each model reads; derived once for all that share a catalogue."""
    now = float(microseconds(scored_at))
    features = {derive: derive(states, now) for derive in dict.fromkeys(one.deriver for one in served)}
    return [one.matrix(features[one.deriver]) for one in served]


def _ranked(served: _InService, subjects: Subjects, raw: Array, prior: Mapping[str, float]) -> dict[str, Any]:
    """Churn and lead score: a probability and its place."""
    bundle, personal = served.bundle, subjects.personal
    probability = _finite(np.where(personal, bundle.calibration(raw), prior["probability"]), prior)
    answer: dict[str, Any] = dict(ANSWERS[bundle.model](probability, served.quantiles, personal))
    if bundle.model == "lead_score":
        # Who converted before is outside what the model was asked: scored, but no lead any more.
        answer["converted"] = subjects.states["conversion_count"] > 0
    return answer


def _reasons(served: _InService, subjects: Subjects, matrix: Array) -> list[list[str]]:
    reasons: list[list[str]] = [[] for _ in subjects.ids]
    rows = np.flatnonzero(subjects.personal)
    if served.bundle.booster is None or not len(rows):
        return reasons
    explained = served.reasons.explain(served.bundle.contributions(matrix[rows]), matrix[rows])
    for row, found in zip(rows, explained, strict=True):
        reasons[row] = [str(reason) for reason in found]
    return reasons


def _send_time(
    served: _InService,
    subjects: Subjects,
    raw: Array,
    prior: Mapping[str, float],
    context: Context,
    scored_at: datetime,
) -> dict[str, Any]:
    """The best allowed moment in the asked window, which begins now unless the caller has a default."""
    bundle = served.bundle
    if served.timing is None:
        raise FeatureMismatch(bundle.model, ["timing"], list(bundle.parameters))
    timing, default = served.timing, context.default_send_at or scored_at
    window = Window(default, context.window_hours, context.quiet_hours, context.campaign_id or "")
    zones = bundle.catalogue.timezones
    codes = subjects.states["timezone"].astype(np.int64)
    known = (codes >= 0) & (codes < len(zones))
    alike = not subjects.personal.any()
    shapes = shape(subjects.states[:1] if alike else subjects.states, timing)

    def curves_at(slots: npt.NDArray[np.int64]) -> Curves:
        if alike:
            one = _curves(bundle, timing, raw[:1], prior, shapes, slots[:1])
            return one.repeated(len(slots), shapes.repeated(len(slots)).ratio_error)
        return _curves(bundle, timing, raw, prior, shapes, slots)

    answer: dict[str, Any] = decide(curves_at, subjects.ids, np.where(known, codes, 0), zones, window)
    return answer | {"timezone_assumed": ~known}


def _curves(
    bundle: Bundle,
    timing: Timing,
    raw: Array,
    prior: Mapping[str, float],
    shapes: Shape,
    slots: npt.NDArray[np.int64],
) -> Curves:
    """Probability of an answer. Where the list's sends are unknown: the share of a week of attention."""
    hours = shapes.at(slots)
    if bundle.booster is None:
        fares = np.exp(hours.pool + hours.person)
        return Curves(fares / HOURS_OF_WEEK, shapes.ratio_error, shapes.pool_share, claims_gain=False)
    probability = bundle.calibration(raw[:, None] + hours.log_odds(timing))
    usable = np.maximum(_finite(probability, prior), LEAST_PROBABILITY)
    return Curves(usable, shapes.ratio_error, shapes.pool_share)


def _finite(probability: Array, prior: Mapping[str, float]) -> Array:
    return np.where(np.isfinite(probability), probability, prior["probability"])


def _columns(bundle: Bundle, derived: Deriver) -> npt.NDArray[np.int64] | None:
    """Where the bundle's features stand among the derived; None when they are all of them, in order."""
    if derived.names == bundle.features:
        return None
    position = {name: i for i, name in enumerate(derived.names)}
    return np.array([position[name] for name in bundle.features], dtype=np.int64)


def _widest(catalogues: Iterable[Catalogue]) -> Catalogue:
    """Catalogues only grow: the one with the most fields can read every row."""
    return max((Catalogue(), *catalogues), key=lambda catalogue: len(catalogue.fields))
