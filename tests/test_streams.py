"""Snapshots on their way, and what may change in the store meanwhile."""

from __future__ import annotations

import pytest

from retinue.core.messages import Compact, Entry, Install, Kind, Save, SaveEntries
from retinue.errors import StorageError
from retinue.store import Store
from retinue.streams import SnapshotStreams


def put(version: int) -> Entry:
    return Entry(version, 1, Kind.PUT, f"key{version}", b"v")


@pytest.fixture
def store() -> Store:
    store = Store(None)
    store.load()
    store.commit([SaveEntries([put(1), put(2), put(3)], [])])
    return store


def test_deletions_wait_until_no_snapshot_is_under_way(store: Store) -> None:
    streams = SnapshotStreams(store)
    compact, entries = Compact([(1, 0)], []), SaveEntries([put(4)], [])
    rows = streams.begin(3)
    assert streams.without_deletions([compact, entries]) == [entries]
    assert [entry.version for page in rows for entry in page] == [1, 2, 3]
    streams.end("follower1")
    assert streams.without_deletions([entries]) == [compact, entries]
    assert streams.without_deletions([entries]) == [entries]


@pytest.mark.parametrize("read_first", [False, True])
def test_a_snapshot_breaks_off_when_its_rows_are_replaced(store: Store, read_first: bool) -> None:
    streams = SnapshotStreams(store)
    rows = streams.begin(3)
    if read_first:
        assert next(rows)
    install = Install(9, [put(9)])
    store.commit(streams.without_deletions([install]))
    store.commit([SaveEntries([put(2)], [])])
    if read_first:
        assert list(rows) == [], "it had been read to its end"
    else:
        with pytest.raises(StorageError, match="were replaced"):
            next(rows)
    streams.end("follower1")


def test_deletions_of_rows_that_were_replaced_are_void(store: Store) -> None:
    """Else a deletion could go while an older value that came with the snapshot stays."""
    streams = SnapshotStreams(store)
    streams.begin(3)
    earlier: list[Save] = [Compact([], [(3, 0)])]
    assert streams.without_deletions(earlier) == []
    install = Install(9, [put(1), Entry(3, 1, Kind.DELETE, "key1")])
    assert streams.without_deletions([install]) == [install]
    streams.end("follower1")
    assert streams.without_deletions([]) == []
