"""Entries to store, and stores to spoil: shared by the tests of the store."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from retinue.core.messages import (
    Change,
    Encoding,
    Entry,
    HardState,
    Image,
    Kind,
    Save,
    SaveState,
    encode_changes,
)
from retinue.store import Store


def put(version: int, key: str, value: bytes = b"v", *, epoch: int = 1, request_id: str = "") -> Entry:
    return Entry(version, epoch, Kind.PUT, key, value, Encoding.RAW, request_id)


def batch(version: int, *changes: Change, epoch: int = 1, request_id: str = "") -> Entry:
    return Entry(version, epoch, Kind.BATCH, "", encode_changes(changes), Encoding.RAW, request_id)


@contextmanager
def compactable(directory: Path) -> Iterator[Store]:
    """A store in which everything that will be written lies below the floor."""
    with closing(Store(directory, synchronous="OFF")) as store:
        store.load()
        store.commit([SaveState(HardState("me", floor=1 << 40))])
        yield store


def numbers(count: int) -> list[Entry]:
    return [put(version, f"key{version}", b"%d" % version) for version in range(1, count + 1)]


def puts(first: int, count: int, value: bytes = b"v", *, epoch: int = 1) -> list[Entry]:
    return [put(version, f"key{version}", value, epoch=epoch) for version in range(first, first + count)]


def parts(count: int) -> tuple[Change, ...]:
    return tuple(Change(Kind.PUT, f"part{part}", b"%d" % part) for part in range(count))


def load(directory: Path, member: str = "", synchronous: str = "FULL") -> Image:
    """What a store at this place holds; closed cleanly."""
    with closing(Store(directory, member=member, synchronous=synchronous)) as store:
        return store.load()


def write(directory: Path, *saves: Save) -> None:
    """Commit these saves; closed cleanly."""
    with closing(Store(directory)) as store:
        store.load()
        store.commit(list(saves))


def tamper(directory: Path, sql: str, *parameters: object) -> None:
    """Change a closed store behind its back."""
    with closing(sqlite3.connect(directory / "retinue.db")) as db, db:
        assert db.execute(sql, parameters).rowcount != 0


@dataclass(frozen=True)
class Layout:
    """Where entries lie: versions of single rows, (first version, entries kept) of runs, and versions in those."""

    rows: list[int]
    runs: list[tuple[int, int]]
    in_runs: list[int] = field(default_factory=list, compare=False)


def layout(directory: Path) -> Layout:
    """Where the entries of a store lie; a person's look at it, also while it is open."""
    with closing(sqlite3.connect(directory / "retinue.db")) as db:
        return Layout(
            [version for (version,) in db.execute("SELECT DISTINCT slot / 1024 FROM entries ORDER BY slot")],
            db.execute("SELECT first, kept FROM runs ORDER BY first").fetchall(),
            [
                version
                for (version,) in db.execute(
                    "SELECT first + key FROM runs, json_each(runs.entries) WHERE type = 'array' ORDER BY first, key"
                )
            ],
        )
