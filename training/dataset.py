"""Point-in-time rows: who is asked about, as of when, with which label, and the features they had then.

What enters: a folded log and a model's spec. What leaves: ``Rows`` (questions with labels, before any feature is computed)
and, once their states are read from the store, a ``Dataset``. The promise: a row's features are derived from the state
serving would have read at that moment, staleness included.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from features.catalogue import Catalogue
from features.clock import microseconds
from features.derive import Features, derive
from features.errors import NoMatureLabels, NothingEligible
from features.evidence import epoch_us
from features.fold import Folder, Spine
from features.state import MICROSECONDS_PER_DAY, States
from models.spec import ModelSpec
from training.censoring import LEAST_SHARE, exposure, fit_delays
from training.labels import Labels, churn_labels, conversion_delays, if_mature, lead_labels, sends

GRID_POINTS = 28
"""Twice as many as 14 ask about more of the phases between mailings: calibration errors of churn on Activate Good fall from
.047–.167 to .032–.127 (four cuts of time), its ranking stays."""
GRID_STEP = timedelta(days=7)
WARM_UP = timedelta(days=30)
"""No question is asked before the log is this old (or a quarter of its length): nothing would be known yet."""
MOST_ROWS = 150_000
"""Beyond this many rows subscribers (or sends) are sampled by a stable hash: time and memory stay bounded."""
JUST_AFTER = MICROSECOND = timedelta(microseconds=1)
LONGEST_REACH = 4
"""A horizon is at most so many times the one that is learnt from."""
LEAST_CONVERTED = 60
"""With fewer conversions among mature leads, unfinished ones are learnt from too."""

Labeller = Callable[[Folder, Spine, ModelSpec, datetime], Labels]
LABELLERS: dict[str, Labeller] = {"churn": churn_labels, "lead_score": lead_labels}
RULES = {
    "churn": "engaged within the activity window and not opted out",
    "lead_score": "created and not yet converted",
    "send_time": "a send whose response window is over",
}


@dataclass(frozen=True)
class Rows:
    """Labelled questions. All arrays have one element per row, in order of time."""

    subscriber_id: pa.Array
    as_of: npt.NDArray[np.float64]
    """The moment of use, microseconds since 1970 UTC: ages are taken and labels begin here."""
    stored_as_of: npt.NDArray[np.float64]
    """When the state that would have been read then was materialized; at or before ``as_of``."""
    label: npt.NDArray[np.float64]
    event_id: pa.Array | None = None
    slot: npt.NDArray[np.int64] | None = None
    """For sends: the id and the local hour of week."""
    campaign: npt.NDArray[np.int64] | None = None
    """For sends: a number per campaign; those of none share one."""
    offset: npt.NDArray[np.float64] | None = None
    """Added to the log-odds of the label while learning, never while scoring: see ``training.censoring``."""
    horizon: timedelta | None = None
    """Of the labels, where it is shorter than the spec's: what is learnt is carried to the spec's."""

    def __len__(self) -> int:
        return len(self.label)

    def take(self, positions: npt.NDArray[np.int64]) -> Rows:
        return Rows(
            self.subscriber_id.take(pa.array(positions)),
            self.as_of[positions],
            self.stored_as_of[positions],
            self.label[positions],
            None if self.event_id is None else self.event_id.take(pa.array(positions)),
            None if self.slot is None else self.slot[positions],
            None if self.campaign is None else self.campaign[positions],
            None if self.offset is None else self.offset[positions],
            self.horizon,
        )

    @property
    def people(self) -> npt.NDArray[np.int64]:
        """A number per row, the same for rows of one subscriber."""
        return np.asarray(self.subscriber_id.dictionary_encode().indices.to_numpy(), dtype=np.int64)

    @property
    def stored(self) -> Spine:
        """The states these rows need."""
        return Spine(self.subscriber_id, self.stored_as_of)


@dataclass(frozen=True)
class Dataset:
    """Rows with the states read for them and the features derived from those."""

    rows: Rows
    states: States
    features: Features
    catalogue: Catalogue

    @property
    def fingerprint(self) -> str:
        """sha256 over everything a fit reads: equal fingerprints train bit-identical models."""
        digest = hashlib.sha256()
        digest.update(repr(self.features.names).encode())
        for part in (self.features.matrix, self.rows.label, self.rows.as_of):
            digest.update(np.ascontiguousarray(part).tobytes())
        return digest.hexdigest()


def labelled_rows(spec: ModelSpec, folder: Folder, start: datetime, known_until: datetime) -> Rows:
    """Every mature question of a model that the log can answer.

    Of leads, where too few of the mature ones converted to learn from, the unfinished ones count too, for what they have told
    so far (see ``training.censoring``). Of churn, where the log is too short for one horizon, shorter ones are asked about.

    Parameters
    ----------
    start
        Of the log.
    known_until
        Nothing received at or after it is read; every label's horizon ends at or before it.

    Raises
    ------
    NoMatureLabels, NothingEligible
    """
    rows = LEARNT_FROM[spec.name](spec, folder, start, known_until)
    if not len(rows):
        raise NothingEligible(spec.name, RULES[spec.name])
    return _in_order(rows)


def questions(
    spec: ModelSpec,
    folder: Folder,
    instants: Sequence[datetime],
    after: datetime,
    until: datetime,
    known_until: datetime,
) -> Rows:
    """What a model is asked in a stretch of time, whether or not the answer is known yet.

    Parameters
    ----------
    instants
        When everybody is asked about. Without any: each of those created in ``[after, until)``, when created. About sends
        one asks when they are sent, in ``[after, until)``.
    known_until
        Labels whose horizon is not over by then are NaN.

    Raises
    ------
    NothingEligible
    """
    if spec.as_of_policy == "sent":
        rows = _send_rows(spec, folder, after, known_until)
        rows = rows.take(np.flatnonzero(rows.as_of < microseconds(until)))
    else:
        spine = _on_grid(spec, folder, instants) if instants else _at_creation(folder, after, until)
        rows = _labelled(spec, folder, spine, known_until)
    if not len(rows):
        raise NothingEligible(spec.name, RULES[spec.name])
    return _in_order(rows)


def _in_order(rows: Rows) -> Rows:
    return rows.take(np.lexsort((np.asarray(rows.subscriber_id.to_pylist()), rows.as_of)))


def dataset(rows: Rows, states: States, catalogue: Catalogue) -> Dataset:
    """Derive the features of labelled rows from the states that were read for them."""
    return Dataset(rows, states, derive(states, rows.as_of, catalogue), catalogue)


def grid(spec: ModelSpec, start: datetime, known_until: datetime) -> list[datetime]:
    """Regular instants (UTC midnights) to ask about, the last as late as a label can be mature.

    Raises
    ------
    NoMatureLabels
        When there is no room for one.
    """
    last = _midnight(known_until - spec.horizon)
    first = start + min(WARM_UP, (known_until - start) / 4)
    if last < first:
        raise NoMatureLabels(spec.name, spec.horizon / timedelta(days=1), (known_until - start) / timedelta(days=1))
    step = max(GRID_STEP, (last - first) / GRID_POINTS)
    whole_days = timedelta(days=max(1, round(step / timedelta(days=1))))
    return [at for k in range(GRID_POINTS) if (at := last - k * whole_days) >= first][::-1]


def _asked(spec: ModelSpec, folder: Folder, start: datetime, known_until: datetime) -> Rows:
    parts = []
    # Where only outcomes are known, a later question knows no more than the first: the grid would add nothing.
    if spec.as_of_policy == "grid" or (spec.as_of_policy == "both" and _has_behaviour(folder)):
        parts.append(_on_grid(spec, folder, grid(spec, start, known_until)))
    if spec.as_of_policy in ("creation", "both"):
        parts.append(_at_creation(folder, start, known_until - spec.horizon + JUST_AFTER))
    return _labelled(spec, folder, _sampled(_joined(parts)), known_until)


def _silences(spec: ModelSpec, folder: Folder, start: datetime, known_until: datetime) -> Rows:
    """Churn's questions. A log shorter than the horizon, though not by much, can tell of a third of its own length."""
    try:
        return _asked(spec, folder, start, known_until)
    except NoMatureLabels:
        shorter = (known_until - start) / 3
        if spec.horizon > LONGEST_REACH * shorter:
            raise
        return replace(_asked(replace(spec, horizon=shorter), folder, start, known_until), horizon=shorter)


def _leads(spec: ModelSpec, folder: Folder, start: datetime, known_until: datetime) -> Rows:
    try:
        rows = _asked(spec, folder, start, known_until)
    except NoMatureLabels:
        unfinished = _unfinished_leads(spec, folder, start, known_until)
        if not unfinished.label.any():
            raise
        return unfinished
    if rows.label.sum() >= LEAST_CONVERTED:
        return rows
    unfinished = _unfinished_leads(spec, folder, start, known_until)
    return unfinished if unfinished.label.sum() > rows.label.sum() else rows


def _unfinished_leads(spec: ModelSpec, folder: Folder, start: datetime, known_until: datetime) -> Rows:
    """Leads as of their creation, each with what it has told so far."""
    spine = _sampled(_at_creation(folder, start, known_until))
    spine = spine.take(lead_labels(folder, spine, spec, known_until).row)
    horizon, delay = spec.horizon / MICROSECOND, conversion_delays(folder, spine, known_until)
    watched = microseconds(known_until) - spine.as_of
    share = exposure(fit_delays(delay, watched), watched, horizon)
    told = np.flatnonzero(share >= LEAST_SHARE)
    label = (delay < horizon)[told].astype(np.float64)
    as_of = spine.as_of[told]
    return Rows(spine.subscriber_id.take(pa.array(told)), as_of, as_of, label, offset=np.log(share[told]))


def _labelled(spec: ModelSpec, folder: Folder, spine: Spine, known_until: datetime) -> Rows:
    """Those of a spine who are eligible."""
    labels = LABELLERS[spec.name](folder, spine, spec, known_until)
    as_of = spine.as_of[labels.row]
    label = if_mature(labels.label, as_of, spec.horizon, known_until)
    return Rows(spine.subscriber_id.take(pa.array(labels.row)), as_of, as_of, label)


def _has_behaviour(folder: Folder) -> bool:
    kinds = folder.events.event_type
    return bool(folder.con.execute((kinds != "conversion").any()))


def _created(folder: Folder) -> Spine:
    """Everybody, with the moment of their creation as their instant."""
    subscribers = folder.con.table("subscribers")
    ordered = subscribers.select("subscriber_id", created_us=epoch_us(subscribers.created_at)).order_by("subscriber_id")
    table = folder.con.to_pyarrow(ordered)
    return Spine(table["subscriber_id"].combine_chunks(), table["created_us"].to_numpy().astype(np.float64))


def _on_grid(spec: ModelSpec, folder: Folder, instants: Sequence[datetime]) -> Spine:
    """Everybody at each instant; of leads, those who were there. Churn minds engagement alone, not the date of joining."""
    created = _created(folder)
    since = created.as_of if spec.name == "lead_score" else np.full(len(created), -np.inf)
    parts = []
    for at in (float(microseconds(moment)) for moment in instants):
        there = pa.array(np.flatnonzero(since <= at))
        parts.append(Spine(created.subscriber_id.take(there), np.full(len(there), at)))
    return _joined(parts)


def _at_creation(folder: Folder, after: datetime, until: datetime) -> Spine:
    """Those created in ``[after, until)``."""
    created = _created(folder)
    inside = np.flatnonzero((created.as_of >= microseconds(after)) & (created.as_of < microseconds(until)))
    return created.take(inside)


def _joined(parts: list[Spine]) -> Spine:
    return Spine(
        pa.concat_arrays([part.subscriber_id for part in parts]), np.concatenate([part.as_of for part in parts])
    )


def _sampled(spine: Spine) -> Spine:
    """Whole subscribers are kept or left, so that a person's rows stay together."""
    if len(spine) <= MOST_ROWS:
        return spine
    words = spine.subscriber_id.dictionary_encode()
    kept = np.flatnonzero(_hashes(words.dictionary)[words.indices.to_numpy()] < MOST_ROWS / len(spine))
    return spine.take(kept)


def _hashes(ids: pa.Array) -> npt.NDArray[np.float64]:
    """A number in [0, 1) for each id, always the same."""
    return np.array([zlib.crc32(str(one).encode()) for one in ids.to_pylist()]) / 2**32


def _send_rows(spec: ModelSpec, folder: Folder, after: datetime, known_until: datetime) -> Rows:
    """One row per send; the state is the one materialized at the midnight before it."""
    found = sends(folder, spec.response, spec.horizon, after, known_until)
    midnight = np.floor(found.sent_at / MICROSECONDS_PER_DAY) * MICROSECONDS_PER_DAY
    campaign = found.campaign_id.fill_null("").dictionary_encode().indices.to_numpy().astype(np.int64)
    return Rows(found.subscriber_id, found.sent_at, midnight, found.label, found.event_id, found.hour_of_week, campaign)


def _sends(spec: ModelSpec, folder: Folder, start: datetime, known_until: datetime) -> Rows:
    """Mature sends; of very many, a sample."""
    rows = _send_rows(spec, folder, start + min(WARM_UP, (known_until - start) / 4), known_until)
    rows = rows.take(np.flatnonzero(np.isfinite(rows.label)))
    if rows.event_id is None or len(rows) <= MOST_ROWS:
        return rows
    return rows.take(np.flatnonzero(_hashes(rows.event_id) < MOST_ROWS / len(rows)))


def _midnight(at: datetime) -> datetime:
    return at.replace(hour=0, minute=0, second=0, microsecond=0)


LEARNT_FROM: dict[str, Callable[[ModelSpec, Folder, datetime, datetime], Rows]] = {
    "churn": _silences,
    "lead_score": _leads,
    "send_time": _sends,
}
