"""Merging: what `P` nodes hold, made by hand."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retinue.core.merge import Merge
from retinue.core.messages import (
    Entry,
    Kind,
    Promise,
)
from tests.core.one_node import (
    EPOCH,
    answer,
)
from tests.core.parts import (
    noop,
    put,
)


def merged(*answers: Promise, base: int = 0, requests: dict[str, tuple[int, int]] | None = None) -> list[Entry]:
    return Merge(EPOCH, base, [*answers], requests or {}).entries()


def test_nothing_above_the_base_is_nothing_to_propose_again() -> None:
    assert merged(answer(), answer(trusted=3), base=3) == []


def test_a_committed_version_is_in_one_answer_and_is_proposed_again_in_the_new_epoch() -> None:
    assert merged(answer(), answer(put(1, 1, value=b"x"))) == [put(1, EPOCH, value=b"x")]


def test_the_highest_accept_epoch_wins() -> None:
    old, new = put(1, 1, value=b"old"), put(1, 3, value=b"new")
    tables = {1: 1, 3: 2}
    assert merged(answer(old, epochs=tables), answer(new, epochs=tables)) == [put(1, EPOCH, value=b"new")]
    assert merged(answer(new, epochs=tables), answer(old, epochs=tables)) == [put(1, EPOCH, value=b"new")]


def test_an_entry_is_a_ghost_if_a_later_epoch_began_at_or_below_its_version() -> None:
    old = [put(version, 1) for version in (1, 2, 3)]
    other = answer(put(2, 3, value=b"new"), epochs={3: 2})
    assert merged(answer(*old), other) == [put(1, EPOCH), put(2, EPOCH, value=b"new"), noop(3, EPOCH)]


def test_a_ghost_is_known_by_the_epochs_of_any_answer() -> None:
    assert merged(answer(put(2, 1)), answer(epochs={3: 2})) == [noop(1, EPOCH), noop(2, EPOCH)]


def test_an_entry_below_the_start_of_every_later_epoch_is_alive() -> None:
    assert merged(answer(put(1, 1)), answer(epochs={3: 2})) == [put(1, EPOCH)]


def test_an_epoch_does_not_make_ghosts_of_its_own_or_of_later_entries() -> None:
    assert merged(answer(put(1, 3), epochs={1: 1, 3: 1})) == [put(1, EPOCH)]


def test_holes_become_noops() -> None:
    assert merged(answer(put(2, 1)), answer(put(4, 1)), base=1) == [put(2, EPOCH), noop(3, EPOCH), put(4, EPOCH)]


def test_no_version_at_or_below_the_highest_one_seen_is_given_out_again_even_if_it_was_a_ghost() -> None:
    assert merged(answer(put(3, 1)), answer(epochs={3: 1})) == [noop(1, EPOCH), noop(2, EPOCH), noop(3, EPOCH)]


def test_entries_of_epoch_0_are_passed_over() -> None:
    assert merged(answer(put(1, 0), put(2, 0), epochs={})) == []
    assert merged(answer(put(1, 0), put(2, 1))) == [noop(1, EPOCH), put(2, EPOCH)]


def test_entries_below_the_base_are_passed_over() -> None:
    assert merged(answer(put(1, 1), put(2, 1), put(3, 1)), base=2) == [put(3, EPOCH)]


@pytest.mark.parametrize("newer", [2, 4])
def test_of_two_versions_of_one_request_the_one_with_the_highest_accept_epoch_stays(newer: int) -> None:
    epochs = {2: 3, 4: 1} if newer == 2 else {2: 1, 4: 3}
    rows = [put(2, epochs[4], request_id="x"), put(4, epochs[2], request_id="x"), put(3, 1, request_id="y")]
    result = {entry.version: entry for entry in merged(answer(*rows, epochs={1: 1, 3: 5}), base=1)}
    kept = 4 if newer == 2 else 2
    assert result[kept].request_id == "x"
    assert result[6 - kept] == noop(6 - kept, EPOCH)
    assert result[3].request_id == "y"


def test_a_request_that_is_trusted_at_one_version_is_not_proposed_again_at_another() -> None:
    later = answer(put(4, 1), put(5, 2, request_id="x"), epochs={1: 1, 2: 5}, trusted=3)
    result = merged(later, base=3, requests={"x": (3, 0), "z": (2, 0)})
    assert result == [put(4, EPOCH), noop(5, EPOCH)]


def test_a_request_that_is_known_only_above_the_base_is_proposed_again() -> None:
    assert merged(answer(put(4, 1, request_id="x"), trusted=3), base=3, requests={"x": (4, 0)}) == [
        put(4, EPOCH, request_id="x")
    ]


copies = st.builds(put, st.integers(1, 6), st.integers(0, 4), request_id=st.sampled_from(["", "", "x", "y"]))
answers = st.builds(
    lambda rows, epochs: answer(*{row.version: row for row in rows}.values(), epochs=epochs),
    st.lists(copies, max_size=5),
    st.dictionaries(st.integers(1, 4), st.integers(1, 6), max_size=3),
)


@given(st.lists(answers, min_size=1, max_size=3), st.integers(0, 3))
def test_a_merge_is_what_the_rules_say_version_by_version(found: list[Promise], base: int) -> None:
    rows = [row for each in found for row in each.entries if row.version > base and row.epoch > 0]
    later = {(epoch, start) for each in found for epoch, start in each.epochs.items()}
    starts = {epoch: [start for other, start in later if other == epoch][-1] for epoch, _ in later}
    result = Merge(EPOCH, base, found, {}).entries()
    assert [entry.version for entry in result] == [*range(base + 1, max((r.version for r in rows), default=base) + 1)]
    assert all(entry.epoch == EPOCH for entry in result)
    ids = [entry.request_id for entry in result if entry.request_id]
    assert len(ids) == len(set(ids))
    if len(starts) == len(later):
        for entry in result:
            alive = [
                row.epoch
                for row in rows
                if row.version == entry.version and not any(e > row.epoch and s <= row.version for e, s in later)
            ]
            if entry.kind == Kind.NOOP:
                lost = [row for row in rows if row.version == entry.version and row.epoch == max(alive, default=0)]
                assert not alive or any(row.request_id in ids for row in lost)
            else:
                sources = [row for row in rows if msgspec.structs.replace(row, epoch=EPOCH) == entry]
                assert max(alive) in [row.epoch for row in sources]
