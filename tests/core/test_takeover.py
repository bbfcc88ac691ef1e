"""The way from the first link to leadership, one candidate at a time."""

from __future__ import annotations

import pytest

from retinue.core.messages import (
    CloseLinks,
    Configuration,
    Diverged,
    Fetched,
    Image,
    LinkDown,
    OpenLinks,
    Outcome,
    PromoteRequested,
    Reason,
    Rejected,
    Result,
    SaveState,
    Seal,
)
from retinue.core.takeover import Stage
from tests.core.cluster import Cluster
from tests.core.one_node import (
    EPOCH,
    Candidate,
    answer,
    append,
    outcome,
)
from tests.core.parts import (
    F1,
    F2,
    F3,
    F4,
    F5,
    L,
    config,
    member_image,
    only,
    put,
    replies,
    sent,
)

# --- the way to leadership, one node at a time ---


def test_a_node_changes_nothing_before_enough_nodes_can_be_asked() -> None:
    node = Candidate(F2, member_image("follower2.1"))
    effects = node.promote()
    assert [type(effect) for effect in effects] == [OpenLinks]
    assert node.link(F1) == []
    assert node.node.promised == 1
    effects = node.link(F3)
    assert only(effects, SaveState)[0].hard.promised == EPOCH
    seal = Seal(EPOCH, "c", "", True, 3)
    assert sent(effects, Seal) == [(F1, seal), (F3, seal)]


def test_p_promises_are_needed_the_candidates_included() -> None:
    node = Candidate(F2, member_image("follower2.1"))
    node.promote()
    node.link(F1, F3)
    node.answer(F1)
    assert node.role == "candidate"
    effects = node.answer(F3)
    assert node.role == "leader"
    assert node.node.serving
    assert outcome(effects) == (Outcome.COMMITTED, Reason.OK)


def test_an_answer_counts_once() -> None:
    node = Candidate(F2, member_image("follower2.1"))
    node.promote()
    node.link(F1, F3)
    node.answer(F1)
    node.answer(F1)
    assert node.role == "candidate"


def test_the_epoch_is_higher_than_any_that_a_linked_node_has_promised() -> None:
    node = Candidate(F2, member_image("follower2.1"))
    node.promote()
    node.link(F1, F3, promised=13)
    assert node.node.promised == 21


def test_a_promise_of_another_epoch_does_not_count() -> None:
    node = Candidate(F2, member_image("follower2.1"))
    node.promote()
    node.link(F1, F3)
    for peer in (F1, F3):
        node.hear(peer, answer(epoch=3, node_id=f"{peer}.1"))
    assert node.role == "candidate"


def test_learners_and_nodes_in_quarantine_do_not_count() -> None:
    node = Candidate(F2, member_image("follower2.1"))
    node.promote()
    node.link(F1, F3, F4)
    node.answer(F1, voter=False)
    node.answer(F3)
    assert node.role == "candidate"
    node.answer(F4)
    assert node.role == "leader"


def test_a_replaced_disk_does_not_count_once_a_configuration_may_know_another() -> None:
    node = Candidate(F2, member_image("follower2.1"))
    node.promote()
    node.link(F1, F3, F4)
    node.answer(F1, config(1, 1, 3, {F3: "follower3.2"}))
    node.answer(F3)
    assert node.role == "candidate"
    node.answer(F4)
    assert node.role == "leader"


def test_a_pending_configuration_with_a_larger_p_is_reckoned_with() -> None:
    node = Candidate(F2, member_image("follower2.1"))
    node.promote()
    node.link(F1, F3, F4)
    node.answer(F1, config(1, 1, 2))
    node.answer(F3)
    assert node.role == "candidate"
    node.answer(F4)
    assert node.role == "leader"
    assert node.node.leadership is not None
    assert node.node.leadership.quorum == 3


def test_a_pending_configuration_with_a_smaller_p_does_not_lower_it_but_raises_w() -> None:
    node = Candidate(F2, member_image("follower2.1"))
    node.promote()
    node.link(F1, F3)
    node.answer(F1, config(1, 1, 5))
    assert node.role == "candidate"
    node.answer(F3)
    assert node.role == "leader"
    assert node.node.leadership is not None
    assert node.node.leadership.quorum == 5


def test_a_pending_configuration_that_is_a_ghost_is_not_reckoned_with() -> None:
    """Else a follower that kept it, and that no leader has reached since, would stop every take-over for good."""
    node = Candidate(F2, member_image("follower2.1"))
    node.promote()
    node.link(F1, F3)
    node.answer(F1, config(9, 1, 1))
    assert node.role == "candidate"
    node.answer(F3, put(5, 2), epochs={1: 1, 2: 5})
    assert node.role == "leader"


def test_a_pending_configuration_that_a_later_leader_has_put_something_else_for_is_not_reckoned_with() -> None:
    node = Candidate(F2, member_image("follower2.1"))
    node.promote()
    node.link(F1, F3)
    node.answer(F1, config(9, 1, 1))
    node.answer(F3, put(9, 2), put(10, 2), epochs={1: 1, 2: 11})
    assert node.role == "leader"


def test_a_disk_is_no_witness_against_the_entry_that_replaces_it() -> None:
    """A leadership that was forced (`accept_loss`) may have begun below an entry that is committed all the same."""
    node = Candidate(F2, member_image("follower2.1"))
    node.promote()
    node.link(F1, F3)
    node.answer(F1, config(9, 1, 3, {F3: "follower3.2"}))
    node.answer(F3, put(5, 2), epochs={1: 1, 2: 5})
    assert node.role == "candidate", "two votes, and three are needed"


def test_a_disk_counts_when_others_show_that_the_entry_that_replaces_it_is_dead() -> None:
    known = Configuration(2)
    node = Candidate(F2, member_image("follower2.1", write_quorum=2))
    node.promote()
    node.link(F1, F3, F4)
    node.answer(F1, config(9, 1, 2, {F3: "follower3.2"}), configuration=known)
    node.answer(F3, configuration=known)
    node.answer(F4, epochs={1: 1, 2: 5}, configuration=known)
    assert node.role == "leader"


def test_the_configuration_at_the_highest_trusted_prefix_counts() -> None:
    node = Candidate(F2, member_image("follower2.1"))
    node.promote()
    node.link(F1, F3)
    node.answer(F1, trusted=4, configuration=Configuration(5))
    assert node.node.takeover is not None
    assert node.node.takeover.base == 4, "with k = 5 one promise is enough"


def test_what_a_node_in_quarantine_takes_for_the_configuration_does_not_count() -> None:
    node = Candidate(F2, member_image("follower2.1"))
    node.promote()
    node.link(F1, F3)
    node.answer(F1, config(10, 1, 5), trusted=9, configuration=Configuration(5), voter=False)
    assert node.node.takeover is not None
    assert node.node.takeover.base == 0
    assert node.node.takeover.stage is Stage.SEALING


def test_a_disk_that_was_replaced_does_not_lead() -> None:
    node = Candidate(F2, member_image("follower2.1"))
    node.promote()
    node.link(F1, F3, F4)
    known = Configuration(3, {F2: "follower2.2"})
    node.answer(F1, trusted=4, configuration=known)
    node.answer(F3, trusted=4, configuration=known)
    effects = node.answer(F4, trusted=4, configuration=known)
    assert outcome(effects) == (Outcome.NOT_WRITTEN, Reason.NOT_VOTER)
    assert node.role == "follower"
    assert only(effects, CloseLinks)


def test_a_candidate_that_hears_while_it_waits_that_its_disk_was_replaced_gives_up() -> None:
    node = Candidate(F2, member_image("follower2.1"))
    node.promote()
    node.link(F1)
    node.hear(L, append(config(1, 1, 3, {F2: "follower2.2"}), commit=1))
    assert node.node.takeover is not None
    effects = node.link(F3, F4)
    assert outcome(effects) == (Outcome.NOT_WRITTEN, Reason.NOT_VOTER)
    assert node.node.promised == 1, "nobody was sealed"


@pytest.mark.parametrize("image", [member_image("f2.2", voter=False), member_image("f2.1", quarantined=True)])
def test_a_learner_and_a_node_in_quarantine_cannot_be_promoted(image: Image) -> None:
    node = Candidate(F2, image)
    assert outcome(node.promote()) == (Outcome.NOT_WRITTEN, Reason.NOT_VOTER)
    assert node.role == "follower"


def test_a_higher_promise_ends_the_take_over() -> None:
    node = Candidate(F2, member_image("follower2.1"))
    node.promote()
    node.link(F1, F3)
    effects = node.hear(F1, Rejected(EPOCH, 14))
    assert node.role == "follower"
    assert outcome(effects) == (Outcome.NOT_WRITTEN, Reason.LEADERSHIP_LOST)


def test_a_late_rejection_of_an_earlier_epoch_means_nothing() -> None:
    node = Candidate(F2, member_image("follower2.1"))
    node.promote()
    node.hear(F1, Rejected(3, 8))
    node.link(F1, F3, promised=8)
    node.hear(F1, Rejected(3, 8))
    assert node.role == "candidate"


def test_a_node_of_another_cluster_ends_nothing() -> None:
    node = Candidate(F2, member_image("follower2.1"))
    node.promote()
    node.link(F1, F3)
    node.hear(F4, Rejected(EPOCH, 99, foreign=True))
    assert node.role == "candidate"


def test_messages_for_candidates_and_leaders_mean_nothing_to_a_follower() -> None:
    node = Candidate(F2, member_image("follower2.1"))
    for message in (answer(), Rejected(1, 9), Fetched(1, 0, []), Diverged(1, 0)):
        assert node.hear(F1, message) == []
    assert node.link(F1) == []
    assert node.step(LinkDown(F1)) == []


def test_a_node_that_can_be_reached_late_is_sealed_too() -> None:
    node = Candidate(F2, member_image("follower2.1"))
    node.promote()
    node.link(F1, F3)
    assert [to for to, _ in sent(node.link(F5), Seal)] == [F5]


def test_those_who_have_not_answered_are_asked_again() -> None:
    node = Candidate(F2, member_image("follower2.1"))
    node.promote()
    node.link(F1, F3)
    node.answer(F1)
    assert sent(node.tick(499), Seal) == []
    assert [to for to, _ in sent(node.tick(500), Seal)] == [F3]
    node.step(LinkDown(F3))
    assert sent(node.tick(1000), Seal) == []


# --- promotions that meet their deadline ---


def test_a_promotion_that_reaches_too_few_nodes_changes_nothing() -> None:
    node = Candidate(F2, member_image("follower2.1"))
    node.promote(deadline=1000)
    node.link(F1)
    assert replies(node.tick(999)) == {}
    effects = node.tick(1000)
    assert replies(effects)[7] == Result(Outcome.NOT_WRITTEN, Reason.TOO_FEW_NODES, acks=2, required=3)
    assert node.role == "follower"
    assert node.node.promised == 1
    assert only(effects, CloseLinks)


def test_a_promotion_that_has_sealed_nodes_goes_on_after_its_deadline() -> None:
    node = Candidate(F2, member_image("follower2.1"))
    node.promote(deadline=1000)
    node.link(F1, F3)
    node.answer(F1)
    effects = node.tick(1000)
    assert outcome(effects) == (Outcome.UNKNOWN, Reason.TIMEOUT)
    assert node.role == "candidate"
    assert replies(node.tick(2000)) == {}
    effects = node.answer(F3)
    assert node.role == "leader"
    assert replies(effects) == {}, "nobody is told twice"


def test_a_loss_is_accepted_only_at_the_deadline_and_after_asking_whoever_can_be_reached() -> None:
    node = Candidate(F2, member_image("follower2.1", put(1, 1)))
    node.promote(accept_loss=True, deadline=1000)
    node.link(F1)
    assert node.node.promised == 1
    effects = node.tick(1000)
    assert [to for to, _ in sent(effects, Seal)] == [F1]
    node.answer(F1, put(2, 1))
    assert node.role == "candidate"
    node.tick(1500)
    assert node.role == "leader"
    assert node.node.log.above == {1: put(1, EPOCH), 2: put(2, EPOCH)}
    assert not node.node.serving, "a loss of promises is accepted, not a loss of copies"


def test_a_loss_that_need_not_be_accepted_is_not() -> None:
    node = Candidate(F2, member_image("follower2.1"))
    node.promote(accept_loss=True, deadline=1000)
    node.link(F1, F3)
    node.answer(F1)
    effects = node.answer(F3)
    assert outcome(effects) == (Outcome.COMMITTED, Reason.OK)


def test_a_promotion_waits_no_longer_than_its_deadline_for_the_recovery_barrier() -> None:
    node = Candidate(F2, member_image("follower2.1", put(1, 1)))
    node.promote(deadline=1000)
    node.link(F1, F3)
    node.answer(F1)
    node.answer(F3)
    assert (node.role, node.node.serving) == ("leader", False)
    assert replies(node.tick(999)) == {}
    effects = node.tick(1000)
    assert outcome(effects) == (Outcome.UNKNOWN, Reason.TIMEOUT)
    assert node.role == "leader"


def test_a_node_is_promoted_once_at_a_time() -> None:
    node = Candidate(F2, member_image("follower2.1", put(1, 1)))
    node.promote()
    assert outcome(node.promote()) == (Outcome.NOT_WRITTEN, Reason.BUSY)
    node.link(F1, F3)
    node.answer(F1)
    node.answer(F3)
    assert node.role == "leader"
    assert outcome(node.promote()) == (Outcome.NOT_WRITTEN, Reason.BUSY)


def test_a_serving_leader_is_promoted_at_once() -> None:
    cluster = Cluster()
    cluster.step(L, PromoteRequested(7, False, 100.0))
    assert cluster.result(7) == Result(Outcome.COMMITTED, Reason.OK, 0, 1, 1)
