"""New entries on their way to the followers, through the simulated network.

Every copy of an entry has its own delay, counted from the moment the entry was made, so copies overtake each other;
what is due at the same wake-up of the timer goes to a link as one append. Where nothing is simulated none of this
happens: the append is encoded once and given to all links as it is, and there is no timer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import msgspec

from retinue.core.messages import Append
from retinue.deadlines import DeadlineTimer
from retinue.frames import append_frame, append_frames, encode_entry, encode_frame
from retinue.links import Link
from retinue.network import Conditions, Network

# What an entry that waits takes beside its bytes: heap slot, tuples, object headers.
WAITING_ENTRY_BYTES = 300


class _DelayedEntry:
    """One entry that waits, for all links together; `head` is the append that it came with, without entries."""

    __slots__ = ("_frame", "head", "raw", "size_bytes")

    def __init__(self, head: Append, raw: msgspec.Raw) -> None:
        self.head = head
        self.raw = raw
        self.size_bytes = len(raw) + WAITING_ENTRY_BYTES
        self._frame: bytes | None = None

    @property
    def frame(self) -> bytes:
        """An append of this entry alone, encoded once for all links."""
        if self._frame is None:
            self._frame = append_frame(self.head.epoch, self.head.start, self.head.commit, [self.raw])
        return self._frame


_Copy = tuple[Link, _DelayedEntry]


class DelayedEntries:
    """All copies that wait, for all links of one node."""

    def __init__(self, loop: asyncio.AbstractEventLoop, network: Network) -> None:
        self._network = network
        self._timer: DeadlineTimer[_Copy] = DeadlineTimer(loop, self._due)

    def replicate(self, links: list[Link], message: Append, since_s: float) -> dict[str, list[float]] | None:
        """Give every link its copies now or later; see `Peers.replicate`."""
        network = self._network
        plain = links if network.quiet else [link for link in links if not network.active(link.peer)]
        if plain:
            frame = encode_frame(message)
            for link in plain:
                link.enqueue(frame)
        if len(plain) == len(links):
            return None
        head = msgspec.structs.replace(message, entries=[])
        entries = [_DelayedEntry(head, encode_entry(entry)) for entry in message.entries]
        delays_ms = {link.peer: [0.0] * len(entries) for link in plain}
        delayed = False
        copies: list[tuple[float, _Copy]] = []
        for link in links:
            conditions = network.conditions(link.peer)
            if conditions.active and not conditions.cut:
                delayed |= conditions.delayed
                delays_ms[link.peer] = self._simulate(link, conditions, entries, since_s, copies)
        self._timer.schedule(copies)
        return delays_ms if delayed else None

    def send_due(self) -> None:
        """Send what is due now, without waiting for the timer."""
        self._timer.hand_over_due()

    def forget(self, link: Link) -> None:
        """Drop the copies that wait for `link`."""
        if link.delayed_bytes:
            self._timer.discard(lambda copy: copy[0] is link)
            link.delayed_bytes = 0

    def close(self) -> None:
        """Drop everything and free the timer."""
        self._timer.close()

    def _simulate(
        self,
        link: Link,
        conditions: Conditions,
        entries: list[_DelayedEntry],
        since_s: float,
        copies: list[tuple[float, _Copy]],
    ) -> list[float]:
        """Draw the delays of these entries on one link; those that wait are added to `copies`."""
        network, peer, in_order = self._network, link.peer, conditions.in_order
        drawn_ms = network.draw_delays_ms(peer, len(entries))
        arriving = list(zip(drawn_ms, entries, strict=True))
        if conditions.loss:
            arriving = [copy for copy in arriving if not network.lost(peer)]
        if arriving and not conditions.delayed:
            for frame in _frames([entry for _, entry in arriving]):
                link.enqueue(frame)
        elif arriving and link.reserve([entry.size_bytes for _, entry in arriving]):
            for delay_ms, entry in arriving:
                due_s = since_s + delay_ms / 1000
                if in_order:
                    due_s = link.delayed_until_s = max(due_s, link.delayed_until_s)
                copies.append((due_s, (link, entry)))
        return drawn_ms

    def _due(self, copies: list[_Copy]) -> None:
        together: dict[tuple[Link, int, int], list[_DelayedEntry]] = {}
        for link, entry in copies:
            link.delayed_bytes -= entry.size_bytes
            together.setdefault((link, entry.head.epoch, entry.head.start), []).append(entry)
        for (link, _, _), entries in together.items():
            for frame in _frames(entries):
                link.send_now(frame)


def _frames(entries: list[_DelayedEntry]) -> Iterable[bytes]:
    """Entries of one epoch in as few frames as they fit in, with the latest commit point among them."""
    if len(entries) == 1:
        return (entries[0].frame,)
    head = entries[0].head
    commit = max([entry.head.commit for entry in entries])
    return append_frames(head.epoch, head.start, commit, [entry.raw for entry in entries])
