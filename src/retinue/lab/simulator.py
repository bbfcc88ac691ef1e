"""A whole cluster on virtual time from one seed: faults and clients, then healing, then every check.

    report = Simulation(seed=17).run()
    assert not report.violations

The nodes run the real core; only time, disks and the network are simulated. The same seed always gives the same run.
A `Variant` swaps one part for a broken one (see `mutants`), to show that the checks would notice.
"""

from __future__ import annotations

import random
import zlib
from collections import defaultdict
from collections.abc import Sequence

import msgspec

from retinue.core.messages import Kind as EntryKind
from retinue.core.messages import Reply
from retinue.core.replica import Replica
from retinue.lab.checker import (
    FIXED_LEADER,
    STRONG_ONLY,
    FinalNode,
    Verdict,
    Violation,
    check_counter,
    check_final,
    check_history,
    check_list,
    check_set,
    check_sums,
)
from retinue.lab.faults import Faults
from retinue.lab.history import Level, Operation
from retinue.lab.oracle import BrokenPromise, Oracle
from retinue.lab.plan import FOLLOWERS, TICK_MS, Plan, draw_plan
from retinue.lab.simulated_disk import SimulatedDisk
from retinue.lab.simulated_network import SimulatedNetwork
from retinue.lab.simulated_node import NodeSetup, SimulatedNode
from retinue.lab.switchboard import Server, Switchboard
from retinue.lab.virtual_time import VirtualTime
from retinue.lab.workload import COUNTER_KEY, LIST_KEY, SET_PREFIX, SUM_PREFIX, SUM_TOTAL, Client

CONVERGENCE_MS = 6000.0
"""After healing all nodes are equal within this time, the largest simulated delay not counted."""

_POLL_MS = 50.0
_READ_BACK_MS = 150.0
_PROMOTE_AGAIN_MS = 1500.0


class Variant(msgspec.Struct, frozen=True):
    """The parts of a simulation that a mutant replaces."""

    replica: type[Replica] = Replica
    disk: type[SimulatedDisk] = SimulatedDisk
    client: type[Client] = Client
    performs_early: bool = False


CORRECT = Variant()


class Report(msgspec.Struct, frozen=True):
    """What came of one seed."""

    seed: int
    violations: tuple[Violation, ...]
    undecided: int
    operations: int
    take_overs: int
    events: int
    virtual_ms: float
    trace: Sequence[str] = ()


class Simulation:
    """One run. `plan` replaces the one that the seed would draw."""

    def __init__(
        self, seed: int, *, variant: Variant = CORRECT, tracing: bool = False, plan: Plan | None = None
    ) -> None:
        self.seed = seed
        self.time = VirtualTime(seed, tracing)
        self.plan = plan or draw_plan(random.Random(f"plan {seed}"))
        members = ("leader", *(f"follower{number}" for number in range(1, FOLLOWERS + 1)))
        self.oracle = Oracle(members, self.plan.write_quorum, bool(self.plan.reconfigurations or self.plan.wipes))
        self.nodes: dict[str, SimulatedNode] = {}
        weather = msgspec.structs.replace(self.plan.weather)
        self.network = SimulatedNetwork(self.time, self.nodes, weather)
        servers: dict[str, Server] = {}
        self.switchboard = Switchboard(self.time, servers, members)
        for name in members:
            setup = NodeSetup(
                name=name,
                members=members,
                write_quorum=self.plan.write_quorum,
                limits=self.plan.limits,
                tick_ms=TICK_MS,
                replica=variant.replica,
                disk=variant.disk,
                performs_early=variant.performs_early,
            )
            node = SimulatedNode(setup, self.time, self.network, self.oracle, self._reply)
            node.commit_ms = self.plan.commit_ms
            self.nodes[name] = servers[name] = node
        self.faults = Faults(self.plan, self.time, self.nodes, self.network, self.switchboard)
        self.history: list[Operation] = []
        self.clients = [
            variant.client(f"c{number}", self.time, self.switchboard, self.oracle, self.history, self.plan.habits)
            for number in range(self.plan.clients)
        ]

    def _reply(self, node: str, reply: Reply) -> None:
        self.switchboard.answer(reply.token, reply.result)

    def run(self) -> Report:
        """Run and check."""
        self.time.note("", f"seed {self.seed}: {self.plan}")
        verdict = Verdict()
        try:
            self._suffer()
            if self._converge():
                verdict = self._check()
        except BrokenPromise as broken:
            self.oracle.violations.append(broken.violation)
        return Report(
            seed=self.seed,
            violations=(*self.oracle.violations, *verdict.violations),
            undecided=verdict.undecided,
            operations=len(self.history),
            take_overs=self.oracle.take_overs,
            events=self.time.steps,
            virtual_ms=self.time.now_ms,
            trace=self.time.trace or (),
        )

    # --- phases ---

    def _suffer(self) -> None:
        for name in self.nodes:
            self.time.after(20 * self.time.random.random(), self.faults.start, name)
        for client in self.clients:
            self.time.after(40 + 100 * self.time.random.random(), client.begin)
        self.time.run_until(30)
        self.switchboard.loss, self.switchboard.lateness = self.plan.client_loss, self.plan.client_lateness
        self.faults.schedule()
        self.time.run_until(self.time.now_ms + self.plan.duration_ms)

    def _converge(self) -> bool:
        """Heal, let the clients finish, and wait until all nodes are equal; False if that takes too long."""
        self.faults.heal()
        for client in self.clients:
            client.stopped = True
        healed_ms = self.time.now_ms
        limit_ms = healed_ms + CONVERGENCE_MS + 3 * self.network.weather.delay_ms[1]
        promoted_ms = healed_ms + 300
        read_back = False
        while self.time.now_ms < limit_ms:
            self.time.run_until(self.time.now_ms + _POLL_MS)
            if self.time.now_ms >= promoted_ms:
                self.faults.ensure_leader()
                promoted_ms = self.time.now_ms + _PROMOTE_AGAIN_MS
            if self._equal() and not any(client.busy for client in self.clients):
                if read_back:
                    self.time.note("", f"converged after {self.time.now_ms - healed_ms:.0f} ms")
                    return True
                read_back = self._read_back()
        self.oracle.report("convergence", "; ".join(self._states()))
        return False

    def _equal(self) -> bool:
        """Whether one node leads, can reach all, and all have trusted all that it has, durably."""
        serving = self.faults.serving()
        if len(serving) != 1 or serving[0].replica is None:
            return False
        leader = serving[0].replica
        last = leader.log.last
        everybody = leader.leadership is not None and leader.leadership.reachable == FOLLOWERS
        return everybody and all(
            node.settled
            and node.replica is not None
            and node.replica.log.trusted == last
            and not node.replica.log.above
            for node in self.nodes.values()
        )

    def _states(self) -> list[str]:
        states = []
        for name, node in self.nodes.items():
            replica = node.replica
            if replica is None:
                states.append(f"{name} down")
                continue
            states.append(
                f"{name} {replica.role} epoch {replica.promised} T={replica.log.trusted} last={replica.log.last} "
                f"voter={replica.voter} serving={replica.serving}"
            )
        return states

    def _read_back(self) -> bool:
        """Read every key strongly once more, so that the history says how it ended; whether all were answered."""
        reader = self.clients[0]
        reader.leader = leader = self.faults.serving()[0].name
        written = {operation.key for operation in self.history if operation.is_write}
        before = len(self.history)
        for key in sorted(written):
            reader.leader = leader
            reader.read(key, Level.STRONG)
        self.time.run_until(self.time.now_ms + _READ_BACK_MS)
        return len(self.history) - before >= len(written)

    # --- checks ---

    def _check(self) -> Verdict:
        history = self.history
        self.oracle.replay(history)
        levels = FIXED_LEADER if self.plan.fixed_leader else STRONG_ONLY
        verdict = check_history(history, levels).plus(check_final(self._final_nodes(), history))
        rows = self._final_rows()
        verdict = verdict.plus(check_set(self._of(SET_PREFIX), {key for key in rows if key.startswith(SET_PREFIX)}))
        if LIST_KEY in rows:
            verdict = verdict.plus(check_list(self._of(LIST_KEY), LIST_KEY, rows[LIST_KEY].split(",")))
        counted = int(rows[COUNTER_KEY].split(":")[0]) if COUNTER_KEY in rows else 0
        verdict = verdict.plus(check_counter(self._of(COUNTER_KEY), COUNTER_KEY, counted))
        return verdict.plus(check_sums(self._of(SUM_PREFIX), SUM_PREFIX, SUM_TOTAL))

    def _of(self, prefix: str) -> list[Operation]:
        return [operation for operation in self.history if operation.key.startswith(prefix)]

    def _final_rows(self) -> dict[str, str]:
        replica = self.faults.serving()[0].replica
        assert replica is not None
        return {key: row.value.decode() for key, row in replica.scan()}

    def _final_nodes(self) -> list[FinalNode]:
        return [self._final_node(name, node) for name, node in self.nodes.items()]

    def _final_node(self, name: str, node: SimulatedNode) -> FinalNode:
        replica = node.replica
        assert replica is not None
        requests: dict[str, list[int]] = defaultdict(list)
        for version, entry in sorted(node.disk.rows.items()):
            if entry.request_id and entry.kind != EntryKind.NOOP:
                requests[entry.request_id].append(version)
        state = "\n".join(f"{key} {row.version} {row.value!r}" for key, row in replica.scan())
        digest = f"{zlib.crc32(state.encode()):08x} chain {replica.log.chain:08x}"
        log = replica.log
        return FinalNode(name, log.trusted, len(log.above), digest, log.floor, requests)
