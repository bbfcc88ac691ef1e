"""The simulated target: what clients see of faults, and what it refuses."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from retinue.errors import ClusterError, InvalidValue, NoQuorum, RetinueError
from retinue.lab.targets.contract import NetworkConditions, Outcome, Seen, Target, Unsuitable, Written
from retinue.lab.targets.simulated import BrokenSimulation, SimulatedTarget
from tests.lab.simulating import PLAIN, on_target, write_all

# --- faults ---


def test_without_a_quorum_writes_are_refused() -> None:
    async def scenario(target: SimulatedTarget) -> None:
        for node in target.nodes[1:4]:
            await target.kill(node)
        await asyncio.sleep(0.2)
        refused = await target.write("key", "value")
        assert refused.outcome is Outcome.REFUSED
        assert "Fewer followers are reachable" in refused.detail
        assert (await target.read("leader", "key")).cell is None
        await target.start("follower1")
        await asyncio.sleep(0.5)
        assert (await target.write("key", "value")).outcome is Outcome.COMMITTED

    on_target(scenario)


async def hold_up_by_pause(target: Target, nodes: tuple[str, ...]) -> Callable[[], Awaitable[None]]:
    for node in nodes:
        await target.pause(node)

    async def end() -> None:
        for node in nodes:
            await target.resume(node)

    return end


async def hold_up_by_cut(target: Target, nodes: tuple[str, ...]) -> Callable[[], Awaitable[None]]:
    for node in nodes:
        await target.cut_off(node)
        await target.cut_off(node)

    async def end() -> None:
        for node in nodes:
            await target.heal(node)
            await target.heal(node)

    return end


@pytest.mark.parametrize("hold_up", [hold_up_by_pause, hold_up_by_cut])
@pytest.mark.parametrize("nodes", [("follower1", "follower2", "follower3"), ("leader",)], ids=["quorum", "leader"])
def test_a_write_that_is_held_up_is_unknown_and_commits_later(
    hold_up: Callable[[Target, tuple[str, ...]], Awaitable[Callable[[], Awaitable[None]]]], nodes: tuple[str, ...]
) -> None:
    async def scenario(target: SimulatedTarget) -> None:
        end = await hold_up(target, nodes)
        unknown = await target.write("key", "value", request_id="mine")
        assert unknown.outcome is Outcome.UNKNOWN
        assert 4000 <= unknown.latency_ms < 5500
        await end()
        await asyncio.sleep(3)
        seen = await target.read("leader", "key")
        assert seen.cell is not None
        again = await target.write("key", "value", request_id="mine")
        assert (again.outcome, again.version) == (Outcome.COMMITTED, seen.cell.version)

    on_target(scenario)


def test_a_client_can_wait_shorter() -> None:
    async def scenario(target: SimulatedTarget) -> Written:
        await target.pause("leader")
        return await target.write("key", "value", timeout_ms=200)

    answer = on_target(scenario)
    assert answer.outcome is Outcome.UNKNOWN
    assert 200 <= answer.latency_ms < 1500


def test_what_was_acknowledged_survives_the_leader() -> None:
    async def scenario(target: SimulatedTarget) -> None:
        before = await write_all(target, 60)
        waiting = [asyncio.create_task(target.write(f"late{number}", "value")) for number in range(5)]
        await asyncio.sleep(0.01)
        await target.kill("leader")
        died = await asyncio.gather(*waiting)
        assert {answer.outcome for answer in died} == {Outcome.UNKNOWN}
        assert max(answer.latency_ms for answer in died) < 20
        assert (await target.write("key", "value")).outcome is Outcome.REFUSED
        assert await target.leader() is None
        await target.promote("follower2")
        assert await target.leader() == "follower2"
        assert (await target.write("key after", "value")).outcome is Outcome.COMMITTED
        shown = await target.dump("follower2")
        assert {answer.outcome for answer in before} == {Outcome.COMMITTED}
        assert max(cell.version for cell in shown.values()) > max(answer.version for answer in before)
        newest = {f"key{number % 10}": 0 for number in range(60)}
        for number, answer in enumerate(sorted(before, key=lambda answer: answer.begun_ms)):
            newest[f"key{number % 10}"] = max(newest[f"key{number % 10}"], answer.version)
        assert all(shown[key].version == version for key, version in newest.items())
        await target.start("leader")
        await asyncio.sleep(5)
        dumps = [await target.dump(node) for node in target.nodes]
        assert all(dump == dumps[0] for dump in dumps)

    on_target(scenario, NetworkConditions(min_ms=50, max_ms=300))


def test_writes_follow_a_leader_that_somebody_else_has_promoted() -> None:
    async def scenario(target: SimulatedTarget) -> None:
        await target.cut_off("leader")
        await target.promote("follower1")
        assert (await target.write("key", "new")).outcome is Outcome.COMMITTED
        await target.heal("leader")
        await asyncio.sleep(3)
        assert not (await target.read("leader", "key", level="strong")).answered
        await target.promote("leader")
        assert (await target.write("key", "newer")).outcome is Outcome.COMMITTED

    on_target(scenario)


# --- what cannot be ---


def test_reads_never_raise() -> None:
    async def scenario(target: SimulatedTarget) -> list[Seen]:
        await target.kill("follower5")
        return [
            await target.read("follower9", "key"),
            await target.read("follower1", "key", level="fresh"),
            await target.read("follower1", "key", level="strong"),
            await target.read("follower1", "key", level="committed"),
            await target.read("follower1", "key", session="soon"),
            await target.read("follower1", "key", session="1.999"),
            await target.read("follower5", "key"),
        ]

    answers = on_target(scenario)
    assert not any(answer.answered for answer in answers)
    words = ["no node 'follower9'", "no read level 'fresh'", "follower", "follower", "no session token", "", "not run"]
    for answer, word in zip(answers, words, strict=True):
        assert word in answer.detail
        assert answer.detail.endswith(".")


Request = Callable[[SimulatedTarget], Awaitable[object]]
WRONG: list[tuple[Request, type[RetinueError]]] = [
    (lambda target: target.set_quorum(6), InvalidValue),
    (lambda target: target.set_quorum(-1), InvalidValue),
    (lambda target: target.set_network(NetworkConditions(min_ms=5, max_ms=1)), InvalidValue),
    (lambda target: target.set_network(NetworkConditions(distribution="normal", max_ms=1)), InvalidValue),
    (lambda target: target.kill("nobody"), Unsuitable),
    (lambda target: target.dump("nobody"), Unsuitable),
    (lambda target: target.dump("follower5"), ClusterError),
    (lambda target: target.pause("follower5"), ClusterError),
    (lambda target: target.promote("follower5"), ClusterError),
]


@pytest.mark.parametrize(("request_", "error"), WRONG)
def test_other_requests_raise_one_sentence(request_: Request, error: type[RetinueError]) -> None:
    async def scenario(target: SimulatedTarget) -> None:
        await target.kill("follower5")
        await request_(target)

    with pytest.raises(error):
        on_target(scenario)


def test_a_change_that_finds_no_leader_is_refused() -> None:
    async def scenario(target: SimulatedTarget) -> None:
        await target.cut_off("follower1")
        await target.promote("follower1")

    with pytest.raises(NoQuorum):
        on_target(scenario)


def test_what_cannot_be_started() -> None:
    with pytest.raises(InvalidValue):
        SimulatedTarget(5, 1, PLAIN, write_quorum=6)
    with pytest.raises(InvalidValue):
        SimulatedTarget(5, 1, NetworkConditions(max_ms=-1))

    async def main() -> None:
        async with SimulatedTarget(5, 1, PLAIN):
            pass

    with pytest.raises(RuntimeError, match="run_virtually"):
        asyncio.run(main())


def test_a_broken_promise_is_told() -> None:
    async def scenario(target: SimulatedTarget) -> None:
        target._cluster.oracle.report("trust is final", "follower1 went back")

    with pytest.raises(BrokenSimulation, match="trust is final"):
        on_target(scenario)
