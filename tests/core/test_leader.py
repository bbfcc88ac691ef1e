"""Leading: versions, refusals, counting, the recovery barrier, conditions, request ids, configuration, learners."""

from __future__ import annotations

import pytest

from retinue.core.messages import (
    Ack,
    Append,
    Change,
    CloseLinks,
    Condition,
    Configuration,
    ConfigureRequested,
    Confirmed,
    DiskLow,
    Diverged,
    Kind,
    LinkUp,
    Outcome,
    Promise,
    PromoteRequested,
    Proposed,
    ReadResult,
    Reason,
    Received,
    Rejected,
    Replicate,
    Result,
    SaveEntries,
    SaveEpoch,
    Seal,
    StrongRead,
    Write,
)
from retinue.core.replica import Limits
from tests.core.cluster import F1, F2, F3, F4, F5, Cluster, L, member_image, only, put, replica, replies, sent, write

FOLLOWERS = (F1, F2, F3, F4, F5)


def silent(followers: int = 5, write_quorum: int = 3, limits: Limits | None = None) -> Cluster:
    """A cluster whose followers accept nothing until the test releases it."""
    cluster = Cluster(followers, write_quorum, limits)
    cluster.hold_appends(*cluster.names)
    return cluster


def ack(cluster: Cluster, sender: str, *versions: int, contiguous: int = 0, to: str = L) -> None:
    """An acknowledgement, made up."""
    cluster.step(to, Received(sender, Ack(cluster[to].promised, [*versions], contiguous, 0)))


# --- assigning ---


def test_writes_that_waited_together_get_their_versions_in_one_transaction_and_one_message() -> None:
    cluster = Cluster()
    effects = cluster.step(L, Proposed([write(1, "a"), write(2, "b")]))
    rows = [put(1, 1, "a"), put(2, 1, "b")]
    assert only(effects, SaveEntries) == [SaveEntries(rows)]
    assert only(effects, SaveEpoch) == [SaveEpoch(1, 1)]
    assert only(effects, Replicate) == [Replicate([*FOLLOWERS], Append(1, 1, 0, rows))]
    assert replies(effects) == {}


def test_a_write_returns_with_its_quorum_and_goes_on_to_everybody() -> None:
    cluster = silent()
    cluster.propose(write(1))
    cluster.now = 5
    ack(cluster, F1, 1)
    ack(cluster, F4, 1)
    assert 1 not in cluster.replies
    cluster.now = 7
    ack(cluster, F2, 1)
    assert cluster.result(1) == Result(Outcome.COMMITTED, Reason.OK, 1, 1, 3, 3, ((F1, 5.0), (F4, 5.0), (F2, 7.0)))
    cluster.release()
    cluster.advance(100)
    cluster.assert_converged()


def test_after_a_burst_all_nodes_are_equal_without_further_traffic() -> None:
    cluster = Cluster()
    for token in range(1, 30):
        cluster.propose(write(token, f"key{token % 7}", str(token).encode()))
    cluster.propose(Write(30, (Change(Kind.PUT, "a", b"1"), Change(Kind.DELETE, "key1")), 1e9, batch=True))
    cluster.advance(100)
    cluster.assert_converged()
    assert {tuple(node.scan()) for node in cluster.nodes.values()} == {tuple(cluster[L].scan())}
    assert all(cluster.result(token).outcome is Outcome.COMMITTED for token in range(1, 31))


def test_a_batch_takes_one_version_and_shows_all_its_keys_together() -> None:
    cluster = Cluster()
    cluster.propose(Write(1, (Change(Kind.PUT, "a", b"1"), Change(Kind.PUT, "b", b"2")), 1e9, batch=True))
    assert cluster.result(1).version == 1
    rows = {key: (row.version, row.part, row.value) for key, row in cluster[L].scan()}
    assert rows == {"a": (1, 0, b"1"), "b": (1, 1, b"2")}


def test_one_acknowledgement_counts_once_however_often_it_comes() -> None:
    cluster = silent()
    cluster.propose(write(1))
    for _ in range(3):
        ack(cluster, F1, 1, 1)
        ack(cluster, F1, contiguous=1)
    assert 1 not in cluster.replies


def test_an_acknowledgement_of_another_epoch_does_not_count() -> None:
    cluster = silent()
    cluster.propose(write(1))
    for follower in FOLLOWERS:
        cluster.step(L, Received(follower, Ack(7, [1], 1, 0)))
    assert 1 not in cluster.replies


def test_an_acknowledgement_without_a_promise_does_not_count() -> None:
    cluster = silent()
    cluster.propose(write(1))
    for follower in FOLLOWERS:
        cluster.step(L, LinkUp(follower, f"{follower}.1", "c", 1))
        ack(cluster, follower, 1)
        assert not cluster.leading().progress[follower].holds(1)
    assert 1 not in cluster.replies


def test_versions_commit_one_by_one_and_are_trusted_in_order() -> None:
    cluster = silent()
    cluster.propose(write(1, "a"), write(2, "b"))
    for follower in (F1, F2, F3):
        ack(cluster, follower, 2)
    assert cluster.replies.keys() == {2}
    assert cluster[L].log.trusted == 0
    assert cluster[L].read_committed("b") is not None
    assert cluster[L].read_committed("a") is None
    for follower in (F1, F2, F3):
        ack(cluster, follower, 1)
    assert cluster[L].log.trusted == 2
    assert not cluster.leading().committed


def test_an_acknowledgement_that_covers_versions_counts_for_all_of_them() -> None:
    cluster = silent()
    cluster.propose(write(1, "a"), write(2, "b"))
    for follower in (F1, F2, F3):
        ack(cluster, follower, contiguous=2)
    assert cluster.replies.keys() == {1, 2}


def test_with_a_quorum_of_zero_the_leader_alone_commits() -> None:
    cluster = silent(write_quorum=0)
    cluster.propose(write(1), write(2, condition=Condition(version=1)))
    assert cluster.result(1).outcome is cluster.result(2).outcome is Outcome.COMMITTED
    assert cluster[L].log.trusted == 2


def test_a_leader_without_followers_leads() -> None:
    cluster = Cluster(0, 0)
    cluster.propose(write(1))
    assert cluster.result(1).outcome is Outcome.COMMITTED


# --- refusing ---


def refused(cluster: Cluster, token: int, reason: Reason) -> None:
    result = cluster.result(token)
    assert (result.outcome, result.reason, result.version) == (Outcome.NOT_WRITTEN, reason, 0)


def test_a_write_is_refused_before_it_has_a_version_when_fewer_than_k_followers_can_be_reached() -> None:
    cluster = Cluster()
    cluster.stop(F1, F2)
    cluster.propose(write(1))
    assert cluster.result(1).outcome is Outcome.COMMITTED
    cluster.stop(F3)
    cluster.propose(write(2))
    refused(cluster, 2, Reason.NO_QUORUM)
    assert cluster.result(2).required == 3
    assert cluster[L].log.last == 1


def test_a_write_that_asks_for_more_acknowledgements_than_can_come_is_refused() -> None:
    cluster = Cluster()
    cluster.stop(F1)
    cluster.propose(write(1, acks=5), write(2, acks=4))
    refused(cluster, 1, Reason.NO_QUORUM)
    assert cluster.result(1).required == 5
    assert cluster.result(2).acks == 4


def test_a_write_is_refused_when_the_disk_is_low_and_taken_when_it_is_not() -> None:
    cluster = Cluster()
    cluster.step(L, DiskLow(True))
    cluster.propose(write(1))
    refused(cluster, 1, Reason.DISK_LOW)
    cluster.step(L, DiskLow(False))
    cluster.propose(write(2))
    assert cluster.result(2).outcome is Outcome.COMMITTED


def test_writes_are_refused_when_too_many_or_too_many_bytes_are_pending() -> None:
    many = silent(limits=Limits(max_pending_writes=2))
    many.propose(write(1), write(2), write(3))
    refused(many, 3, Reason.OVERLOADED)
    large = silent(limits=Limits(max_pending_bytes=10))
    large.propose(write(1, "k", b"123456789"), write(2))
    refused(large, 2, Reason.OVERLOADED)
    large.release()
    assert large.result(1).outcome is Outcome.COMMITTED
    large.propose(write(3))
    assert large.result(3).outcome is Outcome.COMMITTED


# --- more or fewer acknowledgements than the quorum ---


def test_a_request_may_wait_for_more_acknowledgements_than_a_commit_needs() -> None:
    cluster = silent()
    cluster.propose(write(1, acks=5), write(2, "j"))
    for follower in (F1, F2, F3, F4):
        ack(cluster, follower, contiguous=2)
    assert cluster.replies.keys() == {2}
    assert cluster[L].is_committed(1)
    assert cluster[L].log.trusted == 2
    ack(cluster, F5, contiguous=2)
    result = cluster.result(1)
    assert (result.outcome, result.acks, result.required) == (Outcome.COMMITTED, 5, 5)
    assert not cluster.leading().patient
    assert not cluster.leading().pending


def test_a_request_that_asks_for_fewer_is_accepted_and_still_commits() -> None:
    cluster = silent()
    cluster.propose(write(1, acks=1), write(2, acks=0))
    assert cluster.result(2).outcome is Outcome.ACCEPTED
    ack(cluster, F1, 1)
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
        ack(cluster, follower, contiguous=5)
    assert cluster[L].log.trusted == 5
    ack(cluster, F4, contiguous=5)
    ack(cluster, F4, contiguous=5)
    assert 1 not in cluster.replies
    ack(cluster, F5, contiguous=5)
    assert [name for name, _ in cluster.result(1).acked_by] == [*FOLLOWERS]


# --- deadlines ---


def test_a_write_without_its_quorum_at_the_deadline_is_unknown_and_may_still_commit() -> None:
    cluster = silent()
    cluster.propose(write(1, deadline=50), write(2, "j", deadline=500))
    ack(cluster, F1, 1)
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
        ack(cluster, follower, 1)
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


# --- conditions ---


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
        ack(cluster, follower, 2)
    assert cluster[L].log.last == 2
    for follower in (F1, F2, F3):
        ack(cluster, follower, 1)
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
    refused(cluster, 2, Reason.EXPIRED)
    assert 3 not in cluster.replies
    cluster.release()
    assert cluster.result(3).outcome is Outcome.COMMITTED
    assert cluster[L].log.last == 2


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
        ack(cluster, follower, 1)
    cluster.propose(write(2, request_id="x", acks=4))
    assert 2 not in cluster.replies
    ack(cluster, F4, 1)
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
    refused(cluster, 3, Reason.DISK_LOW)


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


# --- the recovery barrier ---


def recovering() -> Cluster:
    """F2 has taken over with one version to recover, and its followers accept nothing yet."""
    cluster = Cluster()
    cluster.hold_appends(F1, F3, F4, F5)
    cluster.propose(write(1, value=b"tail", request_id="x"))
    cluster.lose()
    cluster.stop(L)
    cluster.hold_appends(F1, F3, F4, F5)
    cluster.step(F2, PromoteRequested(70, False, 1e9))
    cluster.run()
    assert cluster[F2].role == "leader"
    return cluster


def test_nothing_is_committed_acknowledged_or_shown_before_everything_found_is_committed() -> None:
    cluster = recovering()
    cluster.propose(write(2, "j"), write(3, "j", acks=0), write(4, "new", condition=Condition(absent=True)), to=F2)
    cluster.propose(write(6, "missing", condition=Condition(present=True)), to=F2)
    cluster.step(F2, StrongRead(5, "k", 1e9))
    assert cluster.read(5) == ReadResult(Reason.RECOVERING)
    for follower in (F1, F3, F4, F5):
        ack(cluster, follower, 2, 3, to=F2)
    assert cluster.replies.keys() == {5}
    assert not cluster[F2].serving
    assert not cluster[F2].is_committed(2)
    cluster.release()
    assert cluster[F2].serving
    assert cluster.result(70).outcome is Outcome.COMMITTED
    assert [cluster.result(token).outcome for token in (2, 3, 4)] == [Outcome.COMMITTED] * 3
    refused(cluster, 6, Reason.NOT_FOUND)
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
    refused(cluster, 3, Reason.EXPIRED)
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
        ack(cluster, follower, 2, to=F2)
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
    refused(cluster, 4, Reason.NOT_LEADER)


# --- being deposed ---


def test_a_deposed_leader_answers_everybody_as_precisely_as_it_can() -> None:
    cluster = silent()
    cluster.propose(write(1), write(2, "j", acks=5), write(3, condition=Condition(version=1)))
    for follower in (F1, F2, F3):
        ack(cluster, follower, 2)
    cluster.step(L, StrongRead(4, "j", 1e9))
    cluster.step(L, ConfigureRequested(5, 4, 1e9))
    effects = cluster.step(L, Received(F1, Rejected(1, 8)))
    assert only(effects, CloseLinks)
    assert cluster[L].role == "follower"
    assert cluster[L].leader is None
    assert cluster.result(1).outcome is Outcome.UNKNOWN
    assert cluster.result(2).outcome is Outcome.COMMITTED
    refused(cluster, 3, Reason.NOT_LEADER)
    assert cluster.read(4) == ReadResult(Reason.LEADERSHIP_LOST)
    assert (cluster.result(5).outcome, cluster.result(5).reason) == (Outcome.UNKNOWN, Reason.LEADERSHIP_LOST)


def test_a_rejection_of_another_cluster_deposes_nobody() -> None:
    cluster = Cluster()
    cluster.step(L, Received(F1, Rejected(1, 99, foreign=True)))
    assert cluster[L].serving


# --- changing the write quorum ---


def configure(cluster: Cluster, token: int, quorum: int, deadline: float = 1e9) -> None:
    cluster.step(L, ConfigureRequested(token, quorum, deadline))
    cluster.run()


def quorum_of(cluster: Cluster) -> int:
    return cluster.leading().quorum


def test_a_higher_quorum_is_demanded_before_the_smaller_p_is_published() -> None:
    cluster = silent()
    cluster.propose(write(1))
    for follower in (F1, F2, F3):
        ack(cluster, follower, 1)
    configure(cluster, 2, 4)
    assert quorum_of(cluster) == 4
    assert cluster[L].log.last == 1, "version 1 has too few copies for the smaller P"
    cluster.propose(write(3))
    for follower in (F1, F2, F3):
        ack(cluster, follower, 2)
    assert 3 not in cluster.replies, "what is assigned meanwhile needs the larger W"
    ack(cluster, F4, 1)
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
        ack(cluster, follower, 1)
    cluster.step(L, Received(F4, Diverged(1, 1)))
    configure(cluster, 2, 4)
    assert cluster[L].log.last == 1
    ack(cluster, F5, 1)
    assert cluster[L].log.last == 2


def test_a_lower_quorum_holds_once_the_larger_p_is_published() -> None:
    cluster = silent()
    configure(cluster, 1, 1)
    assert quorum_of(cluster) == 3
    cluster.propose(write(2))
    ack(cluster, F1, contiguous=2)
    ack(cluster, F2, contiguous=2)
    assert cluster.replies == {}
    ack(cluster, F3, 1)
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
    refused(cluster, 2, Reason.BUSY)
    cluster.release()
    assert cluster.result(1).outcome is Outcome.COMMITTED


def test_the_quorum_is_not_changed_before_the_recovery_barrier() -> None:
    cluster = recovering()
    cluster.step(F2, ConfigureRequested(1, 4, 1e9))
    refused(cluster, 1, Reason.RECOVERING)


def test_a_change_that_never_got_a_version_is_given_up_at_its_deadline() -> None:
    cluster = silent()
    cluster.propose(write(1), write(2, condition=Condition(version=1)))
    configure(cluster, 3, 5, deadline=50)
    for follower in (F1, F2, F3):
        ack(cluster, follower, 1)
    assert 1 not in cluster.replies
    cluster.advance(50)
    refused(cluster, 3, Reason.TIMEOUT)
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


# --- followers come, go, and are replaced ---


def test_a_replaced_follower_learns_first_and_votes_once_the_configuration_knows_it() -> None:
    cluster = Cluster()
    cluster.propose(write(1), write(2, "j"))
    cluster.advance(100)
    cluster.stop(F5)
    cluster.wipe(F5)
    cluster.hold(lambda sender, to, message: to == F5 and isinstance(message, Append))
    cluster.start(F5)
    cluster.run()
    assert not cluster[F5].may_vote
    leadership = cluster.leading()
    assert leadership.reachable == 4
    cluster.release()
    assert cluster[L].log.configuration == Configuration(3, {F5: "follower5.2"})
    assert leadership.reachable == 5
    cluster.advance(100)
    assert cluster[F5].may_vote
    cluster.assert_converged()
    cluster.advance(100)
    assert cluster[L].log.last == 3, "admitted once"


def test_the_acknowledgements_of_a_learner_do_not_count() -> None:
    cluster = silent()
    cluster.propose(write(1))
    cluster.stop(F5)
    cluster.wipe(F5)
    cluster.start(F5)
    cluster.run()
    ack(cluster, F1, 1)
    ack(cluster, F2, 1)
    leadership = cluster.leading()
    leadership.progress[F5].admit_at = 99
    ack(cluster, F5, 1)
    assert 1 not in cluster.replies
    cluster.step(L, StrongRead(2, "k", 1e9))
    for follower in (F1, F2, F5):
        cluster.step(L, Received(follower, Confirmed(1, 1)))
    assert 2 not in cluster.replies


def test_what_a_learner_acknowledged_counts_from_its_admission_on() -> None:
    cluster = Cluster()
    cluster.stop(F5)
    cluster.wipe(F5)
    cluster.hold_appends(F1, F2, F3, F4)
    cluster.start(F5)
    cluster.run()
    assert cluster[L].log.above[1].kind == Kind.CONFIG
    cluster.propose(write(1))
    assert cluster[F5].log.above.keys() == {1, 2}
    ack(cluster, F1, 2)
    ack(cluster, F2, 2)
    for follower in (F1, F2, F3):
        ack(cluster, follower, 1)
    assert cluster.result(1).acked_by[-1][0] == F5


def test_where_every_follower_is_needed_a_replaced_one_can_still_be_admitted() -> None:
    cluster = Cluster(2, 2)
    cluster.propose(write(1))
    cluster.hold_appends("follower2")
    cluster.propose(write(2, "j"))
    cluster.lose()
    cluster.stop(F2)
    cluster.wipe(F2)
    cluster.start(F2)
    cluster.run()
    assert cluster[L].log.configuration == Configuration(2, {F2: "follower2.2"})
    assert cluster.result(2).outcome is Outcome.COMMITTED
    cluster.propose(write(3))
    assert cluster.result(3).acks == 2
    cluster.advance(100)
    cluster.assert_converged()


def test_where_every_follower_is_needed_one_in_quarantine_still_does_not_count() -> None:
    cluster = Cluster(2, 2)
    cluster.propose(write(1))
    cluster.advance(2000)
    cluster.advance(2000)
    cluster.stop(F2)
    disk = cluster.disks[F2]
    disk.rows[1] = put(1, 1, value=b"rotten")
    disk.hard = member_image("follower2.1", trusted=1, quarantined=True, write_quorum=2).hard
    cluster.start(F2)
    cluster.run()
    leadership = cluster.leading()
    assert leadership.progress[F2].diverged
    assert leadership.reachable == 1
    assert cluster[L].log.last == 1, "and it is not admitted"


def test_acknowledgements_of_a_disk_that_is_gone_are_forgotten() -> None:
    cluster = silent()
    cluster.propose(write(1))
    ack(cluster, F1, 1)
    ack(cluster, F2, 1)
    cluster.stop(F2)
    cluster.wipe(F2)
    cluster.start(F2)
    cluster.run()
    ack(cluster, F3, 1)
    assert 1 not in cluster.replies
    ack(cluster, F4, 1)
    assert [name for name, _ in cluster.result(1).acked_by] == [F1, F3, F4]


def test_a_voter_that_was_away_comes_back_as_a_voter_and_is_counted_once() -> None:
    cluster = silent()
    cluster.propose(write(1))
    ack(cluster, F1, 1)
    cluster.relink(L, F1)
    ack(cluster, F1, 1)
    ack(cluster, F2, 1)
    assert 1 not in cluster.replies
    ack(cluster, F3, 1)
    assert cluster.result(1).acks == 3


def test_an_old_disk_under_a_name_that_was_born_with_another_is_only_a_learner() -> None:
    cluster = Cluster()
    cluster.stop(F5)
    cluster.disks[F5].hard = member_image("follower5.0").hard
    cluster.start(F5)
    cluster.run()
    assert cluster[L].log.configuration == Configuration(3, {F5: "follower5.0"}), "admitted like any learner"


def test_only_learners_that_agree_are_admitted() -> None:
    cluster = Cluster()
    progress = cluster.leading().progress
    for follower in (F4, F5):
        progress[follower].voter, progress[follower].admit_at = False, 0
    cluster.step(L, Received(F4, Diverged(1, 0)))
    ack(cluster, F5)
    assert cluster.leading().change is not None
    assert cluster.leading().change.configuration.members == {F5: "follower5.1"}


def test_a_follower_that_trusts_more_than_its_new_leader_ever_saw_does_not_count() -> None:
    cluster = silent()
    cluster.propose(write(1))
    for follower in FOLLOWERS:
        cluster.step(L, LinkUp(follower, f"{follower}.1", "c", 1))
        told = Promise(1, f"{follower}.1", True, 1, 0, 1, {}, Configuration(3), [])
        cluster.step(L, Received(follower, told))
        assert cluster.leading().progress[follower].diverged
    assert 1 not in cluster.replies
    assert cluster.leading().reachable == 0


def test_promises_that_no_longer_fit_are_passed_over() -> None:
    cluster = Cluster()
    leadership = cluster.leading()
    cluster.step(L, LinkUp(F1, "follower1.1", "c", 1))
    known = Configuration(3)
    for late in (
        Promise(7, "follower1.1", True, 0, 0, 0, {}, known, []),
        Promise(1, "follower1.0", True, 0, 0, 0, {}, known, []),
    ):
        cluster.step(L, Received(F1, late))
        assert not leadership.progress[F1].promised
    cluster.run()
    assert leadership.progress[F1].promised
    cluster.step(L, Received(F1, Promise(1, "follower1.1", False, 0, 0, 9, {}, known, [])))
    assert leadership.progress[F1].voter


def test_a_follower_that_diverged_is_neither_counted_nor_supplied() -> None:
    cluster = silent()
    cluster.propose(write(1))
    cluster.step(L, Received(F1, Diverged(7, 0)))
    leadership = cluster.leading()
    assert leadership.reachable == 5, "that was about another epoch"
    cluster.step(L, Received(F1, Diverged(1, 0)))
    assert leadership.reachable == 4
    for follower in (F1, F2, F3):
        ack(cluster, follower, 1)
    assert 1 not in cluster.replies


def test_a_leader_asks_for_the_promise_of_whoever_can_be_reached() -> None:
    node = replica(L, member_image("l.1", write_quorum=5))
    node.step(PromoteRequested(7, False, 1e9), 0.0)
    assert node.role == "leader"
    effects = node.step(LinkUp(F1, "follower1.1", "c", 1), 0.0)
    assert sent(effects, Seal) == [(F1, Seal(7, "c", False, False, 5))]


def test_a_configuration_that_names_a_node_which_is_not_there_changes_nothing_else() -> None:
    cluster = Cluster()
    cluster.stop(F5)
    cluster.wipe(F5)
    cluster.start(F5)
    cluster.run()
    cluster.advance(100)
    cluster.stop(L)
    cluster.step(F5, PromoteRequested(7, False, 1e9))
    cluster.run()
    assert cluster[F5].serving, "an admitted node may lead, though the configuration names itself"
    cluster.step(F5, ConfigureRequested(8, 2, 1e9))
    cluster.run()
    assert cluster.result(8).outcome is Outcome.COMMITTED
    assert cluster[F5].log.configuration == Configuration(2, {F5: "follower5.2"})
