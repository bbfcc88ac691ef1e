"""The bytes between two nodes: frames, and a snapshot as a stream of frames.

A frame is four bytes of length (big-endian) and that many bytes of MessagePack: one tagged array, which is a message of
the protocol (`retinue.core.messages`) or one of the link's own frames below. Nothing here does I/O.

A snapshot does not fit one frame and must not hold up the others. It travels as a head, chunks of rows of at most
1 MiB, and an end that has the number of rows and their CRC-32. Both ends of a stream count and sum; what does not add
up is dropped as a whole.
"""

from __future__ import annotations

import logging
import struct
import zlib
from collections.abc import Generator, Iterator
from typing import Any

import msgspec

from retinue.core.messages import Entry, Message, Snapshot

# The largest answer is a promise with all that a follower may have pending (64 MiB) and what goes around it.
FRAME_LIMIT_BYTES = 80 * 2**20

# Appends and snapshot chunks are cut at this size: a ping behind one waits 10 ms on a link of 1 Gbit/s.
CHUNK_BYTES = 2**20

LENGTH_BYTES = 4

_logger = logging.getLogger("retinue.peers")
_unpack_length = struct.Struct(">I").unpack_from


class FrameError(Exception):
    """The bytes are not what a node would send; the link they came on cannot be trusted any more."""


class Ping(msgspec.Struct, frozen=True, array_like=True, tag="ping"):
    """Are you there? `sent_ns` is the sender's monotonic clock and comes back as it is."""

    sent_ns: int


class Pong(msgspec.Struct, frozen=True, array_like=True, tag="pong"):
    """The answer to a ping."""

    sent_ns: int


class SnapshotHead(msgspec.Struct, frozen=True, array_like=True, tag="snapshot-head"):
    """The begin of a stream: the snapshot without its rows. An older stream on the same link ends here, unfinished."""

    stream: int
    head: Snapshot


class SnapshotRows(msgspec.Struct, frozen=True, array_like=True, tag="snapshot-rows"):
    """The next rows of a stream: MessagePack of a list of entries, kept as bytes so that it can be summed."""

    stream: int
    rows: bytes


class SnapshotEnd(msgspec.Struct, frozen=True, array_like=True, tag="snapshot-end"):
    """The end of a stream: how many rows it had, and the CRC-32 over the bytes of all its chunks."""

    stream: int
    count: int
    crc: int


class _RawAppend(msgspec.Struct, frozen=True, array_like=True, tag="append"):
    """An `Append` whose entries are encoded already. The same bytes on the wire."""

    epoch: int
    start: int
    commit: int
    entries: list[msgspec.Raw]


SnapshotFrame = SnapshotHead | SnapshotRows | SnapshotEnd
Frame = Message | Ping | Pong | SnapshotHead | SnapshotRows | SnapshotEnd

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Frame] = msgspec.msgpack.Decoder(Frame)
_rows_decoder = msgspec.msgpack.Decoder(list[Entry])


def encode_frame(content: msgspec.Struct) -> bytes:
    """One frame, length and all."""
    payload = _encoder.encode(content)
    return len(payload).to_bytes(LENGTH_BYTES, "big") + payload


def decode_frame(payload: bytes | memoryview) -> Frame:
    """What is in a frame. Raises `FrameError`."""
    try:
        return _decoder.decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise FrameError(f"a frame of {len(payload)} bytes is not a message: {error}") from None


def encode_entry(entry: Entry) -> msgspec.Raw:
    """One entry as it stands in a frame, to be put into several frames without encoding it again."""
    return msgspec.Raw(_encoder.encode(entry))


def append_frame(epoch: int, start: int, commit: int, entries: list[msgspec.Raw]) -> bytes:
    """One `Append` frame with these entries."""
    return encode_frame(_RawAppend(epoch, start, commit, entries))


def append_frames(epoch: int, start: int, commit: int, entries: list[msgspec.Raw]) -> Iterator[bytes]:
    """`Append` frames with these entries, of at most `CHUNK_BYTES` each unless a single entry is larger."""
    first, size = 0, 0
    for at, entry in enumerate(entries):
        length = len(entry)
        if size and size + length > CHUNK_BYTES:
            yield append_frame(epoch, start, commit, entries[first:at])
            first, size = at, 0
        size += length
    if entries:
        yield append_frame(epoch, start, commit, entries[first:])


class FrameReader:
    """Cuts a stream of bytes into the payloads of frames. `limit_bytes` may be raised once the peer is known."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self._partial = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes | memoryview]:
        """The payloads that `data` completes. Raises `FrameError` on a frame above the limit, before it is read."""
        at, size = 0, len(data)
        view = memoryview(data)
        while self._partial:
            wanted = self._wanted(self._partial, 0) - len(self._partial)
            self._partial += view[at : at + wanted]
            at = min(at + wanted, size)
            if len(self._partial) < LENGTH_BYTES:
                return
            if len(self._partial) < self._wanted(self._partial, 0):
                if at == size:
                    return
                continue
            payload = memoryview(self._partial)[LENGTH_BYTES:]
            self._partial = bytearray()
            yield payload
        while size - at >= LENGTH_BYTES:
            end = at + self._wanted(view, at)
            if end > size:
                break
            yield view[at + LENGTH_BYTES : end]
            at = end
        if at < size:
            self._partial += view[at:]

    def _wanted(self, data: bytearray | memoryview, at: int) -> int:
        """How many bytes the frame at `at` has, as far as its beginning tells."""
        if len(data) - at < LENGTH_BYTES:
            return LENGTH_BYTES
        length: int = _unpack_length(data, at)[0]
        if length > self.limit_bytes:
            raise FrameError(f"a frame of {length} bytes is above the limit of {self.limit_bytes}")
        return LENGTH_BYTES + length


def snapshot_frames(stream: int, head: Snapshot, rows: Iterator[list[Entry]]) -> Generator[bytes, None, None]:
    """The frames of a snapshot. Takes from `rows` only what the next frame needs, and closes it at the end."""
    crc, count = 0, 0
    try:
        yield encode_frame(SnapshotHead(stream, msgspec.structs.replace(head, entries=[])))
        for entries in rows:
            for chunk, length in _row_chunks(entries):
                crc = zlib.crc32(chunk, crc)
                count += length
                yield encode_frame(SnapshotRows(stream, chunk))
        yield encode_frame(SnapshotEnd(stream, count, crc))
    finally:
        close: Any = getattr(rows, "close", None)
        if close is not None:
            close()


def _row_chunks(entries: list[Entry]) -> Iterator[tuple[bytes, int]]:
    chunk = _encoder.encode(entries)
    if len(chunk) <= CHUNK_BYTES or len(entries) == 1:
        yield chunk, len(entries)
        return
    middle = len(entries) // 2
    yield from _row_chunks(entries[:middle])
    yield from _row_chunks(entries[middle:])


class SnapshotAssembly:
    """The receiving end of snapshot streams: at most one at a time; a new head drops what was unfinished."""

    def __init__(self) -> None:
        self._head: SnapshotHead | None = None
        self._entries: list[Entry] = []
        self._crc = 0

    def take(self, frame: SnapshotFrame) -> Snapshot | None:
        """The snapshot, once its stream is complete. Raises `FrameError` on rows that are not entries."""
        if isinstance(frame, SnapshotHead):
            self._head, self._entries, self._crc = frame, [], 0
            return None
        if self._head is None or frame.stream != self._head.stream:
            return None
        if isinstance(frame, SnapshotRows):
            self._crc = zlib.crc32(frame.rows, self._crc)
            try:
                self._entries += _rows_decoder.decode(frame.rows)
            except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                raise FrameError(f"a chunk of a snapshot has no rows: {error}") from None
            return None
        head, entries, crc = self._head.head, self._entries, self._crc
        self._head, self._entries = None, []
        if (frame.count, frame.crc) != (len(entries), crc):
            _logger.warning("A snapshot arrived incomplete (%d of %d rows): dropped.", len(entries), frame.count)
            return None
        return msgspec.structs.replace(head, entries=entries)
