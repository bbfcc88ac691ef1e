"""Compaction of runs: what is dead is left out, then gone, and never comes back as the value of a key."""

from __future__ import annotations

import random
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from retinue.core.log import Log
from retinue.core.messages import Change, Compact, Entry, HardState, Install, Kind, Save, SaveEntries, SaveState
from retinue.errors import DiskFull
from retinue.store import Store
from retinue.store_compaction import PLACES_PER_DEAD, PLACES_PER_RUN, TOMBSTONES_MIN, TOMBSTONES_SHARE
from retinue.store_files import Connection, connect_sqlite
from retinue.store_log import RUN_ENTRIES_MIN
from retinue.store_runs import RUN_ENTRIES_MAX
from tests.store_samples import Layout, batch, compactable, layout, load, put, puts, tamper

LONG = 2 * RUN_ENTRIES_MIN
MOSTLY = 3 * LONG // 4 + 1


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with compactable(tmp_path) as opened:
        yield opened


def dead(first: int, count: int) -> Compact:
    return Compact([(version, 0) for version in range(first, first + count)], [])


def deletes(first: int, count: int) -> list[Entry]:
    return [Entry(version, 1, Kind.DELETE, f"gone{version}") for version in range(first, first + count)]


# --- what is dead in a run ---


def test_a_dead_entry_of_a_run_is_left_out_by_every_read_until_a_restart(store: Store, tmp_path: Path) -> None:
    entries = puts(1, LONG)
    store.commit([SaveEntries(entries)])
    store.commit([Compact([(1, 0), (4, 0), (5, 1), (LONG + 50, 0)], [])])
    alive = [entry for entry in entries if entry.version not in (1, 4)]
    assert store.load().entries == alive
    assert store.read_rows(100, 0, 100) == alive
    assert store.read_range(0, 100, 1000) == []
    assert store.read_range(1, 100, 1000) == alive[:2]
    assert store.read_range(4, 100, 1000) == alive[2:]
    assert layout(tmp_path) == Layout([], [(1, LONG)])
    store.close()
    with closing(Store(tmp_path)) as again:
        assert again.load().entries == entries
        assert again.opened.clean
        assert again.opened.rows_checked == LONG


def test_a_run_that_is_all_dead_is_deleted_unread(store: Store, tmp_path: Path) -> None:
    for first in (1, LONG + 1):
        store.commit([SaveEntries(puts(first, LONG))])
    tamper(tmp_path, "UPDATE runs SET entries = 'nonsense' WHERE first = 1")
    store.commit([dead(1, LONG - 1)])
    assert layout_without_content(tmp_path) == [(1, LONG), (LONG + 1, LONG)]
    store.commit([dead(LONG, 1)])
    assert layout_without_content(tmp_path) == [(LONG + 1, LONG)]


def layout_without_content(directory: Path) -> list[tuple[int, int]]:
    with closing(sqlite3.connect(directory / "retinue.db")) as db:
        return db.execute("SELECT first, kept FROM runs ORDER BY first").fetchall()


def test_a_run_that_is_mostly_dead_is_written_again_without_what_is_dead(store: Store, tmp_path: Path) -> None:
    store.commit([SaveEntries(puts(1, LONG))])
    store.commit([dead(1, MOSTLY - 1)])
    assert layout(tmp_path) == Layout([], [(1, LONG)])
    store.commit([dead(MOSTLY, 1)])
    assert layout(tmp_path) == Layout([], [(1, LONG - MOSTLY)])
    alive = puts(MOSTLY + 1, LONG - MOSTLY)
    assert store.load().entries == alive
    assert store.read_range(MOSTLY, LONG, 1000) == alive
    store.close()
    with closing(Store(tmp_path)) as again:
        assert again.load().entries == alive
        assert again.opened.rows_checked == LONG - MOSTLY
        again.commit([dead(MOSTLY + 1, LONG - MOSTLY)])
        assert layout(tmp_path) == Layout([], [])


def test_what_was_written_again_is_replaced_and_read_in_parts(store: Store, tmp_path: Path) -> None:
    store.commit([SaveEntries(puts(1, LONG))])
    store.commit([dead(1, MOSTLY)])
    alive = puts(MOSTLY + 1, LONG - MOSTLY)
    for after in range(LONG + 1):
        for upto in range(LONG + 1):
            assert store.read_rows(upto, after, LONG) == [entry for entry in alive if after < entry.version <= upto]
    store.commit([SaveEntries([put(2, "back", epoch=2)], removed=[LONG])])
    assert layout(tmp_path) == Layout([2, *range(MOSTLY + 1, LONG)], [])
    assert store.load().entries == [put(2, "back", epoch=2), *alive[:-1]]


def test_nothing_is_written_again_as_long_as_half_of_all_is_alive(store: Store, tmp_path: Path) -> None:
    for first in (1, LONG + 1):
        store.commit([SaveEntries(puts(first, LONG))])
    store.commit([dead(1, LONG - 1)])
    assert layout(tmp_path).runs == [(1, LONG), (LONG + 1, LONG)]
    store.commit([dead(LONG + 1, 1)])
    assert layout(tmp_path).runs == [(1, LONG), (LONG + 1, LONG)]
    store.commit([dead(LONG + 2, 1)])
    assert layout(tmp_path).runs == [(1, 1), (LONG + 1, LONG)]


def test_one_transaction_writes_again_what_its_dead_pay_for(store: Store, tmp_path: Path) -> None:
    runs = 30
    for run in range(runs):
        store.commit([SaveEntries(puts(1 + run * LONG, LONG))])
    for run in range(runs):
        store.commit([dead(1 + run * LONG, MOSTLY - 1)])
    assert {kept for _, kept in layout(tmp_path).runs} == {LONG}
    store.commit([Compact([(MOSTLY + run * LONG, 0) for run in range(runs)], [])])
    paid = -(-PLACES_PER_DEAD * runs // (LONG + PLACES_PER_RUN))
    assert [kept for _, kept in layout(tmp_path).runs].count(LONG - MOSTLY) == paid
    store.commit([dead(1 << 30, 1)])
    assert [kept for _, kept in layout(tmp_path).runs].count(LONG - MOSTLY) == paid + 1


# --- tombstones ---


def test_a_tombstone_stays_until_what_it_may_have_deleted_is_gone(store: Store, tmp_path: Path) -> None:
    first_tombstone = LONG + 1
    tombstones = deletes(first_tombstone, TOMBSTONES_MIN)
    for entries in (puts(1, LONG), tombstones):
        store.commit([SaveEntries(entries)])
    versions = [(entry.version, 0) for entry in tombstones]
    store.commit([Compact([(1, 0), (2, 0)], versions[:-1])])
    assert layout(tmp_path).runs[0] == (1, LONG)
    assert store.load().entries == [*puts(3, LONG - 2), *tombstones]
    store.commit([Compact([], versions[-1:])])
    assert layout(tmp_path).runs[0] == (1, LONG - 2)
    assert store.load().entries[: LONG - 2] == puts(3, LONG - 2)
    while layout(tmp_path).runs[1:]:
        store.commit([dead(1 << 30, 1)])
    assert store.load().entries == puts(3, LONG - 2)


def test_tombstones_in_rows_and_in_batches_wait_as_well(store: Store, tmp_path: Path) -> None:
    store.commit([SaveEntries(puts(1, LONG))])
    first, tombstones = LONG + 1, list[tuple[int, int]]()
    for version in range(first, first + TOMBSTONES_MIN, 2):
        gone = [Change(Kind.DELETE, f"a{version}"), Change(Kind.PUT, f"b{version}")]
        store.commit([SaveEntries([batch(version, *gone), Entry(version + 1, 1, Kind.DELETE, "c")])])
        tombstones += [(version, 0), (version + 1, 0)]
    store.commit([Compact([(1, 0)], tombstones[:-1])])
    assert layout(tmp_path) == Layout([*range(first, first + TOMBSTONES_MIN)], [(1, LONG)])
    store.commit([Compact([(2, 0)], tombstones[-1:])])
    while len(layout(tmp_path).rows) > TOMBSTONES_MIN // 2:
        store.commit([dead(1 << 30, 1)])
    assert layout(tmp_path) == Layout([*range(first, first + TOMBSTONES_MIN, 2)], [(1, LONG - 2)])
    nothing = Change(Kind.NOOP, "")
    assert store.load().entries[LONG - 2].changes() == (nothing, Change(Kind.PUT, f"b{first}"))


def test_install_forgets_what_was_dead(store: Store) -> None:
    first, last = LONG + 1, LONG + TOMBSTONES_MIN
    snapshot = [*puts(1, LONG), *deletes(first, TOMBSTONES_MIN)]
    store.commit([SaveEntries(snapshot)])
    store.commit([Compact([(1, 0)], [(version, 0) for version in range(first, last)])])
    store.commit([Install(last, snapshot)])
    assert store.load().entries == snapshot
    store.commit([Compact([], [(last, 0)])])
    assert store.load().entries == snapshot


# --- against a model ---


class Node:
    """A log and its store, as the core and the driver use them, and what the keys should be."""

    def __init__(self, directory: Path, draw: random.Random) -> None:
        self.directory, self.draw, self.lives = directory, draw, 0
        self.connections: list[Connection] = []
        self.values: dict[str, bytes] = {}
        self.store = self._open()
        self.log = Log(self.store.load())

    def _open(self) -> Store:
        return Store(self.path, synchronous="OFF", connect=self._connect)

    def _connect(self, path: str) -> Connection:
        self.connections.append(connect_sqlite(path))
        return self.connections[-1]

    @property
    def path(self) -> Path:
        return self.directory / str(self.lives)

    def state(self) -> SaveState:
        log = self.log
        return SaveState(HardState("me", trusted=log.trusted, floor=log.floor, chain=log.chain))

    def write(self, keys: int, deletions: float, ghosts: int = 0) -> list[Save]:
        """Some versions of random content, and some that will be replaced by the next; what is to be saved."""
        entries: list[Entry] = []
        draw, plain = self.draw, self.draw.random() < 0.8
        for version in range(self.log.trusted + 1, self.log.trusted + 1 + draw.choice([1, 3, 9, 16, 40])):
            if plain or draw.random() < 0.5:
                [change] = self._changes(1, keys, deletions)
                expires_ms = draw.choice([0, 0, 7])
                entry = Entry(version, 1, change.kind, change.key, change.value, expires_ms=expires_ms)
            elif draw.random() < 0.2:
                entry = Entry(version, 1, Kind.NOOP)
            else:
                entry = batch(version, *self._changes(draw.randrange(1, 6), keys, deletions))
            entries.append(entry)
            self.log.accept(entry)
            self.log.settle()
        return [SaveEntries([*entries, *puts(self.log.trusted + 1, ghosts)]), self.state()]

    def _changes(self, count: int, keys: int, deletions: float) -> list[Change]:
        changes = []
        for _ in range(count):
            key, value = f"key{self.draw.randrange(keys)}", b"%d" % self.draw.randrange(1 << 30)
            if self.draw.random() < deletions:
                self.values.pop(key, None)
                changes.append(Change(Kind.DELETE, key))
            else:
                self.values[key] = value
                changes.append(Change(Kind.PUT, key, value))
        return changes

    def compact(self, retention: int, limit: int) -> list[Save]:
        gone, tombstones = self.log.compact(self.log.trusted - retention, limit)
        return [Compact(gone, tombstones), self.state()]

    def restart(self, *, clean: bool) -> None:
        """The store as a dead process left it, or closed."""
        before, self.lives = self.path, self.lives + 1
        if clean:
            self.store.close()
        shutil.copytree(before, self.path)
        self.store.close()
        self.store = self._open()
        self.log = Log(self.store.load())

    def install(self, entries: list[Entry]) -> Install:
        """Replace everything trusted by the same, as if a snapshot had come."""
        log = self.log
        log.install(log.trusted, log.floor, log.chain, entries)
        return Install(log.trusted, entries)

    def fail(self, saves: list[Save]) -> None:
        """The same, on a full disk."""
        large = put(1 << 40, "large", bytes(1 << 20))
        self.connections[-1].execute("PRAGMA max_page_count=1").close()
        with pytest.raises(DiskFull):
            self.store.commit([*saves, SaveEntries([large])])
        self.connections[-1].execute("PRAGMA max_page_count=1000000").close()

    def found(self) -> dict[str, bytes]:
        return {key: row.value for key, row in self.log.rows.items()}


@pytest.fixture
def node(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Node]:
    opened = Node(tmp_path, random.Random(request.param))
    yield opened
    opened.store.close()


@pytest.mark.parametrize("node", range(8), indirect=True)
def test_after_every_restart_the_keys_are_what_they_were(node: Node) -> None:
    draw = node.draw
    keys, deletions = draw.choice([5, 40, 300]), draw.choice([0.1, 0.3, 0.5])
    for _ in range(25):
        for _ in range(draw.randrange(1, 20)):
            node.store.commit(node.write(keys, deletions))
            node.store.commit(node.compact(draw.choice([0, 10, 40]), draw.choice([1, 20, 200])))
        assert Log(node.store.load()).rows == node.log.rows
        before = node.log.rows
        node.restart(clean=draw.random() < 0.5)
        assert node.found() == node.values
        assert node.log.rows == before


@pytest.mark.parametrize("node", range(4), indirect=True)
def test_a_full_disk_in_the_middle_of_anything_changes_nothing(node: Node, tmp_path: Path) -> None:
    """A twin on a disk that is never full makes the same saves, and comes to the same database."""
    draw = node.draw
    with closing(Store(tmp_path / "twin", synchronous="OFF")) as twin:
        twin.load()
        for step in range(150):
            saves = node.write(60, 0.4, ghosts=step % 3 * 8) if step % 2 else node.compact(10, 300)
            if step % 12 == 2:
                saves = [*saves, node.install(twin.read_rows(node.log.trusted, 0, 10_000))]
            for _ in range(draw.randrange(3)):
                node.fail(saves)
            node.store.commit(saves)
            twin.commit(saves)
            assert layout(node.path) == layout(tmp_path / "twin")
            assert node.store.load().entries == twin.load().entries
        expected = twin.load().entries
        node.store.close()
    again = load(node.path)
    assert again.entries == load(tmp_path / "twin").entries
    assert {entry.version for entry in expected} <= {entry.version for entry in again.entries}
    assert {key: row.value for key, row in Log(again).rows.items()} == node.values


@pytest.mark.parametrize("deletions", [0.0, 0.2, 0.5])
@pytest.mark.parametrize("keys", [20, 500])
@pytest.mark.parametrize("node", [1], indirect=True)
def test_what_is_dead_and_still_there_is_bounded(node: Node, keys: int, deletions: float) -> None:
    retention, limit = 50, 100
    for _ in range(250):
        node.store.commit(node.write(keys, deletions))
        needed = len(node.log.rows) + retention + 40
        node.store.commit(node.compact(retention, limit))
        with closing(sqlite3.connect(node.path / "retinue.db")) as db:
            [(kept,)] = db.execute("SELECT (SELECT total(kept) FROM runs) + (SELECT count(*) FROM entries)")
            [(tombstones,)] = db.execute("SELECT count(*) FROM log WHERE kind = 'delete'")
        waiting = max(TOMBSTONES_MIN, needed // TOMBSTONES_SHARE)
        assert tombstones <= 3 * waiting + needed
        assert kept <= 4 * (needed + 3 * waiting) + RUN_ENTRIES_MAX
