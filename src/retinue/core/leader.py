"""Leading: assigning versions, counting acknowledgements, keeping every follower supplied.

Invariants:

* a version above the trusted prefix is in `pending` until it commits; then it is in `committed` until it is trusted;
* nothing at or above `start` commits, and nothing is shown, before everything below `start` has (the recovery barrier);
* the write quorum in force never falls below that of any configuration that is pending or demanded.
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

import msgspec

from retinue.core.log import decode_configuration
from retinue.core.messages import (
    Ack,
    Append,
    Change,
    Configuration,
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
from retinue.core.rounds import Rounds
from retinue.core.supply import Supply

if TYPE_CHECKING:
    from retinue.core.replica import Replica


# Weight of one acknowledgement in a follower's moving average.
ACK_WEIGHT = 0.1


class Waiter(msgspec.Struct, gc=False):
    """Somebody who waits for a version: until it commits (`acks` is `None`), or has so many acknowledgements."""

    token: int
    acks: int | None
    deadline: float
    replayed: bool = False


class Pending(msgspec.Struct):
    """A version that is not committed yet, or on which somebody still waits. `size`: bytes of its entry."""

    version: int
    size: int
    assigned_ms: float
    waiters: list[Waiter]
    acked: list[tuple[str, float]]
    committed: bool = False


class Reconfiguration(msgspec.Struct):
    """A change of the configuration on its way. `version` is 0 until its entry is assigned.

    `cover` is what enough followers must hold before a smaller `P` may be published.
    """

    configuration: Configuration
    token: int | None
    deadline: float
    cover: int = 0
    version: int = 0


class Leadership:
    """One epoch of leadership, from the end of the take-over until it is deposed."""

    def __init__(self, replica: Replica, epoch: int, merged: list[Entry], token: int | None) -> None:
        self.replica = replica
        self.log = replica.log
        self.epoch = epoch
        self.start = self.log.trusted + len(merged) + 1
        self.recovered = False
        self.pending: dict[int, Pending] = {}
        self.pending_bytes = 0
        self.patient: dict[int, Pending] = {}
        self.committed: set[int] = set()
        self.held: list[Pending] = []
        self.blocked: dict[str, list[Write]] = {}
        self.waiting_for_recovery: list[Write] = []
        self.deadlines: list[tuple[float, int, int]] = []
        self.change: Reconfiguration | None = None
        self.token = token
        self.progress = {name: Progress(name) for name in replica.members if name != replica.name}
        self.supply = Supply(self)
        self.rounds = Rounds(self)
        self.quorum = 0
        self._reconsider_quorum(merged)

    def begin(self, merged: list[Entry]) -> None:
        """Propose again what the take-over found; the supply brings it to the followers."""
        replica, log = self.replica, self.log
        for entry in merged:
            log.accept(entry)
            self._expect(entry, [])
        stray = sorted(version for version in log.above if version >= self.start)
        for version in stray:
            log.drop(version)
        replica.save_entries(merged, stray, self.epoch, self.start)
        self._count_all()
        self._pass_barrier()

    # --- the quorum in force ---

    def _reconsider_quorum(self, pending: list[Entry]) -> None:
        """Demand the largest write quorum of the trusted configuration, the pending ones, and the one on its way."""
        configuration = self.log.configuration
        assert configuration is not None, "a node without a configuration cannot have been sealed"
        quorums = [configuration.write_quorum]
        quorums += [decode_configuration(entry).write_quorum for entry in pending if entry.kind == Kind.CONFIG]
        if self.change is not None:
            quorums.append(self.change.configuration.write_quorum)
        self.quorum = max(quorums)

    def has_quorum(self, acks: int) -> bool:
        """Whether so many follower acknowledgements commit a version."""
        return acks >= self.quorum

    @property
    def reachable(self) -> int:
        """Followers that a write may count on now."""
        return sum(progress.reachable for progress in self.progress.values())

    # --- writes ---

    def propose(self, writes: list[Write]) -> None:
        """Give versions to these writes, refuse them, or let them wait for what their conditions ask."""
        entries = []
        for write in writes:
            refusal = self._refusal(write)
            if refusal is not None:
                self._reply(write.token, Result(Outcome.NOT_WRITTEN, refusal, required=self._required(write)))
            elif not (write.request_id and self._replayed(write)) and self._condition_met(write):
                entries.append(self._assign(write))
        if entries:
            self._send_out(entries)

    def _required(self, write: Write) -> int:
        return self.quorum if write.acks is None else write.acks

    def _refusal(self, write: Write) -> Reason | None:
        limits = self.replica.limits
        if self.replica.disk_low:
            return Reason.DISK_LOW
        if len(self.pending) >= limits.max_pending_writes or self.pending_bytes >= limits.max_pending_bytes:
            return Reason.OVERLOADED
        if self.reachable < max(self.quorum, write.acks or 0):
            return Reason.NO_QUORUM
        return None

    def _replayed(self, write: Write) -> bool:
        """Answer a retry with the first result, or let it wait for it. False if the request id is new."""
        known = self.log.requests.get(write.request_id)
        if known is None:
            return False
        version, fingerprint = known
        kind, key, value, encoding = _content(write)
        if fingerprint != request_fingerprint(kind, key, value, encoding):
            reused = Result(Outcome.NOT_WRITTEN, Reason.REQUEST_ID_REUSED, version)
            self._reply(write.token, reused)
            return True
        waiter = Waiter(write.token, write.acks, write.deadline, replayed=True)
        pending = self.pending.get(version)
        if pending is None:
            pending = Pending(version, 0, self.replica.now, [], self.holders(version), committed=True)
            self.pending[version] = self.patient[version] = pending
        pending.waiters.append(waiter)
        heapq.heappush(self.deadlines, (write.deadline, version, write.token))
        self._serve(pending)
        return True

    def holders(self, version: int) -> list[tuple[str, float]]:
        """Followers known to hold a version; when they acknowledged it is no longer known."""
        return [(name, 0.0) for name, progress in self.progress.items() if progress.voter and progress.holds(version)]

    def _condition_met(self, write: Write) -> bool:
        condition, key = write.condition, write.changes[0].key
        if condition is None:
            return True
        if not self.recovered:
            self.waiting_for_recovery.append(write)
            return False
        if self.undecided(key):
            self.blocked.setdefault(key, []).append(write)
            return False
        row = self.committed_row(key)
        current = 0 if row is None or row.deleted else row.version
        failure = None
        if condition.present and not current:
            failure = Reason.NOT_FOUND
        elif (condition.absent and current) or condition.version not in (None, current):
            failure = Reason.CONDITION_FAILED
        if failure is not None:
            self._reply(write.token, Result(Outcome.NOT_WRITTEN, failure, current=current))
        return failure is None

    def undecided(self, key: str) -> bool:
        """Whether a condition on `key` must wait, because a write to it is pending."""
        return self.log.undecided(key, self.committed)

    def _assign(self, write: Write) -> Entry:
        kind, key, value, encoding = _content(write)
        entry = Entry(self.log.last + 1, self.epoch, kind, key, value, encoding, write.request_id)
        self.log.accept(entry)
        self._expect(entry, [Waiter(write.token, write.acks, write.deadline)])
        heapq.heappush(self.deadlines, (write.deadline, entry.version, write.token))
        return entry

    def _expect(self, entry: Entry, waiters: list[Waiter]) -> None:
        size = len(entry.key) + len(entry.value)
        self.pending_bytes += size
        self.pending[entry.version] = Pending(entry.version, size, self.replica.now, waiters, [])

    def _send_out(self, entries: list[Entry]) -> None:
        self.replica.save_entries(entries, [], self.epoch, self.start)
        live = self.supply.live_for(entries[-1].version)
        if live:
            message = Append(self.epoch, self.start, self.log.trusted, entries)
            self.replica.out.append(Replicate(live, message))
        for entry in entries:
            self._count(self.pending[entry.version])
        self._unblock()

    # --- counting ---

    def acknowledged(self, sender: str, ack: Ack) -> None:
        """A follower has some versions durably."""
        progress = self.progress[sender]
        if ack.epoch != self.epoch or not progress.promised or progress.diverged:
            return
        decided = min(self.patient, default=self.log.trusted + 1) - 1
        before = progress.contiguous
        news = progress.acknowledge(ack.versions, ack.contiguous, min(decided, self.log.trusted))
        now = self.replica.now
        progress.heard_ms = now
        progress.trusted = max(progress.trusted, ack.trusted)
        if progress.contiguous > before:
            progress.since_ms = now
        if progress.voter:
            for version in news:
                pending = self.pending.get(version)
                if pending is not None:
                    elapsed_ms = now - pending.assigned_ms
                    progress.ack_ms += (elapsed_ms - progress.ack_ms) * ACK_WEIGHT
                    pending.acked.append((sender, elapsed_ms))
                    self._count(pending)
            self._unblock()
        self.supply.feed(progress)
        self._advance_change()

    def _count(self, pending: Pending) -> None:
        if not pending.committed and self.has_quorum(len(pending.acked)):
            if self.recovered or pending.version < self.start:
                self._commit(pending)
            else:
                self.held.append(pending)
        if pending.waiters:
            self._serve(pending)

    def _count_all(self) -> None:
        for pending in list(self.pending.values()):
            self._count(pending)

    def _commit(self, pending: Pending) -> None:
        log = self.log
        pending.committed = True
        self.committed.add(pending.version)
        self.pending_bytes -= pending.size
        if pending.waiters:
            self.patient[pending.version] = pending
        else:
            del self.pending[pending.version]
        while log.trusted + 1 in self.committed:
            entry = log.settle()
            self.committed.remove(entry.version)
            if entry.kind == Kind.CONFIG:
                self._reconfigured(entry)
        self._pass_barrier()

    def _pass_barrier(self) -> None:
        if self.recovered or self.log.trusted < self.start - 1:
            return
        self.recovered = True
        if self.token is not None:
            acks = len(self.holders(self.log.trusted)) + 1
            self._reply(self.token, Result(Outcome.COMMITTED, Reason.OK, self.log.trusted, self.epoch, acks))
            self.token = None
        held, self.held = self.held, []
        for pending in held:
            if not pending.committed:
                self._count(pending)
        for pending in list(self.pending.values()):
            self._serve(pending)
        waiting, self.waiting_for_recovery = self.waiting_for_recovery, []
        self.propose(waiting)

    def _serve(self, pending: Pending) -> None:
        """Answer those whose wish is met, and forget a version that nobody waits for."""
        if not self.recovered:
            return
        acks = len(pending.acked)
        for waiter in list(pending.waiters):
            if pending.committed if waiter.acks is None else acks >= waiter.acks:
                pending.waiters.remove(waiter)
                outcome = Outcome.COMMITTED if pending.committed else Outcome.ACCEPTED
                self._reply(waiter.token, self._result(pending, waiter, outcome, Reason.OK))
        if pending.committed and not pending.waiters:
            self.pending.pop(pending.version, None)
            self.patient.pop(pending.version, None)

    def _result(self, pending: Pending, waiter: Waiter, outcome: Outcome, reason: Reason) -> Result:
        required = self.quorum if waiter.acks is None else waiter.acks
        acked_by = tuple(pending.acked)
        return Result(
            outcome, reason, pending.version, self.epoch, len(acked_by), required, acked_by, replayed=waiter.replayed
        )

    def _reply(self, token: int, result: Result) -> None:
        self.replica.out.append(Reply(token, result))

    def _unblock(self) -> None:
        """Evaluate the conditions that waited for a key which has nothing pending any more."""
        ready = [key for key in self.blocked if not self.log.undecided(key, self.committed)]
        for key in ready:
            self.propose(self.blocked.pop(key))

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
        progress = self.progress[link.peer]
        if link.node_id != progress.node_id:
            self._forget_acknowledgements(link.peer)
        progress.restart(link.node_id)
        self.supply.seal(progress)

    def _forget_acknowledgements(self, name: str) -> None:
        for pending in self.pending.values():
            pending.acked = [(node, ms) for node, ms in pending.acked if node != name]

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
        """A follower has promised this epoch: bring it up to date, and see whether it may vote."""
        progress = self.progress[sender]
        if promise.epoch != self.epoch or promise.node_id != progress.node_id or progress.promised:
            return
        progress.voter = promise.voter and self._known_as(sender, promise.node_id)
        progress.admit_at = None if progress.voter else self.log.last
        progress.promised = True
        progress.trusted = promise.trusted
        progress.sent = progress.contiguous
        progress.since_ms = self.replica.now
        self.acknowledged(sender, Ack(self.epoch, [], promise.contiguous, promise.trusted))

    def _known_as(self, name: str, node_id: str) -> bool:
        """Whether this node id speaks for the member: no other has been seen under its name."""
        configuration = self.log.configuration
        assert configuration is not None
        admitted = configuration.members.get(name)
        return node_id == (admitted or self.replica.births.get(name) or node_id)

    def diverged(self, sender: str, message: Diverged) -> None:
        """A follower found that its history differs from this one."""
        if message.epoch == self.epoch:
            self.progress[sender].diverged = True

    def confirmed(self, sender: str, message: Confirmed) -> None:
        """A follower confirms this leadership."""
        if self.progress[sender].voter:
            self.rounds.confirmed(sender, message)

    # --- changing the configuration ---

    def configure(self, request: ConfigureRequested) -> None:
        """Change the write quorum. Raise: first demand the larger `W`, then publish the smaller `P`. Lower: first
        publish the larger `P`, then relax `W`, which happens when the new configuration is trusted."""
        configuration = self.log.configuration
        assert configuration is not None
        if not self.recovered or self.change is not None:
            reason = Reason.BUSY if self.recovered else Reason.RECOVERING
            self._reply(request.token, Result(Outcome.NOT_WRITTEN, reason, required=self.quorum))
            return
        if request.write_quorum == configuration.write_quorum:
            done = Result(Outcome.COMMITTED, Reason.OK, self.log.configuration_version, self.epoch, 0, self.quorum)
            self._reply(request.token, done)
            return
        wanted = msgspec.structs.replace(configuration, write_quorum=request.write_quorum)
        raised = request.write_quorum > configuration.write_quorum
        cover = self.log.last if raised else 0
        self._change(Reconfiguration(wanted, request.token, request.deadline, cover))

    def _change(self, change: Reconfiguration) -> None:
        self.change = change
        self._reconsider_quorum([])
        self._advance_change()

    def _advance_change(self) -> None:
        """Assign the configuration entry when that is safe; admit a learner that has caught up."""
        change = self.change
        if change is None:
            self._admit_learner()
        elif not change.version and self._covered(change):
            value = msgspec.json.encode(change.configuration)
            entry = Entry(self.log.last + 1, self.epoch, Kind.CONFIG, "", value)
            change.version = entry.version
            self.log.accept(entry)
            self._expect(entry, [])
            self._send_out([entry])

    def _covered(self, change: Reconfiguration) -> bool:
        covering = sum(p.voter and p.contiguous >= change.cover for p in self.progress.values())
        return change.cover == 0 or covering >= change.configuration.write_quorum

    def _admit_learner(self) -> None:
        configuration = self.log.configuration
        assert configuration is not None
        for name, progress in self.progress.items():
            caught_up = progress.admit_at is not None and progress.contiguous >= progress.admit_at
            if self.recovered and caught_up and progress.linked and progress.promised and not progress.diverged:
                members = {**configuration.members, name: progress.node_id}
                wanted = Configuration(configuration.write_quorum, members)
                self._change(Reconfiguration(wanted, None, float("inf")))
                return

    def _reconfigured(self, entry: Entry) -> None:
        """A configuration entry is trusted: it is in force."""
        change, configuration = self.change, decode_configuration(entry)
        if change is not None and change.version == entry.version:
            self.change = None
            if change.token is not None:
                acks = len(self.holders(entry.version))
                done = Result(Outcome.COMMITTED, Reason.OK, entry.version, self.epoch, acks, self.quorum)
                self._reply(change.token, done)
        for name, node_id in configuration.members.items():
            progress = self.progress.get(name)
            if progress is not None and progress.admit_at is not None and progress.node_id == node_id:
                progress.voter, progress.admit_at = True, None
        self._reconsider_quorum(list(self.log.above.values()))
        self._count_all()

    # --- time ---

    def tick(self) -> None:
        """See to deadlines and timers."""
        now = self.replica.now
        while self.deadlines and self.deadlines[0][0] <= now:
            _, version, token = heapq.heappop(self.deadlines)
            self._expire(version, token)
        self.blocked = {key: kept for key, writes in self.blocked.items() if (kept := self._keep(writes))}
        self.waiting_for_recovery = self._keep(self.waiting_for_recovery)
        change = self.change
        if change is not None and change.token is not None and change.deadline <= now:
            self._expire_change(change, change.token)
        self.rounds.tick()
        self.supply.tick()

    def _expire(self, version: int, token: int) -> None:
        pending = self.pending.get(version)
        if pending is None:
            return
        for waiter in list(pending.waiters):
            if waiter.token == token:
                pending.waiters.remove(waiter)
                outcome = Outcome.COMMITTED if pending.committed and self.recovered else Outcome.UNKNOWN
                self._reply(token, self._result(pending, waiter, outcome, Reason.TIMEOUT))
        self._serve(pending)

    def _keep(self, writes: list[Write]) -> list[Write]:
        """Refuse the waiting conditional writes whose deadline has passed; the others."""
        now = self.replica.now
        for write in writes:
            if write.deadline <= now:
                self._reply(write.token, Result(Outcome.NOT_WRITTEN, Reason.EXPIRED, required=self._required(write)))
        return [write for write in writes if write.deadline > now]

    def _expire_change(self, change: Reconfiguration, token: int) -> None:
        """Nobody waits for the change any more; one that is not assigned yet is given up."""
        outcome = Outcome.UNKNOWN if change.version else Outcome.NOT_WRITTEN
        self._reply(token, Result(outcome, Reason.TIMEOUT, change.version, self.epoch, 0, self.quorum))
        change.token = None
        if not change.version:
            self.change = None
            self._reconsider_quorum(list(self.log.above.values()))
            self._count_all()

    def end(self, reason: Reason) -> None:
        """Deposed: what was assigned may still commit under another leader."""
        for pending in self.pending.values():
            for waiter in pending.waiters:
                outcome = Outcome.COMMITTED if pending.committed else Outcome.UNKNOWN
                self._reply(waiter.token, self._result(pending, waiter, outcome, reason))
        for write in [*self.waiting_for_recovery, *(w for writes in self.blocked.values() for w in writes)]:
            self._reply(write.token, Result(Outcome.NOT_WRITTEN, Reason.NOT_LEADER))
        for token in (self.token, self.change.token if self.change else None):
            if token is not None:
                self._reply(token, Result(Outcome.UNKNOWN, reason, epoch=self.epoch))
        self.rounds.end(reason)


def _content(write: Write) -> tuple[int, str, bytes, int]:
    """Kind, key, value and encoding of the entry that a write becomes."""
    if write.batch:
        return Kind.BATCH, "", encode_changes(write.changes), 0
    change: Change = write.changes[0]
    return change.kind, change.key, change.value, change.encoding


