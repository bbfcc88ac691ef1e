"""One node's part in the protocol: the state machine that every event goes through.

`Replica` holds what a node knows, and the rules that bind every node whatever its role: what it has promised, what it
saves, what a read may return. An `Acceptor` answers whoever leads. A node that takes over has a `Takeover`, one that
leads has a `Leadership`; with neither, it follows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from retinue.core import quorum
from retinue.core.acceptor import Acceptor
from retinue.core.leader import Leadership
from retinue.core.log import Log
from retinue.core.messages import (
    Ack,
    CloseLinks,
    Compact,
    Configuration,
    ConfigureRequested,
    Confirmed,
    DiskLow,
    Diverged,
    Effect,
    Entry,
    Event,
    Fetched,
    HardState,
    Image,
    Injected,
    Install,
    Joined,
    LinkDown,
    LinkFull,
    LinkUp,
    Outcome,
    Paced,
    Promise,
    PromoteRequested,
    Proposed,
    ReadResult,
    Reason,
    Received,
    Rejected,
    Reply,
    Result,
    Row,
    Save,
    SaveEntries,
    SaveEpoch,
    SaveState,
    SessionRead,
    Snapshot,
    Started,
    StrongRead,
    Tick,
)
from retinue.core.takeover import Mode, Takeover


class Limits(msgspec.Struct, frozen=True):
    """Bounds and intervals of the core.

    `window`: versions a live follower may lag, and a follower accepts ahead of what it holds without a gap.
    `retention`: versions kept below the trusted prefix, so that a follower that was away needs no snapshot, and a retry
    finds its request id. `compact_batch`: dead rows deleted per tick. `catch_up_batch`: versions in one range.
    """

    window: int = 65_536
    retention: int = 100_000
    compact_batch: int = 512
    catch_up_batch: int = 512
    max_pending_writes: int = 65_536
    max_pending_bytes: int = 64 << 20
    heartbeat_ms: float = 100.0
    retransmit_ms: float = 1000.0
    seal_retry_ms: float = 500.0
    snapshot_retry_ms: float = 60_000.0
    founding_wait_ms: float = 3000.0
    state_save_ms: float = 1000.0


class Replica:
    """The state machine of one node. `founding_quorum` is the write quorum of a cluster that this node would found."""

    leadership_class = Leadership
    takeover_class = Takeover
    acceptor_class = Acceptor

    def __init__(
        self, name: str, members: tuple[str, ...], image: Image, *, write_quorum: int, limits: Limits | None = None
    ) -> None:
        hard = image.hard
        self.name = name
        self.members = members
        self.founding_quorum = write_quorum
        self.limits = limits or Limits()
        self.retransmit_ms = self.limits.retransmit_ms
        self.node_id = hard.node_id
        self.cluster_id = hard.cluster_id
        self.promised = hard.promised
        self.voter = hard.voter
        self.founder = hard.founder
        self.births = dict(hard.births)
        self.quarantined = hard.quarantined
        self.epochs = dict(image.epochs)
        self.log = Log(image)
        self.now = 0.0
        self.disk_low = False
        self.leader: str | None = None
        self.leadership: Leadership | None = None
        self.takeover: Takeover | None = None
        self.acceptor = self.acceptor_class(self)
        self.out: list[Effect] = []
        self._saves: list[Save] = []
        self._unsaved = False
        self._saved_trusted = hard.trusted
        self._saved_ms = 0.0
        self._session_reads: list[SessionRead] = []

    # --- the one way in ---

    def step(self, event: Event, now_ms: float) -> list[Effect]:
        """Take one event; the effects to perform, saves first. `now_ms` must not go back."""
        self.now = now_ms
        _HANDLERS[type(event)](self, event)
        if self._unsaved or any(type(save) is not Compact for save in self._saves):
            self._saves.append(SaveState(self.hard_state()))
            self._unsaved = False
            self._saved_trusted, self._saved_ms = self.log.trusted, now_ms
        effects = [*self._saves, *self.out]
        self._saves, self.out = [], []
        return effects

    def hard_state(self) -> HardState:
        """What the store must keep beside entries."""
        log = self.log
        return HardState(
            node_id=self.node_id,
            name=self.name,
            nodes=self.nodes if self.cluster_id else 0,
            cluster_id=self.cluster_id,
            promised=self.promised,
            trusted=log.trusted,
            floor=log.floor,
            chain=log.chain,
            configuration=log.configuration,
            configuration_version=log.configuration_version,
            voter=self.voter,
            founder=self.founder,
            births=dict(self.births),
            quarantined=self.quarantined,
        )

    def save_entries(self, entries: list[Entry], removed: list[int], epoch: int, start: int) -> None:
        """Make entries of `epoch` durable; with its first one, where the epoch began."""
        if entries or removed:
            self._saves.append(SaveEntries(entries, removed))
        if entries and epoch > 0:
            self.note_epoch(epoch, start)

    def note_epoch(self, epoch: int, start: int) -> None:
        """Remember the first version that an epoch owns; an earlier record stays."""
        if epoch not in self.epochs:
            self.epochs[epoch] = start
            self._saves.append(SaveEpoch(epoch, start))

    def save_state(self) -> None:
        """Make the hard state durable in this step."""
        self._unsaved = True

    # --- who is who ---

    @property
    def nodes(self) -> int:
        """`N`, the number of members."""
        return len(self.members)

    @property
    def index(self) -> int:
        """This node's place among the members."""
        return self.members.index(self.name)

    @property
    def epoch(self) -> int:
        """The epoch that this node has promised, which is the current one as far as it knows."""
        return self.promised

    @property
    def role(self) -> str:
        """`leader`, `candidate` or `follower`."""
        if self.leadership is not None:
            return "leader"
        return "candidate" if self.takeover is not None else "follower"

    @property
    def serving(self) -> bool:
        """Whether this node leads and has passed its recovery barrier."""
        return self.leadership is not None and self.leadership.recovered

    @property
    def may_vote(self) -> bool:
        """Whether this node's promises and acknowledgements count."""
        return self.voter and not self.quarantined

    def promises_needed(self, write_quorum: int) -> int:
        """`P` for a write quorum."""
        return quorum.promises_needed(self.nodes, write_quorum)

    def birth_of(self, name: str, node_id: str) -> bool:
        """Whether a blank node may vote from the start: the founder never saw another node under its name.

        The first node id is recorded durably before the node can vote.
        """
        configuration = self.log.configuration
        if not self.founder or (configuration is not None and name in configuration.members):
            return False
        if name not in self.births:
            self.births[name] = node_id
            self.save_state()
        return self.births[name] == node_id

    # --- changing roles ---

    def found(self, cluster_id: str) -> None:
        """Become the first voter of a new cluster."""
        self.cluster_id = cluster_id
        self.founder = self.voter = True
        self.log.configuration = Configuration(self.founding_quorum)
        self.save_state()

    def promise(self, epoch: int) -> None:
        """Never accept anything below `epoch` again; durable before anybody is told."""
        self.promised = epoch
        self.leader = None
        self.acceptor.new_epoch()
        self.save_state()

    def make_promise(self, epoch: int, tail: bool) -> Promise:
        """What this node holds, for whoever takes over in `epoch`."""
        log = self.log
        entries = [log.above[version] for version in sorted(log.above)] if tail else []
        return Promise(
            epoch=epoch,
            node_id=self.node_id,
            voter=self.may_vote,
            trusted=log.trusted,
            floor=log.floor,
            contiguous=0 if self.quarantined else self.acceptor.contiguous,
            epochs=dict(self.epochs),
            configuration=log.configuration,
            entries=entries,
        )

    def make_snapshot(self, epoch: int, start: int) -> Snapshot:
        """The head of a snapshot of everything that this node trusts."""
        log = self.log
        configuration = log.configuration
        assert configuration is not None, "a node that trusts anything has a configuration"
        return Snapshot(epoch, start, log.trusted, log.floor, log.chain, configuration, log.configuration_version, [])

    def lead(self, takeover: Takeover, merged: list[Entry]) -> None:
        """The take-over has settled what there is: lead."""
        self.takeover = None
        self.leader = self.name
        self.leadership = self.leadership_class(self, takeover.epoch, merged, takeover.token)
        self.leadership.promotion_deadline = takeover.deadline
        self.leadership.begin(merged)
        for peer in sorted(takeover.links):
            self.leadership.link_up(takeover.links[peer])

    def step_down(self, reason: Reason) -> None:
        """Stop leading, or trying to."""
        if self.takeover is not None:
            self.takeover.end(reason)
        if self.leadership is not None:
            self.leadership.end(reason)
            self.leader = None
        if self.takeover is not None or self.leadership is not None:
            self.takeover = self.leadership = None
            self.out.append(CloseLinks())

    def adopt(self, entries: list[Entry], upto: int) -> None:
        """Take over committed entries from a node that trusts them, as far as they follow on without a gap."""
        taken = []
        for entry in entries:
            if entry.version == self.log.trusted + 1 <= upto:
                self.log.accept(entry)
                self.log.settle()
                taken.append(entry)
        self.save_entries(taken, [], 0, 0)
        self.trusted_more()

    def install(self, snapshot: Snapshot) -> None:
        """Replace everything up to the snapshot's version by its rows."""
        log = self.log
        log.install(snapshot.trusted, snapshot.floor, snapshot.chain, snapshot.entries)
        log.configuration, log.configuration_version = snapshot.configuration, snapshot.configuration_version
        self._saves.append(Install(snapshot.trusted, snapshot.entries))
        self.trusted_more()

    def trusted_more(self) -> None:
        """The trusted prefix grew: a configuration in it may say who speaks for this member."""
        configuration = self.log.configuration
        if configuration is not None and self.name in configuration.members:
            voter = configuration.members[self.name] == self.node_id
            if voter != self.voter:
                self.voter = voter
                self.save_state()

    # --- reads ---

    def read_local(self, key: str) -> Row | None:
        """The newest row here, committed or not; `None` for an absent or deleted key."""
        row = self.log.newest(key)
        return None if row is None or row.deleted else row

    def read_committed(self, key: str) -> Row | None:
        """On the leader: the committed value of a key; `None` for an absent one. Ask `serving` first."""
        committed = self.leadership.committed if self.leadership is not None else ()
        row = self.log.newest_in(key, committed)
        return None if row is None or row.deleted else row

    def is_committed(self, version: int) -> bool:
        """Whether this node knows that a version is committed."""
        committed = self.leadership.committed if self.leadership is not None else ()
        return version <= self.log.trusted or version in committed

    def scan(self, prefix: str = "", after: str | None = None) -> Iterator[tuple[str, Row]]:
        """Trusted rows with `prefix`, above `after`, in key order: a state that really existed, at `log.trusted`."""
        rows = self.log.rows
        return ((key, rows[key]) for key in self.log.keys(prefix, after))

    def scan_local(self) -> Iterator[tuple[str, Row]]:
        """The newest row of every key here, committed or not, in key order."""
        keys = self.log.rows.keys() | self.log.versions_of.keys()
        return ((key, row) for key in sorted(keys) if (row := self.read_local(key)) is not None)

    def session_row(self, read: SessionRead) -> tuple[bool, Row | None]:
        """Whether this node has what the token stands for, and the row to answer with.

        Either the whole prefix is trusted, or the row that the token is about is here: of its version, and of an accept
        epoch that is not older. A newer row that is not trusted may never commit, so it would break monotonic reads.
        """
        log = self.log
        committed = self.leadership.committed if self.leadership is not None else ()
        if log.trusted >= read.version:
            return True, log.newest_in(read.key, committed)
        for version in log.versions_of.get(read.key, ()):
            known = version == read.version and log.above[version].epoch >= read.epoch
            if (version >= read.version and version in committed) or (known and self.leadership is None):
                return True, log.row_at(version, read.key)
        return False, None

    def answer_sessions(self) -> None:
        """Answer the session reads that this node can serve now, and those whose deadline has passed."""
        if self._session_reads:
            reads, self._session_reads = self._session_reads, []
            for read in reads:
                self._on_session_read(read)

    # --- events ---

    def _on_started(self, event: Started) -> None:
        if self.quarantined or self.name not in self.members:
            return
        led_last = self.promised > 0 and quorum.owner_of(self.promised, self.nodes) == self.index
        if led_last and self.may_vote:
            self._take_over(self.takeover_class(self, Mode.RESUME))
        elif event.lead and not self.cluster_id:
            self._take_over(self.takeover_class(self, Mode.FOUND, event.cluster_id))

    def _take_over(self, takeover: Takeover) -> None:
        self.takeover = takeover
        takeover.tick()

    def _on_joined(self, event: Joined) -> None:
        changed = (event.name, event.members) != (self.name, self.members)
        self.name, self.members = event.name, event.members
        if changed:
            self.save_state()

    def _on_proposed(self, event: Proposed) -> None:
        if self.leadership is not None:
            self.leadership.propose(event.writes)
            return
        reason = Reason.NOT_LEADER if self.takeover is None else Reason.RECOVERING
        for write in event.writes:
            self.out.append(Reply(write.token, Result(Outcome.NOT_WRITTEN, reason)))

    def _on_received(self, event: Received) -> None:
        message, sender = event.message, event.sender
        if sender not in self.members:
            return
        if isinstance(message, Rejected):
            self._on_rejected(message)
        elif isinstance(message, Promise | Ack | Confirmed | Diverged):
            self._on_response(sender, message)
        elif isinstance(message, Fetched):
            if self.takeover is not None:
                self.takeover.fetched(message)
        elif isinstance(message, Snapshot) and self.takeover is not None and message.epoch == self.takeover.epoch:
            self.takeover.received_snapshot(message)
        else:
            self.acceptor.request(sender, message)
        self.answer_sessions()

    def _on_response(self, sender: str, message: Promise | Ack | Confirmed | Diverged) -> None:
        leadership = self.leadership
        if isinstance(message, Promise) and self.takeover is not None:
            self.takeover.promised(sender, message)
        elif leadership is None:
            return
        elif isinstance(message, Ack):
            leadership.acknowledged(sender, message)
        elif isinstance(message, Promise):
            leadership.promised(sender, message)
        elif isinstance(message, Confirmed):
            leadership.confirmed(sender, message)
        else:
            leadership.diverged(sender, message)

    def _on_rejected(self, message: Rejected) -> None:
        """Somebody has promised a later epoch: this node cannot lead in the one it tried."""
        role = self.leadership or self.takeover
        if role is not None and not message.foreign and message.promised > role.epoch > 0:
            self.step_down(Reason.LEADERSHIP_LOST)

    def _on_link_up(self, event: LinkUp) -> None:
        role = self.leadership or self.takeover
        if role is not None:
            role.link_up(event)

    def _on_link_down(self, event: LinkDown) -> None:
        role = self.leadership or self.takeover
        if role is not None:
            role.link_down(event.peer)

    def _on_link_full(self, event: LinkFull) -> None:
        if self.leadership is not None:
            self.leadership.link_full(event.peer)

    def _on_tick(self, event: Tick) -> None:
        dead = self.log.compact(self.log.trusted - self.limits.retention, self.limits.compact_batch)
        if dead:
            self._saves.append(Compact(dead))
            self.save_state()
        role = self.leadership or self.takeover
        if role is not None:
            role.tick()
        self.answer_sessions()
        if self.log.trusted > self._saved_trusted and self.now >= self._saved_ms + self.limits.state_save_ms:
            self.save_state()

    def _on_strong_read(self, event: StrongRead) -> None:
        if self.leadership is not None:
            self.leadership.strong_read(event)
        else:
            self.out.append(Reply(event.token, ReadResult(Reason.NOT_LEADER)))

    def _on_session_read(self, event: SessionRead) -> None:
        if self.leadership is not None and not self.leadership.recovered:
            ready, row = False, None
        else:
            ready, row = self.session_row(event)
        if ready:
            self.out.append(Reply(event.token, ReadResult(Reason.OK, row)))
        elif event.deadline <= self.now:
            self.out.append(Reply(event.token, ReadResult(Reason.TIMEOUT)))
        else:
            self._session_reads.append(event)

    def _on_promote(self, event: PromoteRequested) -> None:
        if self.serving:
            done = Result(Outcome.COMMITTED, Reason.OK, self.log.trusted, self.promised, 1)
            self.out.append(Reply(event.token, done))
        elif not self.may_vote:
            self.out.append(Reply(event.token, Result(Outcome.NOT_WRITTEN, Reason.NOT_VOTER)))
        elif self.leadership is not None or (self.takeover is not None and self.takeover.token is not None):
            self.out.append(Reply(event.token, Result(Outcome.NOT_WRITTEN, Reason.BUSY)))
        else:
            if self.takeover is None:
                self.takeover = self.takeover_class(self, Mode.PROMOTE)
            self.takeover.request(event.token, event.deadline, event.accept_loss)
            self.takeover.tick()

    def _on_configure(self, event: ConfigureRequested) -> None:
        if self.leadership is not None:
            self.leadership.configure(event)
        else:
            self.out.append(Reply(event.token, Result(Outcome.NOT_WRITTEN, Reason.NOT_LEADER)))

    def _on_injected(self, event: Injected) -> None:
        self.acceptor.inject(event)
        self.answer_sessions()

    def _on_disk_low(self, event: DiskLow) -> None:
        self.disk_low = event.low

    def _on_paced(self, event: Paced) -> None:
        self.retransmit_ms = event.retransmit_ms


_HANDLERS: dict[type, Callable[[Replica, Any], None]] = {
    Started: Replica._on_started,
    Joined: Replica._on_joined,
    Proposed: Replica._on_proposed,
    Received: Replica._on_received,
    LinkUp: Replica._on_link_up,
    LinkDown: Replica._on_link_down,
    LinkFull: Replica._on_link_full,
    Tick: Replica._on_tick,
    StrongRead: Replica._on_strong_read,
    SessionRead: Replica._on_session_read,
    PromoteRequested: Replica._on_promote,
    ConfigureRequested: Replica._on_configure,
    Injected: Replica._on_injected,
    DiskLow: Replica._on_disk_low,
    Paced: Replica._on_paced,
}
