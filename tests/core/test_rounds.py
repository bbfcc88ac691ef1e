"""Strong reads: the value at arrival, confirmed by a round that began after it."""

from __future__ import annotations

from retinue.core.messages import (
    Confirm,
    Confirmed,
    LinkDown,
    LinkUp,
    PromoteRequested,
    ReadResult,
    Reason,
    Received,
    StrongRead,
)
from tests.core.cluster import Cluster
from tests.core.parts import (
    F1,
    F2,
    F3,
    F4,
    F5,
    L,
    sent,
    write,
)


def quiet(value: bytes = b"old") -> Cluster:
    """A cluster with one key, where confirmations are made up by the test."""
    cluster = Cluster()
    cluster.propose(write(1, value=value))
    cluster.hold(lambda sender, to, message: isinstance(message, Confirm))
    return cluster


def ask(cluster: Cluster, token: int, key: str = "k", deadline: float = 1e9, to: str = L) -> list[tuple[str, Confirm]]:
    effects = cluster.step(to, StrongRead(token, key, deadline))
    cluster.run()
    return sent(effects, Confirm)


def confirm(cluster: Cluster, number: int, *followers: str, epoch: int = 1) -> None:
    for follower in followers:
        cluster.step(L, Received(follower, Confirmed(epoch, number)))


def value(cluster: Cluster, token: int) -> bytes | None:
    result = cluster.read(token)
    assert result.reason is Reason.OK
    return None if result.row is None else result.row.value


def test_a_strong_read_is_answered_when_k_followers_have_confirmed() -> None:
    cluster = quiet()
    assert ask(cluster, 2) == [(follower, Confirm(1, 1)) for follower in (F1, F2, F3, F4, F5)]
    confirm(cluster, 1, F1, F2, F2)
    assert 2 not in cluster.replies
    confirm(cluster, 1, F5)
    assert value(cluster, 2) == b"old"


def test_a_strong_read_of_a_key_that_is_not_there_says_so() -> None:
    cluster = Cluster()
    ask(cluster, 2, "missing")
    assert value(cluster, 2) is None


def test_a_strong_read_takes_the_value_at_its_arrival() -> None:
    cluster = quiet()
    ask(cluster, 2)
    cluster.propose(write(3, value=b"new"))
    confirm(cluster, 1, F1, F2, F3)
    assert value(cluster, 2) == b"old"


def test_a_pending_write_is_invisible_to_a_strong_read() -> None:
    cluster = quiet()
    cluster.hold_appends(F1, F2, F3, F4, F5)
    cluster.propose(write(2, value=b"pending"))
    ask(cluster, 3)
    confirm(cluster, 1, F1, F2, F3)
    assert value(cluster, 3) == b"old"


def test_one_round_answers_all_reads_that_waited_when_it_began() -> None:
    cluster = quiet()
    assert ask(cluster, 2)
    assert ask(cluster, 3) == []
    assert ask(cluster, 4) == []
    confirm(cluster, 1, F1, F2, F3)
    assert 3 not in cluster.replies, "the round began before these reads"
    confirm(cluster, 1, F4, F5)
    assert 3 not in cluster.replies
    confirm(cluster, 2, F1, F2, F3)
    assert value(cluster, 3) == value(cluster, 4) == b"old"
    assert ask(cluster, 5)


def test_confirmations_of_another_epoch_do_not_count() -> None:
    cluster = quiet()
    ask(cluster, 2)
    confirm(cluster, 1, F1, F2, F3, epoch=7)
    assert 2 not in cluster.replies


def test_followers_that_may_not_vote_do_not_count() -> None:
    cluster = quiet()
    ask(cluster, 2)
    cluster.step(L, LinkUp(F1, "another disk", "c", 1))
    confirm(cluster, 1, F1, F2, F3)
    assert 2 not in cluster.replies


def test_without_k_reachable_followers_a_strong_read_is_refused_at_once() -> None:
    cluster = quiet()
    cluster.stop(F1, F2, F3)
    ask(cluster, 2)
    assert cluster.read(2) == ReadResult(Reason.NO_QUORUM)


def test_only_reachable_followers_are_asked() -> None:
    cluster = quiet()
    cluster.step(L, LinkDown(F1))
    assert [to for to, _ in ask(cluster, 2)] == [F2, F3, F4, F5]


def test_with_a_quorum_of_zero_nobody_need_be_asked() -> None:
    cluster = Cluster(1, 0)
    ask(cluster, 2)
    assert value(cluster, 2) is None


def test_a_read_that_is_not_confirmed_by_its_deadline_has_timed_out() -> None:
    cluster = quiet()
    ask(cluster, 2, deadline=50)
    ask(cluster, 3, deadline=80)
    ask(cluster, 4, deadline=500)
    cluster.advance(50)
    assert cluster.read(2) == ReadResult(Reason.TIMEOUT)
    assert {3, 4}.isdisjoint(cluster.replies)
    cluster.advance(30)
    assert cluster.read(3) == ReadResult(Reason.TIMEOUT)
    confirm(cluster, 2, F1, F2, F3)
    assert value(cluster, 4) == b"old"


def test_a_new_read_after_others_timed_out_gets_a_new_round() -> None:
    cluster = quiet()
    ask(cluster, 2, deadline=50)
    cluster.advance(50)
    assert ask(cluster, 3)[0] == (F1, Confirm(1, 2))
    confirm(cluster, 1, F1, F2, F3)
    assert 3 not in cluster.replies


def test_those_who_have_not_confirmed_are_asked_again() -> None:
    cluster = quiet()
    ask(cluster, 2)
    cluster.lose()
    cluster.advance(499)
    assert 2 not in cluster.replies
    cluster.advance(1)
    assert value(cluster, 2) == b"old"


def test_a_deposed_leader_answers_no_strong_read() -> None:
    cluster = Cluster()
    cluster.propose(write(1, value=b"old"))
    cluster.cut(L)
    cluster.step(F2, PromoteRequested(7, False, 1e9))
    cluster.run()
    cluster.propose(write(2, value=b"new"), to=F2)
    ask(cluster, 3)
    assert 3 not in cluster.replies
    cluster.heal()
    cluster.advance(500)
    assert cluster.read(3) == ReadResult(Reason.LEADERSHIP_LOST)


def test_all_reads_that_wait_are_answered_when_the_leadership_is_lost() -> None:
    cluster = quiet()
    ask(cluster, 2)
    ask(cluster, 3)
    cluster.relink(L, F1)
    cluster[L].step_down(Reason.LEADERSHIP_LOST)
    cluster.advance(1)
    assert cluster.read(2) == cluster.read(3) == ReadResult(Reason.LEADERSHIP_LOST)


def test_only_a_leader_takes_strong_reads() -> None:
    cluster = Cluster()
    ask(cluster, 2, to=F1)
    assert cluster.read(2) == ReadResult(Reason.NOT_LEADER)
