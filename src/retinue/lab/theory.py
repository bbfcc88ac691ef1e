"""What probability says of quorums: latency, staleness, convergence, and the price of order.

The model: every entry takes an independent delay of one `Law` to each of n followers, nothing is lost, and nothing
else takes time. A write is acknowledged when the k-th of its n copies arrives; with k = 0, at once. docs/theory.md
derives the formulas and names the sources.

All times are in ms. `cdf`, `pdf` and `quantile` take a number and return one, or take an array and return one of its
shape. What has no closed form is integrated on a grid, once.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import special
from scipy.interpolate import CubicHermiteSpline, PchipInterpolator

from retinue.errors import SettingsError
from retinue.lab.delay_law import Array, Law, Values, shaped
from retinue.lab.inference import Fit, Interval, goodness_of_fit, mean_interval, proportion_interval

__all__ = [
    "Convergence",
    "Fit",
    "InOrderAcknowledgement",
    "InOrderLinks",
    "Interval",
    "Law",
    "OrderStatistic",
    "goodness_of_fit",
    "mean_interval",
    "missed_by_readers",
    "proportion_interval",
    "stale_probability",
]

# With more followers, rounding spoils the sixth digit of the alternating sum of `InOrderLinks`.
MOST_IN_ORDER_LINKS = 24

# How often a cell of the grid is halved in the search for a quantile: a billionth of its width is left.
BISECTIONS = 30

# Standard normal scores at which integrals over a delay are summed; beyond 9.3 lies less than 1e-19 of the probability.
_SCORES = np.linspace(-9.3, 9.3, 401)

# Gauss-Legendre points within a cell of the grid, as a fraction of its width, with their weights.
_POINTS, _WEIGHTS = (1 + np.polynomial.legendre.leggauss(4)[0]) / 2, np.polynomial.legendre.leggauss(4)[1] / 2


@dataclass(frozen=True)
class OrderStatistic:
    """The k-th of n acknowledgements: the latency of a write, as far as delays cause it.

    If U is the fraction of delays below the k-th smallest of n, then U ~ Beta(k, n - k + 1) (David and Nagaraja, Order
    Statistics, 3rd edition, 2003, section 2.1). Raises `SettingsError` unless n >= 1 and 0 <= k <= n.
    """

    law: Law
    k: int
    n: int

    def __post_init__(self) -> None:
        _check_quorum(self.k, self.n)

    @property
    def certain_ms(self) -> float | None:
        """The only latency there is, where the law has no spread or k = 0; otherwise `None`."""
        return 0.0 if self.k == 0 else self.law.certain_ms

    @cached_property
    def mean(self) -> float:
        """The mean latency; a + (b - a) k / (n + 1) for U[a, b]."""
        latencies_ms, probabilities = self.spectrum
        return float(probabilities @ latencies_ms)

    @cached_property
    def variance(self) -> float:
        """The variance, in ms squared; (b - a)^2 k (n - k + 1) / ((n + 1)^2 (n + 2)) for U[a, b]."""
        latencies_ms, probabilities = self.spectrum
        return float(probabilities @ (latencies_ms - self.mean) ** 2)

    @property
    def standard_deviation(self) -> float:
        """The standard deviation of one latency; that of the mean of m latencies is sqrt(m) times smaller."""
        return math.sqrt(self.variance)

    def cdf(self, t_ms: Values) -> Values:
        """The probability that a write is acknowledged within `t_ms`."""
        if self.certain_ms is not None:
            return _step(t_ms, self.certain_ms)
        return shaped(t_ms, special.betainc(self.k, self.n - self.k + 1, self.law.cdf(t_ms)))

    def pdf(self, t_ms: Values) -> Values:
        """The density per ms, F^(k-1) (1 - F)^(n-k) f / B(k, n-k+1); infinite at the only latency, if there is one."""
        if self.certain_ms is not None:
            return shaped(t_ms, np.where(np.asarray(t_ms) == self.certain_ms, np.inf, 0.0))
        below, above = np.asarray(self.law.cdf(t_ms)), np.asarray(self.law.survival(t_ms))
        shape = below ** (self.k - 1) * above ** (self.n - self.k) / special.beta(self.k, self.n - self.k + 1)
        return shaped(t_ms, shape * np.asarray(self.law.pdf(t_ms)))

    def quantile(self, p: Values) -> Values:
        """The latency that a fraction `p`, 0 to 1, of the writes does not exceed."""
        if self.certain_ms is not None:
            return shaped(p, np.full(np.shape(p), self.certain_ms))
        return shaped(p, np.asarray(self.law.quantile(special.betaincinv(self.k, self.n - self.k + 1, p))))

    def excess(self, t_ms: Array) -> Array:
        """The mean of max(X - t, 0), which is the integral of 1 - F_k above t; t not below the law's smallest delay."""
        return np.asarray(self._excess(np.clip(t_ms, self._excess.x[0], self._excess.x[-1])), dtype=np.float64)

    @cached_property
    def spectrum(self) -> tuple[Array, Array]:
        """Latencies on a grid, and their probabilities: the mean of a smooth function of the latency is a sum."""
        if self.certain_ms is not None:
            return np.array([self.certain_ms]), np.ones(1)
        below, above = special.ndtr(_SCORES) ** (self.k - 1), special.ndtr(-_SCORES) ** (self.n - self.k)
        weights = np.exp(-(_SCORES**2) / 2) * below * above
        return self.law.at_score(_SCORES), weights / weights.sum()

    @cached_property
    def _excess(self) -> CubicHermiteSpline:
        times_ms = _times(self.law)
        cells_ms = np.diff(times_ms)
        inside_ms = times_ms[:-1] + cells_ms * _POINTS[:, None]
        areas_ms = cells_ms * (_WEIGHTS @ self._survival(inside_ms))
        above_ms = np.append(np.cumsum(areas_ms[::-1])[::-1], 0.0)
        return CubicHermiteSpline(times_ms, above_ms, -self._survival(times_ms))

    def _survival(self, t_ms: Array) -> Array:
        """1 - cdf, accurate where that is tiny."""
        return np.asarray(special.betainc(self.n - self.k + 1, self.k, self.law.survival(t_ms)), dtype=np.float64)


def stale_probability(law: Law, k: int, n: int, t_ms: Values) -> Values:
    """The probability that a follower chosen at random lacks a write `t_ms` >= 0 after its acknowledgement.

    A follower lacks it if its own delay exceeds the k-th smallest of the n - 1 others by more than t. For U[a, b], with
    tau = t / (b - a): (n-k)/n [1 - I_tau(n-k+1, k)] - tau [1 - I_tau(n-k, k)]. Raises `SettingsError` as
    `OrderStatistic` does.
    """
    _check_quorum(k, n)
    t = np.maximum(np.asarray(t_ms, dtype=np.float64), 0.0)
    if k == n:
        return shaped(t_ms, np.zeros(t.shape))
    if k == 0:
        return shaped(t_ms, np.asarray(law.survival(t)))
    if law.distribution == "uniform" and law.certain_ms is None:
        tau = np.minimum(t / (law.max_ms - law.min_ms), 1.0)
        still = (n - k) / n * special.betaincc(n - k + 1, k, tau)
        return shaped(t_ms, np.maximum(still - tau * special.betaincc(n - k, k, tau), 0.0))
    latencies_ms, probabilities = OrderStatistic(law, k, n - 1).spectrum
    return shaped(t_ms, np.asarray(law.survival(t[..., None] + latencies_ms)) @ probabilities)


def missed_by_readers(k: int, n: int, readers: int) -> float:
    """The probability that `readers` followers chosen at random, read at the acknowledgement, all lack the write.

    C(n-k, R) / C(n, R): Bailis, Venkataraman, Franklin, Hellerstein, Stoica, Probabilistically Bounded Staleness for
    Practical Partial Quorums, VLDB 2012, equation 1. It holds for laws with spread. Raises `SettingsError` unless
    0 <= readers <= n, and as `OrderStatistic` does.
    """
    _check_quorum(k, n)
    if not 0 <= readers <= n:
        raise SettingsError(f"A read cannot ask {readers} of {n} followers: choose 0 to {n}.")
    return math.comb(n - k, readers) / math.comb(n, readers)


@dataclass(frozen=True)
class Convergence:
    """The time from the acknowledgement until all n followers have the write: X_(n) - X_(k).

    For U[a, b] it is (b - a) Beta(n - k, k + 1), for an exponential law the largest of n - k delays without their
    minimum (David and Nagaraja, 2003, chapter 2). Raises `SettingsError` as `OrderStatistic` does.
    """

    law: Law
    k: int
    n: int

    def __post_init__(self) -> None:
        _check_quorum(self.k, self.n)

    @cached_property
    def mean(self) -> float:
        """The mean; (b - a) (n - k) / (n + 1) for U[a, b]."""
        return OrderStatistic(self.law, self.n, self.n).mean - OrderStatistic(self.law, self.k, self.n).mean

    def cdf(self, t_ms: Values) -> Values:
        """The probability that all followers have the write `t_ms` after the acknowledgement."""
        if self._closed is not None:
            return self._closed.cdf(t_ms)
        return shaped(t_ms, self._tabulated(np.asarray(t_ms, dtype=np.float64)))

    def quantile(self, p: Values) -> Values:
        """The time within which a fraction `p`, 0 to below 1, of the writes is everywhere."""
        if self._closed is not None:
            return self._closed.quantile(p)
        return shaped(p, _inverse(self._tabulated, self._table.x, np.asarray(p, dtype=np.float64)))

    @cached_property
    def _closed(self) -> OrderStatistic | None:
        """The order statistic that has the same law, where there is one."""
        if self.k == 0:
            return OrderStatistic(self.law, self.n, self.n)
        if self.k == self.n or self.law.certain_ms is not None:
            return OrderStatistic(self.law, 0, self.n)
        since = Law(self.law.distribution, 0.0, self.law.max_ms - self.law.min_ms)
        if self.law.distribution == "uniform":
            return OrderStatistic(since, self.n - self.k, self.n)
        if self.law.distribution == "exponential":
            return OrderStatistic(since, self.n - self.k, self.n - self.k)
        return None

    def _tabulated(self, t_ms: Array) -> Array:
        known = np.asarray(self._table(np.clip(t_ms, 0.0, self._table.x[-1])), dtype=np.float64)
        return np.where(t_ms < 0, 0.0, known)

    @cached_property
    def _table(self) -> PchipInterpolator:
        """The probability that the n - k copies that were late at the acknowledgement have all arrived by a time."""
        latencies_ms, probabilities = OrderStatistic(self.law, self.k, self.n).spectrum
        times_ms = np.append(0.0, _times(self.law) - self.law.min_ms)
        still = self.law.survival(latencies_ms + times_ms[:, None]) / self.law.survival(latencies_ms)
        return PchipInterpolator(times_ms, (1 - still) ** (self.n - self.k) @ probabilities)


@dataclass(frozen=True)
class _InOrder(ABC):
    """What `InOrderAcknowledgement` and `InOrderLinks` share: fields, checks, mean and quantiles."""

    law: Law
    k: int
    n: int
    writes_per_s: float

    def __post_init__(self) -> None:
        _check_quorum(self.k, self.n)
        if not 0 <= self.writes_per_s < math.inf:
            raise SettingsError(
                f"The rate of writes is {self.writes_per_s:g} a second: give a number that is not negative."
            )

    @property
    def certain_ms(self) -> float | None:
        """The only latency there is, where the law has no spread or k = 0; otherwise `None`."""
        return 0.0 if self.k == 0 else self.law.certain_ms

    def cdf(self, t_ms: Values) -> Values:
        """The probability that a write is acknowledged within `t_ms`."""
        if self.certain_ms is not None:
            return _step(t_ms, self.certain_ms)
        return shaped(t_ms, self._probability(np.asarray(t_ms, dtype=np.float64)))

    @cached_property
    def mean(self) -> float:
        """The mean latency, as the integral of 1 - cdf."""
        if self.certain_ms is not None:
            return self.certain_ms
        times_ms = _times(self.law)
        cells_ms = np.diff(times_ms)
        late = 1 - self._probability(times_ms[:-1] + cells_ms * _POINTS[:, None])
        return float(times_ms[0] + cells_ms @ (_WEIGHTS @ late))

    def quantile(self, p: Values) -> Values:
        """The latency that a fraction `p`, 0 to below 1, of the writes does not exceed."""
        if self.certain_ms is not None:
            return shaped(p, np.full(np.shape(p), self.certain_ms))
        return shaped(p, _inverse(self._probability, _times(self.law), np.asarray(p, dtype=np.float64)))

    @abstractmethod
    def _probability(self, t_ms: Array) -> Array:
        """`cdf` for a law with spread and k >= 1."""


class InOrderAcknowledgement(_InOrder):
    """The latency of a write that is answered no sooner than those before it, with Poisson writes at `writes_per_s`.

    P(L <= t) = F_k(t) exp(-lambda * integral from t of 1 - F_k): an earlier write, s before, is still in the way with
    probability 1 - F_k(t + s), and the number of such writes is Poisson. Raises `SettingsError` for a negative rate,
    and as `OrderStatistic` does.
    """

    @cached_property
    def _alone(self) -> OrderStatistic:
        return OrderStatistic(self.law, self.k, self.n)

    def _probability(self, t_ms: Array) -> Array:
        return self._alone.cdf(t_ms) * np.exp(-self.writes_per_s / 1000 * self._alone.excess(t_ms))


class InOrderLinks(_InOrder):
    """The latency of a write on links that deliver in order, as one TCP connection does, with Poisson `writes_per_s`.

    j given links have all delivered by t with A_j = F^j exp(-lambda * integral from t of 1 - F^j); links wait for the
    same writes, so A_j is above A_1^j. At least k of n have with the sum over j = k..n of
    (-1)^(j-k) C(j-1, k-1) C(n, j) A_j (Feller, An Introduction to Probability Theory and Its Applications, volume 1,
    1968, section IV.5). Raises `SettingsError` for more than 24 followers, where rounding spoils that sum, for a
    negative rate, and as `OrderStatistic` does.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.n > MOST_IN_ORDER_LINKS:
            raise SettingsError(
                f"The theory of in-order links is computed for at most {MOST_IN_ORDER_LINKS} followers, not {self.n}."
            )

    @cached_property
    def _together(self) -> list[tuple[int, InOrderAcknowledgement]]:
        """For j = k..n: the factor of A_j, and what has A_j for its cdf."""
        return [
            (
                (-1) ** (j - self.k) * math.comb(j - 1, self.k - 1) * math.comb(self.n, j),
                InOrderAcknowledgement(self.law, j, j, self.writes_per_s),
            )
            for j in range(self.k, self.n + 1)
        ]

    def _probability(self, t_ms: Array) -> Array:
        total = np.zeros(t_ms.shape)
        for factor, all_of_them in self._together:
            total += factor * np.asarray(all_of_them.cdf(t_ms))
        return np.clip(total, 0.0, 1.0)


def _check_quorum(k: int, n: int) -> None:
    if n < 1:
        raise SettingsError(f"The number of followers is {n}: have at least one.")
    if not 0 <= k <= n:
        raise SettingsError(f"The write quorum {k} is not possible with {n} followers: choose 0 to {n}.")


def _step(t_ms: Values, certain_ms: float) -> Values:
    """The cdf of what is certain."""
    return shaped(t_ms, np.where(np.asarray(t_ms) >= certain_ms, 1.0, 0.0))


def _times(law: Law) -> Array:
    """Times at which delays of this law are tabulated: dense where they are likely, and up to its end or near it."""
    return np.unique(law.at_score(_SCORES))


def _inverse(cdf: Callable[[Array], Array], times_ms: Array, p: Array) -> Array:
    """Where `cdf` reaches `p`: found in the table of its values at `times_ms`, then by bisection within the cell."""
    levels = np.maximum.accumulate(cdf(times_ms))
    cell = np.clip(np.searchsorted(levels, p), 1, times_ms.size - 1)
    low_ms, high_ms = times_ms[cell - 1], times_ms[cell]
    for _ in range(BISECTIONS):
        middle_ms = (low_ms + high_ms) / 2
        below = cdf(middle_ms) < p
        low_ms, high_ms = np.where(below, middle_ms, low_ms), np.where(below, high_ms, middle_ms)
    return np.asarray(high_ms, dtype=np.float64)
