"""Strong reads: confirming, in rounds, that this node still leads.

A read takes the committed value at its arrival and waits for a round that began after it: `k` followers say that they
have promised nothing higher. Any newer leader has promises from nodes that meet those `k` and the leader, so at the
time of the round there was none. One round serves all reads that waited when it began. No clock is involved.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from retinue.core.messages import Confirm, Confirmed, ReadResult, Reason, Reply, Row, Send, StrongRead

if TYPE_CHECKING:
    from retinue.core.leader import Leadership


class Rounds:
    """The strong reads of one leadership."""

    def __init__(self, leadership: Leadership) -> None:
        self.leadership = leadership
        self.number = 0
        self.waiting: list[tuple[StrongRead, Row | None]] = []
        self.confirming: list[tuple[StrongRead, Row | None]] = []
        self.confirmed_by: set[str] = set()
        self.sent_ms = 0.0

    def add(self, read: StrongRead) -> None:
        """Take the value now; answer after the next round."""
        leadership = self.leadership
        if not leadership.recovered:
            self._answer(read, Reason.RECOVERING, None)
        elif leadership.reachable < leadership.quorum:
            self._answer(read, Reason.NO_QUORUM, None)
        else:
            self.waiting.append((read, leadership.committed_row(read.key)))
            if not self.confirming:
                self._begin()

    def _answer(self, read: StrongRead, reason: Reason, row: Row | None) -> None:
        self.leadership.replica.out.append(Reply(read.token, ReadResult(reason, row)))

    def _begin(self) -> None:
        self.number += 1
        self.confirming, self.waiting = self.waiting, []
        self.confirmed_by = set()
        self._send()
        self._finish_if_confirmed()

    def _send(self) -> None:
        leadership = self.leadership
        self.sent_ms = leadership.replica.now
        for progress in leadership.progress.values():
            if progress.reachable:
                leadership.replica.out.append(Send(progress.name, Confirm(leadership.epoch, self.number)))

    def confirmed(self, sender: str, message: Confirmed) -> None:
        """A follower that may vote confirms the round."""
        if message.epoch == self.leadership.epoch and message.round == self.number:
            self.confirmed_by.add(sender)
            self._finish_if_confirmed()

    def _finish_if_confirmed(self) -> None:
        if self.confirming and len(self.confirmed_by) >= self.leadership.acks_needed:
            for read, row in self.confirming:
                self._answer(read, Reason.OK, row)
            self.confirming = []
            if self.waiting:
                self._begin()

    def tick(self) -> None:
        """Give up on reads whose deadline has passed; ask again those who have not confirmed."""
        now = self.leadership.replica.now
        for read, _ in [*self.confirming, *self.waiting]:
            if read.deadline <= now:
                self._answer(read, Reason.TIMEOUT, None)
        self.confirming = [item for item in self.confirming if item[0].deadline > now]
        self.waiting = [item for item in self.waiting if item[0].deadline > now]
        if not self.confirming and self.waiting:
            self._begin()
        elif self.confirming and now >= self.sent_ms + self.leadership.replica.limits.seal_retry_ms:
            self._send()

    def end(self, reason: Reason) -> None:
        """The leadership is over, so no read can be confirmed."""
        for read, _ in [*self.confirming, *self.waiting]:
            self._answer(read, reason, None)
