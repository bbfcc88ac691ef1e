"""Followers come, go, are replaced, and differ."""

from __future__ import annotations

from retinue.core.messages import (
    Append,
    Configuration,
    ConfigureRequested,
    Confirmed,
    Diverged,
    Kind,
    LinkUp,
    Outcome,
    Promise,
    PromoteRequested,
    Received,
    Seal,
    StrongRead,
)
from tests.core.cluster import Cluster, silent
from tests.core.parts import (
    F1,
    F2,
    F3,
    F4,
    F5,
    L,
    member_image,
    put,
    replica,
    sent,
    write,
)

FOLLOWERS = (F1, F2, F3, F4, F5)


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
    cluster.ack(F1, 1)
    cluster.ack(F2, 1)
    leadership = cluster.leading()
    leadership.progress[F5].admit_at = 99
    cluster.ack(F5, 1)
    assert 1 not in cluster.replies
    cluster.step(L, StrongRead(2, "k", 1e9))
    for follower in (F1, F2, F5):
        cluster.step(L, Received(follower, Confirmed(1, 1)))
    assert 2 not in cluster.replies


def test_an_acknowledgement_that_admits_a_learner_counts_once() -> None:
    """One message acknowledges the entry that admits it, and a write that came after."""
    cluster = Cluster(write_quorum=5)
    cluster.propose(write(1, key="a"))
    cluster.stop(F5)
    cluster.wipe(F5)
    cluster.hold(lambda _, to, m: isinstance(m, Append) and to == F5 and any(e.kind == Kind.CONFIG for e in m.entries))
    cluster.start(F5)
    cluster.run()
    cluster.lose()
    cluster.hold(lambda _, to, m: isinstance(m, Promise) or (isinstance(m, Append) and to == F4))
    cluster.relink(L, F5)
    cluster.propose(write(2, key="b"))
    promises = [sent for sent in cluster.held if isinstance(sent[2], Promise)]
    cluster.lose()
    cluster.hold_appends(F4)
    cluster.under_way.extend(promises)
    cluster.run()
    assert cluster.leading().progress[F5].voter
    assert 2 not in cluster.replies, "follower4 does not have it"
    cluster.release()
    cluster.advance(2000)
    assert sorted(name for name, _ in cluster.result(2).acked_by) == sorted(FOLLOWERS)


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
    cluster.ack(F1, 2)
    cluster.ack(F2, 2)
    for follower in (F1, F2, F3):
        cluster.ack(follower, 1)
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
    cluster.ack(F1, 1)
    cluster.ack(F2, 1)
    cluster.stop(F2)
    cluster.wipe(F2)
    cluster.start(F2)
    cluster.run()
    cluster.ack(F3, 1)
    assert 1 not in cluster.replies
    cluster.ack(F4, 1)
    assert [name for name, _ in cluster.result(1).acked_by] == [F1, F3, F4]


def test_a_voter_that_was_away_comes_back_as_a_voter_and_is_counted_once() -> None:
    cluster = silent()
    cluster.propose(write(1))
    cluster.ack(F1, 1)
    cluster.relink(L, F1)
    cluster.ack(F1, 1)
    cluster.ack(F2, 1)
    assert 1 not in cluster.replies
    cluster.ack(F3, 1)
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
    cluster.ack(F5)
    change = cluster.leading().change
    assert change is not None
    assert change.configuration.members == {F5: "follower5.1"}


def test_a_follower_that_trusts_more_than_its_new_leader_ever_saw_does_not_count() -> None:
    cluster = silent()
    cluster.propose(write(1))
    for follower in FOLLOWERS:
        cluster.step(L, LinkUp(follower, f"{follower}.1", "c", 1))
        told = Promise(1, f"{follower}.1", True, 1, 0, 0, 1, {}, Configuration(3), [])
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
        Promise(7, "follower1.1", True, 0, 0, 0, 0, {}, known, []),
        Promise(1, "follower1.0", True, 0, 0, 0, 0, {}, known, []),
    ):
        cluster.step(L, Received(F1, late))
        assert not leadership.progress[F1].promised
    cluster.run()
    assert leadership.progress[F1].promised
    cluster.step(L, Received(F1, Promise(1, "follower1.1", False, 0, 0, 0, 9, {}, known, [])))
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
        cluster.ack(follower, 1)
    assert 1 not in cluster.replies


def test_a_leader_asks_for_the_promise_of_whoever_can_be_reached() -> None:
    node = replica(L, member_image("l.1", write_quorum=5))
    node.step(PromoteRequested(7, False, 1e9), 0.0)
    assert node.role == "leader"
    effects = node.step(LinkUp(F1, "follower1.1", "c", 1), 0.0)
    assert sent(effects, Seal) == [(F1, Seal(7, "c", "", False, 5))]


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
