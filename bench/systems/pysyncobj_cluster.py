"""PySyncObj: Raft as a Python library, five nodes in memory.

It has no door to connect to: the program that writes is a node. So it is measured twice: loaded inside the process of
the leader, where a write costs no request from outside, with as many under way as the others get connections; and
through a small door in that process, by the same generator as the others.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import msgspec

from bench.generator import LoadResult
from bench.installing import python_package
from bench.systems.contract import HOST, STOP_TIMEOUT_S, System, Tools, Work
from retinue.errors import ClusterError
from retinue.ports import free_ports

REQUIREMENT = "pysyncobj==0.3.17"
NODES = 5
KEYS = 10_000
_PROGRAM = Path(__file__).with_name("pysyncobj_node.py")


class PySyncObj(System):
    """Four nodes that follow, and one that leads and does the rounds."""

    def __init__(self, tools: Tools, *, door: bool) -> None:
        super().__init__(tools, "PySyncObj door" if door else "PySyncObj inside")
        self.door = door
        self.configuration = (
            "5 nodes in memory, no journal, ReplDict, "
            + ("SET by a door on the poller of the leader" if door else "written to in the leader's process")
            + ", appendEntriesUseBatch, appendEntriesPeriod 1 ms, batches and buffers of 1 MiB, "
            "no compaction during a run, ticked by hand"
        )
        self._driver: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """See that it can be had and comes up."""
        self.library = python_package(REQUIREMENT, self.tools.packages)
        self._open()
        self.stop()

    def measure(self, work: Work) -> LoadResult:
        """Let the leader write, or load its door."""
        return self.load(work, "resp-set", self.port) if self.door else self._drive(work)

    def prepare(self, work: Work) -> None:
        """Start the nodes, for this work only.

        With a message to every follower each millisecond an idle cluster would take a good part of the machine.
        """
        self._open()

    def finish(self) -> None:
        """Stop them again."""
        self.stop()

    def process_ids(self) -> list[int]:
        """The nodes; that of the leader also does the writing, if there is no door."""
        return super().process_ids() + ([self._driver.pid] if self._driver is not None else [])

    def stop(self) -> None:
        """End all nodes."""
        if self._driver is not None:
            self._driver.kill()
            self._driver.wait(STOP_TIMEOUT_S)
            for pipe in (self._driver.stdin, self._driver.stdout):
                if pipe is not None:
                    pipe.close()
            self._driver = None
        super().stop()

    def _open(self) -> None:
        """Start the nodes and wait until the first one leads."""
        environment = {"PYTHONPATH": str(self.library)}
        ports = free_ports(NODES + 1)
        self.port = ports.pop()
        addresses = [f"{HOST}:{port}" for port in ports]
        for own in addresses[1:]:
            others = [other for other in addresses if other != own]
            self.launch([sys.executable, "-P", str(_PROGRAM), own, *others], own, environment)
        with (self.folder / "leader.log").open("w") as log:
            self._driver = subprocess.Popen(
                [sys.executable, "-P", str(_PROGRAM), *addresses, "--door", str(self.port)],
                env={**os.environ, **environment},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
            )
        if self._line() != "leads":
            raise ClusterError(f"{self.name} elected no leader; last words: {self._last_words()}")

    def _drive(self, work: Work) -> LoadResult:
        assert self._driver is not None
        assert self._driver.stdin is not None
        wanted = {
            "in_flight": work.connections,
            "seconds": work.seconds,
            "warm_up": work.warm_up,
            "value_bytes": work.value_bytes,
            "keys": KEYS,
        }
        self._driver.stdin.write(msgspec.json.encode(wanted).decode() + "\n")
        self._driver.stdin.flush()
        return msgspec.json.decode(self._line(), type=LoadResult)

    def _line(self) -> str:
        assert self._driver is not None
        assert self._driver.stdout is not None
        line = self._driver.stdout.readline().strip()
        if not line:
            raise ClusterError(f"{self.name}: the leading node has ended; last words: {self._last_words()}")
        return line
