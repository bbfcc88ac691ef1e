"""A follower joins a leadership: its link comes up, it promises, and the leader finds out whether it counts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from retinue.core.messages import Ack, Heartbeat, LinkUp, Promise, Send
from retinue.core.progress import Progress

if TYPE_CHECKING:
    from retinue.core.leader import Leadership


class Joining:
    """How followers come to one leadership."""

    def __init__(self, leadership: Leadership) -> None:
        self.leadership = leadership

    def link_up(self, link: LinkUp) -> None:
        """A follower can be reached (again): ask for its promise first."""
        leadership = self.leadership
        progress = leadership.progress[link.peer]
        if link.node_id != progress.node_id:
            self._forget_acknowledgements(link.peer)
        progress.restart(link.node_id)
        leadership.supply.seal(progress)

    def _forget_acknowledgements(self, name: str) -> None:
        for pending in self.leadership.pending.values():
            pending.acked = [(node, ms) for node, ms in pending.acked if node != name]

    def promised(self, sender: str, promise: Promise) -> None:
        """A follower has promised the epoch: see whether it may vote, and bring it up to date."""
        leadership = self.leadership
        epoch, progress = leadership.epoch, leadership.progress[sender]
        if promise.epoch != epoch or promise.node_id != progress.node_id or progress.promised:
            return
        if promise.trusted >= leadership.start and epoch not in promise.epochs:
            progress.diverged = True  # it trusts what this take-over had to give up
        elif promise.voter:
            self._learn_from(progress, promise)
        progress.voter = promise.voter and leadership.reconfiguration.known_as(sender, promise.node_id)
        progress.admit_at = None if progress.voter else leadership.log.last
        progress.promised = True
        progress.trusted = promise.trusted
        progress.sent = progress.contiguous
        progress.since_ms = leadership.replica.now
        leadership.acknowledged(sender, Ack(epoch, [], promise.contiguous, promise.trusted))
        if progress.reachable:
            leadership.credit(progress)

    def _learn_from(self, progress: Progress, promise: Promise) -> None:
        """Commit what a voter trusts beyond this node: an earlier leader committed it, and the take-over found it.

        Otherwise a follower that was admitted by an entry which only it trusts would not count towards that entry. If
        the histories differ, the follower is told the checksum chain at its version, and goes into quarantine by it.
        """
        leadership = self.leadership
        log, versions = leadership.log, range(leadership.log.trusted + 1, promise.trusted + 1)
        chain = log.chain
        for version in versions:
            chain = log.above[version].checksum(chain)
        if promise.trusted >= log.trusted and promise.chain != chain:
            progress.diverged = True
            # As a commit point it says nothing new: the follower trusts exactly that far.
            proof = Heartbeat(leadership.epoch, leadership.start, promise.trusted, chain)
            leadership.replica.out.append(Send(progress.name, proof))
            return
        for version in versions:
            pending = leadership.pending.get(version)
            if pending is not None and not pending.committed:
                leadership.commit(pending)
        leadership.conditions.unblock()
