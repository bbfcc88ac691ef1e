"""With simulated delays, a write takes as long as the k-th fastest of its followers: no longer, and no shorter."""

from __future__ import annotations

import math
import statistics
from functools import partial
from typing import Any

import pytest

from retinue.cluster import Cluster
from tests.cluster.conftest import StartCluster
from tests.cluster.workload import Client, in_parallel, wait_until

FOLLOWERS = 5
SLOWEST_MS = 1000.0
LOADED_MACHINE_MS = 25.0
"""What a machine that does other things at the same time may add, in the middle of many writes."""

NEVER_EARLY_MS = -0.5


def receipts(cluster: Cluster, writes: int) -> list[dict[str, Any]]:
    """The receipts of so many writes on 10 keys, 10 at a time."""
    found: list[dict[str, Any]] = []

    async def put(number: int, client: Client) -> None:
        reply = await client.ask("leader", "PUT", f"/kv/key{number % 10}?timeout_ms=10000", {"value": number})
        assert reply.status == 200, reply.body
        found.append(reply.told)

    in_parallel(cluster, [partial(put, number) for number in range(writes)], 10)
    return found


def excess_ms(receipt: dict[str, Any]) -> float:
    """How much longer a write took than the delays that were drawn for it explain."""
    drawn: list[float] = sorted(receipt["delays_ms"].values())
    assert len(drawn) == FOLLOWERS
    return float(receipt["total_time_ms"] - drawn[receipt["required_quorum"] - 1])


def configure(cluster: Cluster, **settings: object) -> None:
    cluster.request("leader", "PATCH", "/config", settings, timeout_s=15).checked()


def check_law(cluster: Cluster, quorum: int, writes: int) -> None:
    """The time of a write follows the k-th smallest of n uniform delays: Beta(k, n + 1 - k)."""
    configure(cluster, write_quorum=quorum)
    found = receipts(cluster, writes)
    assert {receipt["required_quorum"] for receipt in found} == {quorum}
    mean_ms = statistics.fmean(receipt["total_time_ms"] for receipt in found)
    share = quorum / (FOLLOWERS + 1)
    error_ms = SLOWEST_MS * math.sqrt(share * (1 - share) / (FOLLOWERS + 2) / writes)
    excess = [excess_ms(receipt) for receipt in found]
    print(
        f"k={quorum}: mean {mean_ms:.0f} ms, the law says {SLOWEST_MS * share:.0f} +- {error_ms:.0f} ms; "
        f"excess mean {statistics.fmean(excess):.2f}, median {statistics.median(excess):.2f}, "
        f"smallest {min(excess):.2f} ms"
    )
    assert abs(mean_ms - SLOWEST_MS * share) <= 4 * error_ms + LOADED_MACHINE_MS
    # Not the mean: a machine that is away for a moment adds that to every write under way. One acknowledgement too many
    # would be 130 ms at the median: the next of five uniform delays is later by a Beta(1, 5) share of a second.
    assert statistics.median(excess) <= LOADED_MACHINE_MS
    assert min(excess) >= NEVER_EARLY_MS


def test_a_write_takes_the_kth_smallest_delay(start_cluster: StartCluster) -> None:
    cluster = start_cluster(min_delay_ms=0, max_delay_ms=SLOWEST_MS, seed=7)
    for quorum in (1, 3, 5):
        check_law(cluster, quorum, 40)


@pytest.mark.long
def test_a_write_takes_the_kth_smallest_delay_for_every_k(start_cluster: StartCluster) -> None:
    cluster = start_cluster(min_delay_ms=0, max_delay_ms=SLOWEST_MS)
    for quorum in range(1, FOLLOWERS + 1):
        check_law(cluster, quorum, 100)


def test_delays_below_a_millisecond_are_kept_too(start_cluster: StartCluster) -> None:
    cluster = start_cluster(min_delay_ms=0.1, max_delay_ms=1)
    receipts(cluster, 100)
    excess = [excess_ms(receipt) for receipt in receipts(cluster, 1000)]
    print(f"U[0.1, 1] ms, 10 at a time: excess median {statistics.median(excess):.2f} ms")
    assert statistics.median(excess) <= LOADED_MACHINE_MS
    assert min(excess) >= NEVER_EARLY_MS


def test_the_slowest_followers_get_a_write_too(start_cluster: StartCluster) -> None:
    cluster = start_cluster(write_quorum=1, min_delay_ms=0, max_delay_ms=300)
    receipt = receipts(cluster, 1)[0]
    assert receipt["acks"] >= 1
    version = receipt["version"]

    def acknowledged_by() -> list[str]:
        told = cluster.request("leader", "GET", f"/writes/{version}").checked().json()["acked_by"]
        assert isinstance(told, list)
        return told

    took_s = wait_until(lambda: len(acknowledged_by()) == FOLLOWERS, "all followers acknowledge")
    assert took_s <= 0.3 + 1
