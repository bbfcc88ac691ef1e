"""The file of the store: locked, recognised, set up and read back, bounded, readable for people."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest

from retinue.core.messages import (
    Change,
    Encoding,
    Entry,
    HardState,
    Image,
    Kind,
    SaveEntries,
    SaveEpoch,
    SaveState,
)
from retinue.errors import DataDirError, DiskFull
from retinue.store import Store
from retinue.store_files import Connection, connect_sqlite
from tests.store_samples import batch, load, numbers, parts, put, puts, tamper, write


def test_a_file_keeps_everything_over_a_restart(tmp_path: Path) -> None:
    entries = [*numbers(50), batch(51, *parts(5))]
    write(tmp_path, SaveEntries(entries), SaveEpoch(3, 1), SaveState(HardState("me", name="leader", trusted=51)))
    with closing(Store(tmp_path, member="leader")) as store:
        assert store.load() == Image(HardState("me", name="leader", trusted=51), {3: 1}, entries)
        assert (store.opened.fresh, store.opened.clean, store.opened.rows_checked) == (False, True, 55)
        assert "closed cleanly" in store.opened.sentence
        assert store.sync_cost_ms() > 0
    assert {file.name for file in tmp_path.iterdir()} == {"retinue.db", "lock"}


def test_after_an_unclean_stop_it_says_what_it_checked(tmp_path: Path) -> None:
    killed, copy = tmp_path / "killed", tmp_path / "copy"
    with closing(Store(killed)) as store:
        store.load()
        store.commit([SaveEntries(numbers(12))])
        shutil.copytree(killed, copy)
    with closing(Store(copy)) as store:
        assert store.load().entries == numbers(12)
        assert (store.opened.fresh, store.opened.clean) == (False, False)
        assert "not closed cleanly" in store.opened.sentence
        assert "all 12 rows" in store.opened.sentence
    assert load(copy).entries == numbers(12)


def test_a_store_that_was_not_read_is_not_marked_clean(tmp_path: Path) -> None:
    write(tmp_path, SaveEntries(numbers(1)))
    Store(tmp_path).close()
    with closing(Store(tmp_path)) as store:
        store.load()
        assert not store.opened.clean


@pytest.mark.parametrize(("mode", "level"), [("FULL", 2), ("NORMAL", 1), ("OFF", 0)])
def test_synchronous_is_set_by_name(tmp_path: Path, mode: str, level: int) -> None:
    connections: list[Connection] = []

    def connect(path: str) -> Connection:
        connections.append(connect_sqlite(path))
        return connections[0]

    with closing(Store(tmp_path, synchronous=mode, connect=connect)) as store:
        assert connections[0].execute("PRAGMA synchronous").fetchone() == (level,)
        assert connections[0].execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert (store.sync_cost_ms() > 0) == (mode == "FULL")


def test_an_unknown_synchronous_mode_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="OFF, NORMAL, FULL"):
        Store(tmp_path, synchronous="MAYBE")


class Deaf:
    """A connection that ignores a setting, as a SQLite built in an unusual way may."""

    def __init__(self, path: str, ignored: str) -> None:
        self._db = sqlite3.connect(path, isolation_level=None)
        self._ignored = ignored

    @property
    def in_transaction(self) -> bool:
        return self._db.in_transaction

    def execute(self, sql: str, parameters: Sequence[object] = (), /) -> sqlite3.Cursor:
        return self._db.execute(sql.partition("=")[0] if sql.startswith(self._ignored) else sql, tuple(parameters))

    def executemany(self, sql: str, parameters: object, /) -> sqlite3.Cursor:
        raise AssertionError("never reached")

    def cursor(self) -> sqlite3.Cursor:
        return self._db.cursor()

    def close(self) -> None:
        self._db.close()


@pytest.mark.parametrize(
    ("ignored", "sentence"),
    [("PRAGMA synchronous", "did not take synchronous=NORMAL"), ("PRAGMA journal_mode", "write-ahead log")],
)
def test_a_setting_that_does_not_take_is_an_error(tmp_path: Path, ignored: str, sentence: str) -> None:
    with pytest.raises(DataDirError, match=sentence):
        Store(tmp_path, synchronous="NORMAL", connect=lambda path: Deaf(path, ignored))


def test_a_second_process_is_refused(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path\n"
        "from retinue.store import Store; from retinue.errors import DataDirError\n"
        "try: Store(Path(sys.argv[1])).close()\n"
        "except DataDirError as error: print(error.detail)\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with closing(Store(tmp_path)):
        refused = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60)
        assert f"in use by process {os.getpid()}" in refused.stdout
    taken = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60)
    assert taken.stdout == ""


def test_a_second_store_in_this_process_is_refused(tmp_path: Path) -> None:
    with closing(Store(tmp_path)), pytest.raises(DataDirError, match="choose another directory"):
        Store(tmp_path)


def test_a_failed_opening_lets_go_of_the_directory(tmp_path: Path) -> None:
    write(tmp_path, SaveState(HardState("me", name="follower1")))
    with pytest.raises(DataDirError, match="belongs to the member follower1, and this node is leader"):
        Store(tmp_path, member="leader")
    assert load(tmp_path, member="follower1").hard.node_id == "me"


def test_a_database_of_another_application_is_left_as_it_is(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "retinue.db")) as db:
        db.execute("CREATE TABLE entries (recipe TEXT)")
    before = (tmp_path / "retinue.db").read_bytes()
    with pytest.raises(DataDirError, match="another application"):
        Store(tmp_path)
    assert (tmp_path / "retinue.db").read_bytes() == before


def test_a_file_that_is_no_database_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "retinue.db").write_text("my holiday diary, which is long enough to be looked at\n" * 100)
    with pytest.raises(DataDirError, match="is not a database"):
        Store(tmp_path)
    assert (tmp_path / "retinue.db").read_text().startswith("my holiday diary")


@pytest.mark.parametrize("other", [1, 2, 4])
def test_another_format_is_refused(tmp_path: Path, other: int) -> None:
    load(tmp_path)
    tamper(tmp_path, f"UPDATE meta SET value = '{other}' WHERE name = 'format'")
    with pytest.raises(DataDirError, match=f"has format {other} and this release reads format 3: start the release"):
        Store(tmp_path)


def test_a_shell_that_keeps_the_database_locked_is_told(tmp_path: Path) -> None:
    def impatient(path: str) -> Connection:
        return sqlite3.connect(path, isolation_level=None, timeout=0)

    with (
        closing(Store(tmp_path, connect=impatient)) as store,
        closing(impatient(str(tmp_path / "retinue.db"))) as shell,
    ):
        store.load()
        shell.execute("BEGIN IMMEDIATE")
        with pytest.raises(DataDirError, match="Another program has kept"):
            store.commit([SaveEntries(numbers(1))])
        shell.execute("ROLLBACK")
        store.commit([SaveEntries(numbers(2))])
        assert store.load().entries == numbers(2)


def test_a_file_without_the_right_to_write_is_told(tmp_path: Path) -> None:
    def read_only(path: str) -> Connection:
        return sqlite3.connect(f"file:{path}?mode=ro", uri=True, isolation_level=None)

    load(tmp_path)
    with pytest.raises(DataDirError, match="check its owner and permissions"):
        Store(tmp_path, connect=read_only)


@pytest.mark.parametrize("obstacle", ["data", "data/lock/x", "data/retinue.db/x", "data/sync-probe/x"])
def test_a_path_that_cannot_be_a_data_directory_is_told(tmp_path: Path, obstacle: str) -> None:
    (tmp_path / obstacle).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / obstacle).write_text("in the way")
    with pytest.raises(DataDirError, match="cannot be"):
        Store(tmp_path / "data")


def test_a_full_disk_undoes_the_commit_which_can_be_tried_again(tmp_path: Path) -> None:
    connections: list[Connection] = []

    def connect(path: str) -> Connection:
        connections.append(connect_sqlite(path))
        connections[-1].execute("PRAGMA max_page_count=30")
        return connections[-1]

    large = [put(version, f"key{version}", bytes(4000)) for version in range(11, 60)]
    with closing(Store(tmp_path, connect=connect)) as store:
        store.load()
        store.commit([SaveEntries(numbers(10))])
        for _ in range(2):
            with pytest.raises(DiskFull, match="no space left"):
                store.commit(
                    [SaveEntries([put(3, "lost")]), SaveEntries(large), SaveState(HardState("lost", trusted=59))]
                )
        assert store.read_rows(100, 0, 100) == numbers(10)
        store.commit([SaveEntries([put(11, "small")])])
        connections[0].execute("PRAGMA max_page_count=3000")
        store.commit([SaveEntries(large)])
    assert load(tmp_path).entries == [*numbers(10), *large]


def test_a_disk_that_is_full_at_start_is_told(tmp_path: Path) -> None:
    (tmp_path / "sync-probe").symlink_to("/dev/full")
    with pytest.raises(DiskFull, match="free some, and start the node again"):
        Store(tmp_path)
    load(tmp_path)


@pytest.mark.parametrize("group", [1, 10])
def test_the_write_ahead_log_stays_short(tmp_path: Path, group: int) -> None:
    with closing(Store(tmp_path, synchronous="OFF")) as store:
        store.load()
        for first in range(1, 1501, group):
            store.commit([SaveEntries(puts(first, group, bytes([1]) * 10_000))])
        assert (tmp_path / "retinue.db-wal").stat().st_size < 8 << 20
        assert (tmp_path / "retinue.db").stat().st_size > 10 << 20


# --- for people ---

SHOWN = [
    batch(1, Change(Kind.PUT, "a", b"old"), Change(Kind.PUT, "b", b"two"), Change(Kind.PUT, "b", b"three")),
    put(2, "a", "gr\u00fc\u00df".encode(), request_id="r"),
    Entry(3, 1, Kind.PUT, "gone", b"x"),
    Entry(4, 1, Kind.DELETE, "gone"),
    Entry(5, 1, Kind.PUT, "n", b"42", Encoding.JSON),
    Entry(6, 1, Kind.NOOP),
]


def test_the_view_kvstore_shows_the_newest_values(tmp_path: Path) -> None:
    write(tmp_path, SaveEntries(SHOWN))
    with closing(sqlite3.connect(tmp_path / "retinue.db")) as db:
        assert db.execute("SELECT key, value FROM kvstore").fetchall() == [
            ("a", "gr\u00fc\u00df"),
            ("b", "three"),
            ("n", "42"),
        ]
        assert db.execute("SELECT value FROM kvstore WHERE key = 'gone'").fetchall() == []


def test_the_view_log_names_what_happened(tmp_path: Path) -> None:
    write(tmp_path, SaveEntries(SHOWN))
    with closing(sqlite3.connect(tmp_path / "retinue.db")) as db:
        shown = db.execute("SELECT version, part, parts, kind, key, encoding, request_id FROM log").fetchall()
    assert shown == [
        (1, 0, 3, "put", "a", "raw", ""),
        (1, 1, 3, "put", "b", "raw", ""),
        (1, 2, 3, "put", "b", "raw", ""),
        (2, 0, 0, "put", "a", "raw", "r"),
        (3, 0, 0, "put", "gone", "raw", ""),
        (4, 0, 0, "delete", "gone", "raw", ""),
        (5, 0, 0, "put", "n", "json", ""),
        (6, 0, 0, "noop", "", "raw", ""),
    ]


@pytest.mark.skipif(shutil.which("sqlite3") is None, reason="the sqlite3 shell is not installed")
def test_the_shell_reads_a_store_that_is_open(tmp_path: Path) -> None:
    with closing(Store(tmp_path)) as store:
        store.load()
        store.commit([SaveEntries(SHOWN), SaveState(HardState("me", promised=7))])
        command = ["sqlite3", str(tmp_path / "retinue.db")]
        ask = "SELECT * FROM kvstore; SELECT value FROM meta WHERE name = 'state';"
        shown = subprocess.run([*command, ask], capture_output=True, text=True, check=True, timeout=60).stdout
        assert shown.startswith("a|gr\u00fc\u00df\nb|three\nn|42\n")
        assert '"promised":7' in shown
