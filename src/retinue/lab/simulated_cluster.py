"""A healthy simulated cluster that does what it is told: for experiments, where `simulator` is for seeds.

Times are about those of a small cluster on one machine. The simulated delay of an entry is drawn as a real leader with
the same seed draws it. An oracle sees all disks and notes what breaks a promise.
"""

from __future__ import annotations

from collections.abc import Callable

from retinue.core.messages import Paced, Reply
from retinue.core.quorum import copies_needed
from retinue.core.replica import Limits
from retinue.driver import RANGE_LIMIT_BYTES, TICK_S
from retinue.errors import ClusterError
from retinue.lab.checker import Violation
from retinue.lab.oracle import Oracle
from retinue.lab.simulated_network import SimulatedNetwork, Weather
from retinue.lab.simulated_node import NodeSetup, SimulatedNode
from retinue.lab.virtual_time import VirtualTime
from retinue.network import Conditions, Network
from retinue.settings import Settings

LATENCY_MS = (0.1, 0.3)
"""Bounds of the time from one node to another, and from a client to a node."""

COMMIT_MS = (0.1, 0.3)
"""Bounds of the time that a commit takes."""


class SimulatedCluster:
    """The nodes `names` on virtual time, the first of which is started to lead. `on_reply` gets what nodes answer.

    The faults take names of nodes that there are.
    """

    def __init__(
        self,
        names: tuple[str, ...],
        seed: int,
        write_quorum: int,
        conditions: Conditions,
        on_reply: Callable[[str, Reply], None],
    ) -> None:
        self.names = names
        self.time = VirtualTime(seed)
        self.oracle = Oracle(names, write_quorum, ambiguous=False)
        self.nodes: dict[str, SimulatedNode] = {}
        weather = Weather(latency_ms=LATENCY_MS, silence_ms=Settings.peer_timeout_ms)
        self.wires = SimulatedNetwork(self.time, self.nodes, weather)
        self.delays = self.wires.delays = Network(conditions, seed=seed)
        for name in names:
            setup = NodeSetup(
                name=name,
                members=names,
                write_quorum=write_quorum,
                limits=Limits(heartbeat_ms=Settings.heartbeat_ms),
                tick_ms=TICK_S * 1000,
                range_bytes=RANGE_LIMIT_BYTES,
            )
            node = self.nodes[name] = SimulatedNode(setup, self.time, self.wires, self.oracle, on_reply)
            node.commit_ms = COMMIT_MS
        self._isolated: set[str] = set()
        self._founded = 0

    # --- what there is ---

    @property
    def violations(self) -> list[Violation]:
        """Promises that were broken."""
        return self.oracle.violations

    def leader(self) -> str | None:
        """The node that leads in the latest epoch, among those that run."""
        leading = [
            (node.replica.epoch, name)
            for name, node in self.nodes.items()
            if node.replica is not None and node.replica.serving and not node.paused
        ]
        return max(leading)[1] if leading else None

    def complete(self) -> bool:
        """Whether somebody leads, and new entries go to all others at once."""
        name = self.leader()
        replica = None if name is None else self.nodes[name].replica
        leadership = None if replica is None else replica.leadership
        return leadership is not None and all(progress.live for progress in leadership.progress.values())

    def can_write(self, name: str) -> bool:
        """Whether this node can reach as many followers as a write needs; true as well where it no longer leads."""
        replica = self.nodes[name].replica
        leadership = None if replica is None else replica.leadership
        return leadership is None or leadership.reachable >= leadership.quorum

    # --- settings ---

    def expect_quorum(self, write_quorum: int) -> None:
        """The write quorum is about to change: from now on fewer copies may do."""
        self.oracle.copies = min(self.oracle.copies, copies_needed(write_quorum))
        self.oracle.ambiguous = True

    def simulate(self, conditions: Conditions) -> None:
        """Let all links be like this; what is on its way keeps its delay."""
        patch = {
            "delay_distribution": conditions.distribution,
            "min_delay_ms": conditions.min_ms,
            "max_delay_ms": conditions.max_ms,
            "in_order_delivery": conditions.in_order,
        }
        self.delays.configure(patch, self.names)
        for node in self.nodes.values():
            node.deliver(Paced(self.delays.retransmit_ms))

    # --- faults ---

    def start(self, name: str) -> None:
        """Start a node on the data that it has; nothing happens to one that runs."""
        node = self.nodes[name]
        if not node.up:
            self._founded += 1
            node.start(name == self.names[0], f"cluster{self._founded}")
            node.deliver(Paced(self.delays.retransmit_ms))

    def kill(self, name: str) -> None:
        """End a node's process; nothing happens to one that is down."""
        node = self.nodes[name]
        if node.up:
            node.crash()

    def pause(self, name: str) -> None:
        """Let a node stand still. Raises `ClusterError` if it does not run."""
        node = self.nodes[name]
        if not node.up:
            raise ClusterError(f"{name} does not run, so it cannot be paused: start it first.")
        node.pause()

    def resume(self, name: str) -> None:
        """Let a paused node go on; nothing happens to any other."""
        node = self.nodes[name]
        if node.up and node.paused:
            node.resume()

    def cut_off(self, name: str) -> None:
        """Let nothing pass between this node and all others."""
        if name not in self._isolated:
            self._isolated.add(name)
            self.wires.cut(self._pairs(name))

    def heal(self, name: str) -> None:
        """End `cut_off`; nothing happens to a node that is not cut off."""
        if name in self._isolated:
            self._isolated.remove(name)
            self.wires.mend(self._pairs(name))

    def _pairs(self, name: str) -> list[tuple[str, str]]:
        others = [other for other in self.names if other != name]
        return [(name, other) for other in others] + [(other, name) for other in others]
