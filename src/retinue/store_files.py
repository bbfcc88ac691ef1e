"""The data directory and the database file in it: made, locked against a second process, recognised, opened.

Nothing that is not ours is written to: a file is identified before anything in it is changed.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from retinue.errors import DataDirError, DiskFull, StorageError, SyncFailed
from retinue.store_rows import APPLICATION_ID, FORMAT

DATABASE_NAME = "retinue.db"
LOCK_NAME = "lock"

SYNCHRONOUS = {"OFF": 0, "NORMAL": 1, "FULL": 2}
"""The modes of `PRAGMA synchronous`. FULL loses nothing; NORMAL loses the last commits at a power cut; OFF may also
leave a damaged file."""

BUSY_TIMEOUT_S = 5.0
"""How long a commit waits for a person's shell that holds the database locked."""

WAL_KEPT_BYTES = 64 << 20
"""A write-ahead log that one large transaction made longer than this is cut back once it was copied."""

_SYNC_ROUNDS = 7
_BLOCK_BYTES = 4096


@dataclass(frozen=True)
class OpenReport:
    """What opening found. `clean`: the last process closed the store.

    Every entry counts as a row, however it is stored; a batch counts one row per change.
    """

    where: str
    fresh: bool
    clean: bool
    rows_checked: int
    duration_ms: float

    @property
    def sentence(self) -> str:
        """The same for the log."""
        if self.fresh:
            return f"{self.where} is new."
        rows, took = self.rows_checked, f"{self.duration_ms:.0f} ms"
        if self.clean:
            return f"{self.where} was closed cleanly: read {rows} rows in {took}, all checksums are right."
        return (
            f"{self.where} was not closed cleanly: checked the structure of the file and the checksums of all {rows}"
            f" rows in {took}, nothing is damaged."
        )


class Cursor(Protocol):
    """The rows of a statement."""

    def __iter__(self) -> Iterator[Any]:
        """The rows, as tuples."""

    def fetchone(self) -> Any:
        """The next row, or `None`."""

    def close(self) -> object:
        """End the statement, also when it has more rows."""


class Control(Protocol):
    """A cursor for statements without rows."""

    def execute(self, sql: str, parameters: Sequence[object] = (), /) -> object:
        """Run one statement."""


class Connection(Protocol):
    """What the store needs of a `sqlite3.Connection`; errors are `sqlite3.Error` with `sqlite_errorcode`."""

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open."""

    def execute(self, sql: str, parameters: Sequence[object] = (), /) -> Cursor:
        """Run one statement."""

    def executemany(self, sql: str, parameters: Iterable[Sequence[object]], /) -> object:
        """Run one statement for each row of parameters."""

    def cursor(self) -> Control:
        """A cursor that can run many statements, one after the other."""

    def close(self) -> object:
        """Close the database."""


Connect = Callable[[str], Connection]


def connect_sqlite(path: str) -> Connection:
    """A connection of the standard library, in autocommit mode, usable from any thread (one at a time)."""
    return sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=BUSY_TIMEOUT_S)


class DataDirectory:
    """A data directory that this process holds alone until `release`. Raises `StorageError`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.database = path / DATABASE_NAME
        try:
            _make_durably(path.absolute())
            self._lock_file = os.open(path / LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise _unusable(path, error) from error
        try:
            self._lock()
        except BaseException:
            os.close(self._lock_file)
            raise

    def _lock(self) -> None:
        try:
            fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(self._lock_file, 32).decode(errors="replace").strip() or "unknown"
            raise DataDirError(
                f"The data directory {self.path} is in use by process {holder}: stop that process, or choose another"
                " directory with the setting data_dir."
            ) from None
        except OSError as error:
            raise _unusable(self.path, error) from error
        # The lock holds without the number of this process, which only makes the message above more helpful.
        with suppress(OSError):
            os.ftruncate(self._lock_file, 0)
            os.pwrite(self._lock_file, f"{os.getpid()}\n".encode(), 0)

    def measure_sync_ms(self) -> float:
        """The least time to overwrite one block here and sync it: the disk's, whatever else the machine does just now.

        Raises `StorageError`.
        """
        scratch = self.path / "sync-probe"
        times_ms = []
        try:
            file = os.open(scratch, os.O_RDWR | os.O_CREAT, 0o600)
            try:
                os.pwrite(file, bytes(_BLOCK_BYTES), 0)
                os.fsync(file)
                for round_number in range(_SYNC_ROUNDS):
                    began = time.perf_counter()
                    os.pwrite(file, bytes([round_number + 1]) * _BLOCK_BYTES, 0)
                    os.fdatasync(file)
                    times_ms.append((time.perf_counter() - began) * 1000)
            finally:
                os.close(file)
                scratch.unlink()
        except OSError as error:
            raise _unusable(self.path, error) from error
        return min(times_ms)

    def release(self) -> None:
        """Let another process have the directory."""
        os.close(self._lock_file)


def _make_durably(path: Path) -> None:
    """Make a directory and those above it, so that they survive a power cut."""
    if path.is_dir():
        return
    if not path.parent.is_dir():
        _make_durably(path.parent)
    path.mkdir(mode=0o700, exist_ok=True)
    parent = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(parent)
    finally:
        os.close(parent)


def _unusable(path: Path, error: OSError) -> StorageError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFull(f"There is no space left for the data directory {path}: free some, and start the node again.")
    return DataDirError(
        f"The data directory {path} cannot be used ({error.strerror}): make it a writable directory, or choose another"
        " with the setting data_dir."
    )


def is_blank(db: Connection, where: str) -> bool:
    """Whether the database has nothing in it yet; raises `DataDirError` where it is not ours to use."""
    identity = _one(db, "PRAGMA application_id")
    tables = _one(db, "SELECT count(*) FROM sqlite_master")
    if identity == 0 and tables == 0 and _one(db, "PRAGMA user_version") == 0:
        return True
    if identity != APPLICATION_ID:
        raise DataDirError(
            f"{where} is a database of another application, and was left as it is: choose another directory with the"
            " setting data_dir."
        )
    row = db.execute("SELECT value FROM meta WHERE name = 'format'").fetchone()
    if row is None or row[0] != str(FORMAT):
        raise DataDirError(
            f"{where} has format {row[0] if row else 'unknown'} and this release reads format {FORMAT}:"
            " start the release that wrote it, or choose another directory with the setting data_dir."
        )
    return False


def configure(db: Connection, where: str, synchronous: str, *, memory: bool) -> None:
    """Set how the database is written, and read it back. Raises `DataDirError` where it did not take."""
    wanted = "memory" if memory else "wal"
    mode = _one(db, "PRAGMA journal_mode=WAL")
    if mode != wanted:
        raise DataDirError(
            f"{where} cannot have a write-ahead log here (journal mode {mode}): put the data directory on a local disk."
        )
    db.execute(f"PRAGMA synchronous={synchronous}").close()
    level = _one(db, "PRAGMA synchronous")
    if level != SYNCHRONOUS[synchronous]:
        raise DataDirError(
            f"{where} did not take synchronous={synchronous} (it says {level}), so commits would not be as durable as"
            " promised: use another build of SQLite."
        )
    # The store copies the log itself: SQLite's own automatic checkpoint hides failed syncs.
    db.execute("PRAGMA wal_autocheckpoint=0").close()
    db.execute(f"PRAGMA journal_size_limit={WAL_KEPT_BYTES}").close()


def _one(db: Connection, sql: str) -> Any:
    cursor = db.execute(sql)
    row = cursor.fetchone()
    cursor.close()
    return None if row is None else row[0]


def storage_error(error: sqlite3.Error, where: str, place: str = "") -> StorageError | None:
    """What an error of SQLite means for a node; `None` where it is a mistake in our own code.

    `place` says how far reading came.
    """
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_MISUSE)
    if code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE):
        return DiskFull(f"There is no space left for {where}: free some, and writes go on without a restart.")
    match code & 0xFF:
        case sqlite3.SQLITE_IOERR:
            return SyncFailed(
                f"The disk failed under {where} ({error}): the node stops, because what is durable is not known; check"
                " the disk and start the node again."
            )
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_ERROR:
            # Our statements are tested: one that does not fit the tables met a damaged schema.
            return damaged(where, f"{place}: {error}" if place else str(error))
        case primary:
            return _not_usable(primary, error, where)


def _not_usable(code: int, error: sqlite3.Error, where: str) -> DataDirError | None:
    match code:
        case sqlite3.SQLITE_NOTADB:
            return DataDirError(
                f"{where} is not a database, or its beginning is damaged, and was left as it is: choose another"
                " directory with the setting data_dir, or move this one away so that the node comes back blank."
            )
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_PERM | sqlite3.SQLITE_CANTOPEN:
            return DataDirError(f"{where} cannot be opened for writing ({error}): check its owner and permissions.")
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return DataDirError(
                f"Another program has kept {where} locked for {BUSY_TIMEOUT_S:g} s: close that program or its"
                " transaction, and start the node again."
            )
    return None


def damaged(where: str, what: str) -> DataDirError:
    """The database is not what was written to it."""
    return DataDirError(
        f"{where} is damaged ({what}): move the data directory away and start the node again, so that it comes back"
        " blank and copies everything from the others; nothing was repaired or skipped."
    )


def free_bytes(data_dir: Path) -> int:
    """How much room there is on the disk under the database. Raises `StorageError` if it is out of reach."""
    try:
        return shutil.disk_usage(data_dir / DATABASE_NAME).free
    except OSError as error:
        lost = f"The data in {data_dir} is out of reach ({error.strerror})"
        stops = "the node stops, for a restart would forget what it acknowledges now."
        raise StorageError(f"{lost}: {stops}") from error
