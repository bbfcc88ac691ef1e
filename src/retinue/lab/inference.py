"""What samples prove: intervals for a mean and for a probability, and whether latencies follow a law."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy import special

from retinue.lab.delay_law import Array

if TYPE_CHECKING:
    from retinue.lab.theory import OrderStatistic

# A law is rejected when so few samples would deviate more. A report tests five quorums: at the usual 5 %, every fourth
# report on a perfect system would reject something; at 1 %, every twentieth.
REJECTION_LEVEL = 0.01

# Fewer latencies than this agree with almost any law.
FEWEST_LATENCIES = 5


class Interval(NamedTuple):
    """A confidence interval, both ends included."""

    low: float
    high: float


def mean_interval(samples: Sequence[float] | Array, confidence: float = 0.95) -> Interval:
    """Where the mean lies with this confidence, by Student's t (Student, The probable error of a mean, 1908).

    Both ends are NaN for fewer than two samples, which say nothing of their spread.
    """
    if len(samples) < 2:
        return Interval(math.nan, math.nan)
    values = np.asarray(samples, dtype=np.float64)
    half = special.stdtrit(values.size - 1, (1 + confidence) / 2) * values.std(ddof=1) / math.sqrt(values.size)
    return Interval(float(values.mean() - half), float(values.mean() + half))


def proportion_interval(successes: int, trials: int, confidence: float = 0.95) -> Interval:
    """Where a probability lies with this confidence, by Wilson's score (Wilson, Probable inference, JASA 1927).

    It stays within 0 and 1 and has width even for 0 successes of many trials. Both ends are NaN without trials.
    """
    if trials == 0:
        return Interval(math.nan, math.nan)
    score = float(special.ndtri((1 + confidence) / 2))
    share, pull = successes / trials, score**2 / trials
    middle = (share + pull / 2) / (1 + pull)
    half = math.sqrt(pull * share * (1 - share) + pull**2 / 4) / (1 + pull)
    return Interval(max(middle - half, 0.0), min(middle + half, 1.0))


class Fit(NamedTuple):
    """How well samples agree with a law: D, the probability of a larger D if the law is right, and both in words.

    D and the probability are NaN where nothing can be tested; the sentence says why.
    """

    statistic: float
    p_value: float
    sentence: str


def goodness_of_fit(samples_ms: Sequence[float] | Array, order_statistic: OrderStatistic) -> Fit:
    """Test whether latencies follow a law, by Kolmogorov-Smirnov (Massey, JASA 1951), at the level 1 %.

    Latencies have to be independent, and free of overhead: subtract it before.
    """
    from scipy import stats  # imported here, for it takes most of a second

    count = len(samples_ms)
    if count < FEWEST_LATENCIES:
        return Fit(math.nan, math.nan, f"{count} latencies are too few to compare with the law.")
    if order_statistic.certain_ms is not None:
        return Fit(
            math.nan,
            math.nan,
            f"The law has no spread to test: it says {order_statistic.certain_ms:g} ms for every write, and the "
            f"{count} latencies lie from {min(samples_ms):.2f} to {max(samples_ms):.2f} ms.",
        )
    test = stats.kstest(np.asarray(samples_ms, dtype=np.float64), order_statistic.cdf)
    distance, p = float(test.statistic), float(test.pvalue)
    verdict = "agree with" if p >= REJECTION_LEVEL else "do not follow"
    shown = f"p = {p:.2g}" if p >= 0.001 else "p < 0.001"
    share = f"{100 * p:.2g} %" if p >= 0.001 else "less than 0.1 %"
    return Fit(
        distance,
        p,
        f"The {count:,} latencies {verdict} the law (Kolmogorov-Smirnov D = {distance:.2g}, {shown}): where it holds, "
        f"a deviation this large comes up in {share} of samples of that size.",
    )
