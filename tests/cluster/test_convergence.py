"""After the last write, with no further traffic, all nodes become the same within the largest delay and a little."""

from __future__ import annotations

import json
import time
from functools import partial

from retinue.cluster import Cluster
from retinue.lab.history import Kind, Operation, Outcome
from tests.cluster.conftest import StartCluster
from tests.cluster.verification import dump, status, verify
from tests.cluster.workload import Client, in_parallel, wait_until

LARGEST_DELAY_S = 0.3
ALLOWANCE_S = 1.0


def burst(cluster: Cluster) -> list[Operation]:
    """Writes and deletes of a few keys, many at a time, so that copies overtake each other."""

    async def change(number: int, client: Client) -> None:
        key = f"key{number % 7}"
        if number % 5 == 4:
            await client.delete(key, timeout_ms=10_000)
        else:
            await client.put(key, timeout_ms=10_000)

    return in_parallel(cluster, [partial(change, number) for number in range(70)], 24)


def expected_state(history: list[Operation]) -> dict[str, int]:
    """The keys that must be there, with the version of their newest write."""
    newest: dict[str, Operation] = {}
    for op in sorted((op for op in history if op.outcome is Outcome.OK), key=lambda op: op.version):
        newest[op.key] = op
    return {key: op.version for key, op in newest.items() if op.kind is Kind.PUT}


def test_all_nodes_are_equal_after_a_burst_at_every_quorum(start_cluster: StartCluster) -> None:
    cluster = start_cluster(write_quorum=1, min_delay_ms=0, max_delay_ms=LARGEST_DELAY_S * 1000)
    history: list[Operation] = []
    for quorum in (1, 0, 2, 3, 4, 5):
        cluster.request("leader", "PATCH", "/config", {"write_quorum": quorum}, timeout_s=15).checked()
        history += (seen := burst(cluster))
        ended_s = time.monotonic()
        assert {op.outcome for op in seen} <= {Outcome.OK, Outcome.CONDITION_FAILED}
        wait_until(lambda: len({dump(cluster, name) for name in cluster.names}) == 1, f"equal at k={quorum}", 10, 0.005)
        took_s = time.monotonic() - ended_s
        print(f"k={quorum}: all nodes are equal {took_s * 1000:.0f} ms after the last answer")
        assert took_s <= LARGEST_DELAY_S + ALLOWANCE_S
        told = json.loads(dump(cluster, "follower5"))
        assert {key: row["version"] for key, row in told.items()} == expected_state(history)


def test_an_older_write_never_brings_a_deleted_key_back(start_cluster: StartCluster) -> None:
    cluster = start_cluster(write_quorum=1, min_delay_ms=0, max_delay_ms=LARGEST_DELAY_S * 1000)

    async def come_and_go(number: int, client: Client) -> None:
        await client.put(f"key{number}")
        await client.delete(f"key{number}")

    history = in_parallel(cluster, [partial(come_and_go, number) for number in range(40)], 20)
    ended_s = time.monotonic()
    assert {op.outcome for op in history} == {Outcome.OK}
    last = max(op.version for op in history)
    names = cluster.names
    wait_until(lambda: all(status(cluster, name)["last_version"] == last for name in names), "all have it", 10)
    wait_until(lambda: all(status(cluster, name)["trusted"] == last for name in names), "all trust it", 10)
    assert time.monotonic() - ended_s <= LARGEST_DELAY_S + ALLOWANCE_S
    assert [dump(cluster, name) for name in names] == [b"{}"] * len(names)
    verify(cluster, history)
