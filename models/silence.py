"""How long silence is normal for whom: the BG/NBD model of repeat purchases (Fader, Hardie and Lee 2005).

What enters: how many purchases somebody made, when the last came and how long ago the first was. What leaves: the
probability that none follows within a horizon. The promise: row by row, so that an answer is the same alone and among a
million.

The model: while a customer is there, purchases come at a rate of their own, Gamma(``r``, ``alpha``) among customers;
after each repeat purchase the customer leaves for good with a probability of their own, Beta(``a``, ``b``).

Weighed: P(alive), the model's best-known figure, ranks churn backwards, because who bought once cannot have left after a
repeat purchase and gets 1. The expected number of purchases needs the Gaussian hypergeometric function; that none comes is
elementary. It multiplies two things: one is still there, and buys nothing all the same. On the 39 + 39 weeks of CDNOW
(2,357 customers, purchases of one day counted once) the likeliest parameters are .242, 4.404 weeks, .804 and 2.451 where the
paper has .243, 4.414, .793 and 2.426.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.special import betaln, digamma, expit, gammaln

Array = npt.NDArray[np.float64]

_FURTHEST = 8.0
"""Logs of the parameters stay within so much of 0, time being measured in mean ages: a list where nobody ever leaves has
no likeliest one."""


@dataclass(frozen=True)
class Silence:
    """A fitted model. ``alpha`` is in days."""

    r: float
    alpha: float
    a: float
    b: float

    def none_within(
        self, count: npt.ArrayLike, last_after_days: npt.ArrayLike, age_days: npt.ArrayLike, horizon_days: npt.ArrayLike
    ) -> Array:
        """The probability that no purchase comes within ``horizon_days`` from now, given the history.

        With x repeat purchases, the last t days after the first, T days ago (equations 5 and 6 of the paper, the first
        term taken at T + H instead of T):

            P(alive) = 1 / (1 + a / (b + x - 1) * ((alpha + T) / (alpha + t)) ** (r + x)), 1 where x = 0
            P(none)  = 1 - P(alive) * (1 - ((alpha + T) / (alpha + T + H)) ** (r + x))

        Parameters
        ----------
        count
            Purchases, the first included; may be fractional. Shape (rows,), as the next two.
        last_after_days
            From the first purchase to the last; where it is 0 all were made at once, and count as one.
        age_days
            From the first purchase to now.
        horizon_days
            Zero or more.

        Returns
        -------
        Shape (rows,), 0–1; NaN without a purchase.

        Examples
        --------
        >>> Silence(r=0.243, alpha=30.9, a=0.793, b=2.426).none_within([1, 4], [0, 150], [200, 200], 90).round(3).tolist()
        [0.923, 0.53]
        """
        repeats, last, age = _history(count, last_after_days, age_days)
        rate = self.r + repeats
        with np.errstate(divide="ignore"):
            gone = np.where(repeats > 0, self._log_odds_gone(repeats, last, age), -np.inf)
        quiet = rate * np.log1p(np.asarray(horizon_days, dtype=np.float64) / (self.alpha + age))
        return np.asarray(1 + expit(-gone) * np.expm1(-quiet))

    def _log_odds_gone(self, repeats: Array, last: Array, age: Array) -> Array:
        odds_at_once = self.a / (self.b + np.maximum(repeats, 1.0) - 1)
        return np.log(odds_at_once) + (self.r + repeats) * np.log((self.alpha + age) / (self.alpha + last))


def fit_silence(count: npt.ArrayLike, last_after_days: npt.ArrayLike, age_days: npt.ArrayLike) -> Silence | None:
    """The likeliest parameters; None where nobody bought twice.

    Parameters
    ----------
    count, last_after_days, age_days
        One row per customer, as in ``Silence.none_within``. Rows without a purchase are left out.
    """
    history = _history(count, last_after_days, age_days)
    repeats, last, age = (part[np.isfinite(history[0]) & (history[2] > 0)] for part in history)
    if not np.any(repeats > 0):
        return None
    unit = float(age.mean())
    found = minimize(
        _surprise,
        np.zeros(4),
        (repeats, last / unit, age / unit),
        method="L-BFGS-B",
        jac=True,
        bounds=[(-_FURTHEST, _FURTHEST)] * 4,
        options={"maxiter": 500, "ftol": 1e-12, "gtol": 1e-8},
    )
    r, alpha, a, b = np.exp(found.x).tolist()
    return Silence(r, alpha * unit, a, b)


def _history(
    count: npt.ArrayLike, last_after_days: npt.ArrayLike, age_days: npt.ArrayLike
) -> tuple[Array, Array, Array]:
    """Repeat purchases (NaN without a first one), days to the last one, days until now."""
    counted, last, age = (np.asarray(part, dtype=np.float64) for part in (count, last_after_days, age_days))
    repeats = np.where(last > 0, np.maximum(counted - 1, 1.0), 0.0)
    nothing = ~(counted > 0) | np.isnan(last) | np.isnan(age)
    return np.where(nothing, np.nan, repeats), last, np.maximum(age, last)


def _surprise(logs: Array, repeats: Array, last: Array, age: Array) -> tuple[float, Array]:
    """Mean minus log likelihood (equation 6 of the paper) and its slope, in the logs of r, alpha, a and b."""
    r, alpha, a, b = np.exp(logs)
    rate, again = r + repeats, np.maximum(repeats, 1.0)
    there = -rate * np.log(alpha + age)
    gone = np.where(repeats > 0, np.log(a) - np.log(b + again - 1) - rate * np.log(alpha + last), -np.inf)
    either = np.logaddexp(there, gone)
    left = np.exp(gone - either)
    likelihood = gammaln(rate) - gammaln(r) + r * np.log(alpha) + betaln(a, b + repeats) - betaln(a, b) + either
    slopes = (
        digamma(rate) - digamma(r) + np.log(alpha) - (1 - left) * np.log(alpha + age) - left * np.log(alpha + last),
        r / alpha - rate * ((1 - left) / (alpha + age) + left / (alpha + last)),
        digamma(a + b) - digamma(a + b + repeats) + left / a,
        digamma(b + repeats) - digamma(a + b + repeats) - digamma(b) + digamma(a + b) - left / (b + again - 1),
    )
    slope = np.array([slope.mean() for slope in slopes]) * np.exp(logs)
    return -float(likelihood.mean()), -slope
