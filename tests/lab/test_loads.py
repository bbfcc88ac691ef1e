"""Closed and open loops, on a simulated cluster: on virtual time every start and every wait is exact."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from itertools import pairwise

import pytest

from retinue.errors import SettingsError
from retinue.lab.loads import Backlog, Put, closed_loop, key_choices, open_loop
from retinue.lab.targets.contract import NetworkConditions, Outcome, Target, Written
from retinue.lab.targets.simulated import SimulatedTarget, run_virtually

Numbered = tuple[int, Written]
Load = Callable[[Target], AsyncGenerator[Numbered, None]]

PUTS = list(key_choices(10, 60, seed=1))
DELAYED = NetworkConditions(max_ms=100)
SLOW = NetworkConditions(distribution="fixed", max_ms=100)


def loaded(
    load: Load,
    network: NetworkConditions = DELAYED,
    upto: int | None = None,
) -> list[Numbered]:
    """What a load on three simulated nodes yields, the first `upto` answers of it; nothing of it may stay behind."""

    async def run() -> list[Numbered]:
        async with SimulatedTarget(2, 1, network) as target:
            before = asyncio.all_tasks()
            found: list[Numbered] = []
            async with aclosing(load(target)) as answers:
                async for answer in answers:
                    found.append(answer)
                    if len(found) == upto:
                        break
            assert asyncio.all_tasks() == before
            return found

    return run_virtually(run())


# --- what is written ---


def test_choices_are_the_same_for_the_same_seed() -> None:
    assert list(key_choices(10, 60, seed=1)) == PUTS
    assert list(key_choices(10, 60, seed=2)) != PUTS


def test_choices_spread_over_all_keys_and_no_value_occurs_twice() -> None:
    puts = list(key_choices(10, 10_000, seed=1, tag="k3-"))
    counts = Counter(put.key for put in puts)
    assert len(counts) == 10
    assert all(850 < count < 1150 for count in counts.values())
    assert len({put.value for put in puts}) == 10_000
    assert puts[0].value == "k3-value0"


def test_no_keys_to_choose_from() -> None:
    with pytest.raises(SettingsError, match="0 keys"):
        key_choices(0, 1, seed=1)


# --- closed loop ---


@pytest.mark.parametrize("clients", [1, 7, 100])
def test_a_closed_loop_sends_everything_once_in_the_order_of_completion(clients: int) -> None:
    answers = loaded(lambda target: closed_loop(target, PUTS, clients))
    assert sorted(number for number, _ in answers) == list(range(len(PUTS)))
    assert all(written.outcome is Outcome.COMMITTED for _, written in answers)
    ends = [written.ended_ms for _, written in answers]
    assert ends == sorted(ends)
    moments = [(written.begun_ms, 1) for _, written in answers] + [(end, -1) for end in ends]
    under_way = [sum(step for _, step in sorted(moments)[: count + 1]) for count in range(len(moments))]
    assert max(under_way) == min(clients, len(PUTS))


def test_each_client_goes_on_as_soon_as_it_has_its_answer() -> None:
    answers = loaded(lambda target: closed_loop(target, PUTS, 1))
    for (_, before), (_, after) in pairwise(answers):
        assert after.begun_ms == before.ended_ms


def test_a_closed_loop_without_clients() -> None:
    with pytest.raises(SettingsError, match="0 clients"):
        loaded(lambda target: closed_loop(target, PUTS, 0))


# --- open loop ---


def test_an_open_loop_starts_at_its_rate_however_slow_the_answers() -> None:
    backlog = Backlog()
    answers = loaded(lambda target: open_loop(target, PUTS, 250, backlog=backlog), SLOW)
    assert sorted(number for number, _ in answers) == list(range(len(PUTS)))
    starts = [written.begun_ms for _, written in sorted(answers)]
    assert [start - starts[0] for start in starts] == pytest.approx([4.0 * number for number in range(len(PUTS))])
    assert backlog.held_back == 0
    assert backlog.latest_ms < 1
    assert 25 <= backlog.most_in_flight <= 30
    assert all(100 < written.latency_ms < 110 for _, written in answers)


def test_waiting_for_a_place_counts_as_latency_and_is_told() -> None:
    backlog = Backlog()
    puts = PUTS[:20]
    answers = loaded(lambda target: open_loop(target, puts, 100, in_flight_limit=2, backlog=backlog), SLOW)
    assert sorted(number for number, _ in answers) == list(range(20))
    assert (backlog.most_in_flight, backlog.held_back) == (2, 18)
    latencies = [written.latency_ms for _, written in sorted(answers)]
    # Two at a time of 100 ms each, while ten arrive in 100 ms: each pair waits 80 ms more than the one before.
    assert latencies[-1] == pytest.approx(100 + 9 * 80, rel=0.1)
    assert backlog.latest_ms == pytest.approx(9 * 80, rel=0.1)


def test_poisson_starts_repeat_with_their_seed() -> None:
    def gaps(seed: int) -> list[float]:
        puts = [Put("key", str(number)) for number in range(400)]
        answers = loaded(lambda target: open_loop(target, puts, 100, poisson_seed=seed), NetworkConditions())
        starts = sorted(written.begun_ms for _, written in answers)
        return [round(after - before, 6) for before, after in pairwise(starts)]

    assert gaps(1) == gaps(1) != gaps(2)
    # An exponential law of mean 10 ms: the mean of 399 lies within four of its standard errors of 0.5 ms.
    assert sum(gaps(1)) / 399 == pytest.approx(10, abs=2)
    assert min(gaps(1)) < 1 < 30 < max(gaps(1))


@pytest.mark.parametrize("rate_per_s", [0, -1, float("nan"), float("inf")])
def test_rates_that_are_not_possible(rate_per_s: float) -> None:
    with pytest.raises(SettingsError, match="A rate of"):
        loaded(lambda target: open_loop(target, PUTS, rate_per_s))


# --- the end ---

both = pytest.mark.parametrize(
    "load",
    [lambda target: closed_loop(target, PUTS, 5), lambda target: open_loop(target, PUTS, 1000)],
    ids=["closed", "open"],
)


@both
def test_a_loop_that_is_left_early_leaves_nothing_running(
    load: Load,
) -> None:
    assert len(loaded(load, SLOW, upto=3)) == 3


@both
def test_a_loop_that_is_cancelled_leaves_nothing_running(
    load: Load,
) -> None:
    async def run() -> None:
        async with SimulatedTarget(2, 1, SLOW) as target:
            before = asyncio.all_tasks()

            async def drive() -> None:
                async with aclosing(load(target)) as answers:
                    async for _ in answers:
                        pass

            task = asyncio.create_task(drive())
            await asyncio.sleep(0.15)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert asyncio.all_tasks() == before

    run_virtually(run())


@pytest.mark.parametrize(
    "load",
    [lambda target, puts: closed_loop(target, puts, 5), lambda target, puts: open_loop(target, puts, 1000)],
    ids=["closed", "open"],
)
def test_an_error_of_whoever_chooses_the_writes_is_passed_on(
    load: Callable[[Target, Iterator[Put]], AsyncGenerator[Numbered, None]],
) -> None:
    def chosen() -> Iterator[Put]:
        yield Put("key", "value")
        raise SettingsError("There is nothing more to write.")

    with pytest.raises(SettingsError, match="nothing more"):
        loaded(lambda target: load(target, chosen()))
