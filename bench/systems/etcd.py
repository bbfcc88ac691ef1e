"""etcd: five members, written to through the JSON gateway of the leader.

A put is answered when a majority of the five, the leader among them, has synced it: three copies, where ours has four.
"""

from __future__ import annotations

from typing import Any

from bench.generator import LoadResult
from bench.installing import debian_program
from bench.systems.contract import HOST, System, Tools, Work
from retinue.call import call
from retinue.errors import RetinueError
from retinue.ports import free_ports

MEMBERS = 5


class Etcd(System):
    """Debian's etcd 3.4."""

    configuration = (
        "5 members with their write-ahead logs on this disk, all puts to the leader's JSON gateway "
        "(POST /v3/kv/put, keep-alive), log level error, no snapshot during a run"
    )

    def __init__(self, tools: Tools) -> None:
        super().__init__(tools, "etcd")

    def start(self) -> None:
        """Start the members and find out who leads."""
        program, environment = debian_program("etcd", "etcd-server", self.tools.packages)
        ports = free_ports(2 * MEMBERS)
        self.clients, peers = ports[:MEMBERS], ports[MEMBERS:]
        members = ",".join(f"m{number}=http://{HOST}:{port}" for number, port in enumerate(peers))
        for number, (client, peer) in enumerate(zip(self.clients, peers, strict=True)):
            options = {
                "name": f"m{number}",
                "data-dir": str(self.folder / f"m{number}"),
                "listen-client-urls": f"http://{HOST}:{client}",
                "advertise-client-urls": f"http://{HOST}:{client}",
                "listen-peer-urls": f"http://{HOST}:{peer}",
                "initial-advertise-peer-urls": f"http://{HOST}:{peer}",
                "initial-cluster": members,
                "initial-cluster-state": "new",
                "snapshot-count": "10000000",
                "quota-backend-bytes": str(8 << 30),
                "logger": "zap",
                "log-level": "error",
            }
            words = [word for name, value in options.items() for word in (f"--{name}", value)]
            self.launch([str(program), *words], f"m{number}", environment)
        self.wait_for(lambda: self._leader() is not None, "the election")

    def measure(self, work: Work) -> LoadResult:
        """Put through the gateway of the leader, which is looked up again: it may have changed."""
        leader = self._leader()
        assert leader is not None, "etcd has no leader any more"
        return self.load(work, "http-post-etcd", leader)

    def _leader(self) -> int | None:
        """The client port of the leader; `None` while some member is away or nobody leads."""
        leader = None
        for port in self.clients:
            try:
                answer = call(f"http://{HOST}:{port}", "POST", "/v3/maintenance/status", body=b"{}", timeout_s=2)
                status: Any = answer.json()
            except RetinueError:
                return None
            if status.get("leader") in (None, "0"):
                return None
            if status["leader"] == status["header"]["member_id"]:
                leader = port
        return leader
