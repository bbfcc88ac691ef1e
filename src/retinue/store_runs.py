"""Runs: what one commit appends is one row, and so cheap to write.

A run is a number of puts and deletes with consecutive versions and one accept epoch. Its row has a JSON array with one
small array per entry, and one checksum. Everything else is rows of the table `entries`: single entries, batches,
configurations, noops, large values, and keys with a NUL. A version is in one run or in `entries`, never in both, and
runs do not overlap. Compaction writes a run again without what is dead in it: a 0 holds the place of an entry that is
gone. `store_log` makes one log of it all, and says what becomes of entries in a run that are replaced.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal

import msgspec

from retinue.core.messages import Entry, Kind
from retinue.store_rows import DamagedRow

RUN_ENTRIES_MAX = 128
"""A longer run would be no cheaper to write, and one entry of it that lives on would keep more zeros about it."""
RUN_VALUES_BYTES = 256 << 10
"""The values of a run are not longer than this together."""

RUNS_SCHEMA = (
    """CREATE TABLE runs (
  first INTEGER PRIMARY KEY, -- version of the first entry; the others follow one by one
  count INTEGER NOT NULL,   -- of places in the array
  kept INTEGER NOT NULL,    -- how many of them still hold an entry
  epoch INTEGER NOT NULL,   -- the leadership under which these copies were last written
  entries TEXT NOT NULL,    -- JSON: [[kind, key, value, encoding, expires_ms, request_id], ...] as in table entries;
                            -- the last three may be left out: 0, 0, ''; {"base64": ...} is a value that is no text;
                            -- 0 in place of an entry: compaction has removed it
  checksum INTEGER NOT NULL -- CRC-32 of the other columns
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
  FROM runs, json_each(runs.entries) AS entry WHERE entry.type = 'array'
) ORDER BY 1, 2""",
    """CREATE VIEW kvstore(key, value) AS
SELECT key, value
FROM (SELECT key, value, kind, expires_ms, max(version * 1024 + part) FROM log
  WHERE kind IN ('put', 'delete') GROUP BY key)
WHERE kind = 'put' AND (expires_ms = 0 OR expires_ms > strftime('%s', 'now') * 1000)
ORDER BY key""",
)

INSERT_RUN = "INSERT OR REPLACE INTO runs VALUES (?, ?, ?, ?, CAST(? AS TEXT), ?)"

BELOW_ALL, ABOVE_ALL = -1 << 63, (1 << 63) - 1
"""The lowest and the highest number that a damaged row can have for a version."""

_PUT, _DELETE = int(Kind.PUT), int(Kind.DELETE)
_NUL_IN_JSON = b"\\u0000"

# What the checksum of a run covers before its text.
_pack_head = struct.Struct("<qqqq").pack


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
_decoder = msgspec.json.Decoder(list[_Stored | Literal[0]])
_decode_raw = msgspec.json.Decoder(list[msgspec.Raw]).decode
_REMOVED = b"0"

StoredRun = tuple[int, int, int, int, bytes, int]
"""First version, places, entries kept, epoch, text, checksum: a row of the table `runs`."""


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
    return _sealed(entries[0].version, len(entries), len(entries), entries[0].epoch, text)


def _sealed(first: int, count: int, kept: int, epoch: int, text: bytes) -> StoredRun:
    return first, count, kept, epoch, text, _checksum(first, count, kept, epoch, text)


def _checksum(first: int, count: int, kept: int, epoch: int, text: bytes) -> int:
    return zlib.crc32(text, zlib.crc32(_pack_head(first, count, kept, epoch)))


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


def _is_right(first: int, count: int, kept: int, epoch: int, text: bytes, checksum: int) -> bool:
    try:
        return _checksum(first, count, kept, epoch, text) == checksum
    except (TypeError, struct.error):
        return False


def _damaged(first: int) -> DamagedRow:
    return DamagedRow(first, "the checksum of the run that begins with it is wrong")


def without(rows: Iterable[Any], dead: Callable[[int], int]) -> Iterator[StoredRun]:
    """The same rows of the table `runs` without their dead entries; `dead` as for `runs_of`. Raises `DamagedRow`."""
    for row in rows:
        first, count, _, epoch, text, _ = row
        if not _is_right(*row):
            raise _damaged(first)
        bits = dead(first)
        left = [_REMOVED if bits >> place & 1 else bytes(entry) for place, entry in enumerate(_decode_raw(text))]
        yield _sealed(first, count, count - left.count(_REMOVED), epoch, b"[%b]" % b",".join(left))


def runs_of(
    rows: Iterable[Any], dead: Callable[[int], int], after: int, upto: int
) -> Iterator[tuple[int, int, list[Entry]]]:
    """First and last version of runs, and their living entries with `after` < version <= `upto`.

    `rows` as of the table `runs`, in order, every checksum is verified; `dead` gives a bit for each entry of the run
    with this first version that is to be left out. Raises `DamagedRow`.
    """
    previous = BELOW_ALL - 1
    for row in rows:
        first, count, kept, epoch, text, _ = row
        try:
            stored = _decoder.decode(text) if _is_right(*row) else []
        except (TypeError, msgspec.MsgspecError):
            stored = []
        if len(stored) != count or count - stored.count(0) != kept:
            raise _damaged(first)
        if first <= previous:
            raise DamagedRow(first, "it is in two runs")
        previous = first + count - 1
        low = max(after + 1, first)
        living = stored[low - first : upto - first + 1]
        yield first, previous, list(_entries_of_run(low, epoch, living, dead(first) >> low - first))


def _entries_of_run(first: int, epoch: int, places: list[_Stored | Literal[0]], dead: int) -> Iterator[Entry]:
    for place, stored in enumerate(places):
        if isinstance(stored, _Stored) and not dead >> place & 1:
            yield Entry(
                first + place,
                epoch,
                stored.kind,
                stored.key,
                stored.value.encode() if isinstance(stored.value, str) else stored.value.base64,
                stored.encoding,
                stored.request_id,
                stored.expires_ms,
            )
