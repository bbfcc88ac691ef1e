"""The checkers must explain correct histories and refuse wrong ones: one small history for each rule."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from retinue.lab.checker import (
    FIXED_LEADER,
    FinalNode,
    check_counter,
    check_final,
    check_history,
    check_list,
    check_set,
    check_sums,
)
from retinue.lab.history import (
    ABSENT,
    PRESENT,
    Kind,
    Level,
    Operation,
    Outcome,
    load_history,
    save_history,
)
from retinue.lab.linearizability import search_key


def put(value: str, begin: float, end: float | None, version: int = 0, **more: object) -> Operation:
    """A put of client w; without an end its outcome is unknown."""
    outcome = Outcome.UNKNOWN if end is None else Outcome.OK
    fields: dict[str, object] = {"client": "w", "kind": Kind.PUT, "key": "k", "value": value, "outcome": outcome}
    fields |= {"invoked_ms": begin, "completed_ms": end, "version": version, "request_id": f"id-{value}"}
    return Operation(**(fields | more))  # type: ignore[arg-type]


def delete(begin: float, end: float | None, version: int = 0, **more: object) -> Operation:
    """A delete of client w."""
    request_id = str(more.pop("request_id", "id-delete"))
    gone = put("", begin, end, version, request_id=request_id, **more)
    return structs.replace(gone, kind=Kind.DELETE, value=None)


def read(value: str | None, begin: float, end: float, version: int = 0, level: Level = Level.STRONG) -> Operation:
    """A read of client r."""
    return Operation(
        client="r",
        kind=Kind.READ,
        key="k",
        invoked_ms=begin,
        completed_ms=end,
        observed=value,
        version=version,
        level=level,
    )


def checks_of(history: list[Operation], **options: object) -> set[str]:
    """The names of the checks that a history violates."""
    return {violation.check for violation in check_history(history, **options).violations}  # type: ignore[arg-type]


GOOD = {
    "one after the other": [put("a", 0, 1, 1), read("a", 2, 3, 1), put("b", 4, 5, 2), read("b", 6, 7, 2)],
    "a read during a write may see either": [put("a", 0, 1, 1), put("b", 2, 9, 2), read("a", 3, 4, 1)],
    "an unknown write takes effect late": [
        put("a", 0, 1, 1),
        put("b", 2, None),
        read("a", 5, 6, 1),
        read("b", 7, 8, 2),
    ],
    "an unknown write never takes effect": [put("a", 0, None), read(None, 5, 6)],
    "an unknown delete": [put("a", 0, 1, 1), delete(2, None), read(None, 5, 6)],
    "compare-and-set": [put("a", 0, 1, 1), put("b", 2, 3, 2, expected=1), read("b", 4, 5, 2)],
    "put if absent after a delete": [put("a", 0, 1, 1), delete(2, 3, 2), put("b", 4, 5, 3, expected=ABSENT)],
    "a stale local read": [put("a", 0, 1, 1), put("b", 2, 3, 2), read("a", 4, 5, 1, Level.LOCAL)],
}

BAD = {
    "a stale read": ([put("a", 0, 1, 1), put("b", 2, 3, 2), read("a", 4, 5, 1)], "stale read"),
    "a lost write": ([put("a", 0, 1, 1), read(None, 2, 3)], "lost value"),
    "a write comes back": (
        [put("a", 0, 1, 1), put("b", 2, None), read("b", 4, 5, 2), read("a", 6, 7, 1)],
        "linearizability",
    ),
    "two deletes cannot be one": ([put("a", 0, 1, 1), delete(2, 3, 2), read("a", 4, 5, 1)], "linearizability"),
    "an unknown write is seen and gone": (
        [put("a", 0, None), read("a", 1, 2), read(None, 3, 4)],
        "linearizability",
    ),
    "a lost update": (
        [put("a", 0, 1, 1), put("b", 2, 3, 2, expected=1), put("c", 2, 4, 3, expected=1)],
        "lost update",
    ),
    "a delete of what is absent": ([delete(0, 1, 1, expected=PRESENT)], "linearizability"),
    "versions against time": ([put("a", 0, 1, 2), put("b", 2, 3, 1)], "version order"),
    "two values of one version": (
        [put("a", 0, 1, 1), put("b", 0, None), read("b", 2, 3, 1)],
        "one value per version",
    ),
    "a value nobody wrote": ([read("ghost", 0, 1, 1)], "phantom"),
    "a value from the future": ([read("a", 0, 1, 1), put("a", 2, 3, 1)], "read from the future"),
}


@pytest.mark.parametrize("name", GOOD)
def test_correct_histories_are_explained(name: str) -> None:
    assert checks_of(GOOD[name]) == set()


@pytest.mark.parametrize("name", BAD)
def test_wrong_histories_are_refused(name: str) -> None:
    history, check = BAD[name]
    assert check in checks_of(history)


def test_committed_reads_count_only_with_a_fixed_leader() -> None:
    history = [put("a", 0, 1, 1), put("b", 2, 3, 2), read("a", 4, 5, 1, Level.COMMITTED)]
    assert checks_of(history) == set()
    assert "stale read" in checks_of(history, linearizable=FIXED_LEADER)


def test_a_failed_condition_shows_the_state_where_the_leader_is_fixed() -> None:
    failed = put("c", 4, 5, 1, expected=7, outcome=Outcome.CONDITION_FAILED)
    history = [put("a", 0, 1, 1), put("b", 2, 3, 2), failed]
    assert checks_of(history) == set()
    assert "stale read" in checks_of(history, linearizable=FIXED_LEADER)


def test_the_search_gives_up_at_its_cap() -> None:
    history = [put(f"{number}", 0, 100, number + 1) for number in range(12)] + [read("gone", 200, 201)]
    assert search_key(history, step_cap=50).linearizable is None
    assert check_history(history, step_cap=50).undecided == 1


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("wrdu"), st.floats(0, 3), st.floats(0, 3)), max_size=25))
def test_whatever_one_register_does_is_explained(steps: list[tuple[str, float, float]]) -> None:
    """Operations that take effect one by one, seen through any delays, always have an order."""
    history: list[Operation] = []
    value: str | None = None
    version = 0
    for moment, (what, before, after) in enumerate(steps):
        begin, end = moment - before, moment + after
        if what == "r":
            history.append(read(value, begin, end, version if value is not None else 0))
            continue
        value = None if what == "d" else f"v{moment}"
        version = moment + 1
        if what == "d":
            history.append(delete(begin, end, version, request_id=f"id-{moment}"))
        else:
            history.append(put(value or "", begin, None if what == "u" else end, 0 if what == "u" else version))
    assert search_key(history).linearizable is True


def test_sessions_never_go_back() -> None:
    older = read("a", 4, 5, 1, Level.SESSION)
    seen = read("b", 2, 3, 2, Level.SESSION)
    writes = [put("a", 0, 1, 1), put("b", 1, 2, 2)]
    assert checks_of([*writes, seen, older]) == {"session"}
    assert checks_of([*writes, older]) == set()


def test_a_session_reads_its_own_writes() -> None:
    writes = [put("a", 0, 1, 1, client="r"), put("b", 2, 3, 2, client="r")]
    assert checks_of([*writes, read("a", 4, 5, 1, Level.SESSION)]) == {"session"}
    assert checks_of([*writes, read(None, 4, 5, 0, Level.SESSION)]) == {"session"}


def final(name: str = "n1", **fields: object) -> FinalNode:
    """A node that holds write `a` at version 1."""
    defaults: dict[str, object] = {"trusted": 1, "pending": 0, "digest": "d", "requests": {"id-a": [1]}}
    return FinalNode(name, **(defaults | fields))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("node", "check"),
    [
        (final("n2", digest="other"), "nodes equal"),
        (final("n2", pending=1), "nothing pending"),
        (final("n2", requests={}), "acknowledged exactly once"),
        (final("n2", requests={"id-a": [1, 2]}), "acknowledged exactly once"),
        (final("n2", requests={"id-a": [2]}), "acknowledged exactly once"),
    ],
)
def test_final_checks_see_one_node_that_differs(node: FinalNode, check: str) -> None:
    history = [put("a", 0, 1, 1)]
    assert not check_final([final()], history).violations
    assert [violation.check for violation in check_final([final(), node], history).violations] == [check]


def test_superseded_rows_below_the_floor_may_be_gone() -> None:
    assert not check_final([final(), final("n2", floor=1, requests={})], [put("a", 0, 1, 1)]).violations


def test_unknown_writes_are_the_same_everywhere() -> None:
    history = [put("a", 0, None)]
    assert not check_final([final(), final("n2")], history).violations
    assert not check_final([final(requests={}), final("n2", requests={})], history).violations
    split = check_final([final(), final("n2", requests={})], history).violations
    assert [violation.check for violation in split] == ["unknown, but the same everywhere"]
    twice = check_final([final(requests={"id-a": [1, 2]})], history).violations
    assert [violation.check for violation in twice] == ["one request, one version"]


def test_what_was_refused_is_nowhere() -> None:
    refused = [put("a", 0, 1, outcome=Outcome.FAILED)]
    assert [v.check for v in check_final([final()], refused).violations] == ["refused means nothing written"]
    assert not check_final([final(requests={})], refused).violations


def test_sets_lists_counters_and_sums() -> None:
    added = [put("in", 0, 1, 1, key="set/a"), put("in", 0, None, key="set/b")]
    assert not check_set(added, {"set/a"}).violations
    assert [v.check for v in check_set(added, {"set/b", "set/c"}).violations] == [
        "set: lost element",
        "set: phantom element",
    ]
    grown = [put("1", 0, 1, 1), put("1,2", 2, 3, 2)]
    assert not check_list(grown, "k", ["1", "2"]).violations
    assert check_list(grown, "k", ["1", "3"]).violations
    assert check_list(grown, "k", ["1", "2", "2"]).violations
    counted = [put("1", 0, 1, 1), put("2", 2, None)]
    assert not check_counter(counted, "k", 1).violations
    assert not check_counter(counted, "k", 2).violations
    assert check_counter(counted, "k", 0).violations
    scan = Operation(client="r", kind=Kind.SCAN, key="s/", invoked_ms=0, observed='{"s/a": "40:x", "s/b": "60:x"}')
    assert not check_sums([scan], "s/", 100).violations
    assert check_sums([scan], "s/", 99).violations


def test_histories_survive_the_file(tmp_path: Path) -> None:
    history = [put("a", 0, 1.5, 1), read("a", 2, 3, 1), delete(4, None, expected=PRESENT)]
    save_history(tmp_path / "history.jsonl", history)
    assert load_history(tmp_path / "history.jsonl") == history
