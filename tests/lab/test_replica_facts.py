"""What a history says about why followers differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from retinue.lab.history import Kind, Operation, Outcome
from retinue.lab.judging.comparison import compare
from retinue.lab.judging.diagnosis import NodeFacts
from retinue.lab.judging.replica_facts import known_from, plain_facts
from retinue.lab.judging.settling import Settled
from retinue.lab.targets.contract import Cell


def put(value: str, outcome: Outcome = Outcome.OK) -> Operation:
    return Operation(client="c", kind=Kind.PUT, key="k", value=value, invoked_ms=1, completed_ms=2, outcome=outcome)


def delete(outcome: Outcome = Outcome.OK) -> Operation:
    return Operation(client="c", kind=Kind.DELETE, key="k", invoked_ms=1, completed_ms=2, outcome=outcome)


def facts(
    history: Sequence[Operation],
    leader: Mapping[str, str],
    follower: Mapping[str, str],
    quorum: int = 0,
    silent: Sequence[str] = (),
) -> NodeFacts:
    first, other = ({key: Cell(value, 0) for key, value in dump.items()} for dump in (leader, follower))
    settled = Settled(
        leader="leader",
        dumps={"leader": first, "f": other},
        differences={"f": compare(first, other)},
        waited_ms=0,
        silent=dict.fromkeys(silent, "It sleeps."),
    )
    [found] = plain_facts(settled, known_from(history, settled, quorum))
    return found


def test_what_was_written_once_and_never_came_is_missing() -> None:
    found = facts([put("a")], {"k": "a"}, {})
    assert (found.missing, found.missing_once, found.outdated) == (1, 1, 0)
    assert found.missing_keys == "k"


def test_a_key_that_somebody_deleted_may_have_been_there() -> None:
    """The leader took a put after a delete, a follower the delete last: that is order, not a lost send."""
    found = facts([put("a"), put("b"), delete()], {"k": "b"}, {})
    assert (found.missing, found.outdated, found.went_back) == (0, 1, 0)


def test_a_delete_that_had_no_effect_explains_nothing() -> None:
    assert facts([put("a"), delete(Outcome.FAILED)], {"k": "a"}, {}).missing == 1


@pytest.mark.parametrize(
    ("history", "leader", "follower", "went_back", "came_back"),
    [
        ([put("a"), put("b")], {"k": "b"}, {"k": "a"}, 1, 0),
        ([put("a"), delete()], {}, {"k": "a"}, 0, 1),
        ([put("a"), put("b"), delete()], {"k": "b"}, {}, 1, 0),
        ([put("a"), put("b", Outcome.UNKNOWN)], {"k": "b"}, {"k": "a"}, 0, 0),
        ([put("a"), delete(), delete(Outcome.UNKNOWN)], {}, {"k": "a"}, 0, 0),
    ],
)
def test_what_every_follower_confirmed_was_there(
    history: list[Operation], leader: dict[str, str], follower: dict[str, str], went_back: int, came_back: int
) -> None:
    found = facts(history, leader, follower, quorum=1)
    assert (found.went_back, found.came_back) == (went_back, came_back)
    assert found.outdated + found.undeleted == 1


def test_a_smaller_quorum_says_nothing_about_one_follower() -> None:
    history, leader, follower = [put("a"), put("b")], {"k": "b"}, {"k": "a"}
    assert facts(history, leader, follower, quorum=1, silent=["g"]).went_back == 0
    assert facts(history, leader, follower, quorum=0).went_back == 0
    assert facts(history, leader, follower, quorum=2, silent=["g"]).went_back == 1
