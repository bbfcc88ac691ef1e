"""What the parts of a write cost by themselves: the core of a follower and of a leader, and the store.

    python bench/parts.py

Each part runs alone in this process, warm, in groups of 1, 16 and 64 writes of 100 bytes; the best of five rounds, in
microseconds a write. In a cluster the same work takes longer, for six processes share the caches.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).resolve().parents[1] / "src"), str(Path(__file__).resolve().parents[1])]

from rich import box
from rich.table import Table

from bench.workshop import console
from retinue.core.messages import (
    Ack,
    Append,
    Change,
    Entry,
    Event,
    HardState,
    Image,
    LinkUp,
    Promise,
    Proposed,
    Received,
    SaveEntries,
    Seal,
    Started,
    Write,
)
from retinue.core.replica import Replica
from retinue.store import Store

NAMES = ("leader", "f1", "f2", "f3", "f4", "f5")
GROUPS = (1, 16, 64)
WRITES, ROUNDS, KEYS = 12_800, 5, 1000
PUT, VALUE = 1, b"x" * 100


def _entries(first: int, count: int) -> list[Entry]:
    return [Entry(version, 1, PUT, f"key{version % KEYS}", VALUE) for version in range(first, first + count)]


def _node(name: str) -> Replica:
    return Replica(name, NAMES, Image(HardState(name, name=name), {}, []), write_quorum=3)


def _time_steps(node: Replica, events: list[Event]) -> float:
    began_s = time.perf_counter()
    for event in events:
        node.step(event, 1.0)
    return time.perf_counter() - began_s


def follower_s(group: int) -> float:
    """A follower accepts and trusts all writes; seconds."""
    node = _node("f1")
    node.step(Received("leader", Seal(1, "c", node.node_id, False, 3)), 0)
    appends = [Append(1, 1, first - 1, _entries(first, group)) for first in range(1, WRITES, group)]
    return _time_steps(node, [Received("leader", append) for append in appends])


def leader_s(group: int) -> float:
    """A leader proposes all writes, and five followers acknowledge them; seconds."""
    node = _node("leader")
    node.step(Started(True, "c"), 0)
    for name in NAMES[1:]:
        node.step(LinkUp(name, name, "", 0), 0)
    for _ in range(2):  # The take-over ends with the third promise, and the leader asks again.
        for name in NAMES[1:]:
            node.step(Received(name, Promise(1, name, True, 0, 0, 0, 0, {}, None, [])), 0)
    for name in NAMES[1:]:
        node.step(Received(name, Ack(1, [], node.log.last, 0)), 0)
    assert node.serving
    events: list[Event] = []
    last = node.log.last
    for first in range(last + 1, last + WRITES, group):
        changes = [Change(PUT, f"key{version % KEYS}", VALUE) for version in range(first, first + group)]
        events.append(Proposed([Write(first + at, (change,), 1e9) for at, change in enumerate(changes)]))
        events += [Received(name, Ack(1, [], first + group - 1, first - 1)) for name in NAMES[1:]]
    return _time_steps(node, events)


def store_s(group: int) -> float:
    """A store whose database is in memory commits all writes, group by group, as one on disk does; seconds."""
    store = Store(None)
    store.load()
    saves = [[SaveEntries(_entries(first, group))] for first in range(1, WRITES, group)]
    began_s = time.perf_counter()
    for save in saves:
        store.commit(save)
    taken_s = time.perf_counter() - began_s
    store.close()
    return taken_s


PARTS: tuple[tuple[str, Callable[[int], float]], ...] = (
    ("core of a follower", follower_s),
    ("core of the leader, five followers", leader_s),
    ("store, without syncs", store_s),
)


def main() -> None:
    """Measure and print."""
    table = Table("µs a write", *(f"groups of {group}" for group in GROUPS), box=box.SIMPLE_HEAD)
    for name, measure in PARTS:
        best_s = [min(measure(group) for _ in range(ROUNDS)) for group in GROUPS]
        table.add_row(name, *(f"{taken_s / WRITES * 1e6:.2f}" for taken_s in best_s))
    console().print(table)


if __name__ == "__main__":
    main()
