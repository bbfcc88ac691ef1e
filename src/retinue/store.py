"""The store: what a node must not forget, in one SQLite file.

The core asks for saves; `commit` makes one transaction of them and returns when it is durable. The log and the
multi-version store are the same tables, see `store_log`; reads of clients never come here, they come from memory.

Durability is SQLite's write-ahead log with `synchronous=FULL`: one sync per commit. The log is copied into the database
file (a checkpoint) every 2 MiB by the commit that passes that mark: 1 to 2 ms on the machine this was written on, where
16 times as much took 40 ms at a time. So the write-ahead log stays a few MiB long, unless a person's shell keeps an old
state open. The copy is asked for by us because SQLite's own automatic one ignores errors: a sync that failed there
would go unnoticed, and the only good copy would be overwritten next.

What is not promised: a write-ahead log that is damaged on disk after it was synced ends, for SQLite, at the damage.
A node that lost commits that way is recognised by the others (its checksum chain and its promises), not here.
"""

from __future__ import annotations

import ctypes
import sqlite3
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import NoReturn

import msgspec

from retinue.core.messages import Compact, Entry, HardState, Image, Install, Save, SaveEntries, SaveEpoch, SaveState
from retinue.errors import DataDirError, StorageError, SyncFailed
from retinue.store_files import (
    SYNCHRONOUS,
    Connect,
    DataDirectory,
    OpenReport,
    configure,
    connect_sqlite,
    damaged,
    is_blank,
    storage_error,
)
from retinue.store_log import StoredLog
from retinue.store_rows import APPLICATION_ID, FORMAT, LAST_VERSION, SCHEMA, DamagedRow, text_checksum, without_gaps
from retinue.store_runs import RUNS_SCHEMA

CHECKPOINT_BYTES = 2 << 20
"""How much goes into the write-ahead log between two checkpoints, estimated from what is saved."""

_COMMIT_BYTES = 3 * 4096  # The pages that every commit writes again: the tail of the table, its parent, the state.
_ROW_BYTES = 64  # A row without key and value, roughly.

_PUT_META = "INSERT OR REPLACE INTO meta VALUES (?, ?, ?)"
_RESERVED = ("clean", "format", "state")

_state_encoder = msgspec.json.Encoder()
_state_decoder = msgspec.json.Decoder(HardState)


class Store:
    """A node's durable state in `data_dir`, or in memory through the same code if that is `None`.

    `synchronous` is FULL, or by name NORMAL or OFF, which lose commits at a power cut. `member` is the node's name, if
    it is known at start: the directory of another member is refused. `connect` opens the database; tests pass one that
    limits its size or loses power.

    Methods may be called from any thread and take turns. They raise `StorageError`: `DataDirError` (not usable, locked,
    foreign, damaged), `DiskFull` (rolled back, may be tried again), `SyncFailed` (the node must stop; the store does
    nothing any more).
    """

    opened: OpenReport
    """What opening found; there after `load`."""

    def __init__(
        self,
        data_dir: Path | None,
        *,
        synchronous: str = "FULL",
        member: str = "",
        connect: Connect = connect_sqlite,
    ) -> None:
        if synchronous not in SYNCHRONOUS:
            raise ValueError(f"synchronous is one of {', '.join(SYNCHRONOUS)}, not {synchronous!r}")
        self._turn = threading.Lock()
        self._directory = None if data_dir is None else DataDirectory(data_dir)
        self._where = str(self._directory.database) if self._directory else "The database in memory"
        self._closed = self._broken = self._loaded = False
        self._log_bytes = 0
        self._sync_ms = 0.0
        try:
            if self._directory and synchronous == "FULL":
                self._sync_ms = self._directory.measure_sync_ms()
            with self._reading():
                self._db = connect(str(self._directory.database) if self._directory else ":memory:")
                self._control = self._db.cursor()  # Kept for what every commit says: a new one each time costs more.
            try:
                self._open(synchronous, member)
            except BaseException:
                self._let_go()
                raise
        except BaseException:
            self._release()
            raise

    def _open(self, synchronous: str, member: str) -> None:
        with self._reading():
            self._fresh = is_blank(self._db, self._where)
            configure(self._db, self._where, synchronous, memory=self._directory is None)
        if self._fresh:
            self._transact(self._found)
        state = self._get("state")
        try:
            self._hard = _state_decoder.decode(state or "")
        except msgspec.MsgspecError as error:
            raise damaged(self._where, f"the state of the node cannot be read: {error}") from error
        if member and self._hard.name not in ("", member):
            raise DataDirError(
                f"{self._where} belongs to the member {self._hard.name}, and this node is {member}: choose the"
                " directory of this node with the setting data_dir."
            )
        self._clean = self._get("clean")
        self._transact(self._execute, "DELETE FROM meta WHERE name = 'clean'")
        self._log = StoredLog(self._db)

    def _found(self) -> None:
        """Make the tables, and this node's identity."""
        self._execute(f"PRAGMA application_id={APPLICATION_ID}")
        for statement in (*SCHEMA, *RUNS_SCHEMA):
            self._execute(statement)
        self._put("format", str(FORMAT))
        self._put_state(HardState(node_id=uuid.uuid4().hex))

    # --- reading ---

    def load(self) -> Image:
        """Everything, every checksum verified; after a stop that was not clean the file's structure as well."""
        began = time.perf_counter()
        with self._turn:
            if self._clean is None and not (self._fresh or self._loaded):
                self._check_structure()
            with self._reading():
                epochs = dict(self._epochs())
            mark = self._mark()
            if self._clean not in (None, mark) and not self._loaded:
                raise damaged(self._where, f"it has {mark}, and was closed with {self._clean}")
            entries = list(self._read(0, LAST_VERSION))
            if not self._loaded:
                self._survey()
            with self._reading():
                rows = self._log.count_entries()
            self._loaded = True
        duration_ms = (time.perf_counter() - began) * 1000
        self.opened = OpenReport(self._where, self._fresh, self._clean is not None, rows, duration_ms)
        return Image(self._hard, epochs, entries)

    def _survey(self) -> None:
        try:
            with self._reading():
                self._log.survey()
        except DamagedRow as damage:
            raise self._damaged(damage) from damage

    def _check_structure(self) -> None:
        with self._reading():
            problem = self._db.execute("PRAGMA quick_check(1)").fetchone()[0]
        if problem != "ok":
            raise damaged(self._where, " ".join(problem.split()))

    def _mark(self) -> str:
        """The mark of a clean stop: how much there is, by which the next start sees that nothing got lost."""
        with self._reading():
            rows, runs = self._log.counts()
            epochs = self._db.execute("SELECT count(*) FROM epochs").fetchone()[0]
        return f"{rows} rows, {epochs} epochs, {runs} runs"

    def _epochs(self) -> Iterator[tuple[int, int]]:
        for epoch, start, checksum in self._db.execute("SELECT epoch, start, checksum FROM epochs"):
            if text_checksum(epoch, start) != checksum:
                raise damaged(self._where, f"the record of epoch {epoch} has a wrong checksum")
            yield epoch, start

    def read_range(self, after: int, upto: int, max_bytes: int) -> list[Entry]:
        """The entries from version `after + 1` to `upto`, up to the first hole or about `max_bytes`.

        At least one entry, however large, if version `after + 1` is here.
        """
        found: list[Entry] = []
        size = 0
        with self._turn:
            for entry in self._read(after, upto):
                size += len(entry.value) + len(entry.key) + _ROW_BYTES
                if entry.version != after + len(found) + 1 or (found and size > max_bytes):
                    break
                found.append(entry)
        return found

    def read_rows(self, upto: int, after: int, limit: int) -> list[Entry]:
        """The first `limit` of the kept entries with `after` < version <= `upto`, in order; batches as they are left.

        Pages of a snapshot fit together as long as nothing is compacted meanwhile.
        """
        found: list[Entry] = []
        with self._turn:
            for entry in self._read(after, upto):
                if len(found) == limit:
                    break
                found.append(entry)
        return found

    def _read(self, after: int, upto: int) -> Iterator[Entry]:
        """Entries in order, verified: between the floor and the trusted prefix nothing may be missing."""
        hard, version = self._hard, after
        try:
            with closing(self._log.read(after, upto, hard.floor)) as entries:
                for entry in without_gaps(entries, max(after, hard.floor) + 1, min(upto, hard.trusted)):
                    version = entry.version
                    yield entry
        except DamagedRow as damage:
            raise self._damaged(damage) from damage
        except sqlite3.Error as error:
            self._refuse(error, f"after version {version}")

    # --- writing ---

    def commit(self, saves: Sequence[Save]) -> None:
        """All saves in one transaction, durable on return. After `DiskFull` nothing is changed; try again later."""
        with self._turn:
            try:
                if not self._commit_at_once(saves):
                    self._transact(self._apply, saves)
            except BaseException:
                self._log.undo()
                raise
            self._log.keep()
            for save in saves:
                if isinstance(save, SaveState):
                    self._hard = save.hard
            if self._log_bytes >= CHECKPOINT_BYTES:
                self._checkpoint()

    def _commit_at_once(self, saves: Sequence[Save]) -> bool:
        """Commit what one statement can do, which is most of what a loaded node saves; false if it takes more."""
        statement = self._log.as_one_statement(saves)
        if statement is None:
            return False
        self._refuse_if_broken()
        try:
            self._control.execute(statement.sql, statement.parameters)
        except BaseException as error:
            self._undo(error)
        self._log_bytes += _COMMIT_BYTES + statement.size_bytes
        return True

    def _apply(self, saves: Sequence[Save]) -> None:
        log, size = self._log, _COMMIT_BYTES
        for save in saves:
            match save:
                case SaveEntries(entries=entries, removed=removed):
                    if removed:
                        size += log.delete(removed)
                    size += log.write(entries)
                case SaveState(hard=hard):
                    self._put_state(hard)
                case SaveEpoch(epoch=epoch, start=start):
                    row = (epoch, start, text_checksum(epoch, start))
                    self._execute("INSERT OR IGNORE INTO epochs VALUES (?, ?, ?)", row)
                case Compact(dead=dead, tombstones=tombstones):
                    size += log.compact(dead, tombstones)
                case Install(trusted=trusted, entries=entries):
                    size += log.install(trusted, entries) + CHECKPOINT_BYTES
        self._log_bytes += size

    def _put_state(self, hard: HardState) -> None:
        self._put("state", _state_encoder.encode(hard).decode())

    def _checkpoint(self) -> None:
        """Copy the write-ahead log into the database file, as far as no reader is in the way."""
        self._log_bytes = 0
        try:
            self._execute("PRAGMA wal_checkpoint(PASSIVE)")
        except sqlite3.OperationalError as error:
            # The commit before this is durable in the log, so a full disk is no failure here: the next commit meets it.
            if getattr(error, "sqlite_errorcode", 0) != sqlite3.SQLITE_FULL:
                self._refuse(error)

    def get_meta(self, key: str) -> str | None:
        """A small value of the driver, `None` if it was never set."""
        assert key not in _RESERVED
        with self._turn:
            return self._get(key)

    def set_meta(self, key: str, value: str) -> None:
        """Keep a small value of the driver, durable on return."""
        assert key not in _RESERVED
        with self._turn:
            self._transact(self._put, key, value)

    def _get(self, name: str) -> str | None:
        with self._reading():
            row = self._db.execute("SELECT CAST(value AS BLOB), checksum FROM meta WHERE name = ?", (name,)).fetchone()
        if row is None:
            return None
        value = (row[0] or b"").decode(errors="replace")
        if text_checksum(name, value) != row[1]:
            raise damaged(self._where, f"{name} in the table meta has a wrong checksum")
        return value

    def _put(self, name: str, value: str) -> None:
        self._execute(_PUT_META, (name, value, text_checksum(name, value)))

    # --- the way to SQLite ---

    def _execute(self, sql: str, parameters: Sequence[object] = ()) -> None:
        self._db.execute(sql, parameters).close()

    def _transact(self, work: Callable[..., None], *arguments: object) -> None:
        """Do `work` in one transaction, durable on return; undone if anything fails."""
        self._refuse_if_broken()
        try:
            self._control.execute("BEGIN IMMEDIATE")
            work(*arguments)
            self._control.execute("COMMIT")
        except BaseException as error:
            self._undo(error)

    def _refuse_if_broken(self) -> None:
        if self._broken:
            raise SyncFailed(f"The disk failed under {self._where} before: start the node again.")

    def _undo(self, error: BaseException) -> NoReturn:
        """Undo the transaction that failed, and raise what the failure means."""
        self._roll_back()
        if isinstance(error, sqlite3.Error):
            self._refuse(error)
        if isinstance(error, DamagedRow):
            raise self._damaged(error) from error
        raise error

    def _roll_back(self) -> None:
        if not self._db.in_transaction:
            return  # SQLite has done it itself, as it may when the disk is full.
        try:
            self._execute("ROLLBACK")
        except sqlite3.Error as error:
            self._refuse(error)

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            self._refuse(error)
        except UnicodeDecodeError as error:
            # The message of SQLite has text from the file in it.
            raise damaged(self._where, "a name in it is not UTF-8 text") from error

    def _refuse(self, error: sqlite3.Error, place: str = "") -> NoReturn:
        """Raise what an error of SQLite means."""
        meaning = storage_error(error, self._where, place)
        if isinstance(meaning, SyncFailed):
            self._broken = True
        raise meaning or error from error

    def _damaged(self, damage: DamagedRow) -> DataDirError:
        return damaged(self._where, f"version {damage.version}: {damage.problem}")

    # --- the end ---

    def sync_cost_ms(self) -> float:
        """What one sync costs in this directory, measured at start; 0 where commits do not sync."""
        return self._sync_ms

    def close(self) -> None:
        """Mark the stop as clean if everything was read and written as it should, and let go of the directory."""
        with self._turn:
            if self._closed:
                return
            self._closed = True
            if self._loaded and not self._broken:
                # Without the mark the next start checks more, which is right after an error here.
                with suppress(StorageError):
                    mark = self._mark()
                    self._transact(self._put, "clean", mark)
            self._let_go()
            self._release()

    def _let_go(self) -> None:
        if self._broken:
            # Closing would copy the log into the file, and after a failed sync that may destroy the only good copy. So
            # this connection lives until the process ends.
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._db))
        else:
            self._db.close()

    def _release(self) -> None:
        if self._directory is not None:
            self._directory.release()
