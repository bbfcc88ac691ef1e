"""The formulas against published numbers, against each other, against chance, and the tables of docs/theory.md."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from retinue.errors import SettingsError
from retinue.lab.theory import (
    Convergence,
    InOrderAcknowledgement,
    InOrderLinks,
    Law,
    OrderStatistic,
    goodness_of_fit,
    mean_interval,
    missed_by_readers,
    proportion_interval,
    stale_probability,
)
from retinue.network import Conditions

Array = NDArray[np.float64]

N = 5
QUORUMS = range(1, N + 1)
UNIFORM = Law("uniform", 0, 1000)
SPREAD = [UNIFORM, Law("uniform", 50, 800), Law("exponential", 10, 310), Law("lognormal", 20, 420)]
CERTAIN = [Law("fixed", 0, 80), Law("uniform", 80, 80), Law("exponential", 80, 80), Law("lognormal", 80, 80)]
LEVELS = np.linspace(0.001, 0.999, 500)

# A sound test fails one time in 16,000 at this many standard errors, and the seeds are fixed.
STANDARD_ERRORS = 4


def shown(law: Law) -> str:
    return law.describe()


def delays(law: Law, shape: tuple[int, ...], seed: int) -> Array:
    """Draws of the law, by the function that the simulated network draws with."""
    quantile = Conditions(law.distribution, law.min_ms, law.max_ms).quantile
    rng = np.random.default_rng(seed)
    return np.array([quantile(p) for p in rng.random(math.prod(shape))]).reshape(shape)


def assert_mean(samples: Array, expected: float) -> None:
    assert abs(samples.mean() - expected) < STANDARD_ERRORS * samples.std(ddof=1) / math.sqrt(samples.size)


def assert_share(samples: NDArray[np.bool_], expected: float) -> None:
    error = math.sqrt(max(expected * (1 - expected), 1 / samples.size) / samples.size)
    assert abs(samples.mean() - expected) < STANDARD_ERRORS * error


# --- laws ---


@pytest.mark.parametrize("law", SPREAD, ids=shown)
def test_a_law_is_the_one_that_the_simulated_network_draws_from(law: Law) -> None:
    conditions = Conditions(law.distribution, law.min_ms, law.max_ms)
    assert law.mean == conditions.mean
    assert law.quantile(LEVELS) == pytest.approx([conditions.quantile(float(p)) for p in LEVELS], rel=1e-9)
    assert law.cdf(law.quantile(LEVELS)) == pytest.approx(LEVELS, abs=1e-12)
    assert law.survival(law.quantile(LEVELS)) == pytest.approx(1 - LEVELS, abs=1e-12)
    assert law.cdf(law.min_ms - 1.0) == 0
    drawn = delays(law, (20_000,), seed=1)
    assert_mean(drawn, law.mean)
    assert_mean((drawn - law.mean) ** 2, law.variance)


@pytest.mark.parametrize("law", SPREAD, ids=shown)
def test_a_density_is_the_slope_of_its_distribution_function(law: Law) -> None:
    inside = law.quantile(np.linspace(0.02, 0.98, 50))
    for k in QUORUMS:
        order_statistic = OrderStatistic(law, k, N)
        slope = (order_statistic.cdf(inside + 1e-3) - order_statistic.cdf(inside - 1e-3)) / 2e-3
        assert order_statistic.pdf(inside) == pytest.approx(slope, rel=1e-4, abs=1e-9)
        assert order_statistic.pdf(law.min_ms - 1.0) == 0


@pytest.mark.parametrize("law", CERTAIN, ids=lambda law: law.distribution)
def test_without_spread_everything_arrives_at_once(law: Law) -> None:
    assert (law.mean, law.variance, law.certain_ms, law.describe()) == (80, 0, 80, "always 80 ms")
    assert (law.cdf(79.9), law.cdf(80.0), law.survival(79.9), law.survival(80.0)) == (0, 1, 1, 0)
    for k in QUORUMS:
        for latency in (
            OrderStatistic(law, k, N),
            InOrderAcknowledgement(law, k, N, 100),
            InOrderLinks(law, k, N, 100),
        ):
            assert (latency.mean, latency.quantile(0.01), latency.quantile(0.99)) == (80, 80, 80)
            assert (latency.cdf(79.9), latency.cdf(80.0)) == (0, 1)
        assert OrderStatistic(law, k, N).variance == 0
        assert OrderStatistic(law, k, N).pdf(np.array([79.9, 80.0])).tolist() == [0, math.inf]
        assert stale_probability(law, k, N, 0.0) == 0
        convergence = Convergence(law, k, N)
        assert (convergence.mean, convergence.quantile(0.9), convergence.cdf(0.0)) == (0, 0, 1)


@pytest.mark.parametrize("law", [*SPREAD, CERTAIN[0]], ids=shown)
def test_a_write_that_waits_for_nobody_is_answered_at_once(law: Law) -> None:
    assert OrderStatistic(law, 0, N).quantile(0.5) == 0
    assert InOrderAcknowledgement(law, 0, N, 100).mean == 0
    assert stale_probability(law, 0, N, 60.0) == law.survival(60.0)
    assert Convergence(law, 0, N).mean == OrderStatistic(law, N, N).mean
    assert Convergence(law, 0, N).cdf(300.0) == OrderStatistic(law, N, N).cdf(300.0)


def test_laws_are_described_in_a_few_words() -> None:
    assert UNIFORM.describe() == "U[0, 1000] ms"
    assert Law("exponential", 10, 310).describe() == "exponential from 10 ms, mean 310 ms"
    assert Law("lognormal", 20, 420).describe() == "lognormal from 20 ms, median 220 ms"
    assert Law("uniform", 0, 0).describe() == "no delay"


# --- closed formulas, and equations that must hold between them ---


@pytest.mark.parametrize("n", [1, 2, 5, 99])
def test_uniform_moments_are_the_closed_ones(n: int) -> None:
    for k in range(1, n + 1):
        order_statistic = OrderStatistic(Law("uniform", 50, 800), k, n)
        assert order_statistic.mean == pytest.approx(50 + 750 * k / (n + 1))
        assert order_statistic.variance == pytest.approx(750**2 * k * (n - k + 1) / ((n + 1) ** 2 * (n + 2)))


def test_exponential_means_are_sums_of_memoryless_waits() -> None:
    law = Law("exponential", 10, 310)
    for k in QUORUMS:
        waits = [300 / still for still in range(N - k + 1, N + 1)]
        assert OrderStatistic(law, k, N).mean == pytest.approx(10 + sum(waits))
        assert OrderStatistic(law, k, N).variance == pytest.approx(sum(wait**2 for wait in waits))
        times = np.linspace(0, 2000, 50)
        assert stale_probability(law, k, N, times) == pytest.approx((N - k) / N * np.exp(-times / 300), abs=1e-12)


@pytest.mark.parametrize("law", SPREAD, ids=shown)
def test_staleness_begins_with_those_that_lack_it_and_sums_up_to_the_mean_lag(law: Law) -> None:
    times = np.linspace(0, 10_000, 4001)
    for k in QUORUMS:
        stale = stale_probability(law, k, N, times)
        assert stale[0] == pytest.approx((N - k) / N)
        assert missed_by_readers(k, N, 1) == pytest.approx((N - k) / N)
        assert (np.diff(stale) <= 1e-12).all()
        here = OrderStatistic(law, k, N).mean
        late = sum(OrderStatistic(law, j, N).mean - here for j in range(k + 1, N + 1)) / N
        assert np.trapezoid(stale, times) == pytest.approx(late, rel=1e-3, abs=1e-9)


@pytest.mark.parametrize("law", SPREAD, ids=shown)
@pytest.mark.parametrize("make", [InOrderAcknowledgement, InOrderLinks])
def test_order_costs_nothing_at_rate_zero_and_more_with_every_write(
    law: Law, make: type[InOrderAcknowledgement | InOrderLinks]
) -> None:
    for k in QUORUMS:
        alone = OrderStatistic(law, k, N)
        assert make(law, k, N, 0).mean == pytest.approx(alone.mean, rel=1e-6)
        assert make(law, k, N, 0).quantile(LEVELS) == pytest.approx(alone.quantile(LEVELS), rel=1e-6)
        means = [make(law, k, N, rate).mean for rate in (0, 1, 10, 100, 1000, 100_000)]
        assert means == sorted(set(means))


def test_many_links_in_order_stay_exact_and_more_are_refused() -> None:
    for k in (1, 12, 24):
        assert InOrderLinks(UNIFORM, k, 24, 0).mean == pytest.approx(1000 * k / 25, rel=1e-5)
    with pytest.raises(SettingsError, match=r"at most 24 followers, not 25\.$"):
        InOrderLinks(UNIFORM, 3, 25, 10)


@pytest.mark.parametrize("law", SPREAD, ids=shown)
@pytest.mark.parametrize(
    "make",
    [
        lambda law: OrderStatistic(law, 3, N),
        lambda law: Convergence(law, 3, N),
        lambda law: InOrderAcknowledgement(law, 3, N, 100),
        lambda law: InOrderLinks(law, 3, N, 100),
    ],
    ids=["order statistic", "convergence", "in-order answers", "in-order links"],
)
def test_quantiles_invert_and_shapes_are_kept(
    law: Law, make: Callable[[Law], OrderStatistic | Convergence | InOrderLinks]
) -> None:
    latency = make(law)
    quantiles = latency.quantile(LEVELS)
    assert latency.cdf(quantiles) == pytest.approx(LEVELS, abs=1e-6)
    assert latency.cdf(-1.0) == 0
    assert latency.cdf(1e9) == pytest.approx(1)
    assert latency.quantile(LEVELS.reshape(20, 25)).shape == (20, 25)
    number = latency.quantile(0.5)
    assert type(number) is float
    assert type(latency.cdf(number)) is float
    assert type(stale_probability(law, 3, N, number)) is float
    # The mean is the integral of the quantiles; what lies beyond the levels is little, but not nothing.
    assert quantiles.mean() == pytest.approx(latency.mean, rel=0.01)


# --- against chance ---


@pytest.mark.parametrize("law", SPREAD, ids=shown)
def test_independent_delays_behave_as_computed(law: Law) -> None:
    drawn = delays(law, (8_000, N), seed=2)
    ordered = np.sort(drawn, axis=1)
    reader = drawn[:, 0]  # all are alike, so any follower is a random one
    for k in QUORUMS:
        latency = ordered[:, k - 1]
        order_statistic = OrderStatistic(law, k, N)
        assert_mean(latency, order_statistic.mean)
        assert_mean((latency - order_statistic.mean) ** 2, order_statistic.variance)
        assert goodness_of_fit(latency, order_statistic).p_value > 1e-3
        for t in (0.0, 50.0, 200.0, 500.0):
            assert_share(reader > latency + t, stale_probability(law, k, N, t))
        until_all = ordered[:, -1] - latency
        convergence = Convergence(law, k, N)
        assert until_all.mean() == pytest.approx(convergence.mean, rel=0.05)
        for p in (0.1, 0.5, 0.95):
            if k < N:
                assert_share(until_all <= convergence.quantile(p), p)
        for readers in QUORUMS:
            lacking = np.asarray((drawn[:, :readers] > latency[:, None]).all(axis=1))
            assert_share(lacking, missed_by_readers(k, N, readers))


def histories(law: Law, writes_per_s: float, count: int, seed: int) -> tuple[Array, Array]:
    """Many histories that end with the write in question: how long before it each began, and the delays."""
    # Twenty means of the law are long enough that nothing older is in the way.
    writes = int(writes_per_s / 1000 * 20 * law.mean + 40)
    rng = np.random.default_rng(seed)
    before_ms = np.cumsum(rng.exponential(1000 / writes_per_s, (count, writes)), axis=1)
    before_ms = np.concatenate([np.zeros((count, 1)), before_ms], axis=1)
    return before_ms, np.asarray(law.quantile(rng.random((count, writes + 1, N))))


@pytest.mark.parametrize("law", [UNIFORM, Law("exponential", 10, 110), Law("lognormal", 20, 220)], ids=shown)
@pytest.mark.parametrize("writes_per_s", [2.0, 20.0])
def test_order_costs_what_was_computed(law: Law, writes_per_s: float) -> None:
    before_ms, drawn = histories(law, writes_per_s, 2_000, seed=3)
    of_links = np.sort((drawn - before_ms[:, :, None]).max(axis=1), axis=1)
    answers = np.sort(drawn, axis=2) - before_ms[:, :, None]
    for k in QUORUMS:
        in_order = InOrderAcknowledgement(law, k, N, writes_per_s)
        links = InOrderLinks(law, k, N, writes_per_s)
        for expected, latency in ((in_order, answers[:, :, k - 1].max(axis=1)), (links, of_links[:, k - 1])):
            assert_mean(latency, expected.mean)
            for p in (0.05, 0.5, 0.95):
                assert_share(latency <= expected.quantile(p), p)


# --- what samples prove ---


def test_intervals_hold_what_they_promise() -> None:
    rng = np.random.default_rng(4)
    order_statistic = OrderStatistic(UNIFORM, 3, N)
    holds, share_holds = [], []
    for _ in range(2000):
        low, high = mean_interval(order_statistic.quantile(rng.random(20)))
        holds.append(low <= order_statistic.mean <= high)
        low, high = proportion_interval(int((rng.random(200) < 0.1).sum()), 200)
        share_holds.append(low <= 0.1 <= high)
    assert_share(np.array(holds), 0.95)
    assert 0.93 < np.mean(share_holds) < 0.97


def test_intervals_of_known_samples() -> None:
    # t of 4 degrees of freedom at 97.5 % is 2.776, and the standard error of 1..5 is sqrt(0.5).
    assert mean_interval([1, 2, 3, 4, 5]) == pytest.approx((3 - 2.776 * 0.5**0.5, 3 + 2.776 * 0.5**0.5), abs=1e-3)
    assert mean_interval([1, 2, 3, 4, 5], 0.99).low < mean_interval([1, 2, 3, 4, 5]).low
    assert proportion_interval(0, 10_000) == pytest.approx((0, 0.000384), abs=1e-6)
    assert proportion_interval(10_000, 10_000) == pytest.approx((0.999616, 1), abs=1e-6)
    assert proportion_interval(5, 10) == pytest.approx((0.2366, 0.7634), abs=1e-4)
    assert all(math.isnan(end) for end in (*mean_interval([3.0]), *mean_interval([]), *proportion_interval(0, 0)))


def test_a_verdict_is_a_sentence() -> None:
    order_statistic = OrderStatistic(UNIFORM, 3, N)
    fit = goodness_of_fit(order_statistic.quantile(np.random.default_rng(5).random(100)), order_statistic)
    share = f"{100 * fit.p_value:.2g} %"
    assert fit.sentence == (
        f"The 100 latencies agree with the law (Kolmogorov-Smirnov D = {fit.statistic:.2g}, p = {fit.p_value:.2g}): "
        f"where it holds, a deviation this large comes up in {share} of samples of that size."
    )
    other = goodness_of_fit(OrderStatistic(UNIFORM, 4, N).quantile(np.linspace(0.01, 0.99, 100)), order_statistic)
    assert other.statistic == pytest.approx(0.35, abs=0.05)
    assert other.sentence.startswith("The 100 latencies do not follow the law (Kolmogorov-Smirnov D = 0.3")
    assert other.sentence.endswith(
        "p < 0.001): where it holds, a deviation this large comes up in less than 0.1 % of samples of that size."
    )
    assert goodness_of_fit([500.0] * 4, order_statistic).sentence == "4 latencies are too few to compare with the law."
    fixed = goodness_of_fit([80.5, 81.25, 80.75, 80.5, 82.0], OrderStatistic(Law("fixed", 0, 80), 3, N))
    assert math.isnan(fixed.p_value)
    assert fixed.sentence.endswith("says 80 ms for every write, and the 5 latencies lie from 80.50 to 82.00 ms.")


def test_a_right_law_is_rejected_in_one_of_a_hundred_samples() -> None:
    order_statistic = OrderStatistic(UNIFORM, 2, N)
    rng = np.random.default_rng(6)
    fits = [goodness_of_fit(order_statistic.quantile(rng.random(100)), order_statistic) for _ in range(500)]
    rejected = sum("do not follow" in fit.sentence for fit in fits)
    assert rejected <= 5 + STANDARD_ERRORS * math.sqrt(5)
    assert_mean(np.array([fit.p_value for fit in fits]), 0.5)


@pytest.mark.parametrize(
    ("ask", "sentence"),
    [
        (lambda: Law("gaussian", 0, 10), "There is no delay distribution 'gaussian': choose one of"),
        (lambda: Law("uniform", 20, 10), "is above the largest"),
        (lambda: OrderStatistic(UNIFORM, 6, 5), "The write quorum 6 is not possible with 5 followers: choose 0 to 5."),
        (lambda: stale_probability(UNIFORM, -1, 5, 0.0), "choose 0 to 5."),
        (lambda: Convergence(UNIFORM, 1, 0), "The number of followers is 0: have at least one."),
        (lambda: InOrderAcknowledgement(UNIFORM, 1, 5, -1), "The rate of writes is -1 a second"),
        (lambda: missed_by_readers(3, 5, 6), "A read cannot ask 6 of 5 followers: choose 0 to 5."),
    ],
)
def test_what_makes_no_sense_is_refused_in_a_sentence(ask: Callable[[], object], sentence: str) -> None:
    with pytest.raises(SettingsError) as caught:
        ask()
    assert sentence in str(caught.value)
