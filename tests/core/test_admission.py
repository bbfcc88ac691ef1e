"""Which disk speaks for a member, when a leader knows less about it than its followers, or two disks turn up."""

from __future__ import annotations

import msgspec

from retinue.core.messages import Ack, Append, Configuration, ConfigureRequested, Heartbeat, Kind, Promise, Seal
from tests.core.cluster import Cluster
from tests.core.parts import F1, F2, F3, F4, F5, L, config, member_image, put, write


def replaced(cluster: Cluster, name: str) -> None:
    """A follower comes back with a new disk, and is admitted."""
    cluster.stop(name)
    cluster.wipe(name)
    cluster.start(name)
    cluster.run()
    cluster.advance(2000)
    assert cluster[name].may_vote


def forget_what_is_trusted(cluster: Cluster, name: str) -> None:
    """The trusted prefix is saved now and then: a node may crash before that."""
    disk, founding = cluster.disks[name], Configuration(cluster.write_quorum)
    disk.hard = msgspec.structs.replace(disk.hard, trusted=0, chain=0, configuration=founding)


def test_a_leader_that_knows_less_counts_a_follower_by_what_that_one_trusts() -> None:
    """Else nothing would ever commit: four of five must acknowledge, and one of them is missing."""
    cluster = Cluster(write_quorum=4)
    cluster.propose(write(1))
    replaced(cluster, F3)
    cluster.stop(F5, L, F1, F2, F4)
    cluster.wipe(F5)
    for name in (F1, F2, F4, L):
        forget_what_is_trusted(cluster, name)
        if name == L:
            cluster.hold(lambda sender, _, message: sender == F3 and isinstance(message, Promise))
        cluster.start(name)
    cluster.run()
    assert not cluster[L].serving
    cluster.release()
    assert cluster[L].serving
    cluster.propose(write(2))
    assert {name for name, _ in cluster.result(2).acked_by} == {F1, F2, F3, F4}
    cluster.start(F5)
    cluster.run()
    cluster.advance(2000)
    cluster.assert_converged()


def test_what_a_follower_trusts_beyond_the_leader_is_committed() -> None:
    cluster = Cluster()
    cluster.propose(write(1), write(2, "j", request_id="x"))
    cluster.advance(2000)
    cluster.advance(2000)
    cluster.stop(L, F1, F2, F3, F4)
    for name in (F1, F2, F3, F4, L):
        forget_what_is_trusted(cluster, name)
        cluster.start(name)
        cluster.hold_appends(*cluster.names)
    cluster.cut(F5)
    cluster.run()
    for name in (F1, F2, F3):
        cluster.ack(name, 2)
    cluster.propose(write(3, "j", request_id="x"))
    assert not cluster[L].serving
    assert cluster.leading().committed == {2}
    assert 3 not in cluster.replies
    cluster.heal()
    cluster.relink(L, F5)
    assert cluster[L].serving
    assert cluster[L].log.trusted == 2
    assert cluster.result(3).version == 2
    cluster.release()
    cluster.advance(2000)
    cluster.assert_converged()


def test_a_follower_that_trusts_something_else_goes_into_quarantine() -> None:
    cluster = Cluster(founded=False)
    other = put(1, 1, value=b"other")
    for name, disk in cluster.disks.items():
        hard = member_image(disk.hard.node_id, founder=name == L).hard
        disk.hard = hard if name != F5 else msgspec.structs.replace(hard, trusted=1, chain=other.checksum())
        disk.rows[1] = other if name == F5 else put(1, 1)
        disk.epochs = {1: 1}
    for name in (F1, F2, F3, F4, F5):
        cluster.start(name)
    cluster.hold_appends(*cluster.names)
    cluster.cut(F5)
    cluster.start(L)
    cluster.run()
    assert cluster[L].log.trusted == 0
    cluster.heal()
    cluster.relink(L, F5)
    assert cluster.leading().progress[F5].diverged
    assert cluster[L].log.trusted == 0, "nothing is taken for committed because of it"
    cluster.release()
    assert cluster[F5].quarantined
    assert cluster[L].serving
    assert cluster[F5].log.trusted == cluster[L].log.trusted == 1


def test_neither_disk_counts_while_an_entry_that_replaces_one_by_the_other_is_undecided() -> None:
    cluster = Cluster()
    cluster.propose(write(1))
    cluster.advance(2000)
    cluster.stop(L)
    old = cluster.disks[F5]
    for name in (L, F1):
        cluster.disks[name].rows[2] = config(2, 1, 3, {F5: "follower5.2"})
    cluster.hold(lambda _, to, message: isinstance(message, Append) and to in (F2, F3, F4))
    cluster.start(L)
    cluster.run()
    assert cluster[L].log.above[2].kind == Kind.CONFIG
    progress = cluster.leading().progress[F5]
    assert (progress.node_id, progress.voter) == ("follower5.1", False), "the old disk"
    cluster.propose(write(2))
    assert 2 not in cluster.replies
    cluster.release()
    cluster.advance(2000)
    assert cluster.disks[F5] is old
    assert cluster[L].log.configuration == Configuration(3, {F5: "follower5.1"}), "admitted again, as a learner is"
    assert cluster.result(2).acks >= 3
    cluster.advance(2000)
    cluster.assert_converged()


def with_a_voter_that_does_not_know_it() -> Cluster:
    """A write needs four of five. F3 has a new disk and was admitted, but has not heard of it."""
    cluster = Cluster(write_quorum=4)
    cluster.propose(write(1))
    cluster.stop(F3)
    cluster.wipe(F3)
    cluster.start(F3)
    cluster.hold(lambda _, to, m: to == F3 and isinstance(m, Heartbeat))
    cluster.run()
    cluster.advance(2000)
    return cluster


def test_an_admitted_follower_that_has_not_heard_of_it_needs_no_second_entry() -> None:
    cluster = with_a_voter_that_does_not_know_it()
    assert cluster[L].log.trusted == 2
    assert not cluster[F3].may_vote
    cluster.stop(F5, L)
    cluster.lose()
    cluster.start(L)
    cluster.run()
    assert cluster[L].serving
    assert cluster[L].log.last == 2
    cluster.propose(write(2))
    assert {name for name, _ in cluster.result(2).acked_by} == {F1, F2, F3, F4}


def test_an_admitted_follower_counts_although_another_change_is_on_its_way_which_needs_it() -> None:
    cluster = with_a_voter_that_does_not_know_it()
    cluster.stop(F5, L)
    cluster.lose()
    cluster.wipe(F5)
    cluster.hold(lambda sender, _, m: sender == F3 and isinstance(m, Promise))
    cluster.start(F5)
    cluster.start(L)
    cluster.run()
    change = cluster.leading().change
    assert change is not None
    assert change.configuration.members[F5] == "follower5.2"
    cluster.release()
    assert cluster.leading().change is None
    cluster.advance(2000)
    cluster.assert_converged()
    assert cluster[F5].may_vote


def with_a_learner_that_counts(write_quorum: int, wanted: int) -> Cluster:
    """A write needs every follower, and has all but F4; F5 is a learner. Another write quorum is wanted for 2 s."""
    cluster = Cluster(write_quorum=write_quorum)
    cluster.propose(write(1))
    for _ in range(3):
        cluster.advance(2000)
    cluster.stop(F5)
    cluster.wipe(F5)
    unasked = {F5}
    cluster.hold(lambda sender, _, m: sender == F4 and isinstance(m, Ack))
    cluster.hold(lambda _, to, m: to in unasked and isinstance(m, Seal))
    cluster.start(F5)
    cluster.run()
    cluster.step(L, ConfigureRequested(2, wanted, cluster.now + 2000))
    cluster.run()
    cluster.propose(write(3))
    unasked.clear()
    cluster.advance(1000)
    last = cluster[L].log.last
    assert {name for name, _ in cluster.leading().pending[last].acked} == {F1, F2, F3, F5}
    assert cluster.leading().quorum == 5
    assert not cluster.leading().progress[F5].voter
    return cluster


def test_a_learner_that_counted_counts_no_more_when_the_write_quorum_is_lowered() -> None:
    cluster = with_a_learner_that_counts(5, 4)
    change = cluster.leading().change
    assert change is not None
    cluster.ack(F4, change.version)
    assert cluster.leading().quorum == 4
    assert 3 not in cluster.replies
    cluster.release()
    assert {name for name, _ in cluster.result(3).acked_by} >= {F1, F2, F3, F4}


def test_a_learner_that_counted_counts_no_more_when_a_raise_is_given_up() -> None:
    cluster = with_a_learner_that_counts(4, 5)
    cluster.advance(1000)
    assert cluster.leading().quorum == 4
    assert 3 not in cluster.replies


def test_a_disk_is_not_admitted_when_an_undecided_entry_replaces_it_again() -> None:
    """Replaced twice in a row, and the disk in between comes back: a learner that has the entry which admits it."""
    cluster = Cluster()
    cluster.propose(write(1))
    cluster.advance(2000)
    cluster.advance(2000)
    cluster.stop(*cluster.names)
    first, second = config(2, 1, 3, {F5: "follower5.2"}), config(3, 1, 3, {F5: "follower5.3"})
    for name in (L, F1, F2, F3, F4, F5):
        cluster.disks[name].rows[2] = first
    for name in (L, F1):
        cluster.disks[name].rows[3] = second
    disk = cluster.disks[F5]
    disk.hard = msgspec.structs.replace(disk.hard, node_id="follower5.2", voter=False)
    for name in (F1, F2, F3, F4, F5):
        cluster.start(name)
    cluster.hold_appends(F2, F3, F4)
    cluster.start(L)
    cluster.run()
    for name in (F2, F3):
        cluster.ack(name, 2)
    assert cluster[L].log.configuration == Configuration(3, {F5: "follower5.2"})
    assert not cluster.leading().progress[F5].voter
    cluster.ack(F2, 3)
    assert not cluster[L].serving, "two followers have the second entry, and three must"
    cluster.release()
    cluster.advance(2000)
    assert cluster[L].serving
    assert cluster[L].log.configuration == Configuration(3, {F5: "follower5.2"}), "admitted again after that"
    cluster.advance(2000)
    cluster.assert_converged()
