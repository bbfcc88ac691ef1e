"""Those who wait for a version: how long, for how many acknowledgements, and again."""

from __future__ import annotations

import pytest

from retinue.core.messages import (
    Change,
    Condition,
    DiskLow,
    Kind,
    Outcome,
    PromoteRequested,
    Reason,
    Write,
)
from tests.core.cluster import Cluster, silent
from tests.core.parts import (
    F1,
    F2,
    F3,
    F4,
    F5,
    L,
    write,
)

FOLLOWERS = (F1, F2, F3, F4, F5)


# --- more or fewer acknowledgements than the quorum ---


def test_a_request_may_wait_for_more_acknowledgements_than_a_commit_needs() -> None:
    cluster = silent()
    cluster.propose(write(1, acks=5), write(2, "j"))
    for follower in (F1, F2, F3, F4):
        cluster.ack(follower, contiguous=2)
    assert cluster.replies.keys() == {2}
    assert cluster[L].is_committed(1)
    assert cluster[L].log.trusted == 2
    cluster.ack(F5, contiguous=2)
    result = cluster.result(1)
    assert (result.outcome, result.acks, result.required) == (Outcome.COMMITTED, 5, 5)
    assert not cluster.leading().patient
    assert not cluster.leading().pending


def test_a_request_that_asks_for_fewer_is_accepted_and_still_commits() -> None:
    cluster = silent()
    cluster.propose(write(1, acks=1), write(2, acks=0))
    assert cluster.result(2).outcome is Outcome.ACCEPTED
    cluster.ack(F1, 1)
    result = cluster.result(1)
    assert (result.outcome, result.acks, result.required) == (Outcome.ACCEPTED, 1, 1)
    assert not cluster[L].is_committed(1)
    cluster.release()
    assert cluster[L].is_committed(1)


def test_patience_for_a_late_follower_does_not_make_others_count_twice() -> None:
    cluster = silent()
    cluster.propose(write(1, acks=5))
    cluster.propose(*(write(token, f"k{token}") for token in range(2, 6)))
    for follower in (F1, F2, F3):
        cluster.ack(follower, contiguous=5)
    assert cluster[L].log.trusted == 5
    cluster.ack(F4, contiguous=5)
    cluster.ack(F4, contiguous=5)
    assert 1 not in cluster.replies
    cluster.ack(F5, contiguous=5)
    assert [name for name, _ in cluster.result(1).acked_by] == [*FOLLOWERS]


# --- deadlines ---


def test_a_write_without_its_quorum_at_the_deadline_is_unknown_and_may_still_commit() -> None:
    cluster = silent()
    cluster.propose(write(1, deadline=50), write(2, "j", deadline=500))
    cluster.ack(F1, 1)
    cluster.advance(50)
    result = cluster.result(1)
    assert (result.outcome, result.reason, result.version, result.acks) == (Outcome.UNKNOWN, Reason.TIMEOUT, 1, 1)
    assert 2 not in cluster.replies
    cluster.release()
    assert cluster[L].is_committed(1)
    cluster.advance(1000)
    assert cluster.result(2).outcome is Outcome.COMMITTED


def test_a_committed_write_that_waits_for_more_is_committed_at_the_deadline() -> None:
    cluster = silent()
    cluster.propose(write(1, acks=5, deadline=50))
    for follower in (F1, F2, F3):
        cluster.ack(follower, 1)
    cluster.advance(50)
    result = cluster.result(1)
    assert (result.outcome, result.reason, result.acks) == (Outcome.COMMITTED, Reason.TIMEOUT, 3)
    assert not cluster.leading().pending


def test_only_the_request_whose_deadline_has_come_is_answered() -> None:
    cluster = silent()
    cluster.propose(write(1, request_id="x", deadline=50), write(2, request_id="x", deadline=90))
    cluster.advance(50)
    assert cluster.replies.keys() == {1}
    cluster.advance(40)
    assert cluster.result(2).replayed


def test_deadlines_that_are_near_each_other_are_kept_apart() -> None:
    cluster = silent()
    cluster.propose(*(write(number, deadline=deadline) for number, deadline in enumerate((101, 149, 125, 10, 1e9), 1)))
    answered = []
    for _ in range(30):
        cluster.advance(5)
        answered.append((cluster.now, set(cluster.replies)))
    for number, deadline in enumerate((101, 149, 125, 10), 1):
        assert min(now for now, replies in answered if number in replies) == -(-deadline // 5) * 5
    assert 5 not in cluster.replies
    late = write(6, deadline=1)
    cluster.propose(late)
    cluster.advance(50)
    assert cluster.result(6).outcome is Outcome.UNKNOWN


# --- request ids ---


def test_a_retry_gets_the_first_result_and_writes_nothing() -> None:
    cluster = Cluster()
    cluster.propose(write(1, request_id="x"))
    cluster.propose(write(2, request_id="x"))
    first, second = cluster.result(1), cluster.result(2)
    assert (second.outcome, second.version, second.replayed) == (Outcome.COMMITTED, first.version, True)
    assert second.acks == 5
    assert cluster[L].log.last == 1


def test_a_retry_waits_for_the_first_attempt() -> None:
    cluster = silent()
    cluster.propose(write(1, request_id="x"), write(2, request_id="x"))
    assert cluster.replies == {}
    cluster.release()
    assert cluster.result(1).version == cluster.result(2).version == 1


def test_a_retry_may_wait_for_more_acknowledgements_of_a_committed_version() -> None:
    cluster = silent()
    cluster.propose(write(1, request_id="x"))
    for follower in (F1, F2, F3):
        cluster.ack(follower, 1)
    cluster.propose(write(2, request_id="x", acks=4))
    assert 2 not in cluster.replies
    cluster.ack(F4, 1)
    assert [name for name, _ in cluster.result(2).acked_by] == [F1, F2, F3, F4]


def test_the_same_id_with_another_payload_is_refused() -> None:
    cluster = Cluster()
    cluster.propose(write(1, request_id="x"))
    cluster.propose(write(2, value=b"other", request_id="x"))
    result = cluster.result(2)
    assert (result.outcome, result.reason, result.version) == (Outcome.NOT_WRITTEN, Reason.REQUEST_ID_REUSED, 1)


def test_a_retry_is_answered_even_when_a_new_write_would_be_refused() -> None:
    cluster = Cluster()
    cluster.propose(write(1, request_id="x", condition=Condition(absent=True)))
    cluster.stop(F1, F2, F3)
    cluster.step(L, DiskLow(True))
    cluster.propose(write(2, request_id="x", condition=Condition(absent=True)), write(3))
    assert cluster.result(2).outcome is Outcome.COMMITTED
    cluster.assert_refused(3, Reason.DISK_LOW)


@pytest.mark.parametrize("batch", [True, False])
def test_a_retry_is_recognised_by_a_later_leader_and_after_a_restart(batch: bool) -> None:
    cluster = Cluster()
    changes = (Change(Kind.PUT, "a", b"1"), Change(Kind.PUT, "b", b"2"))[: 2 if batch else 1]
    cluster.propose(Write(1, changes, 1e9, batch=batch, request_id="x"))
    cluster.advance(2000)
    cluster.stop(L)
    cluster.step(F2, PromoteRequested(7, False, 1e9))
    cluster.run()
    cluster.propose(Write(2, changes, 1e9, batch=batch, request_id="x"), to=F2)
    assert (cluster.result(2).version, cluster.result(2).replayed) == (1, True)
    cluster.restart(F2)
    cluster.propose(Write(3, changes, 1e9, batch=batch, request_id="x"), to=F2)
    assert (cluster.result(3).version, cluster.result(3).replayed) == (1, True)
    assert cluster[F2].log.last == 1
