"""One node's part in the protocol: the state machine that every event goes through.

What a node must never forget is in `Durable`, what a read may return in `Reads`; `Replica` adds the role. An `Acceptor`
answers whoever leads. A node that takes over has a `Takeover`, one that leads has a `Leadership`; with neither, it
follows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from retinue.core import quorum
from retinue.core.acceptor import Acceptor
from retinue.core.durable import Durable
from retinue.core.leader import Leadership
from retinue.core.messages import (
    Ack,
    Append,
    CloseLinks,
    ConfigureRequested,
    Confirm,
    Confirmed,
    DiskLow,
    Diverged,
    Effect,
    Entry,
    Event,
    Fetch,
    Fetched,
    Heartbeat,
    Image,
    Injected,
    Joined,
    LinkDown,
    LinkFull,
    LinkUp,
    Outcome,
    Paced,
    Promise,
    PromoteRequested,
    Proposed,
    Reason,
    Received,
    Rejected,
    Reply,
    Request,
    Result,
    Seal,
    SessionRead,
    Snapshot,
    Started,
    StrongRead,
    Tick,
)
from retinue.core.reads import Reads
from retinue.core.takeover import Mode, Takeover


class Limits(msgspec.Struct, frozen=True):
    """Bounds and intervals of the core.

    `window`: versions a live follower may lag, and a follower accepts ahead of what it holds without a gap.
    `retention`: versions kept below the trusted prefix, so that a follower that was away needs no snapshot, and a retry
    finds its request id. `compact_batch`: entries declared dead per tick, more of them where many wait.
    `catch_up_batch`: versions in one range.
    """

    window: int = 65_536
    retention: int = 100_000
    compact_batch: int = 768
    catch_up_batch: int = 512
    max_pending_writes: int = 65_536
    max_pending_bytes: int = 64 << 20
    heartbeat_ms: float = 100.0
    retransmit_ms: float = 1000.0
    seal_retry_ms: float = 500.0
    snapshot_retry_ms: float = 60_000.0
    founding_wait_ms: float = 3000.0
    state_save_ms: float = 200.0


class Replica(Durable, Reads):
    """The state machine of one node. `founding_quorum` is the write quorum of a cluster that this node would found."""

    leadership_class = Leadership
    takeover_class = Takeover
    acceptor_class = Acceptor

    def __init__(
        self, name: str, members: tuple[str, ...], image: Image, *, write_quorum: int, limits: Limits | None = None
    ) -> None:
        super().__init__(name, members, image, write_quorum)
        self.limits = limits or Limits()
        self.retransmit_ms = self.limits.retransmit_ms
        self.now = 0.0
        self.disk_low = False
        self.leader: str | None = None
        self.leadership: Leadership | None = None
        self.takeover: Takeover | None = None
        self.acceptor = self.acceptor_class(self)
        self.out: list[Effect] = []
        self.session_reads: list[SessionRead] = []

    # --- the one way in ---

    def step(self, event: Event, now_ms: float) -> list[Effect]:
        """Take one event; the effects to perform, saves first. `now_ms` must not go back."""
        self.now = now_ms
        _HANDLERS[type(event)](self, event)
        saves, out = self.take_saves(now_ms), self.out
        self.out = []
        return [*saves, *out] if saves else out

    # --- who is who ---

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

    def promises_needed(self, write_quorum: int) -> int:
        """`P` for a write quorum."""
        return quorum.promises_needed(self.nodes, write_quorum)

    # --- changing roles ---

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
            chain=log.chain,
            floor=log.floor,
            contiguous=0 if self.quarantined else self.acceptor.contiguous,
            epochs=dict(self.epochs),
            configuration=log.configuration,
            entries=entries,
        )

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
        if event.sender in self.members:
            _RECEIVERS[type(event.message)](self, event.sender, event.message)
            if self.session_reads:
                self.answer_sessions()

    def _on_request(self, sender: str, message: Request) -> None:
        self.acceptor.request(sender, message)

    def _on_snapshot(self, sender: str, message: Snapshot) -> None:
        """From a leader, or in answer to a candidate's fetch."""
        if self.takeover is not None and message.epoch == self.takeover.epoch:
            self.takeover.received_snapshot(sender, message)
        else:
            self.acceptor.request(sender, message)

    def _on_fetched(self, sender: str, message: Fetched) -> None:
        if self.takeover is not None:
            self.takeover.fetched(sender, message)

    def _on_promised(self, sender: str, message: Promise) -> None:
        if self.takeover is not None:
            self.takeover.promised(sender, message)
        elif self.leadership is not None:
            self.leadership.promised(sender, message)

    def _on_ack(self, sender: str, message: Ack) -> None:
        if self.leadership is not None:
            self.leadership.acknowledged(sender, message)

    def _on_confirmed(self, sender: str, message: Confirmed) -> None:
        if self.leadership is not None:
            self.leadership.confirmed(sender, message)

    def _on_diverged(self, sender: str, message: Diverged) -> None:
        if self.leadership is not None:
            self.leadership.diverged(sender, message)

    def _on_rejected(self, _: str, message: Rejected) -> None:
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
        if event.compacting:
            self.compact(self.limits.retention, self.limits.compact_batch)
        role = self.leadership or self.takeover
        if role is not None:
            role.tick()
        self.answer_sessions()
        self.save_what_grew(self.now - self.limits.state_save_ms)

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

_RECEIVERS: dict[type, Callable[[Replica, str, Any], None]] = {
    Append: Replica._on_request,
    Heartbeat: Replica._on_request,
    Ack: Replica._on_ack,
    Seal: Replica._on_request,
    Promise: Replica._on_promised,
    Confirm: Replica._on_request,
    Confirmed: Replica._on_confirmed,
    Fetch: Replica._on_request,
    Fetched: Replica._on_fetched,
    Snapshot: Replica._on_snapshot,
    Rejected: Replica._on_rejected,
    Diverged: Replica._on_diverged,
}
