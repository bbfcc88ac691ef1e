"""Leading: assigning versions, counting acknowledgements, keeping every follower supplied.

Invariants:

* a version above the trusted prefix is in `pending` until it commits; then it is in `committed` until it is trusted;
* nothing at or above `start` commits, and nothing is shown, before everything below `start` has (the recovery barrier);
* the write quorum in force never falls below that of any configuration that is pending or demanded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from retinue.core.conditions import Conditions
from retinue.core.joining import Joining
from retinue.core.messages import (
    Ack,
    Append,
    Change,
    ConfigureRequested,
    Confirmed,
    Diverged,
    Entry,
    Kind,
    LinkUp,
    Outcome,
    Promise,
    Reason,
    Replicate,
    Reply,
    Result,
    Row,
    StrongRead,
    Write,
    encode_changes,
    request_fingerprint,
)
from retinue.core.progress import Progress
from retinue.core.reconfiguration import Reconfiguration, Transition
from retinue.core.rounds import Rounds
from retinue.core.supply import Supply
from retinue.core.waiting import Pending, Waiter, Waiting

if TYPE_CHECKING:
    from retinue.core.replica import Replica


# Weight of one message of acknowledgements, by the oldest write in it, in a follower's moving average.
ACK_WEIGHT = 0.1

_CONFIG = int(Kind.CONFIG)


class Leadership:
    """One epoch of leadership, from the end of the take-over until it is deposed."""

    def __init__(self, replica: Replica, epoch: int, merged: list[Entry], token: int | None) -> None:
        self.replica = replica
        self.log = replica.log
        self.epoch = epoch
        self.start = (merged[-1].version if merged else self.log.trusted) + 1
        self.recovered = False
        self.waiting = Waiting(self)
        self.pending = self.waiting.pending
        self.patient = self.waiting.patient
        self.committed: set[int] = set()
        self.held: list[Pending] = []
        self.token = token
        self.promotion_deadline = float("inf")
        self.progress = {name: Progress(name) for name in replica.members if name != replica.name}
        self.supply = Supply(self)
        self.rounds = Rounds(self)
        self.joining = Joining(self)
        self.conditions = Conditions(self)
        self.reconfiguration = Reconfiguration(self, merged)

    def begin(self, merged: list[Entry]) -> None:
        """Propose again what the take-over found; the supply brings it to the followers."""
        replica, log = self.replica, self.log
        for entry in merged:
            log.accept(entry)
            self.waiting.expect(entry)
        stray = sorted(version for version in log.above if version >= self.start)
        for version in stray:
            log.drop(version)
        replica.save_entries(merged, stray, self.epoch, self.start)
        self._count_all()
        self._pass_barrier()

    # --- the quorum in force ---

    @property
    def quorum(self) -> int:
        """The write quorum that is demanded now."""
        return self.reconfiguration.quorum

    @property
    def change(self) -> Transition | None:
        """The change of configuration that is on its way."""
        return self.reconfiguration.change

    @property
    def acks_needed(self) -> int:
        """How many follower acknowledgements commit a version: the rule that a mutant breaks."""
        return self.reconfiguration.quorum

    @property
    def reachable(self) -> int:
        """Followers that a write may count on now."""
        return sum(progress.reachable for progress in self.progress.values())

    # --- writes ---

    def propose(self, writes: list[Write]) -> None:
        """Give versions to these writes, refuse them, or let them wait for what their conditions ask."""
        entries, reachable, quorum = [], self.reachable, self.quorum
        for write in writes:
            if write.request_id and self._replayed(write):
                continue
            refusal = self._refusal(write, reachable, quorum)
            if refusal is not None:
                self.refuse(write, refusal)
            elif write.condition is None or self.conditions.met(write, write.condition):
                entries.append(self._assign(write))
        if entries:
            self._send_out(entries)

    def refuse(self, write: Write, reason: Reason) -> None:
        """Answer a write that has no version, and will not get one."""
        required = max(self.quorum, write.acks or 0)
        self.reply(write.token, Result(Outcome.NOT_WRITTEN, reason, required=required))

    def _refusal(self, write: Write, reachable: int, quorum: int) -> Reason | None:
        limits = self.replica.limits
        if self.replica.disk_low:
            return Reason.DISK_LOW
        if len(self.pending) >= limits.max_pending_writes or self.waiting.size >= limits.max_pending_bytes:
            return Reason.OVERLOADED
        if reachable < quorum or (write.acks is not None and reachable < write.acks):
            return Reason.NO_QUORUM
        return None

    def _replayed(self, write: Write) -> bool:
        """Answer a retry with the first result, or let it wait for it. False if the request id is new."""
        known = self.log.requests.get(write.request_id)
        if known is None:
            return False
        version, fingerprint = known
        if fingerprint != request_fingerprint(*_content(write)):
            reused = Result(Outcome.NOT_WRITTEN, Reason.REQUEST_ID_REUSED, version)
            self.reply(write.token, reused)
            return True
        pending = self.waiting.expect_again(version)
        self.waiting.join(pending, Waiter(write.token, write.acks, write.deadline, replayed=True))
        self.waiting.serve(pending)
        return True

    def holders(self, version: int) -> list[tuple[str, float]]:
        """Followers known to hold a version; when they acknowledged it is no longer known."""
        return [(name, 0.0) for name, progress in self.progress.items() if progress.voter and progress.holds(version)]

    def row_for_condition(self, key: str) -> Row | None:
        """What conditions are evaluated against: committed state."""
        return self.committed_row(key)

    def undecided(self, key: str) -> bool:
        """Whether a condition on `key` must wait, because a write to it is pending."""
        return self.log.undecided(key, self.committed)

    def _assign(self, write: Write) -> Entry:
        kind, key, value, encoding, expires_ms = _content(write)
        entry = Entry(self.log.last + 1, self.epoch, kind, key, value, encoding, write.request_id, expires_ms)
        self.log.accept(entry)
        pending = self.waiting.expect(entry)
        self.waiting.join(pending, Waiter(write.token, write.acks, write.deadline))
        return entry

    def append(self, entry: Entry) -> None:
        """Give a version to an entry that is no client's write."""
        self.log.accept(entry)
        self.waiting.expect(entry)
        self._send_out([entry])

    def _send_out(self, entries: list[Entry]) -> None:
        self.replica.save_entries(entries, [], self.epoch, self.start)
        live = self.supply.live_for(entries[-1].version)
        if live:
            message = Append(self.epoch, self.start, self.log.trusted, entries)
            self.replica.out.append(Replicate(live, message))
        for entry in entries:
            pending = self.pending[entry.version]
            if pending.counted or self.acks_needed <= 0:
                self._count(pending)
        self.conditions.unblock()

    # --- counting ---

    def acknowledged(self, sender: str, ack: Ack) -> None:
        """A follower has some versions durably."""
        progress = self.progress[sender]
        if ack.epoch != self.epoch or not progress.promised or progress.diverged:
            return
        before = progress.contiguous
        news = progress.acknowledge(ack.versions, ack.contiguous, self.waiting.decided())
        now = self.replica.now
        progress.heard_ms = now
        progress.trusted = max(progress.trusted, ack.trusted)
        if progress.contiguous > before:
            progress.since_ms = now
        if news and (progress.voter or self._nobody_to_spare):
            self._count_news(progress, news)
        self.supply.feed(progress)
        if self.change is not None or progress.admit_at is not None:
            self.reconfiguration.advance()

    def _count_news(self, progress: Progress, news: list[int]) -> None:
        """Count an acknowledgement of each of these versions.

        All of them are noted before the first is counted: it may be what admits this follower, whose earlier
        acknowledgements are credited then.
        """
        now, name, needed = self.replica.now, progress.name, self.acks_needed
        found = [pending for version in news if (pending := self.pending.get(version)) is not None]
        for pending in found:
            pending.acked.append((name, now - pending.assigned_ms))
        if found:
            progress.ack_ms += (found[0].acked[-1][1] - progress.ack_ms) * ACK_WEIGHT
        for pending in found:
            if len(pending.acked) >= needed or pending.counted:
                self._count(pending)
        if self.acks_needed < needed:
            self._count_all()
        self.conditions.unblock()

    @property
    def _nobody_to_spare(self) -> bool:
        """Whether a write needs every follower: then the acknowledgements of a learner count before it may vote.

        Without them nothing could commit, not even what admits it. It is safe, because all the others have a copy too:
        any of them may take over, but the disk that the learner's has replaced must not (docs/decisions/0009).
        """
        return self.quorum >= len(self.progress)

    def _discount_learners(self) -> None:
        """Where a write can do without one follower, no acknowledgement of a learner counts, no earlier one either."""
        learners = {name for name, progress in self.progress.items() if not progress.voter}
        if learners and not self._nobody_to_spare:
            for pending in self.pending.values():
                pending.acked = [(name, ms) for name, ms in pending.acked if name not in learners]

    def admit(self, progress: Progress) -> None:
        """A learner may vote."""
        progress.voter, progress.admit_at = True, None
        self.credit(progress)

    def credit(self, progress: Progress) -> None:
        """Count what a follower has acknowledged before its acknowledgements counted."""
        for pending in list(self.pending.values()):
            if progress.holds(pending.version) and all(name != progress.name for name, _ in pending.acked):
                pending.acked.append((progress.name, self.replica.now - pending.assigned_ms))
                self._count(pending)
        self.conditions.unblock()

    def _count(self, pending: Pending) -> None:
        if not pending.committed and len(pending.acked) >= self.acks_needed:
            if self.recovered or pending.version < self.start:
                self.commit(pending)
            else:
                self.held.append(pending)
        if pending.counted:
            self.waiting.serve(pending)

    def _count_all(self) -> None:
        for pending in list(self.pending.values()):
            self._count(pending)
        self.conditions.unblock()

    def commit(self, pending: Pending) -> None:
        """Enough nodes hold this version: answer whom it concerns, and trust what follows on without a gap."""
        log, committed = self.log, self.committed
        committed.add(pending.version)
        if self.conditions.blocked:
            self.conditions.decided(log.above[pending.version])
        self.waiting.commit(pending)
        while log.trusted + 1 in committed:
            entry = log.settle()
            committed.remove(entry.version)
            if entry.kind == _CONFIG:
                admitted = self.reconfiguration.in_force(entry)
                self._discount_learners()
                for progress in admitted:
                    self.admit(progress)
                self._count_all()
        if not self.recovered:
            self._pass_barrier()

    def _pass_barrier(self) -> None:
        if self.recovered or self.log.trusted < self.start - 1:
            return
        self.recovered = True
        if self.token is not None:
            acks = len(self.holders(self.log.trusted)) + 1
            self.reply(self.token, Result(Outcome.COMMITTED, Reason.OK, self.log.trusted, self.epoch, acks))
            self.token = None
        held, self.held = self.held, []
        for pending in held:
            if not pending.committed:
                self._count(pending)
        for pending in list(self.pending.values()):
            self.waiting.serve(pending)
        self.conditions.recover()

    def reply(self, token: int, result: Result) -> None:
        """Answer whoever waits under `token`."""
        self.replica.out.append(Reply(token, result))

    # --- reads ---

    def committed_row(self, key: str) -> Row | None:
        """The highest committed version of a key."""
        return self.log.newest_in(key, self.committed)

    def strong_read(self, read: StrongRead) -> None:
        """Read as of now, answered once followers have confirmed the leadership."""
        self.rounds.add(read)

    # --- followers ---

    def link_up(self, link: LinkUp) -> None:
        """A follower can be reached (again): ask for its promise first."""
        self.joining.link_up(link)

    def link_down(self, peer: str) -> None:
        """A follower is out of reach."""
        progress = self.progress[peer]
        progress.linked = progress.live = progress.snapshot = False

    def link_full(self, peer: str) -> None:
        """What was queued for a follower is gone: catch up from what it has acknowledged."""
        progress = self.progress[peer]
        progress.live = False
        progress.since_ms = self.replica.now

    def promised(self, sender: str, promise: Promise) -> None:
        """A follower has promised this epoch."""
        self.joining.promised(sender, promise)

    def diverged(self, sender: str, message: Diverged) -> None:
        """A follower found that its history differs from this one."""
        if message.epoch == self.epoch:
            self.progress[sender].diverged = True

    def confirmed(self, sender: str, message: Confirmed) -> None:
        """A follower confirms this leadership."""
        if self.progress[sender].voter:
            self.rounds.confirmed(sender, message)

    def configure(self, request: ConfigureRequested) -> None:
        """Change the write quorum."""
        self.reconfiguration.configure(request)

    # --- time ---

    def tick(self) -> None:
        """See to deadlines and timers."""
        self.waiting.tick()
        self.conditions.tick()
        if self.reconfiguration.give_up():
            self._discount_learners()
            self._count_all()
        if self.token is not None and self.promotion_deadline <= self.replica.now:
            acks, required = self.reachable + 1, self.quorum + 1
            late = Result(Outcome.UNKNOWN, Reason.TIMEOUT, epoch=self.epoch, acks=acks, required=required)
            self.reply(self.token, late)
            self.token = None
        self.rounds.tick()
        self.supply.tick()

    def end(self, reason: Reason) -> None:
        """Deposed: what was assigned may still commit under another leader."""
        self.waiting.end(reason)
        self.conditions.end()
        if self.token is not None:
            self.reply(self.token, Result(Outcome.UNKNOWN, reason, epoch=self.epoch))
        self.reconfiguration.end(reason)
        self.rounds.end(reason)


def _content(write: Write) -> tuple[int, str, bytes, int, int]:
    """Kind, key, value, encoding and expiry of the entry that a write becomes; a batch has its expiries inside."""
    if write.batch:
        return Kind.BATCH, "", encode_changes(write.changes), 0, 0
    change: Change = write.changes[0]
    return change.kind, change.key, change.value, change.encoding, change.expires_ms
