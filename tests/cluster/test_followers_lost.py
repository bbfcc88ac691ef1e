"""Followers die, pause, come back: writes go on as long as the quorum is there, and are refused or unknown without."""

from __future__ import annotations

import asyncio
import time

from retinue.cluster import Cluster
from retinue.lab.history import Level, Operation, Outcome
from tests.cluster.conftest import StartCluster
from tests.cluster.verification import dump, position, status, verify, wait_for_agreement
from tests.cluster.workload import Client, urls_of, wait_until


def with_client(cluster: Cluster, history: list[Operation]) -> Client:
    return Client("c", urls_of(cluster), history)


def test_two_followers_may_die_and_the_third_stops_writes(start_cluster: StartCluster) -> None:
    cluster = start_cluster(write_quorum=3)
    history: list[Operation] = []

    async def run() -> None:
        client = with_client(cluster, history)
        first = await client.put("color")
        cluster.kill("follower1")
        cluster.kill("follower2")
        second = await client.put("color")
        assert [first.outcome, second.outcome] == [Outcome.OK, Outcome.OK]
        cluster.kill("follower3")
        survivors = ["leader", "follower4", "follower5"]
        wait_for_agreement(cluster, names=survivors)
        before = [position(cluster, name) for name in survivors], [dump(cluster, name) for name in survivors]
        begun_s = time.monotonic()
        refused = await client.put("color")
        assert refused.outcome is Outcome.FAILED
        assert time.monotonic() - begun_s < 1
        reply = await client.ask("leader", "PUT", "/kv/color", {"value": "x"})
        assert (reply.status, reply.told["outcome"], reply.told["required_quorum"]) == (503, "not_written", 3)
        assert ([position(cluster, n) for n in survivors], [dump(cluster, n) for n in survivors]) == before
        assert (await client.read("color")).observed == second.value
        assert (await client.read("color", Level.STRONG)).outcome is Outcome.FAILED
        cluster.start(["follower3"])
        wait_until(lambda: status(cluster, "leader")["followers"][2]["state"] == "live", "follower3 is back")
        assert (await client.put("color")).outcome is Outcome.OK
        cluster.start()
        client.close()

    asyncio.run(run())
    verify(cluster, history)


def test_three_paused_followers_leave_a_write_unknown_until_they_go_on(start_cluster: StartCluster) -> None:
    cluster = start_cluster(write_quorum=3)
    history: list[Operation] = []

    async def run() -> None:
        client = with_client(cluster, history)
        first = await client.put("color")
        for name in ("follower1", "follower2", "follower3"):
            cluster.pause(name)
        begun_s = time.monotonic()
        reply = await client.ask("leader", "PUT", "/kv/color?timeout_ms=300", {"value": "unseen"})
        assert 0.3 <= time.monotonic() - begun_s < 2
        version = reply.told["version"]
        assert (reply.status, reply.told["outcome"], version) == (504, "unknown", first.version + 1)
        for _ in range(20):
            assert (await client.read("color")).observed == first.value
        asked = cluster.request("leader", "GET", f"/writes/{version}").json()
        assert (asked["state"], asked["acks"]) == ("pending", 2)
        for name in ("follower1", "follower2", "follower3"):
            cluster.resume(name)
        wait_until(
            lambda: cluster.request("leader", "GET", f"/writes/{version}").json()["state"] == "committed", "it commits"
        )
        assert cluster.request("leader", "GET", "/kv/color").json()["value"] == "unseen"
        client.close()

    asyncio.run(run())
    wait_for_agreement(cluster)


def test_a_write_during_a_pause_is_found_again_by_its_id(start_cluster: StartCluster) -> None:
    cluster = start_cluster(write_quorum=3)
    history: list[Operation] = []

    async def run() -> None:
        client = with_client(cluster, history)
        for name in ("follower1", "follower2", "follower3"):
            cluster.pause(name)
        trying = asyncio.create_task(client.put("color", timeout_ms=200, retry_s=15))
        await asyncio.sleep(0.5)
        assert not trying.done()
        for name in ("follower1", "follower2", "follower3"):
            cluster.resume(name)
        assert (await trying).outcome is Outcome.OK
        client.close()

    asyncio.run(run())
    verify(cluster, history)


def test_after_a_leader_restart_the_next_write_reaches_every_follower(start_cluster: StartCluster) -> None:
    cluster = start_cluster(write_quorum=3)
    cluster.request("leader", "PUT", "/kv/old", {"value": 1}).checked()
    cluster.restart("leader")
    told = cluster.request("leader", "PUT", "/kv/old", {"value": 2}, timeout_s=10).checked().json()
    wait_until(
        lambda: all(
            cluster.request(name, "GET", "/kv/old").json().get("version") == told["version"] for name in cluster.names
        ),
        "all five have it",
        2,
    )
