"""The log, against a naive twin that keeps a dict of versions and recomputes everything from scratch."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from retinue.core.log import Log
from retinue.core.messages import Change, Configuration, Entry, HardState, Image, Kind, PartRow, Row
from tests.core.cluster import Disk
from tests.core.parts import (
    batch,
    config,
    delete,
    member_image,
    noop,
    put,
)

KEYS = ["a", "ab", "b", "c"]
IDS = ["", "", "x", "y", "z"]


def change(kind: Kind, key: str, value: bytes = b"") -> Change:
    return Change(kind, key, value)


puts = st.builds(change, st.just(Kind.PUT), st.sampled_from(KEYS), st.binary(max_size=2))
deletes = st.builds(change, st.just(Kind.DELETE), st.sampled_from(KEYS))
changes = st.lists(puts | deletes, min_size=1, max_size=3, unique_by=lambda c: c.key)


def make_entry(version: int, epoch: int, content: Entry) -> Entry:
    return Entry(version, epoch, content.kind, content.key, content.value, content.encoding, content.request_id)


contents = st.one_of(
    st.builds(lambda c, i: Entry(0, 0, c.kind, c.key, c.value, 0, i), puts | deletes, st.sampled_from(IDS)),
    st.builds(lambda parts, i: batch(0, 0, *parts, request_id=i), changes, st.sampled_from(IDS)),
    st.just(noop(0, 0)),
    st.builds(lambda quorum: config(0, 0, quorum), st.integers(0, 5)),
)


class Twin:
    """Every entry ever accepted and not undone, in a dict; each question is answered by walking through all of it."""

    def __init__(self) -> None:
        self.entries: dict[int, Entry] = {}
        self.trusted = 0

    def newest(self, key: str, visible: set[int]) -> tuple[int, int, bytes, bool] | None:
        for version in sorted(visible, reverse=True):
            for part, each in reversed([*enumerate(self.entries[version].changes())]):
                if each.key == key:
                    return version, part, each.value, each.kind == Kind.DELETE
        return None

    def chain(self) -> int:
        chain = 0
        for version in range(1, self.trusted + 1):
            chain = self.entries[version].checksum(chain)
        return chain


def shown(row: Row | None) -> tuple[int, int, bytes, bool] | None:
    return None if row is None else (row.version, row.part, row.value, row.deleted)


def alive(found: tuple[int, int, bytes, bool] | None) -> tuple[int, int, bytes, bool] | None:
    return None if found is None or found[3] else found


class LogModel(RuleBasedStateMachine):
    """Entries come in any order, are replaced, undone, trusted, compacted, reloaded and replaced by a snapshot."""

    @initialize()
    def begin(self) -> None:
        self.disk = Disk("d.1")
        self.twin = Twin()
        self.log = Log(self.disk.image())
        self.floor = 0

    def put_in(self, entry: Entry) -> None:
        trusted = {row.request_id for version, row in self.twin.entries.items() if version <= self.twin.trusted}
        if entry.request_id in trusted:  # no leader gives a second version to an id that is decided
            entry = make_entry(entry.version, entry.epoch, noop(0, 0))
        self.log.accept(entry)
        self.twin.entries[entry.version] = entry
        self.disk.rows[entry.version] = entry

    @rule(ahead=st.integers(1, 5), epoch=st.integers(1, 4), content=contents)
    def accept(self, ahead: int, epoch: int, content: Entry) -> None:
        self.put_in(make_entry(self.twin.trusted + ahead, epoch, content))

    @precondition(lambda self: any(v > self.twin.trusted for v in self.twin.entries))
    @rule(data=st.data())
    def drop(self, data: st.DataObject) -> None:
        version = data.draw(st.sampled_from([v for v in self.twin.entries if v > self.twin.trusted]))
        self.log.drop(version)
        del self.twin.entries[version]
        del self.disk.rows[version]

    @rule(content=contents, many=st.integers(1, 3))
    def settle(self, content: Entry, many: int) -> None:
        for _ in range(many):
            version = self.twin.trusted + 1
            if version not in self.twin.entries:
                self.put_in(make_entry(version, 1, content))
            assert self.log.settle() == self.twin.entries[version]
            self.twin.trusted = version

    @rule(back=st.integers(0, 4), limit=st.integers(1, 3))
    def compact(self, back: int, limit: int) -> None:
        floor = self.log.trusted - back
        dead, tombstones = self.log.compact(floor, limit)
        assert len(dead) + len(tombstones) <= limit
        for version, part in (*dead, *tombstones):
            self.disk._remove(version, part)
        assert self.floor <= self.log.floor <= max(self.floor, floor)
        self.floor = self.log.floor

    def hard(self) -> HardState:
        log = self.log
        return HardState(
            "d.1",
            trusted=log.trusted,
            floor=log.floor,
            chain=log.chain,
            configuration=log.configuration,
            configuration_version=log.configuration_version,
        )

    @rule()
    def reload(self) -> None:
        self.disk.hard = self.hard()
        self.log = Log(self.disk.image())

    @rule(kept=st.booleans())
    def install_elsewhere(self, kept: bool) -> None:
        """Everything trusted moves to another node, that has trusted less and has other entries above."""
        old = self.log
        rows = [row for version, row in sorted(self.disk.rows.items()) if version <= old.trusted]
        self.log = Log(Image(HardState("e.1"), {}, [put(1, 1, "a"), put(old.trusted + 1, 1, "a", b"gone")]))
        self.log.drop(old.trusted + 1)
        above = [row for version, row in sorted(self.disk.rows.items()) if version > old.trusted and kept]
        for row in above:
            self.log.accept(row)
        self.log.install(old.trusted, old.floor, old.chain, rows)
        self.log.configuration, self.log.configuration_version = old.configuration, old.configuration_version
        for row in (*self.disk.rows.values(),):
            if row.version > old.trusted and not kept:
                del self.disk.rows[row.version], self.twin.entries[row.version]

    # --- what must hold ---

    @invariant()
    def same_prefix(self) -> None:
        assert self.log.trusted == self.twin.trusted
        assert self.log.chain == self.twin.chain()
        assert self.log.last == max([self.twin.trusted, *self.twin.entries])
        assert self.log.above == {v: e for v, e in self.twin.entries.items() if v > self.twin.trusted}

    @invariant()
    def same_newest_rows(self) -> None:
        trusted = {version for version in self.twin.entries if version <= self.twin.trusted}
        above = set(self.twin.entries) - trusted
        odd = {version for version in above if version % 2}
        for key in KEYS:
            assert alive(shown(self.log.newest(key))) == alive(self.twin.newest(key, trusted | above))
            assert alive(shown(self.log.newest_in(key, odd))) == alive(self.twin.newest(key, trusted | odd))
            touched = [v for v in above if any(c.key == key for c in self.twin.entries[v].changes())]
            assert self.log.undecided(key, odd) == any(not version % 2 for version in touched)
            assert self.log.versions_of.get(key, []) == sorted(touched)

    @invariant()
    def same_keys_in_order(self) -> None:
        trusted = {version for version in self.twin.entries if version <= self.twin.trusted}
        keys = [key for key in KEYS if alive(self.twin.newest(key, trusted))]
        for prefix in ("", "a", "b", "zz"):
            for after in (None, "", "a", "b"):
                wanted = [k for k in keys if k.startswith(prefix) and (after is None or k > after)]
                assert [*self.log.keys(prefix, after)] == wanted

    @invariant()
    def request_ids_are_known_from_the_floor_on(self) -> None:
        held: dict[str, list[Entry]] = {}
        decided_below = set()
        for entry in self.twin.entries.values():
            if entry.request_id and entry.version > self.log.floor:
                held.setdefault(entry.request_id, []).append(entry)
            elif entry.request_id:
                decided_below.add(entry.request_id)
        assert held.keys() - decided_below <= self.log.requests.keys() <= held.keys()
        for request_id, (version, fingerprint) in self.log.requests.items():
            assert self.twin.entries[version].request_id == request_id
            assert self.twin.entries[version].fingerprint() == fingerprint
            settled = [e.version for e in held[request_id] if e.version <= self.twin.trusted]
            assert version in (settled or [e.version for e in held[request_id]])

    @invariant()
    def the_disk_has_every_version_above_the_floor(self) -> None:
        assert self.disk.rows.keys() >= {*range(self.log.floor + 1, self.log.trusted + 1)}
        for key in KEYS:
            row = self.log.rows.get(key)
            assert row is None or row.version in self.disk.rows

    @invariant()
    def same_configuration(self) -> None:
        configs = [v for v, e in self.twin.entries.items() if e.kind == Kind.CONFIG and v <= self.twin.trusted]
        assert self.log.configuration_version == max(configs, default=0)
        if configs:
            assert self.log.configuration is not None
            assert self.twin.entries[max(configs)].value == config(0, 0, self.log.configuration.write_quorum).value
            assert self.log.configuration_version in self.disk.rows


LogModel.TestCase.settings = settings(
    max_examples=60, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestLogAgainstItsTwin = LogModel.TestCase


def test_a_trusted_version_is_final() -> None:
    log = Log(member_image("d.1", put(1, 1), trusted=1))
    with pytest.raises(AssertionError, match="final"):
        log.accept(put(1, 2))


def test_undoing_an_entry_brings_the_older_value_back() -> None:
    log = Log(member_image("d.1", put(1, 1, value=b"old"), put(2, 1, value=b"new"), trusted=1))
    log.drop(2)
    row = log.newest("k")
    assert row is not None
    assert row.value == b"old"
    assert log.last == 1


def test_undoing_one_of_two_entries_with_a_request_id_leaves_the_other() -> None:
    log = Log(member_image("d.1", put(1, 1, request_id="x"), noop(2, 1), put(3, 2, request_id="x")))
    assert log.requests["x"][0] == 3
    log.drop(3)
    assert log.requests["x"][0] == 1
    log.drop(1)
    assert "x" not in log.requests


def test_the_last_part_of_a_batch_that_touches_a_key_counts() -> None:
    twice = batch(1, 1, change(Kind.PUT, "k", b"1"), change(Kind.PUT, "k", b"2"))
    log = Log(member_image("d.1", twice))
    before = log.newest("k")
    log.settle()
    assert before == log.newest("k") == PartRow(1, 1, b"2", 0, 1)
    assert log.compact(1, 10) == ([(1, 0)], [])


def test_the_configuration_in_force_survives_a_restart_and_compaction() -> None:
    image = member_image("d.1", config(1, 1, 2), config(2, 1, 4), put(3, 1), trusted=3)
    hard = HardState("d.1", trusted=3, configuration=Configuration(4), configuration_version=2)
    log = Log(Image(hard, {}, image.entries))
    assert log.configuration == Configuration(4)
    assert log.compact(3, 10) == ([(1, 0)], [])


def test_what_compaction_has_made_of_a_batch_is_not_taken_for_what_the_client_asked() -> None:
    whole = batch(1, 1, change(Kind.PUT, "a"), change(Kind.PUT, "b"), request_id="x")
    rest = batch(1, 1, Change(Kind.NOOP, ""), change(Kind.PUT, "b"), request_id="x")
    log = Log(member_image("d.1", rest, put(2, 1, "a"), trusted=2, floor=2))
    assert whole.fingerprint() != rest.fingerprint()
    assert "x" not in log.requests
    assert log.rows.keys() == {"a", "b"}


def test_compaction_goes_on_where_it_stopped_at_its_limit() -> None:
    log = Log(member_image("d.1", *(put(version, 1) for version in range(1, 8)), trusted=7))
    assert log.compact(6, 2) == ([(1, 0), (2, 0)], [])
    assert log.floor == 3
    assert log.compact(6, 100) == ([(3, 0), (4, 0), (5, 0)], [])
    assert log.floor == 6


def test_after_a_restart_everything_below_the_floor_comes_again_in_slices() -> None:
    log = Log(member_image("d.1", *(put(version, 1) for version in range(1, 8)), trusted=7, floor=6))
    assert log.compact(3, 2) == ([(1, 0), (2, 0)], [])
    assert log.compact(3, 2) == ([(3, 0), (4, 0)], [])
    assert log.floor == 6
    assert log.compact(3, 100) == ([(5, 0)], [])
    assert log.floor == 6


def test_copies_of_a_version_have_one_checksum_in_every_epoch_and_another_for_other_content() -> None:
    assert put(1, 1).checksum() == put(1, 7).checksum()
    others = [put(2, 1), put(1, 1, "k2"), put(1, 1, value=b"w"), delete(1, 1), put(1, 1, request_id="x")]
    others.append(Entry(1, 1, Kind.PUT, "k", b"v", expires_ms=1))
    assert put(1, 1).checksum() not in {other.checksum() for other in others}
    assert put(1, 1).fingerprint() != others[-1].fingerprint()


def test_a_stale_copy_above_does_not_hide_where_a_request_is_trusted() -> None:
    log = Log(member_image("d.1", put(1, 1, request_id="x"), trusted=1))
    log.accept(put(3, 1, request_id="x"))
    assert log.requests["x"][0] == 1
    log.drop(3)
    assert log.requests["x"][0] == 1


def test_a_request_id_that_was_given_again_after_the_leader_forgot_it_is_known_at_its_later_version() -> None:
    log = Log(member_image("d.1", put(1, 1, request_id="x"), put(2, 1, request_id="x"), trusted=2))
    log.compact(1, 10)
    assert log.requests["x"][0] == 2
    log.compact(2, 10)
    assert log.requests == {}


def test_a_deleted_key_is_not_listed_any_more_and_one_that_comes_back_is() -> None:
    log = Log(member_image("d.1", put(1, 1, "a"), put(2, 1, "b"), delete(3, 1, "a"), put(4, 1, "a"), trusted=2))
    assert [*log.keys("", None)] == ["a", "b"]
    log.settle()
    assert [*log.keys("", None)] == ["b"]
    log.settle()
    assert [*log.keys("", None)] == ["a", "b"]


def test_versions_of_one_key_are_trusted_one_after_the_other() -> None:
    log = Log(member_image("d.1", put(1, 1, value=b"1"), put(2, 1, value=b"2"), noop(3, 1)))
    log.settle()
    assert log.versions_of == {"k": [2]}
    assert (log.rows["k"].value, log.row_at(2, "k").value) == (b"1", b"2")
    log.settle()
    log.settle()
    assert log.versions_of == {}
    assert log.compact(3, 10) == ([(1, 0), (3, 0)], []), "a noop leaves no row"


def test_a_listing_ends_with_its_prefix() -> None:
    log = Log(member_image("d.1", put(1, 1, "a"), put(2, 1, "ab"), put(3, 1, "b"), trusted=3))
    assert [*log.keys("a", None)] == ["a", "ab"]
    assert [*log.keys("a", "a")] == ["ab"]


def test_what_is_left_of_a_batch_is_loaded_again() -> None:
    rest = batch(1, 1, Change(Kind.NOOP, ""), change(Kind.PUT, "b", b"1"))
    log = Log(member_image("d.1", rest, trusted=1, floor=1))
    assert log.rows == {"b": PartRow(1, 1, b"1", 0, 1)}


def test_an_entry_that_is_dropped_leaves_the_last_version_where_it_was_unless_it_was_the_last() -> None:
    log = Log(member_image("d.1", put(1, 1), put(2, 1, "j"), put(4, 1)))
    log.drop(2)
    assert log.last == 4
    log.drop(4)
    assert log.last == 1


def test_deleting_what_is_not_there_leaves_nothing() -> None:
    log = Log(member_image("d.1", delete(1, 1), trusted=1))
    assert log.rows == {}
    assert [*log.keys("", None)] == []
    assert log.compact(1, 10) == ([], [(1, 0)])
