"""What binds a node in every role: what it saves, what a read may return, how it starts and is told who it is."""

from __future__ import annotations

import pytest

from retinue.core.messages import (
    Ack,
    Compact,
    Condition,
    ConfigureRequested,
    HardState,
    Heartbeat,
    Image,
    Joined,
    Kind,
    Outcome,
    PromoteRequested,
    ReadResult,
    Reason,
    Received,
    Result,
    SaveState,
    Seal,
    SessionRead,
    Tick,
)
from retinue.core.replica import Limits
from tests.core.cluster import Cluster
from tests.core.parts import (
    F1,
    F2,
    F3,
    F4,
    F5,
    NAMES,
    L,
    delete,
    member_image,
    only,
    put,
    replica,
    replies,
    write,
)

# --- saving ---


def test_a_step_that_changes_nothing_durable_saves_nothing() -> None:
    node = replica(F1, member_image("f1.1"))
    assert node.step(Tick(), 0.0) == []


def test_a_trusted_prefix_that_grew_is_saved_after_a_while() -> None:
    cluster = Cluster()
    cluster.propose(write(1))
    cluster.advance(1)
    assert cluster[F1].log.trusted == 1
    assert cluster.disks[F1].hard.trusted == 0
    cluster.advance(198)
    assert cluster.disks[F1].hard.trusted == 0
    cluster.advance(1)
    hard = cluster.disks[F1].hard
    assert (hard.trusted, hard.chain) == (1, cluster[F1].log.chain)
    count = len(cluster.effects)
    cluster.now += 5000
    assert cluster.step(F1, Tick()) == []
    assert len(cluster.effects) == count


def test_a_node_that_restarts_with_an_older_trusted_prefix_catches_up_with_itself() -> None:
    cluster = Cluster()
    cluster.propose(write(1), write(2, "j"))
    cluster.advance(1)
    cluster.restart(F1)
    assert cluster[F1].log.trusted == 0
    cluster.advance(100)
    assert cluster[F1].log.trusted == 2
    cluster.assert_converged()


def test_compaction_keeps_up_with_any_load() -> None:
    cluster = Cluster(0, 0, Limits(retention=0, compact_batch=2))
    for token in range(1, 322):
        cluster.propose(write(token))
    [compact] = only(cluster.step(L, Tick()), Compact)
    assert len(compact.dead) == 321 // 32


def test_superseded_rows_are_deleted_in_batches_with_the_floor_that_they_belong_to() -> None:
    cluster = Cluster(0, 0, Limits(retention=1, compact_batch=2))
    for token in range(1, 8):
        cluster.propose(write(token))
    cluster.now += 1
    assert only(cluster.step(L, Tick(compacting=False)), Compact) == []
    effects = cluster.step(L, Tick())
    assert only(effects, Compact) == [Compact([(1, 0), (2, 0)], [])]
    assert only(effects, SaveState)[0].hard.floor == 3
    cluster.advance(1)
    cluster.advance(1)
    assert cluster.disks[L].rows.keys() == {6, 7}
    assert cluster.disks[L].hard.floor == 6


def test_a_hard_state_that_was_saved_does_not_change_afterwards() -> None:
    cluster = Cluster(founded=False)
    cluster.start(L, lead=True)
    cluster.start(F1)
    cluster.start(F2)
    cluster.run()
    cluster.advance(3000)
    hard = cluster.disks[L].hard
    cluster.start(F3)
    cluster.run()
    assert F3 not in hard.births
    assert F3 in cluster.disks[L].hard.births


def test_a_deletion_leaves_nothing_behind_below_the_floor() -> None:
    cluster = Cluster(limits=Limits(retention=0))
    cluster.propose(write(1), write(2, kind=Kind.DELETE), write(3, "j"))
    cluster.advance(1)
    cluster.advance(1)
    cluster.assert_converged()
    assert all(disk.rows.keys() == {3} for disk in cluster.disks.values())


# --- who is who ---


def test_a_node_learns_its_name_and_the_members_from_whoever_leads() -> None:
    node = replica("", Image(HardState("x.1"), {}, []), members=())
    (state,) = only(node.step(Joined(F2, NAMES), 0.0), SaveState)
    assert (node.name, node.members, state.hard.name) == (F2, NAMES, F2)
    assert node.step(Joined(F2, NAMES), 0.0) == []
    node.step(Received(L, Seal(1, "c", "x.1", True, 3)), 0.0)
    assert node.hard_state().nodes == 6


def test_roles() -> None:
    cluster = Cluster()
    assert [node.role for node in (cluster[L], cluster[F1])] == ["leader", "follower"]
    cluster.cut(F2)
    cluster.step(F2, PromoteRequested(7, False, 1e9))
    assert cluster[F2].role == "candidate"
    assert (cluster[L].epoch, cluster[F1].epoch) == (1, 1)
    assert not cluster[F2].serving
    assert (cluster[L].serving, cluster[F1].serving) == (True, False)
    assert cluster[L].leader == L
    cluster.advance(100)
    assert cluster[F1].leader == L


def test_a_follower_changes_no_configuration() -> None:
    node = replica(F1, member_image("f1.1"))
    result = replies(node.step(ConfigureRequested(1, 2, 1e9), 0.0))[1]
    assert result == Result(Outcome.NOT_WRITTEN, Reason.NOT_LEADER)


# --- reads ---


def test_local_reads_show_the_newest_row_committed_or_not() -> None:
    rows = [put(1, 1, "a"), put(2, 1, "b"), put(3, 1, "b", b"new"), delete(4, 1, "a"), put(5, 1, "c")]
    node = replica(F1, member_image("f1.1", *rows, trusted=2))
    assert node.read_local("a") is None
    row = node.read_local("b")
    assert row is not None
    assert (row.value, node.is_committed(row.version)) == (b"new", False)
    assert node.read_local("d") is None
    assert [(key, row.value) for key, row in node.scan_local()] == [("b", b"new"), ("c", b"v")]


def test_committed_reads_and_scans_show_no_pending_write() -> None:
    cluster = Cluster()
    cluster.propose(write(1, "a", b"1"), write(2, "b", b"2"))
    cluster.hold_appends(F1, F2, F3, F4, F5)
    cluster.propose(write(3, "a", b"3"), write(4, "c"), write(5, "b", kind=Kind.DELETE))
    node = cluster[L]
    assert [key for key, _ in node.scan()] == ["a", "b"]
    for key, wanted in (("a", b"1"), ("b", b"2"), ("c", None)):
        row = node.read_committed(key)
        assert (row.value if row is not None else None) == wanted
    assert (node.is_committed(2), node.is_committed(3)) == (True, False)
    cluster.release()
    assert node.read_committed("b") is None
    assert node.is_committed(5)
    assert [key for key, _ in node.scan("", "a")] == ["c"]


def test_a_follower_knows_only_its_trusted_prefix_to_be_committed() -> None:
    node = replica(F1, member_image("f1.1", put(1, 1), put(2, 1, value=b"new"), trusted=1))
    row = node.read_committed("k")
    assert row is not None
    assert row.value == b"v"
    assert not node.is_committed(2)


def session(token: int, version: int, *, epoch: int = 1, key: str = "k", deadline: float = 1e9) -> SessionRead:
    return SessionRead(token, key, epoch, version, deadline)


def found(cluster: Cluster, token: int) -> tuple[int, bytes] | None:
    result = cluster.read(token)
    assert result.reason is Reason.OK
    return None if result.row is None else (result.row.version, result.row.value)


def test_a_session_read_waits_until_its_version_is_here() -> None:
    cluster = Cluster()
    cluster.hold_appends(F1)
    cluster.propose(write(1, value=b"1"))
    cluster.step(F1, session(2, 1))
    assert 2 not in cluster.replies
    cluster.release()
    assert found(cluster, 2) == (1, b"1")


def test_a_session_read_is_answered_by_the_row_that_the_token_is_about_before_it_is_trusted() -> None:
    node = replica(F1, member_image("f1.1", put(2, 1, value=b"2"), put(3, 1, value=b"3")))
    result = replies(node.step(session(1, 2), 0.0))[1]
    assert isinstance(result, ReadResult)
    assert result.row is not None
    assert result.row.value == b"2"


@pytest.mark.parametrize(("version", "epoch"), [(2, 3), (1, 1)])
def test_a_row_of_a_dead_epoch_or_another_version_does_not_satisfy_a_session(version: int, epoch: int) -> None:
    node = replica(F1, member_image("f1.1", put(2, 1)))
    assert replies(node.step(session(1, version, epoch=epoch), 0.0)) == {}


def test_a_session_read_of_a_trusted_version_shows_trusted_state() -> None:
    node = replica(F1, member_image("f1.1", put(1, 1, value=b"1"), put(2, 1, value=b"2"), trusted=1))
    result = replies(node.step(session(1, 1), 0.0))[1]
    assert isinstance(result, ReadResult)
    assert result.row is not None
    assert result.row.value == b"1"


def test_a_session_read_that_waits_too_long_times_out() -> None:
    cluster = Cluster()
    cluster.step(F1, session(1, 1, deadline=50))
    cluster.advance(49)
    assert 1 not in cluster.replies
    cluster.advance(1)
    assert cluster.read(1) == ReadResult(Reason.TIMEOUT)


def test_a_session_read_on_the_leader_shows_only_what_is_committed() -> None:
    cluster = Cluster()
    cluster.hold_appends(F1, F2, F3, F4, F5)
    cluster.propose(write(1, "j"), write(2, value=b"2"))
    cluster.step(L, session(3, 2))
    assert 3 not in cluster.replies
    for follower in (F1, F2, F3):
        cluster.send(L, follower, Heartbeat(1, 1, 0, 0))
    cluster.run()
    assert 3 not in cluster.replies
    cluster.release()
    assert found(cluster, 3) == (2, b"2")


def test_a_session_read_on_the_leader_is_answered_by_a_committed_version_above_a_hole() -> None:
    cluster = Cluster()
    cluster.hold_appends(F1, F2, F3, F4, F5)
    cluster.propose(write(1, "j"), write(2, value=b"2"))
    cluster.step(L, session(3, 2))
    for follower in (F1, F2, F3):
        cluster.step(L, Received(follower, Ack(1, [2], 0, 0)))
    assert cluster[L].log.trusted == 0
    assert found(cluster, 3) == (2, b"2")


def test_a_session_read_on_a_new_leader_waits_for_the_recovery_barrier() -> None:
    cluster = Cluster()
    cluster.propose(write(1))
    cluster.advance(100)
    cluster.hold_appends(F1, F3, F4, F5)
    cluster.propose(write(2, value=b"tail"))
    cluster.lose()
    cluster.stop(L)
    cluster.hold_appends(F1, F3, F4, F5)
    cluster.step(F2, PromoteRequested(7, False, 1e9))
    cluster.run()
    assert cluster[F2].role == "leader"
    cluster.step(F2, session(3, 1))
    assert 3 not in cluster.replies
    cluster.release()
    assert found(cluster, 3) == (2, b"tail")


# --- a whole history ---


def test_a_history_with_three_leaders_ends_equal_everywhere() -> None:
    cluster = Cluster(limits=Limits(retention=3, compact_batch=2, catch_up_batch=2))
    token = 100
    leader = L
    for turn, promoted in enumerate((F3, L, F5)):
        for number in range(4):
            token += 1
            cluster.propose(write(token, f"k{number}", str(token).encode(), request_id=f"r{token}"), to=leader)
        cluster.hold_appends(NAMES[turn + 1])
        token += 1
        cluster.propose(write(token, "k0", condition=Condition(present=True)), to=leader)
        cluster.lose()
        cluster.step(promoted, PromoteRequested(turn, False, 1e9))
        cluster.run()
        assert cluster.result(turn).outcome is Outcome.COMMITTED
        leader = promoted
        for _ in range(4):
            cluster.advance(1000)
    cluster.advance(100)
    cluster.assert_converged()
    assert cluster[F5].serving
    assert len({tuple(sorted((k, r.version, r.value) for k, r in n.scan())) for n in cluster.nodes.values()}) == 1
    answered = [result for number, result in cluster.replies.items() if number > 100]
    assert len(answered) == 15
    assert all(isinstance(result, Result) and result.outcome is Outcome.COMMITTED for result in answered)
