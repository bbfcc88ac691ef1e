"""How single entries lie in the database: the tables, the rows of an entry, and the entries of rows.

An entry that is in no run (see `store_runs`) is one row; a batch is one row per change, so that a person reads it. The
primary key `slot` is `version * 1024 + part`: rows are appended in version order, and no other index is needed. Every
row carries a CRC-32 of all its columns, so a flipped bit is noticed and never taken for an absent row.

A batch that lost some rows to compaction is read back with all its parts in their places: a part that is gone is a
change of kind `NOOP`, which touches no key. So (version, part) names the same row for ever.

Text in comments and in views is for people with a `sqlite3` shell (`select * from kvstore`, `select * from log`).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator
from typing import Any

from retinue.core.messages import Change, Entry, Kind, encode_changes

PART_BITS = 10
PARTS_MAX = 1 << PART_BITS
LAST_VERSION = (1 << 63 - PART_BITS) - 1

FORMAT = 3
"""Version of the layout; a file of another one is refused."""

APPLICATION_ID = 0x52544E55
"""`PRAGMA application_id` of our files, "RTNU" in ASCII; SQLite keeps it in the file's header."""

SCHEMA = (
    """CREATE TABLE entries (
  slot INTEGER PRIMARY KEY, -- version * 1024 + part of the batch
  epoch INTEGER NOT NULL,   -- the leadership under which this copy was last written
  kind INTEGER NOT NULL,    -- 0 noop, 1 put, 2 delete, 4 configuration
  key TEXT NOT NULL,
  value NOT NULL,           -- TEXT; a BLOB where the bytes are not UTF-8 text
  encoding INTEGER NOT NULL, -- 0 string or bytes, 1 JSON
  expires_ms INTEGER NOT NULL, -- absent from then on, in milliseconds since 1970; 0: never
  request_id TEXT NOT NULL,
  parts INTEGER NOT NULL,   -- 0: not a batch; else how many changes the batch was written with
  checksum INTEGER NOT NULL -- CRC-32 of the other columns
)""",
    """CREATE TABLE epochs (
  epoch INTEGER PRIMARY KEY,
  start INTEGER NOT NULL,   -- first version that this leadership may own
  checksum INTEGER NOT NULL
)""",
    """CREATE TABLE meta (
  name TEXT PRIMARY KEY,
  value TEXT NOT NULL,
  checksum INTEGER NOT NULL
) WITHOUT ROWID""",
)

DELETE_SLOTS = "DELETE FROM entries WHERE slot BETWEEN ? AND ?"
INSERT_ROW = "INSERT OR REPLACE INTO entries VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"

# Texts come back as bytes, so that a damaged one reaches the checksum instead of failing to decode in SQLite's binding.
SELECT_ROWS = (
    "SELECT slot, epoch, kind, CAST(key AS BLOB), CAST(value AS BLOB), encoding, expires_ms, CAST(request_id AS BLOB),"
    " parts, checksum FROM entries WHERE slot BETWEEN ? AND ? ORDER BY slot"
)

StoredRow = tuple[int, int, int, str, str | bytes, int, int, str, int, int]

_BATCH = int(Kind.BATCH)
_GONE = Change(int(Kind.NOOP), "")

# What the checksum covers before key, request id and value: slot, epoch, kind, encoding, expiry, parts, and two lengths
# that tell where the key and the request id end.
_pack_head = struct.Struct("<qqqqqqqq").pack


class DamagedRow(Exception):
    """The row or rows of `version` are not what was written; `problem` says how that shows."""

    def __init__(self, version: int, problem: str) -> None:
        super().__init__(version, problem)
        self.version = version
        self.problem = problem


def first_slot(version: int) -> int:
    """The slot of part 0 of a version."""
    return version << PART_BITS


def last_slot(version: int) -> int:
    """The highest slot that a version can use."""
    return (version << PART_BITS) + PARTS_MAX - 1


def text_checksum(*fields: object) -> int:
    """CRC-32 of a row of a small table."""
    return zlib.crc32(" ".join(map(str, fields)).encode())


def insert_rows(count: int) -> str:
    """The statement that inserts so many rows."""
    row = INSERT_ROW.partition(" VALUES ")[2]
    return INSERT_ROW + f", {row}" * (count - 1)


def rows_of(entries: Iterable[Entry]) -> Iterator[StoredRow]:
    """The rows of entries, in order."""
    for entry in entries:
        slot = entry.version << PART_BITS
        if entry.kind != _BATCH:
            yield _row(slot, entry, entry, 0)
            continue
        changes = entry.changes()
        assert 0 < len(changes) <= PARTS_MAX, "a batch has 1 to 1024 changes"
        for part, change in enumerate(changes):
            if change.kind != Kind.NOOP:
                yield _row(slot + part, entry, change, len(changes))


def _row(slot: int, entry: Entry, content: Entry | Change, parts: int) -> StoredRow:
    epoch, request_id, key, value = entry.epoch, entry.request_id, content.key, content.value
    kind, encoding, expires_ms = int(content.kind), int(content.encoding), content.expires_ms
    raw_key, raw_id = key.encode(), request_id.encode()
    head = _pack_head(slot, epoch, kind, encoding, expires_ms, parts, len(raw_key), len(raw_id))
    checksum = zlib.crc32(value, zlib.crc32(head + raw_key + raw_id))
    # Text where that is exact; the shell cuts text at a NUL, so such a value stays a BLOB.
    try:
        readable = value if b"\0" in value else value.decode()
    except UnicodeDecodeError:
        readable = value
    return slot, epoch, kind, key, readable, encoding, expires_ms, request_id, parts, checksum


def entries_of(rows: Iterable[Any], whole_above: int) -> Iterator[Entry]:
    """The entries of rows as `SELECT_ROWS` gives them, in order, every checksum verified.

    Batches above version `whole_above` must have all their parts. Raises `DamagedRow`.
    """
    crc32, pack_head = zlib.crc32, _pack_head
    batch: list[tuple[Any, ...]] = []
    previous = -1
    for slot, epoch, kind, raw_key, value, encoding, expires_ms, raw_id, parts, checksum in rows:
        try:
            key, request_id = raw_key.decode(), raw_id.decode()
            head = pack_head(slot, epoch, kind, encoding, expires_ms, parts, len(raw_key), len(raw_id))
            right = crc32(value, crc32(head + raw_key + raw_id)) == checksum
        except (AttributeError, TypeError, ValueError, struct.error):
            right = False
        if not right:
            raise DamagedRow(slot >> PART_BITS, "its checksum is wrong")
        if slot <= previous:
            raise DamagedRow(slot >> PART_BITS, "it is out of order")
        previous = slot
        if batch and batch[0][0] >> PART_BITS != slot >> PART_BITS:
            yield _regroup(batch, whole_above)
            batch = []
        if parts:
            batch.append((slot, epoch, request_id, parts, Change(kind, key, value, encoding, expires_ms)))
        else:
            yield Entry(slot >> PART_BITS, epoch, kind, key, value, encoding, request_id, expires_ms)
    if batch:
        yield _regroup(batch, whole_above)


def _regroup(batch: list[tuple[Any, ...]], whole_above: int) -> Entry:
    """The batch entry of its rows; parts that are gone become changes that touch no key."""
    first_of_batch, epoch, request_id, parts, _ = batch[0]
    version = first_of_batch >> PART_BITS
    changes = [_GONE] * parts
    for slot, *shared, change in batch:
        part = slot - first_slot(version)
        if shared != [epoch, request_id, parts] or part >= parts:
            raise DamagedRow(version, "the parts of its batch do not belong together")
        changes[part] = change
    if version > whole_above and len(batch) != parts:
        raise DamagedRow(version, f"{parts - len(batch)} of the {parts} parts of its batch are missing")
    return Entry(version, epoch, _BATCH, "", encode_changes(tuple(changes)), 0, request_id)


def without_gaps(entries: Iterable[Entry], low: int, high: int) -> Iterator[Entry]:
    """The same entries; raises `DamagedRow` where one of the versions `low` to `high` is missing."""
    expected = low
    for entry in entries:
        if entry.version >= expected:
            if entry.version > expected and expected <= high:
                raise DamagedRow(expected, "it is missing")
            expected = entry.version + 1
        yield entry
    if expected <= high:
        raise DamagedRow(expected, "it is missing")
