"""From ids to scores: one store read, one derivation, one predict per model, all on arrays.

What enters: a parsed request and the moment it is scored at. What leaves: columns, one element per asked subscriber, always
finite. The promise: whoever is unknown, refused profiling or cannot be read gets the prior and a status that says so; the
same subscriber at the same moment gets the same bits, alone or among a thousand, over HTTP or in a batch.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt

from features.catalogue import VIEWS, Catalogue, as_of_name
from features.clock import microseconds
from features.contract import MODELS
from features.derive import Features, derive, feature_names, last_engagement_at
from features.errors import FeatureMismatch, ScoringError, StoreUnavailable
from features.home import Home
from features.online import SqliteStateStore, StateStore
from features.state import States, identity
from models import churn, lead_score
from models.bundle import Bundle, bundle_key, current, load
from models.reasons import ReasonCatalogue
from models.send_time import Curves, Window, decide
from models.timing import Timing, shape
from serving.answers import Scores
from serving.schemas import Context, ScoreRequest

log = logging.getLogger("inbox.scorer")

Array = npt.NDArray[np.float64]
NOT_PERSONAL = ("prior", "no_consent")
ANSWERS = {"churn": churn.answer, "lead_score": lead_score.answer}


@dataclass(frozen=True)
class Subjects:
    """The asked subscribers as they stand in the store."""

    ids: Sequence[str]
    states: States
    status: npt.NDArray[np.str_]
    feature_age_s: Array
    """NaN where nothing was ever stored."""
    store_failed: bool

    @property
    def personal(self) -> npt.NDArray[np.bool_]:
        """Whose own state may be used."""
        return ~np.isin(self.status, NOT_PERSONAL)


@dataclass
class Scorer:
    """The models in service over one online store. Any model may be missing; a missing store means priors."""

    bundles: Mapping[str, Bundle]
    store: StateStore
    catalogue: Catalogue
    stale_after_s: float
    problems: list[str] = field(default_factory=list)
    store_is_down: bool = field(default=False, init=False)
    """As of the last read: a change is logged, not every request."""

    def __post_init__(self) -> None:
        self.reasons = {
            name: ReasonCatalogue(bundle.features, bundle.catalogue) for name, bundle in self.bundles.items()
        }

    @classmethod
    def load(cls, home: Home, stale_after: timedelta, models: Iterable[str] = MODELS) -> Scorer:
        """Load the current bundle of each model from disk. What cannot be loaded is left out and said in ``problems``."""
        bundles: dict[str, Bundle] = {}
        problems: list[str] = []
        for model in models:
            try:
                directory = current(home, model)
                if directory is None:
                    problems.append(f"{model}: not promoted yet")
                    continue
                bundles[model] = _usable(load(directory, bundle_key(home)))
            except ScoringError as error:
                log.error("%s is not served: %s", model, error)
                problems.append(f"{model}: {error}")
        catalogue = _widest(bundle.catalogue for bundle in bundles.values())
        if home.catalogue.exists():
            catalogue = _widest([catalogue, Catalogue.load(home.catalogue)])
        store = SqliteStateStore(home.online, catalogue)
        return cls(bundles, store, catalogue, stale_after / timedelta(seconds=1), problems)

    @property
    def versions(self) -> dict[str, str]:
        return {name: bundle.version for name, bundle in self.bundles.items()}

    def score(self, request: ScoreRequest, scored_at: datetime) -> Scores:
        """Score every asked subscriber with every asked model that is in service."""
        now = float(microseconds(scored_at))
        subjects = self._read(request.subscriber_ids, now)
        columns: dict[str, Any] = {
            "subscriber_id": list(subjects.ids),
            "status": subjects.status,
            "feature_age_s": subjects.feature_age_s,
            "last_engagement_at": np.where(subjects.personal, last_engagement_at(subjects.states), np.nan),
        }
        derived: dict[str, Features] = {}
        for model in request.models:
            bundle = self.bundles.get(model)
            if bundle is None:
                continue
            key = bundle.catalogue.fingerprint
            if key not in derived:
                derived[key] = derive(subjects.states, now, bundle.catalogue)
            matrix = _selected(derived[key], bundle)
            if model == "send_time":
                answer = self._send_time(bundle, subjects, matrix, request.context, scored_at)
            else:
                answer = self._ranked(bundle, subjects, matrix, request.explain)
            columns |= {f"{model}_{name}": values for name, values in answer.items()}
        return Scores(columns, store_failed=subjects.store_failed)

    def _read(self, ids: Sequence[str], now: float) -> Subjects:
        store_failed = False
        try:
            states, found = self.store.read(ids)
        except StoreUnavailable as error:
            store_failed = True
            if not self.store_is_down:
                log.warning("store: %s", error)
            states, found = identity(self.catalogue, len(ids)), np.zeros(len(ids), dtype=np.bool_)
        if self.store_is_down and not store_failed:
            log.info("store: it can be read again")
        self.store_is_down = store_failed
        anchors = np.stack([states[as_of_name(view)] for view in VIEWS])
        age = np.maximum(now - np.fmin.reduce(anchors), 0.0) / 1e6
        status = np.select(
            [
                ~found,
                states["consent_profiling"] == 0,
                np.isnan(anchors).any(axis=0),
                age > self.stale_after_s,
            ],
            ["prior", "no_consent", "partial", "stale"],
            default="ok",
        )
        # Nothing of a person's own may reach a model once they objected: their row becomes a stranger's.
        theirs = ~np.isin(status, NOT_PERSONAL)
        states = np.where(theirs, states, identity(self.catalogue, len(ids)))
        return Subjects(ids, states, status, np.where(found, age, np.nan), store_failed)

    def _ranked(self, bundle: Bundle, subjects: Subjects, matrix: Array, explain: bool) -> dict[str, Any]:
        """Churn and lead score: a probability, its place, and on demand its reasons."""
        prior = float(bundle.priors["probability"])
        raw = _raw(bundle, matrix)
        probability = _finite(np.where(subjects.personal, bundle.calibration(raw), prior), prior)
        answer: dict[str, Any] = dict(
            ANSWERS[bundle.model](probability, bundle.parameters["quantiles"], subjects.personal)
        )
        if bundle.model == "lead_score":
            # Who converted before is outside what the model was asked: scored, but no lead any more.
            answer["converted"] = subjects.states["conversion_count"] > 0
        if explain:
            answer["reasons"] = self._reasons(bundle, subjects, matrix)
        return answer

    def _reasons(self, bundle: Bundle, subjects: Subjects, matrix: Array) -> list[list[str]]:
        reasons: list[list[str]] = [[] for _ in subjects.ids]
        rows = np.flatnonzero(subjects.personal)
        if bundle.booster is None or not len(rows):
            return reasons
        explained = self.reasons[bundle.model].explain(bundle.booster.contributions(matrix[rows]), matrix[rows])
        for row, found in zip(rows, explained, strict=True):
            reasons[row] = [str(reason) for reason in found]
        return reasons

    def _send_time(
        self, bundle: Bundle, subjects: Subjects, matrix: Array, context: Context | None, scored_at: datetime
    ) -> dict[str, Any]:
        """The best allowed moment in the asked window, which begins now unless the caller has a default."""
        context = context or Context()
        default = context.default_send_at or scored_at
        window = Window(default, context.window_hours, context.quiet_hours, context.campaign_id or "")
        zones = bundle.catalogue.timezones
        codes = subjects.states["timezone"].astype(np.int64)
        known = (codes >= 0) & (codes < len(zones))
        answer: dict[str, Any] = decide(
            _curves(bundle, subjects, matrix), subjects.ids, np.where(known, codes, 0), zones, window
        )
        return answer | {"timezone_assumed": ~known}


def _raw(bundle: Bundle, matrix: Array) -> Array:
    """Log-odds before calibration; 0 for a bundle without trees."""
    return np.zeros(len(matrix)) if bundle.booster is None else bundle.booster.raw(matrix)


def _curves(bundle: Bundle, subjects: Subjects, matrix: Array) -> Curves:
    """Probability of an answer at each of 168 local hours.

    Without trees (the list's sends are unknown) the curve is each hour's share of a week of attention instead.
    """
    timing = Timing.from_parameters(bundle.parameters["timing"])
    shapes = shape(subjects.states, timing)
    if bundle.booster is None:
        fares = np.exp(shapes.pool[None, :] + shapes.person)
        return Curves(fares / 168, shapes.person_error, shapes.pool_share, claims_gain=False)
    level = np.where(subjects.personal, _raw(bundle, matrix), float(bundle.priors["raw"]))
    probability = bundle.calibration((level[:, None] + shapes.log_odds(timing)).ravel()).reshape(-1, 168)
    prior = float(bundle.priors["probability"])
    return Curves(np.maximum(_finite(probability, prior), 1e-9), shapes.log_error(timing), shapes.pool_share)


def _finite(probability: Array, prior: float) -> Array:
    return np.where(np.isfinite(probability), probability, prior)


def _usable(bundle: Bundle) -> Bundle:
    """The bundle, if everything it reads is still derived: otherwise every request would fail instead of the start."""
    derived = feature_names(bundle.catalogue)
    if not set(bundle.features) <= set(derived):
        raise FeatureMismatch(bundle.model, bundle.features, derived)
    return bundle


def _selected(features: Features, bundle: Bundle) -> Array:
    """The bundle's features in the bundle's order."""
    if features.names == bundle.features:
        return features.matrix
    position = {name: i for i, name in enumerate(features.names)}
    return np.ascontiguousarray(features.matrix[:, [position[name] for name in bundle.features]])


def _widest(catalogues: Iterable[Catalogue]) -> Catalogue:
    """Catalogues only grow: the one with the most fields can read every row."""
    return max((Catalogue(), *catalogues), key=lambda catalogue: len(catalogue.fields))
