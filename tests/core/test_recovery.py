"""The recovery barrier."""

from __future__ import annotations

from retinue.core.messages import (
    Condition,
    Outcome,
    PromoteRequested,
    ReadResult,
    Reason,
    Received,
    Rejected,
    StrongRead,
)
from tests.core.cluster import Cluster, recovering
from tests.core.parts import (
    F1,
    F2,
    F3,
    F4,
    F5,
    L,
    write,
)


def test_nothing_is_committed_acknowledged_or_shown_before_everything_found_is_committed() -> None:
    cluster = recovering()
    cluster.propose(write(2, "j"), write(3, "j", acks=0), write(4, "new", condition=Condition(absent=True)), to=F2)
    cluster.propose(write(6, "missing", condition=Condition(present=True)), to=F2)
    cluster.step(F2, StrongRead(5, "k", 1e9))
    assert cluster.read(5) == ReadResult(Reason.RECOVERING)
    for follower in (F1, F3, F4, F5):
        cluster.ack(follower, 2, 3, to=F2)
    assert cluster.replies.keys() == {5}
    assert not cluster[F2].serving
    assert not cluster[F2].is_committed(2)
    cluster.release()
    assert cluster[F2].serving
    assert cluster.result(70).outcome is Outcome.COMMITTED
    assert [cluster.result(token).outcome for token in (2, 3, 4)] == [Outcome.COMMITTED] * 3
    cluster.assert_refused(6, Reason.NOT_FOUND)
    row = cluster[F2].read_committed("k")
    assert row is not None
    assert row.value == b"tail"


def test_a_retry_of_what_is_being_recovered_waits_for_the_barrier() -> None:
    cluster = recovering()
    cluster.propose(write(2, value=b"tail", request_id="x"), to=F2)
    assert 2 not in cluster.replies
    cluster.release()
    assert (cluster.result(2).version, cluster.result(2).replayed) == (1, True)


def test_what_waits_for_the_barrier_may_time_out() -> None:
    cluster = recovering()
    cluster.propose(write(2, "j", deadline=50), write(3, condition=Condition(absent=True), deadline=50), to=F2)
    cluster.propose(write(4, condition=Condition(version=1), deadline=5000), to=F2)
    cluster.advance(50)
    assert cluster.result(2).outcome is Outcome.UNKNOWN
    cluster.assert_refused(3, Reason.EXPIRED)
    assert 4 not in cluster.replies
    cluster.release()
    assert cluster.result(4).outcome is Outcome.COMMITTED


def test_a_leader_deposed_before_its_barrier_does_not_call_what_it_found_committed() -> None:
    cluster = Cluster()
    cluster.hold_appends(F1, F3, F4, F5)
    cluster.propose(write(1), write(2, "j", request_id="x"))
    cluster.lose()
    cluster.stop(L)
    cluster.hold_appends(F1, F3, F4, F5)
    cluster.step(F2, PromoteRequested(70, False, 1e9))
    cluster.run()
    cluster.propose(write(3, "j", request_id="x"), to=F2)
    for follower in (F1, F3, F4):
        cluster.ack(follower, 2, to=F2)
    assert cluster[F2].is_committed(2)
    assert 3 not in cluster.replies
    cluster.step(F2, Received(F1, Rejected(9, 14)))
    assert cluster.result(3).outcome is Outcome.UNKNOWN


def test_a_leader_deposed_before_its_barrier_calls_nothing_committed() -> None:
    cluster = recovering()
    cluster.propose(
        write(2, "j"),
        write(3, value=b"tail", request_id="x"),
        write(4, condition=Condition(absent=True)),
        to=F2,
    )
    cluster.step(F2, Received(F1, Rejected(9, 14)))
    assert [cluster.result(token).outcome for token in (2, 3, 70)] == [Outcome.UNKNOWN] * 3
    cluster.assert_refused(4, Reason.NOT_LEADER)
