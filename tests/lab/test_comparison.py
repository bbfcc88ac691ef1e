from __future__ import annotations

import pytest

from retinue.lab.judging.comparison import Difference, State, compare, difference
from retinue.lab.targets.contract import Cell


def test_equal_dumps_have_no_differences() -> None:
    dump = {"a": Cell("1", 1), "b": Cell("2", 2)}
    assert compare(dump, dict(dump)) == []
    assert compare({}, {}) == []


def test_every_kind_of_difference_is_named_in_the_order_of_keys() -> None:
    leader = {"a": Cell("1", 5), "b": Cell("2", 6), "c": Cell("3", 7), "d": Cell("4", 8), "f": Cell("6", 9)}
    node = {"f": Cell("6", 9), "e": Cell("5", 2), "d": Cell("x", 8), "c": Cell("3", 17), "b": Cell("2", 3)}
    assert compare(leader, node) == [
        Difference("a", State.MISSING, Cell("1", 5), None),
        Difference("b", State.OLDER, Cell("2", 6), Cell("2", 3)),
        Difference("c", State.NEWER, Cell("3", 7), Cell("3", 17)),
        Difference("d", State.DIFFERENT, Cell("4", 8), Cell("x", 8)),
        Difference("e", State.EXTRA, None, Cell("5", 2)),
    ]


def test_without_versions_only_values_are_compared() -> None:
    assert difference(Cell("1", 0), Cell("1", 0)) is None
    assert difference(Cell("1", 0), Cell("2", 0)) is State.DIFFERENT
    assert difference(Cell("1", 7), Cell("1", 0)) is None
    assert difference(None, None) is None


@pytest.mark.parametrize(
    ("leader", "node", "mends"),
    [
        (Cell("1", 1), None, True),
        (None, Cell("1", 1), True),
        (Cell("2", 2), Cell("1", 1), True),
        (Cell("1", 1), Cell("2", 2), False),
        (Cell("1", 1), Cell("2", 1), False),
        (Cell("1", 0), Cell("2", 0), True),
    ],
)
def test_only_what_can_be_on_the_way_may_be_lag(leader: Cell | None, node: Cell | None, mends: bool) -> None:
    [found] = compare({} if leader is None else {"k": leader}, {} if node is None else {"k": node})
    assert found.may_be_lag is mends
