"""What the clients of a simulated cluster do, and how they take what they are told.

A client does one thing at a time, sends it to whom it believes to lead, and follows the rules that every client has to
follow: an unknown outcome may be retried, under the same request id; a refusal is definite only when no earlier attempt
of the same request may still be on its way. Each finished operation goes into the history.

* registers: read at every level, write, compare-and-set, delete;
* a list and a counter that grow by compare-and-set;
* a set with one key per element;
* batches that write three keys whose numbers always have the same sum, and scans of them.
"""

from __future__ import annotations

import json
from collections.abc import Callable

import msgspec

from retinue.core.messages import (
    Change,
    Condition,
    ReadResult,
    Reason,
    Result,
    Row,
    SessionRead,
    StrongRead,
    Write,
)
from retinue.core.messages import Kind as ChangeKind
from retinue.core.messages import Outcome as ResultOutcome
from retinue.core.messages import Proposed as ProposedEvent
from retinue.core.replica import Replica
from retinue.lab.history import ABSENT, PRESENT, Kind, Level, Operation, Outcome
from retinue.lab.oracle import Oracle
from retinue.lab.switchboard import Query, Switchboard
from retinue.lab.virtual_time import VirtualTime

SUM_PREFIX = "sum/"
SUM_KEYS = ("sum/a", "sum/b", "sum/c")
SUM_TOTAL = 100
SET_PREFIX = "set/"
LIST_KEY = "list"
COUNTER_KEY = "counter"

_UNCONDITIONAL = None
_REFUSED_CONDITION = (Reason.CONDITION_FAILED, Reason.NOT_FOUND)


class Habits(msgspec.Struct, frozen=True):
    """What clients are like in one run. `mix` gives the weights of `Client.KINDS`; times in milliseconds."""

    registers: tuple[str, ...] = ("r0", "r1", "r2")
    mix: tuple[int, ...] = (30, 30, 10, 5, 5, 6, 6)
    think_ms: float = 30.0
    timeout_ms: float = 400.0
    attempts: int = 4
    local_share: float = 0.15


class Client:
    """A correct client."""

    KINDS = ("read", "write", "delete", "list", "counter", "set", "sum")

    def __init__(
        self,
        name: str,
        time: VirtualTime,
        switchboard: Switchboard,
        oracle: Oracle,
        history: list[Operation],
        habits: Habits,
    ) -> None:
        self.name = name
        self.time = time
        self.switchboard = switchboard
        self.oracle = oracle
        self.history = history
        self.habits = habits
        self.leader = switchboard.members[0]
        self.stopped = False
        self.busy = False
        self.known: dict[str, tuple[str | None, int]] = {}
        self.session = (0, 0)
        self._count = 0

    # --- choosing what to do ---

    def begin(self) -> None:
        """Do the next thing."""
        if self.stopped:
            self.busy = False
            return
        self.busy = True
        self._count += 1
        kind = self.time.random.choices(self.KINDS, self.habits.mix)[0]
        getattr(self, f"_do_{kind}")()

    def finished(self) -> None:
        """Think, then go on."""
        self.time.after(self.habits.think_ms * 2 * self.time.random.random(), self.begin)

    def _register(self) -> str:
        return self.time.random.choice(self.habits.registers)

    def _do_read(self) -> None:
        draw = self.time.random.random()
        key = self._register()
        if draw < self.habits.local_share:
            self._scan() if draw < self.habits.local_share / 3 else self.read(key, Level.LOCAL)
        elif draw < 0.35:
            self.read(key, Level.SESSION)
        elif draw < 0.6:
            self.read(key, Level.COMMITTED)
        else:
            self.read(key, Level.STRONG)

    def _do_write(self) -> None:
        key = self._register()
        value = f"{self.name}.{self._count}"
        expected = self.known[key][1] if key in self.known and self.time.chance(0.5) else _UNCONDITIONAL
        self.write(((key, value),), expected)

    def _do_delete(self) -> None:
        self.write(((self._register(), None),), PRESENT if self.time.chance(0.8) else _UNCONDITIONAL)

    def _do_list(self) -> None:
        element = f"{self.name}.{self._count}"
        self._grow(LIST_KEY, lambda value: f"{value},{element}" if value else element)

    def _do_counter(self) -> None:
        mark = f"{self.name}.{self._count}"
        self._grow(COUNTER_KEY, lambda value: f"{int(value.split(':')[0]) + 1 if value else 1}:{mark}")

    def _grow(self, key: str, grown: Callable[[str | None], str]) -> None:
        """Compare-and-set on what was read last; read it if nothing is known."""
        known = self.known.pop(key, None)
        if known is None:
            self.read(key, self.time.random.choice((Level.STRONG, Level.COMMITTED)))
        else:
            self.write(((key, grown(known[0])),), known[1])

    def _do_set(self) -> None:
        self.write(((f"{SET_PREFIX}{self.name}.{self._count}", "in"),), _UNCONDITIONAL)

    def _do_sum(self) -> None:
        one = self.time.random.randrange(SUM_TOTAL)
        other = self.time.random.randrange(SUM_TOTAL - one)
        numbers = (one, other, SUM_TOTAL - one - other)
        parts = tuple((key, f"{n}:{self.name}.{self._count}") for key, n in zip(SUM_KEYS, numbers, strict=True))
        self.write(parts, _UNCONDITIONAL)

    # --- reads ---

    def read(self, key: str, level: Level) -> None:
        """Read once; a read without an answer is forgotten."""
        members = self.switchboard.members
        at_leader = level is Level.STRONG or level is Level.COMMITTED
        node = self.leader if at_leader else self.time.random.choice(members)
        session = self.session if level is Level.SESSION else None
        blank = Operation(
            client=self.name,
            kind=Kind.READ,
            key=key,
            level=level,
            node=node,
            invoked_ms=self.time.now_ms,
            session=session,
        )
        token = self.switchboard.open(lambda result: self._read_answered(blank, result))
        deadline = self.time.now_ms + self.habits.timeout_ms
        if level is Level.STRONG:
            self.switchboard.ask(node, StrongRead(token, key, deadline))
        elif level is Level.SESSION:
            epoch, version = self.session
            self.switchboard.ask(node, SessionRead(token, key, epoch, version, deadline))
        else:
            self.switchboard.ask(node, self._query(token, key, level))
        self._give_up_later(token, self._forget_read)

    def _query(self, token: int, key: str, level: Level) -> Query:
        """What the doors do for reads that need no event."""

        def local(replica: Replica) -> None:
            self.switchboard.answer(token, ReadResult(Reason.OK, replica.read_local(key)))

        def committed(replica: Replica) -> None:
            if replica.serving:
                self.switchboard.answer(token, ReadResult(Reason.OK, replica.read_committed(key)))
            else:
                self.switchboard.answer(token, ReadResult(Reason.NOT_LEADER))

        return local if level is Level.LOCAL else committed

    def _forget_read(self) -> None:
        self._look_elsewhere()
        self.finished()

    def _read_answered(self, blank: Operation, result: Result | ReadResult) -> None:
        assert isinstance(result, ReadResult)
        row = result.row
        if result.reason is Reason.OK:
            self._saw(blank, row)
        elif blank.level in (Level.STRONG, Level.COMMITTED):
            self._look_elsewhere()
        self.finished()

    def _saw(self, blank: Operation, row: Row | None) -> None:
        observed = None if row is None or row.deleted else row.value.decode()
        version = 0 if row is None else row.version
        self._record(msgspec.structs.replace(blank, completed_ms=self.time.now_ms, observed=observed, version=version))
        if blank.level is Level.LOCAL:
            return
        self.known[blank.key] = (observed, version if observed is not None else ABSENT)
        if row is not None:
            self._learn_token(row.epoch, row.version)
        if blank.level in (Level.STRONG, Level.COMMITTED):
            self.oracle.shown(blank.node, blank.key, row, blank.level.value)

    def _learn_token(self, epoch: int, version: int) -> None:
        self.session = (max(self.session[0], epoch), max(self.session[1], version))

    def _scan(self) -> None:
        node = self.time.random.choice(self.switchboard.members)
        began_ms = self.time.now_ms

        def scan(replica: Replica) -> None:
            found = {key: row.value.decode() for key, row in replica.scan(SUM_PREFIX)}
            operation = Operation(
                client=self.name,
                kind=Kind.SCAN,
                key=SUM_PREFIX,
                level=Level.PREFIX,
                node=node,
                invoked_ms=began_ms,
                completed_ms=self.time.now_ms,
                observed=json.dumps(found),
                version=replica.log.trusted,
            )
            self._record(operation)

        self.switchboard.ask(node, scan)
        self.finished()

    # --- writes ---

    def write(self, parts: tuple[tuple[str, str | None], ...], expected: int | None) -> None:
        """Put (or with `None` delete) these keys as one write, under the condition `expected` on the first."""
        request = _Request(self, f"{self.name}-{self._count}", parts, expected)
        request.attempt()

    def _look_elsewhere(self) -> None:
        """Whom to believe in next: anybody."""
        self.leader = self.time.random.choice(self.switchboard.members)

    def _give_up_later(self, token: int, give_up: Callable[[], None]) -> None:
        patience_ms = self.habits.timeout_ms * (1.2 + self.time.random.random())
        self.time.after(patience_ms, self.switchboard.give_up, token, give_up)

    def _record(self, operation: Operation) -> None:
        self.history.append(operation)
        if self.time.trace is not None:
            self.time.note(self.name, operation.brief())

    # --- rules that a careless client breaks (see mutants) ---

    def unanswered_is_unknown(self) -> bool:
        """A request without an answer may still take effect."""
        return True

    def refusal_is_definite(self, uncertain: bool) -> bool:
        """A failed condition says that nothing was written, unless an earlier attempt may have been."""
        return not uncertain


class _Request:
    """One write with all its attempts."""

    def __init__(
        self, client: Client, request_id: str, parts: tuple[tuple[str, str | None], ...], expected: int | None
    ) -> None:
        self.client = client
        self.request_id = request_id
        self.parts = parts
        self.expected = expected
        self.invoked_ms = client.time.now_ms
        self.left = client.habits.attempts
        self.uncertain = False
        self.node = ""

    def attempt(self) -> None:
        """Send it (again) to whom the client believes to lead."""
        client = self.client
        self.left -= 1
        self.node = client.leader
        switchboard = client.switchboard
        token = switchboard.open(self._answered)
        acks = client.time.random.randrange(len(switchboard.members)) if client.time.chance(0.04) else None
        write = Write(
            token=token,
            changes=tuple(_change(key, value) for key, value in self.parts),
            deadline=client.time.now_ms + client.habits.timeout_ms,
            batch=len(self.parts) > 1,
            condition=_condition(self.expected),
            request_id=self.request_id,
            acks=acks,
        )
        switchboard.ask(self.node, ProposedEvent([write]))
        client._give_up_later(token, self._unanswered)

    def _unanswered(self) -> None:
        self.client._look_elsewhere()
        self._unknown()

    def _unknown(self) -> None:
        if not self.client.unanswered_is_unknown():
            self._finish(Outcome.FAILED, 0)
            return
        self.uncertain = True
        self._retry_or(Outcome.UNKNOWN)

    def _retry_or(self, outcome: Outcome) -> None:
        client = self.client
        if self.left > 0 and not client.stopped and client.time.chance(0.8):
            client.time.after(5 + 40 * client.time.random.random(), self.attempt)
        else:
            self._finish(outcome, 0)

    def _answered(self, result: Result | ReadResult) -> None:
        assert isinstance(result, Result)
        client = self.client
        client.oracle.answered(self.node, self.request_id, result)
        if result.outcome is ResultOutcome.COMMITTED:
            client._learn_token(result.epoch, result.version)
            self._finish(Outcome.OK, result.version)
        elif result.outcome is ResultOutcome.ACCEPTED:
            self._finish(Outcome.UNKNOWN, 0)
        elif result.outcome is ResultOutcome.UNKNOWN:
            if result.reason is Reason.LEADERSHIP_LOST:
                client._look_elsewhere()
            self._unknown()
        elif result.reason in _REFUSED_CONDITION:
            definite = client.refusal_is_definite(self.uncertain)
            self._finish(Outcome.CONDITION_FAILED if definite else Outcome.UNKNOWN, result.current if definite else 0)
        elif result.reason is Reason.REQUEST_ID_REUSED:
            client.oracle.report("request ids", f"{self.node} takes {self.request_id} for another request")
            self._finish(Outcome.UNKNOWN, 0)
        else:
            client._look_elsewhere()
            self._retry_or(Outcome.UNKNOWN if self.uncertain else Outcome.FAILED)

    def _finish(self, outcome: Outcome, version: int) -> None:
        client = self.client
        now_ms = client.time.now_ms
        for key, value in self.parts:
            operation = Operation(
                client=client.name,
                kind=Kind.DELETE if value is None else Kind.PUT,
                key=key,
                invoked_ms=self.invoked_ms,
                completed_ms=None if outcome is Outcome.UNKNOWN else now_ms,
                outcome=outcome,
                value=value,
                expected=self.expected,
                version=version,
                request_id=self.request_id,
            )
            client._record(operation)
            if outcome is Outcome.OK:
                client.known[key] = (value, ABSENT if value is None else version)
            else:
                client.known.pop(key, None)
        client.finished()


def _change(key: str, value: str | None) -> Change:
    if value is None:
        return Change(ChangeKind.DELETE, key)
    return Change(ChangeKind.PUT, key, value.encode())


def _condition(expected: int | None) -> Condition | None:
    if expected is None:
        return None
    if expected == ABSENT:
        return Condition(absent=True)
    return Condition(present=True) if expected == PRESENT else Condition(version=expected)
