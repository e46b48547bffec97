"""The labels of the three models, exactly as DESIGN defines them.

What enters: a folder (the log with its evidence), a spine of (subscriber, as_of) rows, and until when the log is known. What
leaves: which rows are eligible and their 0/1 label. The promise: a label of ``t`` reads only ``[t, t + horizon)`` and only
what was received before ``known_until``; rows whose horizon is not over by then are the caller's to leave out.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

import ibis
import ibis.expr.types as ir
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from features.clock import microseconds
from features.contract import ENGAGEMENT_TYPES, OPT_OUT_TYPES, RESPONSE_TYPES
from features.evidence import HUMAN_THRESHOLD, epoch_us
from features.fold import Folder, Spine
from models.spec import ModelSpec, Response


@dataclass(frozen=True)
class Labels:
    """Eligible rows of a spine: positions in it, and 0/1 labels as float64."""

    row: npt.NDArray[np.int64]
    label: npt.NDArray[np.float64]


@dataclass(frozen=True)
class Sends:
    """Sent events with their labels. One element per send in all arrays."""

    event_id: pa.Array
    subscriber_id: pa.Array
    campaign_id: pa.Array
    sent_at: npt.NDArray[np.float64]
    """Microseconds since 1970 UTC."""
    hour_of_week: npt.NDArray[np.int64]
    """Local, 0 = Monday 00:00."""
    label: npt.NDArray[np.float64]


def churn_labels(folder: Folder, spine: Spine, spec: ModelSpec, known_until: datetime) -> Labels:
    """Eligible: engaged in ``[t - A, t)`` and not opted out before ``t``. Churned: no engagement in ``[t, t + H)``, or an
    opt-out in it.
    """
    told = _told(folder, spine, known_until, (*ENGAGEMENT_TYPES, *OPT_OUT_TYPES))
    engaged = told.event_type.isin(ENGAGEMENT_TYPES) & (told.human >= HUMAN_THRESHOLD)
    left = told.event_type.isin(OPT_OUT_TYPES)
    facts = _facts(
        told,
        spine,
        active=engaged & told.known & (told.occurred_us >= told.as_of_us - _us(spec.activity_window)),
        gone=left & told.known,
        stays=engaged & _within(told, spec.horizon),
        leaves=left & _within(told, spec.horizon),
    )
    return _labels(facts["active"] & ~facts["gone"], ~facts["stays"] | facts["leaves"])


def lead_labels(folder: Folder, spine: Spine, spec: ModelSpec, known_until: datetime) -> Labels:
    """Eligible: created at or before ``t``, no conversion before ``t``. Positive: a conversion in ``[t, t + H)``."""
    told = _told(folder, spine, known_until, ("conversion",))
    facts = _facts(told, spine, won=told.known, converts=_within(told, spec.horizon))
    return _labels(_created(folder, spine) & ~facts["won"], facts["converts"])


def conversion_delays(folder: Folder, spine: Spine, known_until: datetime) -> npt.NDArray[np.float64]:
    """Microseconds from each spine row's instant to the first conversion from then on; NaN: none is known yet."""
    told = _told(folder, spine, known_until, ("conversion",))
    later = told.filter(told.occurred_us >= told.as_of_us)
    first = later.group_by("row").aggregate(delay_us=(later.occurred_us - later.as_of_us).min())
    table = folder.con.to_pyarrow(first)
    delays = np.full(len(spine), np.nan)
    delays[table["row"].to_numpy()] = table["delay_us"].to_numpy()
    return delays


def sends(folder: Folder, response: Response, horizon: timedelta, after: datetime, known_until: datetime) -> Sends:
    """Every send after an instant. Positive: a person opened or clicked that send within the horizon.

    Parameters
    ----------
    response
        ``any`` counts opens and clicks, ``open`` and ``click`` only those.
    after, known_until
        Sends in ``[after, known_until)`` that were received before ``known_until``. Where the horizon is not over by then
        the label is NaN.
    """
    labelled = _labelled_sends(folder, response, horizon, after, known_until).order_by(["sent_us", "event_id"])
    table = folder.con.to_pyarrow(labelled)
    sent_at, label = table["sent_us"].to_numpy().astype(np.float64), table["label"].fill_null(0.0).to_numpy()
    return Sends(
        event_id=table["event_id"].combine_chunks(),
        subscriber_id=table["subscriber_id"].combine_chunks(),
        campaign_id=table["campaign_id"].combine_chunks(),
        sent_at=sent_at,
        hour_of_week=table["hour_of_week"].to_numpy(),
        label=if_mature(label, sent_at, horizon, known_until),
    )


def sends_by_hour(
    folder: Folder, response: Response, horizon: timedelta, after: datetime, known_until: datetime
) -> pa.Table:
    """Counts of sends whose response window is over. Parameters as for ``sends``.

    Returns
    -------
    Columns ``hour_of_week`` (local, 0 = Monday 00:00), ``campaign``, ``sends``, ``answers``, in order of the first two. Of
    sends without a campaign those of one day (UTC) make one.
    """
    labelled = _labelled_sends(folder, response, horizon, after, known_until)
    mature = labelled.filter(labelled.sent_us + _us(horizon) <= microseconds(known_until))
    day = (mature.sent_us // _us(timedelta(days=1))).cast("string")
    named = mature.mutate(campaign=mature.campaign_id.fill_null(ibis.literal("no campaign, day ") + day))
    counted = named.group_by("hour_of_week", "campaign").aggregate(
        sends=named.count(), answers=named.label.fill_null(0.0).sum().cast("int64")
    )
    return folder.con.to_pyarrow(counted.order_by(["hour_of_week", "campaign"]))


def _labelled_sends(
    folder: Folder, response: Response, horizon: timedelta, after: datetime, known_until: datetime
) -> ir.Table:
    """``label`` is 1 where the send was answered, else null."""
    events = folder.known(microseconds(known_until))
    sent = events.filter(events.event_type == "sent", events.occurred_us >= microseconds(after))
    sent = sent.select("event_id", "subscriber_id", "campaign_id", "hour_of_week", sent_us="occurred_us")
    wanted = RESPONSE_TYPES if response == "any" else (response,)
    answers = events.filter(events.event_type.isin(wanted), events.human >= HUMAN_THRESHOLD).select(
        "subscriber_id", answered_campaign="campaign_id", answered_us="occurred_us"
    )
    answered = sent.join(
        answers,
        [
            sent.subscriber_id == answers.subscriber_id,
            sent.campaign_id.fill_null("") == answers.answered_campaign.fill_null(""),
            answers.answered_us >= sent.sent_us,
            answers.answered_us < sent.sent_us + _us(horizon),
        ],
    )
    positive = answered.select("event_id").distinct().mutate(label=1.0)
    return sent.left_join(positive, "event_id").drop("event_id_right")


def if_mature(
    label: npt.NDArray[np.float64], as_of: npt.NDArray[np.float64], horizon: timedelta, known_until: datetime
) -> npt.NDArray[np.float64]:
    """Labels, NaN where the horizon after ``as_of`` (microseconds since 1970 UTC) is not over by ``known_until``."""
    return np.where(as_of + _us(horizon) <= microseconds(known_until), label, np.nan)


def _told(folder: Folder, spine: Spine, known_until: datetime, kinds: tuple[str, ...]) -> ir.Table:
    """Events of these kinds by spine row; ``known`` says whether they count as of the row's instant."""
    events = folder.known(microseconds(known_until))
    events = events.filter(events.event_type.isin(kinds))
    joined = events.join(ibis.memtable(spine.to_table()), "subscriber_id")
    known = (joined.received_us < joined.as_of_us) & (joined.occurred_us < joined.as_of_us)
    return joined.mutate(known=known)


def _within(told: ir.Table, horizon: timedelta) -> ir.BooleanValue:
    return (told.occurred_us >= told.as_of_us) & (told.occurred_us < told.as_of_us + _us(horizon))


def _facts(told: ir.Table, spine: Spine, **tests: ir.BooleanValue) -> dict[str, npt.NDArray[np.bool_]]:
    """For each spine row and test: whether any of the row's events passes it."""
    asked = told.mutate(**tests).group_by("row").aggregate(**{name: _any(name) for name in tests})
    table = asked.to_pyarrow()
    facts = {name: np.zeros(len(spine), dtype=np.bool_) for name in tests}
    rows = table["row"].to_numpy()
    for name, values in facts.items():
        values[rows] = table[name].fill_null(False).to_numpy()
    return facts


def _any(name: str) -> ibis.Deferred:
    return ibis._[name].any()


def _created(folder: Folder, spine: Spine) -> npt.NDArray[np.bool_]:
    subscribers = folder.con.table("subscribers").select("subscriber_id", created_us=lambda t: epoch_us(t.created_at))
    joined = ibis.memtable(spine.to_table()).join(subscribers, "subscriber_id")
    rows = folder.con.to_pyarrow(joined.filter(joined.created_us <= joined.as_of_us).select("row"))
    created = np.zeros(len(spine), dtype=np.bool_)
    created[rows["row"].to_numpy()] = True
    return created


def _labels(eligible: npt.NDArray[np.bool_], positive: npt.NDArray[np.bool_]) -> Labels:
    rows = np.flatnonzero(eligible)
    return Labels(rows, positive[rows].astype(np.float64))


def _us(span: timedelta) -> int:
    return span // timedelta(microseconds=1)
