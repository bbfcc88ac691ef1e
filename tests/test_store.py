"""The store: what goes in comes out, on disk and in memory, also over restarts."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from retinue.core.messages import (
    Change,
    Compact,
    Configuration,
    Encoding,
    Entry,
    HardState,
    Image,
    Install,
    Kind,
    SaveEntries,
    SaveEpoch,
    SaveState,
)
from retinue.store import Store
from retinue.store_log import RUN_ENTRIES_MIN
from retinue.store_memory import MemoryStore
from tests.store_samples import batch, layout, numbers, parts, put

EVERYWHERE = 1 << 40
"""A floor above every version: anything may have been compacted."""


@pytest.fixture(params=["file", "database in memory", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    if request.param == "memory":
        chosen: Store = MemoryStore()
    else:
        chosen = Store(tmp_path / "data" if request.param == "file" else None)
    with closing(chosen) as opened:
        opened.load()
        yield opened


def test_a_fresh_store_has_a_random_node_id_and_nothing_else(store: Store) -> None:
    image = store.load()
    assert len(image.hard.node_id) == 32
    assert image == Image(HardState(node_id=image.hard.node_id), {}, [])
    assert store.opened.fresh
    assert store.opened.sentence.endswith("is new.")
    with closing(Store(None)) as other:
        assert other.load().hard.node_id != image.hard.node_id


def test_one_commit_carries_entries_state_and_epoch(store: Store) -> None:
    entries = [
        put(1, "color", b"blue", request_id="r-1"),
        Entry(2, 1, Kind.PUT, "count", b"7", Encoding.JSON),
        Entry(3, 1, Kind.DELETE, "color"),
        Entry(4, 1, Kind.NOOP),
        Entry(5, 1, Kind.CONFIG, "", b'{"write_quorum":3}'),
        batch(6, *parts(3), Change(Kind.DELETE, "count"), Change(Kind.PUT, "brief", expires_ms=1), request_id="r-2"),
        Entry(7, 1, Kind.PUT, "session", b"s", expires_ms=1_800_000_000_000),
    ]
    hard = HardState(
        "n",
        name="leader",
        cluster_id="c",
        promised=7,
        trusted=4,
        chain=99,
        configuration=Configuration(3, {"leader": "n"}),
        configuration_version=5,
        voter=True,
        founder=True,
        births={"leader": "n"},
    )
    store.commit([SaveEntries(entries), SaveEpoch(1, 1), SaveEpoch(7, 6), SaveState(hard)])
    assert store.load() == Image(hard, {1: 1, 7: 6}, entries)


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"text",
        "gr\u00fc\u00df \U0001f600".encode(),
        b"\xff\xfe",
        b"a\0b",
        b"\xed\xa0\x80",
        bytes(range(256)),
        b"12",
    ],
)
def test_values_come_back_byte_by_byte(store: Store, value: bytes) -> None:
    entries = [put(1, "a", value), batch(2, Change(Kind.PUT, "b", value, Encoding.JSON))]
    store.commit([SaveEntries(entries)])
    assert store.load().entries == entries


def test_the_record_of_an_epoch_stays(store: Store) -> None:
    store.commit([SaveEpoch(1, 5)])
    store.commit([SaveEpoch(1, 9), SaveEpoch(2, 9)])
    assert store.load().epochs == {1: 5, 2: 9}


def test_a_rewritten_version_leaves_no_stray_parts(store: Store) -> None:
    store.commit([SaveEntries([batch(1, *parts(4)), put(2, "b"), batch(3, *parts(3))])])
    rewritten = [put(1, "a", epoch=2), batch(3, *parts(2), epoch=2)]
    store.commit([SaveEntries(rewritten)])
    assert store.load().entries == [rewritten[0], put(2, "b"), rewritten[1]]


def test_a_batch_that_touches_no_key_leaves_no_row(store: Store) -> None:
    store.commit([SaveEntries([batch(1, Change(Kind.NOOP, ""))])])
    assert store.load().entries == []


def test_a_version_given_twice_keeps_the_later_entry(store: Store) -> None:
    store.commit([SaveEntries([batch(1, *parts(4)), put(1, "later"), put(2, "b")])])
    assert store.load().entries == [put(1, "later"), put(2, "b")]


def test_versions_arrive_in_any_order_and_can_be_removed(store: Store) -> None:
    store.commit([SaveEntries([put(9, "i"), put(3, "c")])])
    store.commit([SaveEntries([put(5, "e"), put(4, "d")], removed=[9])])
    assert [entry.version for entry in store.load().entries] == [3, 4, 5]


def test_a_compacted_batch_keeps_its_parts_in_their_places(store: Store) -> None:
    store.commit([SaveEntries([batch(1, *parts(4), request_id="r")]), SaveState(HardState("n", floor=1, trusted=1))])
    store.commit([Compact([(1, 0), (1, 2)], [])])
    [left] = store.load().entries
    gone = Change(Kind.NOOP, "")
    assert left.changes() == (gone, parts(4)[1], gone, parts(4)[3])
    assert (left.version, left.kind, left.request_id) == (1, Kind.BATCH, "r")
    store.commit([SaveEntries([left])])
    assert store.read_rows(1, 0, 10) == [left]
    store.commit([Compact([(1, 1), (1, 3)], [])])
    assert store.load().entries == []


def test_install_replaces_everything_up_to_the_trusted_version(store: Store) -> None:
    store.commit([SaveEntries([*numbers(3), batch(4, *parts(3)), put(6, "above")])])
    entries = [put(2, "x"), batch(5, Change(Kind.NOOP, ""), Change(Kind.PUT, "y"))]
    store.commit([Install(5, entries), SaveState(HardState("n", trusted=5, floor=5))])
    assert store.load().entries == [*entries, put(6, "above")]


def test_read_range_ends_at_a_hole_and_at_the_byte_limit(store: Store) -> None:
    entries = [put(1, "a"), batch(2, *parts(3)), put(3, "c", bytes(1000)), put(5, "e")]
    store.commit([SaveEntries(entries)])
    assert store.read_range(0, 9, 1 << 20) == entries[:3]
    assert store.read_range(0, 2, 1 << 20) == entries[:2]
    assert store.read_range(0, 9, 1) == entries[:1]
    assert store.read_range(2, 9, 1) == entries[2:3]
    assert store.read_range(3, 9, 1 << 20) == []
    assert store.read_range(9, 20, 1 << 20) == []


def test_read_rows_pages_through_holes(store: Store) -> None:
    entries = [put(1, "a"), batch(2, *parts(3)), put(4, "d"), put(8, "h"), put(9, "i")]
    store.commit([SaveEntries(entries)])
    pages, after = [], 0
    while page := store.read_rows(8, after, 2):
        pages.append(page)
        after = page[-1].version
    assert pages == [entries[:2], entries[2:4]]


def test_small_values_of_the_driver(store: Store) -> None:
    assert store.get_meta("addresses") is None
    store.set_meta("addresses", "one")
    store.set_meta("addresses", "two")
    assert store.get_meta("addresses") == "two"


@pytest.mark.parametrize("on_disk", [True, False])
def test_a_batch_has_room_for_1024_changes_and_a_failed_commit_changes_nothing(tmp_path: Path, on_disk: bool) -> None:
    full = batch(2, *parts(1024))
    with closing(Store(tmp_path if on_disk else None)) as store:
        store.commit([SaveEntries([full])])
        for wrong in (batch(3, *parts(1025)), batch(3)):
            with pytest.raises(AssertionError):
                store.commit([SaveEntries([put(1, "a")]), SaveEntries([wrong])])
        assert store.load().entries == [full]


def test_close_may_be_called_twice(store: Store) -> None:
    store.close()
    store.close()


def test_memory_needs_no_sync() -> None:
    with closing(Store(None)) as store:
        assert store.sync_cost_ms() == 0.0


# --- against a model ---

VERSIONS = st.integers(1, 40)
KEYS = st.sampled_from(["a", "b", "c"])
VALUES = st.sampled_from([b"", b"x", b"\xff", b"\0", "\u00e4".encode()])
CHANGES = st.builds(Change, st.sampled_from([int(Kind.PUT), int(Kind.DELETE)]), KEYS, VALUES, st.sampled_from([0, 1]))
SINGLES = st.builds(Entry, VERSIONS, st.integers(1, 3), st.sampled_from([0, 1, 2]), KEYS, VALUES, st.just(0), KEYS)
BATCHES = st.builds(
    lambda version, epoch, changes: batch(version, *changes, epoch=epoch),
    VERSIONS,
    st.integers(1, 3),
    st.lists(CHANGES, min_size=1, max_size=4),
)
ENTRIES = st.lists(SINGLES | BATCHES, max_size=6, unique_by=lambda entry: entry.version)
GROUPS = st.builds(
    lambda first, epoch, changes: [
        Entry(first + index, epoch, change.kind, change.key, change.value, change.encoding)
        for index, change in enumerate(changes)
    ],
    st.integers(1, 30),
    st.integers(1, 3),
    st.lists(CHANGES, min_size=RUN_ENTRIES_MIN, max_size=RUN_ENTRIES_MIN + 8),
)
"""Consecutive puts and deletes: what becomes a run."""


class AgainstADict(RuleBasedStateMachine):
    """The store does what a dict of entries does; only what was compacted from runs may be back after a restart."""

    @initialize()
    def found(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="retinue-store-"))
        self.restarts = 0
        self.model: dict[int, Entry] = {}
        self.compacted: dict[int, Entry] = {}
        self.store = Store(self.directory / "0", synchronous="OFF")
        self.hard = HardState(self.store.load().hard.node_id, floor=EVERYWHERE)
        self.store.commit([SaveState(self.hard)])

    @rule(entries=ENTRIES | GROUPS, removed=st.lists(VERSIONS, max_size=2), promised=st.integers(0, 9))
    def save(self, entries: list[Entry], removed: list[int], promised: int) -> None:
        self.hard = HardState(self.hard.node_id, promised=promised, floor=EVERYWHERE)
        self.store.commit([SaveEntries(entries, removed), SaveState(self.hard)])
        for version in removed:
            self.model.pop(version, None)
        self.model.update({entry.version: entry for entry in entries})
        for version in (*removed, *(entry.version for entry in entries)):
            self.compacted.pop(version, None)

    @rule(dead=st.lists(st.tuples(VERSIONS, st.integers(0, 3)), max_size=3))
    def compact(self, dead: list[tuple[int, int]]) -> None:
        dead = [(version, part) for version, part in dead if version in self.model]
        self.store.commit([Compact(dead, [])])
        for version, part in dead:
            self.forget(version, part)

    @rule(first=VERSIONS, count=st.integers(1, 20), spared=st.integers(1, 60))
    def compact_a_stretch(self, first: int, count: int, spared: int) -> None:
        dead = [(version, 0) for version in range(first, first + count) if version != spared]
        dead = [(version, part) for version, part in dead if version in self.model]
        self.store.commit([Compact(dead[:2], []), Compact(dead[2:], [])])
        for version, part in dead:
            self.forget(version, part)

    def forget(self, version: int, part: int) -> None:
        entry = self.model.get(version)
        if entry is None or (entry.kind != Kind.BATCH and part > 0):
            return
        changes = list(entry.changes())
        if part < len(changes):
            changes[part] = Change(Kind.NOOP, "")
        if entry.kind != Kind.BATCH or all(change.kind == Kind.NOOP for change in changes):
            self.compacted[version] = self.model.pop(version)
        else:
            self.model[version] = batch(version, *changes, epoch=entry.epoch, request_id=entry.request_id)

    @rule(trusted=VERSIONS, entries=ENTRIES | GROUPS)
    def install(self, trusted: int, entries: list[Entry]) -> None:
        entries = [entry for entry in entries if entry.version <= trusted]
        self.store.commit([Install(trusted, entries)])
        self.model = {version: entry for version, entry in self.model.items() if version > trusted}
        self.compacted = {version: entry for version, entry in self.compacted.items() if version > trusted}
        self.model.update({entry.version: entry for entry in entries})

    @rule(clean=st.booleans())
    def restart(self, clean: bool) -> None:
        before = self.directory / str(self.restarts)
        self.restarts += 1
        after = self.directory / str(self.restarts)
        if clean:
            self.store.close()
        shutil.copytree(before, after)
        self.store.close()
        self.store = Store(after, synchronous="OFF")
        image = self.store.load()
        assert image.hard == self.hard
        assert self.store.opened.clean == clean
        found = {entry.version: entry for entry in image.entries}
        assert self.model.items() <= found.items() <= (self.compacted | self.model).items()
        self.model, self.compacted = found, {}

    @rule(after=st.integers(0, 50), upto=st.integers(0, 50), limit=st.integers(1, 12))
    def read(self, after: int, upto: int, limit: int) -> None:
        kept = [entry for version, entry in sorted(self.model.items()) if after < version <= upto]
        assert self.store.read_rows(upto, after, limit) == kept[:limit]
        run = [entry for index, entry in enumerate(kept) if entry.version == after + 1 + index]
        assert self.store.read_range(after, upto, 1 << 20) == run

    @invariant()
    def same(self) -> None:
        image = self.store.load()
        assert image.hard == self.hard
        assert image.entries == [entry for _, entry in sorted(self.model.items())]

    @invariant()
    def every_version_in_one_place(self) -> None:
        where = layout(self.directory / str(self.restarts))
        assert len({*where.rows, *where.in_runs}) == len(where.rows) + len(where.in_runs)
        assert self.model.keys() <= {*where.rows, *where.in_runs} <= self.model.keys() | self.compacted.keys()

    @invariant()
    def people_see_the_same(self) -> None:
        where = layout(self.directory / str(self.restarts))
        there = {version: (self.model | self.compacted)[version] for version in {*where.rows, *where.in_runs}}
        newest: dict[str, Change] = {}
        for _, entry in sorted(there.items()):
            newest |= {change.key: change for change in entry.changes() if change.kind != Kind.NOOP}
        with closing(sqlite3.connect(self.directory / str(self.restarts) / "retinue.db")) as db:
            shown = [key for (key,) in db.execute("SELECT key FROM kvstore")]
            logged = [version for (version,) in db.execute("SELECT DISTINCT version FROM log")]
        assert shown == sorted(key for key, change in newest.items() if change.kind == Kind.PUT)
        assert logged == sorted(there)

    def teardown(self) -> None:
        self.store.close()
        shutil.rmtree(self.directory)


TestAgainstADict = AgainstADict.TestCase
TestAgainstADict.settings = settings(
    max_examples=40, stateful_step_count=20, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.text(max_size=8), st.binary(max_size=40), st.text(max_size=4)), min_size=1, max_size=6))
def test_any_key_and_any_value_come_back(rows: list[tuple[str, bytes, str]]) -> None:
    entries = [put(1 + index, key, value, request_id=name) for index, (key, value, name) in enumerate(rows)]
    run = [put(101 + index, key, value, request_id=name) for index, (key, value, name) in enumerate(rows * 8)]
    together = batch(99, *(Change(Kind.PUT, key, value, Encoding.JSON) for key, value, _ in rows))
    with closing(Store(None)) as store:
        store.commit([SaveEntries([*entries, together, *run])])
        assert store.load().entries == [*entries, together, *run]
