"""The order of keys against sorting all of them, whatever comes and goes in between."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from retinue.core.sorted_keys import CHUNK, SortedKeys

names = st.sampled_from(["", "a", "a\0", "ab", "b", "ba", "\U0001f600", "z"])
steps = st.lists(st.tuples(st.sampled_from(["add", "remove", "list"]), names, names | st.none()), max_size=40)


@given(steps)
def test_lists_are_what_sorting_gives(actions: list[tuple[str, str, str | None]]) -> None:
    table: dict[str, int] = {}
    order = SortedKeys(table)
    for action, name, after in actions:
        if action == "add":
            if name not in table:
                order.add(name)
            table[name] = 1
        elif action == "remove":
            table.pop(name, None)
            order.discard(name)
        else:
            expected = [key for key in sorted(table) if key.startswith(name) and (after is None or key > after)]
            assert list(order.among(name, after)) == expected


def test_many_keys_stay_in_order_however_they_come() -> None:
    table: dict[str, int] = {}
    order = SortedKeys(table)

    def add(numbers: range) -> None:
        for number in numbers:
            name = f"{number * 7919 % 100_003:06}"
            if name not in table:
                order.add(name)
            table[name] = number

    add(range(8 * CHUNK))
    assert list(order.among("", None)) == sorted(table)
    for turn in range(8, 20):
        add(range(turn * CHUNK, (turn + 1) * CHUNK))
        assert list(order.among("", None)) == sorted(table)
    middle = sorted(table)[len(table) // 2]
    assert list(order.among("", middle)) == [key for key in sorted(table) if key > middle]
    del table[middle]
    order.discard(middle)
    assert list(order.among("", None)) == sorted(table)
    table[middle] = 0
    order.add(middle)
    assert list(order.among("", None)) == sorted(table)
    for name in sorted(table)[::2]:
        del table[name]
        order.discard(name)
    add(range(20 * CHUNK, 20 * CHUNK + 5))
    assert list(order.among("", None)) == sorted(table)
    for name in sorted(table)[10:]:
        del table[name]
        order.discard(name)
    add(range(30 * CHUNK, 30 * CHUNK + 2))
    assert list(order.among("", None)) == sorted(table)
