"""A disk runs full: writes are refused before they have a version, reads go on, and room is all it takes to go on."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from retinue.cluster import Cluster
from retinue.ports import free_ports
from tests.cluster.verification import status, stop_cleanly, wait_for_agreement
from tests.cluster.workload import wait_until

VALUE = "x" * 60_000


def may_mount() -> bool:
    """Whether this user may mount a tmpfs here; tried, because root in a container may not."""
    if os.geteuid() != 0:
        return False
    command = ["unshare", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


pytestmark = pytest.mark.skipif(not may_mount(), reason="only root may mount the small disk that this test fills")


@contextmanager
def small_disk(directory: Path, mebibytes: int) -> Iterator[None]:
    """A file system of its own at `directory`, for as long as the block lasts."""
    directory.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={mebibytes}m", "tmpfs", str(directory)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(directory)], check=True)


@contextmanager
def cluster_on_small_disk(directory: Path, name: str, mebibytes: int, **settings: object) -> Iterator[Cluster]:
    texts = {setting: str(value) for setting, value in settings.items()}
    cluster = Cluster(directory / "cluster", free_ports(4), {"write_quorum": "2", **texts})
    with small_disk(cluster.node_dir(name), mebibytes), cluster:
        yield cluster


def fill(cluster: Cluster, name: str, left_bytes: int = 0) -> Path:
    """Take the room on the disk of a node; removing the file gives it back."""
    ballast = cluster.node_dir(name) / "ballast"
    with ballast.open("wb", buffering=0) as file:
        disk = os.statvfs(ballast)
        left = disk.f_bavail * disk.f_frsize - left_bytes
        with suppress(OSError):
            while left > 0:
                left -= file.write(bytes(min(left, 1 << 16)))
    return ballast


def put(cluster: Cluster, key: str, value: str = "v", timeout_ms: int = 500) -> tuple[int, object]:
    answer = cluster.request("leader", "PUT", f"/kv/{key}?timeout_ms={timeout_ms}", {"value": value}, timeout_s=10)
    told = answer.json()
    return answer.status, told["outcome"]


def test_little_space_on_the_leader_stops_writes_and_more_space_lets_them_go_on(tmp_path: Path) -> None:
    with cluster_on_small_disk(tmp_path, "leader", 32, min_free_bytes=8 << 20) as cluster:
        assert put(cluster, "color") == (200, "committed")
        ballast = fill(cluster, "leader", 4 << 20)
        wait_until(lambda: status(cluster, "leader")["disk_low"], "the leader notices")
        before = status(cluster, "leader")["last_version"]
        assert put(cluster, "color", "w") == (503, "not_written")
        assert status(cluster, "leader")["last_version"] == before
        for query in ("", "?read=strong", "?read=local"):
            assert cluster.request("leader", "GET", f"/kv/color{query}").json()["value"] == "v"
        ballast.unlink()
        wait_until(lambda: put(cluster, "color", "w") == (200, "committed"), "writes go on")
        wait_for_agreement(cluster)


def test_a_full_disk_of_the_leader(tmp_path: Path) -> None:
    with cluster_on_small_disk(tmp_path, "leader", 16, min_free_bytes=0) as cluster:
        assert put(cluster, "color") == (200, "committed")
        ballast = fill(cluster, "leader", 1 << 20)
        answers = [put(cluster, f"big{number}", VALUE) for number in range(40)]
        assert set(answers) <= {(200, "committed"), (504, "unknown"), (503, "not_written")}
        wait_until(lambda: status(cluster, "leader")["disk_low"], "the leader notices")
        assert answers.count((504, "unknown")) <= 2
        assert put(cluster, "color", "w") == (503, "not_written")
        for query in ("", "?read=local"):
            assert cluster.request("leader", "GET", f"/kv/color{query}").json()["value"] == "v"
        # A leader that cannot write cannot run a round either, and says so in time.
        assert cluster.request("leader", "GET", "/kv/color?read=strong").status == 503
        ballast.unlink()
        wait_until(lambda: put(cluster, "color", "w") == (200, "committed"), "writes go on")
        wait_for_agreement(cluster)


def test_a_full_disk_of_a_follower_leaves_the_others_alone(tmp_path: Path) -> None:
    with cluster_on_small_disk(tmp_path, "follower1", 16, min_free_bytes=0) as cluster:
        assert put(cluster, "color") == (200, "committed")
        wait_for_agreement(cluster)
        ballast = fill(cluster, "follower1", 1 << 20)
        for number in range(40):
            assert put(cluster, f"big{number}", VALUE) == (200, "committed")
        wait_until(lambda: status(cluster, "follower1")["disk_low"], "the follower notices")
        assert cluster.request("follower1", "GET", "/kv/color").json()["value"] == "v"
        assert put(cluster, "color", "w") == (200, "committed")
        ballast.unlink()
        wait_for_agreement(cluster, 30)
        assert cluster.running("follower1")


def test_a_leader_with_a_full_disk_ends_cleanly_and_comes_back(tmp_path: Path) -> None:
    with cluster_on_small_disk(tmp_path, "leader", 16, min_free_bytes=0) as cluster:
        assert put(cluster, "color") == (200, "committed")
        ballast = fill(cluster, "leader", 1 << 20)
        wait_until(lambda: put(cluster, "big", VALUE)[0] == 503, "the disk is full")
        stop_cleanly(cluster)
        ballast.unlink()
        cluster.start()
        assert put(cluster, "color", "w") == (200, "committed")
        wait_for_agreement(cluster)
