"""What reads may show: your own writes on every node, and from the leader nothing that is old or not committed."""

from __future__ import annotations

import asyncio
import random

from retinue.lab.checker import check_history
from retinue.lab.history import Level, Operation, Outcome
from tests.cluster.conftest import StartCluster
from tests.cluster.verification import verify
from tests.cluster.workload import Client, urls_of


def test_sessions_read_their_own_writes_on_every_follower_under_delay(start_cluster: StartCluster) -> None:
    cluster = start_cluster(write_quorum=2, min_delay_ms=0, max_delay_ms=40)
    history: list[Operation] = []
    followers = cluster.names[1:]

    async def live(number: int) -> None:
        dice = random.Random(number)
        client = Client(f"c{number}", urls_of(cluster), history)
        for _ in range(14):
            key = f"key{dice.randrange(3)}"
            written = await client.put(key)
            assert written.outcome is Outcome.OK
            for _ in range(5):
                seen = await client.read(key, Level.SESSION, dice.choice(followers))
                assert seen.outcome is Outcome.OK
                assert seen.version >= written.version
        client.close()

    async def run() -> None:
        await asyncio.gather(*(live(number) for number in range(16)))

    asyncio.run(run())
    reads = [op for op in history if op.level is Level.SESSION]
    assert len(reads) >= 1000
    verdict = check_history(history)
    assert not verdict.violations
    verify(cluster, history)


def test_a_session_read_waits_for_a_follower_that_is_behind(start_cluster: StartCluster) -> None:
    cluster = start_cluster(write_quorum=1)
    history: list[Operation] = []

    async def run() -> None:
        client = Client("c", urls_of(cluster), history)
        cluster.cut_off("leader", ["follower5"])
        written = await client.put("color")
        reading = asyncio.create_task(client.read("color", Level.SESSION, "follower5"))
        other = Client("o", urls_of(cluster), history)
        late = await other.ask("follower5", "GET", f"/kv/color?min_version={written.version}&timeout_ms=200")
        assert late.status == 503, late.body
        assert not reading.done()
        assert (await other.ask("follower1", "GET", "/kv/color")).status in (200, 404)
        cluster.heal("leader")
        assert (await reading).observed == written.value
        client.close()
        other.close()

    asyncio.run(run())
    verify(cluster, history)


def test_strong_reads_end_with_the_quorum_and_committed_ones_go_on(start_cluster: StartCluster) -> None:
    cluster = start_cluster(write_quorum=3)
    history: list[Operation] = []

    async def run() -> None:
        client = Client("c", urls_of(cluster), history)
        written = await client.put("color")
        assert (await client.read("color", Level.STRONG)).observed == written.value
        for name in ("follower1", "follower2", "follower3"):
            cluster.pause(name)
        silent = await client.ask("leader", "GET", "/kv/color?read=strong&timeout_ms=300")
        assert silent.status == 503, silent.body
        assert (await client.read("color")).observed == written.value
        for name in ("follower1", "follower2", "follower3"):
            cluster.kill(name)
        gone = await client.ask("leader", "GET", "/kv/color?read=strong&timeout_ms=300")
        assert gone.status == 503, gone.body
        assert (await client.read("color")).observed == written.value
        cluster.start()
        assert (await client.read("color", Level.STRONG)).observed == written.value
        client.close()

    asyncio.run(run())
    verify(cluster, history)


def test_followers_refuse_reads_that_only_a_leader_can_answer(start_cluster: StartCluster) -> None:
    cluster = start_cluster(followers=1)
    cluster.request("leader", "PUT", "/kv/color", {"value": "blue"}).checked()
    for level in ("committed", "strong"):
        refused = cluster.request("follower1", "GET", f"/kv/color?read={level}")
        assert (refused.status, refused.json()["leader"]) == (403, cluster.url("leader"))
