"""The simulated network: laws of delay, loss, cuts, and changing them while running."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest

from retinue.errors import SettingsConflict
from retinue.network import DISTRIBUTIONS, Conditions, Network

PEERS = ("follower1", "follower2")


def draws(network: Network, peer: str, count: int) -> list[float]:
    return [network.draw_delay_ms(peer) for _ in range(count)]


@pytest.mark.parametrize(
    ("conditions", "mean", "median"),
    [
        (Conditions("uniform", 50, 800), 425.0, 425.0),
        (Conditions("fixed", 0, 80), 80.0, 80.0),
        (Conditions("exponential", 10, 60), 60.0, 10 + 50 * math.log(2)),
        (Conditions("lognormal", 10, 110), 10 + 50 * math.exp(0.125), 60.0),
    ],
)
def test_mean_and_quantiles_follow_the_documented_law(conditions: Conditions, mean: float, median: float) -> None:
    steps = 100_000
    assert conditions.mean == pytest.approx(mean)
    assert conditions.quantile(0.5) == pytest.approx(median)
    average = sum(conditions.quantile((i + 0.5) / steps) for i in range(steps)) / steps
    assert average == pytest.approx(mean, rel=1e-3)
    values = [conditions.quantile(i / 100) for i in range(100)]
    assert all(low <= high for low, high in pairwise(values))
    assert conditions.distribution == "fixed" or values[0] == conditions.min_ms


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_draws_follow_the_law(distribution: str) -> None:
    conditions = Conditions(distribution, 20, 1000)
    drawn = sorted(draws(Network(conditions, seed=7), "follower1", 2000))
    if distribution == "fixed":
        assert set(drawn) == {1000.0}
        return
    # Kolmogorov-Smirnov: the count of draws below each percentile is off by less than 1.63 / sqrt(n) at level 0.01.
    for percent in range(1, 100):
        below = sum(1 for value in drawn if value <= conditions.quantile(percent / 100))
        assert abs(below / 2000 - percent / 100) < 1.63 / math.sqrt(2000)


def test_the_draws_of_a_link_depend_on_seed_and_peer_only() -> None:
    conditions = Conditions("uniform", 0, 1000)
    alone = draws(Network(conditions, seed=3), "follower1", 20)
    mixed = Network(conditions, seed=3)
    with_traffic = []
    for _ in range(20):
        draws(mixed, "follower2", 3)
        with_traffic += draws(mixed, "follower1", 1)
    assert with_traffic == alone
    assert draws(Network(conditions, seed=4), "follower1", 20) != alone
    assert draws(Network(conditions, seed=3), "follower2", 20) != alone
    lossy = Network(Conditions("uniform", 0, 1000, loss=0.5), seed=3)
    losses = [lossy.lost("follower1") for _ in range(1000)]
    assert draws(lossy, "follower1", 20) == alone
    assert 400 < sum(losses) < 600


def test_without_a_seed_two_runs_differ() -> None:
    conditions = Conditions("uniform", 0, 1000)
    assert draws(Network(conditions), "follower1", 5) != draws(Network(conditions), "follower1", 5)


def test_a_plain_network_is_quiet_and_draws_nothing() -> None:
    network = Network(seed=1)
    assert network.quiet
    assert network.draw_delay_ms("follower1") == 0.0
    assert not network.lost("follower1")
    assert not network.active("follower1")
    assert network.retransmit_ms == 1000


def test_settings_of_all_links_and_of_one() -> None:
    network = Network(seed=1)
    network.configure({"max_delay_ms": 100, "links": {"follower1": {"max_ms": 40, "distribution": "fixed"}}}, PEERS)
    assert not network.quiet
    assert network.conditions("follower2") == Conditions("uniform", 0, 100)
    assert network.draw_delay_ms("follower1") == 40
    network.configure({"min_delay_ms": 10, "loss": 0.25}, PEERS)
    assert network.conditions("follower1") == Conditions("fixed", 10, 40, 0.25)
    network.configure({"links": {"follower1": None}}, PEERS)
    assert network.conditions("follower1") == Conditions("uniform", 10, 100, 0.25)
    copied = Network()
    copied.configure(network.settings(), PEERS)
    assert copied.settings() == network.settings()


def test_cut_and_heal() -> None:
    network = Network()
    network.configure({"cut": ["follower1"]}, PEERS)
    assert (network.cut("follower1"), network.cut("follower2")) == (True, False)
    network.configure({"links": {"follower2": {"cut": True}}}, PEERS)
    assert network.settings()["cut"] == ["follower1", "follower2"]
    network.configure({"cut": ["follower2"]}, PEERS)
    assert (network.cut("follower1"), network.cut("follower2")) == (False, True)
    network.configure({"links": {"follower2": {"cut": False}}}, PEERS)
    assert network.quiet


def test_a_new_seed_starts_the_draws_anew() -> None:
    network = Network(Conditions("uniform", 0, 10), seed=5)
    first = draws(network, "follower1", 3)
    network.configure({"seed": 5}, PEERS)
    assert draws(network, "follower1", 3) == first
    network.configure({"seed": None}, PEERS)
    assert draws(network, "follower1", 3) != first


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_sending_again_waits_longer_than_the_largest_delay(distribution: str) -> None:
    network = Network(Conditions(distribution, 100, 2000), seed=11)
    assert network.retransmit_ms > max(draws(network, "follower1", 10_000))
    network.configure({"links": {"follower2": {"max_ms": 9000}}}, PEERS)
    assert network.retransmit_ms > 9000


@pytest.mark.parametrize(
    ("patch", "sentence"),
    [
        ({"max_delay_ms": -1}, "largest delay is -1 ms: give a number from 0 to 3600000"),
        ({"max_delay_ms": math.nan}, "largest delay is nan ms"),
        ({"max_delay_ms": 1e999}, "largest delay is inf ms"),
        ({"max_delay_ms": 10**400}, "max_delay_ms is too large"),
        ({"min_delay_ms": True}, "min_delay_ms must be a number"),
        ({"max_delay_ms": "10"}, "max_delay_ms must be a number"),
        ({"loss": 1.5}, "loss is 1.5: give a probability from 0 to 1"),
        ({"delay_distribution": "normal"}, "no delay distribution 'normal': choose one of uniform"),
        ({"delay_distribution": 5}, "delay_distribution must be one of uniform"),
        ({"seed": 1.5}, "seed must be an integer"),
        ({"cut": "follower1"}, "cut must be a list of member names"),
        ({"cut": ["follower9"]}, "no link with a member 'follower9': this node has links with follower1, follower2"),
        ({"links": []}, "links must be an object"),
        ({"links": {"follower9": {}}}, "no link with a member 'follower9'"),
        ({"links": {"follower1": 5}}, "links.follower1 must be an object with some of min_ms"),
        ({"links": {"follower1": {"delay": 5}}}, "links.follower1 must be an object with some of min_ms"),
        ({"links": {"follower1": {"cut": 1}}}, "links.follower1.cut must be true or false"),
        ({"in_order_delivery": "yes"}, "in_order_delivery must be true or false"),
        ({"links": {"follower1": {"loss": None}}}, "links.follower1.loss must be a number"),
        ({"jitter": 5}, "no setting 'jitter'"),
    ],
)
def test_a_wrong_change_is_refused_as_a_whole(patch: dict[str, object], sentence: str) -> None:
    network = Network(Conditions("uniform", 0, 100), seed=2)
    before = network.settings()
    with pytest.raises(ValueError, match=sentence):
        network.configure({"loss": 0.5, **patch}, PEERS)
    assert network.settings() == before


@pytest.mark.parametrize(
    ("patch", "names"),
    [
        ({"min_delay_ms": 500}, "min_delay_ms=500 would be above max_delay_ms=100"),
        ({"min_delay_ms": 2.5, "max_delay_ms": 2}, "min_delay_ms=2.5 would be above max_delay_ms=2"),
        (
            {"links": {"follower2": {"min_ms": 101}}},
            "links.follower2.min_ms=101 would be above links.follower2.max_ms=100",
        ),
        ({"min_delay_ms": 50}, "links.follower1.min_ms=50 would be above links.follower1.max_ms=40"),
    ],
)
def test_values_that_exclude_each_other_are_a_conflict(patch: dict[str, object], names: str) -> None:
    network = Network(Conditions("uniform", 0, 100), seed=2)
    network.configure({"links": {"follower1": {"max_ms": 40}}}, PEERS)
    before = network.settings()
    with pytest.raises(SettingsConflict, match=names):
        network.configure({"loss": 0.5, **patch}, PEERS)
    assert network.settings() == before
