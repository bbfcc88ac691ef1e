"""The leader dies, or all nodes do: nothing that was acknowledged is lost, and no version is given twice."""

from __future__ import annotations

import pytest

from tests.cluster.conftest import StartCluster
from tests.cluster.verification import verify
from tests.cluster.workload import Load


def kill_the_leader(start_cluster: StartCluster, times: int) -> None:
    cluster = start_cluster()
    with Load(cluster) as load:
        for _ in range(times):
            load.wait_for_writes(40)
            cluster.kill("leader")
            cluster.start(["leader"])
        load.wait_for_writes(40)
    verify(cluster, load.history)


def test_the_leader_is_killed_and_restarted_under_load(start_cluster: StartCluster) -> None:
    kill_the_leader(start_cluster, 5)


@pytest.mark.long
@pytest.mark.timeout(600)
def test_the_leader_is_killed_and_restarted_twenty_times_under_load(start_cluster: StartCluster) -> None:
    kill_the_leader(start_cluster, 20)


def test_all_nodes_are_killed_at_once_under_load(start_cluster: StartCluster) -> None:
    cluster = start_cluster()
    with Load(cluster) as load:
        for _ in range(2):
            load.wait_for_writes(60)
            for name in cluster.names:
                cluster.kill(name)
            cluster.start()
        load.wait_for_writes(40)
    verify(cluster, load.history)
