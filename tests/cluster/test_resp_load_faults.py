"""The Redis door under full load while nodes freeze or die: nothing acknowledged is lost, nobody waits for long."""

from __future__ import annotations

import signal
import statistics
import time

import pytest

from retinue.cluster import STOP_TIMEOUT_S, Cluster
from tests.cluster.conftest import StartCluster
from tests.cluster.resp_load import RespLoad, check
from tests.cluster.test_catch_up import from_proc, is_level, p99_ms, resident_mib
from tests.cluster.verification import status
from tests.cluster.workload import wait_until

FOLLOWER = "follower2"

# How a follower that was frozen gets what it missed: what waited on its link, or ranges out of the leader's store after
# the leader has given the link up.
WAYS = {"the-link-is-kept": 10_000, "the-link-is-given-up": 1500}


def state(cluster: Cluster) -> object:
    """What the leader thinks of the follower that is frozen."""
    return next(each["state"] for each in status(cluster, "leader")["followers"] if each["name"] == FOLLOWER)


def freeze_and_thaw(cluster: Cluster, load: RespLoad, frozen_s: float, *, given_up: bool) -> tuple[float, float]:
    """Freeze a follower under load and let it catch up; the p99 of the writes, in ms, before and while it does."""
    calm_s = time.monotonic()
    time.sleep(1)
    threads, memory_mib = from_proc(cluster, "leader", "Threads"), resident_mib(cluster, "leader")
    frozen_at_s = time.monotonic()
    before = load.acknowledged()
    cluster.pause(FOLLOWER)
    time.sleep(frozen_s)
    if given_up:
        wait_until(lambda: state(cluster) == "unreachable", "the leader gives the link up")
    missed = load.acknowledged() - before
    thawed_s = time.monotonic()
    cluster.resume(FOLLOWER)
    wait_until(lambda: is_level(cluster, FOLLOWER), f"{FOLLOWER} is level again", 30)
    level_s = time.monotonic()
    load.wait_for_writes(200)
    grown_mib = resident_mib(cluster, "leader") - memory_mib
    calm_ms = p99_ms(load.latencies_ms(calm_s, frozen_at_s))
    frozen_ms = p99_ms(load.latencies_ms(frozen_at_s, thawed_s))
    # Being level again may take less than a write: those sent right after it are counted too.
    busy_ms = p99_ms(load.latencies_ms(thawed_s, max(level_s, thawed_s + 0.3)))
    print(
        f"{missed} writes missed, level {level_s - thawed_s:.2f} s after it went on; p99 {calm_ms:.1f} ms calm, ",
        end="",
    )
    print(f"{frozen_ms:.1f} frozen, {busy_ms:.1f} catching up (x {busy_ms / calm_ms:.2f}); {grown_mib:.1f} MiB more")
    assert from_proc(cluster, "leader", "Threads") <= threads + 1
    assert grown_mib <= 128
    return calm_ms, busy_ms


@pytest.mark.parametrize("way", WAYS)
def test_a_follower_is_frozen_under_full_load(start_cluster: StartCluster, way: str) -> None:
    cluster = start_cluster(write_quorum=3, peer_timeout_ms=WAYS[way])
    with RespLoad(cluster) as load:
        load.wait_for_writes(1000)
        calm_ms, busy_ms = freeze_and_thaw(cluster, load, 1, given_up=way == "the-link-is-given-up")
    assert load.errors == {}
    assert busy_ms <= 10 * calm_ms + 100
    check(cluster, load)


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("way", WAYS)
def test_the_others_wait_less_than_twice_as_long_while_a_follower_catches_up(
    start_cluster: StartCluster, way: str
) -> None:
    cluster = start_cluster(write_quorum=3, peer_timeout_ms=WAYS[way])
    ratios = []
    with RespLoad(cluster) as load:
        load.wait_for_writes(5000)
        for _ in range(7):
            calm_ms, busy_ms = freeze_and_thaw(cluster, load, 3, given_up=way == "the-link-is-given-up")
            ratios.append(busy_ms / calm_ms)
    print(f"p99 while {FOLLOWER} catches up, over p99 before: median {statistics.median(ratios):.2f}")
    assert load.errors == {}
    check(cluster, load, 120)
    assert statistics.median(ratios) < 2


def kill_all(cluster: Cluster) -> None:
    """End all nodes with SIGKILL, none before the others."""
    processes = [cluster.process(name) for name in cluster.names]
    for process in processes:
        process.send(signal.SIGKILL)
    for process in processes:
        assert process.wait(STOP_TIMEOUT_S)


def kill_all_under_load(start_cluster: StartCluster, times: int, pipeline: int) -> None:
    cluster = start_cluster(write_quorum=3)
    with RespLoad(cluster, pipeline=pipeline) as load:
        for _ in range(times):
            load.wait_for_writes(2000)
            kill_all(cluster)
            cluster.start()
        load.wait_for_writes(2000)
    doubtful = sum(len(client.outcomes) for client in load.writers) - load.acknowledged() - load.errors.total()
    print(f"{load.acknowledged()} acknowledged writes, {doubtful} without an answer, errors {dict(load.errors)}")
    assert doubtful > 0
    check(cluster, load)


@pytest.mark.parametrize("pipeline", [1, 16])
def test_all_nodes_are_killed_under_full_load(start_cluster: StartCluster, pipeline: int) -> None:
    kill_all_under_load(start_cluster, 2, pipeline)


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("pipeline", [1, 4, 64])
def test_all_nodes_are_killed_ten_times_under_full_load(start_cluster: StartCluster, pipeline: int) -> None:
    kill_all_under_load(start_cluster, 10, pipeline)
