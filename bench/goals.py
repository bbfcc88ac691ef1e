"""The goals: which figure of ours against which of whom, and what the ratio shall be.

Every goal is a ratio of two figures of the same run, because machines differ and are shared. "Quorum 3 of 5" is on our
side the leader and three of five followers, four copies; etcd and PySyncObj answer with three of five.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from bench.systems.contract import System, Tools
from bench.systems.etcd import Etcd
from bench.systems.postgres import Postgres
from bench.systems.pysyncobj_cluster import PySyncObj
from bench.systems.redis import Redis, Valkey
from bench.systems.retinue import Retinue

OURS_MEMORY, OURS_SYNCED, OURS_HTTP = "retinue memory resp", "retinue synced resp", "retinue synced http"

SYSTEMS: dict[str, Callable[[Tools], System]] = {
    OURS_MEMORY: lambda tools: Retinue(tools, synced=False),
    OURS_SYNCED: lambda tools: Retinue(tools, synced=True),
    OURS_HTTP: lambda tools: Retinue(tools, synced=True, door="http"),
    "Redis memory": lambda tools: Redis(tools, synced=False),
    "Redis always": lambda tools: Redis(tools, synced=True),
    "Valkey WAITAOF": Valkey,
    "etcd": Etcd,
    "PostgreSQL ANY 2": Postgres,
    "PySyncObj inside": lambda tools: PySyncObj(tools, door=False),
    "PySyncObj door": lambda tools: PySyncObj(tools, door=True),
}
"""How to make each system that a goal names."""

PER_SECOND, P50, P99 = "per_second", "p50_us", "p99_us"


class Side(msgspec.Struct, frozen=True):
    """One side of a comparison: a system and what it does."""

    system: str
    connections: int
    what: str = "write"
    pipeline: int = 1


class Goal(msgspec.Struct, frozen=True, kw_only=True):
    """One row: the `figure` of ours over that of the peer shall be at least, or at most, the bound."""

    number: int
    what: str
    ours: Side
    peer: Side
    bound: float
    figure: str = PER_SECOND

    @property
    def at_least(self) -> bool:
        """More is better for throughput; for a latency less is."""
        return self.figure == PER_SECOND

    @property
    def systems(self) -> tuple[str, str]:
        """Whose figures they are: ours, the peer's."""
        return self.ours.system, self.peer.system

    def met(self, ratio: float) -> bool:
        """Whether this ratio reaches the goal."""
        return ratio >= self.bound if self.at_least else ratio <= self.bound


def _against(
    number: int, what: str, ours: str, peer: str, bounds: dict[int, float], figure: str = PER_SECOND
) -> list[Goal]:
    """The same comparison at several numbers of connections, each with its bound."""
    return [
        Goal(
            number=number,
            what=f"{what}, {connections} connection{'s' if connections > 1 else ''}",
            ours=Side(ours, connections),
            peer=Side(peer, connections),
            bound=bound,
            figure=figure,
        )
        for connections, bound in bounds.items()
    ]


def all_goals() -> Sequence[Goal]:
    """Goals 1 to 9, in the order of their numbers."""
    goals = _against(1, "write in memory / Redis SET, WAIT 3", OURS_MEMORY, "Redis memory", {64: 1.2, 256: 1.2})
    goals += _against(2, "synced write / Redis always, WAIT 3", OURS_SYNCED, "Redis always", {64: 1.2, 256: 1.4})
    goals += _against(3, "synced write / Valkey WAITAOF 1 3", OURS_SYNCED, "Valkey WAITAOF", {64: 1.2, 256: 1.2})
    for connections in (64, 256):
        goals += _against(4, "synced HTTP PUT / etcd gateway", OURS_HTTP, "etcd", {connections: 3.0})
        goals += _against(4, "the same, p99", OURS_HTTP, "etcd", {connections: 0.3}, P99)
    goals += _against(5, "synced write / PostgreSQL ANY 2", OURS_SYNCED, "PostgreSQL ANY 2", {64: 1.3, 256: 1.3})
    goals += _against(5, "synced HTTP PUT / PostgreSQL ANY 2", OURS_HTTP, "PostgreSQL ANY 2", {64: 1.3})
    goals += _against(6, "write in memory / PySyncObj door", OURS_MEMORY, "PySyncObj door", {64: 12, 256: 12})
    goals += _against(6, "write in memory / PySyncObj inside", OURS_MEMORY, "PySyncObj inside", {64: 12, 256: 12})
    reads = [Side(system, 64, "read") for system in (OURS_MEMORY, "Redis memory")]
    goals.append(Goal(number=7, what="GET / Redis GET, 64 connections", ours=reads[0], peer=reads[1], bound=0.8))
    goals += [
        Goal(
            number=8,
            what=f"{how}, pipelines of 16 / single writes, {connections} connections",
            ours=Side(system, connections, pipeline=16),
            peer=Side(system, connections),
            bound=3.0,
        )
        for system, how in ((OURS_MEMORY, "in memory"), (OURS_SYNCED, "synced"))
        for connections in (16, 64)
    ]
    goals += _against(9, "p50 in memory / Redis WAIT 3", OURS_MEMORY, "Redis memory", {1: 1.3}, P50)
    goals += _against(9, "p50 synced / Redis always", OURS_SYNCED, "Redis always", {1: 1.2}, P50)
    return goals
