"""Commands that read and write a key at once, one key after the other, many of them in one write.

The leader evaluates them on committed state and ships the result. While a write of a key's queue is under way, what
comes for the key waits; then all of it is applied in memory, in order, and shipped as one write, which holds only if
nobody else has written the key since it was read. Where somebody has, it is evaluated again. So a counter that
everybody counts up costs one write per group commit, and each command still has its own answer, given when that write
commits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from retinue.core.messages import Change, Condition, Kind, Outcome, Reason, Result, Row, Write
from retinue.expiry import alive, now_ms
from retinue.resp.changing import Held, Step
from retinue.resp.outcomes import CONTENDED, LOADING, read_only, refusal
from retinue.resp.replies import error

if TYPE_CHECKING:
    from retinue.node import Node
    from retinue.waiting import Answer


class Operation:
    """One step on one key, for somebody who waits until `deadline` (ms). `tentative`: its reply if it is written."""

    __slots__ = ("deadline", "is_shipped", "step", "tentative")

    def __init__(self, step: Step, deadline: float) -> None:
        self.step = step
        self.deadline = deadline
        self.tentative = b""
        self.is_shipped = False

    def shipped(self) -> None:
        """It has its place in the order of writes. Told once."""

    def answer(self, reply: bytes, version: int) -> None:
        """It is over: the reply, and the version of what was written or found (0: not known). Told once."""


class KeyQueue:
    """The operations on one key: those whose write is under way, and those that wait for it."""

    __slots__ = ("_expires_ms", "_queues", "_under_way", "key", "waiting")

    def __init__(self, queues: Queues, key: str) -> None:
        self._queues = queues
        self._under_way: list[Operation] = []
        self._expires_ms = 0
        self.key = key
        self.waiting: list[Operation] = []

    @property
    def busy(self) -> bool:
        """Whether a write is under way."""
        return bool(self._under_way)

    def ship(self, node: Node) -> None:
        """Evaluate what waits, and write the result."""
        operations, self.waiting = self.waiting, []
        for operation in operations:
            if not operation.is_shipped:
                operation.is_shipped = True
                operation.shipped()
        replica = node.replica
        if not replica.serving:
            told = error(LOADING if replica.leadership is not None else read_only(node))
            self._answer(operations, told, 0)
            return
        operations = self._in_time(operations, node.driver.now_ms)
        row = replica.read_committed(self.key)
        before = _held(row)
        held = before
        for operation in operations:
            operation.tentative, held = operation.step(held)
        version = 0 if row is None else row.version
        if held is before:
            self._answer(operations, None, version)
        else:
            self._under_way = operations
            self._propose(node, held, version)

    def _in_time(self, operations: list[Operation], now: float) -> list[Operation]:
        """Those whose deadline is still to come; the others are told that nothing was written."""
        late = [operation for operation in operations if operation.deadline <= now]
        if not late:
            return operations
        self._answer(late, error(CONTENDED), 0)
        return [operation for operation in operations if operation.deadline > now]

    def _propose(self, node: Node, held: Held | None, version: int) -> None:
        driver = node.driver
        deadline = max([operation.deadline for operation in self._under_way])
        change = Change(Kind.DELETE, self.key) if held is None else Change(Kind.PUT, self.key, *held)
        self._expires_ms = change.expires_ms
        token = driver.waiting.enter(self._done, deadline)
        driver.propose(Write(token, (change,), deadline, condition=Condition(version=version)))

    def _done(self, result: Answer) -> None:
        assert isinstance(result, Result)
        node = self._queues.node
        operations, self._under_way = self._under_way, []
        if self._expires_ms and result.outcome is not Outcome.NOT_WRITTEN:
            late = 0 if result.outcome is Outcome.COMMITTED else node.settings.write_timeout_ms
            node.expiry.watch(self.key, max(self._expires_ms, now_ms() + int(late)))
        if result.outcome is Outcome.COMMITTED:
            self._answer(operations, None, result.version)
        elif result.reason is Reason.CONDITION_FAILED:
            self.waiting = operations + self.waiting
        else:
            self._answer(operations, refusal(node, result), 0)
        self._queues.go_on(self)

    def _answer(self, operations: list[Operation], told: bytes | None, version: int) -> None:
        """Give each its reply, or all of them the same."""
        for operation in operations:
            operation.answer(operation.tentative if told is None else told, version)


class Queues:
    """The queues of all keys that somebody changes now."""

    def __init__(
        self,
        node: Node,
        call_soon: Callable[[Callable[[], None]], object],
        when_settled: Callable[[Callable[[], None]], None],
    ) -> None:
        self.node = node
        self.active: dict[str, KeyQueue] = {}
        self._ready: list[KeyQueue] = []
        self._call_soon = call_soon
        self._when_settled = when_settled

    def enter(self, key: str, operation: Operation) -> None:
        """Take an operation; what comes for a key in one turn of the event loop is evaluated together."""
        queue = self.active.get(key)
        if queue is None:
            queue = self.active[key] = KeyQueue(self, key)
            self._make_ready(queue)
        queue.waiting.append(operation)

    def go_on(self, queue: KeyQueue) -> None:
        """The write of a queue has ended: ship what waits, or forget the queue."""
        if queue.waiting:
            self._make_ready(queue)
        else:
            del self.active[queue.key]

    def _make_ready(self, queue: KeyQueue) -> None:
        if not self._ready:
            self._call_soon(self._ship)
        self._ready.append(queue)

    def _ship(self) -> None:
        if self.node.driver.unsettled:
            # What is found may be told without a write, so it must be durable.
            self._when_settled(self._ship)
            return
        ready, self._ready = self._ready, []
        for queue in ready:
            queue.ship(self.node)
            if not queue.busy:
                self.go_on(queue)


def _held(row: Row | None) -> Held | None:
    row = alive(row)
    return None if row is None else Held(row.value, row.encoding, row.expires_ms)
