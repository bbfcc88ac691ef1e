"""The write quorum is raised and lowered while clients write, and every answer keeps its word."""

from __future__ import annotations

import time

from retinue.cluster import Cluster
from tests.cluster.conftest import StartCluster
from tests.cluster.verification import status, verify
from tests.cluster.workload import Load, wait_until


def test_the_quorum_is_raised_and_lowered_under_load(start_cluster: StartCluster) -> None:
    cluster = start_cluster(write_quorum=3, max_delay_ms=5)
    with Load(cluster) as load:
        for quorum in (5, 1, 4, 0, 3):
            load.wait_for_writes(30)
            told = (
                cluster.request("leader", "PATCH", "/config", {"write_quorum": quorum}, timeout_s=15).checked().json()
            )
            assert told["write_quorum"] == quorum
            receipt = cluster.request("leader", "PUT", "/kv/own", {"value": quorum}).checked().json()
            assert receipt["required_quorum"] == quorum
            assert int(str(receipt["acks"])) >= quorum
        load.wait_for_writes(30)
    wait_until(lambda: {status(cluster, name)["write_quorum"] for name in cluster.names} == {3}, "all know it")
    verify(cluster, load.history)


def test_the_quorum_survives_the_leader_that_changed_it(start_cluster: StartCluster) -> None:
    cluster = start_cluster()
    with Load(cluster) as load:
        load.wait_for_writes(20)
        cluster.request("leader", "PATCH", "/config", {"write_quorum": 2}, timeout_s=15).checked()
        cluster.kill("leader")
        cluster.start(["leader"])
        assert status(cluster, "leader")["write_quorum"] == 2
        cluster.kill("leader")
        for name in ("follower4", "follower5"):
            cluster.kill(name)
        refused = cluster.request("follower1", "POST", "/promote?timeout_ms=500", {}, timeout_s=15)
        assert refused.json()["required_quorum"] == 4, "a smaller write quorum needs more nodes for a take-over"
        cluster.start(["follower4"])
        assert cluster.request("follower1", "POST", "/promote", {}, timeout_s=15).status == 200
        load.target = "follower1"
        load.wait_for_writes(20)
        cluster.start()
        load.wait_for_writes(20)
    verify(cluster, load.history, linearizable=())


def test_the_quorum_of_the_settings_counts_only_when_it_is_a_new_one(start_cluster: StartCluster) -> None:
    cluster = start_cluster(followers=3, write_quorum=2)
    cluster.request("leader", "PATCH", "/config", {"write_quorum": 1}, timeout_s=15).checked()
    cluster.restart("leader")
    wait_until(lambda: status(cluster, "leader")["write_quorum"] == 1, "the restart keeps what was agreed")
    cluster.kill("leader")
    cluster.request("follower1", "POST", "/promote", {}, timeout_s=15).checked()
    cluster.start(["leader"])
    wait_until(lambda: status(cluster, "leader")["leader"] == "follower1", "the old leader follows")
    # Longer than the settings are looked at: the one that leads has had its chance to change the quorum.
    time.sleep(1.5)
    assert status(cluster, "follower1")["write_quorum"] == 1
    cluster.stop()
    again = Cluster(cluster.data_dir, cluster.ports, cluster.settings | {"write_quorum": "3"})
    again.start()
    wait_until(lambda: status(again, "follower1")["write_quorum"] == 3, "the new one is in force")
    again.stop()


def test_raising_waits_for_enough_followers_and_nothing_changes_without(start_cluster: StartCluster) -> None:
    cluster = start_cluster(followers=3, write_quorum=1)
    for name in ("follower2", "follower3"):
        cluster.kill(name)
    before = cluster.request("leader", "PUT", "/kv/color", {"value": 1}).checked().json()["version"]
    refused = cluster.request("leader", "PATCH", "/config", {"write_quorum": 3}, timeout_s=15)
    assert refused.status in (503, 504), refused.body
    cluster.start()
    if refused.status == 503:
        assert status(cluster, "leader")["write_quorum"] == 1
    receipt = cluster.request("leader", "PUT", "/kv/color", {"value": 2}, timeout_s=10).checked().json()
    assert int(str(receipt["version"])) > int(str(before))
