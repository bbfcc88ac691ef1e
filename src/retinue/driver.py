"""The driver of the core: events in, effects out.

Everything that happens to a node goes through one inbox. Whatever has arrived by the time the event loop comes round is
stepped through the core together; what the core wants saved becomes one transaction with one sync (group commit), and
only when that is durable are the other effects performed, in order. While a transaction is under way the inbox waits:
what arrives then is the next group. Where nothing is to be gained by waiting for more, a step comes at once.

New entries are the exception: they leave for the followers before this node's own sync, so that all disks work at the
same time. That is safe because acknowledgements of theirs go through the inbox: nothing counts as committed before
this node has it too. If this node dies in between, the entry is one that was never committed, like any other that a
take-over finds.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import cast, get_args

import msgspec

from retinue.commits import GroupCommit
from retinue.core.messages import (
    Append,
    CloseLinks,
    ConfigureRequested,
    DiskLow,
    Effect,
    Event,
    Fetched,
    Joined,
    OpenLinks,
    Outcome,
    Paced,
    Proposed,
    Reason,
    Received,
    Replicate,
    Reply,
    Result,
    Save,
    Send,
    SendRange,
    SendSnapshot,
    Started,
    Tick,
    Write,
)
from retinue.core.replica import Limits, Replica
from retinue.errors import DiskFull, RetinueError, SettingsError, StorageError
from retinue.membership import identity_of, known_members, refuse_members, with_own_url
from retinue.network import Conditions, Network
from retinue.peers import Member, Peers
from retinue.scheduling import CoreSharing
from retinue.settings import Settings
from retinue.store import Store
from retinue.store_files import free_bytes
from retinue.streams import SnapshotStreams
from retinue.waiting import WaitingRoom
from retinue.wanted_quorum import WantedQuorum

log = logging.getLogger("retinue.driver")

TICK_S = 0.05
DISK_CHECK_S = 1.0
PATIENCE_S = 0.5  # Past a deadline, until the driver answers in place of a core that a slow disk holds up.
RANGE_LIMIT_BYTES = 4 << 20
DELAYS_KEPT = 200_000
CONFIGURE_PATIENCE_MS = 30_000.0

# Looked up by type: `isinstance` asks the metaclass of every class that it is not.
_SAVES = frozenset(get_args(Save))


class Driver:
    """One node's core with its store, its links, and those who wait for answers."""

    def __init__(self, settings: Settings, store: Store, secret: bytes = b"") -> None:
        self.settings = settings
        self.store = store
        self._streams = SnapshotStreams(store)
        image = store.load()
        self.members = known_members(settings, store.get_meta("members"), image.hard.nodes)
        name = settings.name if settings.role == "leader" else (image.hard.name or settings.name)
        limits = Limits(
            retention=settings.log_retention,
            max_pending_writes=settings.max_pending_writes,
            max_pending_bytes=settings.max_pending_bytes,
            heartbeat_ms=settings.heartbeat_ms,
        )
        self.name = name
        names = tuple(member.name for member in self.members)
        self.replica = Replica(name, names, image, write_quorum=settings.write_quorum, limits=limits)
        law = (settings.delay_distribution, settings.min_delay_ms, settings.max_delay_ms)
        shared = Conditions(*law, loss=settings.loss, in_order=settings.in_order_delivery)
        self.network = Network(shared, seed=settings.seed)
        self.peers = Peers(
            network=self.network,
            host=settings.host,
            port=settings.peer_port,
            members=self.members,
            secret=secret,
            peer_timeout_ms=settings.peer_timeout_ms,
            heartbeat_ms=settings.heartbeat_ms,
            identity=lambda: identity_of(settings, self.name, self.replica),
            on_event=self.post,
            on_received=self._receive,
            on_members=self._on_members,
            on_snapshot_done=self._streams.end,
        )
        self.waiting = WaitingRoom()
        self.started = False
        self.delays_ms: dict[int, dict[str, float]] = {}
        self._inbox: list[Event] = []
        self._writes: list[Write] = []
        self._scheduled = False
        self._commits = GroupCommit(store, self.fail, CoreSharing(settings.host))
        self._disk_checked_s = 0.0
        self._tick_handle: asyncio.TimerHandle | None = None
        self._stopped = False
        self._wanted = WantedQuorum(settings, store)

    # --- life ---

    async def start(self, cluster_id: str, on_failure: Callable[[RetinueError], None]) -> None:
        """Listen for peers and begin. `cluster_id` names the cluster if this node founds one.

        `on_failure` is called when the node can no longer keep its promises; whoever runs it must then stop it. Raises
        `SettingsError` if it cannot listen.
        """
        self._loop = asyncio.get_running_loop()
        self._on_failure = on_failure
        self._commits.start()
        self._commits.share_cores(leads=False)
        await self._listen()
        self.pace()
        self.post(Started(self.settings.role == "leader", cluster_id))
        self._run()
        self._on_timer()

    async def _listen(self) -> None:
        try:
            await self.peers.start()
        except OSError as error:
            port = self.settings.peer_port
            raise SettingsError(f"peer_port={port} cannot be used: {error.strerror}. Choose another port.") from None

    async def stop(self) -> None:
        """Answer nobody any more, finish the transaction under way, close links and store."""
        self._stopped = True
        if self._tick_handle is not None:
            self._tick_handle.cancel()
        await self._commits.stop()
        await self.peers.stop()
        self.waiting.close()
        self.store.close()

    def fail(self, error: RetinueError) -> None:
        """Stop for good: going on could break a promise."""
        log.critical("%s", error.detail)
        self._stopped = True
        self._on_failure(error)

    # --- the inbox ---

    def post(self, event: Event) -> None:
        """Put an event into the inbox."""
        self._inbox.append(event)
        self._schedule()

    def _receive(self, received: list[Received]) -> None:
        """Take what a link has brought; while the disk is full nothing, for others will send it again.

        It is stepped at once where hardly anything else comes in this turn: on a follower, and on a leader to which
        simulated delays bring every acknowledgement by itself. What fails here ends the link.
        """
        if self._commits.disk_full:
            return
        self._inbox += received
        if self.replica.leadership is None or not (self.network.quiet or self._writes):
            self._run()
        else:
            self._schedule()
            self.peers.send_due()

    def propose(self, write: Write) -> None:
        """Put a write into the inbox; all that wait together get their versions in one step."""
        self._writes.append(write)
        self._schedule()
        self.peers.send_due()

    def _schedule(self) -> None:
        if not self._scheduled and not self._commits.busy and not self._stopped:
            self._scheduled = True
            self._loop.call_soon(self._run)

    @property
    def disk_full(self) -> bool:
        """Whether a transaction waits for space on the disk; the core stands still meanwhile."""
        return self._commits.disk_full

    @property
    def now_ms(self) -> float:
        """The clock of all deadlines, in milliseconds."""
        return time.monotonic() * 1000

    async def settled(self) -> None:
        """Wait until what this node shows as committed is durable. Raises `NotServing` while the disk is full.

        Only without a write quorum can it be shown sooner: any acknowledgement follows this node's own sync.
        """
        while self.unsettled:
            await self._commits.finished()

    @property
    def unsettled(self) -> bool:
        """Whether something that this node shows as committed may not be durable yet; see `settled`."""
        leadership = self.replica.leadership
        return self._commits.busy and leadership is not None and leadership.quorum == 0

    def _run(self) -> None:
        self._scheduled = False
        if self._commits.busy or self._stopped or not (self._inbox or self._writes):
            return
        events, self._inbox = self._inbox, []
        self.started = True
        if self._writes:
            events.append(Proposed(self._writes))
            self._writes = []
        if self._streams:
            events = [Tick(compacting=False) if type(event) is Tick else event for event in events]
        saves: list[Save] = []
        others: list[Effect] = []
        self.peers.cork()
        now_ms = self.now_ms
        try:
            for event in events:
                if type(event) is Proposed:
                    # What came before it in this turn is no part of the time that a write takes.
                    now_ms = self.now_ms
                for effect in self.replica.step(event, now_ms):
                    if type(effect) is Replicate:
                        self._replicate(effect, now_ms)
                    elif type(effect) in _SAVES:
                        saves.append(cast(Save, effect))
                    else:
                        others.append(effect)
        except Exception as error:
            # Whatever it is: the core has taken steps whose saves are lost here.
            log.exception("an invariant of the replication protocol is broken")
            self.fail(RetinueError(f"The node stops, an invariant is broken: {error!r}. Keep its data and report it."))
            return
        self.peers.flush()
        self.peers.send_due()
        if saves:
            self._streams.about_to_save(saves)
            self._commits.commit(saves, lambda: self._committed(others))
        elif others:
            self._perform(others)

    def _committed(self, others: list[Effect]) -> None:
        self._perform(others)
        if self._inbox or self._writes:
            self._schedule()

    # --- performing ---

    def _perform(self, effects: list[Effect]) -> None:
        peers = self.peers
        peers.cork()
        for effect in effects:
            if type(effect) is Reply:
                self.waiting.answer(effect.token, effect.result)
                peers.send_due()
            elif type(effect) is Send:
                peers.send(effect.to, effect.message)
            else:
                self._perform_rare(effect)
        peers.flush()

    def _perform_rare(self, effect: Effect) -> None:
        if isinstance(effect, SendRange):
            self._send_range(effect)
        elif isinstance(effect, SendSnapshot):
            self._send_snapshot(effect)
        elif isinstance(effect, OpenLinks):
            self.peers.open_links()
            self._commits.share_cores(leads=True)
        elif isinstance(effect, CloseLinks):
            self.peers.close_links()
            self._commits.share_cores(leads=False)

    def _replicate(self, effect: Replicate, assigned_ms: float) -> None:
        drawn = self.peers.replicate(effect.to, effect.message, assigned_ms / 1000)
        if drawn is None:
            return
        for index, entry in enumerate(effect.message.entries):
            self.delays_ms[entry.version] = {peer: delays[index] for peer, delays in drawn.items()}
        while len(self.delays_ms) > DELAYS_KEPT:
            del self.delays_ms[next(iter(self.delays_ms))]

    def _send_range(self, effect: SendRange) -> None:
        try:
            entries = self.store.read_range(effect.after, effect.upto, RANGE_LIMIT_BYTES)
        except StorageError as error:
            self.fail(error)
            return
        fetched = Fetched(effect.epoch, effect.after, entries)
        part = Append(effect.epoch, effect.start, effect.commit, entries)
        self.peers.send(effect.to, fetched if effect.fetched else part)

    def _send_snapshot(self, effect: SendSnapshot) -> None:
        """With the floor of now: this group commit may have deleted rows since the snapshot was asked for."""
        head = msgspec.structs.replace(effect.head, floor=self.replica.log.floor)
        self.peers.send_snapshot(effect.to, head, self._streams.begin(head.trusted))

    # --- time ---

    def _on_timer(self) -> None:
        self._tick_handle = self._loop.call_later(TICK_S, self._on_timer)
        now_s = time.monotonic()
        if now_s >= self._disk_checked_s + DISK_CHECK_S:
            self._disk_checked_s = now_s
            self._check_disk()
            self._want_quorum()
        if self.disk_full:
            self._refuse_queued()
        if self._commits.busy:
            self.waiting.expire((now_s - PATIENCE_S) * 1000)
        if not self.disk_full and not any(isinstance(event, Tick) for event in self._inbox[:8]):
            self.post(Tick())

    def _check_disk(self) -> None:
        if self.settings.memory or self._stopped:
            return
        try:
            low = free_bytes(self.settings.data_dir) < self.settings.min_free_bytes
        except StorageError as error:
            self.fail(error)
            return
        if low != self.replica.disk_low:
            log.warning("the disk has %s free space for writes", "too little" if low else "enough")
            self.post(DiskLow(low))

    def _refuse_queued(self) -> None:
        """The disk is full, so the core stands still. What has not reached it is refused: nothing of it is written."""
        writes, self._writes = self._writes, []
        for write in writes:
            self.waiting.answer(write.token, Result(Outcome.NOT_WRITTEN, Reason.DISK_LOW))
        self._inbox = [event for event in self._inbox if not self.waiting.refuse(event)]

    def _want_quorum(self) -> None:
        """Bring a new write quorum of the settings into force if this node leads; else the one who leads does it."""
        replica, leadership = self.replica, self.replica.leadership
        if self._wanted.value is None or (leadership is None and replica.leader is None):
            return
        if leadership is None or leadership.quorum == self._wanted.value:
            self.forget_wanted_quorum()
        elif leadership.recovered and leadership.change is None:
            token, _ = self.waiting.enter_future()
            self.post(ConfigureRequested(token, self._wanted.value, self.now_ms + CONFIGURE_PATIENCE_MS))

    def pace(self) -> None:
        """Tell the core how long acknowledgements may take under the simulated network."""
        self.post(Paced(self.network.retransmit_ms))

    def forget_wanted_quorum(self) -> None:
        """The write quorum of the settings is in force, or another was set since: from now on the cluster's counts."""
        try:
            self._wanted.forget()
        except StorageError as error:
            # A full disk forgets it, and the next start takes it for new once more.
            if not isinstance(error, DiskFull):
                self.fail(error)

    # --- members ---

    def _on_members(self, caller: str, name: str, members: tuple[Member, ...]) -> str:
        """A node that leads, or wants to, tells this one its name and all members; a sentence refuses it."""
        refusal = refuse_members(self.settings, self.replica.hard_state(), caller, name, members)
        if refusal:
            return refusal
        members = with_own_url(self.settings, name, members)
        if (name, members) != (self.name, self.members):
            try:
                self.store.set_meta("members", msgspec.json.encode(members).decode())
            except StorageError as error:
                if not isinstance(error, DiskFull):
                    self.fail(error)
                return error.detail
            self.name, self.members = name, members
            self.peers.set_members(members)
            self.post(Joined(name, tuple(member.name for member in members)))
        return ""

    def url_of(self, name: str | None) -> str | None:
        """The HTTP address of a member."""
        return next((member.http_url for member in self.members if member.name == name), None)
