"""What must hold at the end of every test that broke something: the nodes agree, the clients were told the truth."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any

from retinue.cluster import Cluster
from retinue.errors import RetinueError
from retinue.lab.checker import FIXED_LEADER, FinalNode, check_final, check_history
from retinue.lab.history import Level, Operation, Outcome
from retinue.store import Store
from tests.cluster.workload import wait_until


def status(cluster: Cluster, name: str) -> dict[str, Any]:
    """What a node says of itself and the cluster."""
    return cluster.request(name, "GET", "/status").checked().json()


def dump(cluster: Cluster, name: str) -> bytes:
    """All keys of a node, with values and versions."""
    return cluster.request(name, "GET", "/dump", timeout_s=30).checked().body


def position(cluster: Cluster, name: str) -> tuple[object, ...] | None:
    """How far a node is: last version, trusted version, checksum chain; `None` while it has anything undecided."""
    try:
        told = status(cluster, name)
    except RetinueError:
        return None
    return (told["last_version"], told["chain"]) if told["last_version"] == told["trusted"] else None


def agree(cluster: Cluster, names: Sequence[str] | None = None) -> bool:
    """Whether these nodes hold the same, with nothing undecided."""
    positions = {position(cluster, name) for name in names or cluster.names}
    return len(positions) == 1 and None not in positions


def wait_for_agreement(cluster: Cluster, timeout_s: float = 20, names: Sequence[str] | None = None) -> float:
    """Wait until these nodes hold the same to the byte; the seconds that it took."""
    names = names or cluster.names
    took_s = wait_until(lambda: agree(cluster, names), f"{', '.join(names)} agree", timeout_s)
    assert len({dump(cluster, name) for name in names}) == 1
    return took_s


def versions_held(cluster: Cluster, name: str) -> tuple[int, dict[str, list[int]]]:
    """The floor of a node that is stopped, and the versions of each request id in its log."""
    store = Store(cluster.node_dir(name), synchronous="OFF")
    try:
        image = store.load()
    finally:
        store.close()
    requests: dict[str, list[int]] = {}
    for entry in image.entries:
        if entry.request_id:
            requests.setdefault(entry.request_id, []).append(entry.version)
    return image.hard.floor, requests


def stop_cleanly(cluster: Cluster) -> None:
    """Stop all nodes with SIGTERM: each must end by itself, with exit code 0."""
    processes = {name: cluster.process(name) for name in cluster.names if cluster.running(name)}
    begun_s = time.monotonic()
    cluster.stop()
    codes = {name: process.exit_code for name, process in processes.items()}
    assert codes == dict.fromkeys(processes, 0), f"after {time.monotonic() - begun_s:.1f} s: {codes}"


def verify(
    cluster: Cluster,
    history: Sequence[Operation],
    linearizable: Collection[Level] = FIXED_LEADER,
    timeout_s: float = 20,
) -> None:
    """Everything that must hold once all nodes run again; stops the cluster.

    All nodes equal with nothing pending, every acknowledged write exactly once in every log, refused ones in none,
    unknown ones the same everywhere, no version twice, the history linearizable.
    """
    wait_for_agreement(cluster, timeout_s)
    told = {name: status(cluster, name) for name in cluster.names}
    digests = {name: hashlib.sha256(dump(cluster, name)).hexdigest()[:16] for name in cluster.names}
    stop_cleanly(cluster)
    nodes = []
    for name in cluster.names:
        floor, requests = versions_held(cluster, name)
        pending = told[name]["last_version"] - told[name]["trusted"]
        nodes.append(FinalNode(name, told[name]["trusted"], pending, digests[name], floor, requests))
    verdict = check_final(nodes, history).plus(check_history(history, linearizable))
    assert [f"{violation.check}: {violation.detail}" for violation in verdict.violations][:5] == []
    assert verdict.undecided == 0
    given = Counter(op.version for op in history if op.is_write and op.outcome is Outcome.OK)
    assert [version for version, times in given.items() if times > 1] == []
