"""Snapshots on their way, and what may change in the store meanwhile."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from retinue.core.messages import Entry, Install, Kind, SaveEntries
from retinue.errors import StorageError
from retinue.store import Store
from retinue.streams import ROWS_AT_ONCE, SnapshotStreams


def put(version: int) -> Entry:
    return Entry(version, 1, Kind.PUT, f"key{version}", b"v")


@pytest.fixture
def store() -> Store:
    store = Store(None)
    store.load()
    store.commit([SaveEntries([put(1), put(2), put(3)], [])])
    return store


def versions(rows: Iterator[list[Entry]]) -> list[int]:
    return [entry.version for page in rows for entry in page]


def test_a_snapshot_is_under_way_from_its_begin_to_its_end(store: Store) -> None:
    streams = SnapshotStreams(store)
    assert not streams
    rows = streams.begin(3)
    assert streams
    streams.about_to_save([SaveEntries([put(4)], [])])
    assert versions(rows) == [1, 2, 3]
    streams.end("follower1")
    assert not streams


@pytest.mark.parametrize("pages", [0, 1])
def test_a_snapshot_breaks_off_when_its_rows_are_replaced(store: Store, pages: int) -> None:
    """Also where nothing is left of them: what was sent so far must not pass for all."""
    store.commit([SaveEntries([put(version) for version in range(4, 3 * ROWS_AT_ONCE)], [])])
    streams = SnapshotStreams(store)
    rows = streams.begin(3 * ROWS_AT_ONCE)
    for _ in range(pages):
        assert len(next(rows)) == ROWS_AT_ONCE
    saves = [Install(9 * ROWS_AT_ONCE, [put(9 * ROWS_AT_ONCE)])]
    streams.about_to_save(saves)
    store.commit(saves)
    with pytest.raises(StorageError, match="were replaced"):
        next(rows)
    streams.end("follower1")
    rows = streams.begin(9 * ROWS_AT_ONCE)
    assert versions(rows) == [9 * ROWS_AT_ONCE]
    streams.end("follower1")
