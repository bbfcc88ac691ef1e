"""Conditional writes."""

from __future__ import annotations

import pytest

from retinue.core.messages import (
    Condition,
    Kind,
    Outcome,
    Reason,
)
from tests.core.cluster import Cluster, silent
from tests.core.parts import (
    F1,
    F2,
    F3,
    L,
    write,
)


@pytest.mark.parametrize(
    ("condition", "present", "missing"),
    [
        (Condition(present=True), Reason.OK, Reason.NOT_FOUND),
        (Condition(absent=True), Reason.CONDITION_FAILED, Reason.OK),
        (Condition(version=1), Reason.OK, Reason.CONDITION_FAILED),
        (Condition(version=9), Reason.CONDITION_FAILED, Reason.CONDITION_FAILED),
        (Condition(version=0), Reason.CONDITION_FAILED, Reason.OK),
    ],
)
def test_conditions_are_evaluated_against_committed_state(
    condition: Condition, present: Reason, missing: Reason
) -> None:
    cluster = Cluster()
    cluster.propose(write(1, "present"), write(2, "deleted"), write(3, "deleted", kind=Kind.DELETE))
    for token, key, reason in ((4, "present", present), (5, "missing", missing), (6, "deleted", missing)):
        cluster.propose(write(token, key, condition=condition))
        result = cluster.result(token)
        assert result.reason is reason
        assert (result.outcome is Outcome.COMMITTED) is (reason is Reason.OK)
        assert result.current == (1 if key == "present" and reason is not Reason.OK else 0)


def test_a_condition_waits_for_a_pending_write_to_its_key() -> None:
    cluster = silent()
    cluster.propose(write(1, value=b"1"), write(2, value=b"2", condition=Condition(version=1)), write(3, "j"))
    cluster.propose(write(4, value=b"4", condition=Condition(version=1)))
    assert cluster[L].log.last == 2, "only writes without a condition have a version"
    for follower in (F1, F2, F3):
        cluster.ack(follower, 2)
    assert cluster[L].log.last == 2
    for follower in (F1, F2, F3):
        cluster.ack(follower, 1)
    assert cluster[L].log.last == 3
    assert 4 not in cluster.replies, "it waits again, for the one before it"
    cluster.release()
    assert cluster.result(2).outcome is Outcome.COMMITTED
    assert (cluster.result(4).reason, cluster.result(4).current) == (Reason.CONDITION_FAILED, 3)


def test_a_condition_that_waits_too_long_is_refused_for_certain() -> None:
    cluster = silent()
    cluster.propose(write(1), write(2, condition=Condition(version=1), deadline=50))
    cluster.propose(write(3, condition=Condition(version=1), deadline=500))
    cluster.advance(50)
    cluster.assert_refused(2, Reason.EXPIRED)
    assert 3 not in cluster.replies
    cluster.release()
    assert cluster.result(3).outcome is Outcome.COMMITTED
    assert cluster[L].log.last == 2
