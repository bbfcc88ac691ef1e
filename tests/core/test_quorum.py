"""The counting rules, against counting every set of nodes."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retinue.core.quorum import copies_needed, next_epoch, owner_of, promises_needed

CLUSTERS = [(nodes, quorum) for nodes in range(1, 8) for quorum in range(nodes)]


@pytest.mark.parametrize(("nodes", "quorum"), CLUSTERS)
def test_every_set_of_promises_meets_every_set_of_copies(nodes: int, quorum: int) -> None:
    copies = [set(c) for c in combinations(range(nodes), copies_needed(quorum))]
    promises = [set(p) for p in combinations(range(nodes), promises_needed(nodes, quorum))]
    assert promises
    assert all(c & p for c in copies for p in promises)


@pytest.mark.parametrize(("nodes", "quorum"), CLUSTERS)
def test_one_promise_fewer_would_miss_some_set_of_copies(nodes: int, quorum: int) -> None:
    copies = [set(c) for c in combinations(range(nodes), copies_needed(quorum))]
    fewer = [set(p) for p in combinations(range(nodes), promises_needed(nodes, quorum) - 1)]
    assert any(not c & p for c in copies for p in fewer)


@pytest.mark.parametrize(("quorum", "copies", "promises"), [(1, 2, 5), (2, 3, 4), (3, 4, 3), (4, 5, 2), (5, 6, 1)])
def test_six_nodes_count_as_the_table_says(quorum: int, copies: int, promises: int) -> None:
    assert copies_needed(quorum) == copies
    assert promises_needed(6, quorum) == promises


@given(st.integers(0, 1000), st.integers(1, 9), st.data())
def test_the_next_epoch_is_higher_than_any_seen_and_ones_own(seen: int, nodes: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, nodes - 1))
    epoch = next_epoch(seen, index, nodes)
    assert epoch > seen
    assert owner_of(epoch, nodes) == index
    assert epoch - seen < 2 * nodes


def test_two_candidates_never_choose_the_same_epoch() -> None:
    chosen = [next_epoch(seen, index, 6) for index in range(6) for seen in (0, 1, 6, 7)]
    owners = {epoch: owner_of(epoch, 6) for epoch in chosen}
    assert all(owners[next_epoch(seen, index, 6)] == index for index in range(6) for seen in (0, 1, 6, 7))


def test_the_founder_begins_with_epoch_one() -> None:
    assert next_epoch(0, 0, 6) == 1
