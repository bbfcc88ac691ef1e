"""Runs: written, read in parts, dissolved, and shown to people."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from retinue.core.messages import Compact, Encoding, Entry, HardState, Install, Kind, SaveEntries, SaveState
from retinue.store import Store
from retinue.store_log import RUN_ENTRIES_MIN
from retinue.store_runs import RUN_ENTRIES_MAX, RUN_VALUES_BYTES, stretches
from tests.store_samples import Layout, batch, compactable, layout, parts, put, puts, write

LONG = RUN_ENTRIES_MIN


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with compactable(tmp_path) as opened:
        yield opened


# --- what becomes a run ---


def test_a_group_is_one_run_and_a_short_one_is_rows(store: Store, tmp_path: Path) -> None:
    store.commit([SaveEntries(puts(1, LONG))])
    store.commit([SaveEntries(puts(LONG + 1, LONG - 1))])
    assert layout(tmp_path) == Layout(rows=[*range(LONG + 1, 2 * LONG)], runs=[(1, LONG)])
    assert store.load().entries == puts(1, 2 * LONG - 1)


@pytest.mark.parametrize(
    "between",
    [
        [batch(LONG + 1, *parts(3))],
        [Entry(LONG + 1, 1, Kind.NOOP)],
        [Entry(LONG + 1, 1, Kind.CONFIG, "", b'{"write_quorum":3}')],
        [put(LONG + 1, "large", bytes(RUN_VALUES_BYTES + 1))],
    ],
)
def test_what_fits_in_no_run_splits_it(store: Store, tmp_path: Path, between: list[Entry]) -> None:
    entries = [*puts(1, LONG), *between, *puts(LONG + 2, LONG)]
    store.commit([SaveEntries(entries)])
    assert layout(tmp_path).runs == [(1, LONG), (LONG + 2, LONG)]
    assert store.load().entries == entries


def test_another_epoch_or_a_hole_splits_a_run(store: Store, tmp_path: Path) -> None:
    entries = [*puts(1, LONG), *puts(LONG + 1, LONG, epoch=2), *puts(2 * LONG + 2, LONG, epoch=2)]
    store.commit([SaveEntries(entries)])
    assert layout(tmp_path) == Layout([], [(1, LONG), (LONG + 1, LONG), (2 * LONG + 2, LONG)])
    assert store.load().entries == entries


def test_no_entries_are_no_stretch() -> None:
    assert list(stretches([])) == []


def test_a_run_is_bounded_in_entries_and_in_bytes(store: Store, tmp_path: Path) -> None:
    many = puts(1, RUN_ENTRIES_MAX + LONG)
    large = puts(len(many) + 1, 2 * LONG, bytes(RUN_VALUES_BYTES // LONG), epoch=2)
    store.commit([SaveEntries([*many, *large])])
    assert layout(tmp_path).runs == [
        (1, RUN_ENTRIES_MAX),
        (RUN_ENTRIES_MAX + 1, LONG),
        (len(many) + 1, LONG),
        (len(many) + 1 + LONG, LONG),
    ]
    assert store.load().entries == [*many, *large]


HARD_TO_WRITE = [
    put(1, "", b""),
    put(2, 'quotes " \\ and \n', b'{"base64":"eA=="}'),
    put(3, "not text", b"\xff\xfe"),
    put(4, "a NUL", b"a\0b"),
    put(5, "looks like one", b"\\u0000"),
    put(6, "lone surrogate", b"\xed\xa0\x80"),
    put(7, "gr\u00fc\u00df \U0001f600", "gr\u00fc\u00df \u2028\uffff".encode()),
    put(8, "all", bytes(range(256)), request_id="r-8"),
    Entry(9, 1, Kind.PUT, "json", b'{"a":[1]}', Encoding.JSON),
    Entry(10, 1, Kind.PUT, "expires", b"12", Encoding.RAW, "r", (1 << 63) - 1),
    Entry(11, 1, Kind.DELETE, "gone"),
    Entry(12, 1, Kind.DELETE, "gone", request_id="r-12"),
]


def test_every_value_comes_back_from_a_run(store: Store, tmp_path: Path) -> None:
    store.commit([SaveEntries(HARD_TO_WRITE)])
    assert layout(tmp_path).runs == [(1, 12)]
    assert store.load().entries == HARD_TO_WRITE


@pytest.mark.parametrize("odd", [put(3, "a\0b"), put(3, "a", request_id="\0"), put(3, "a\0b", b"\xff")])
def test_a_nul_that_no_run_can_show_makes_rows(store: Store, tmp_path: Path, odd: Entry) -> None:
    entries = [*puts(1, 2), odd, *puts(4, LONG)]
    store.commit([SaveEntries(entries)])
    assert layout(tmp_path).runs == []
    assert store.load().entries == entries


def test_very_large_numbers_come_back(store: Store) -> None:
    high = (1 << 53) - 1 - LONG
    entries = [put(high + index, "k", epoch=(1 << 63) - 1) for index in range(LONG)]
    store.commit([SaveEntries(entries)])
    assert store.load().entries == entries
    assert store.read_range(high + 1, high + 3, 1000) == entries[2:4]


def test_a_version_given_twice_keeps_the_later_entry_also_in_a_run(store: Store, tmp_path: Path) -> None:
    store.commit([SaveEntries([*puts(1, LONG), put(2, "later")])])
    assert layout(tmp_path).runs == [(1, LONG)]
    assert store.load().entries == [put(1, "key1"), put(2, "later"), *puts(3, LONG - 2)]


# --- replaced and deleted ---


def test_a_part_of_a_run_is_read(store: Store) -> None:
    entries = puts(1, 3 * LONG)
    for first in range(0, 3 * LONG, LONG):
        store.commit([SaveEntries(entries[first : first + LONG])])
    for after in range(3 * LONG + 1):
        for upto in range(3 * LONG + 1):
            assert store.read_range(after, upto, 1 << 20) == entries[after:upto]
            assert store.read_rows(upto, after, 3) == entries[after:upto][:3]


def test_replacing_and_removing_dissolve_only_the_runs_they_touch(store: Store, tmp_path: Path) -> None:
    store.commit([SaveEntries(puts(1, LONG))])
    store.commit([SaveEntries(puts(LONG + 1, LONG))])
    store.commit([SaveEntries(puts(2 * LONG + 1, LONG))])
    changed = put(LONG + 2, "changed", epoch=2)
    store.commit([SaveEntries([changed], removed=[LONG + 4])])
    assert layout(tmp_path).runs == [(1, LONG), (2 * LONG + 1, LONG)]
    expected = {entry.version: entry for entry in [*puts(1, 3 * LONG), changed] if entry.version != LONG + 4}
    assert store.load().entries == list(expected.values())


def test_a_replaced_stretch_is_a_run_again(store: Store, tmp_path: Path) -> None:
    store.commit([SaveEntries(puts(1, 2 * LONG))])
    store.commit([SaveEntries(puts(3, LONG, epoch=2))])
    assert layout(tmp_path) == Layout([1, 2, *range(LONG + 3, 2 * LONG + 1)], [(3, LONG)])
    entries = [*puts(1, 2), *puts(3, LONG, epoch=2), *puts(LONG + 3, LONG - 2)]
    assert store.load().entries == entries


def test_a_replaced_version_is_not_dead_any_more(store: Store, tmp_path: Path) -> None:
    store.commit([SaveEntries(puts(1, 2 * LONG))])
    store.commit([Compact([(1, 0), (2, 0)], [])])
    store.commit([SaveEntries([put(2, "back", epoch=2)])])
    assert layout(tmp_path) == Layout([*range(2, 2 * LONG + 1)], [])
    assert store.load().entries == [put(2, "back", epoch=2), *puts(3, 2 * LONG - 2)]


def test_install_cuts_through_a_run(store: Store, tmp_path: Path) -> None:
    for first in (1, LONG + 1, 2 * LONG + 1):
        store.commit([SaveEntries(puts(first, LONG))])
    store.commit([Compact([(1, 0), (LONG + 1, 0), (LONG + 4, 0)], [])])
    snapshot = [put(LONG + 1, "x", epoch=3), put(LONG + 3, "y", epoch=3)]
    store.commit([Install(LONG + 3, snapshot)])
    assert layout(tmp_path).runs == [(2 * LONG + 1, LONG)]
    assert store.load().entries == [*snapshot, *puts(LONG + 5, 2 * LONG - 4)]


def test_an_installed_snapshot_is_runs_where_it_can_be(store: Store, tmp_path: Path) -> None:
    store.commit([SaveEntries(puts(1, LONG))])
    snapshot = [put(2, "x"), *puts(5, LONG)]
    store.commit([Install(LONG + 4, snapshot)])
    assert layout(tmp_path) == Layout([2], [(5, LONG)])
    assert store.load().entries == snapshot


# --- for people ---


def test_the_views_show_runs_and_rows_together(tmp_path: Path) -> None:
    entries = [
        put(1, "a", b"old"),
        put(2, "b", b"in a run"),
        put(3, "gone", b"x"),
        put(4, "bytes", b"\xff"),
        Entry(5, 2, Kind.PUT, "before", b"1", Encoding.JSON, "r", 1),
        *puts(6, 32),
        Entry(38, 2, Kind.DELETE, "gone"),
        put(39, "a", b"a row", epoch=2),
    ]
    entries = [Entry(e.version, 2, e.kind, e.key, e.value, e.encoding, e.request_id, e.expires_ms) for e in entries]
    with closing(Store(tmp_path)) as store:
        store.load()
        store.commit([SaveEntries(entries[:-1]), SaveState(HardState("me", floor=1 << 40))])
        store.commit([SaveEntries(entries[-1:])])
        store.commit([Compact([(1, 0), *((version, 0) for version in range(6, 35))], [])])
    assert layout(tmp_path) == Layout([39], [(1, 8)])
    with closing(sqlite3.connect(tmp_path / "retinue.db")) as db:
        columns = "version, part, parts, epoch, kind, key, value, encoding, expires_ms, request_id"
        shown = db.execute(f"SELECT {columns} FROM log WHERE version NOT BETWEEN 35 AND 37").fetchall()
        assert shown == [
            (2, 0, 0, 2, "put", "b", "in a run", "raw", 0, ""),
            (3, 0, 0, 2, "put", "gone", "x", "raw", 0, ""),
            (4, 0, 0, 2, "put", "bytes", '{"base64":"/w=="}', "raw", 0, ""),
            (5, 0, 0, 2, "put", "before", "1", "json", 1, "r"),
            (38, 0, 0, 2, "delete", "gone", "", "raw", 0, ""),
            (39, 0, 0, 2, "put", "a", "a row", "raw", 0, ""),
        ]
        assert db.execute("SELECT key, value FROM kvstore WHERE key NOT LIKE 'key%'").fetchall() == [
            ("a", "a row"),
            ("b", "in a run"),
            ("bytes", '{"base64":"/w=="}'),
        ]
        assert db.execute("SELECT count(*) FROM kvstore").fetchone() == (3 + 3,)


@pytest.mark.skipif(shutil.which("sqlite3") is None, reason="the sqlite3 shell is not installed")
def test_the_shell_reads_a_run(tmp_path: Path) -> None:
    write(tmp_path, SaveEntries(HARD_TO_WRITE))
    command = ["sqlite3", str(tmp_path / "retinue.db"), "SELECT entries FROM runs; SELECT value FROM kvstore"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    assert '[1,"not text",{"base64":"//4="}]' in shown
    assert "gr\u00fc\u00df" in shown.splitlines()[-1] or '{"a":[1]}' in shown
