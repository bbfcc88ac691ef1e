"""The log in the database: runs and single rows, written, deleted, compacted and read as if they were one.

An entry of a run that is replaced or removed (take-overs, ghosts, snapshots) first dissolves the run: what stays
becomes rows. Compaction, which takes single versions here and there, marks them in the table `dead`, and every read
leaves out what is marked. The marks must be as durable as deleted rows: a deletion that is gone while the put that it
deleted is still there would bring a key back.

What compaction costs: each mark pays for a look at `SWEPT_PER_MARK` entries of runs, around and around below the floor
(a count of marks per run, nothing is decoded), and runs of which three quarters or more are dead are dissolved when
the look comes by. So a transaction that marks `d` entries looks at no more than `8 d` entries and one run; it rewrites
at most a quarter of those; and an entry is rewritten once in its life. One round takes an eighth as many marks as
there are entries in runs, so at most 3/4 + 1/8 of them are dead and still there. No state is kept for it but the place
of the look, which may start anywhere.
"""

from __future__ import annotations

from collections.abc import Collection, Generator, Iterator
from contextlib import closing

import msgspec

from retinue.core.messages import Entry
from retinue.store_files import Connection
from retinue.store_rows import (
    DELETE_SLOTS,
    INSERT_ROW,
    LAST_VERSION,
    PART_BITS,
    PARTS_MAX,
    SELECT_ROWS,
    DamagedRow,
    entries_of,
    first_slot,
    last_slot,
    rows_of,
)
from retinue.store_runs import ABOVE_ALL, BELOW_ALL, INSERT_RUN, StoredRun, run_of, runs_of, stretches

RUN_ENTRIES_MIN = 8
"""A shorter stretch is rows: it is hardly slower to write, and cheaper to compact (measured)."""

SWEPT_PER_MARK = 8
"""How many entries of runs compaction looks at for each that it marks; see above."""

# Text comes back as bytes, so that a damaged one reaches the checksum.
_SELECT_RUNS = (
    "SELECT first, count, epoch, CAST(entries AS BLOB), checksum FROM runs WHERE first BETWEEN ? AND ? ORDER BY first"
)
_SELECT_MARKS = "SELECT version, checksum FROM dead WHERE version BETWEEN ? AND ? ORDER BY version"
_LAST_RUN_FROM = "SELECT first, first + count - 1 FROM runs WHERE first <= ? ORDER BY first DESC LIMIT 1"
_NEWEST = (
    "SELECT max(slot), (SELECT first + CAST(count AS INTEGER) - 1 FROM runs ORDER BY first DESC LIMIT 1) FROM entries"
)

# What concerns many versions gets them as one JSON array: a statement for each would cost several times as much.
_DELETE_PARTS = "DELETE FROM entries WHERE slot IN (SELECT value FROM json_each(?))"
_MARK = """INSERT OR IGNORE INTO dead SELECT value, -value FROM json_each(?)
WHERE value < (SELECT first + count FROM runs WHERE first <= value ORDER BY first DESC LIMIT 1)"""
_DEATHS = """SELECT first, CAST(count AS INTEGER),
(SELECT count(*) FROM dead WHERE version BETWEEN first AND first + count - 1)
FROM runs WHERE first > ? AND first <= ? ORDER BY first LIMIT ?"""
_SELECT_RUNS_AT = """SELECT first, count, epoch, CAST(entries AS BLOB), checksum FROM runs
WHERE first IN (SELECT value FROM json_each(?)) ORDER BY first"""
_SELECT_MARKS_AT = """SELECT version, dead.checksum FROM runs CROSS JOIN dead
ON version BETWEEN first AND first + count - 1 WHERE first IN (SELECT value FROM json_each(?)) ORDER BY version"""
_DELETE_RUNS_AT = (
    """DELETE FROM dead WHERE version IN (SELECT version FROM runs CROSS JOIN dead
ON version BETWEEN first AND first + count - 1 WHERE first IN (SELECT value FROM json_each(?)))""",
    "DELETE FROM runs WHERE first IN (SELECT value FROM json_each(?))",
)

_ROW_BYTES = 64  # A row without key and value, roughly.
_PAGE_BYTES = 4096
_encode = msgspec.json.Encoder().encode


def _merged(rows: Iterator[Entry], runs: Iterator[tuple[int, int, list[Entry]]]) -> Iterator[Entry]:
    """The entries of both tables in order."""
    row = next(rows, None)
    for first, last, entries in runs:
        while row is not None and row.version < first:
            yield row
            row = next(rows, None)
        if row is not None and row.version <= last:
            raise DamagedRow(row.version, "it is in a run and in the table entries")
        yield from entries
    if row is not None:
        yield row
        yield from rows


class StoredLog:
    """The entries in the database `db`: which table has them is nobody else's business.

    Every method that changes something is part of a transaction of the caller, and returns about how many bytes it
    adds to the write-ahead log. Methods raise `DamagedRow` and `sqlite3.Error`.
    """

    def __init__(self, db: Connection) -> None:
        self._db = db
        slot, last = db.execute(_NEWEST).fetchone()
        # Nothing in the database is above it; after a transaction that was undone it may be too high.
        self._newest: int = max((slot or 0) >> PART_BITS, last or 0)
        self._swept = BELOW_ALL

    # --- writing ---

    def write(self, entries: list[Entry], cleared: int = 0) -> int:
        """Put entries in place of what their versions had; the last one of a version counts.

        There is nothing at or below version `cleared` in the database.
        """
        if not entries:
            return 0
        versions = [entry.version for entry in entries]
        if len(set(versions)) != len(versions):
            entries = list({entry.version: entry for entry in entries}.values())
        newest, size = self._newest, 0
        if min(versions) <= newest:
            size = self.delete([version for version in versions if cleared < version <= newest])
        self._newest = max(newest, *versions)
        if len(entries) < RUN_ENTRIES_MIN:
            return size + self._write_rows(entries)
        runs: list[StoredRun] = []
        rows: list[Entry] = []
        for piece in stretches(entries):
            run = run_of(piece) if len(piece) >= RUN_ENTRIES_MIN else None
            if run is None:
                rows += piece
            else:
                runs.append(run)
        if runs:
            self._db.executemany(INSERT_RUN, runs)
            size += sum([_ROW_BYTES + len(run[3]) for run in runs])
        return size + self._write_rows(rows)

    def _write_rows(self, entries: list[Entry]) -> int:
        if not entries:
            return 0
        self._db.executemany(INSERT_ROW, rows_of(entries))
        return _ROW_BYTES * len(entries) + sum([len(entry.value) + len(entry.key) for entry in entries])

    def delete(self, versions: list[int]) -> int:
        """Delete whole versions."""
        runs = {run[0] for version in versions if (run := self._run_at(version)) is not None}
        size = self._dissolve(runs) if runs else 0
        self._db.executemany(DELETE_SLOTS, [(first_slot(version), last_slot(version)) for version in versions])
        return size

    def compact(self, dead: list[tuple[int, int]], floor: int) -> int:
        """Delete these (version, part), and dissolve runs that are mostly dead; nothing above `floor` is looked at."""
        slots = sorted([first_slot(version) + part for version, part in dead])
        self._db.execute(_DELETE_PARTS, (_encode(slots).decode(),)).close()
        versions = [slot >> PART_BITS for slot in slots if slot % PARTS_MAX == 0]
        self._db.execute(_MARK, (_encode(versions).decode(),)).close()
        return _PAGE_BYTES * len(dead) + self._sweep(SWEPT_PER_MARK * len(dead), floor)

    def install(self, trusted: int, entries: list[Entry]) -> int:
        """Replace everything up to version `trusted`."""
        across = self._run_at(trusted)
        if across is not None:
            self._dissolve([across[0]])
        self._db.execute(DELETE_SLOTS, (0, last_slot(trusted))).close()
        self._db.execute("DELETE FROM runs WHERE first <= ?", (trusted,)).close()
        self._db.execute("DELETE FROM dead WHERE version <= ?", (trusted,)).close()
        return self.write(entries, trusted)

    def _run_at(self, version: int) -> tuple[int, int] | None:
        """First and last version of the run that has a version."""
        run = self._db.execute(_LAST_RUN_FROM, (version,)).fetchone()
        return run if run is not None and version <= run[1] else None

    def _sweep(self, due: int, floor: int) -> int:
        """Look at runs with `due` entries, from where the last look ended."""
        mostly_dead = []
        with closing(self._db.execute(_DEATHS, (self._swept, floor, due))) as runs:
            for first, count, deaths in runs:
                self._swept = first
                due -= count
                if 4 * deaths >= 3 * count:
                    mostly_dead.append(first)
                if due <= 0:
                    break
            else:
                self._swept = BELOW_ALL
        return self._dissolve(mostly_dead) if mostly_dead else 0

    def _dissolve(self, firsts: Collection[int]) -> int:
        """Make rows of what is left of the runs that begin with `firsts`."""
        chosen = (_encode(list(firsts)).decode(),)
        with (
            closing(self._db.execute(_SELECT_RUNS_AT, chosen)) as rows,
            closing(self._db.execute(_SELECT_MARKS_AT, chosen)) as marks,
        ):
            runs = runs_of(rows, marks, BELOW_ALL, LAST_VERSION)
            left = [entry for _, _, entries in runs for entry in entries]
        for statement in _DELETE_RUNS_AT:
            self._db.execute(statement, chosen).close()
        return _PAGE_BYTES * len(firsts) + self._write_rows(left)

    # --- reading ---

    def read(self, after: int, upto: int, whole_above: int) -> Generator[Entry, None, None]:
        """The entries with `after` < version <= `upto` in order, verified; see `entries_of` for `whole_above`."""
        low = BELOW_ALL
        if after > 0:
            run = self._run_at(after + 1)
            low = after + 1 if run is None else run[0]
        # Who reads everything reads what has a damaged version as well.
        high = upto if upto < LAST_VERSION else ABOVE_ALL
        with (
            closing(self._db.execute(SELECT_ROWS, (first_slot(after + 1), last_slot(upto)))) as rows,
            closing(self._db.execute(_SELECT_RUNS, (low, high))) as runs,
            closing(self._db.execute(_SELECT_MARKS, (low, high))) as marks,
        ):
            yield from _merged(entries_of(rows, whole_above), runs_of(runs, marks, after, upto))

    def counts(self) -> tuple[int, int, int]:
        """How many rows of `entries`, runs, and marks there are."""
        rows, runs, marks = self._db.execute(
            "SELECT (SELECT count(*) FROM entries), (SELECT count(*) FROM runs), (SELECT count(*) FROM dead)"
        ).fetchone()
        return rows, runs, marks

    def count_entries(self) -> int:
        """How many entries there are; a batch counts one for each part. For a database that was read without damage."""
        row = self._db.execute(
            "SELECT (SELECT count(*) FROM entries) + (SELECT total(count) FROM runs) - (SELECT count(*) FROM dead)"
        ).fetchone()
        return int(row[0])
