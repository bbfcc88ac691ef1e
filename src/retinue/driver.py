"""The driver of the core: events in, effects out.

Everything that happens to a node goes through one inbox. Whatever has arrived by the time the event loop comes round is
stepped through the core together; what the core wants saved becomes one transaction with one sync (group commit), and
only when that is durable are the other effects performed, in order. While a transaction is under way the inbox waits:
what arrives then is the next group.
"""

from __future__ import annotations

import asyncio
import logging
import math
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import msgspec

from retinue.core.messages import (
    Append,
    CloseLinks,
    Compact,
    ConfigureRequested,
    DiskLow,
    Effect,
    Entry,
    Event,
    Fetched,
    Injected,
    Joined,
    OpenLinks,
    Outcome,
    Paced,
    PromoteRequested,
    Proposed,
    ReadResult,
    Reason,
    Received,
    Replicate,
    Reply,
    Result,
    Save,
    Send,
    SendRange,
    SendSnapshot,
    SessionRead,
    Started,
    StrongRead,
    Tick,
    Write,
)
from retinue.core.replica import Limits, Replica
from retinue.errors import DiskFull, RetinueError, SettingsError, StorageError
from retinue.membership import fixed_name, known_members, with_own_url
from retinue.network import Conditions, Network
from retinue.peers import Identity, Member, Peers
from retinue.settings import Settings
from retinue.store import Store

log = logging.getLogger("retinue.driver")

TICK_S = 0.05
DISK_CHECK_S = 1.0
DISK_RETRY_S = 0.2
RANGE_LIMIT_BYTES = 4 << 20
SNAPSHOT_ROWS = 1000
SLOW_SYNC_MS = 0.5
DELAYS_KEPT = 200_000
CONFIGURE_PATIENCE_MS = 30_000.0

Answer = Result | ReadResult

_UNKNOWN = Result(Outcome.UNKNOWN, Reason.TIMEOUT)


class _Waiting(NamedTuple):
    """Somebody who waits for the core, until when (ms), and what to say if the core cannot say it by then."""

    answer: asyncio.Future[Answer]
    deadline: float
    late: Answer


class Driver:
    """One node's core with its store, its links, and those who wait for answers."""

    def __init__(self, settings: Settings, store: Store, secret: bytes = b"") -> None:
        self.settings = settings
        self.store = store
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
        shared = Conditions(settings.delay_distribution, settings.min_delay_ms, settings.max_delay_ms, settings.loss)
        self.network = Network(shared, seed=settings.seed)
        self.peers = Peers(
            network=self.network,
            host=settings.host,
            port=settings.peer_port,
            members=self.members,
            secret=secret,
            peer_timeout_ms=settings.peer_timeout_ms,
            heartbeat_ms=settings.heartbeat_ms,
            identity=self._identity,
            on_event=self.post,
            on_members=self._on_members,
            on_snapshot_done=self._on_snapshot_done,
        )
        self.started_s = time.monotonic()
        self.started = False
        self.disk_full = False
        self.delays_ms: dict[int, dict[str, float]] = {}
        self._inbox: list[Event] = []
        self._writes: list[Write] = []
        self._waiting: dict[int, _Waiting] = {}
        self._token = 0
        self._scheduled = False
        self._committing: asyncio.Future[None] | None = None
        self._executor: ThreadPoolExecutor | None = None
        self._streams = 0
        self._held_back: list[Save] = []
        self._disk_checked_s = 0.0
        self._tick_handle: asyncio.TimerHandle | None = None
        self._stopped = False
        self._wanted_quorum = settings.write_quorum if "write_quorum" in settings.explicit else None

    # --- life ---

    async def start(self, cluster_id: str, on_failure: Callable[[RetinueError], None]) -> None:
        """Listen for peers and begin. `cluster_id` names the cluster if this node founds one.

        `on_failure` is called when the node can no longer keep its promises; whoever runs it must then stop it. Raises
        `SettingsError` if it cannot listen.
        """
        self._loop = asyncio.get_running_loop()
        self._on_failure = on_failure
        if self.store.sync_cost_ms() > SLOW_SYNC_MS:
            self._executor = ThreadPoolExecutor(1, "commit")
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
        if self._committing is not None:
            await asyncio.wait([self._committing], timeout=5)
        await self.peers.stop()
        for waiting in self._waiting.values():
            waiting.answer.cancel()
        if self._executor is not None:
            self._executor.shutdown()
        self.store.close()

    def fail(self, error: RetinueError) -> None:
        """Stop for good: going on could break a promise."""
        log.critical("%s", error.detail)
        self._stopped = True
        self._on_failure(error)

    # --- the inbox ---

    def post(self, event: Event) -> None:
        """Put an event into the inbox.

        While the disk is full the core stands still, so what others will send again is not kept for it.
        """
        if self.disk_full and isinstance(event, Received | Tick):
            return
        self._inbox.append(event)
        self._schedule()

    def propose(self, write: Write) -> None:
        """Put a write into the inbox; all that wait together get their versions in one step."""
        self._writes.append(write)
        self._schedule()

    def _schedule(self) -> None:
        if not self._scheduled and self._committing is None and not self._stopped:
            self._scheduled = True
            self._loop.call_soon(self._run)

    def wait(self, deadline: float = math.inf, late: Answer = _UNKNOWN) -> tuple[int, asyncio.Future[Answer]]:
        """A token for a request, and the future of its answer: `late` if the core stands still at the deadline."""
        self._token += 1
        future: asyncio.Future[Answer] = self._loop.create_future()
        self._waiting[self._token] = _Waiting(future, deadline, late)
        return self._token, future

    @property
    def waiting(self) -> int:
        """How many requests wait for an answer."""
        return len(self._waiting)

    @property
    def now_ms(self) -> float:
        """The clock of all deadlines, in milliseconds."""
        return time.monotonic() * 1000

    async def settled(self) -> None:
        """Wait until what the core has decided is durable; on a full disk that would be for long, so not then."""
        while self._committing is not None and not self.disk_full:
            await asyncio.shield(self._committing)

    def _run(self) -> None:
        self._scheduled = False
        if self._committing is not None or self._stopped:
            return
        events, self._inbox = self._inbox, []
        self.started = True
        if self._writes:
            events.append(Proposed(self._writes))
            self._writes = []
        saves: list[Save] = []
        others: list[Effect] = []
        now_ms = self.now_ms
        try:
            for event in events:
                for effect in self.replica.step(event, now_ms):
                    if isinstance(effect, Save):
                        saves.append(effect)
                    else:
                        others.append(effect)
        except AssertionError as error:
            log.exception("an invariant of the replication protocol is broken")
            self.fail(
                RetinueError(f"The node stops, because an invariant is broken: {error}. Keep its data and report it.")
            )
            return
        if saves:
            self._commit(self._compacting_later(saves), others)
        else:
            self._perform(others)

    def _compacting_later(self, saves: list[Save]) -> list[Save]:
        """Hold deletions back while a snapshot is being read from the store."""
        if self._streams:
            self._held_back += [save for save in saves if isinstance(save, Compact)]
            return [save for save in saves if not isinstance(save, Compact)]
        if self._held_back:
            saves, self._held_back = [*self._held_back, *saves], []
        return saves

    # --- saving ---

    def _commit(self, saves: list[Save], others: list[Effect]) -> None:
        if self._executor is not None:
            self._committing = self._loop.create_future()
            work = self._loop.run_in_executor(self._executor, self.store.commit, saves)
            work.add_done_callback(lambda done: self._committed(done.exception(), saves, others))
            return
        try:
            self.store.commit(saves)
        except StorageError as error:
            self._committed(error, saves, others)
        else:
            self._perform(others)

    def _committed(self, error: BaseException | None, saves: list[Save], others: list[Effect]) -> None:
        """A transaction has ended. One that found the disk full is tried again: the core has already taken its step."""
        if isinstance(error, DiskFull):
            if not self.disk_full:
                log.error("%s", error.detail)
            self.disk_full = True
            settling, self._committing = self._committing, self._loop.create_future()
            if settling is not None:
                settling.set_result(None)
            self._loop.call_later(DISK_RETRY_S, self._commit_again, saves, others)
            return
        if error is not None:
            known = isinstance(error, RetinueError)
            self.fail(error if known else StorageError(f"The store failed ({error}); the node stops."))  # type: ignore[arg-type]
        committing, self._committing = self._committing, None
        if committing is not None:
            committing.set_result(None)
        if error is None:
            self.disk_full = False
            self._perform(others)
            if self._inbox or self._writes:
                self._schedule()

    def _commit_again(self, saves: list[Save], others: list[Effect]) -> None:
        if self._stopped:
            assert self._committing is not None
            self._committing.set_result(None)
            return
        error: BaseException | None = None
        try:
            self.store.commit(saves)
        except StorageError as failed:
            error = failed
        self._committed(error, saves, others)

    # --- performing ---

    def _perform(self, effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Reply):
                self._answer(effect.token, effect.result)
            elif isinstance(effect, Send):
                self.peers.send(effect.to, effect.message)
            elif isinstance(effect, Replicate):
                self._replicate(effect)
            elif isinstance(effect, SendRange):
                self._send_range(effect)
            elif isinstance(effect, SendSnapshot):
                self._streams += 1
                self.peers.send_snapshot(effect.to, effect.head, self._rows(effect.head.trusted))
            elif isinstance(effect, OpenLinks):
                self.peers.open_links()
            elif isinstance(effect, CloseLinks):
                self.peers.close_links()

    def _answer(self, token: int, answer: Answer) -> None:
        waiting = self._waiting.pop(token, None)
        if waiting is not None and not waiting.answer.done():
            waiting.answer.set_result(answer)

    def _replicate(self, effect: Replicate) -> None:
        drawn = self.peers.replicate(effect.to, effect.message)
        if drawn is None:
            return
        for index, entry in enumerate(effect.message.entries):
            self.delays_ms[entry.version] = {peer: delays[index] for peer, delays in drawn.items()}
        while len(self.delays_ms) > DELAYS_KEPT:
            del self.delays_ms[next(iter(self.delays_ms))]

    def _send_range(self, effect: SendRange) -> None:
        entries = self.store.read_range(effect.after, effect.upto, RANGE_LIMIT_BYTES)
        if effect.fetched:
            self.peers.send(effect.to, Fetched(effect.epoch, effect.after, entries))
        else:
            self.peers.send(effect.to, Append(effect.epoch, effect.start, effect.commit, entries))

    def _rows(self, upto: int) -> Iterator[list[Entry]]:
        after = 0
        while rows := self.store.read_rows(upto, after, SNAPSHOT_ROWS):
            yield rows
            after = rows[-1].version

    def _on_snapshot_done(self, peer: str) -> None:
        self._streams -= 1
        log.info("the snapshot for %s is sent, or given up", peer)

    # --- time ---

    def _on_timer(self) -> None:
        self._tick_handle = self._loop.call_later(TICK_S, self._on_timer)
        now_s = time.monotonic()
        if now_s >= self._disk_checked_s + DISK_CHECK_S:
            self._disk_checked_s = now_s
            self._check_disk()
            self._want_quorum()
        if self.disk_full:
            self._answer_without_core(now_s * 1000)
        if not any(isinstance(event, Tick) for event in self._inbox[:8]):
            self.post(Tick())

    def _check_disk(self) -> None:
        if not self.settings.memory:
            low = shutil.disk_usage(self.settings.data_dir).free < self.settings.min_free_bytes
            if low != self.replica.disk_low:
                log.warning(
                    "writes are %s: the disk has %s free space",
                    *(("refused", "little") if low else ("taken", "enough")),
                )
                self.post(DiskLow(low))

    def _answer_without_core(self, now_ms: float) -> None:
        """The disk is full, so the core stands still. What has not reached it is refused: nothing of it is written."""
        writes, self._writes = self._writes, []
        for write in writes:
            self._answer(write.token, Result(Outcome.NOT_WRITTEN, Reason.DISK_LOW))
        events, self._inbox = self._inbox, []
        for event in events:
            if isinstance(event, StrongRead | SessionRead):
                self._answer(event.token, ReadResult(Reason.DISK_LOW))
            elif isinstance(event, PromoteRequested | ConfigureRequested | Injected):
                self._answer(event.token, Result(Outcome.NOT_WRITTEN, Reason.DISK_LOW))
            else:
                self._inbox.append(event)
        for token in [token for token, waiting in self._waiting.items() if waiting.deadline <= now_ms]:
            self._answer(token, self._waiting[token].late)

    def _want_quorum(self) -> None:
        """Bring the write quorum of the settings into force once this node leads."""
        leadership = self.replica.leadership
        if (
            self._wanted_quorum is None
            or leadership is None
            or not leadership.recovered
            or leadership.change is not None
        ):
            return
        if leadership.quorum == self._wanted_quorum:
            self._wanted_quorum = None
        else:
            token, _ = self.wait()
            self.post(ConfigureRequested(token, self._wanted_quorum, self.now_ms + CONFIGURE_PATIENCE_MS))

    def pace(self) -> None:
        """Tell the core how long acknowledgements may take under the simulated network."""
        self.post(Paced(self.network.retransmit_ms))

    def forget_wanted_quorum(self) -> None:
        """Somebody has set another write quorum while running."""
        self._wanted_quorum = None

    # --- members ---

    def _identity(self) -> Identity:
        """What this node says of itself when a link is made."""
        replica = self.replica
        return Identity(
            name=self.name,
            node_id=replica.node_id,
            cluster_id=replica.cluster_id,
            promised=replica.promised,
            http_url=self.settings.advertise_url,
        )

    def _on_members(self, caller: str, name: str, members: tuple[Member, ...]) -> str:
        """A node that leads, or wants to, tells this one its name and all members; a sentence refuses it."""
        names = tuple(member.name for member in members)
        nodes = self.replica.hard_state().nodes
        if caller not in names or name not in names:
            return f"{caller} does not name itself and {name} among the members: check the setting followers there."
        if nodes and nodes != len(names):
            return f"This node's cluster has {nodes} nodes, and {caller} names {len(names)}: the number is fixed."
        members = with_own_url(self.settings, name, members)
        fixed = fixed_name(self.settings)
        if fixed not in ("", "leader", name):
            return (
                f"{caller} calls this node {name}, its own follower_id says {fixed}: name the followers in their order."
            )
        if (name, members) != (self.name, self.members):
            self.name, self.members = name, members
            self.peers.set_members(members)
            self.store.set_meta("members", msgspec.json.encode(members).decode())
            self.post(Joined(name, names))
        return ""

    def url_of(self, name: str | None) -> str | None:
        """The HTTP address of a member."""
        return next((member.http_url for member in self.members if member.name == name), None)
