"""Links between simulated nodes: delays, loss, duplication, reordering, partitions, and links that come and go.

A message needs a link: requests go over the one that the sender dialed, responses over one that the receiver dialed. It
reaches only the process it was sent to, never a later life of it. A response is lost when its link goes down, since the
one who reads it is the one who closed the link; a request may still be read by the other side, after a new link is up.
In a partition a message is lost, or waits until it can get through, which may be long after its time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple, Protocol

import msgspec

from retinue.core.messages import (
    Append,
    Confirm,
    Event,
    Fetch,
    HardState,
    Heartbeat,
    LinkDown,
    LinkFull,
    LinkUp,
    Message,
    Seal,
    Snapshot,
)
from retinue.lab.virtual_time import VirtualTime
from retinue.network import Network

SWEEP_MS = 25.0
"""How often links are looked after."""

INBOX_LIMIT = 400
"""Messages that may wait at a node that does not read; more are dropped, and the sender is told."""

_REQUESTS = (Seal, Append, Heartbeat, Confirm, Fetch)


class Weather(msgspec.Struct):
    """What the network does to messages. Mutable: faults change it while a run goes on.

    `latency_ms` bounds each hop; `straggler` is the share of messages that take up to 30 times as long; `delay_ms`
    bounds the simulated delay that every replicated entry gets by itself. A link that cannot talk for `silence_ms` goes
    down.
    """

    latency_ms: tuple[float, float] = (0.2, 2.0)
    straggler: float = 0.0
    delay_ms: tuple[float, float] = (0.0, 0.0)
    loss: float = 0.0
    duplication: float = 0.0
    silence_ms: float = 400.0


class Station(Protocol):
    """What the network needs of a node."""

    life: int
    paused: bool

    @property
    def up(self) -> bool:
        """Whether the process runs."""

    @property
    def hard(self) -> HardState:
        """What it says of itself when a link comes up."""

    def waiting(self) -> int:
        """Events in its inbox."""

    def deliver(self, event: Event) -> None:
        """Put an event into its inbox."""

    def received(self, sender: str, message: Message) -> None:
        """Put a message into its inbox."""


class _Link:
    """One open link: the life of the peer that accepted it, since when it is silent, whether it is clogged.

    `latest_ms`: when the last of the entries that must not overtake each other arrives.
    """

    __slots__ = ("full", "latest_ms", "life", "silent_since")

    def __init__(self, life: int) -> None:
        self.life = life
        self.silent_since: float | None = None
        self.full = False
        self.latest_ms = 0.0


class _Way(NamedTuple):
    """From whom to whom: the life of the receiver, and for a response the link that the receiver dialed."""

    sender: str
    to: str
    life: int
    link: _Link | None


class SimulatedNetwork:
    """All links of the simulated cluster.

    `delays`: draws the simulated delay of each entry by its law, per receiver, in place of the weather's `delay_ms`.
    `drawn_ms`: what it has drawn, by (epoch, version) and receiver; whoever wants to know takes it from there.
    """

    def __init__(self, time: VirtualTime, stations: Mapping[str, Station], weather: Weather) -> None:
        self.time = time
        self.stations = stations
        self.weather = weather
        self.cuts: dict[tuple[str, str], int] = {}
        self.links: dict[tuple[str, str], _Link] = {}
        self.delays: Network | None = None
        self.drawn_ms: dict[tuple[int, int], dict[str, float]] = {}
        self._dialers: dict[str, int] = {}
        time.after(SWEEP_MS, self._sweep)

    # --- partitions ---

    def cut(self, pairs: list[tuple[str, str]]) -> None:
        """Let nothing pass from the first to the second of each pair; cuts add up."""
        for pair in pairs:
            self.cuts[pair] = self.cuts.get(pair, 0) + 1

    def mend(self, pairs: list[tuple[str, str]]) -> None:
        """Undo one `cut` of the same pairs."""
        for pair in pairs:
            left = self.cuts.get(pair, 0) - 1
            if left > 0:
                self.cuts[pair] = left
            else:
                self.cuts.pop(pair, None)

    def heal(self) -> None:
        """Undo all cuts and calm the weather; simulated delays stay."""
        self.cuts.clear()
        self.weather.loss = self.weather.duplication = self.weather.straggler = 0.0

    # --- messages ---

    def send(self, sender: str, to: str, message: Message) -> None:
        """Send over a link, or lose it where there is none."""
        self._send(sender, to, message, 0.0)

    def replicate(self, sender: str, to: str, message: Append) -> None:
        """Each entry travels by itself with its own simulated delay; without delays all travel together."""
        low, high = self.weather.delay_ms
        if self.delays is not None and self.delays.active(to):
            self._replicate_by_law(self.delays, sender, to, message)
        elif high == 0:
            self._send(sender, to, message, 0.0)
        else:
            for single in _singles(message):
                self._send(sender, to, single, self.time.random.uniform(low, high))

    def _replicate_by_law(self, delays: Network, sender: str, to: str, message: Append) -> None:
        if (sender, to) not in self.links:
            return
        in_order = delays.conditions(to).in_order
        for single in _singles(message):
            delay_ms = delays.draw_delay_ms(to)
            self.drawn_ms.setdefault((message.epoch, single.entries[0].version), {})[to] = delay_ms
            self._send(sender, to, single, delay_ms, in_order)

    def _send(self, sender: str, to: str, message: Message, delay_ms: float, in_order: bool = False) -> None:
        if type(message) in _REQUESTS or (type(message) is Snapshot and (sender, to) in self.links):
            link, dialed_by_receiver = self.links.get((sender, to)), False
        else:
            link, dialed_by_receiver = self.links.get((to, sender)), True
        if link is None:
            return
        weather, random = self.weather, self.time.random.random
        if weather.loss and random() < weather.loss:
            return
        way = _Way(sender, to, self.stations[to].life, link if dialed_by_receiver else None)
        low, high = weather.latency_ms
        latency = low + (high - low) * random()
        if weather.straggler and random() < weather.straggler:
            latency *= 30 * random()
        due_ms = self.time.now_ms + (delay_ms + latency)
        if in_order:
            due_ms = link.latest_ms = max(due_ms, link.latest_ms)
        self.time.at(due_ms, self._arrive, way, message)
        if weather.duplication and random() < weather.duplication:
            self.time.after(delay_ms + latency * (1 + 20 * random()), self._arrive, way, message)

    def _arrive(self, way: _Way, message: Message) -> None:
        sender, to = way.sender, way.to
        station = self.stations[to]
        if station.life != way.life or (way.link is not None and self.links.get((to, sender)) is not way.link):
            return
        if self.cuts and (sender, to) in self.cuts:
            if self.time.random.random() < 0.5:
                self.time.after(50 + 800 * self.time.random.random(), self._arrive, way, message)
            return
        if station.paused and station.waiting() > INBOX_LIMIT:
            self._clog(sender, to)
            return
        station.received(sender, message)

    def _clog(self, sender: str, to: str) -> None:
        link = self.links.get((sender, to))
        if link is not None and not link.full:
            link.full = True
            self.stations[sender].deliver(LinkFull(to))

    # --- links ---

    def open_links(self, dialer: str) -> None:
        """Dial every other member, and again whenever a link is lost."""
        self._dialers[dialer] = self.stations[dialer].life
        self.time.after(0.5 + self.time.random.random() * 5, self._look_after, dialer)

    def close_links(self, dialer: str) -> None:
        """Close what `dialer` opened; messages on the way still arrive."""
        self._dialers.pop(dialer, None)
        self._forget(dialer)

    def _forget(self, dialer: str) -> None:
        for pair in [pair for pair in self.links if pair[0] == dialer]:
            del self.links[pair]

    def _sweep(self) -> None:
        for dialer in list(self._dialers):
            self._look_after(dialer)
        self.time.after(SWEEP_MS, self._sweep)

    def _look_after(self, dialer: str) -> None:
        station = self.stations[dialer]
        if self._dialers.get(dialer) != station.life:
            self._dialers.pop(dialer, None)
            self._forget(dialer)
        elif not station.paused:
            for peer in self.stations:
                if peer != dialer:
                    self._look_at(dialer, peer)

    def _look_at(self, dialer: str, peer: str) -> None:
        """Bring a link up or down, or leave it as it is."""
        link = self.links.get((dialer, peer))
        station = self.stations[peer]
        talking = station.up and not station.paused and not self._cut_between(dialer, peer)
        if link is None:
            if talking and self.time.random.random() < 0.7:
                self._connect(dialer, peer)
        elif not station.up or station.life != link.life:
            self._disconnect(dialer, peer)
        elif talking:
            link.silent_since, link.full = None, False
        elif link.silent_since is None:
            link.silent_since = self.time.now_ms
        elif self.time.now_ms - link.silent_since > self.weather.silence_ms:
            self._disconnect(dialer, peer)

    def _cut_between(self, one: str, other: str) -> bool:
        return bool(self.cuts) and ((one, other) in self.cuts or (other, one) in self.cuts)

    def _connect(self, dialer: str, peer: str) -> None:
        station = self.stations[peer]
        self.links[dialer, peer] = _Link(station.life)
        hard = station.hard
        self.stations[dialer].deliver(LinkUp(peer, hard.node_id, hard.cluster_id, hard.promised))

    def _disconnect(self, dialer: str, peer: str) -> None:
        del self.links[dialer, peer]
        self.stations[dialer].deliver(LinkDown(peer))


def _singles(message: Append) -> Iterator[Append]:
    """The same entries, one by one."""
    return (Append(message.epoch, message.start, message.commit, [entry]) for entry in message.entries)
