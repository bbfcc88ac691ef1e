"""A driver of the core on virtual time: one node with its inbox, its disk, and the ways in which it fails.

What waits in the inbox is stepped together and committed as one transaction (group commit). While a commit is under way
the core is not stepped; what it asked for besides happens when the transaction is durable. Only new entries leave for
the followers at once. A crash loses the replica and the inbox, and by chance the transaction under way. A pause stops
all but the disk.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import msgspec

from retinue.core.messages import (
    Append,
    CloseLinks,
    Compact,
    Effect,
    Event,
    Fetched,
    HardState,
    Image,
    Install,
    Message,
    OpenLinks,
    Proposed,
    Received,
    Replicate,
    Reply,
    Save,
    SaveEntries,
    SaveEpoch,
    SaveState,
    Send,
    SendRange,
    SendSnapshot,
    Started,
    Tick,
    Write,
)
from retinue.core.replica import Limits, Replica
from retinue.lab.oracle import BrokenPromise, Oracle
from retinue.lab.simulated_disk import SimulatedDisk
from retinue.lab.switchboard import Query
from retinue.lab.trace import describe
from retinue.lab.virtual_time import VirtualTime

RANGE_BYTES = 2_000
"""Byte limit of one catch-up range, unless the setup has another: small, so that catching up takes several rounds."""

_SAVES = (SaveEntries, SaveState, SaveEpoch, Compact, Install)
_TICK = Tick()


class Wires(Protocol):
    """What a node needs of the network."""

    def send(self, sender: str, to: str, message: Message) -> None:
        """Without a simulated delay."""

    def replicate(self, sender: str, to: str, message: Append) -> None:
        """Each entry with its own delay."""

    def open_links(self, dialer: str) -> None:
        """Open and keep open."""

    def close_links(self, dialer: str) -> None:
        """Close all that `dialer` opened."""


class NodeSetup(msgspec.Struct, frozen=True):
    """What stays the same for a node over all its lives."""

    name: str
    members: tuple[str, ...]
    write_quorum: int
    limits: Limits
    tick_ms: float
    replica: type[Replica] = Replica
    disk: type[SimulatedDisk] = SimulatedDisk
    performs_early: bool = False
    range_bytes: int = RANGE_BYTES


class SimulatedNode:
    """One member of the simulated cluster."""

    def __init__(
        self, setup: NodeSetup, time: VirtualTime, wires: Wires, oracle: Oracle, on_reply: Callable[[str, Reply], None]
    ) -> None:
        self.setup = setup
        self.name = setup.name
        self.time = time
        self.wires = wires
        self.oracle = oracle
        self.on_reply = on_reply
        self.disks = 1
        self.disk = setup.disk(f"{setup.name}.1")
        self.former: list[SimulatedDisk] = []
        self.replica: Replica | None = None
        self.life = 0
        self.paused = False
        self.commit_ms = (0.0, 0.0)
        self.inbox: list[Event | Query] = []
        self._scheduled = False
        self._committing: tuple[list[Save], list[Effect]] | None = None
        self._held: list[Effect] | None = None

    # --- lives ---

    @property
    def up(self) -> bool:
        """Whether the process runs (it may be paused)."""
        return self.replica is not None

    def start(self, lead: bool, cluster_id: str) -> None:
        """Start the process on what its disk holds."""
        assert self.replica is None
        self.life += 1
        self.paused = False
        setup = self.setup
        image: Image = self.disk.load()
        self.oracle.started(self.name, image.hard)
        self.time.note(self.name, "starts" + (" to lead" if lead else ""))
        self.replica = setup.replica(
            self.name, setup.members, image, write_quorum=setup.write_quorum, limits=setup.limits
        )
        self.deliver(Started(lead, cluster_id))
        self.time.after(self.time.random.random() * setup.tick_ms, self._tick, self.life)

    def crash(self) -> None:
        """Stop at once; a transaction under way is durable or not, by chance."""
        assert self.replica is not None
        committed = False
        if self._committing is not None and self.time.random.random() < 0.5:
            self._make_durable(self._committing[0])
            committed = True
        if self.time.trace is not None:
            under_way = "" if self._committing is None else f", transaction {'kept' if committed else 'lost'}"
            self.time.note(self.name, f"crashes{under_way}")
        self.replica = None
        self.life += 1
        self.inbox = []
        self._scheduled = False
        self._committing = self._held = None
        self.disk.crash()
        self.wires.close_links(self.name)

    def wipe(self) -> None:
        """Give the stopped node an empty disk."""
        assert self.replica is None
        self.disks += 1
        self.former.append(self.disk)
        self.disk = self.setup.disk(f"{self.name}.{self.disks}")
        self.time.note(self.name, "gets an empty disk")

    def put_back(self, disk: SimulatedDisk) -> None:
        """Give the stopped node one of the disks that it had before: as old as it is."""
        assert self.replica is None
        self.former.remove(disk)
        self.former.append(self.disk)
        self.disk = disk
        self.time.note(self.name, f"gets its old disk {disk.hard.node_id} back")

    def pause(self) -> None:
        """Stop executing; messages wait."""
        self.paused = True
        self.time.note(self.name, "pauses")

    def resume(self) -> None:
        """Go on where it stopped."""
        self.paused = False
        self.time.note(self.name, "resumes")
        held, self._held = self._held, None
        if held is not None:
            self._perform(held)
        self._wake()

    @property
    def settled(self) -> bool:
        """Whether everything that the replica knows is durable."""
        return self._committing is None

    @property
    def hard(self) -> HardState:
        """What the node says of itself when a link comes up: what is durable."""
        return self.disk.hard

    # --- the inbox ---

    def waiting(self) -> int:
        """Events in the inbox."""
        return len(self.inbox)

    def deliver(self, event: Event | Query) -> None:
        """Put something into the inbox; lost when the node is down."""
        if self.replica is not None:
            self.inbox.append(event)
            self._wake()

    def _wake(self) -> None:
        occupied = self._scheduled or self.paused or self._committing is not None or self._held is not None
        if self.inbox and not occupied:
            self._scheduled = True
            self.time.after(0.05, self._run, self.life)

    def _tick(self, life: int) -> None:
        if life != self.life:
            return
        if not self.paused and _TICK not in self.inbox[-1:]:
            self.deliver(_TICK)
        self.time.after(self.setup.tick_ms, self._tick, life)

    def _run(self, life: int) -> None:
        """Step everything that waits, then commit."""
        if life != self.life:
            return
        self._scheduled = False
        if self.paused or self._committing is not None:
            return
        waiting, self.inbox = self.inbox, []
        saves: list[Save] = []
        others: list[Effect] = []
        for event in self._in_order(waiting):
            for effect in self._step(event):
                if type(effect) in _SAVES:
                    saves.append(effect)  # type: ignore[arg-type]
                elif isinstance(effect, Replicate):
                    self._replicate(effect)
                else:
                    others.append(effect)
        if not saves:
            self._perform(others)
            self._wake()
            return
        self._committing = (saves, others)
        if self.setup.performs_early:
            self._perform(others)
            self._committing = (saves, [])
        self.time.after(self.time.random.uniform(*self.commit_ms), self._committed, life)

    def _in_order(self, waiting: list[Event | Query]) -> list[Event]:
        """Reads are answered first, from what is durable; writes that waited together are proposed together."""
        events: list[Event] = []
        writes: list[Write] = []
        assert self.replica is not None
        for item in waiting:
            if isinstance(item, Proposed):
                if not writes:
                    events.append(Proposed(writes))
                writes.extend(item.writes)
            elif isinstance(item, msgspec.Struct):
                events.append(item)
            else:
                item(self.replica)
        return events

    def _step(self, event: Event) -> list[Effect]:
        assert self.replica is not None
        try:
            effects = self.replica.step(event, self.time.now_ms)
        except Exception as error:
            detail = f"{self.name} on {describe(event)}: {type(error).__name__}: {error}"
            raise BrokenPromise("the core goes on", detail) from error
        if self.time.trace is not None and (effects or event is not _TICK):
            self.time.note(self.name, describe(event))
            for effect in effects:
                self.time.note("", f"  -> {describe(effect)}")
        self.oracle.stepped(self.name, self.replica)
        return effects

    def _committed(self, life: int) -> None:
        if life != self.life or self._committing is None:
            return
        saves, others = self._committing
        self._make_durable(saves)
        self._committing = None
        if self.paused:
            self._held = others
            return
        self._perform(others)
        self._wake()

    def _make_durable(self, saves: list[Save]) -> None:
        self.disk.commit(saves)
        self.oracle.committed(self.name, saves, self.disk)

    # --- effects ---

    def _perform(self, effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Send):
                self.wires.send(self.name, effect.to, effect.message)
            elif isinstance(effect, Reply):
                self.on_reply(self.name, effect)
            else:
                self._perform_rare(effect)

    def _replicate(self, effect: Replicate) -> None:
        for to in effect.to:
            self.wires.replicate(self.name, to, effect.message)

    def _perform_rare(self, effect: Effect) -> None:
        wires, disk = self.wires, self.disk
        if isinstance(effect, SendRange):
            entries = disk.read_range(effect.after, effect.upto, self.setup.range_bytes)
            if effect.fetched:
                wires.send(self.name, effect.to, Fetched(effect.epoch, effect.after, entries))
            else:
                wires.send(self.name, effect.to, Append(effect.epoch, effect.start, effect.commit, entries))
        elif isinstance(effect, SendSnapshot):
            rows = disk.read_rows(effect.head.trusted, 0, 1_000_000)
            wires.send(self.name, effect.to, msgspec.structs.replace(effect.head, entries=rows))
        elif isinstance(effect, OpenLinks):
            wires.open_links(self.name)
        elif isinstance(effect, CloseLinks):
            wires.close_links(self.name)

    def received(self, sender: str, message: Message) -> None:
        """A message has arrived."""
        self.deliver(Received(sender, message))
