from __future__ import annotations

from typing import Any

from retinue.lab.checker import FIXED_LEADER
from retinue.lab.history import Kind, Level, Operation, Outcome
from retinue.lab.judging.verdicts import judge, losses
from retinue.lab.targets.contract import Cell


def put(value: str, begun: float, ended: float | None, **more: Any) -> Operation:
    return operation(Kind.PUT, begun, ended, value=value, **more)


def delete(begun: float, ended: float | None, **more: Any) -> Operation:
    return operation(Kind.DELETE, begun, ended, **more)


def operation(kind: Kind, begun: float, ended: float | None, **more: Any) -> Operation:
    fields: dict[str, Any] = {"outcome": Outcome.UNKNOWN if ended is None else Outcome.OK} | more
    return Operation(client="c", kind=kind, key="k", invoked_ms=begun, completed_ms=ended, **fields)


def lost(history: list[Operation], final: str | None) -> list[str]:
    return [str(loss) for loss in losses(history, {} if final is None else {"k": Cell(final, 0)})]


def test_the_last_acknowledged_write_has_to_be_there() -> None:
    history = [put("a", 0, 1), put("b", 2, 3)]
    assert lost(history, "b") == []
    assert lost(history, "a") == ["'b' was acknowledged for 'k', and the key has 'a'"]
    assert lost(history, None) == ["'b' was acknowledged for 'k', and the key is absent"]


def test_of_writes_at_the_same_time_either_may_be_last() -> None:
    history = [put("a", 0, 5), put("b", 2, 3)]
    assert lost(history, "a") == lost(history, "b") == []


def test_unknown_writes_may_come_at_any_time_or_never() -> None:
    history = [put("a", 0, None), put("b", 2, 3)]
    assert lost(history, "a") == lost(history, "b") == []
    assert lost([put("a", 0, None)], None) == []
    assert lost([put("b", 0, 1), delete(2, None)], None) == []


def test_refused_writes_are_no_excuse() -> None:
    history = [put("a", 0, 1), put("b", 2, 3, outcome=Outcome.FAILED)]
    assert lost(history, "b") == ["'a' was acknowledged for 'k', and the key has 'b'"]


def test_a_deleted_key_must_not_come_back() -> None:
    history = [put("a", 0, 1), delete(2, 3)]
    assert lost(history, None) == []
    [loss] = losses(history, {"k": Cell("a", 0)})
    assert loss.undone_delete
    assert str(loss) == "the delete of 'k' was acknowledged, and the key has 'a'"


def test_versions_are_believed_where_there_are_any() -> None:
    history = [put("a", 0, 10, version=2), put("b", 1, 10, version=1)]
    assert losses(history, {"k": Cell("a", 2)}) == []
    assert [loss.write.value for loss in losses(history, {"k": Cell("b", 1)})] == ["a"]


def test_the_final_state_is_part_of_the_history() -> None:
    history = [put("a", 0, 1, version=1), put("b", 2, 3, version=2)]
    good = judge(history, {"k": Cell("b", 2)}, 10, FIXED_LEADER)
    assert (good.lost, good.broken, good.linearizable) == ([], [], True)
    bad = judge(history, {"k": Cell("a", 1)}, 10, FIXED_LEADER)
    assert bad.linearizable is False
    assert any(sentence.startswith("stale read: ") for sentence in bad.broken)


def test_without_versions_an_order_is_searched_all_the_same() -> None:
    read = operation(Kind.READ, 4, 5, observed="a", level=Level.COMMITTED)
    history = [put("a", 0, 1), put("b", 2, 3), read]
    found = judge(history, {"k": Cell("b", 0)}, 10, FIXED_LEADER)
    assert (found.lost, found.linearizable) == ([], False)
    assert judge(history[:2], {"k": Cell("b", 0)}, 10, FIXED_LEADER).linearizable is True


def test_where_nobody_could_read_the_final_state_nothing_is_called_lost() -> None:
    found = judge([put("a", 0, 1)], None, 10, FIXED_LEADER)
    assert (found.lost, found.broken, found.linearizable) == ([], [], True)
