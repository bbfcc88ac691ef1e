"""Our own cluster: a leader and five followers, write quorum 3, as `retinue start` makes it."""

from __future__ import annotations

from contextlib import ExitStack

from bench.generator import LoadResult
from bench.installing import NotAvailable
from bench.systems.contract import System, Tools, Work
from retinue.cluster import Cluster
from retinue.ports import free_ports

FOLLOWERS = 5


class Retinue(System):
    """A cluster of this checkout, reached through its HTTP or its Redis-protocol door."""

    def __init__(self, tools: Tools, *, synced: bool, door: str = "resp", followers: int = FOLLOWERS) -> None:
        super().__init__(tools, f"retinue {'synced' if synced else 'memory'} {door}")
        self.synced, self.door, self.followers = synced, door, followers
        self.configuration = f"1 leader, {followers} followers, write_quorum 3, " + (
            "SQLite on this disk, WAL, synchronous FULL" if synced else "memory true"
        )
        self._cluster = ExitStack()

    def start(self) -> None:
        """Start the cluster and look up its ports."""
        settings = {"write_quorum": "3", "memory": str(not self.synced).lower(), "min_free_bytes": "0"}
        self.cluster = Cluster(self.folder, free_ports(self.followers + 1), settings)
        self._cluster.enter_context(self.cluster)
        self.port = self.cluster.ports[0]
        if self.door == "resp":
            in_force = self.cluster.request("leader", "GET", "/config").checked().json()
            port = in_force.get("resp_port")
            if not isinstance(port, int):
                raise NotAvailable("This checkout has no Redis-protocol door (GET /config names no resp_port).")
            self.port = port

    def stop(self) -> None:
        """Stop the cluster."""
        self._cluster.close()

    def prepare(self, work: Work) -> None:
        """Keys to read."""
        if work.what == "read":
            self.fill("resp-set", self.port)

    def process_ids(self) -> list[int]:
        """The nodes."""
        return [self.cluster.process(name).pid for name in self.cluster.names]

    def measure(self, work: Work) -> LoadResult:
        """Write with the quorum, or read what is committed from the leader."""
        if self.door == "http":
            return self.load(work, "http-put", self.port)
        return self.load(work, "resp-get" if work.what == "read" else "resp-set", self.port)
