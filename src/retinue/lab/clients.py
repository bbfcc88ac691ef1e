"""Clients of a `Target` that write down what they asked and what they were told, as checkers read it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from typing import NamedTuple

from retinue.lab.history import PRESENT, Kind, Level, Operation, Outcome
from retinue.lab.targets.contract import Outcome as Told
from retinue.lab.targets.contract import Target, Written

RETRY_PAUSE_S = 0.03
"""Between an attempt that failed and the next: a refusal comes at once, and must not become a busy loop."""


class Attempt(NamedTuple):
    """One request to write: an operation that is tried again is several. Times on the target's clock.

    `detail` is what a failure said.
    """

    begun_ms: float
    ended_ms: float
    outcome: Told
    detail: str = ""


class Records:
    """What all clients of a run saw, and the newest session token that any of them was given."""

    def __init__(self) -> None:
        self.history: list[Operation] = []
        self.attempts: list[Attempt] = []
        self.newest_session = ""

    def note_session(self, session: str) -> None:
        """Keep the newest token."""
        self.newest_session = newer_session(self.newest_session, session)


class Client:
    """One client. Its values and request ids are unique among clients of different names.

    Every operation is appended to `records.history` when it ends.
    """

    def __init__(self, name: str, target: Target, records: Records, timeout_ms: float) -> None:
        self.name = name
        self.session = ""
        self._target = target
        self._records = records
        self._timeout_ms = timeout_ms
        self._count = 0

    async def put(self, key: str, *, retry_ms: float = 0.0) -> Operation:
        """Write a new value; what is not definite is tried again under the same request id for `retry_ms`."""
        return await self._write(Kind.PUT, key, retry_ms)

    async def delete(self, key: str, *, retry_ms: float = 0.0) -> Operation:
        """Delete a key. Where versions tell that it was absent, it is recorded as a delete whose condition failed."""
        return await self._write(Kind.DELETE, key, retry_ms)

    async def _write(self, kind: Kind, key: str, retry_ms: float) -> Operation:
        self._count += 1
        value = f"{self.name}-{self._count}" if kind is Kind.PUT else None
        request_id = f"{self.name}.{self._count}"
        begun_ms = self._target.now_ms()
        doubtful = False
        while True:
            written = await self._attempt(key, value, request_id)
            if written.outcome is Told.COMMITTED:
                break
            doubtful |= written.outcome is not Told.REFUSED
            if self._target.now_ms() >= begun_ms + retry_ms:
                break
            await asyncio.sleep(RETRY_PAUSE_S)
        operation = self._recorded(kind, key, value, request_id, begun_ms, doubtful, written)
        self._records.history.append(operation)
        return operation

    async def _attempt(self, key: str, value: str | None, request_id: str) -> Written:
        target, timeout_ms = self._target, self._timeout_ms
        if value is None:
            written = await target.delete(key, timeout_ms=timeout_ms, request_id=request_id)
        else:
            written = await target.write(key, value, timeout_ms=timeout_ms, request_id=request_id)
        self._records.attempts.append(Attempt(written.begun_ms, written.ended_ms, written.outcome, written.detail))
        if written.session:
            self.session = newer_session(self.session, written.session)
            self._records.note_session(written.session)
        return written

    def _recorded(
        self,
        kind: Kind,
        key: str,
        value: str | None,
        request_id: str,
        begun_ms: float,
        doubtful: bool,
        last: Written,
    ) -> Operation:
        # A refused retry says nothing about the attempt before it.
        outcome = Outcome.UNKNOWN if doubtful else Outcome.FAILED
        expected = None
        if last.outcome is Told.COMMITTED:
            outcome = Outcome.OK
        if kind is Kind.DELETE and self._target.abilities.versions:
            expected = PRESENT
            if outcome is Outcome.OK and not last.version:
                outcome = Outcome.UNKNOWN if doubtful else Outcome.CONDITION_FAILED
        return Operation(
            client=self.name,
            kind=kind,
            key=key,
            invoked_ms=begun_ms,
            completed_ms=None if outcome is Outcome.UNKNOWN else last.ended_ms,
            outcome=outcome,
            value=value,
            expected=expected,
            version=last.version if outcome is Outcome.OK else 0,
            request_id=request_id,
        )

    async def read(self, node: str, key: str, level: Level) -> Operation:
        """Read at a node. `SESSION`: what this client must see; `LOCAL`: whatever the node has."""
        session = self.session if level is Level.SESSION else ""
        asked = level.value if level in (Level.COMMITTED, Level.STRONG) else ""
        seen = await self._target.read(node, key, session=session, level=asked)
        if session and seen.cell:
            self.session = at_least(session, seen.cell.version)
        operation = Operation(
            client=self.name,
            kind=Kind.READ,
            key=key,
            invoked_ms=seen.begun_ms,
            completed_ms=seen.ended_ms,
            outcome=Outcome.OK if seen.answered else Outcome.FAILED,
            observed=seen.cell.value if seen.cell else None,
            version=seen.cell.version if seen.cell else 0,
            # Without a token a node may answer what it has.
            level=Level.LOCAL if level is Level.SESSION and not session else level,
            node=node,
            session=parsed_session(session),
        )
        self._records.history.append(operation)
        return operation


class Habits(NamedTuple):
    """How a client behaves: its share of puts and of deletes, how it reads, its pause, how long it tries again.

    A client that reads by session reads in no other way: its token knows nothing of what a strong read has seen.
    """

    levels: tuple[Level, ...] = (Level.COMMITTED,)
    put_share: float = 0.55
    delete_share: float = 0.1
    pause_ms: float = 8.0
    retry_ms: float = 0.0


NEWEST = (Level.STRONG, Level.COMMITTED)
BY_SESSION = (Level.SESSION,)


def habits_of(number: int, sessions: bool, retry_ms: float) -> Habits:
    """Clients of every sort: half try again what was not definite, half of each read by session if `sessions`."""
    levels = NEWEST if sessions else (Level.COMMITTED,)
    return Habits(BY_SESSION if sessions and number // 2 % 2 else levels, retry_ms=retry_ms if number % 2 else 0.0)


async def keep_busy(
    client: Client,
    keys: Sequence[str],
    nodes: Sequence[str],
    leader: Callable[[], str],
    habits: Habits,
    ended: Callable[[], bool],
) -> None:
    """Read and write at random until `ended`; session reads go to any of `nodes`, others to the leader."""
    dice = random.Random(client.name)
    while not ended():
        key, draw = dice.choice(keys), dice.random()
        if draw < habits.put_share:
            operation = await client.put(key, retry_ms=habits.retry_ms)
        elif draw < habits.put_share + habits.delete_share:
            operation = await client.delete(key, retry_ms=habits.retry_ms)
        else:
            level = dice.choice(habits.levels)
            node = dice.choice(nodes) if level is Level.SESSION else leader()
            operation = await client.read(node, key, level)
        failed = operation.outcome is Outcome.FAILED
        await asyncio.sleep(RETRY_PAUSE_S if failed else habits.pause_ms * dice.uniform(0.5, 1.5) / 1000)


def parsed_session(session: str) -> tuple[int, int] | None:
    """The epoch and version of a token, `None` for one of another kind."""
    epoch, _, version = session.partition(".")
    return (int(epoch), int(version)) if epoch.isdigit() and version.isdigit() else None


def at_least(session: str, version: int) -> str:
    """The token of who has also seen this version."""
    known = parsed_session(session)
    return f"{known[0]}.{max(known[1], version)}" if known else session


def newer_session(one: str, other: str) -> str:
    """The newer of two tokens; the second when they cannot be compared."""
    return one if (parsed_session(one) or (0, 0)) > (parsed_session(other) or (0, 0)) else other
