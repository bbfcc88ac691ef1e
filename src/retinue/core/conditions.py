"""Conditional writes: evaluated against committed state, and held back while that is not known.

A condition on a key with a pending write waits until that write is decided; before the recovery barrier every condition
waits. A write that waits has no version yet, so giving up on it is definite: nothing is written.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from retinue.core.messages import Condition, Entry, Outcome, Reason, Result, Write

if TYPE_CHECKING:
    from retinue.core.leader import Leadership


class Conditions:
    """The conditional writes of one leadership.

    `blocked`: by key, those that wait for a pending write to it. `recovering`: those that wait for the recovery
    barrier.
    """

    def __init__(self, leadership: Leadership) -> None:
        self.leadership = leadership
        self.blocked: dict[str, list[Write]] = {}
        self.recovering: list[Write] = []
        self._freed: list[str] = []

    def met(self, write: Write, condition: Condition) -> bool:
        """Whether the write with this condition may have a version now; if not, it waits or is answered."""
        leadership, key = self.leadership, write.changes[0].key
        if not leadership.recovered:
            self.recovering.append(write)
            return False
        if leadership.undecided(key):
            self.blocked.setdefault(key, []).append(write)
            return False
        row = leadership.row_for_condition(key)
        current = 0 if row is None or row.deleted else row.version
        failure = None
        if condition.present and not current:
            failure = Reason.NOT_FOUND
        elif (condition.absent and current) or condition.version not in (None, current):
            failure = Reason.CONDITION_FAILED
        if failure is not None:
            leadership.reply(write.token, Result(Outcome.NOT_WRITTEN, failure, current=current))
        return failure is None

    def decided(self, entry: Entry) -> None:
        """An entry has committed: its keys may have nothing pending any more. Not asked while nothing is blocked."""
        self._freed += entry.touched()

    def unblock(self) -> None:
        """Propose again what waited for keys that have nothing pending any more."""
        leadership = self.leadership
        while self._freed:
            key = self._freed.pop()
            if key in self.blocked and not leadership.log.undecided(key, leadership.committed):
                leadership.propose(self.blocked.pop(key))

    def recover(self) -> None:
        """The recovery barrier has passed: propose what waited for it."""
        waiting, self.recovering = self.recovering, []
        self.leadership.propose(waiting)

    def tick(self) -> None:
        """Refuse those whose deadline has passed."""
        self.recovering = self._keep(self.recovering)
        self.blocked = {key: kept for key, writes in self.blocked.items() if (kept := self._keep(writes))}

    def _keep(self, writes: list[Write]) -> list[Write]:
        now = self.leadership.replica.now
        for write in writes:
            if write.deadline <= now:
                self.leadership.refuse(write, Reason.EXPIRED)
        return [write for write in writes if write.deadline > now]

    def end(self) -> None:
        """The leadership is over."""
        for writes in (self.recovering, *self.blocked.values()):
            for write in writes:
                self.leadership.refuse(write, Reason.NOT_LEADER)
