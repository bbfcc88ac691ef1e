"""Changing the write quorum."""

from __future__ import annotations

from retinue.core.messages import (
    Condition,
    Configuration,
    ConfigureRequested,
    Diverged,
    Kind,
    Outcome,
    PromoteRequested,
    Reason,
    Received,
    Result,
)
from tests.core.cluster import Cluster, recovering, silent
from tests.core.parts import (
    F1,
    F2,
    F3,
    F4,
    F5,
    L,
    write,
)


def configure(cluster: Cluster, token: int, quorum: int, deadline: float = 1e9) -> None:
    cluster.step(L, ConfigureRequested(token, quorum, deadline))
    cluster.run()


def quorum_of(cluster: Cluster) -> int:
    return cluster.leading().quorum


def test_a_higher_quorum_is_demanded_before_the_smaller_p_is_published() -> None:
    cluster = silent()
    cluster.propose(write(1))
    for follower in (F1, F2, F3):
        cluster.ack(follower, 1)
    configure(cluster, 2, 4)
    assert quorum_of(cluster) == 4
    assert cluster[L].log.last == 1, "version 1 has too few copies for the smaller P"
    cluster.propose(write(3))
    for follower in (F1, F2, F3):
        cluster.ack(follower, 2)
    assert 3 not in cluster.replies, "what is assigned meanwhile needs the larger W"
    cluster.ack(F4, 1)
    assert cluster[L].log.above[3].kind == Kind.CONFIG
    assert 2 not in cluster.replies
    cluster.release()
    assert (cluster.result(2).outcome, cluster.result(2).version) == (Outcome.COMMITTED, 3)
    assert cluster.result(2).acks >= 4
    assert cluster.result(3).acks == 4
    cluster.advance(100)
    assert all(node.log.configuration == Configuration(4) for node in cluster.nodes.values())


def test_a_follower_in_quarantine_does_not_cover_what_a_smaller_p_needs() -> None:
    cluster = silent()
    cluster.propose(write(1))
    for follower in (F1, F2, F3, F4):
        cluster.ack(follower, 1)
    cluster.step(L, Received(F4, Diverged(1, 1)))
    configure(cluster, 2, 4)
    assert cluster[L].log.last == 1
    cluster.ack(F5, 1)
    assert cluster[L].log.last == 2


def test_a_lower_quorum_holds_once_the_larger_p_is_published() -> None:
    cluster = silent()
    configure(cluster, 1, 1)
    assert quorum_of(cluster) == 3
    cluster.propose(write(2))
    cluster.ack(F1, contiguous=2)
    cluster.ack(F2, contiguous=2)
    assert cluster.replies == {}
    cluster.ack(F3, 1)
    assert quorum_of(cluster) == 1
    assert cluster.result(1).outcome is Outcome.COMMITTED
    assert cluster.result(2).outcome is Outcome.COMMITTED, "two acknowledgements are enough now"


def test_the_quorum_in_force_needs_no_change() -> None:
    cluster = Cluster()
    configure(cluster, 1, 3)
    assert cluster.result(1) == Result(Outcome.COMMITTED, Reason.OK, 0, 1, 0, 3)
    assert cluster[L].log.last == 0


def test_one_change_at_a_time() -> None:
    cluster = silent()
    configure(cluster, 1, 4)
    configure(cluster, 2, 2)
    cluster.assert_refused(2, Reason.BUSY)
    cluster.release()
    assert cluster.result(1).outcome is Outcome.COMMITTED


def test_the_quorum_is_not_changed_before_the_recovery_barrier() -> None:
    cluster = recovering()
    cluster.step(F2, ConfigureRequested(1, 4, 1e9))
    cluster.assert_refused(1, Reason.RECOVERING)


def test_a_change_that_never_got_a_version_is_given_up_at_its_deadline() -> None:
    cluster = silent()
    cluster.propose(write(1), write(2, condition=Condition(version=1)))
    configure(cluster, 3, 5, deadline=50)
    for follower in (F1, F2, F3):
        cluster.ack(follower, 1)
    assert 1 not in cluster.replies
    cluster.advance(50)
    cluster.assert_refused(3, Reason.TIMEOUT)
    assert quorum_of(cluster) == 3
    assert cluster.result(1).outcome is Outcome.COMMITTED
    assert cluster[L].log.last == 2, "the condition that waited for version 1 goes on"


def test_a_change_with_a_version_goes_on_after_its_deadline() -> None:
    cluster = silent()
    configure(cluster, 1, 2, deadline=50)
    cluster.advance(50)
    assert (cluster.result(1).outcome, cluster.result(1).version) == (Outcome.UNKNOWN, 1)
    cluster.release()
    assert quorum_of(cluster) == 2


def test_a_new_leader_demands_the_quorum_of_a_change_that_it_found_until_it_is_decided() -> None:
    cluster = Cluster()
    cluster.hold_appends(F1, F3, F4, F5)
    configure(cluster, 1, 4)
    cluster.lose()
    assert cluster[F2].log.above[1].kind == Kind.CONFIG
    cluster.stop(L)
    cluster.hold_appends(F4, F5)
    cluster.step(F2, PromoteRequested(7, False, 1e9))
    cluster.run()
    assert not cluster[F2].serving, "three of the four acknowledgements that k = 4 needs"
    cluster.release()
    assert cluster[F2].serving
    assert cluster[F2].log.configuration == Configuration(4)
    assert cluster.leading(F2).quorum == 4
