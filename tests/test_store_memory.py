"""The store that keeps everything in memory: the same answers as any other, whatever waits to be written."""

from __future__ import annotations

from contextlib import closing
from unittest.mock import patch

from hypothesis import given, settings
from hypothesis import strategies as st

from retinue.core.messages import Compact, Entry, HardState, Install, Save, SaveEntries, SaveEpoch, SaveState
from retinue.store import Store
from retinue.store_memory import HELD_BYTES_MAX, HELD_ENTRIES_MAX, MemoryStore
from tests.store_samples import put

VERSIONS = st.integers(1, 60)
ENTRIES = st.lists(st.builds(put, VERSIONS, st.sampled_from("abc"), st.sampled_from([b"x", b"\xff"])), max_size=12)
STATE = HardState("me", floor=1 << 40)
SAVES: st.SearchStrategy[Save] = (
    st.builds(SaveEntries, ENTRIES)
    | st.builds(SaveEntries, ENTRIES, st.lists(VERSIONS, max_size=2))
    | st.builds(lambda version: SaveState(HardState("me", promised=version, floor=1 << 40)), VERSIONS)
    | st.builds(lambda version: Compact([(version, 0)], []), VERSIONS)
    | st.builds(SaveEpoch, VERSIONS, VERSIONS)
    | st.builds(lambda version: Install(version, [put(version, "d")]), VERSIONS)
)
READ, LOAD = "read", "load"


@settings(max_examples=150, deadline=None)
@given(st.lists(st.lists(SAVES, min_size=1, max_size=3) | st.just(READ) | st.just(LOAD), max_size=20))
def test_it_answers_as_a_store_that_writes_at_once(steps: list[list[Save] | str]) -> None:
    few = patch("retinue.store_memory.HELD_ENTRIES_MAX", 20)
    with few, closing(MemoryStore()) as memory, closing(Store(None)) as plain:
        for store in (memory, plain):
            store.commit([SaveState(STATE)])
        for step in steps:
            if step == LOAD:
                assert memory.load() == plain.load()
            elif isinstance(step, str):
                assert memory.read_rows(50, 5, 20) == plain.read_rows(50, 5, 20)
                assert memory.read_range(5, 50, 1000) == plain.read_range(5, 50, 1000)
            else:
                memory.commit(step)
                plain.commit(step)
        assert memory.load() == plain.load()


def written(store: Store) -> int:
    """How many rows and runs are in the database itself."""
    rows, runs = store._log.counts()
    return rows + runs


def test_entries_wait_only_until_there_are_many() -> None:
    with closing(MemoryStore()) as store:
        for version in range(1, HELD_ENTRIES_MAX):
            store.commit([SaveEntries([put(version, "a")])])
        assert written(store) == 0
        store.commit([SaveEntries([put(HELD_ENTRIES_MAX, "a")])])
        assert written(store) > 0


def test_large_values_do_not_wait() -> None:
    with closing(MemoryStore()) as store:
        store.commit([SaveEntries([put(1, "a", b"x" * (HELD_BYTES_MAX - 1))])])
        assert written(store) == 0
        store.commit([SaveEntries([put(2, "a", b"x")])])
        assert written(store) == 2
        store.commit([SaveEntries([put(3, "a", b"x")])])
        assert written(store) == 2


def test_what_overtook_others_is_written_in_order_as_runs() -> None:
    with closing(MemoryStore()) as store:
        backwards: list[Entry] = [put(version, "a") for version in range(HELD_ENTRIES_MAX, 0, -1)]
        for entry in backwards:
            store.commit([SaveEntries([entry])])
        assert store._log.counts()[0] == 0
        assert store.load().entries == backwards[::-1]
