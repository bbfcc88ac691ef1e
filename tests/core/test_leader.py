"""Leading: giving versions, refusing, counting, being deposed."""

from __future__ import annotations

from retinue.core.messages import (
    Ack,
    Append,
    Change,
    CloseLinks,
    Condition,
    ConfigureRequested,
    DiskLow,
    Kind,
    LinkUp,
    Outcome,
    Proposed,
    ReadResult,
    Reason,
    Received,
    Rejected,
    Replicate,
    Result,
    SaveEntries,
    SaveEpoch,
    StrongRead,
    Write,
)
from retinue.core.replica import Limits
from tests.core.cluster import Cluster, silent
from tests.core.parts import (
    F1,
    F2,
    F3,
    F4,
    F5,
    L,
    only,
    put,
    replies,
    write,
)

FOLLOWERS = (F1, F2, F3, F4, F5)


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
    cluster.ack(F1, 1)
    cluster.ack(F4, 1)
    assert 1 not in cluster.replies
    cluster.now = 7
    cluster.ack(F2, 1)
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


def test_an_expiry_travels_with_its_value_alone_and_in_a_batch() -> None:
    cluster = Cluster()
    cluster.propose(Write(1, (Change(Kind.PUT, "a", b"1", expires_ms=7),), 1e9))
    cluster.propose(Write(2, (Change(Kind.PUT, "b", b"2", expires_ms=9), Change(Kind.PUT, "c", b"3")), 1e9, batch=True))
    cluster.advance(100)
    cluster.assert_converged()
    for node in cluster.nodes.values():
        assert {key: row.expires_ms for key, row in node.scan()} == {"a": 7, "b": 9, "c": 0}
    cluster.propose(write(3, "a"))
    cluster.advance(100)
    assert {key: row.expires_ms for key, row in cluster[L].scan()}["a"] == 0


def test_an_expiry_shows_before_its_version_is_trusted_too() -> None:
    cluster = silent()
    cluster.propose(Write(1, (Change(Kind.PUT, "a", b"1", expires_ms=7),), 1e9))
    cluster.propose(Write(2, (Change(Kind.PUT, "b", b"2", expires_ms=9),), 1e9, batch=True))
    rows = {key: cluster[L].read_local(key) for key in ("a", "b")}
    assert {key: row.expires_ms for key, row in rows.items() if row is not None} == {"a": 7, "b": 9}


def test_one_acknowledgement_counts_once_however_often_it_comes() -> None:
    cluster = silent()
    cluster.propose(write(1))
    for _ in range(3):
        cluster.ack(F1, 1, 1)
        cluster.ack(F1, contiguous=1)
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
        cluster.ack(follower, 1)
        assert not cluster.leading().progress[follower].holds(1)
    assert 1 not in cluster.replies


def test_versions_commit_one_by_one_and_are_trusted_in_order() -> None:
    cluster = silent()
    cluster.propose(write(1, "a"), write(2, "b"))
    for follower in (F1, F2, F3):
        cluster.ack(follower, 2)
    assert cluster.replies.keys() == {2}
    assert cluster[L].log.trusted == 0
    assert cluster[L].read_committed("b") is not None
    assert cluster[L].read_committed("a") is None
    for follower in (F1, F2, F3):
        cluster.ack(follower, 1)
    assert cluster[L].log.trusted == 2
    assert not cluster.leading().committed


def test_an_acknowledgement_that_covers_versions_counts_for_all_of_them() -> None:
    cluster = silent()
    cluster.propose(write(1, "a"), write(2, "b"))
    for follower in (F1, F2, F3):
        cluster.ack(follower, contiguous=2)
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


def test_a_write_is_refused_before_it_has_a_version_when_fewer_than_k_followers_can_be_reached() -> None:
    cluster = Cluster()
    cluster.stop(F1, F2)
    cluster.propose(write(1))
    assert cluster.result(1).outcome is Outcome.COMMITTED
    cluster.stop(F3)
    cluster.propose(write(2))
    cluster.assert_refused(2, Reason.NO_QUORUM)
    assert cluster.result(2).required == 3
    assert cluster[L].log.last == 1


def test_a_write_that_asks_for_more_acknowledgements_than_can_come_is_refused() -> None:
    cluster = Cluster()
    cluster.stop(F1)
    cluster.propose(write(1, acks=5), write(2, acks=4))
    cluster.assert_refused(1, Reason.NO_QUORUM)
    assert cluster.result(1).required == 5
    assert cluster.result(2).acks == 4


def test_a_write_is_refused_when_the_disk_is_low_and_taken_when_it_is_not() -> None:
    cluster = Cluster()
    cluster.step(L, DiskLow(True))
    cluster.propose(write(1))
    cluster.assert_refused(1, Reason.DISK_LOW)
    cluster.step(L, DiskLow(False))
    cluster.propose(write(2))
    assert cluster.result(2).outcome is Outcome.COMMITTED


def test_writes_are_refused_when_too_many_or_too_many_bytes_are_pending() -> None:
    many = silent(limits=Limits(max_pending_writes=2))
    many.propose(write(1), write(2), write(3))
    many.assert_refused(3, Reason.OVERLOADED)
    large = silent(limits=Limits(max_pending_bytes=10))
    large.propose(write(1, "k", b"123456789"), write(2))
    large.assert_refused(2, Reason.OVERLOADED)
    large.release()
    assert large.result(1).outcome is Outcome.COMMITTED
    large.propose(write(3))
    assert large.result(3).outcome is Outcome.COMMITTED


# --- being deposed ---


def test_a_deposed_leader_answers_everybody_as_precisely_as_it_can() -> None:
    cluster = silent()
    cluster.propose(write(1), write(2, "j", acks=5), write(3, condition=Condition(version=1)))
    for follower in (F1, F2, F3):
        cluster.ack(follower, 2)
    cluster.step(L, StrongRead(4, "j", 1e9))
    cluster.step(L, ConfigureRequested(5, 4, 1e9))
    effects = cluster.step(L, Received(F1, Rejected(1, 8)))
    assert only(effects, CloseLinks)
    assert cluster[L].role == "follower"
    assert cluster[L].leader is None
    assert cluster.result(1).outcome is Outcome.UNKNOWN
    assert cluster.result(2).outcome is Outcome.COMMITTED
    cluster.assert_refused(3, Reason.NOT_LEADER)
    assert cluster.read(4) == ReadResult(Reason.LEADERSHIP_LOST)
    assert (cluster.result(5).outcome, cluster.result(5).reason) == (Outcome.UNKNOWN, Reason.LEADERSHIP_LOST)


def test_a_rejection_of_another_cluster_deposes_nobody() -> None:
    cluster = Cluster()
    cluster.step(L, Received(F1, Rejected(1, 99, foreign=True)))
    assert cluster[L].serving
