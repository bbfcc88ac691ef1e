"""One TCP connection to another node: what waits to be written, what has arrived, and whether anyone is there.

A `Link` is made by whoever dials and by whoever accepts; both sides work the same once the handshake is over. It never
decides anything about nodes: it tells its owner (`LinkEvents`) what happened.

Writing: frames wait in the link until the end of the loop tick and leave in one write. What `send_now` is given, such
as a delayed copy that is due, leaves at once, with all that waits before it. When the transport's buffer is full they
go on waiting; the queue, with the entries that a simulated delay holds back, is bounded. A snapshot is pulled chunk by
chunk, the next one only when the last has left, so that other frames pass between.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections import deque
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import cast, get_args

from retinue.core.messages import Message
from retinue.frames import (
    CHUNK_BYTES,
    FRAME_LIMIT_BYTES,
    FrameError,
    FrameReader,
    Ping,
    Pong,
    SnapshotAssembly,
    SnapshotEnd,
    SnapshotHead,
    SnapshotRows,
    decode_frame,
    encode_frame,
)
from retinue.handshake import (
    HANDSHAKE_LIMIT_BYTES,
    Challenge,
    HandshakeFrame,
    Hello,
    Refusal,
    decode_handshake,
    printable,
)

# How much the transport may hold before it asks to wait: enough to keep a fast link busy for a loop tick.
TRANSPORT_BUFFER_BYTES = 2**20

_logger = logging.getLogger("retinue.peers")

OwnFrame = Ping | Pong | SnapshotHead | SnapshotRows | SnapshotEnd
# Looked up by type: `isinstance` asks the metaclass of every class that it is not.
_OWN_FRAMES = frozenset(get_args(OwnFrame))


@dataclass(frozen=True, slots=True)
class LinkEvents:
    """What a link tells its owner, and asks.

    `messages` gets what has arrived at one go.
    `dirty`: call `flush` soon. `stream_done` comes once per snapshot, sent or given up. `closed` comes once, `lost`
    when the socket is gone.
    """

    connected: Callable[[Link], None]
    handshake: Callable[[Link, HandshakeFrame], None]
    messages: Callable[[Link, list[Message]], None]
    dirty: Callable[[Link], None]
    full: Callable[[Link], None]
    stream_done: Callable[[Link], None]
    closed: Callable[[Link], None]
    lost: Callable[[Link], None]
    is_cut: Callable[[str], bool]


class Link(asyncio.Protocol):
    """One connection. `peer` is empty on an accepted one until the caller has proven its name."""

    def __init__(self, events: LinkEvents, queue_limit_bytes: int, peer: str = "") -> None:
        loop = asyncio.get_running_loop()
        self.peer = peer
        self.dialed = bool(peer)
        self.is_open = False
        self.is_closed = False
        self.challenge: Challenge | None = None
        self.hello: Hello | None = None
        self.opened: asyncio.Future[bool] = loop.create_future()
        self.lost: asyncio.Future[None] = loop.create_future()
        self.made_s = self.heard_s = time.monotonic()
        self.round_trip_ms: float | None = None
        self.sent_bytes = self.received_bytes = 0
        self.delayed_bytes = 0
        self.delayed_until_s = 0.0
        self._loop = loop
        self._events = events
        self._queue_limit_bytes = queue_limit_bytes
        self._transport: asyncio.Transport | None = None
        self._reader = FrameReader(HANDSHAKE_LIMIT_BYTES)
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._urgent = b""
        self._dirty = False
        self._paused = False
        self._stream: Generator[bytes, None, None] | None = None
        self._pumping = False
        self._assembly = SnapshotAssembly()

    # --- the state of the connection ---

    @property
    def remote(self) -> str:
        """The address at the other end, for people."""
        name = self._transport.get_extra_info("peername") if self._transport is not None else None
        return str(name[0]) if name else "an unknown address"

    @property
    def queued_bytes(self) -> int:
        """What is still to be written, with what the transport holds and what a simulated delay holds back."""
        buffered = self._transport.get_write_buffer_size() if self._transport is not None and not self.is_closed else 0
        return self._waiting_bytes + self.delayed_bytes + buffered

    def open(self, peer: str) -> None:
        """Let frames of the protocol pass: the handshake with `peer` is over."""
        self.peer = peer
        self.is_open = True
        self._reader.limit_bytes = FRAME_LIMIT_BYTES
        if not self.opened.done():
            self.opened.set_result(True)

    def refuse(self, sentence: str) -> None:
        """Tell the caller why, and hang up once it is written."""
        self.send_now(encode_frame(Refusal(sentence)))
        if self._transport is not None:
            self._transport.close()

    def abort(self, reason: str = "") -> None:
        """Close at once; what was not written is lost. Logs the reason if there is one."""
        if reason and not self.is_closed:
            _logger.warning("The link with %s was closed: %s.", self.peer or self.remote, printable(reason))
        self._end()
        if self._transport is not None:
            self._transport.abort()
            if not self._transport.is_closing():
                # uvloop closes the handle of a connection whose dialer was cancelled, and tells its protocol nothing.
                self.connection_lost(None)

    def _end(self) -> None:
        if self.is_closed:
            return
        self.is_closed = True
        self.drop_queue()
        if not self.opened.done():
            self.opened.set_result(False)
        self._events.closed(self)

    # --- writing ---

    def reserve(self, sizes: list[int]) -> bool:
        """Count entries of these sizes as held back for this link; false (and `full` told) if they are too many."""
        size = sum(sizes)
        if self._fits(size, alone=len(sizes) == 1):
            self.delayed_bytes += size
            return True
        self._events.full(self)
        return False

    def enqueue(self, frame: bytes) -> None:
        """Send a whole frame at the end of this loop tick, or later if the peer is slow to read."""
        size = len(frame)
        if self.is_closed:
            return
        if size > FRAME_LIMIT_BYTES or not self._fits(size):
            self._events.full(self)
            return
        self._waiting.append(frame)
        self._waiting_bytes += size
        if not self._dirty:
            self._mark()

    def send_now(self, frame: bytes) -> None:
        """Send a whole frame, and what waits before it, without waiting for the end of the tick."""
        held_up = self._waiting or self._urgent or self._paused or self.is_closed or self._events.is_cut(self.peer)
        if held_up or len(frame) > FRAME_LIMIT_BYTES:
            self.enqueue(frame)
            self.flush()
        else:
            self._write(frame)

    def ping(self) -> None:
        """Ask for a sign of life, ahead of everything that waits."""
        self._urgent = encode_frame(Ping(time.monotonic_ns()))
        self._mark()

    def flush(self) -> None:
        """Write what waits, as far as the transport takes it."""
        self._dirty = False
        if self.is_closed or self._paused:
            return
        if self._events.is_cut(self.peer):
            self.drop_queue()
            return
        if self._urgent:
            self._waiting.appendleft(self._urgent)
            self._waiting_bytes += len(self._urgent)
            self._urgent = b""
        self._write_waiting()

    def drop_queue(self) -> None:
        """Forget what waits, a snapshot under way included. What the transport has is beyond recall."""
        self._waiting.clear()
        self._waiting_bytes = 0
        self._urgent = b""
        self._end_stream()

    def stream(self, frames: Generator[bytes, None, None]) -> None:
        """Send these frames one by one, with others between them; a stream under way ends unfinished."""
        self._end_stream()
        self._stream = frames
        self._schedule_pump()

    def _fits(self, size: int, *, alone: bool = True) -> bool:
        held = self._waiting_bytes + self.delayed_bytes
        # A single one that is larger than the queue passes when nothing else waits.
        return held + size <= self._queue_limit_bytes or (alone and held == 0)

    def _mark(self) -> None:
        if not self._dirty:
            self._dirty = True
            self._events.dirty(self)

    def _write_waiting(self) -> None:
        while self._waiting and not self._paused and not self.is_closed:
            self._write(self._next_batch())

    def _next_batch(self) -> bytes:
        if len(self._waiting) == 1:
            self._waiting_bytes = 0
            return self._waiting.popleft()
        frames: list[bytes] = []
        size = 0
        while self._waiting and size < CHUNK_BYTES:
            frames.append(self._waiting.popleft())
            size += len(frames[-1])
        self._waiting_bytes -= size
        return b"".join(frames)

    def _write(self, data: bytes) -> None:
        assert self._transport is not None, "nothing is sent before the connection is made"
        try:
            self._transport.write(data)
        except (OSError, RuntimeError):
            # uvloop raises where asyncio notes the loss and tells it later.
            self.abort()
        else:
            self.sent_bytes += len(data)

    def _schedule_pump(self) -> None:
        if not self._pumping:
            self._pumping = True
            self._loop.call_soon(self._pump)

    def _pump(self) -> None:
        """Send one more chunk, and come again in the next tick or when the transport has room."""
        self._pumping = False
        if self._stream is None or self._paused:
            return
        try:
            frame = next(self._stream, None)
        except Exception:
            # The rows come from the owner's storage: its failure breaks this stream, not the link.
            _logger.exception("The snapshot for %s broke off.", self.peer)
            frame = None
        if frame is None:
            self._end_stream()
            return
        self.send_now(frame)
        self._schedule_pump()

    def _end_stream(self) -> None:
        ended, self._stream = self._stream, None
        if ended is not None:
            ended.close()
            self._events.stream_done(self)

    # --- what the event loop calls ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start: both sides speak only the handshake."""
        # uvloop's transports are not derived from asyncio's.
        self._transport = cast(asyncio.Transport, transport)
        if self.is_closed:
            self._transport.abort()
            return
        self.made_s = self.heard_s = time.monotonic()
        self._transport.set_write_buffer_limits(high=TRANSPORT_BUFFER_BYTES)
        raw_socket = transport.get_extra_info("socket")
        if raw_socket is not None:
            raw_socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._events.connected(self)

    def data_received(self, data: bytes) -> None:
        """Take the frames apart and pass them on; anything malformed closes the link."""
        self.received_bytes += len(data)
        cut = self._events.is_cut(self.peer)
        if not cut:
            self.heard_s = time.monotonic()
        messages: list[Message] = []
        problem = ""
        try:
            for payload in self._reader.feed(data):
                if self.is_closed:
                    return
                if not cut:
                    self._take(payload, messages)
        except FrameError as error:
            problem = str(error)
        if messages:
            self._events.messages(self, messages)
        if problem:
            self.abort(problem)

    def pause_writing(self) -> None:
        """Wait: the peer is slower than we are."""
        self._paused = True

    def resume_writing(self) -> None:
        """Go on."""
        self._paused = False
        self.flush()
        self._schedule_pump()

    def connection_lost(self, error: Exception | None) -> None:
        """The socket is gone, by whichever side."""
        self._end()
        self._events.lost(self)
        if not self.lost.done():
            self.lost.set_result(None)

    def _take(self, payload: bytes | memoryview, messages: list[Message]) -> None:
        if not self.is_open:
            self._events.handshake(self, decode_handshake(payload))
            return
        frame = decode_frame(payload)
        if type(frame) in _OWN_FRAMES:
            self._take_own(cast(OwnFrame, frame), messages)
        else:
            messages.append(cast(Message, frame))

    def _take_own(self, frame: OwnFrame, messages: list[Message]) -> None:
        if isinstance(frame, Ping):
            self._urgent = encode_frame(Pong(frame.sent_ns))
            self._mark()
        elif isinstance(frame, Pong):
            self.round_trip_ms = (time.monotonic_ns() - frame.sent_ns) / 1e6
        else:
            snapshot = self._assembly.take(frame)
            if snapshot is not None:
                messages.append(snapshot)
