"""The gates between a fitted model and service: each says whether it is passed, in words and in numbers.

What enters: what a candidate and, if there is one, the champion say of the same later rows, the answers, whose rows they
are, and the features. What leaves: named ``Gate``s. The promise: every gate is a pure function of what it is given, and one
that cannot be looked through says so instead of passing in silence.

Weighed: a candidate is refused where it is *surely* worse than the champion beyond a tolerance, not where it fails to be
surely better: that would freeze the first champion for ever. The tolerance is for luck that pairing cannot see: two fits
that differ in nothing but their seed lay .0006 to .0009 AUC and .0002 to .0020 nats apart on the later rows (simulated
4,000 x 270 churn and send time, X Education leads), once with an interval that all but left out 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from features.catalogue import Catalogue
from features.derive import Features, derive
from features.state import States
from models import churn, lead_score
from models.bundle import Bundle
from models.timing import Timing
from training.dataset import Dataset
from training.drift import Shift, category_shift, rate_change, shift
from training.evaluation import Comparison, Evaluation, Interval, auc, compare, evaluate, wilson
from training.fit import LEAK_AUC
from training.shapes import offsets
from training.slices import slices
from training.verdict import Gate

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Positions = npt.NDArray[np.int64]

CHAMPION, BASELINE, CALIBRATION, SLICES = "champion", "baseline", "calibration", "slices"
LEAK, POINT_IN_TIME, SHIFT, DRIFT = "leak", "point in time", "score shift", "drift"

AUC_TOLERANCE, SLICE_AUC_TOLERANCE = 0.005, 0.02
LOG_LOSS_TOLERANCE, SLICE_LOG_LOSS_TOLERANCE = 0.01, 0.03
"""Shares of the champion's own log loss. Slices are many and small: each may be a little unlucky."""
CALIBRATION_LIMIT = 0.05
MEAN_FACTOR = 1.5
"""The mean probability may be off by this factor: with rare outcomes an absolute limit would forgive anything."""
LEAST_ROWS, LEAST_RARER = 200, 20
"""Fewer rows, or fewer of the rarer class, and a slice says nothing."""
SHIFT_HUGE = 1.0
"""Population stability index; see ``training.drift``."""
RATE_FACTOR = 1.25
NAMED = 5
"""Features named in a sentence."""
MOST_DRIFT_ROWS = 20_000
SAMPLED_ROWS = 300


@dataclass(frozen=True)
class Later:
    """Rows neither model has learnt from. All arrays have one element per row."""

    label: Array
    people: Positions
    slices: Mapping[str, Mask] = field(default_factory=dict)

    def take(self, rows: Mask) -> Later:
        return Later(self.label[rows], self.people[rows], {name: mask[rows] for name, mask in self.slices.items()})

    @property
    def enough(self) -> bool:
        positives = float(self.label.sum())
        return len(self.label) >= LEAST_ROWS and min(positives, len(self.label) - positives) >= LEAST_RARER


def champion_gate(ours: Array, theirs: Array, later: Later, champion: str) -> Gate:
    """Not surely worse than the champion on the same later rows, in ranking or in log loss.

    Parameters
    ----------
    ours, theirs
        Shape (rows,), probabilities of the candidate and of the champion.
    """
    if not later.enough:
        words = f"only {len(later.label):,} later rows that version {champion} has not learnt from: too few to compare"
        return Gate(CHAMPION, False, words, {"rows": float(len(later.label))})
    gain, worse = _against(ours, theirs, later, AUC_TOLERANCE, LOG_LOSS_TOLERANCE)
    verdict = f"surely worse than version {champion} in {' and '.join(worse)}" if worse else "not surely worse"
    words = f"{verdict}: {_gain_words(gain)} on {len(later.label):,} rows"
    return Gate(CHAMPION, not worse, words, gain.metrics("champion"))


def slices_gate(ours: Array, theirs: Array, later: Later, champion: str) -> Gate:
    """No slice with enough rows on which the candidate is surely worse than the champion."""
    lost: list[str] = []
    numbers: dict[str, float] = {}
    for name, rows in later.slices.items():
        part = later.take(rows)
        gain, worse = _against(ours[rows], theirs[rows], part, SLICE_AUC_TOLERANCE, SLICE_LOG_LOSS_TOLERANCE)
        numbers |= {f"{name} log loss gain": gain.log_loss_gain.value, f"{name} AUC gain": gain.auc_gain.value}
        if worse:
            lost.append(f"{name} ({_gain_words(gain)}, {len(part.label):,} rows)")
    if lost:
        return Gate(SLICES, False, f"surely worse than version {champion} for {'; '.join(lost)}", numbers)
    return Gate(SLICES, True, f"not surely worse on any of {len(later.slices)} slices", numbers)


def _against(
    ours: Array, theirs: Array, later: Later, auc_tolerance: float, log_loss_tolerance: float
) -> tuple[Comparison, list[str]]:
    """The paired gain, and in what it is surely negative beyond its tolerance."""
    gain = compare(ours, theirs, later.label, later.people)
    nats = evaluate(theirs, later.label, resamples=0).log_loss.value
    limits = {"AUC": (gain.auc_gain, auc_tolerance), "log loss": (gain.log_loss_gain, log_loss_tolerance * nats)}
    return gain, [name for name, (interval, tolerance) in limits.items() if interval.high < -tolerance]


def baseline_gate(ours: Evaluation, gain: Comparison, name: str) -> Gate:
    """Shown to beat the simplest thing that could work: in ranking or in log loss the whole interval lies above 0."""
    shown = [word for word, one in (("AUC", gain.auc_gain), ("log loss", gain.log_loss_gain)) if one.low > 0]
    lost = [word for word, one in (("AUC", gain.auc_gain), ("log loss", gain.log_loss_gain)) if one.high < 0]
    numbers = {**gain.metrics("baseline"), "auc": ours.auc.value, "auc_low": ours.auc.low}
    called = f"{name.replace('_', ' ')} alone"
    if ours.auc.low <= 0.5:
        return Gate(BASELINE, False, "its ranking on later rows cannot be told from chance", numbers)
    if lost or not shown:
        what = f"surely worse than {called} in {' and '.join(lost)}" if lost else f"not shown to beat {called}"
        return Gate(BASELINE, False, f"{what}: {_gain_words(gain)}", numbers)
    return Gate(BASELINE, True, f"better than {called} in {' and '.join(shown)}: {_gain_words(gain)}", numbers)


def hours_gate(gain: Interval) -> Gate:
    """The same for a model of hours alone: later activity is foretold better than by everybody's histogram."""
    numbers = {"hours_gain": gain.value, "hours_gain_low": gain.low, "hours_gain_high": gain.high}
    shown = gain.low > 0
    what = "better than" if shown else "not shown to beat"
    return Gate(BASELINE, shown, f"{what} everybody's histogram: {_interval(gain)} nats per event", numbers)


def calibration_gate(ours: Evaluation, probability: Array) -> Gate:
    """What is promised happens: the calibration error is not surely above its limit, and the mean is about right."""
    error, mean = ours.expected_calibration_error, float(probability.mean())
    # People, not rows, are counted: the rows of one person resemble each other.
    low, high = wilson(ours.base_rate, ours.subscribers)
    numbers = {
        "expected_calibration_error": error.value,
        "expected_calibration_error_low": error.low,
        "mean_predicted": mean,
        "observed": ours.base_rate,
    }
    words = f"calibration error {_interval(error)}; {mean:.1%} promised on average, {ours.base_rate:.1%} observed"
    if error.low > CALIBRATION_LIMIT:
        return Gate(CALIBRATION, False, f"{words}: the error is surely above {CALIBRATION_LIMIT}", numbers)
    if mean > MEAN_FACTOR * high or mean < low / MEAN_FACTOR:
        return Gate(CALIBRATION, False, f"{words}: off by more than a factor of {MEAN_FACTOR}", numbers)
    return Gate(CALIBRATION, True, words, numbers)


def leak_gate(features: Features, label: Array, rows: Positions, allowed: Sequence[str] = ()) -> Gate:
    """No single feature, nor whether it is filled in, knows the answer of some rows.

    ``training.fit`` refuses the same on the rows it learns from; a column may be filled in afterwards for late rows only.
    """
    alone = {name: _alone(features.matrix[rows, i], label[rows]) for i, name in enumerate(features.names)}
    known = {name: strength for name, strength in alone.items() if np.isfinite(strength) and name not in allowed}
    if not known:
        return Gate(LEAK, True, "there is nothing to rank")
    strongest = max(known, key=lambda name: known[name])
    numbers = {"strongest_auc": known[strongest]}
    if known[strongest] >= LEAK_AUC:
        words = f"{strongest} alone tells the answer (AUC {known[strongest]:.3f}): most likely filled in afterwards"
        return Gate(LEAK, False, words, numbers)
    return Gate(LEAK, True, f"the strongest single feature, {strongest}, reaches AUC {known[strongest]:.3f}", numbers)


def _alone(values: Array, label: Array) -> float:
    filled = np.where(np.isfinite(values), values, np.nanmin(values, initial=0.0) - 1)
    ranks = [auc(tells, label) for tells in (filled, np.isnan(values).astype(float))]
    return max(max(rank, 1 - rank) for rank in ranks)


def point_in_time_gate(data: Dataset, sample: Positions, again: States) -> Gate:
    """What was learnt from is what was known: folding a log cut at each row's moment gives the same features, to the bit.

    Parameters
    ----------
    sample
        Positions of the rows that were folded again.
    again
        Their states, from a log that holds nothing received later.
    """
    ahead = stamped_ahead(data.states, data.rows.as_of, data.catalogue)
    if ahead:
        words = f"{', '.join(ahead)} lie after the moment they are read at: events of the future were folded in"
        return Gate(POINT_IN_TIME, False, words, {"ahead": float(len(ahead))})
    kept = data.features.matrix[sample]
    cut = derive(again, data.rows.as_of[sample], data.catalogue).matrix
    other = (np.ascontiguousarray(kept).view(np.int64) != np.ascontiguousarray(cut).view(np.int64)).any(axis=0)
    names = [name for name, differs in zip(data.features.names, other, strict=True) if differs]
    numbers = {"rows": float(len(sample)), "differing_features": float(len(names))}
    if names:
        words = f"{len(names)} features know more than the log did then: {_named(names)}"
        return Gate(POINT_IN_TIME, False, words, numbers)
    return Gate(
        POINT_IN_TIME, True, f"{len(sample)} rows folded from a log cut at each one's moment: same bits", numbers
    )


def stamped_ahead(states: States, as_of: Array, catalogue: Catalogue) -> list[str]:
    """Stored moments that lie at or after the moment a row is asked at; a creation may coincide with it."""
    names = [found.name for found in catalogue.fields if found.name.endswith("_at")]
    return [
        name
        for name in names
        if (states[name] > as_of).any() or (name != "created_at" and (states[name] == as_of).any())
    ]


def sampled(data: Dataset) -> Positions:
    """Rows to fold again, spread evenly over the rows, which are in order of time."""
    return np.unique(np.linspace(0, len(data.rows) - 1, SAMPLED_ROWS).astype(np.int64))


def shift_gate(ours: Array, theirs: Array, later: Later, bands: tuple[npt.ArrayLike, npt.ArrayLike] | None) -> Gate:
    """How different the scores of the same people become, and whether that brings them nearer to what happened.

    Parameters
    ----------
    bands
        The candidate's and the champion's word per row; None for a model without bands.
    """
    moved = shift(theirs, ours)
    gain = compare(ours, theirs, later.label, later.people).log_loss_gain
    means = float(theirs.mean()), float(ours.mean()), float(later.label.mean())
    numbers = {"psi": moved.psi, "mean_before": means[0], "mean_after": means[1], "observed": means[2]}
    words = f"mean score {means[0]:.3f} to {means[1]:.3f} (observed {means[2]:.3f}), PSI {moved.psi:.2f}"
    if bands is not None:
        changed = float((np.asarray(bands[0]) != np.asarray(bands[1])).mean())
        numbers["changed_band"] = changed
        words += f", {changed:.0%} of rows change their band"
    if moved.psi > SHIFT_HUGE and not gain.low > 0:
        return Gate(SHIFT, False, f"{words}: huge, and no better log loss explains it ({_interval(gain)})", numbers)
    return Gate(SHIFT, True, words, numbers, mind=moved.word != "steady")


def bands_of(model: str, probability: Array, quantiles: npt.ArrayLike) -> npt.NDArray[np.str_] | None:
    """Churn's band or a lead's grade per row; None for a model without either."""
    if model == churn.SPEC.name:
        return np.asarray(churn.answer(probability, quantiles)["band"])
    if model == lead_score.SPEC.name:
        return np.asarray(lead_score.answer(probability, quantiles)["grade"])
    return None


def drift_gate(features: Features, label: Array, learnt: Positions, latest: Positions) -> Gate:
    """Whether the latest rows still look like those learnt from. It warns and never refuses: the world may change.

    Parameters
    ----------
    learnt, latest
        Positions of the rows trained on and of the last ones.
    """
    change = rate_change(label[learnt], label[latest])
    sure = not change.difference.low <= 0 <= change.difference.high
    moved = sure and not 1 / RATE_FACTOR <= change.now / change.then <= RATE_FACTOR
    drifts = {name: _shift(features, i, _thinned(learnt), _thinned(latest)) for i, name in enumerate(features.names)}
    strongest = sorted((n for n in drifts if drifts[n].word == "shifted"), key=lambda name: -drifts[name].psi)
    words = f"positives {change.then:.1%} among the rows learnt from, {change.now:.1%} among the latest"
    if moved:
        words += f", {change.now / change.then:.2f} times as many: what was learnt may no longer hold"
    if strongest:
        listed = [f"{name} (PSI {drifts[name].psi:.2f})" for name in strongest]
        words += f"; {len(strongest)} of {len(drifts)} features have shifted: {_named(listed)}"
    numbers = {"rate_learnt": change.then, "rate_latest": change.now, "shifted_features": float(len(strongest))}
    numbers |= {f"psi {name}": drifts[name].psi for name in strongest[:NAMED]}
    return Gate(DRIFT, True, words, numbers, mind=moved or bool(strongest))


def _shift(features: Features, column: int, learnt: Positions, latest: Positions) -> Shift:
    held = category_shift if features.names[column] in features.categorical else shift
    return held(features.matrix[learnt, column], features.matrix[latest, column])


def _thinned(values: Positions) -> Positions:
    return values[:: max(1, -(-len(values) // MOST_DRIFT_ROWS))]


def later_rows(data: Dataset, rows: Positions) -> Later:
    """Some rows with those slices of theirs that hold enough of both classes."""
    found = {name: mask[rows] for name, mask in slices(data).items()}
    every = Later(data.rows.label[rows], data.rows.people[rows])
    usable = {name: mask for name, mask in found.items() if every.take(mask).enough and not mask.all()}
    return Later(every.label, every.people, usable)


def scored_by(bundle: Bundle, data: Dataset, rows: Positions) -> Array:
    """What a bundle, perhaps an older one, says of some rows; its own catalogue names the features it reads.

    Of a lead that is not finished, the probability of what it has told so far: that is what its label says, see
    ``training.censoring``.

    Raises
    ------
    FeatureMismatch
        When it reads what is no longer derived.
    """
    read = Features(data.features.names, data.features.categorical, data.features.matrix[rows])
    part = Dataset(data.rows.take(rows), data.states[rows], read, data.catalogue)
    features = derive(part.states, part.rows.as_of, bundle.catalogue)
    known = {name: i for i, name in enumerate(features.names)}
    if not set(bundle.features) <= set(known):
        bundle.refuse_other_features(features.names)
    raw = bundle.raw(np.ascontiguousarray(features.matrix[:, [known[name] for name in bundle.features]]))
    timing = bundle.parameters.get("timing")
    if timing is not None:
        raw = raw + offsets(part, Timing.from_parameters(timing))
    if part.rows.offset is not None:
        raw = raw + part.rows.offset
    return bundle.calibration(raw)


def _gain_words(gain: Comparison) -> str:
    return f"AUC {_interval(gain.auc_gain, '+')}, log loss better by {_interval(gain.log_loss_gain, '+')}"


def _interval(interval: Interval, sign: str = "") -> str:
    return f"{interval.value:{sign}.3f} ({interval.low:{sign}.3f} to {interval.high:{sign}.3f})"


def _named(names: Sequence[str]) -> str:
    more = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {more} more" if more > 0 else "")
