"""Entries to store, and stores to spoil: shared by the tests of the store."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from retinue.core.messages import (
    Change,
    Encoding,
    Entry,
    Image,
    Kind,
    SaveEntries,
    SaveEpoch,
    SaveState,
    encode_changes,
)
from retinue.store import Store


def put(version: int, key: str, value: bytes = b"v", *, epoch: int = 1, request_id: str = "") -> Entry:
    return Entry(version, epoch, Kind.PUT, key, value, Encoding.RAW, request_id)


def batch(version: int, *changes: Change, epoch: int = 1, request_id: str = "") -> Entry:
    return Entry(version, epoch, Kind.BATCH, "", encode_changes(changes), Encoding.RAW, request_id)


def numbers(count: int) -> list[Entry]:
    return [put(version, f"key{version}", b"%d" % version) for version in range(1, count + 1)]


def parts(count: int) -> tuple[Change, ...]:
    return tuple(Change(Kind.PUT, f"part{part}", b"%d" % part) for part in range(count))


def load(directory: Path, member: str = "", synchronous: str = "FULL") -> Image:
    """What a store at this place holds; closed cleanly."""
    with closing(Store(directory, member=member, synchronous=synchronous)) as store:
        return store.load()


def write(directory: Path, *saves: SaveEntries | SaveState | SaveEpoch) -> None:
    """Commit these saves; closed cleanly."""
    with closing(Store(directory)) as store:
        store.load()
        store.commit(list(saves))


def tamper(directory: Path, sql: str, *parameters: object) -> None:
    """Change a closed store behind its back."""
    with closing(sqlite3.connect(directory / "retinue.db")) as db, db:
        assert db.execute(sql, parameters).rowcount != 0
