"""A simulated cluster as a target: the real core on virtual time, with simulated disks and links.

It lives in the `VirtualLoop` that runs the experiment. Everything takes time: the way of a client to a node and back,
that of a message between two nodes, a commit, and the simulated delay of each replicated entry.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import Self

from retinue.core.messages import (
    Change,
    Condition,
    ConfigureRequested,
    Event,
    Kind,
    PromoteRequested,
    Proposed,
    ReadResult,
    Reason,
    Reply,
    Result,
    Row,
    SessionRead,
    StrongRead,
    Write,
)
from retinue.core.messages import Outcome as CoreOutcome
from retinue.core.replica import Replica
from retinue.errors import EXIT_VIOLATION, ClusterError, InvalidValue, RetinueError
from retinue.lab.simulated_cluster import LATENCY_MS, SimulatedCluster
from retinue.lab.switchboard import Query
from retinue.lab.targets.calls import Answer, Call, Calls, NoAnswer
from retinue.lab.targets.contract import (
    Abilities,
    Acknowledgement,
    Cell,
    NetworkConditions,
    Outcome,
    Seen,
    Unsuitable,
    Written,
)
from retinue.lab.virtual_loop import VirtualLoop, run_virtually
from retinue.network import LARGEST_DRAW, Conditions
from retinue.node import CONFIGURE_TIMEOUT_MS, PROMOTE_TIMEOUT_MS
from retinue.refusals import read_error, takeover_error, write_error
from retinue.settings import DEFAULT_WRITE_QUORUM, Settings

__all__ = ["BrokenSimulation", "SimulatedTarget", "run_virtually"]

POLL_S = 0.01

_LEVELS = ("", "local", "committed", "strong")
_OUTCOMES = {
    CoreOutcome.COMMITTED: Outcome.COMMITTED,
    CoreOutcome.ACCEPTED: Outcome.UNKNOWN,
    CoreOutcome.NOT_WRITTEN: Outcome.REFUSED,
    CoreOutcome.UNKNOWN: Outcome.UNKNOWN,
}


class BrokenSimulation(RetinueError):
    """The simulated cluster did what no cluster may do: an error of the protocol, not of the experiment."""

    title = "Promise broken"
    exit_code = EXIT_VIOLATION


class SimulatedTarget:
    """A leader and `followers` followers on virtual time; implements `contract.Target` with every ability.

        async with SimulatedTarget(5, seed=1, network=NetworkConditions(max_ms=1000)) as target:
            ...

    `write_quorum`: as in the settings of a node if it is `None`. A write has the default deadline of a node, and the
    largest simulated delay more. A client whose node is down is refused; one whose node dies, or does not answer in
    time, does not know what became of its write.

    Raises `InvalidValue` for a network or a quorum that cannot be; `RuntimeError` when entered outside of a
    `VirtualLoop`; `BrokenSimulation` in the end if the cluster has broken a promise.
    """

    def __init__(
        self, followers: int, seed: int, network: NetworkConditions, *, write_quorum: int | None = None
    ) -> None:
        self.nodes: tuple[str, ...] = ("leader", *(f"follower{number}" for number in range(1, followers + 1)))
        self.network = network
        quorum = min(DEFAULT_WRITE_QUORUM, followers) if write_quorum is None else write_quorum
        self._check_quorum(quorum)
        self._cluster = SimulatedCluster(self.nodes, seed, quorum, _checked_conditions(network), self._reply)
        self._calls = Calls(self._cluster.time, self._cluster.nodes, LATENCY_MS)
        self._leader = self.nodes[0]
        self._writes = 0

    @property
    def description(self) -> str:
        """What is measured."""
        return f"{len(self.nodes)} simulated nodes on virtual time"

    @property
    def abilities(self) -> Abilities:
        """Everything."""
        return Abilities(
            quorum=True,
            network=True,
            versions=True,
            sessions=True,
            acknowledgements=True,
            delays=True,
            faults=True,
            virtual=True,
        )

    def now_ms(self) -> float:
        """The clock of the simulated world."""
        return self._cluster.time.now_ms

    # --- from the start to the end ---

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        if not isinstance(loop, VirtualLoop):
            raise RuntimeError("A simulated target lives on virtual time: run the experiment with run_virtually.")
        self._loop = loop
        loop.enter(self._cluster.time)
        for name in self.nodes:
            self._cluster.start(name)
        await self._wait_until(self._cluster.complete)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._calls.close()
        self._loop.leave()
        if error is None and self._cluster.violations:
            raise BrokenSimulation(f"The simulated cluster broke a promise: {self._cluster.violations[0]}; report it.")

    async def _wait_until(self, condition: Callable[[], bool], deadline_ms: float = math.inf) -> None:
        while not condition():
            if self.now_ms() >= deadline_ms:
                return
            await asyncio.sleep(POLL_S)

    # --- clients and nodes ---

    async def _ask(
        self, node: str, request: Callable[[int], Event | Query], timeout_ms: float = Settings.write_timeout_ms
    ) -> Result | ReadResult:
        """What a node answers; raises `ClusterError` if it does not."""
        call = Call(self._named(node), self._loop.create_future())
        answer = await self._calls.ask(call, request, timeout_ms)
        if isinstance(answer, NoAnswer):
            raise ClusterError(answer.detail)
        return answer

    def _reply(self, node: str, reply: Reply) -> None:
        call = self._calls.find(reply.token)
        if call is not None and call.request_id and isinstance(reply.result, Result):
            self._cluster.oracle.answered(node, call.request_id, reply.result)
        self._calls.reply(reply.token, reply.result)

    def _named(self, name: str) -> str:
        if name not in self.nodes:
            raise Unsuitable(f"There is no node {name!r}: choose one of {', '.join(self.nodes)}.")
        return name

    # --- writes ---

    async def write(self, key: str, value: str, *, timeout_ms: float | None = None, request_id: str = "") -> Written:
        """Put a value."""
        return await self._write(Change(Kind.PUT, key, value.encode()), None, timeout_ms, request_id)

    async def delete(self, key: str, *, timeout_ms: float | None = None, request_id: str = "") -> Written:
        """Delete a key. One that was absent counts as committed, with version 0."""
        return await self._write(Change(Kind.DELETE, key), Condition(present=True), timeout_ms, request_id)

    async def _write(
        self, change: Change, condition: Condition | None, timeout_ms: float | None, request_id: str
    ) -> Written:
        begun_ms = self.now_ms()
        if timeout_ms is None:
            timeout_ms = Settings.write_timeout_ms + self._cluster.delays.shared.quantile(LARGEST_DRAW)
        deadline = begun_ms + timeout_ms
        self._writes += 1
        request_id = request_id or f"simulated write {self._writes}"  # the oracle tells writes apart by it
        call = Call(self._leader, self._loop.create_future(), request_id)

        def request(token: int) -> Proposed:
            return Proposed([Write(token, (change,), deadline, condition=condition, request_id=request_id)])

        answer = await self._calls.ask(call, request, timeout_ms)
        written = self._written(call, change.key, begun_ms, answer)
        if written.outcome is not Outcome.COMMITTED:
            self._leader = self._cluster.leader() or self._leader
        return written

    def _written(self, call: Call, key: str, begun_ms: float, answer: Answer) -> Written:
        ended_ms = self.now_ms()
        if isinstance(answer, NoAnswer):
            outcome = Outcome.REFUSED if answer.refused else Outcome.UNKNOWN
            return Written(outcome=outcome, begun_ms=begun_ms, ended_ms=ended_ms, detail=answer.detail)
        assert isinstance(answer, Result), "a write is answered by a result"
        outcome = Outcome.COMMITTED if answer.reason is Reason.NOT_FOUND else _OUTCOMES[answer.outcome]
        return Written(
            outcome=outcome,
            begun_ms=begun_ms,
            ended_ms=ended_ms,
            version=answer.version,
            acked_by=tuple(Acknowledgement(node, ms) for node, ms in answer.acked_by),
            delays_ms=self._cluster.wires.drawn_ms.pop((answer.epoch, answer.version), None),
            server_ms=call.server_ms,
            session=f"{answer.epoch}.{answer.version}" if answer.version else "",
            detail="" if outcome is Outcome.COMMITTED else write_error(answer, key, self._cluster.leader()).detail,
        )

    # --- reads ---

    async def read(self, node: str, key: str, *, session: str = "", level: str = "") -> Seen:
        """Read at one node: what it has, or (with `session`) what it has once it knows the token's write."""
        begun_ms = self.now_ms()
        try:
            cell = await self._read(node, key, session, level)
        except RetinueError as error:
            return Seen(begun_ms=begun_ms, ended_ms=self.now_ms(), answered=False, detail=error.detail)
        return Seen(begun_ms=begun_ms, ended_ms=self.now_ms(), answered=True, cell=cell)

    async def _read(self, node: str, key: str, session: str, level: str) -> Cell | None:
        if level not in _LEVELS:
            raise Unsuitable(f"There is no read level {level!r}: choose one of {', '.join(_LEVELS[1:])}.")
        deadline = self.now_ms() + Settings.write_timeout_ms
        row: Row | None = None
        if session:
            epoch, version = _parsed_session(session)
            row = await self._row(node, key, lambda token: SessionRead(token, key, epoch, version, deadline))
        if level == "strong":
            row = await self._row(node, key, lambda token: StrongRead(token, key, deadline))
            self._cluster.oracle.shown(node, key, row, level)
        elif level or not session:
            row = await self._row(node, key, lambda token: partial(self._look_up, token, key, level))
        return _cell(row)

    async def _row(self, node: str, key: str, request: Callable[[int], Event | Query]) -> Row | None:
        answer = await self._ask(node, request)
        assert isinstance(answer, ReadResult), "a read is answered by a row"
        if answer.reason is not Reason.OK:
            raise read_error(answer.reason, key, self._cluster.leader())
        return answer.row

    def _look_up(self, token: int, key: str, level: str, replica: Replica) -> None:
        """A read that a node answers at once: by default the leader what is committed, others what they have."""
        leading = replica.leadership is not None
        if level == "local" or not (level or leading):
            result = ReadResult(Reason.OK, replica.read_local(key))
        elif replica.serving:
            result = ReadResult(Reason.OK, replica.read_committed(key))
            self._cluster.oracle.shown(replica.name, key, result.row, "committed")
        else:
            result = ReadResult(Reason.RECOVERING if leading else Reason.NOT_LEADER)
        self._calls.reply(token, result)

    async def dump(self, node: str) -> dict[str, Cell]:
        """Everything one node has; on the leader, everything that is committed."""
        found: dict[str, Cell] = {}

        def look(token: int, replica: Replica) -> None:
            leading = replica.leadership is not None
            read = replica.read_committed if leading else replica.read_local
            for key in sorted(replica.log.rows.keys() | replica.log.versions_of.keys()):
                cell = _cell(read(key))
                if cell is not None:
                    found[key] = cell
            reason = Reason.RECOVERING if leading and not replica.serving else Reason.OK
            self._calls.reply(token, ReadResult(reason))

        await self._row(node, "", lambda token: partial(look, token))
        return found

    # --- settings in force ---

    def _check_quorum(self, quorum: int) -> None:
        most = len(self.nodes) - 1
        if not 0 <= quorum <= most:
            raise InvalidValue(f"The write quorum is {quorum}: give a number from 0 to {most}, all followers.")

    async def set_quorum(self, quorum: int) -> None:
        """Answer the writes that come from now on after `quorum` followers have them."""
        self._check_quorum(quorum)
        self._cluster.expect_quorum(quorum)
        deadline = self.now_ms() + CONFIGURE_TIMEOUT_MS
        answer = await self._ask(
            self._cluster.leader() or self._leader,
            lambda token: ConfigureRequested(token, quorum, deadline),
            CONFIGURE_TIMEOUT_MS,
        )
        assert isinstance(answer, Result), "a change is answered by a result"
        if answer.outcome is not CoreOutcome.COMMITTED:
            raise write_error(answer, "", self._cluster.leader())

    async def set_network(self, conditions: NetworkConditions) -> None:
        """Simulate this network from now on."""
        self._cluster.simulate(_checked_conditions(conditions))
        self.network = conditions

    # --- leadership and faults ---

    async def leader(self) -> str | None:
        """The node that leads now, as far as anybody can tell."""
        return self._cluster.leader()

    async def promote(self, node: str) -> None:
        """Make a node the leader; returns when it has the followers that a write needs, or has waited long enough."""
        deadline = self.now_ms() + PROMOTE_TIMEOUT_MS
        answer = await self._ask(node, lambda token: PromoteRequested(token, False, deadline), PROMOTE_TIMEOUT_MS)
        assert isinstance(answer, Result), "a change is answered by a result"
        if answer.outcome is not CoreOutcome.COMMITTED:
            raise takeover_error(answer, node)
        self._leader = node
        await self._wait_until(lambda: self._cluster.can_write(node), deadline)

    async def kill(self, node: str) -> None:
        """End a node's process at once; nothing happens to one that is down."""
        self._cluster.kill(self._named(node))
        self._calls.died(node)

    async def pause(self, node: str) -> None:
        """Stop a node's process without ending it."""
        self._cluster.pause(self._named(node))

    async def resume(self, node: str) -> None:
        """Let a paused node go on."""
        self._cluster.resume(self._named(node))

    async def start(self, node: str) -> None:
        """Start a killed node on the data that it has; nothing happens to one that runs."""
        self._cluster.start(self._named(node))

    async def cut_off(self, node: str) -> None:
        """Let nothing pass between this node and all others."""
        self._cluster.cut_off(self._named(node))

    async def heal(self, node: str) -> None:
        """End `cut_off`."""
        self._cluster.heal(self._named(node))


def _cell(row: Row | None) -> Cell | None:
    return None if row is None or row.deleted else Cell(row.value.decode(), row.version)


def _checked_conditions(network: NetworkConditions) -> Conditions:
    try:
        return Conditions(network.distribution, network.min_ms, network.max_ms, in_order=network.in_order)
    except ValueError as error:
        raise InvalidValue(str(error)) from None


def _parsed_session(session: str) -> tuple[int, int]:
    epoch, _, version = session.partition(".")
    if not (epoch.isascii() and epoch.isdigit() and version.isascii() and version.isdigit()):
        raise Unsuitable(f"{session!r} is no session token: give the session of a write's answer, such as 1.42.")
    return int(epoch), int(version)
