"""Runs: what one commit appends is one row, and so cheap to write.

A run is a number of puts and deletes with consecutive versions and one accept epoch. Its row has a JSON array with one
small array per entry, and one checksum. Everything else is rows of the table `entries`: single entries, batches,
configurations, noops, large values, and keys with a NUL. A version is in one run or in `entries`, never in both, and
runs do not overlap; a run is never changed. `store_log` makes one log of it all, and says what becomes of entries in a
run that are replaced or deleted.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Container, Iterable, Iterator, Sequence
from typing import Any

import msgspec

from retinue.core.messages import Entry, Kind
from retinue.store_rows import DamagedRow

RUN_ENTRIES_MAX = 1024
RUN_VALUES_BYTES = 256 << 10
"""The values of a run are not longer than this together."""

RUNS_SCHEMA = (
    """CREATE TABLE runs (
  first INTEGER PRIMARY KEY, -- version of the first entry; the others follow one by one
  count INTEGER NOT NULL,
  epoch INTEGER NOT NULL,   -- the leadership under which these copies were last written
  entries TEXT NOT NULL,    -- JSON: [[kind, key, value, encoding, expires_ms, request_id], ...] as in table entries;
                            -- the last three may be left out: 0, 0, ''; {"base64": ...} is a value that is no text
  checksum INTEGER NOT NULL -- CRC-32 of the other columns
)""",
    """CREATE TABLE dead (
  version INTEGER PRIMARY KEY, -- entry of a run that compaction has deleted
  checksum INTEGER NOT NULL -- the version, negative: enough to notice a flipped bit
)""",
    """CREATE VIEW log(version, part, parts, epoch, kind, key, value, encoding, expires_ms, request_id) AS
SELECT slot / 1024, slot % 1024, parts, epoch,
  CASE kind WHEN 0 THEN 'noop' WHEN 1 THEN 'put' WHEN 2 THEN 'delete' WHEN 4 THEN 'configuration' END,
  key, value, CASE encoding WHEN 1 THEN 'json' ELSE 'raw' END, expires_ms, request_id
FROM (
  SELECT slot, parts, epoch, kind, key, value, encoding, expires_ms, request_id FROM entries
  UNION ALL
  SELECT (first + entry.key) * 1024, 0, epoch, json_extract(entry.value, '$[0]'), json_extract(entry.value, '$[1]'),
    json_extract(entry.value, '$[2]'), json_extract(entry.value, '$[3]'), ifnull(json_extract(entry.value, '$[4]'), 0),
    ifnull(json_extract(entry.value, '$[5]'), '')
  FROM runs, json_each(runs.entries) AS entry WHERE first + entry.key NOT IN (SELECT version FROM dead)
) ORDER BY 1, 2""",
    """CREATE VIEW kvstore(key, value) AS
SELECT key, value
FROM (SELECT key, value, kind, expires_ms, max(version * 1024 + part) FROM log
  WHERE kind IN ('put', 'delete') GROUP BY key)
WHERE kind = 'put' AND (expires_ms = 0 OR expires_ms > strftime('%s', 'now') * 1000)
ORDER BY key""",
)

INSERT_RUN = "INSERT INTO runs VALUES (?, ?, ?, CAST(? AS TEXT), ?)"

BELOW_ALL, ABOVE_ALL = -1 << 63, (1 << 63) - 1
"""The lowest and the highest number that a damaged row can have for a version."""

_PUT, _DELETE = int(Kind.PUT), int(Kind.DELETE)
_NUL_IN_JSON = b"\\u0000"

# What the checksum of a run covers before its text.
_pack_head = struct.Struct("<qqq").pack


class _Base64(msgspec.Struct):
    """A value that is not text, or that the shell would cut at a NUL."""

    base64: bytes


class _Stored(msgspec.Struct, array_like=True, gc=False):
    kind: int
    key: str
    value: str | _Base64
    encoding: int = 0
    expires_ms: int = 0
    request_id: str = ""


_encode = msgspec.json.Encoder().encode
_decoder = msgspec.json.Decoder(list[_Stored])

StoredRun = tuple[int, int, int, bytes, int]


def stretches(entries: Iterable[Entry]) -> Iterator[list[Entry]]:
    """The entries in order, cut into what may be one run each, and single ones."""
    stretch: list[Entry] = []
    expected, epoch, size = -1, -1, 0
    for entry in entries:
        size += len(entry.value)
        if (
            entry.version != expected
            or entry.epoch != epoch
            or not _PUT <= entry.kind <= _DELETE
            or size > RUN_VALUES_BYTES
            or len(stretch) == RUN_ENTRIES_MAX
        ):
            if stretch:
                yield stretch
            stretch = []
            epoch, size = entry.epoch, len(entry.value)
        stretch.append(entry)
        # After anything but a put or a delete no version is the expected one.
        expected = entry.version + 1 if _PUT <= entry.kind <= _DELETE else -1
    if stretch:
        yield stretch


def run_of(entries: list[Entry]) -> StoredRun | None:
    """The row of a stretch of entries; `None` where it must be single rows, because a text in it has a NUL."""
    try:
        text = _encode(_stored(entries, [entry.value.decode() for entry in entries]))
        exact = _NUL_IN_JSON not in text
    except UnicodeDecodeError:
        exact = False
    if not exact:
        if any("\0" in entry.key or "\0" in entry.request_id for entry in entries):
            return None
        text = _encode(_stored(entries, [_readable(entry.value) for entry in entries]))
    first, count, epoch = entries[0].version, len(entries), entries[0].epoch
    return first, count, epoch, text, zlib.crc32(text, zlib.crc32(_pack_head(first, count, epoch)))


def _stored(entries: list[Entry], values: Sequence[str | _Base64]) -> list[tuple[object, ...]]:
    return [
        (entry.kind, entry.key, value, entry.encoding, entry.expires_ms, entry.request_id)
        if entry.encoding or entry.expires_ms or entry.request_id
        else (entry.kind, entry.key, value)
        for entry, value in zip(entries, values, strict=True)
    ]


def _readable(value: bytes) -> str | _Base64:
    try:
        return _Base64(value) if b"\0" in value else value.decode()
    except UnicodeDecodeError:
        return _Base64(value)


def runs_of(rows: Iterable[Any], marks: Iterable[Any], after: int, upto: int) -> Iterator[tuple[int, int, list[Entry]]]:
    """First and last version of runs, and their entries with `after` < version <= `upto` that are not marked as dead.

    `rows` as of the table `runs` and `marks` as of `dead`, both in order and from the same version on. Every checksum
    is verified, and that each mark belongs to a run. Raises `DamagedRow`.
    """
    dead = _marked(marks)
    mark = next(dead, None)
    previous = BELOW_ALL - 1
    for first, count, epoch, text, checksum in rows:
        try:
            right = zlib.crc32(text, zlib.crc32(_pack_head(first, count, epoch))) == checksum
            stored = _decoder.decode(text) if right else []
        except (TypeError, struct.error, msgspec.MsgspecError):
            right = False
        if not right or len(stored) != count:
            raise DamagedRow(first, "the checksum of the run that begins with it is wrong")
        if first <= previous:
            raise DamagedRow(first, "it is in two runs")
        previous = last = first + count - 1
        if mark is not None and mark < first:
            break
        gone = set()
        while mark is not None and mark <= last:
            gone.add(mark)
            mark = next(dead, None)
        low = max(after + 1, first)
        yield first, last, _entries_of_run(low, epoch, stored[low - first : upto - first + 1], gone)
    if mark is not None:
        raise DamagedRow(mark, "it is marked as dead, and no run has it")


def _marked(marks: Iterable[Any]) -> Iterator[int]:
    for version, checksum in marks:
        if checksum != -version:
            raise DamagedRow(version, "the checksum of its mark in the table dead is wrong")
        yield version


def _entries_of_run(first: int, epoch: int, stored_entries: list[_Stored], gone: Container[int]) -> list[Entry]:
    return [
        Entry(
            version,
            epoch,
            stored.kind,
            stored.key,
            stored.value.encode() if isinstance(stored.value, str) else stored.value.base64,
            stored.encoding,
            stored.request_id,
            stored.expires_ms,
        )
        for version, stored in enumerate(stored_entries, first)
        if version not in gone
    ]
