"""The laws of simulated delays as functions of arrays; `retinue.network.Conditions` defines and draws them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from retinue.errors import SettingsError
from retinue.network import LOGNORMAL_SIGMA, Conditions

Array = NDArray[np.float64]
Values = TypeVar("Values", float, Array)


def shaped(given: Values, values: ArrayLike) -> Values:
    """Return `values` in the shape that was `given`: a float for a number, an array for an array."""
    return cast(Values, float(cast(float, values)) if np.ndim(given) == 0 else np.asarray(values, dtype=np.float64))


@dataclass(frozen=True)
class Law:
    """The law of one delay: `distribution` with `min_ms` (a) and `max_ms` (b), as `retinue.network.Conditions` says.

    Raises `SettingsError` for an unknown distribution, and for limits that are out of range.
    """

    distribution: str
    min_ms: float
    max_ms: float

    def __post_init__(self) -> None:
        try:
            Conditions(self.distribution, self.min_ms, self.max_ms)
        except ValueError as error:
            raise SettingsError(str(error)) from None

    def describe(self) -> str:
        """The law in a few words, such as "U[0, 1000] ms"."""
        if self.certain_ms is not None:
            return f"always {self.certain_ms:g} ms" if self.certain_ms > 0 else "no delay"
        if self.distribution == "uniform":
            return f"U[{self.min_ms:g}, {self.max_ms:g}] ms"
        middle = f"median {self.quantile(0.5):g}" if self.distribution == "lognormal" else f"mean {self.mean:g}"
        return f"{self.distribution} from {self.min_ms:g} ms, {middle} ms"

    @property
    def certain_ms(self) -> float | None:
        """The only delay there is, where the law is fixed or its limits are equal; `None` for a law with spread."""
        return float(self.max_ms) if self.distribution == "fixed" or self.min_ms == self.max_ms else None

    @property
    def mean(self) -> float:
        """The mean delay."""
        return float(Conditions(self.distribution, self.min_ms, self.max_ms).mean)

    @property
    def variance(self) -> float:
        """The variance of the delay, in ms squared."""
        if self.certain_ms is not None:
            return 0.0
        if self.distribution == "uniform":
            return self._width_ms**2 / 12
        if self.distribution == "exponential":
            return float(self._width_ms**2)
        return float(np.expm1(LOGNORMAL_SIGMA**2)) * (self.mean - self.min_ms) ** 2

    def cdf(self, t_ms: Values) -> Values:
        """The probability that a delay is at most `t_ms`."""
        since = self._since_min(t_ms)
        if self.certain_ms is not None:
            return shaped(t_ms, np.where(np.asarray(t_ms) >= self.certain_ms, 1.0, 0.0))
        if self.distribution == "uniform":
            return shaped(t_ms, np.minimum(since, 1.0))
        if self.distribution == "exponential":
            return shaped(t_ms, -np.expm1(-since))
        return shaped(t_ms, special.ndtr(_score_of_lognormal(since)))

    def survival(self, t_ms: Values) -> Values:
        """The probability that a delay is above `t_ms`: 1 - cdf, and accurate where that is tiny."""
        since = self._since_min(t_ms)
        if self.certain_ms is not None:
            return shaped(t_ms, np.where(np.asarray(t_ms) >= self.certain_ms, 0.0, 1.0))
        if self.distribution == "uniform":
            return shaped(t_ms, np.clip((self.max_ms - np.asarray(t_ms)) / self._width_ms, 0.0, 1.0))
        if self.distribution == "exponential":
            return shaped(t_ms, np.exp(-since))
        return shaped(t_ms, special.ndtr(-_score_of_lognormal(since)))

    def pdf(self, t_ms: Values) -> Values:
        """The density per ms; without spread there is none: infinite at the only delay, 0 elsewhere."""
        t = np.asarray(t_ms, dtype=np.float64)
        if self.certain_ms is not None:
            return shaped(t_ms, np.where(t == self.certain_ms, np.inf, 0.0))
        since = self._since_min(t_ms)
        if self.distribution == "uniform":
            density = np.where(t <= self.max_ms, 1.0, 0.0)
        elif self.distribution == "exponential":
            density = np.exp(-since)
        else:
            score = _score_of_lognormal(since)
            tiny = np.finfo(np.float64).tiny
            bell = np.exp(-np.minimum(score**2, 1400.0) / 2) / np.sqrt(2 * np.pi)
            density = bell / (LOGNORMAL_SIGMA * np.maximum(since, tiny))
        return shaped(t_ms, np.where(t >= self.min_ms, density / self._width_ms, 0.0))

    def quantile(self, p: Values) -> Values:
        """The delay that a fraction `p`, 0 to 1, of the draws does not exceed; at 1 infinite for a law without end."""
        return shaped(p, self.at_score(np.asarray(special.ndtri(p), dtype=np.float64)))

    def at_score(self, score: Array) -> Array:
        """The delay that is as rare as a standard normal number `score`: quantile(Phi(score)), accurate at both ends.

        On this scale all laws are smooth and light-tailed, which makes sums over an even grid of scores very precise.
        """
        if self.certain_ms is not None:
            return np.full_like(score, self.certain_ms)
        if self.distribution == "uniform":
            relative = special.ndtr(score)
        elif self.distribution == "exponential":
            relative = -special.log_ndtr(-score)
        else:
            relative = np.exp(LOGNORMAL_SIGMA * score) / 2
        return np.asarray(self.min_ms + self._width_ms * relative, dtype=np.float64)

    @property
    def _width_ms(self) -> float:
        return self.max_ms - self.min_ms

    def _since_min(self, t_ms: float | Array) -> Array:
        """How far above `min_ms` a time is, in units of the width; 0 below."""
        width_ms = self._width_ms if self._width_ms > 0 else 1.0
        return np.maximum((np.asarray(t_ms, dtype=np.float64) - self.min_ms) / width_ms, 0.0)


def _score_of_lognormal(since: Array) -> Array:
    """The standard normal score of a lognormal delay, relative to the width; its median is half the width."""
    return np.asarray(np.log(np.maximum(since * 2, np.finfo(np.float64).tiny)) / LOGNORMAL_SIGMA, dtype=np.float64)
