"""The store on a disk that loses power: every commit that returned is there, and none is there in half.

The disk is a SQLite VFS (through apsw) in memory. What was not synced when the power went is kept, dropped or torn,
write by write, as the seed says. The store under test is our own; only its connection is another.
"""

from __future__ import annotations

import random
import sqlite3
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

import apsw
import pytest

from retinue.core.messages import (
    Change,
    Compact,
    Entry,
    HardState,
    Image,
    Kind,
    SaveEntries,
    SaveEpoch,
    SaveState,
    encode_changes,
)
from retinue.errors import DiskFull, SyncFailed
from retinue.store import Store
from retinue.store_files import Connection

SECTOR_BYTES = 512
NEVER = 1 << 60


class PowerCut(apsw.IOError):
    """The disk does not answer any more."""


class DiskFile:
    """One file: what is synced for good, what a reader sees, and the changes between the two."""

    def __init__(self) -> None:
        self.synced = b""
        self.seen = bytearray()
        self.room_bytes = NEVER
        self.unsynced: list[tuple[int, bytes | None]] = []  # (offset, data), or (size, None) for a truncation

    def change(self, offset: int, data: bytes | None) -> None:
        self.unsynced.append((offset, data))
        _change(self.seen, offset, data)

    def lose_power(self, draw: random.Random) -> None:
        content = bytearray(self.synced)
        keep_chance = draw.choice([0.0, 0.5, 1.0])
        for offset, data in self.unsynced:
            fate = "kept" if draw.random() < keep_chance else draw.choice(["dropped", "torn"])
            if fate == "kept" or (fate == "torn" and data is None):
                _change(content, offset, data)
            elif fate == "torn" and data is not None:
                for start in range(0, len(data), SECTOR_BYTES):
                    if draw.random() < 0.5:
                        _change(content, offset + start, data[start : start + SECTOR_BYTES])
        self.seen, self.synced, self.unsynced = content, bytes(content), []


def _change(content: bytearray, offset: int, data: bytes | None) -> None:
    if data is None:
        del content[offset:]
        return
    content.extend(bytes(max(0, offset - len(content))))
    content[offset : offset + len(data)] = data


class Disk(apsw.VFS):
    """Files by name. After `strength` more writes and syncs the power is gone, until `reboot`."""

    def __init__(self) -> None:
        self.name = f"disk-{uuid.uuid4().hex}"
        self.files: dict[str, DiskFile] = {}
        self.strength = NEVER
        self.touched = 0
        super().__init__(self.name, "")

    def touch(self) -> None:
        self.touched += 1
        self.strength -= 1
        if self.strength < 0:
            raise PowerCut("the power is gone")

    def reboot(self, draw: random.Random) -> Disk:
        """Another disk with what is left of this one."""
        after = Disk()
        for name, file in self.files.items():
            file.lose_power(draw)
            after.files[name] = file
        self.files = {}
        return after

    def connect(self, path: str) -> Connection:
        return Adapter(apsw.Connection(path, vfs=self.name))

    def xOpen(self, name: object, flags: list[int]) -> OpenFile:  # type: ignore[override] # noqa: N802 - as apsw calls it
        path = name.filename() if isinstance(name, apsw.URIFilename) else str(name)
        return OpenFile(self, self.files.setdefault(path, DiskFile()))

    def xDelete(self, name: str, sync_directory: bool) -> None:  # noqa: N802
        self.touch()
        self.files.pop(name, None)

    def xAccess(self, name: str, flags: int) -> bool:  # noqa: N802
        return name in self.files

    def xFullPathname(self, name: str) -> str:  # noqa: N802
        return name


class OpenFile:
    """What SQLite does with a file."""

    def __init__(self, disk: Disk, file: DiskFile) -> None:
        self.disk = disk
        self.file = file

    def xRead(self, amount: int, offset: int) -> bytes:  # noqa: N802
        return bytes(self.file.seen[offset : offset + amount])

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802
        self.disk.touch()
        if offset + len(data) > self.file.room_bytes:
            raise apsw.FullError("no space left")
        self.file.change(offset, bytes(data))

    def xTruncate(self, size: int) -> None:  # noqa: N802
        self.disk.touch()
        self.file.change(size, None)

    def xSync(self, flags: int) -> None:  # noqa: N802
        self.disk.touch()
        self.file.synced, self.file.unsynced = bytes(self.file.seen), []

    def xFileSize(self) -> int:  # noqa: N802
        return len(self.file.seen)

    def xClose(self) -> None:  # noqa: N802
        pass

    def xLock(self, level: int) -> None:  # noqa: N802
        pass

    def xUnlock(self, level: int) -> None:  # noqa: N802
        pass

    def xCheckReservedLock(self) -> bool:  # noqa: N802
        return False

    def xFileControl(self, op: int, pointer: int) -> bool:  # noqa: N802
        return False

    def xSectorSize(self) -> int:  # noqa: N802
        return SECTOR_BYTES

    def xDeviceCharacteristics(self) -> int:  # noqa: N802
        return 0


class Rows:
    """The rows of a statement, all read: an error then comes from `execute`, where it is translated."""

    def __init__(self, rows: list[tuple[object, ...]]) -> None:
        self._rows = iter(rows)

    def __iter__(self) -> Iterator[tuple[object, ...]]:
        return self._rows

    def fetchone(self) -> tuple[object, ...] | None:
        return next(self._rows, None)

    def close(self) -> None:
        pass


class Adapter:
    """An apsw connection that speaks as one of `sqlite3`."""

    def __init__(self, db: apsw.Connection) -> None:
        self._db = db
        # A VFS in Python has no shared memory, which a write-ahead log needs unless one process has the file alone.
        self.execute("PRAGMA locking_mode=EXCLUSIVE")

    @property
    def in_transaction(self) -> bool:
        return self._db.in_transaction

    def execute(self, sql: str, parameters: Sequence[object] = (), /) -> Rows:
        try:
            return Rows(self._db.execute(sql, tuple(parameters)).fetchall())
        except apsw.Error as error:
            raise _as_sqlite3(error) from error

    def executemany(self, sql: str, parameters: Iterable[Sequence[object]], /) -> None:
        try:
            self._db.executemany(sql, parameters)
        except apsw.Error as error:
            raise _as_sqlite3(error) from error

    def cursor(self) -> Adapter:
        return self

    def close(self) -> None:
        self._db.close()


def _as_sqlite3(error: apsw.Error) -> sqlite3.Error:
    translated = sqlite3.OperationalError(str(error))
    if isinstance(error, PowerCut):
        translated.sqlite_errorcode = sqlite3.SQLITE_IOERR
    elif isinstance(error, apsw.FullError):
        translated.sqlite_errorcode = sqlite3.SQLITE_FULL
    return translated


def work(store: Store, draw: random.Random, image: Image, compacted: dict[int, Entry]) -> Iterator[Image]:
    """Make one commit after another; before each, yield the state that it will leave behind.

    What the commit compacts is added to `compacted`: a restart may bring it back.
    """
    hard, epochs, entries = image.hard, dict(image.epochs), {entry.version: entry for entry in image.entries}
    for number in range(1, 40):
        newest = max(entries, default=0)
        if draw.random() < 0.5:
            # As on a follower under load: one entry or two, some before others that overtook them.
            few = {draw.randrange(max(1, newest - 5), newest + 4) for _ in range(2)} - entries.keys() - compacted.keys()
            saved = [_entry(version, number, draw, True) for version in few]
            entries.update({entry.version: entry for entry in saved})
            yield Image(hard, dict(epochs), [entry for _, entry in sorted(entries.items())])
            store.commit([SaveEntries([entry]) for entry in saved])
            continue
        versions = [newest + 1 + step for step in range(draw.choice([1, 5, 12, 20]))]
        if entries and draw.random() < 0.3:
            versions.append(draw.choice(sorted(entries)))
        plain = len(versions) > 6
        saved = [_entry(version, number, draw, plain) for version in versions]
        removed = [newest] if entries and newest not in versions and draw.random() < 0.1 else []
        hard = HardState(hard.node_id, name="leader", promised=hard.promised + 1, floor=1 << 40)
        epochs.setdefault(hard.promised, newest + 1)
        for version in removed:
            del entries[version]
        dead = [version for version, entry in entries.items() if entry.kind == Kind.PUT and draw.random() < 0.2]
        for version in dead:
            compacted[version] = entries.pop(version)
        entries.update({entry.version: entry for entry in saved})
        yield Image(hard, dict(epochs), [entry for _, entry in sorted(entries.items())])
        compact = [Compact([(version, 0) for version in dead], [])] if dead else []
        epoch = SaveEpoch(hard.promised, newest + 1)
        store.commit([SaveEntries([], removed), *compact, SaveEntries(saved), epoch, SaveState(hard)])


def _entry(version: int, epoch: int, draw: random.Random, plain: bool) -> Entry:
    value = draw.randbytes(draw.choice([0, 10, 100, 5000] if plain else [0, 10, 100, 5000, 300_000]))
    if not plain and draw.random() < 0.3:
        changes = tuple(Change(Kind.PUT, f"k{part}", value[: 10 * part]) for part in range(draw.randrange(1, 5)))
        return Entry(version, epoch, Kind.BATCH, "", encode_changes(changes))
    return Entry(version, epoch, Kind.PUT, f"key{version}", value)


def is_left_of(found: Image, state: Image | None, compacted: dict[int, Entry]) -> bool:
    """Whether it is the state, and perhaps some of what was compacted."""
    if state is None or (found.hard, found.epochs) != (state.hard, state.epochs):
        return False
    there, alive = ({entry.version: entry for entry in image.entries} for image in (found, state))
    return alive.items() <= there.items() <= (compacted | alive).items()


def lives(directory: Path, seed: int, synchronous: str) -> tuple[int, int]:
    """Two lives that end in a power cut, and a look after each: how often the cut met an open commit, or lost one."""
    draw = random.Random(seed)
    disk = Disk()
    durable: Image | None = None
    compacted: dict[int, Entry] = {}
    torn = lost = 0
    for _ in range(2):
        disk.strength = draw.choice([draw.randrange(1, 60), draw.randrange(1, 3000)])
        possible = [durable]
        store = None
        try:
            store = Store(directory, synchronous=synchronous, connect=disk.connect)
            durable = store.load()
            possible = [durable]
            for state in work(store, draw, durable, compacted):
                possible = [durable, state]
                durable = state
            possible = [durable]
        except SyncFailed:
            torn += len(possible) == 2
        disk.strength = 0
        if store is not None:
            store.close()
        disk = disk.reboot(draw)
        with closing(Store(directory, connect=disk.connect)) as after:
            found = after.load()
        lost += possible != [None] and not any(is_left_of(found, state, compacted) for state in possible)
        durable = found
    return torn, lost


def campaign(directory: Path, seeds: range, synchronous: str) -> tuple[int, int, list[int]]:
    """How many cuts met an open commit, how many lost something, and the seeds that did."""
    torn = lost = 0
    guilty = []
    for seed in seeds:
        torn_here, lost_here = lives(directory / str(seed), seed, synchronous)
        torn += torn_here
        lost += lost_here
        if lost_here:
            guilty.append(seed)
    return torn, lost, guilty


def test_no_power_cut_loses_a_commit_that_returned(tmp_path: Path) -> None:
    torn, _, guilty = campaign(tmp_path, range(60), "FULL")
    assert guilty == []
    assert torn > 30


def test_the_same_cuts_do_lose_commits_without_a_sync_each(tmp_path: Path) -> None:
    _, lost, _ = campaign(tmp_path, range(100, 120), "NORMAL")
    assert lost > 5


def test_after_a_failed_sync_the_store_touches_nothing_any_more(tmp_path: Path) -> None:
    disk = Disk()
    store = Store(tmp_path, connect=disk.connect)
    store.load()
    disk.strength = 1
    with pytest.raises(SyncFailed, match="the node stops"):
        store.commit([SaveEntries([Entry(1, 1, Kind.PUT, "a", b"1")])])
    disk.strength = NEVER
    touched = disk.touched
    with pytest.raises(SyncFailed, match="start the node again"):
        store.commit([SaveEntries([Entry(2, 1, Kind.PUT, "b", b"2")])])
    store.close()
    assert disk.touched == touched
    with closing(Store(tmp_path, connect=disk.reboot(random.Random(1)).connect)) as after:
        assert after.load().entries in ([], [Entry(1, 1, Kind.PUT, "a", b"1")])


def test_a_sync_that_fails_in_a_checkpoint_stops_the_store(tmp_path: Path) -> None:
    disk = Disk()
    store = Store(tmp_path, connect=disk.connect)
    store.load()
    large = [Entry(version, 1, Kind.PUT, f"k{version}", bytes(1 << 20)) for version in (1, 2, 3)]
    store.commit([SaveEntries(large[:1])])
    pages_per_entry = (1 << 20) // 4096
    disk.strength = 2 * (2 * pages_per_entry) + pages_per_entry  # A frame is two writes; then half of the checkpoint.
    with pytest.raises(SyncFailed):
        store.commit([SaveEntries(large[1:])])
    store.close()
    with closing(Store(tmp_path, connect=disk.reboot(random.Random(1)).connect)) as after:
        assert after.load().entries == large


def test_a_checkpoint_without_space_fails_no_commit(tmp_path: Path) -> None:
    disk = Disk()
    large = [Entry(version, 1, Kind.PUT, f"k{version}", bytes(1 << 20)) for version in range(1, 7)]
    with closing(Store(tmp_path, connect=disk.connect)) as store:
        store.load()
        database = disk.files[str(tmp_path / "retinue.db")]
        database.room_bytes = len(database.seen)
        store.commit([SaveEntries(large[:3])])
        assert len(database.seen) == database.room_bytes
        disk.files[str(tmp_path / "retinue.db-wal")].room_bytes = 4 << 20
        with pytest.raises(DiskFull):
            store.commit([SaveEntries(large[3:])])
        for file in disk.files.values():
            file.room_bytes = NEVER
        store.commit([SaveEntries(large[3:])])
        assert len(database.seen) > 6 << 20
    with closing(Store(tmp_path, connect=disk.connect)) as after:
        assert after.load().entries == large
