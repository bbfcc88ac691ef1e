"""The simulated target: the laws of the quorum on virtual time, and what readers see."""

from __future__ import annotations

import asyncio
import math
import random
import statistics
from itertools import pairwise

import pytest

from retinue.lab.targets.contract import NetworkConditions, Outcome, Seen, Written
from retinue.lab.targets.simulated import SimulatedTarget, run_virtually
from retinue.network import DISTRIBUTIONS, Conditions, Network
from tests.lab.simulating import FOLLOWERS, PLAIN, on_target, write_all

SLOW = NetworkConditions(max_ms=1000)
MOST_OVERHEAD_MS = 5.0


def law(writes: int, quorum: int, network: NetworkConditions = SLOW, seed: int = 1) -> list[Written]:
    """The answers to so many writes at this quorum."""
    return on_target(lambda target: write_all(target, writes), network, seed=seed, write_quorum=quorum)


def mean_ms(answers: list[Written]) -> float:
    return statistics.mean(answer.latency_ms for answer in answers)


def drawn(answer: Written) -> list[float]:
    """The delays of one write, the smallest first."""
    assert answer.delays_ms is not None
    return sorted(answer.delays_ms.values())


def standard_error_ms(quorum: int, writes: int) -> float:
    """Of the mean of the k-th smallest of n uniform delays up to 1000 ms: the variance of a Beta(k, n - k + 1)."""
    n, k = FOLLOWERS, quorum
    return 1000 * math.sqrt(k * (n - k + 1) / ((n + 1) ** 2 * (n + 2)) / writes)


# --- the law of the quorum ---


@pytest.mark.parametrize("quorum", range(1, FOLLOWERS + 1))
def test_a_write_takes_as_long_as_the_kth_smallest_delay(quorum: int) -> None:
    answers = law(300, quorum)
    assert {answer.outcome for answer in answers} == {Outcome.COMMITTED}
    assert mean_ms(answers) == pytest.approx(1000 * quorum / (FOLLOWERS + 1), abs=4 * standard_error_ms(quorum, 300))
    for answer in answers:
        assert len(drawn(answer)) == FOLLOWERS
        assert 0 <= answer.latency_ms - drawn(answer)[quorum - 1] < MOST_OVERHEAD_MS
        assert [ack.node for ack in answer.acked_by[:quorum]] == [ack.node for ack in sorted(answer.acked_by, key=ms)]
        assert answer.server_ms is not None
        assert answer.acked_by[quorum - 1].ms <= answer.server_ms < answer.latency_ms


def ms(acknowledgement: tuple[str, float]) -> float:
    return acknowledgement[1]


def test_many_writes_at_small_delays() -> None:
    answers = law(1000, 3, NetworkConditions(min_ms=0.1, max_ms=1))
    assert len({answer.version for answer in answers}) == 1000
    assert all(answer.latency_ms - drawn(answer)[2] < MOST_OVERHEAD_MS for answer in answers)


def test_without_delays_there_are_none_to_tell() -> None:
    answers = law(50, 3, PLAIN)
    assert {answer.delays_ms for answer in answers} == {None}
    assert all(0 < answer.latency_ms < MOST_OVERHEAD_MS for answer in answers)


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_delays_are_those_that_a_real_leader_draws_with_the_seed(distribution: str) -> None:
    answers = law(40, 2, NetworkConditions(distribution=distribution, min_ms=50, max_ms=800), seed=7)
    real = Network(Conditions(distribution, 50, 800), seed=7)
    for answer in sorted(answers, key=lambda answer: answer.version):
        assert answer.delays_ms is not None
        assert answer.delays_ms == {follower: real.draw_delay_ms(follower) for follower in answer.delays_ms}


def test_the_same_seed_gives_the_same_run() -> None:
    assert law(100, 3, seed=5) == law(100, 3, seed=5)
    assert law(100, 3, seed=5) != law(100, 3, seed=6)


def test_a_second_cluster_in_the_same_run_is_like_the_first() -> None:
    async def main() -> list[list[float]]:
        latencies = []
        for _ in range(2):
            async with SimulatedTarget(FOLLOWERS, 3, SLOW) as target:
                latencies.append([answer.latency_ms for answer in await write_all(target, 50)])
        return latencies

    first, second = run_virtually(main())
    assert first == pytest.approx(second)


def test_in_order_delivery_holds_up_writes() -> None:
    in_order = NetworkConditions(max_ms=1000, in_order=True)
    independent, held_up = law(200, 3), law(200, 3, in_order)
    assert mean_ms(held_up) > mean_ms(independent) + 8 * standard_error_ms(3, 200)

    async def arrivals(target: SimulatedTarget) -> list[dict[str, float]]:
        await target.set_quorum(FOLLOWERS)
        answers = sorted(await write_all(target, 60), key=lambda answer: answer.version)
        return [{ack.node: answer.begun_ms + ack.ms for ack in answer.acked_by} for answer in answers]

    for before, after in pairwise(on_target(arrivals, in_order)):
        assert all(after[follower] > before[follower] - 2 * MOST_OVERHEAD_MS for follower in after)


def test_the_network_and_the_quorum_can_be_changed() -> None:
    async def scenario(target: SimulatedTarget) -> tuple[float, float, float]:
        fast = mean_ms(await write_all(target, 20))
        await target.set_network(NetworkConditions(distribution="fixed", max_ms=100))
        assert target.network == NetworkConditions(distribution="fixed", max_ms=100)
        slow = mean_ms(await write_all(target, 20))
        await target.set_quorum(0)
        return fast, slow, mean_ms(await write_all(target, 20))

    fast, slow, alone = on_target(scenario)
    assert fast < MOST_OVERHEAD_MS
    assert 100 < slow < 100 + MOST_OVERHEAD_MS
    assert alone < MOST_OVERHEAD_MS


# --- what readers see ---


async def stale_reads(target: SimulatedTarget, reads: int, session: bool) -> int:
    """How many of these reads at a random follower, right after a write was acknowledged, do not show it."""
    choice, stale = random.Random(1), 0
    for number in range(reads):
        written = await target.write("key", f"value {number}")
        token = written.session if session else ""
        seen = await target.read(choice.choice(target.nodes[1:]), "key", session=token)
        assert seen.answered, seen.detail
        stale += seen.cell is None or seen.cell.version < written.version
    return stale


@pytest.mark.parametrize("quorum", [1, 3, 5])
def test_a_read_right_after_the_acknowledgement_is_stale_where_the_write_is_missing(quorum: int) -> None:
    share = (FOLLOWERS - quorum) / FOLLOWERS
    stale = on_target(lambda target: stale_reads(target, 300, session=False), SLOW, write_quorum=quorum)
    assert stale / 300 == pytest.approx(share, abs=4 * math.sqrt(share * (1 - share) / 300))


def test_a_read_with_a_session_is_never_stale() -> None:
    assert on_target(lambda target: stale_reads(target, 200, session=True), SLOW, write_quorum=1) == 0


def test_the_leader_shows_what_is_committed_and_followers_what_they_have() -> None:
    async def scenario(target: SimulatedTarget) -> list[tuple[str, Seen]]:
        writing = asyncio.create_task(target.write("key", "value"))
        await asyncio.sleep(0.05)  # at least one follower has it then, and the third not yet
        early = [("local", await target.read(node, "key")) for node in target.nodes]
        before = await target.read("leader", "key", level="strong")
        written = await writing
        assert (before.cell, written.outcome) == (None, Outcome.COMMITTED)
        late = [(level, await target.read("leader", "key", level=level)) for level in ("committed", "strong", "local")]
        return early + late

    seen = on_target(scenario, NetworkConditions(min_ms=30, max_ms=300), seed=2)
    cells = [answer.cell for _, answer in seen]
    assert cells[0] is None
    assert 0 < sum(cell is not None for cell in cells[1:6]) < 3
    assert all(cell is not None and cell.value == "value" for cell in cells[6:])


def test_deletes_and_dumps() -> None:
    async def scenario(target: SimulatedTarget) -> None:
        for key in ("a", "b", "c"):
            await target.write(key, f"value of {key}")
        gone, absent = await target.delete("b"), await target.delete("nothing")
        assert (gone.outcome, absent.outcome, absent.version) == (Outcome.COMMITTED, Outcome.COMMITTED, 0)
        await asyncio.sleep(1)
        dumps = [await target.dump(node) for node in target.nodes]
        assert {key: cell.value for key, cell in dumps[0].items()} == {"a": "value of a", "c": "value of c"}
        assert all(dump == dumps[0] for dump in dumps)

    on_target(scenario, NetworkConditions(max_ms=200))
