"""New entries on their way to the followers, through the simulated network.

Every copy of an entry has its own delay, counted from the moment it was handed over here, so copies overtake each
other; what is due at the same wake-up of the timer goes to a link as one append. Where nothing is simulated none of
this happens: the append is encoded once and given to all links as it is, and there is no timer.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import NamedTuple

import msgspec

from retinue.core.messages import Append
from retinue.deadlines import DeadlineTimer
from retinue.frames import append_frames, encode_entry, encode_frame
from retinue.links import Link
from retinue.network import Conditions, Network

# What an entry that waits takes beside its bytes: heap slot, tuples, object headers.
WAITING_ENTRY_BYTES = 300


class _Copy(NamedTuple):
    """A copy of one entry that waits; `head` is its append without entries."""

    link: Link
    head: Append
    entry: msgspec.Raw


class DelayedEntries:
    """All copies that wait, for all links of one node. `flush` is called when some have just been queued."""

    def __init__(self, loop: asyncio.AbstractEventLoop, network: Network, flush: Callable[[], None]) -> None:
        self._network = network
        self._flush = flush
        self._timer: DeadlineTimer[_Copy] = DeadlineTimer(loop, self._due)

    def replicate(self, links: list[Link], message: Append) -> dict[str, list[float]] | None:
        """Give every link its copies now or later; see `Peers.replicate`."""
        network = self._network
        plain = links if network.quiet else [link for link in links if not network.active(link.peer)]
        if plain:
            frame = encode_frame(message)
            for link in plain:
                link.enqueue(frame)
        if len(plain) == len(links):
            return None
        now_s = time.monotonic()
        entries = [encode_entry(entry) for entry in message.entries]
        head = msgspec.structs.replace(message, entries=[])
        delays_ms = {link.peer: [0.0] * len(entries) for link in plain}
        delayed = False
        copies: list[tuple[float, _Copy]] = []
        for link in links:
            conditions = self._network.conditions(link.peer)
            if conditions.active and not conditions.cut:
                delayed |= conditions.delayed
                delays_ms[link.peer] = self._simulate(link, conditions, head, entries, now_s, copies)
        # All at once, for setting the timer is a system call.
        self._timer.schedule(copies)
        return delays_ms if delayed else None

    def forget(self, link: Link) -> None:
        """Drop the copies that wait for `link`."""
        if link.delayed_bytes:
            self._timer.discard(lambda copy: copy.link is link)
            link.delayed_bytes = 0

    def close(self) -> None:
        """Drop everything and free the timer."""
        self._timer.close()

    def _simulate(
        self,
        link: Link,
        conditions: Conditions,
        head: Append,
        entries: list[msgspec.Raw],
        now_s: float,
        copies: list[tuple[float, _Copy]],
    ) -> list[float]:
        """Draw the delays of these entries on one link; those that wait are added to `copies`."""
        network, peer, in_order = self._network, link.peer, conditions.in_order
        drawn_ms = network.draw_delays_ms(peer, len(entries))
        arriving = list(zip(drawn_ms, entries, strict=True))
        if conditions.loss:
            arriving = [copy for copy in arriving if not network.lost(peer)]
        if not conditions.delayed:
            _enqueue(link, head, [entry for _, entry in arriving])
            return drawn_ms
        before = len(copies)
        for delay_ms, entry in arriving:
            if not link.reserve(len(entry) + WAITING_ENTRY_BYTES):
                del copies[before:]  # the link has dropped all that waited for it
                break
            due_s = now_s + delay_ms / 1000
            if in_order:
                due_s = link.delayed_until_s = max(due_s, link.delayed_until_s)
            copies.append((due_s, _Copy(link, head, entry)))
        return drawn_ms

    def _due(self, copies: list[_Copy]) -> None:
        together: dict[tuple[Link, int, int], list[_Copy]] = {}
        for copy in copies:
            copy.link.delayed_bytes -= len(copy.entry) + WAITING_ENTRY_BYTES
            together.setdefault((copy.link, copy.head.epoch, copy.head.start), []).append(copy)
        for (link, _, _), group in together.items():
            latest = group[0].head if len(group) == 1 else max([copy.head for copy in group], key=_commit_of)
            _enqueue(link, latest, [copy.entry for copy in group])
        self._flush()


def _commit_of(head: Append) -> int:
    return head.commit


def _enqueue(link: Link, head: Append, entries: list[msgspec.Raw]) -> None:
    for frame in append_frames(head.epoch, head.start, head.commit, entries):
        link.enqueue(frame)
