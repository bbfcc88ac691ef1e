"""What goes wrong in a simulated run, and how all of it is made good at the end."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from retinue.core.messages import ConfigureRequested, DiskLow, PromoteRequested
from retinue.lab.plan import Plan
from retinue.lab.simulated_network import SimulatedNetwork
from retinue.lab.simulated_node import SimulatedNode
from retinue.lab.switchboard import Switchboard
from retinue.lab.virtual_time import VirtualTime

SUPERVISION_MS = 150.0
PROMOTION_DEADLINE_MS = 1000.0


class Faults:
    """Draws when and where things go wrong, and does it.

    `_returned`: of nodes with a disk that came back, the highest version that there was at that time.
    """

    def __init__(
        self,
        plan: Plan,
        time: VirtualTime,
        nodes: Mapping[str, SimulatedNode],
        network: SimulatedNetwork,
        switchboard: Switchboard,
    ) -> None:
        self.plan = plan
        self.time = time
        self.nodes = nodes
        self.names = list(nodes)
        self.network = network
        self.switchboard = switchboard
        self.over = False
        self._founded = 0
        self._returned: dict[str, int] = {}
        # While disks are replaced there must be a follower that a write can do without.
        most = len(self.names) - 2 if plan.wipes else len(self.names) - 1
        self._quorum_max = most if plan.reconfigurations else plan.write_quorum

    # --- the schedule ---

    def schedule(self) -> None:
        """Put everything that will go wrong into the heap."""
        plan = self.plan
        kinds: Sequence[tuple[int, Callable[[], None]]] = (
            (plan.promotions // plan.burst, self._promote_in_a_burst),
            (plan.crashes, self._crash),
            (plan.partitions, self._partition),
            (plan.pauses, self._pause),
            (plan.slow_disks, self._slow_disk),
            (plan.full_disks, self._full_disk),
            (plan.wipes, self._wipe),
            (plan.reconfigurations, self._reconfigure),
        )
        for count, fault in kinds:
            for _ in range(count):
                self.time.after(plan.duration_ms * (0.05 + 0.95 * self.time.random.random()), self._strike, fault)
        if plan.supervised:
            self.time.after(SUPERVISION_MS, self._supervise)

    def _strike(self, fault: Callable[[], None]) -> None:
        if not self.over:
            fault()

    def _later(self, longest_ms: float, repair: Callable[..., None], *arguments: object) -> None:
        """Most faults are short, some are long."""
        duration_ms = longest_ms * self.time.random.random() ** 2
        self.time.after(duration_ms, self._repair, repair, arguments)

    def _repair(self, repair: Callable[..., None], arguments: tuple[object, ...]) -> None:
        if not self.over:
            repair(*arguments)

    def _any(self) -> SimulatedNode:
        """Any node, often one that leads: there faults hurt most."""
        random = self.time.random
        leading = [node for node in self.nodes.values() if node.replica is not None and node.replica.role == "leader"]
        if leading and random.random() < 0.35:
            return random.choice(leading)
        return self.nodes[random.choice(self.names)]

    # --- nodes ---

    def start(self, name: str) -> None:
        """Start a node that is down, as its settings say."""
        node = self.nodes[name]
        if not node.up:
            self._founded += 1
            node.start(name == self.names[0], f"cluster{self._founded}")

    def _crash(self) -> None:
        node = self._any()
        if node.up:
            node.crash()
            self._later(1200, self.start, node.name)

    def _wipe(self) -> None:
        """A node gets a new disk; sometimes one that it had before comes back later."""
        node = self._any()
        if self._may_lose(node):
            node.crash()
            node.wipe()
            self._returned.pop(node.name, None)
            self._start_replaced(node)
            if self.time.random.random() < 0.5:
                self._later(1500, self._put_back, node)

    def _put_back(self, node: SimulatedNode) -> None:
        if not self._may_lose(node):
            self._later(600, self._put_back, node)
        else:
            node.crash()
            node.put_back(self.time.random.choice(node.former))
            self._returned[node.name] = max(max(other.disk.rows, default=0) for other in self.nodes.values())
            self._start_replaced(node)

    def _start_replaced(self, node: SimulatedNode) -> None:
        """Start a node on another disk."""
        if self.plan.ambush and self.time.random.random() < self.plan.ambush:
            self._ambush(node)
        else:
            self._later(600, self.start, node.name)

    def _ambush(self, node: SimulatedNode) -> None:
        """Start a node where no leader brings it up to date before somebody takes over who lacks the last writes."""
        random, others = self.time.random, [name for name in self.names if name != node.name]
        leading = [other.name for other in self.serving() if other is not node]
        hidden = sorted({random.choice(leading or others), random.choice(others)})
        left = [name for name in others if name not in hidden]
        pairs = [(one, other) for one in hidden for other in (*left, node.name)]
        pairs += [(other, one) for one, other in pairs]
        self._cut(pairs)
        self._later(1500, self._mend, pairs, 0)
        self.time.after(random.uniform(0, 20), self._repair, self.start, (node.name,))
        self.time.after(random.uniform(5, 60), self._repair, self._promote_one_of, (left,))

    def _may_lose(self, node: SimulatedNode) -> bool:
        """Only as many disks at once as the protocol bears: a copy of every write is left, and writes have a quorum."""
        useless = sum(not self._has_a_vote(other) for other in self.nodes.values() if other is not node)
        bearable = min(2, self.plan.write_quorum, len(self.names) - 1 - self._quorum_max)
        return useless < bearable and self._has_a_vote(node) and node.up

    def _has_a_vote(self, node: SimulatedNode) -> bool:
        """What a node says of itself; but a disk that came back must have been admitted again since."""
        hard = node.disk.hard
        known = {} if hard.configuration is None else hard.configuration.members
        returned = self._returned.get(node.name, -1)
        return hard.voter and (
            returned < 0 or (hard.configuration_version > returned and known.get(node.name) == hard.node_id)
        )

    def _pause(self) -> None:
        node = self._any()
        if node.up and not node.paused:
            node.pause()
            self._later(1500, self._resume, node, node.life)

    def _resume(self, node: SimulatedNode, life: int) -> None:
        if node.life == life and node.paused:
            node.resume()

    def _slow_disk(self) -> None:
        node = self._any()
        node.commit_ms = (5.0, 150.0)
        self.time.note(node.name, "has a slow disk")
        self._later(1500, self._mend_disk, node)

    def _mend_disk(self, node: SimulatedNode) -> None:
        node.commit_ms = self.plan.commit_ms

    def _full_disk(self) -> None:
        node = self._any()
        node.deliver(DiskLow(True))
        self._later(800, node.deliver, DiskLow(False))

    # --- leadership ---

    def promote(self, node: SimulatedNode) -> None:
        """Ask a node to take over."""
        token = self.switchboard.open(lambda _: None)
        node.deliver(PromoteRequested(token, False, self.time.now_ms + PROMOTION_DEADLINE_MS))

    def _promote_in_a_burst(self) -> None:
        """One take-over after another, before the one before has reached everybody."""
        wait_ms = 0.0
        for _ in range(self.plan.burst):
            self.time.after(wait_ms, self._strike, self._promote_anybody)
            wait_ms += self.time.random.uniform(2, self.plan.burst_gap_ms)

    def _promote_anybody(self) -> None:
        self._promote_one_of(self.names)

    def _promote_one_of(self, names: Sequence[str]) -> None:
        node = self.nodes[self.time.random.choice(names)]
        if node.up:
            self.promote(node)

    def serving(self) -> list[SimulatedNode]:
        """Nodes that lead, as far as they know."""
        return [node for node in self.nodes.values() if node.replica is not None and node.replica.serving]

    def _supervise(self) -> None:
        if self.over:
            return
        if not any(not node.paused for node in self.serving()) and self.time.random.random() < 0.5:
            self._promote_anybody()
        self.time.after(SUPERVISION_MS, self._supervise)

    def _reconfigure(self) -> None:
        """Change the write quorum, never below what the oracle counts with."""
        token = self.switchboard.open(lambda _: None)
        wanted = self.time.random.randint(self.plan.write_quorum, self._quorum_max)
        for node in self.serving():
            node.deliver(ConfigureRequested(token, wanted, self.time.now_ms + 500))

    # --- the network ---

    def _partition(self) -> None:
        pairs = self._draw_cut()
        flaps = self.time.random.choice((1, 1, 1, 4))
        self._cut(pairs)
        self._later(1500 / flaps, self._mend, pairs, flaps - 1)

    def _cut(self, pairs: list[tuple[str, str]]) -> None:
        self.network.cut(pairs)
        if self.time.trace is not None:
            self.time.note("network", "cut " + " ".join(f"{one}>{other}" for one, other in pairs))

    def _mend(self, pairs: list[tuple[str, str]], flaps: int) -> None:
        self.network.mend(pairs)
        if self.time.trace is not None:
            self.time.note("network", "mend " + " ".join(f"{one}>{other}" for one, other in pairs))
        if flaps:
            self.time.after(100 * self.time.random.random(), self._repair, self._cut_again, (pairs, flaps))

    def _cut_again(self, pairs: list[tuple[str, str]], flaps: int) -> None:
        self.network.cut(pairs)
        self._later(300, self._mend, pairs, flaps - 1)

    def _draw_cut(self) -> list[tuple[str, str]]:
        """Two sides, one node alone, or single pairs; in both directions or in one."""
        random, names = self.time.random, self.names
        shape = random.random()
        if shape < 0.4:
            side = random.sample(names, random.randint(1, len(names) // 2))
        elif shape < 0.7:
            side = [self._any().name]
        else:
            one, other = random.sample(names, 2)
            return [(one, other)] if random.random() < 0.5 else [(one, other), (other, one)]
        others = [name for name in names if name not in side]
        outward = [(one, other) for one in side for other in others]
        inward = [(other, one) for one, other in outward]
        return random.choice((outward, inward, outward + inward, outward + inward))

    # --- the end ---

    def heal(self) -> None:
        """No more faults; everything that is broken works again; a restart of all, by chance."""
        self.over = True
        self.time.note("", "all faults are over")
        self.network.heal()
        self.switchboard.loss = self.switchboard.lateness = 0.0
        restart = self.time.random.random() < 0.5
        for node in self.nodes.values():
            node.commit_ms = (0.05, 0.5)
            if node.up and restart:
                node.crash()
            if node.up:
                if node.paused:
                    node.resume()
                node.deliver(DiskLow(False))
            else:
                self.start(node.name)

    def ensure_leader(self) -> None:
        """Promote somebody who may vote if nobody leads; in a cluster with a fixed leader, that one.

        A disk that came back believes that it may, and is refused.
        """
        if self.serving():
            return
        voters = [node for node in self.nodes.values() if self._has_a_vote(node)]
        fixed = self.nodes[self.names[0]]
        if self.plan.fixed_leader and fixed in voters:
            self.promote(fixed)
        elif voters:
            self.promote(self.time.random.choice(voters))
