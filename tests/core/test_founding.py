"""The founder of a cluster, a leader that comes back, and whole take-overs."""

from __future__ import annotations

from retinue.core.messages import (
    CloseLinks,
    Configuration,
    HardState,
    Image,
    Outcome,
    PromoteRequested,
    Reason,
    SaveEntries,
    SaveEpoch,
    SaveState,
    Seal,
    Started,
)
from tests.core.cluster import Cluster
from tests.core.one_node import (
    RESUMED,
    Candidate,
)
from tests.core.parts import (
    F1,
    F2,
    F3,
    F4,
    F5,
    L,
    member_image,
    noop,
    only,
    put,
    replica,
    sent,
    write,
)

# --- the founder, and a leader that comes back ---


def founder() -> Candidate:
    return Candidate(L, Image(HardState("leader.1"), {}, []))


def test_a_cluster_is_founded_at_once_when_everybody_is_there() -> None:
    node = founder()
    node.start()
    node.link(F1, F2, F3, F4, promised=0, cluster_id="")
    assert node.node.cluster_id == ""
    effects = node.link(F5, promised=0, cluster_id="")
    (state,) = only(effects, SaveState)
    assert (state.hard.cluster_id, state.hard.founder, state.hard.voter, state.hard.promised) == ("c", True, True, 1)
    assert state.hard.births == {name: f"{name}.1" for name in (F1, F2, F3, F4, F5)}
    assert {to: message.birth for to, message in sent(effects, Seal)} == state.hard.births


def test_a_cluster_is_founded_by_p_nodes_after_waiting_for_the_others() -> None:
    node = founder()
    node.start()
    node.link(F1, F2, promised=0, cluster_id="")
    node.tick(2999)
    assert node.node.promised == 0
    node.tick(3000)
    assert node.node.promised == 1
    node.answer(F1)
    node.answer(F2)
    assert node.node.serving


def test_a_blank_leader_does_not_found_a_second_cluster_beside_the_first() -> None:
    node = founder()
    node.start()
    effects = node.link(F1, promised=1, cluster_id="c")
    assert only(effects, CloseLinks)
    assert (node.role, node.node.cluster_id) == ("follower", "")


def test_a_node_without_members_or_that_is_called_follower_waits_to_be_led() -> None:
    assert Candidate(F1, Image(HardState("f1.1"), {}, [])).start(lead=False) == []
    assert replica("", Image(HardState("f1.1"), {}, []), members=()).step(Started(True, "c"), 0.0) == []
    node = Candidate(L, member_image("leader.1", promised=8))
    assert node.start(lead=True) == [], "somebody else leads the cluster now"
    assert Candidate(L, member_image("leader.1", quarantined=True)).start() == []
    assert Candidate(L, member_image("leader.2", voter=False)).start() == []


def test_a_leader_that_comes_back_seals_its_own_cluster_in_a_new_epoch() -> None:
    node = Candidate(L, member_image("leader.1", put(1, 1), promised=1))
    node.start(lead=False)
    node.link(F1, F2)
    assert node.node.promised == RESUMED
    node.answer(F1, put(1, 1))
    effects = node.answer(F2)
    assert node.role == "leader"
    assert only(effects, SaveEntries) == [SaveEntries([put(1, RESUMED)])]
    assert only(effects, SaveEpoch) == [SaveEpoch(RESUMED, 2)]


def test_a_leader_that_comes_back_gives_way_to_one_that_was_promoted_meanwhile() -> None:
    node = Candidate(L, member_image("leader.1"))
    node.start()
    node.link(F1)
    effects = node.link(F2, promised=3)
    assert only(effects, CloseLinks)
    assert (node.role, node.node.promised) == ("follower", 1)


def test_a_leader_that_comes_back_is_not_stopped_by_its_own_epoch() -> None:
    node = Candidate(L, member_image("leader.1"))
    node.start()
    node.link(F1, promised=RESUMED)
    assert node.role == "candidate"


def test_promoting_a_node_that_wants_to_resume_is_a_promotion() -> None:
    node = Candidate(L, member_image("leader.1"))
    node.start()
    node.promote()
    node.link(F1, F2, promised=3)
    assert node.role == "candidate"
    assert node.node.promised == RESUMED


def test_a_blank_node_is_born_a_voter_once_under_each_name() -> None:
    node = Candidate(L, member_image("leader.1", founder=True, births={F1: "follower1.1"}))
    node.start()
    effects = node.link(F1, life=2) + node.link(F2)
    assert {to: message.birth for to, message in sent(effects, Seal)} == {F1: "", F2: "follower2.1"}


def test_nobody_is_born_under_a_name_that_the_configuration_knows_or_by_another_than_the_founder() -> None:
    known = Configuration(3, {F1: "follower1.1"})
    for founded, births in ((True, {F2: "follower2.1", F1: ""}), (False, {F2: "", F1: ""})):
        node = Candidate(L, member_image("leader.1", founder=founded, configuration=known))
        node.start()
        effects = node.link(F1, F2)
        assert {to: message.birth for to, message in sent(effects, Seal)} == births


# --- whole take-overs ---


def test_an_acknowledged_write_survives_the_loss_of_its_leader_and_of_two_followers() -> None:
    cluster = Cluster()
    cluster.hold_appends(F4, F5)
    cluster.propose(write(1, value=b"kept"))
    assert cluster.result(1).outcome is Outcome.COMMITTED
    cluster.lose()
    cluster.stop(L, F1, F2)
    cluster.step(F4, PromoteRequested(7, False, 5000.0))
    cluster.run()
    assert cluster[F4].role == "leader", "three of six promised"
    assert not cluster[F4].serving, "three copies of six are too few"
    cluster.start(F1)
    cluster.run()
    assert cluster.result(7).outcome is Outcome.COMMITTED
    row = cluster[F4].read_committed("k")
    assert row is not None
    assert row.value == b"kept"


def test_a_deposed_leader_cannot_commit_and_follows_the_new_one_with_the_same_history() -> None:
    cluster = Cluster()
    cluster.propose(write(1, value=b"one"))
    cluster.cut(L)
    cluster.step(F2, PromoteRequested(7, False, 5000.0))
    cluster.run()
    assert cluster[F2].serving
    cluster.propose(write(2, value=b"two"), to=F2)
    cluster.propose(write(3, value=b"three"))
    assert 3 not in cluster.replies
    cluster.heal()
    cluster.relink(F2, L)
    cluster.advance(2000)
    cluster.advance(2000)
    assert cluster.result(3).outcome is Outcome.UNKNOWN
    assert cluster[L].role == "follower"
    assert cluster[L].leader == F2
    cluster.assert_converged()
    assert cluster[L].log.rows["k"].value == b"two"


def test_a_request_is_written_once_however_many_leaders_gave_it_a_version() -> None:
    """Epoch 1 gave it version 3, which epoch 7 committed; epoch 2 had not seen that and gave it version 5."""
    image = member_image("follower2.1", put(3, RESUMED, request_id="x"), trusted=3, epochs={1: 1, RESUMED: 7})
    node = Candidate(F2, image)
    node.promote()
    node.link(F1, F3, promised=RESUMED)
    stale = [put(3, 2), put(4, 2), put(5, 2, request_id="x")]
    node.answer(F1, *stale, trusted=2, epochs={2: 3})
    node.answer(F3, trusted=2)
    assert node.role == "leader"
    assert node.node.log.above == {4: put(4, 15), 5: noop(5, 15)}
    assert node.node.log.requests["x"][0] == 3


def test_a_follower_that_trusts_what_was_given_up_is_quarantined_and_never_counted() -> None:
    cluster = Cluster()
    cluster.propose(write(1), write(2, "j"))
    cluster.advance(100)
    fresh = [F4, F5]
    cluster.assert_converged()
    cluster.hold_appends(*fresh)
    cluster.propose(write(3, value=b"lost"), write(4, value=b"lost too"))
    assert cluster.result(4).outcome is Outcome.COMMITTED
    cluster.advance(2000)
    cluster.advance(2000)
    assert cluster.disks[F1].hard.trusted == 4
    cluster.lose()
    cluster.stop(L, F1, F2, F3)
    cluster.step(F4, PromoteRequested(7, True, cluster.now + 100))
    cluster.advance(100)
    cluster.advance(1000)
    assert cluster[F4].role == "leader"
    cluster.start(F1)
    cluster.run()
    cluster.propose(write(5, value=b"new"), write(6, value=b"newer"), to=F4)
    cluster.advance(200)
    assert cluster[F1].quarantined
    assert cluster.leading(F4).progress[F1].diverged
    assert cluster.leading(F4).reachable == 1
    assert cluster.result(5).reason is Reason.NO_QUORUM
