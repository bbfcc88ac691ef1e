"""Goal 12: memory of a node per key, and how long a node takes to serve again, with a million keys.

    python bench/memory.py --keys 1000000

A cluster that syncs to disk is filled with keys of 16 bytes and values of 100 bytes. Memory is the resident set of a
node's process, less that of the empty node. The leader is then stopped and started again: serving means that it leads,
takes writes, and reads what was written.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).resolve().parents[1] / "src"), str(Path(__file__).resolve().parents[1])]

import msgspec
from rich import box
from rich.table import Table

from bench.generator import Load
from bench.generator import run as run_load
from bench.rounds import MET, NOT_MET, Outcome, Plan
from bench.systems.contract import Tools
from bench.workshop import at_least, console, run_command
from retinue.cluster import Cluster
from retinue.errors import EXIT_DONE, ClusterError, RetinueError
from retinue.ports import free_ports

KEYS = 1_000_000
BYTES_PER_KEY, RESTART_S = 450, 5.0
_FILL_TIMEOUT_S = 600.0
_SERVING_TIMEOUT_S = 120.0


class Measured(msgspec.Struct, kw_only=True):
    """Bytes per key on the leader, on the fullest follower and on the restarted leader; seconds until it served."""

    keys: int
    leader_bytes: float
    follower_bytes: float
    restarted_bytes: float
    restart_s: float
    fill_s: float
    disk_bytes: float


def measure(tools: Tools, keys: int) -> Measured:
    """Fill a cluster with so many keys, and restart its leader. Raises `ClusterError`."""
    cluster = Cluster(tools.data / f"memory-{keys}", free_ports(6), {"write_quorum": "3", "min_free_bytes": "0"})
    with cluster:
        empty = {name: resident_bytes(cluster, name) for name in cluster.names}
        fill_s = fill(tools, cluster, keys)
        _wait_until_replicated(cluster)
        grown = {name: (resident_bytes(cluster, name) - empty[name]) / keys for name in cluster.names}
        disk = sum(file.stat().st_size for file in cluster.node_dir("leader").rglob("*") if file.is_file()) / keys
        cluster.stop(["leader"])
        begun_s = time.monotonic()
        cluster.launch(["leader"])
        _wait_until_serving(cluster, keys)
        restart_s = time.monotonic() - begun_s
        return Measured(
            keys=keys,
            leader_bytes=grown["leader"],
            follower_bytes=max(grown[name] for name in cluster.names[1:]),
            restarted_bytes=(resident_bytes(cluster, "leader") - empty["leader"]) / keys,
            restart_s=restart_s,
            fill_s=fill_s,
            disk_bytes=disk,
        )


def resident_bytes(cluster: Cluster, name: str) -> int:
    """The memory that the process of a node has in RAM."""
    for line in Path(f"/proc/{cluster.process(name).pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise ClusterError(f"The memory of {name} cannot be read: this needs Linux.")


def fill(tools: Tools, cluster: Cluster, keys: int, value_bytes: int = 100) -> float:
    """Write each key once, through the Redis-protocol door where there is one; the seconds that it took."""
    resp_port = cluster.request("leader", "GET", "/config").checked().json().get("resp_port")
    door = isinstance(resp_port, int)
    load = Load(
        mode="resp-set" if door else "http-put",
        port=resp_port if isinstance(resp_port, int) else cluster.ports[0],
        connections=16,
        pipeline=16 if door else 1,
        keys=keys,
        value_bytes=value_bytes,
        seconds=_FILL_TIMEOUT_S,
        fill=True,
    )
    result = run_load(tools.generator, load)
    if result.errors:
        raise ClusterError(f"The cluster could not be filled with {keys} keys: {result.errors}.")
    return result.seconds


def _wait_until_replicated(cluster: Cluster) -> None:
    """Wait until every follower holds what the leader holds."""
    deadline_s = time.monotonic() + _SERVING_TIMEOUT_S
    while True:
        versions = {
            str(cluster.request(name, "GET", "/kv?limit=1").checked().json()["version"]) for name in cluster.names
        }
        if len(versions) == 1:
            return
        if time.monotonic() > deadline_s:
            raise ClusterError(f"The followers did not catch up within {_SERVING_TIMEOUT_S:.0f} s.")
        time.sleep(0.2)


def _wait_until_serving(cluster: Cluster, keys: int) -> None:
    """Wait until the leader takes a write and reads the last key that was written."""
    deadline_s = time.monotonic() + _SERVING_TIMEOUT_S
    while True:
        try:
            cluster.request("leader", "PUT", "/kv/after", {"value": "the restart"}, 1.0).checked()
            cluster.request("leader", "GET", f"/kv/key:{keys - 1:012d}").checked()
            return
        except RetinueError as error:
            if time.monotonic() > deadline_s:
                raise ClusterError(f"The leader did not serve again: {error.detail}") from None
        time.sleep(0.02)


def outcomes(tools: Tools, plan: Plan) -> list[Outcome]:
    """The rows of goal 12 in the table of goals; one measurement, whatever the number of rounds."""
    found = measure(tools, KEYS)
    worst = max(found.leader_bytes, found.follower_bytes, found.restarted_bytes)
    return [
        Outcome(
            number=12,
            what="memory of a node per key, 1 M keys",
            goal=f"<= {BYTES_PER_KEY} B",
            verdict=MET if worst <= BYTES_PER_KEY else NOT_MET,
            ours=f"{worst:.0f} B",
            note=f"leader {found.leader_bytes:.0f}, follower {found.follower_bytes:.0f}, "
            f"restarted {found.restarted_bytes:.0f} B",
        ),
        Outcome(
            number=12,
            what="restart of the leader until it serves, 1 M keys",
            goal=f"<= {RESTART_S:g} s",
            verdict=MET if found.restart_s <= RESTART_S else NOT_MET,
            ours=f"{found.restart_s:.1f} s",
        ),
    ]


def main(words: Sequence[str]) -> int:
    """The command of this file."""
    parser = argparse.ArgumentParser(prog="bench/memory.py", description="memory per key, and restarts")
    parser.add_argument("--keys", type=at_least(1000), default=KEYS, help=f"how many keys, at least 1000 ({KEYS})")
    arguments = parser.parse_args(words)

    def body(tools: Tools) -> int:
        _show(measure(tools, arguments.keys))
        return EXIT_DONE

    return run_command(body)


def _show(found: Measured) -> None:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("what", "measured", "wanted"):
        table.add_column(column, justify="left" if column == "what" else "right")
    table.add_row("filling", f"{found.fill_s:.1f} s, {found.keys / found.fill_s:,.0f} keys/s", "")
    table.add_row("memory of the leader per key", f"{found.leader_bytes:.0f} B", f"<= {BYTES_PER_KEY} B")
    table.add_row("memory of a follower per key", f"{found.follower_bytes:.0f} B", f"<= {BYTES_PER_KEY} B")
    table.add_row("memory of the restarted leader per key", f"{found.restarted_bytes:.0f} B", f"<= {BYTES_PER_KEY} B")
    table.add_row("disk of the leader per key", f"{found.disk_bytes:.0f} B", "")
    table.add_row("restart of the leader until it serves", f"{found.restart_s:.1f} s", f"<= {RESTART_S:g} s")
    console().print(f"{found.keys:,} keys of 16 B, values of 100 B")
    console().print(table)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
