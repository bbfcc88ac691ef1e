"""The log in the database: runs and single rows, written, deleted, compacted and read as if they were one.

An entry of a run that is replaced or removed (take-overs, ghosts, snapshots) first dissolves the run: what stays
becomes rows. What compaction declares dead is deleted at once where it is a row; in a run it is only left out by every
read from then on, until the run is written again without it. `store_compaction` says when, and why a restart may forget
what was dead.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from itertools import chain
from typing import NamedTuple

import msgspec

from retinue.core.messages import Entry, Save, SaveEntries
from retinue.store_compaction import PLACES_PER_DEAD, Compaction
from retinue.store_files import Connection
from retinue.store_index import RunIndex
from retinue.store_rows import (
    DELETE_SLOTS,
    INSERT_ROW,
    LAST_VERSION,
    PART_BITS,
    SELECT_ROWS,
    DamagedRow,
    entries_of,
    first_slot,
    insert_rows,
    last_slot,
    rows_of,
)
from retinue.store_runs import (
    ABOVE_ALL,
    BELOW_ALL,
    INSERT_RUN,
    StoredRun,
    run_of,
    runs_of,
    stretches,
    without,
)

RUN_ENTRIES_MIN = 8
"""A shorter stretch is rows: it is hardly slower to write, and cheaper to compact (measured)."""

# Text comes back as bytes, so that a damaged one reaches the checksum.
_SELECT_RUNS = """SELECT first, count, kept, epoch, CAST(entries AS BLOB), checksum FROM runs
WHERE first BETWEEN ? AND ? ORDER BY first"""

PASSED_OVER_MAX = 65_536
"""So many versions that were passed over are known at most; what fills another one takes a transaction."""

ROWS_MAX = 32
"""So many rows are one statement at most."""

_INSERT_ROWS = [insert_rows(count) for count in range(ROWS_MAX + 1)]

# What concerns many versions gets them as one JSON array: a statement for each would cost several times as much.
_DELETE_PARTS = "DELETE FROM entries WHERE slot IN (SELECT value FROM json_each(?))"
_SELECT_GIVEN_RUNS = """SELECT first, count, kept, epoch, CAST(entries AS BLOB), checksum FROM runs
WHERE first IN (SELECT value FROM json_each(?)) ORDER BY first"""
_DELETE_GIVEN_RUNS = "DELETE FROM runs WHERE first IN (SELECT value FROM json_each(?))"

_ROW_BYTES = 64  # A row without key and value, roughly.
_PAGE_BYTES = 4096
_encode = msgspec.json.Encoder().encode


class Statement(NamedTuple):
    """A statement, its parameters, and about how many bytes it adds to the write-ahead log."""

    sql: str
    parameters: Sequence[object]
    size_bytes: int


def _rows_bytes(entries: list[Entry]) -> int:
    return _ROW_BYTES * len(entries) + sum([len(entry.value) + len(entry.key) for entry in entries])


def _runs_bytes(runs: list[StoredRun]) -> int:
    return sum([_ROW_BYTES + len(run[4]) for run in runs])


def _array(numbers: Iterable[int]) -> tuple[str]:
    return (_encode(list(numbers)).decode(),)


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
    """The entries in the database `db`: which table has them is nobody else's business. At first it has none.

    Every method that changes something is part of a transaction of the caller, and returns about how many bytes it
    adds to the write-ahead log. Methods raise `DamagedRow` and `sqlite3.Error`.
    """

    def __init__(self, db: Connection) -> None:
        self._db = db
        self._index = RunIndex()
        self._compaction = Compaction(self._index)
        # Nothing in the database is above it; after a transaction that was undone it may be too high.
        self._newest = 0
        # Versions below it that are not in the database: with simulated delays most entries overtake others.
        self._passed_over: set[int] = set()

    def survey(self) -> None:
        """Find out where everything is, which was read and verified before. Nothing is written before this."""
        sizes = list(self._db.execute("SELECT first, count, kept FROM runs"))
        if not all(type(number) is int for size in sizes for number in size):
            raise DamagedRow(0, "it is missing, and a run has no number there")
        self._index = RunIndex(sizes)
        self._compaction = Compaction(self._index)
        slot = self._db.execute("SELECT max(slot) FROM entries").fetchone()[0] or 0
        self._newest = max(slot >> PART_BITS, self._index.last_version())

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
            versions = [entry.version for entry in entries]
        size = 0
        if not self._are_new(versions):
            newest = self._newest
            size = self.delete([version for version in versions if cleared < version <= newest])
        self._note(versions)
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
            size += self._write_runs(runs)
            for first, count, *_ in runs:
                self._index.add(first, count)
        return size + self._write_rows(rows)

    def _are_new(self, versions: list[int]) -> bool:
        newest = self._newest
        return min(versions) > newest or self._passed_over.issuperset([each for each in versions if each <= newest])

    def _note(self, versions: Sequence[int]) -> None:
        """These versions, all different, are written."""
        newest, highest = self._newest, max(versions)
        if highest == newest + len(versions) and min(versions) > newest:
            self._newest = highest
            return
        if highest > newest:
            self._newest = highest
            if highest - newest <= PASSED_OVER_MAX - len(self._passed_over):
                self._passed_over.update(range(newest + 1, highest))
        self._passed_over.difference_update(versions)

    def as_one_statement(self, saves: Sequence[Save]) -> Statement | None:
        """The statement that writes all of these, where there is one; whoever asks must execute it.

        It needs no transaction around it, which saves a good part of what a small group commit costs.
        """
        entries: list[Entry] = []
        for save in saves:
            if type(save) is not SaveEntries or save.removed:
                return None
            entries += save.entries
        count = len(entries)
        if count < RUN_ENTRIES_MIN:
            return self._as_rows(entries) if entries else None
        pieces = stretches(entries)
        piece = next(pieces)
        if len(piece) == count:
            return self._as_run(entries)
        if count > ROWS_MAX or max(map(len, (piece, *pieces))) >= RUN_ENTRIES_MIN:
            return None
        return self._as_rows(entries)

    def _as_run(self, stretch: list[Entry]) -> Statement | None:
        first, count = stretch[0].version, len(stretch)
        versions = range(first, first + count)
        if first <= self._newest and not self._passed_over.issuperset(versions):
            return None
        run = run_of(stretch)
        if run is None:
            return None
        self._index.add(first, count)
        if first == self._newest + 1:
            self._newest = first + count - 1
        else:
            self._note(versions)
        return Statement(INSERT_RUN, run, _runs_bytes([run]))

    def _as_rows(self, entries: list[Entry]) -> Statement | None:
        versions = [entry.version for entry in entries]
        if len(set(versions)) < len(versions) or not self._are_new(versions):
            return None
        rows = list(rows_of(entries))
        if not 0 < len(rows) <= ROWS_MAX:
            return None
        self._note(versions)
        return Statement(_INSERT_ROWS[len(rows)], [*chain.from_iterable(rows)], _rows_bytes(entries))

    def _write_runs(self, runs: list[StoredRun]) -> int:
        self._db.executemany(INSERT_RUN, runs)
        return _runs_bytes(runs)

    def _write_rows(self, entries: list[Entry]) -> int:
        if not entries:
            return 0
        self._db.executemany(INSERT_ROW, rows_of(entries))
        return _rows_bytes(entries)

    def delete(self, versions: list[int]) -> int:
        """Delete whole versions."""
        runs = {run.first for version in versions if (run := self._index.run_at(version)) is not None}
        size = self._dissolve(runs) if runs else 0
        self._db.executemany(DELETE_SLOTS, [(first_slot(version), last_slot(version)) for version in versions])
        return size

    def compact(self, dead: list[tuple[int, int]], tombstones: list[tuple[int, int]]) -> int:
        """Delete these (version, part); those that are deletions, `tombstones`, when they may go."""
        self._compaction.wait(tombstones)
        rows = self._index.bury(dead)
        all_dead, mostly_dead, freed = self._compaction.due(PLACES_PER_DEAD * (len(dead) + len(tombstones)))
        rows += freed
        if rows:
            slots = sorted([first_slot(version) + part for version, part in rows])
            self._db.execute(_DELETE_PARTS, _array(slots)).close()
        if all_dead:
            self._delete_runs(all_dead)
        size = self._write_again(mostly_dead) if mostly_dead else 0
        return size + _PAGE_BYTES * (len(rows) + len(all_dead) + len(mostly_dead))

    def _write_again(self, firsts: list[int]) -> int:
        """Write runs without their dead entries."""
        with closing(self._db.execute(_SELECT_GIVEN_RUNS, _array(firsts))) as rows:
            runs = list(without(rows, self._index.dead))
        for first in firsts:
            self._index.rewrite(first)
        return self._write_runs(runs)

    def install(self, trusted: int, entries: list[Entry]) -> int:
        """Replace everything up to version `trusted`."""
        across = self._index.run_at(trusted)
        size = 0 if across is None else self._dissolve([across.first])
        self._db.execute(DELETE_SLOTS, (0, last_slot(trusted))).close()
        self._db.execute("DELETE FROM runs WHERE first <= ?", (trusted,)).close()
        self._index.remove_upto(trusted)
        self._compaction.forget()
        size += self.write(entries, trusted)
        # What a snapshot has no row for is not passed over: nothing is written there again.
        self._newest = max(self._newest, trusted)
        self._passed_over.clear()
        return size

    def _dissolve(self, firsts: Iterable[int]) -> int:
        """Make rows of what is left of the runs that begin with `firsts`."""
        chosen = sorted(firsts)
        with closing(self._db.execute(_SELECT_GIVEN_RUNS, _array(chosen))) as rows:
            runs = runs_of(rows, self._index.dead, BELOW_ALL, LAST_VERSION)
            left = [entry for _, _, entries in runs for entry in entries]
        self._delete_runs(chosen)
        return _PAGE_BYTES * len(chosen) + self._write_rows(left)

    def _delete_runs(self, firsts: list[int]) -> None:
        self._db.execute(_DELETE_GIVEN_RUNS, _array(firsts)).close()
        for first in firsts:
            self._index.remove(first)

    def keep(self) -> None:
        """The transaction is committed."""
        self._index.keep()
        self._compaction.keep()

    def undo(self) -> None:
        """The transaction is rolled back."""
        self._index.undo()
        self._compaction.undo()

    # --- reading ---

    def read(self, after: int, upto: int, whole_above: int) -> Generator[Entry, None, None]:
        """The entries with `after` < version <= `upto` in order, verified; see `entries_of` for `whole_above`."""
        low = BELOW_ALL
        if after > 0:
            run = self._index.run_at(after + 1)
            low = after + 1 if run is None else run.first
        # Who reads everything reads what has a damaged version as well.
        high = upto if upto < LAST_VERSION else ABOVE_ALL
        with (
            closing(self._db.execute(SELECT_ROWS, (first_slot(after + 1), last_slot(upto)))) as rows,
            closing(self._db.execute(_SELECT_RUNS, (low, high))) as runs,
        ):
            yield from _merged(entries_of(rows, whole_above), runs_of(runs, self._index.dead, after, upto))

    def counts(self) -> tuple[int, int]:
        """How many rows of `entries` and how many runs there are."""
        rows, runs = self._db.execute("SELECT (SELECT count(*) FROM entries), (SELECT count(*) FROM runs)").fetchone()
        return rows, runs

    def count_entries(self) -> int:
        """How many entries the database keeps; a batch counts one for each part."""
        return self.counts()[0] + self._index.kept
