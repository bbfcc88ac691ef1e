"""Links under a simulated network: delays, loss, cuts; and snapshots that travel beside other messages."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Iterator

import pytest

from retinue.core.messages import Configuration, Entry, Heartbeat, Kind, LinkDown, LinkFull, LinkUp, Snapshot
from retinue.network import Conditions, Network
from tests.linking import LOOPS, append, kernel_timers, linked, machine_watched, run, until

both_loops = pytest.mark.parametrize("loop_factory", LOOPS, ids=["asyncio", "uvloop"])
NewLoop = Callable[[], asyncio.AbstractEventLoop]
HEAD = Snapshot(7, 3, 200_000, 1, 99, Configuration(3), 1, [])


@both_loops
def test_every_copy_arrives_after_its_own_delay(loop_factory: NewLoop) -> None:
    conditions = Conditions("uniform", 10, 150)

    async def scenario() -> None:
        async with linked("leader", "follower1", "follower2", leader_options={"conditions": conditions}) as nodes:
            leader, first, second = nodes
            versions = range(1, 301)
            begin_s = time.monotonic()
            drawn = leader.peers.replicate(["follower1", "follower2"], append(*versions))
            with machine_watched() as lost_s:
                await until(lambda: len(first.arrived_s) == len(second.arrived_s) == 300)
            expected = Network(conditions, seed=1)
            assert drawn == {n.name: [expected.draw_delay_ms(n.name) for _ in versions] for n in (first, second)}
            for node in (first, second):
                passed_ms = [(node.arrived_s[version] - begin_s) * 1000 for version in versions]
                late_ms = sorted(passed - delay for passed, delay in zip(passed_ms, drawn[node.name], strict=True))
                assert late_ms[0] >= 0
                # A quiet machine shows about 0.2 ms.
                assert late_ms[150] < 30 + lost_s() * 1000
                assert list(node.arrived_s) != sorted(node.arrived_s)

    run(scenario(), loop_factory)


def test_in_order_no_entry_overtakes_another_and_the_draws_stay_the_same() -> None:
    conditions = Conditions("uniform", 0, 100, in_order=True)

    async def scenario() -> None:
        async with linked("leader", "follower1", leader_options={"conditions": conditions}) as (leader, follower):
            begin_s = time.monotonic()
            drawn_ms = []
            for version in range(1, 101):
                drawn = leader.peers.replicate(["follower1"], append(version))
                assert drawn is not None
                drawn_ms += drawn["follower1"]
            await until(lambda: len(follower.arrived_s) == 100)
            assert list(follower.arrived_s) == list(range(1, 101))
            arrived_ms = [(at_s - begin_s) * 1000 for at_s in follower.arrived_s.values()]
            held_up_ms = [max(drawn_ms[: version + 1]) for version in range(100)]
            assert all(arrived >= due for arrived, due in zip(arrived_ms, held_up_ms, strict=True))
            assert held_up_ms[50] > drawn_ms[50], "the seed must make the middle one wait"
            expected = Network(conditions, seed=1)
            assert drawn_ms == [expected.draw_delay_ms("follower1") for _ in range(100)]

    run(scenario())


def test_what_is_due_together_is_one_append_with_the_latest_commit_point() -> None:
    async def scenario() -> None:
        options = {"conditions": Conditions("fixed", 0, 60)}
        async with linked("leader", "follower1", leader_options=options) as (leader, follower):
            for version in range(1, 4):
                leader.peers.replicate(["follower1"], append(version, commit=version))
            leader.peers.replicate(["follower1"], append(4, epoch=8, start=4))
            time.sleep(0.1)  # noqa: ASYNC251 - the loop must not come round before all four are due
            await until(lambda: len(follower.entries) == 4)
            assert follower.messages == [append(1, 2, 3, commit=3), append(4, epoch=8, start=4)]

    run(scenario())


def test_only_links_with_a_delay_are_delayed_and_only_entries() -> None:
    async def scenario() -> None:
        async with linked("leader", "follower1", "follower2") as (leader, first, second):
            peers = ("follower1", "follower2")
            timers = kernel_timers()
            assert leader.peers.replicate(list(peers), append(1)) is None
            assert kernel_timers() == timers
            leader.network.configure({"links": {"follower1": {"max_ms": 400, "distribution": "fixed"}}}, peers)
            drawn = leader.peers.replicate([*peers, "follower3"], append(2))
            assert drawn == {"follower1": [400.0], "follower2": [0.0]}
            assert leader.peers.status()["follower1"].queued_bytes > 100
            await until(lambda: kernel_timers() == timers + (sys.platform == "linux"))
            leader.peers.send("follower1", Heartbeat(1, 1, 2, 0))
            await until(lambda: len(first.messages) == 3 and len(second.messages) == 2)
            assert first.messages == [append(1), Heartbeat(1, 1, 2, 0), append(2)]
            assert second.messages == [append(1), append(2)]

    run(scenario())


def test_loss_takes_single_copies_and_other_messages_but_no_pings() -> None:
    async def scenario() -> None:
        options = {"conditions": Conditions("uniform", 0, 20, loss=0.5)}
        async with linked("leader", "follower1", leader_options=options) as (leader, follower):
            leader.peers.replicate(["follower1"], append(*range(1, 1001)))
            for number in range(1000):
                leader.peers.send("follower1", Heartbeat(1, 1, number, 0))
            leader.network.configure({"loss": 0}, ["follower1"])
            leader.peers.send("follower1", Heartbeat(1, 1, 5000, 0))
            drawn = leader.peers.replicate(["follower1"], append(1001))
            assert drawn is not None
            await until(lambda: 1001 in follower.arrived_s)
            await until(lambda: Heartbeat(1, 1, 5000, 0) in follower.messages)
            expected = Network(Conditions(loss=0.5), seed=1)
            kept = [sum(not expected.lost("follower1") for _ in range(1000)) for _ in ("entries", "heartbeats")]
            await until(lambda: len(follower.entries) == kept[0] + 1)
            assert sum(isinstance(message, Heartbeat) for message in follower.messages) == kept[1] + 1
            assert all(400 < count < 600 for count in kept)
            leader.network.configure({"loss": 1, "max_delay_ms": 0}, ["follower1"])
            assert leader.peers.replicate(["follower1"], append(1002)) is None
            heard_bytes = leader.peers.status()["follower1"].received_bytes
            await until(lambda: leader.peers.status()["follower1"].received_bytes > heard_bytes + 20)
            assert leader.told(LinkDown) == []
            assert 1002 not in follower.arrived_s

    run(scenario())


@pytest.mark.parametrize("cut_at", ["leader", "follower1"])
def test_a_short_cut_passes_nothing_and_heals_without_a_new_link(cut_at: str) -> None:
    async def scenario() -> None:
        async with linked("leader", "follower1") as (leader, follower):
            node, other = (leader, "follower1") if cut_at == "leader" else (follower, "leader")
            node.network.configure({"cut": [other]}, [other])
            leader.peers.replicate(["follower1"], append(1))
            follower.peers.send("leader", Heartbeat(1, 1, 1, 0))
            await asyncio.sleep(0.1)
            assert (leader.messages, follower.messages) == ([], [])
            node.network.configure({"cut": []}, [other])
            leader.peers.replicate(["follower1"], append(2))
            await until(lambda: follower.messages == [append(2)])
            assert leader.told(LinkDown) == []

    run(scenario())


@pytest.mark.parametrize("cut_at", ["leader", "follower1"])
def test_a_long_cut_takes_the_link_down_until_it_is_healed(cut_at: str) -> None:
    async def scenario() -> None:
        async with linked("leader", "follower1", peer_timeout_ms=150) as (leader, follower):
            node, other = (leader, "follower1") if cut_at == "leader" else (follower, "leader")
            node.network.configure({"cut": [other]}, [other])
            await until(lambda: leader.told(LinkDown) == [LinkDown("follower1")])
            await until(lambda: not follower.peers.status()["leader"].connected)
            await asyncio.sleep(0.3)
            assert len(leader.told(LinkUp)) == 1
            node.network.configure({"cut": []}, [other])
            await until(lambda: len(leader.told(LinkUp)) == 2)

    run(scenario())


def test_delayed_entries_count_for_the_limit_and_go_with_the_link() -> None:
    async def scenario() -> None:
        options = {"conditions": Conditions("fixed", 0, 3_000_000), "queue_limit_bytes": 1_000_000}
        async with linked("leader", "follower1", leader_options=options) as (leader, follower):
            drawn = leader.peers.replicate(["follower1"], append(*range(1, 101), size=20_000))
            assert drawn == {"follower1": [3_000_000.0] * 100}
            assert leader.told(LinkFull) == [LinkFull("follower1")]
            assert leader.peers.status()["follower1"].queued_bytes < 1000
            leader.peers.replicate(["follower1"], append(1, size=20_000))
            assert leader.peers.status()["follower1"].queued_bytes > 20_000
            leader.peers.close_links()
            assert leader.peers.status()["follower1"].queued_bytes == 0
            assert follower.messages == []

    run(scenario())


def test_of_an_append_that_overflows_its_link_nothing_comes_later() -> None:
    async def scenario() -> None:
        options = {"conditions": Conditions("fixed", 0, 30), "queue_limit_bytes": 1_000_000}
        async with linked("leader", "follower1", leader_options=options) as (leader, follower):
            leader.peers.replicate(["follower1"], append(*range(1, 101), size=20_000))
            assert leader.told(LinkFull) == [LinkFull("follower1")]
            leader.peers.replicate(["follower1"], append(200))
            await until(lambda: 200 in follower.arrived_s)
            assert follower.messages == [append(200)]
            assert leader.peers.status()["follower1"].queued_bytes == 0

    run(scenario())


def rows(count: int, size: int, closed: list[int]) -> Iterator[list[Entry]]:
    """The rows of a snapshot; notes in `closed` how many were taken when nobody wants more."""
    taken = 0
    try:
        while taken < count:
            versions = range(taken + 1, min(taken + 1000, count) + 1)
            taken += len(versions)
            yield [Entry(version, 1, Kind.PUT, f"key{version}", b"v" * size) for version in versions]
    finally:
        closed.append(taken)


@both_loops
def test_a_snapshot_of_200_000_rows_travels_beside_other_messages(loop_factory: NewLoop) -> None:
    async def scenario() -> None:
        closed: list[int] = []
        async with linked("leader", "follower1") as (leader, follower):
            leader.peers.send_snapshot("follower1", HEAD, rows(200_000, 100, closed))
            beats = 0
            while not any(isinstance(message, Snapshot) for message in follower.messages):
                leader.peers.send("follower1", Heartbeat(1, 1, beats, 0))
                beats += 1
                # What waits is a chunk at most, never the whole snapshot.
                assert leader.peers.status()["follower1"].queued_bytes < 4_000_000
                await asyncio.sleep(0.005)
            (snapshot,) = (message for message in follower.messages if isinstance(message, Snapshot))
            assert [entry.version for entry in snapshot.entries] == list(range(1, 200_001))
            assert (snapshot.trusted, snapshot.chain) == (200_000, 99)
            assert len(follower.messages) > 10
            await until(lambda: leader.sent == ["follower1"])
            assert closed == [200_000]
            assert leader.told(LinkDown) == []

    run(scenario(), loop_factory)


def test_a_newer_snapshot_replaces_one_under_way() -> None:
    async def scenario() -> None:
        closed: list[int] = []
        async with linked("leader", "follower1") as (leader, follower):
            leader.peers.send_snapshot("follower1", HEAD, rows(10**9, 1000, closed))
            await until(lambda: leader.peers.status()["follower1"].sent_bytes > 3_000_000)
            leader.peers.send_snapshot("follower1", HEAD, rows(10, 10, closed))
            await until(lambda: follower.messages)
            assert [len(message.entries) for message in follower.messages if isinstance(message, Snapshot)] == [10]
            assert len(closed) == 2
            await until(lambda: leader.sent == ["follower1", "follower1"])

    run(scenario())


def test_an_answer_with_a_snapshot_goes_to_the_asker() -> None:
    async def scenario() -> None:
        async with linked("leader", "follower1") as (leader, follower):
            follower.peers.send_snapshot("leader", HEAD, rows(3000, 10, []))
            await until(lambda: leader.messages)
            assert isinstance(leader.messages[0], Snapshot)
            await until(lambda: follower.sent == ["leader"])

    run(scenario())


@pytest.mark.parametrize("how", ["no link", "closed", "cut", "lost", "rows fail"])
def test_a_snapshot_that_breaks_off_is_told_and_not_delivered(how: str) -> None:
    def failing(closed: list[int]) -> Iterator[list[Entry]]:
        yield from rows(5000, 100, closed)
        raise OSError("the disk is gone")

    async def scenario() -> None:
        closed: list[int] = []
        async with linked("leader", "follower1") as (leader, follower):
            if how == "lost":
                leader.network.configure({"loss": 1}, ["follower1"])
            endless = failing(closed) if how == "rows fail" else rows(10**9, 1000, closed)
            leader.peers.send_snapshot("follower2" if how == "no link" else "follower1", HEAD, endless)
            if how in ("closed", "cut"):
                await until(lambda: leader.peers.status()["follower1"].sent_bytes > 3_000_000)
            if how == "closed":
                leader.peers.close_links()
            if how == "cut":
                leader.network.configure({"cut": ["follower1"]}, ["follower1"])
            await until(lambda: leader.sent)
            assert len(leader.sent) == 1
            assert follower.messages == []
            assert bool(closed) == (how not in ("no link", "lost"))

    run(scenario())
