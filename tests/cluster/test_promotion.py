"""A follower is promoted: after the leader died, while it sleeps, and when there are too few nodes for it."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from typing import Any

import pytest

from retinue.cluster import Cluster
from retinue.lab.checker import STRONG_ONLY
from retinue.lab.connection import AnswerLost, Reply
from retinue.lab.history import Operation, Outcome
from tests.cluster.conftest import StartCluster
from tests.cluster.verification import dump, status, verify, wait_for_agreement
from tests.cluster.workload import Client, Load, urls_of, wait_until


def promote(cluster: Cluster, name: str, **body: object) -> dict[str, Any]:
    return cluster.request(name, "POST", "/promote", body, timeout_s=15).checked().json()


def test_a_follower_takes_over_from_a_dead_leader_which_comes_back_as_a_follower(start_cluster: StartCluster) -> None:
    cluster = start_cluster()
    with Load(cluster) as load:
        load.wait_for_writes(60)
        cluster.kill("leader")
        told = promote(cluster, "follower2")
        assert (told["node"], told["role"]) == ("follower2", "leader")
        load.target = "follower2"
        load.wait_for_writes(60)
        cluster.start(["leader"])
        wait_until(lambda: status(cluster, "leader")["leader"] == "follower2", "the old leader follows")
        assert status(cluster, "leader")["role"] == "follower"
        refused = cluster.request("leader", "PUT", "/kv/color", {"value": 1})
        assert (refused.status, refused.json()["leader"]) == (403, cluster.url("follower2"))
        load.wait_for_writes(60)
        promote(cluster, "leader")
        load.target = "leader"
        load.wait_for_writes(60)
    verify(cluster, load.history, STRONG_ONLY)


def test_leadership_goes_round_under_load(start_cluster: StartCluster) -> None:
    cluster = start_cluster()
    with Load(cluster) as load:
        for name in ("follower3", "follower1", "leader", "follower5"):
            load.wait_for_writes(40)
            promote(cluster, name)
            load.target = name
        load.wait_for_writes(40)
        cluster.kill("follower5")
        cluster.start(["follower5"])
        load.wait_for_writes(40)
    verify(cluster, load.history, STRONG_ONLY)


def gives_way(cluster: Cluster, name: str) -> bool:
    """Whether this node leaves its core to others that wake up."""
    pid = cluster.pid(name)
    assert pid is not None
    return os.sched_getscheduler(pid) == os.SCHED_BATCH


@pytest.mark.skipif(sys.platform != "linux", reason="scheduling policies are Linux's")
def test_followers_on_the_same_machine_give_way_to_whoever_leads(start_cluster: StartCluster) -> None:
    cluster = start_cluster(followers=2, write_quorum=1)
    assert [gives_way(cluster, name) for name in ("leader", "follower1", "follower2")] == [False, True, True]
    promote(cluster, "follower2")
    wait_until(lambda: gives_way(cluster, "leader"), "the old leader gives way")
    assert [gives_way(cluster, name) for name in ("leader", "follower1", "follower2")] == [True, True, False]


def test_a_promotion_with_too_few_nodes_is_refused_and_changes_nothing(start_cluster: StartCluster) -> None:
    cluster = start_cluster(write_quorum=3)
    cluster.request("leader", "PUT", "/kv/color", {"value": "blue"}).checked()
    wait_for_agreement(cluster)
    for name in ("leader", "follower3", "follower4", "follower5"):
        cluster.kill(name)
    before = [status(cluster, name)["epoch"] for name in ("follower1", "follower2")]
    state = dump(cluster, "follower1")
    refused = cluster.request("follower1", "POST", "/promote?timeout_ms=500", {}, timeout_s=10)
    problem = refused.json()
    assert (refused.status, problem["acks"], problem["required_quorum"]) == (503, 2, 3)
    assert str(problem["detail"]).startswith("Node follower1 was not promoted: 3 nodes must take part")
    assert [status(cluster, name)["epoch"] for name in ("follower1", "follower2")] == before
    assert [status(cluster, name)["role"] for name in ("follower1", "follower2")] == ["follower"] * 2
    assert [dump(cluster, name) for name in ("follower1", "follower2")] == [state] * 2
    told = promote(cluster, "follower1", accept_loss=True)
    assert told["node"] == "follower1"
    assert cluster.request("follower1", "PUT", "/kv/color", {"value": "red"}).status == 503
    cluster.start(["follower3", "follower4"])
    wait_until(
        lambda: cluster.request("follower1", "PUT", "/kv/color", {"value": "red"}, timeout_s=10).status == 200,
        "writes go on",
    )
    cluster.start()
    wait_for_agreement(cluster)


def test_a_leader_that_slept_through_its_deposition_shows_no_old_state(start_cluster: StartCluster) -> None:
    cluster = start_cluster(write_quorum=3)
    history: list[Operation] = []

    async def run() -> None:
        client = Client("c", urls_of(cluster), history)
        sleeper = Client("s", urls_of(cluster), history)
        old = await client.put("color")
        assert old.outcome is Outcome.OK
        assert (await sleeper.read("color")).observed == old.value
        cluster.pause("leader")
        reads = [Client(f"r{number}", urls_of(cluster), []) for number in range(8)]
        asked = [asyncio.create_task(ask_strongly(reader)) for reader in reads]
        lost = asyncio.create_task(sleeper.put("color"))
        await asyncio.sleep(0.1)
        await asyncio.to_thread(promote, cluster, "follower1")
        heir = Client("h", urls_of(cluster), history, lambda: "follower1")
        new = await heir.put("color")
        assert new.outcome is Outcome.OK
        cluster.resume("leader")
        answers = [reply for task in asked if (reply := await task) is not None]
        assert all(reply.status in (403, 503) or reply.told["value"] == new.value for reply in answers), [
            (reply.status, reply.body) for reply in answers
        ]
        assert (await lost).outcome in (Outcome.UNKNOWN, Outcome.FAILED)
        wait_until(lambda: status(cluster, "leader")["leader"] == "follower1", "the old leader follows")
        for each in (client, sleeper, heir, *reads):
            each.close()

    asyncio.run(run())
    verify(cluster, history, STRONG_ONLY)


async def ask_strongly(client: Client) -> Reply | None:
    try:
        return await client.ask("leader", "GET", "/kv/color?read=strong&timeout_ms=3000")
    except AnswerLost:
        return None


def test_what_a_deposed_leader_had_not_acknowledged_is_unknown(start_cluster: StartCluster) -> None:
    cluster = start_cluster(write_quorum=3)
    history: list[Operation] = []
    others = [f"follower{number}" for number in range(1, 6)]

    async def run() -> None:
        client = Client("c", urls_of(cluster), history)
        assert (await client.put("color")).outcome is Outcome.OK
        wait_for_agreement(cluster)
        cluster.cut_off("leader", others)
        waiting = [Client(f"p{number}", urls_of(cluster), history) for number in range(4)]
        pending = [asyncio.create_task(each.put(f"key{each.name}")) for each in waiting]
        begun_s = time.monotonic()
        await asyncio.to_thread(
            wait_until, lambda: status(cluster, "leader")["pending_writes"] == 4, "all are assigned"
        )
        await asyncio.to_thread(promote, cluster, "follower1")
        cluster.heal("leader")
        assert {(await task).outcome for task in pending} == {Outcome.UNKNOWN}
        assert time.monotonic() - begun_s < 10
        for each in (client, *waiting):
            each.close()

    asyncio.run(run())
    wait_until(lambda: status(cluster, "leader")["leader"] == "follower1", "the old leader follows")
    verify(cluster, history, STRONG_ONLY)
