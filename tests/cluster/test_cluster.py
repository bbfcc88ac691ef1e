"""The local cluster: its processes come, go, pause and come back, and nothing of them stays."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import threading
from contextlib import closing
from pathlib import Path

import pytest

from retinue.cli import main
from retinue.cluster import Cluster
from retinue.cluster_state import STATE_FILE
from retinue.errors import EXIT_USAGE, ClusterError, SettingsError
from retinue.ports import free_ports, taken_port
from retinue.processes import Process, spawn


def put(cluster: Cluster, key: str, value: object) -> int:
    receipt = cluster.request("leader", "PUT", f"/kv/{key}", {"value": value}, timeout_s=10).checked().json()
    assert receipt["outcome"] == "committed"
    return int(str(receipt["version"]))


def read(cluster: Cluster, name: str, key: str) -> object:
    return cluster.request(name, "GET", f"/kv/{key}").checked().json()["value"]


def test_a_cluster_from_start_to_stop(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path / "c", free_ports(4), {"write_quorum": "2"})
    assert cluster.stopped
    assert cluster.stop() == []
    with cluster:
        nodes = cluster.status()
        assert [(node.name, node.role, node.healthy) for node in nodes] == [
            ("leader", "leader", True),
            ("follower1", "follower", True),
            ("follower2", "follower", True),
            ("follower3", "follower", True),
        ]
        assert [node.data_dir for node in nodes] == [str(tmp_path / "c" / node.name) for node in nodes]
        assert cluster.leader() == "leader"
        assert cluster.request("leader", "GET", "/config").json()["write_quorum"] == 2
        put(cluster, "color", "blue")
        assert cluster.start() == []
        processes = [cluster.process(name) for name in cluster.names]
    assert cluster.stopped
    assert not any(process.alive() for process in processes)
    assert [node.pid for node in cluster.status()] == [None] * 4
    with cluster:
        assert read(cluster, "leader", "color") == "blue"


def test_kill_pause_restart_and_take_over_by_another_program(tmp_path: Path) -> None:
    with Cluster(tmp_path, free_ports(3)) as cluster:
        same = Cluster.load(tmp_path)
        assert same is not None
        cluster.kill("follower1")
        assert not same.running("follower1")
        assert [node.healthy for node in same.status()] == [True, False, True]
        with pytest.raises(ClusterError, match="does not run"):
            same.pause("follower1")
        assert same.start() == ["follower1"]
        cluster.pause("follower2")
        assert not cluster.status()[2].healthy
        assert cluster.running("follower2")
        cluster.resume("follower2")
        cluster.wait_healthy(["follower2"])
        before = cluster.pid("follower2")
        cluster.restart("follower2")
        assert cluster.pid("follower2") not in (None, before)
        same.stop(["follower1"])
        assert not cluster.stopped
        assert same.start(["follower1"]) == ["follower1"]


def test_a_paused_node_can_be_stopped(tmp_path: Path) -> None:
    with Cluster(tmp_path, free_ports(1)) as cluster:
        process = cluster.process("leader")
        cluster.pause("leader")
    assert not process.alive()


def test_cut_off_and_heal(tmp_path: Path) -> None:
    with Cluster(tmp_path, free_ports(2)) as cluster:
        put(cluster, "k", 1)
        cluster.cut_off("follower1")
        late = cluster.request("leader", "PUT", "/kv/k?timeout_ms=200", {"value": 2}, timeout_s=10)
        assert late.status in (503, 504)
        cluster.heal("follower1")
        put(cluster, "k", 3)


def test_a_taken_port_is_told_before_anything_starts(tmp_path: Path) -> None:
    ports = free_ports(2)
    with closing(socket.create_server(("127.0.0.1", ports[1] + 1000))):
        with pytest.raises(SettingsError, match=rf"PORT={ports[0]}.*{ports[1] + 1000}.*follower1"):
            Cluster(tmp_path, ports).start()
        assert not (tmp_path / STATE_FILE).exists()


def test_a_node_that_ends_takes_its_start_back(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, free_ports(2))
    cluster.node_dir("follower1").mkdir(parents=True)
    (cluster.node_dir("follower1") / "retinue.db").write_text("This is no database. " * 1000)
    with pytest.raises(ClusterError, match="follower1 has ended"):
        cluster.start()
    assert not cluster.running("leader")


def test_what_cannot_be_a_cluster_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="write_quorum=3"):
        Cluster(tmp_path, free_ports(2), {"write_quorum": "3"})
    with pytest.raises(ClusterError, match="leader, follower1"):
        Cluster(tmp_path, free_ports(2)).url("follower7")
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match="DATA_DIR="):
        Cluster(tmp_path / "file", free_ports(1)).start()
    (tmp_path / STATE_FILE).write_text("{")
    with pytest.raises(ClusterError, match="cannot be read"):
        Cluster.load(tmp_path)


def test_two_starts_at_once_start_it_once(tmp_path: Path) -> None:
    ports = free_ports(2)
    with Cluster(tmp_path, ports) as cluster:
        cluster.stop()
        started: list[str] = []
        threads = [threading.Thread(target=lambda: started.extend(Cluster(tmp_path, ports).start())) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(started) == ["follower1", "leader"]


def test_nodes_get_no_setting_from_the_shell_but_through_the_cluster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PORT", "1")
    monkeypatch.setenv("QUORUM_SIZE", "9")
    monkeypatch.setenv("RETINUE_TOKEN", "secret")
    with Cluster(tmp_path, free_ports(2)) as cluster:
        environment = Path(f"/proc/{cluster.pid('leader')}/environ").read_bytes()
        assert b"secret" not in environment
        assert cluster.request("leader", "GET", "/config").json()["write_quorum"] == 1


def test_a_pid_that_now_belongs_to_another_process_is_left_alone(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "60"]) as other:
        stale = Process(other.pid, "another boot/1")
        assert not stale.alive()
        assert not stale.send(signal.SIGKILL)
        (tmp_path / STATE_FILE).write_text(
            json.dumps(
                {
                    "settings": {},
                    "nodes": [
                        {"name": "leader", "port": free_ports(1)[0], "pid": other.pid, "started": "another boot/1"}
                    ],
                }
            )
        )
        cluster = Cluster.load(tmp_path)
        assert cluster is not None
        assert cluster.stop() == []
        assert other.poll() is None
        other.kill()


def test_processes(tmp_path: Path) -> None:
    process = spawn(["/bin/sh", "-c", "echo hello; exit 3"], os.environ, tmp_path / "log")
    assert process.wait(10)
    assert (process.exit_code, (tmp_path / "log").read_text()) == (3, "hello\n")
    assert not process.send(signal.SIGTERM)
    stubborn = spawn(["/bin/sleep", "60"], os.environ, tmp_path / "log")
    assert not stubborn.wait(0.01)
    assert stubborn.send(signal.SIGKILL)
    assert stubborn.wait(10)
    assert stubborn.exit_code == -signal.SIGKILL


def test_ports() -> None:
    ports = free_ports(6)
    assert len({*ports, *(port + 1000 for port in ports)}) == 12
    assert max(ports) + 1000 < 32768
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        port = server.getsockname()[1]
        assert taken_port("127.0.0.1", [port]) == port
    assert taken_port("127.0.0.1", [port]) is None


def test_a_new_write_quorum_is_in_force_when_the_start_is_done(tmp_path: Path) -> None:
    ports = free_ports(4)
    for quorum in ("2", "1", "3"):
        with Cluster(tmp_path, ports, {"write_quorum": quorum}) as cluster:
            receipt = cluster.request("leader", "PUT", "/kv/k", {"value": quorum}, timeout_s=10).checked().json()
            assert str(receipt["required_quorum"]) == quorum


def test_a_cluster_whose_last_node_was_stopped_is_stopped(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path / "c", free_ports(2), {"write_quorum": "0"})
    with cluster:
        cluster.stop(["follower1"])
        assert not cluster.stopped
        cluster.stop(["leader"])
        assert cluster.stopped
        assert cluster.stop(["leader"]) == []
        assert cluster.stopped


def test_another_number_of_followers_is_refused_before_anything_stops(tmp_path: Path) -> None:
    with Cluster(tmp_path / "c", free_ports(3), {"write_quorum": "1"}) as cluster:
        for verb in ("restart", "start"):
            assert main([verb, "--data-dir", str(cluster.data_dir), "--follower-count", "1"]) == EXIT_USAGE
            assert all(node.healthy for node in cluster.status())
        cluster.stop()
        assert main(["start", "--data-dir", str(cluster.data_dir), "--follower-count", "1"]) == EXIT_USAGE
