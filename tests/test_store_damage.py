"""A store that was spoiled: nothing wrong goes unnoticed, and nothing damaged is taken for absent."""

from __future__ import annotations

import random
import shutil
import sqlite3
import struct
import zlib
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from retinue.core.messages import Compact, Entry, HardState, Kind, SaveEntries, SaveEpoch, SaveState
from retinue.errors import DataDirError
from retinue.store import Store
from retinue.store_rows import DamagedRow, entries_of, rows_of, text_checksum
from tests.store_samples import Layout, batch, layout, load, numbers, parts, put, puts, tamper, write

DAMAGED = [
    put(1, "alpha", b"first"),
    batch(2, *parts(3), request_id="r-2"),
    put(3, "\u00e4", b"\xff\0"),
    put(4, "d", b""),
]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("good")
    hard = HardState("me", name="leader", promised=3, trusted=2)
    write(directory, SaveEntries(DAMAGED), SaveEpoch(1, 1), SaveEpoch(3, 3), SaveState(hard))
    return directory


@pytest.fixture
def copy(good: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(good, tmp_path / "copy"))


@pytest.mark.parametrize("slot", [1024, 2049, 3072, 4096])
@pytest.mark.parametrize("column", ["slot", "epoch", "kind", "encoding", "parts", "checksum"])
@pytest.mark.parametrize("bit", [0, 5, 31])
def test_a_flipped_bit_in_a_number_is_noticed(copy: Path, slot: int, column: str, bit: int) -> None:
    flipped = f"({column} | ?1) - ({column} & ?1)"
    tamper(copy, "DELETE FROM meta WHERE name = 'clean'")
    tamper(copy, f"UPDATE OR REPLACE entries SET {column} = {flipped} WHERE slot = ?2", 1 << bit, slot)
    with pytest.raises(DataDirError, match=r"retinue\.db is damaged \(version \d+: .* move the data directory away"):
        load(copy)


@pytest.mark.parametrize(
    ("slot", "column"), [(1024, "key"), (3072, "key"), (1024, "value"), (3072, "value"), (2050, "request_id")]
)
@pytest.mark.parametrize("bit", range(8))
def test_a_flipped_bit_in_a_text_is_noticed(copy: Path, slot: int, column: str, bit: int) -> None:
    with closing(sqlite3.connect(copy / "retinue.db")) as db:
        before, kind = db.execute(
            f"SELECT CAST({column} AS BLOB), typeof({column}) FROM entries WHERE slot = ?", (slot,)
        ).fetchone()
    flipped = bytes([before[0] ^ 1 << bit]) + before[1:]
    tamper(copy, f"UPDATE entries SET {column} = CAST(? AS {kind}) WHERE slot = ?", flipped, slot)
    with pytest.raises(DataDirError, match=f"version {slot >> 10}: its checksum is wrong"):
        load(copy)


@pytest.mark.parametrize("value", ["text", b"blob", 1.5])
@pytest.mark.parametrize("column", ["epoch", "parts", "checksum"])
def test_a_number_that_became_something_else_is_noticed(copy: Path, column: str, value: object) -> None:
    tamper(copy, f"UPDATE entries SET {column} = ? WHERE slot = 1024", value)
    with pytest.raises(DataDirError, match="version 1: its checksum is wrong"):
        load(copy)


@pytest.mark.parametrize(
    ("sql", "sentence"),
    [
        ("DELETE FROM entries WHERE slot = 1024", "version 1: it is missing"),
        ("DELETE FROM entries WHERE slot BETWEEN 2048 AND 3071", "version 2: it is missing"),
        ("DELETE FROM entries WHERE slot = 2049", "version 2: 1 of the 3 parts of its batch are missing"),
        ("DELETE FROM entries WHERE slot >= 2048", "version 2: it is missing"),
        ("UPDATE epochs SET start = 4 WHERE epoch = 3", "epoch 3 has a wrong checksum"),
        ("UPDATE meta SET value = replace(value, 'leader', 'leaver') WHERE name = 'state'", "state in the table meta"),
        ("DELETE FROM meta WHERE name = 'state'", "the state of the node cannot be read"),
        ("DROP TABLE epochs", "no such table: .*epochs"),
    ],
)
def test_what_is_missing_or_changed_is_noticed(copy: Path, sql: str, sentence: str) -> None:
    tamper(copy, "DELETE FROM meta WHERE name = 'clean'")
    tamper(copy, sql)
    with pytest.raises(DataDirError, match=sentence):
        load(copy)


@pytest.mark.parametrize("sql", ["DELETE FROM entries WHERE slot = 4096", "DELETE FROM epochs WHERE epoch = 1"])
def test_what_went_missing_since_a_clean_stop_is_noticed(copy: Path, sql: str) -> None:
    tamper(copy, sql)
    with pytest.raises(DataDirError, match=r"and was closed with 6 rows, 2 epochs"):
        load(copy)


def test_a_page_that_hides_a_row_is_noticed_after_an_unclean_stop(copy: Path) -> None:
    tamper(copy, "DELETE FROM meta WHERE name = 'clean'")
    with closing(sqlite3.connect(copy / "retinue.db")) as db:
        [(page,)] = db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'entries'")
        [(page_bytes,)] = db.execute("PRAGMA page_size")
    content = bytearray((copy / "retinue.db").read_bytes())
    count_of_rows = slice((page - 1) * page_bytes + 3, (page - 1) * page_bytes + 5)
    assert content[count_of_rows] == b"\0\6"
    content[count_of_rows] = b"\0\5"
    (copy / "retinue.db").write_bytes(content)
    with pytest.raises(DataDirError, match=r"retinue\.db is damaged \(.*page"):
        load(copy)


def test_parts_of_two_batches_are_not_joined(copy: Path, tmp_path: Path) -> None:
    write(tmp_path / "other", SaveEntries([batch(2, *parts(3), epoch=2)]))
    with closing(sqlite3.connect(tmp_path / "other" / "retinue.db")) as db:
        row = db.execute("SELECT * FROM entries WHERE slot = 2049").fetchone()
    tamper(copy, "REPLACE INTO entries VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", *row)
    with pytest.raises(DataDirError, match="version 2: the parts of its batch do not belong together"):
        load(copy)


def test_damage_is_noticed_while_running(copy: Path) -> None:
    with closing(Store(copy)) as store:
        store.load()
        tamper(copy, "UPDATE entries SET value = 'other' WHERE slot = 1024")
        with pytest.raises(DataDirError, match="version 1: its checksum is wrong"):
            store.read_range(0, 4, 1000)
        with pytest.raises(DataDirError, match="version 1: its checksum is wrong"):
            store.read_rows(4, 0, 10)
        tamper(copy, "DELETE FROM entries WHERE slot = 1024")
        with pytest.raises(DataDirError, match="version 1: it is missing"):
            store.read_range(0, 4, 1000)


@pytest.mark.parametrize("content", ["good", "good_run"])
@pytest.mark.parametrize("clean", [True, False])
def test_a_flipped_bit_anywhere_in_the_file_changes_nothing_or_is_an_error(
    request: pytest.FixtureRequest, tmp_path: Path, content: str, clean: bool
) -> None:
    source = tmp_path / "source"
    shutil.copytree(request.getfixturevalue(content), source)
    expected = load(source)
    if not clean:
        tamper(source, "DELETE FROM meta WHERE name = 'clean'")
    healthy = (source / "retinue.db").read_bytes()
    draw = random.Random(1)
    noticed = 0
    for position in [*range(100), *draw.sample(range(100, len(healthy)), 300)]:
        flipped = bytearray(healthy)
        flipped[position] ^= 1 << draw.randrange(8)
        directory = tmp_path / "flipped"
        directory.mkdir()
        (directory / "retinue.db").write_bytes(flipped)
        try:
            assert load(directory, synchronous="OFF") == expected
        except DataDirError:
            noticed += 1
        shutil.rmtree(directory)
    assert noticed > 20


def test_a_schema_that_is_no_text_is_told(copy: Path) -> None:
    content = (copy / "retinue.db").read_bytes()
    assert b"CREATE VIEW kvstore" in content
    (copy / "retinue.db").write_bytes(content.replace(b"CREATE VIEW kvstore", b"CREATE VIE\xcc kvstore"))
    with pytest.raises(DataDirError, match=r"is damaged \(a name in it is not UTF-8 text\)"):
        load(copy)


# --- runs ---

RUN = [*numbers(10), Entry(11, 1, Kind.DELETE, "key1"), put(12, "bytes", b"\xff")]
HARD = HardState("me", name="leader", trusted=12, floor=12)


@pytest.fixture(scope="module")
def good_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("run")
    write(directory, SaveEntries(RUN), SaveEntries(puts(13, 8)), SaveState(HARD))
    write(directory, Compact([(version, 0) for version in range(1, 14) if version not in (5, 12)], []))
    assert layout(directory) == Layout([], [(1, 2), (13, 8)])
    return directory


@pytest.fixture
def run(good_run: Path, tmp_path: Path) -> Path:
    copied = Path(shutil.copytree(good_run, tmp_path / "run"))
    tamper(copied, "DELETE FROM meta WHERE name = 'clean'")
    return copied


@pytest.mark.parametrize("first", [1, 13])
@pytest.mark.parametrize("column", ["first", "count", "kept", "epoch", "checksum"])
@pytest.mark.parametrize("bit", [0, 2, 5, 31, 62])
def test_a_flipped_bit_in_a_number_of_a_run_is_noticed(run: Path, first: int, column: str, bit: int) -> None:
    flipped = f"({column} | ?1) - ({column} & ?1)"
    tamper(run, f"UPDATE OR REPLACE runs SET {column} = {flipped} WHERE first = ?2", 1 << bit, first)
    with pytest.raises(DataDirError, match=r"retinue\.db is damaged \(version \d+: .* move the data directory away"):
        load(run)


def test_a_flipped_bit_in_the_text_of_a_run_is_noticed(run: Path) -> None:
    with closing(sqlite3.connect(run / "retinue.db")) as db:
        [(before,)] = db.execute("SELECT CAST(entries AS BLOB) FROM runs WHERE first = 1")
    for position in range(0, len(before), 3):
        flipped = bytearray(before)
        flipped[position] ^= 1 << position % 8
        tamper(run, "UPDATE runs SET entries = CAST(? AS TEXT) WHERE first = 1", bytes(flipped))
        with pytest.raises(DataDirError, match="version 1: the checksum of the run that begins with it is wrong"):
            load(run)


@pytest.mark.parametrize("value", ["text", b"blob", 1.5, "[[1,2]]"])
@pytest.mark.parametrize("column", ["count", "kept", "epoch", "entries", "checksum"])
def test_a_column_of_a_run_that_became_something_else_is_noticed(run: Path, column: str, value: object) -> None:
    tamper(run, f"UPDATE runs SET {column} = ? WHERE first = 13", value)
    with pytest.raises(DataDirError, match="version 13: the checksum of the run that begins with it is wrong"):
        load(run)


@pytest.mark.parametrize(
    "text", [b'[[1,"a","b"]]', b"[[1]]", b"[", b'[[1,"a",7]]', b"[0,0,0,0,0,0,0,0]", b"[1,1,1,1,1,1,1,1]"]
)
def test_a_run_that_says_something_else_under_a_right_checksum_is_noticed(run: Path, text: bytes) -> None:
    checksum = zlib.crc32(text, zlib.crc32(struct.pack("<qqqq", 13, 8, 8, 1)))
    tamper(run, "UPDATE runs SET entries = CAST(? AS TEXT), checksum = ? WHERE first = 13", text, checksum)
    with pytest.raises(DataDirError, match="version 13: the checksum of the run that begins with it is wrong"):
        load(run)


@pytest.mark.parametrize(
    ("sql", "sentence"),
    [
        ("DELETE FROM runs WHERE first = 13", "version 13: it is missing"),
        ("DROP TABLE runs", "no such table: .*runs"),
    ],
)
def test_what_is_missing_or_changed_around_runs_is_noticed(run: Path, sql: str, sentence: str) -> None:
    tamper(run, "UPDATE meta SET value = ?, checksum = ? WHERE name = 'state'", *state(trusted=20, floor=12))
    tamper(run, sql)
    with pytest.raises(DataDirError, match=sentence):
        load(run)


def state(*, trusted: int, floor: int) -> tuple[str, int]:
    text = msgspec.json.encode(HardState("me", name="leader", trusted=trusted, floor=floor)).decode()
    return text, text_checksum("state", text)


def test_runs_that_overlap_are_noticed(run: Path, tmp_path: Path) -> None:
    write(tmp_path / "other", SaveEntries(puts(5, 9)))
    with closing(sqlite3.connect(tmp_path / "other" / "retinue.db")) as db:
        row = db.execute("SELECT * FROM runs").fetchone()
    tamper(run, "INSERT INTO runs VALUES (?, ?, ?, ?, ?, ?)", *row)
    with pytest.raises(DataDirError, match="version 5: it is in two runs"):
        load(run)


@pytest.mark.parametrize("version", [1, 5, 12])
def test_a_version_in_both_tables_is_noticed(run: Path, version: int) -> None:
    [row] = rows_of([put(version, "twice")])
    tamper(run, "INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", *row)
    with pytest.raises(DataDirError, match=f"version {version}: it is in a run and in the table entries"):
        load(run)


def test_a_run_that_went_missing_since_a_clean_stop_is_noticed(good_run: Path, tmp_path: Path) -> None:
    copied = Path(shutil.copytree(good_run, tmp_path / "copied"))
    tamper(copied, "DELETE FROM runs WHERE first = 13")
    with pytest.raises(DataDirError, match=r"and was closed with 0 rows, 0 epochs, 2 runs"):
        load(copied)


def test_damage_of_a_run_is_noticed_while_running(run: Path) -> None:
    with closing(Store(run)) as store:
        store.load()
        tamper(run, "UPDATE runs SET entries = replace(entries, 'key15', 'key16') WHERE first = 13")
        wrong = "version 13: the checksum of the run that begins with it is wrong"
        with pytest.raises(DataDirError, match=wrong):
            store.read_range(15, 17, 1000)
        with pytest.raises(DataDirError, match=wrong):
            store.read_rows(17, 15, 10)
        for saves in ([SaveEntries([put(15, "new")])], [Compact([(version, 0) for version in range(13, 20)], [])]):
            with pytest.raises(DataDirError, match=wrong):
                store.commit(saves)
        assert layout(run) == Layout([], [(1, 2), (13, 8)])


def test_rows_out_of_order_are_noticed() -> None:
    def raw(entry: Entry) -> tuple[object, ...]:
        [(slot, epoch, kind, key, value, *rest)] = rows_of([entry])
        encoding, expires_ms, request_id, *last = rest
        assert isinstance(value, str)
        assert isinstance(request_id, str)
        return (slot, epoch, kind, key.encode(), value.encode(), encoding, expires_ms, request_id.encode(), *last)

    first, second = raw(put(1, "a")), raw(put(2, "b"))
    assert list(entries_of([first, second], 0)) == [put(1, "a"), put(2, "b")]
    with pytest.raises(DamagedRow, match="out of order"):
        list(entries_of([second, first], 0))
