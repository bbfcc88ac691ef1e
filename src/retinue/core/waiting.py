"""The versions that are not committed yet, and everybody who waits for one.

A version stays here until it is committed and nobody waits for it any more: a request may ask for more acknowledgements
than a commit needs. A deadline ends the waiting, never the write.
"""

from __future__ import annotations

import heapq
import math
from typing import TYPE_CHECKING

import msgspec

from retinue.core.messages import Entry, Outcome, Reason, Result

if TYPE_CHECKING:
    from retinue.core.leader import Leadership


# Versions are kept by steps of their deadlines: each in its order would cost more than nearly all ever need.
DEADLINE_STEP_MS = 50.0

# A member of an enumeration costs a lookup each time, and every answer has these.
_COMMITTED, _OK = Outcome.COMMITTED, Reason.OK


class Waiter(msgspec.Struct, gc=False):
    """Somebody who waits for a version: until it commits (`acks` is `None`), or has so many acknowledgements."""

    token: int
    acks: int | None
    deadline: float
    replayed: bool = False


class Pending(msgspec.Struct):
    """A version that is not committed yet, or on which somebody still waits.

    `size`: bytes of its entry. `counted`: somebody waits for a number of acknowledgements of his own.
    """

    version: int
    size: int
    assigned_ms: float
    waiters: list[Waiter]
    acked: list[tuple[str, float]]
    committed: bool = False
    counted: bool = False


class Waiting:
    """The pending versions of one leadership, with those who wait.

    `pending`: by version, in the order of assignment. `patient`: those among them that are committed. `size`: bytes of
    the entries that are not.
    """

    def __init__(self, leadership: Leadership) -> None:
        self.leadership = leadership
        self.pending: dict[int, Pending] = {}
        self.patient: dict[int, Pending] = {}
        self.size = 0
        self._patient_order: list[int] = []
        self._deadlines: dict[int, list[int]] = {}
        self._looked_at = 0

    def expect(self, entry: Entry) -> Pending:
        """A version has been assigned."""
        size = len(entry.key) + len(entry.value)
        self.size += size
        pending = Pending(entry.version, size, self.leadership.replica.now, [], [])
        self.pending[entry.version] = pending
        return pending

    def expect_again(self, version: int) -> Pending:
        """Somebody asks for a version that may be committed, and forgotten, already."""
        pending = self.pending.get(version)
        if pending is None:
            leadership = self.leadership
            pending = Pending(version, 0, leadership.replica.now, [], leadership.holders(version), committed=True)
            self.pending[version] = pending
            self._be_patient(pending)
        return pending

    def join(self, pending: Pending, waiter: Waiter) -> None:
        """Wait for a version."""
        pending.waiters.append(waiter)
        if waiter.acks is not None:
            pending.counted = True
        if waiter.deadline == math.inf:
            return
        moment = max(int(waiter.deadline // DEADLINE_STEP_MS), self._looked_at)
        due = self._deadlines.get(moment)
        if due is None:
            self._deadlines[moment] = [pending.version]
        else:
            due.append(pending.version)

    def commit(self, pending: Pending) -> None:
        """A version has committed: answer, and forget it unless somebody waits for more."""
        pending.committed = True
        self.size -= pending.size
        self.serve(pending)
        if pending.waiters:
            self._be_patient(pending)
        else:
            self.pending.pop(pending.version, None)

    def _be_patient(self, pending: Pending) -> None:
        self.patient[pending.version] = pending
        heapq.heappush(self._patient_order, pending.version)

    def decided(self) -> int:
        """Nobody asks any more who has acknowledged the versions up to this one."""
        order, trusted = self._patient_order, self.leadership.log.trusted
        while order and order[0] not in self.patient:
            heapq.heappop(order)
        return min(order[0] - 1, trusted) if order else trusted

    def serve(self, pending: Pending) -> None:
        """Answer those whose wish is met, and forget a version that nobody waits for. Nothing before the barrier."""
        if not self.leadership.recovered:
            return
        acks, waiting = len(pending.acked), pending.waiters
        if waiting:
            pending.waiters = []
        for waiter in waiting:
            if pending.committed if waiter.acks is None else acks >= waiter.acks:
                self._answer(pending, waiter, _COMMITTED if pending.committed else Outcome.ACCEPTED, _OK)
            else:
                pending.waiters.append(waiter)
        if pending.committed and not pending.waiters:
            self.pending.pop(pending.version, None)
            self.patient.pop(pending.version, None)

    def _answer(self, pending: Pending, waiter: Waiter, outcome: Outcome, reason: Reason) -> None:
        leadership, acked_by = self.leadership, tuple(pending.acked)
        result = Result(
            outcome,
            reason,
            pending.version,
            leadership.epoch,
            len(acked_by),
            leadership.quorum if waiter.acks is None else waiter.acks,
            acked_by,
            replayed=waiter.replayed,
        )
        leadership.reply(waiter.token, result)

    def _answer_uncertainly(self, pending: Pending, waiter: Waiter, reason: Reason) -> None:
        sure = pending.committed and self.leadership.recovered
        self._answer(pending, waiter, Outcome.COMMITTED if sure else Outcome.UNKNOWN, reason)

    def tick(self) -> None:
        """Answer those whose deadline has passed."""
        now = self.leadership.replica.now
        self._looked_at = int(now // DEADLINE_STEP_MS)
        for moment in sorted([moment for moment in self._deadlines if moment <= self._looked_at]):
            later = [version for version in self._deadlines.pop(moment) if self._expire(version, now, moment)]
            if later:
                self._deadlines[moment] = later

    def _expire(self, version: int, now: float, moment: int) -> bool:
        """Answer those of a version whose deadline has passed; whether somebody waits until later in `moment`."""
        pending = self.pending.get(version)
        if pending is None:
            return False
        late = [waiter for waiter in pending.waiters if waiter.deadline <= now]
        for waiter in late:
            pending.waiters.remove(waiter)
            self._answer_uncertainly(pending, waiter, Reason.TIMEOUT)
        if late:
            self.serve(pending)
        return any(waiter.deadline < (moment + 1) * DEADLINE_STEP_MS for waiter in pending.waiters)

    def end(self, reason: Reason) -> None:
        """The leadership is over: what was assigned may still commit under another leader."""
        for pending in self.pending.values():
            for waiter in pending.waiters:
                self._answer_uncertainly(pending, waiter, reason)
