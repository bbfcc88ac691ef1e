"""Followers that were away catch up, by ranges or by a snapshot, and what waits for them is bounded meanwhile."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from retinue.cluster import Cluster
from retinue.lab.load import LoadResult, closed_loop
from tests.cluster.conftest import StartCluster
from tests.cluster.verification import status, wait_for_agreement
from tests.cluster.workload import Client, urls_of, wait_until

MIB = 1 << 20


def from_proc(cluster: Cluster, name: str, field: str) -> int:
    """A number that the system keeps of a node's process: `Threads`, or `VmRSS` in KiB."""
    lines = Path(f"/proc/{cluster.pid(name)}/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(f"{field}:")))


def resident_mib(cluster: Cluster, name: str) -> float:
    return from_proc(cluster, name, "VmRSS") / 1024


def load(cluster: Cluster, duration_s: float, clients: int = 16) -> LoadResult:
    found = asyncio.run(closed_loop(cluster.url("leader"), clients, duration_s))
    assert found.failures == {}
    return found


def write_many(cluster: Cluster, count: int) -> int:
    """Write until at least `count` more versions are there; how many there are then."""
    last = int(status(cluster, "leader")["last_version"])
    upto = last + count
    while last < upto:
        load(cluster, 1.0, 32)
        last = int(status(cluster, "leader")["last_version"])
    return last


def is_level(cluster: Cluster, name: str) -> bool:
    """Whether a follower has everything that the leader has told it of."""
    told = next(each for each in status(cluster, "leader")["followers"] if each["name"] == name)
    return bool(told["state"] == "live" and told["lag_versions"] < 100)


def latencies_ms(cluster: Cluster, until: Callable[[], bool]) -> list[float]:
    """The latencies of one client's writes, 5 ms apart, until something has happened."""
    found: list[float] = []

    async def run() -> None:
        client = Client("light", urls_of(cluster), [])
        while not await asyncio.to_thread(until):
            for _ in range(20):
                begun_s = time.perf_counter()
                reply = await client.ask("leader", "PUT", "/kv/light", {"value": 1})
                assert reply.status == 200, reply.body
                found.append((time.perf_counter() - begun_s) * 1000)
                await asyncio.sleep(0.005)
        client.close()

    asyncio.run(run())
    return found


def p99_ms(found: list[float]) -> float:
    return statistics.quantiles(found, n=100)[98]


def test_a_restarted_follower_catches_up_ten_thousand_writes(start_cluster: StartCluster) -> None:
    cluster = start_cluster()
    cluster.kill("follower5")
    write_many(cluster, 10_000)
    ends_s = time.monotonic() + 2
    calm_ms = p99_ms(latencies_ms(cluster, lambda: time.monotonic() > ends_s))
    cluster.launch(["follower5"])
    begun_s = time.monotonic()
    busy = latencies_ms(cluster, lambda: is_level(cluster, "follower5"))
    took_s = time.monotonic() - begun_s
    print(
        f"10,000 missed writes in {took_s:.2f} s from the start of the process; p99 {calm_ms:.1f} ms before, ", end=""
    )
    print(f"{p99_ms(busy):.1f} ms meanwhile ({len(busy)} writes)")
    assert took_s <= 10
    assert p99_ms(busy) <= 10 * calm_ms + 100
    wait_for_agreement(cluster)


def check_absent_follower(cluster: Cluster, writes: int, most_mib: float) -> None:
    """Cut a follower off, write a lot, and let it back: the leader's memory is bounded, the follower catches up."""
    write_many(cluster, 2000)
    before_mib = resident_mib(cluster, "leader")
    cluster.cut_off("leader", ["follower5"])
    write_many(cluster, writes)
    grown_mib = resident_mib(cluster, "leader") - before_mib
    told = status(cluster, "leader")
    print(
        f"{writes} writes without follower5: the leader grew by {grown_mib:.1f} MiB to {before_mib + grown_mib:.0f} MiB"
    )
    assert grown_mib <= most_mib
    assert told["floor"] > 2000
    cluster.heal("leader")
    took_s = wait_for_agreement(cluster, 60)
    print(f"level again {took_s:.2f} s after the link was back, by a snapshot: floor {told['floor']}")


def test_memory_is_bounded_while_a_follower_is_cut_off_and_it_gets_a_snapshot(start_cluster: StartCluster) -> None:
    check_absent_follower(start_cluster(log_retention=2000, peer_timeout_ms=2000), 20_000, 64)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_memory_is_bounded_over_a_million_writes(start_cluster: StartCluster) -> None:
    check_absent_follower(start_cluster(log_retention=20_000, peer_timeout_ms=2000), 1_000_000, 128)


def test_a_follower_that_was_cut_off_for_a_while_catches_up_by_ranges(start_cluster: StartCluster) -> None:
    cluster = start_cluster(peer_timeout_ms=1000)
    cluster.cut_off("leader", ["follower5"])
    write_many(cluster, 3000)
    assert status(cluster, "leader")["floor"] == 0
    cluster.heal("leader")
    wait_for_agreement(cluster, 30)


def test_a_paused_follower_does_not_hold_the_others_back(start_cluster: StartCluster) -> None:
    cluster = start_cluster(write_quorum=3)
    load(cluster, 1.0)
    before = load(cluster, 2.0)
    threads, memory_mib = from_proc(cluster, "leader", "Threads"), resident_mib(cluster, "leader")
    cluster.pause("follower2")
    during = load(cluster, 3.0)
    ratio = during.per_second / before.per_second
    grown_mib = resident_mib(cluster, "leader") - memory_mib
    print(
        f"{before.per_second:.0f} writes/s before, {during.per_second:.0f} with one follower paused ({ratio:.0%}); ",
        end="",
    )
    print(f"p99 {before.quantile_ms(0.99):.1f} and {during.quantile_ms(0.99):.1f} ms; {grown_mib:.1f} MiB more")
    assert ratio >= 0.5
    assert from_proc(cluster, "leader", "Threads") <= threads + 1
    assert grown_mib <= 128
    cluster.resume("follower2")
    took_s = wait_until(lambda: is_level(cluster, "follower2"), "follower2 is level again", 30)
    print(f"level {took_s:.2f} s after it went on")
    wait_for_agreement(cluster)
