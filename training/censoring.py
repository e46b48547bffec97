"""Leads whose horizon is not over: what they have told so far, and how much of it that is.

What enters: how long each lead has been watched, and after how long it converted if it did. What leaves: the share of a
horizon's conversions that come within a shorter time. The promise: an unfinished lead is never taken for one that will not
convert.

A lead watched for d of H days has shown conversion with probability p * F(d) / F(H), where p is its chance within H and F the
distribution of delays (Kaplan and Meier 1958, "Nonparametric estimation from incomplete observations"). For small p the
log-odds of what was seen are those of p plus log(F(d) / F(H)): an offset while learning, none while scoring.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

LEAST_SHARE = 0.1
"""A lead watched for so short that fewer of the conversions could have come tells next to nothing."""


@dataclass(frozen=True)
class Delays:
    """Distribution of the time to conversion, a step function: ``converted[i]`` from ``moments[i]`` on, 0 before."""

    moments: Array
    converted: Array

    def within(self, span: Array) -> Array:
        """Share of all leads that converted before a span is over, 0–1; shape of ``span``."""
        place = np.searchsorted(self.moments, span, side="left")
        return np.concatenate([[0.0], self.converted])[place]


def fit_delays(delay: Array, watched: Array) -> Delays:
    """Estimate the distribution from leads of which some are still unfinished.

    Parameters
    ----------
    delay
        From the question to the conversion, shape (leads,); NaN: none yet.
    watched
        For how long each lead could have been seen to convert, same unit.
    """
    converted = np.isfinite(delay)
    ends = np.where(converted, delay, watched)
    moments, counts = np.unique(delay[converted], return_counts=True)
    at_risk = len(ends) - np.searchsorted(np.sort(ends), moments, side="left")
    return Delays(moments, np.asarray(1 - np.cumprod(1 - counts / at_risk)))


def exposure(delays: Delays, watched: Array, horizon: float) -> Array:
    """Share (0–1) of a horizon's conversions that would have come in the time each lead was watched."""
    whole = float(delays.within(np.array([horizon]))[0])
    return np.asarray(delays.within(np.minimum(watched, horizon)) / whole) if whole > 0 else np.zeros(len(watched))
