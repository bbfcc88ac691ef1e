"""The bytes between nodes: cutting, decoding, malformed input, snapshots in chunks."""

from __future__ import annotations

import random
from collections.abc import Iterator

import msgspec
import pytest

from retinue.core.messages import Ack, Append, Configuration, Entry, Heartbeat, Kind, Snapshot
from retinue.frames import (
    CHUNK_BYTES,
    Frame,
    FrameError,
    FrameReader,
    Ping,
    Pong,
    SnapshotAssembly,
    SnapshotEnd,
    SnapshotHead,
    SnapshotRows,
    append_frames,
    decode_frame,
    encode_entry,
    encode_frame,
    snapshot_frames,
)

MESSAGES = [
    Append(7, 3, 2, [Entry(3, 7, Kind.PUT, "key", b"value", 0, "id"), Entry(4, 7, Kind.DELETE, "schlüssel")]),
    Ack(7, [3, 5], 3, 2),
    Ping(123456789),
    Pong(123456789),
    Heartbeat(7, 3, 2, 99),
]
HEAD = Snapshot(7, 3, 2, 1, 99, Configuration(3, {"leader": "id"}), 1, [])


def read(reader: FrameReader, data: bytes) -> list[Frame]:
    return [decode_frame(payload) for payload in reader.feed(data)]


def rows_of(count: int, size: int, batch: int) -> Iterator[list[Entry]]:
    for first in range(1, count + 1, batch):
        versions = range(first, min(first + batch, count + 1))
        yield [Entry(version, 1, Kind.PUT, f"key{version}", b"v" * size) for version in versions]


def payloads(frames: Iterator[bytes]) -> Iterator[Frame]:
    for frame in frames:
        yield decode_frame(frame[4:])


@pytest.mark.parametrize("piece", [*range(1, 40), 1000])
def test_frames_arrive_whole_however_the_bytes_are_split(piece: int) -> None:
    data = b"".join(encode_frame(message) for message in MESSAGES)
    reader = FrameReader(1000)
    received: list[Frame] = []
    for at in range(0, len(data), piece):
        received += read(reader, data[at : at + piece])
    assert received == MESSAGES


def test_frames_arrive_whole_when_split_once_at_any_byte() -> None:
    data = b"".join(encode_frame(message) for message in MESSAGES)
    for at in range(len(data) + 1):
        reader = FrameReader(1000)
        assert read(reader, data[:at]) + read(reader, data[at:]) == MESSAGES


def test_a_frame_above_the_limit_is_refused_before_it_is_read() -> None:
    reader = FrameReader(10)
    with pytest.raises(FrameError, match="a frame of 11 bytes is above the limit of 10"):
        list(reader.feed((11).to_bytes(4, "big")))
    split = FrameReader(10)
    assert list(split.feed(b"\xff\xff")) == []
    with pytest.raises(FrameError, match="above the limit"):
        list(split.feed(b"\xff\xff"))


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xc1",
        b"\x93\x01",
        msgspec.msgpack.encode("append"),
        msgspec.msgpack.encode(["unknown", 1]),
        msgspec.msgpack.encode(["append", 1, 2]),
        msgspec.msgpack.encode(["append", "1", 2, 3, []]),
        msgspec.msgpack.encode(["append", 1, 2, 3, [[1, 1, 1, 5]]]),
        msgspec.msgpack.encode(["ping", 2**64 - 1]) + b"more",
        b"\x91" * 100_000,
        b"\x92\xa4ping\xa1\xff",
        b"\x92\xa5\xff\xff\xff\xff\xff\x01",
    ],
)
def test_malformed_payloads_are_told_as_such(payload: bytes) -> None:
    with pytest.raises(FrameError):
        decode_frame(payload)


def test_damaged_frames_never_raise_anything_else() -> None:
    dice = random.Random(5)
    frames = [encode_frame(message)[4:] for message in MESSAGES]
    for _ in range(5000):
        damaged = bytearray(dice.choice(frames))
        for _ in range(dice.randint(1, 4)):
            damaged[dice.randrange(len(damaged))] = dice.randrange(256)
        try:
            decode_frame(bytes(damaged))
        except FrameError:
            continue


def test_entries_encoded_once_give_the_same_bytes() -> None:
    message = MESSAGES[0]
    assert isinstance(message, Append)
    raw = [encode_entry(entry) for entry in message.entries]
    assert list(append_frames(7, 3, 2, raw)) == [encode_frame(message)]
    assert list(append_frames(7, 3, 2, [])) == []


def test_large_appends_are_cut_between_entries() -> None:
    entries = [Entry(version, 1, Kind.PUT, "k", b"v" * 400_000) for version in range(1, 6)]
    entries.append(Entry(6, 1, Kind.PUT, "k", b"v" * 3 * CHUNK_BYTES))
    frames = list(append_frames(1, 1, 0, [encode_entry(entry) for entry in entries]))
    appends = [decode_frame(frame[4:]) for frame in frames]
    assert [len(append.entries) for append in appends if isinstance(append, Append)] == [2, 2, 1, 1]
    assert [entry for append in appends if isinstance(append, Append) for entry in append.entries] == entries


def test_a_snapshot_in_chunks_is_put_together_again() -> None:
    frames = list(snapshot_frames(1, HEAD, rows_of(100, 30_000, 60)))
    assert len(frames) > 4
    assert all(len(frame) <= CHUNK_BYTES + 100 for frame in frames)
    assembly = SnapshotAssembly()
    received = [assembly.take(frame) for frame in payloads(iter(frames)) if not isinstance(frame, Append)]  # type: ignore[arg-type]
    assert received[:-1] == [None] * (len(frames) - 1)
    entries = [entry for batch in rows_of(100, 30_000, 60) for entry in batch]
    assert received[-1] == msgspec.structs.replace(HEAD, entries=entries)


def test_an_empty_snapshot_arrives() -> None:
    assembly = SnapshotAssembly()
    assert assembly.take(SnapshotHead(1, HEAD)) is None
    assert assembly.take(SnapshotEnd(1, 0, 0)) == HEAD


def test_a_snapshot_that_does_not_add_up_is_dropped() -> None:
    rows = msgspec.msgpack.encode([Entry(1, 1, Kind.PUT, "k", b"v")])
    assembly = SnapshotAssembly()
    assembly.take(SnapshotHead(1, HEAD))
    assembly.take(SnapshotRows(1, rows))
    assert assembly.take(SnapshotEnd(1, 2, 0)) is None
    assert assembly.take(SnapshotEnd(1, 1, 0)) is None
    assert assembly.take(SnapshotRows(1, rows)) is None
    assembly.take(SnapshotHead(2, HEAD))
    assert assembly.take(SnapshotRows(1, rows)) is None
    assert assembly.take(SnapshotEnd(2, 0, 0)) == HEAD
    assembly.take(SnapshotHead(3, HEAD))
    with pytest.raises(FrameError, match="no rows"):
        assembly.take(SnapshotRows(3, b"\xc1"))


def test_rows_are_closed_when_a_stream_ends_early() -> None:
    closed: list[bool] = []

    def rows() -> Iterator[list[Entry]]:
        try:
            yield from rows_of(100, 10, 1)
        finally:
            closed.append(True)

    frames = snapshot_frames(1, HEAD, rows())
    next(frames)
    next(frames)
    frames.close()
    assert closed == [True]
