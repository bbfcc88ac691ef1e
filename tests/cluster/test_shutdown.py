"""SIGTERM ends every node cleanly, whatever it is doing, and nothing stays behind."""

from __future__ import annotations

import os
import socket
from contextlib import closing
from pathlib import Path

from retinue.cluster import Cluster
from retinue.ports import taken_port
from tests.cluster.conftest import StartCluster
from tests.cluster.verification import status, stop_cleanly, verify, wait_for_agreement
from tests.cluster.workload import Load, wait_until


def processes_of(cluster: Cluster) -> list[int]:
    """Every process on this machine that works in the directory of this cluster."""
    mark = str(cluster.data_dir).encode()
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and int(entry.name) != os.getpid() and mark in (entry / "environ").read_bytes():
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def test_a_stop_is_clean_and_leaves_nothing_behind(start_cluster: StartCluster) -> None:
    cluster = start_cluster()
    for number in range(20):
        cluster.request("leader", "PUT", f"/kv/key{number}", {"value": number}).checked()
    wait_for_agreement(cluster)
    assert len(processes_of(cluster)) == 6
    stop_cleanly(cluster)
    assert processes_of(cluster) == []
    assert taken_port("127.0.0.1", [port + more for port in cluster.ports for more in (0, 1000)]) is None
    cluster.start()
    for name in cluster.names:
        assert "was closed cleanly" in status(cluster, name)["storage"]
    wait_for_agreement(cluster)
    stop_cleanly(cluster)


def test_a_stop_under_load_is_clean_and_keeps_every_promise(start_cluster: StartCluster) -> None:
    cluster = start_cluster(max_delay_ms=20)
    with Load(cluster) as load:
        load.wait_for_writes(50)
        stop_cleanly(cluster)
        cluster.start()
        load.wait_for_writes(50)
    for name in cluster.names:
        assert "was closed cleanly" in status(cluster, name)["storage"]
    verify(cluster, load.history)


def test_each_node_may_be_restarted_in_turn_under_load(start_cluster: StartCluster) -> None:
    cluster = start_cluster()
    with Load(cluster) as load:
        for name in cluster.names:
            load.wait_for_writes(20)
            process = cluster.process(name)
            cluster.restart(name)
            assert process.exit_code == 0
        load.wait_for_writes(20)
    verify(cluster, load.history)


def test_idle_connections_do_not_keep_a_node_from_ending(start_cluster: StartCluster) -> None:
    cluster = start_cluster(followers=1)
    with closing(socket.create_connection(("127.0.0.1", cluster.ports[0]))) as idle:
        idle.sendall(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert idle.recv(4096).startswith(b"HTTP/1.1 200")
        stop_cleanly(cluster)
    wait_until(lambda: processes_of(cluster) == [], "nothing is left")
