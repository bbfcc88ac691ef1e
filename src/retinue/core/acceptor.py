"""Answering whoever leads: promises, acceptance of entries, the trusted prefix.

Every request carries an epoch. A lower one than promised is rejected, a higher one is promised first, durably. Only
entries accepted in the current leader's epoch extend the trusted prefix, so that what an earlier leader left behind is
never taken for committed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from retinue.core.messages import (
    Ack,
    Append,
    Configuration,
    Confirm,
    Confirmed,
    Diverged,
    Entry,
    Fetch,
    Heartbeat,
    Injected,
    Outcome,
    Reason,
    Rejected,
    Reply,
    Request,
    Result,
    Seal,
    Send,
    SendRange,
    SendSnapshot,
    Snapshot,
)
from retinue.core.quorum import owner_of

if TYPE_CHECKING:
    from retinue.core.replica import Replica


class Acceptor:
    """One node towards its leader.

    `contiguous`: every version up to it is trusted, or accepted in the promised epoch. `commit`: the leader's commit
    point, as far as it is known in this epoch. `checkpoint`: a version and the leader's checksum chain at it.
    """

    def __init__(self, replica: Replica) -> None:
        self.replica = replica
        self.start: int | None = None
        self.contiguous = 0
        self.commit = 0
        self.checkpoint = (0, 0)
        self.heard_ms = 0.0
        self.new_epoch()
        self._extend_contiguous()

    def new_epoch(self) -> None:
        """Start afresh under a new promise: only the trusted prefix counts as accepted."""
        self.start = None
        self.contiguous = self.replica.log.trusted
        self.commit = self.replica.log.trusted
        self.checkpoint = (0, 0)

    # --- the epoch rules ---

    def is_stale(self, epoch: int) -> bool:
        """Whether a promise forbids to listen to this epoch."""
        return epoch < self.replica.promised

    def request(self, sender: str, message: Request) -> None:
        """A message from a leader or candidate."""
        replica = self.replica
        if type(message) is Seal:
            foreign = replica.cluster_id not in ("", message.cluster_id)
            if foreign:
                replica.out.append(Send(sender, Rejected(message.epoch, replica.promised, foreign=True)))
                return
            self._adopt_cluster(message)
        if not replica.cluster_id or owner_of(message.epoch, replica.nodes) != replica.members.index(sender):
            return
        if self.is_stale(message.epoch):
            replica.out.append(Send(sender, Rejected(message.epoch, replica.promised)))
            return
        if message.epoch > replica.promised:
            replica.step_down(Reason.LEADERSHIP_LOST)
            replica.promise(message.epoch)
        self.heard_ms = replica.now
        self._answer(sender, message)

    def _adopt_cluster(self, seal: Seal) -> None:
        """A blank node joins the cluster that seals it: as a voter if it is born into it, else as a learner."""
        replica = self.replica
        if not replica.cluster_id:
            replica.step_down(Reason.NOT_LEADER)
            replica.cluster_id = seal.cluster_id
            replica.voter = seal.birth == replica.node_id
            replica.log.configuration = Configuration(seal.write_quorum)
            replica.save_state()

    def _answer(self, sender: str, message: Request) -> None:
        replica = self.replica
        if isinstance(message, Append):
            if self._follows(sender, message.start):
                self._on_append(sender, message)
        elif isinstance(message, Heartbeat):
            if self._follows(sender, message.start):
                self._on_heartbeat(sender, message)
        elif isinstance(message, Snapshot):
            if self._follows(sender, message.start):
                self._on_snapshot(sender, message)
        elif isinstance(message, Seal):
            if replica.quarantined:
                replica.out.append(Send(sender, Diverged(message.epoch, replica.log.trusted)))
            replica.out.append(Send(sender, replica.make_promise(message.epoch, message.tail)))
        elif isinstance(message, Confirm):
            replica.out.append(Send(sender, Confirmed(message.epoch, message.round)))
        else:
            self._on_fetch(sender, message)

    def _follows(self, sender: str, start: int) -> bool:
        """Follow the leader of the promised epoch, which began at `start`; false if this node is in quarantine."""
        replica = self.replica
        if self.start is None and not replica.quarantined:
            self._follow(sender, start)
        if replica.quarantined:
            replica.out.append(Send(sender, Diverged(replica.promised, replica.log.trusted)))
        return not replica.quarantined

    def _follow(self, sender: str, start: int) -> None:
        """The epoch has a leader. What an earlier one left at or above its start was never committed, and goes.

        If this node trusts such a version, the leader took over with fewer promises than safe: the histories differ.
        """
        replica, log = self.replica, self.replica.log
        self.start, replica.leader = start, sender
        if log.trusted >= start and replica.promised not in replica.epochs:
            self._quarantine()
            return
        ghosts = sorted(v for v, entry in log.above.items() if v >= start and entry.epoch < replica.promised)
        for version in ghosts:
            log.drop(version)
        replica.save_entries([], ghosts, 0, 0)

    def _quarantine(self) -> None:
        self.replica.quarantined = True
        self.replica.save_state()

    # --- entries ---

    def _on_append(self, sender: str, message: Append) -> None:
        replica, log = self.replica, self.replica.log
        above, trusted, epoch = log.above, log.trusted, message.epoch
        acknowledged: list[int] = []
        fresh: list[Entry] = []
        horizon = self.contiguous + 2 * replica.limits.window
        for entry in message.entries:
            version = entry.version
            if version > horizon:
                continue
            if version > trusted:
                renewed = entry if entry.epoch == epoch else self.as_accepted(entry, epoch)
                have = above.get(version)
                if have is None or have != renewed:
                    log.accept(renewed)
                    fresh.append(renewed)
            acknowledged.append(version)
        replica.save_entries(fresh, [], epoch, message.start)
        self._extend_contiguous()
        if message.commit > self.commit:
            self.commit = message.commit
        self._advance(sender)
        if not replica.quarantined:
            # Those up to the contiguous point are acknowledged by it.
            self._acknowledge(sender, [version for version in acknowledged if version > self.contiguous])

    def as_accepted(self, entry: Entry, epoch: int) -> Entry:
        """An entry of an earlier epoch as it is kept: with the one in which this copy is accepted, the sender's."""
        return msgspec.structs.replace(entry, epoch=epoch)

    def _extend_contiguous(self) -> None:
        above, promised = self.replica.log.above, self.replica.promised
        version = self.contiguous
        while (entry := above.get(version + 1)) is not None and entry.epoch == promised:
            version += 1
        self.contiguous = version

    def may_trust(self, entry: Entry) -> bool:
        """Whether a version at or below the commit point is here as the current leader has it."""
        return entry.epoch == self.replica.promised

    def _advance(self, sender: str) -> None:
        """Extend the trusted prefix towards the commit point, and compare histories on the way."""
        replica, log, before = self.replica, self.replica.log, self.replica.log.trusted
        above, commit, checkpoint = log.above, self.commit, self.checkpoint[0]
        while log.trusted < commit and not replica.quarantined:
            entry = above.get(log.trusted + 1)
            if entry is None or not self.may_trust(entry):
                break
            log.settle()
            if log.trusted == checkpoint:
                self._compare(sender)
        if log.trusted > before:
            self.contiguous = max(self.contiguous, log.trusted)
            self.replica.trusted_more()

    def _compare(self, sender: str) -> None:
        """Go into quarantine if the checksum chain differs from the leader's at the same version."""
        replica = self.replica
        if replica.log.chain != self.checkpoint[1]:
            self._quarantine()
            replica.out.append(Send(sender, Diverged(replica.promised, replica.log.trusted)))

    def _acknowledge(self, sender: str, versions: list[int]) -> None:
        replica = self.replica
        ack = Ack(replica.promised, versions, self.contiguous, replica.log.trusted)
        replica.out.append(Send(sender, ack))

    def _on_heartbeat(self, sender: str, message: Heartbeat) -> None:
        trusted = self.replica.log.trusted
        self.commit = max(self.commit, message.commit)
        if message.commit >= trusted:
            self.checkpoint = (message.commit, message.chain)
            if message.commit == trusted:
                self._compare(sender)
        if not self.replica.quarantined:
            self._advance(sender)
        if not self.replica.quarantined:
            self._acknowledge(sender, [])

    # --- catching up ---

    def _on_fetch(self, sender: str, message: Fetch) -> None:
        """A candidate lacks committed entries that this node trusts."""
        replica, log = self.replica, self.replica.log
        if message.after < log.floor:
            replica.out.append(SendSnapshot(sender, replica.make_snapshot(message.epoch, 0)))
        else:
            upto = min(message.after + replica.limits.catch_up_batch, log.trusted)
            replica.out.append(SendRange(sender, message.epoch, 0, log.trusted, message.after, upto, fetched=True))

    def _on_snapshot(self, sender: str, message: Snapshot) -> None:
        if message.trusted > self.replica.log.trusted:
            self.replica.install(message)
            self.replica.note_epoch(message.epoch, message.start)
            self.contiguous = max(self.contiguous, message.trusted)
            self._extend_contiguous()
            self.commit = max(self.commit, message.trusted)
        self._acknowledge(sender, [])

    def inject(self, event: Injected) -> None:
        """Accept one replicated entry that came through another door, by the same rules.

        Without an epoch it never replaces what a leader sent. Only the epoch that this node follows is taken: a later
        one would be a jump without proof, and an entry must not be saved without where its epoch began.
        """
        replica, log = self.replica, self.replica.log
        epoch = event.epoch or 0
        reason = Reason.OK
        if replica.leadership is not None:
            reason = Reason.NOT_FOLLOWER
        elif event.epoch is not None and (event.epoch != replica.promised or self.start is None):
            reason = Reason.WRONG_EPOCH
        elif event.version > self.contiguous + replica.limits.window:
            reason = Reason.BEYOND_WINDOW
        elif event.version > log.trusted:
            have = log.above.get(event.version)
            if have is None or have.epoch < epoch:
                change = event.change
                kind, key, value, encoding, expires_ms = msgspec.structs.astuple(change)
                entry = Entry(event.version, epoch, kind, key, value, encoding, "", expires_ms)
                log.accept(entry)
                replica.save_entries([entry], [], epoch, self.start or 0)
                self._extend_contiguous()
        outcome = Outcome.ACCEPTED if reason is Reason.OK else Outcome.NOT_WRITTEN
        replica.out.append(Reply(event.token, Result(outcome, reason, event.version, replica.promised)))
