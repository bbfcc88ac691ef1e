"""Answering whoever leads: promises, clusters, acceptance, the trusted prefix."""

from __future__ import annotations

import pytest

from retinue.core.messages import (
    Ack,
    CloseLinks,
    Configuration,
    Confirm,
    Confirmed,
    Diverged,
    Fetch,
    Fetched,
    HardState,
    Heartbeat,
    Image,
    Message,
    Promise,
    Received,
    Rejected,
    SaveEntries,
    SaveEpoch,
    SaveState,
    Seal,
    Snapshot,
    Started,
)
from retinue.core.replica import Limits, Replica
from tests.core.one_node import (
    OWN,
    PROMOTED,
    acks,
    append,
    beat,
    follower,
    hear,
)
from tests.core.parts import (
    F1,
    F2,
    L,
    config,
    member_image,
    only,
    put,
    replica,
    sent,
)

# --- promises ---


def test_a_higher_epoch_is_promised_durably_before_the_answer() -> None:
    node = follower(promised=OWN)
    effects = hear(node, Seal(PROMOTED, "c", "", True, 3), F1)
    (state,) = only(effects, SaveState)
    assert state.hard.promised == PROMOTED
    ((to, promise),) = sent(effects, Promise)
    assert (to, promise.epoch) == (F1, PROMOTED)
    assert effects.index(state) == 0


@pytest.mark.parametrize(
    "message",
    [
        Seal(OWN, "c", "", True, 3),
        append(put(1, OWN)),
        Heartbeat(OWN, 1, 0, 0),
        Confirm(OWN, 1),
        Fetch(OWN, 0),
        Snapshot(OWN, 1, 9, 9, 0, Configuration(3), 0, []),
    ],
)
def test_a_node_that_promised_rejects_every_lower_epoch(message: Message) -> None:
    node = follower(promised=PROMOTED)
    effects = hear(node, message)
    assert sent(effects, Rejected) == [(L, Rejected(OWN, PROMOTED))]
    assert len(effects) == 1
    assert not node.log.above


def test_a_promise_survives_a_restart() -> None:
    node = follower(promised=OWN)
    (state,) = only(hear(node, Seal(PROMOTED, "c", "", False, 3), F1), SaveState)
    again = replica(F2, Image(state.hard, {}, []))
    assert sent(hear(again, append(put(1, OWN))), Rejected)


def test_a_promise_tells_everything_above_the_trusted_prefix() -> None:
    rows = [put(1, 1), put(3, 1), put(4, 1)]
    image = member_image("f2.1", *rows, trusted=1, epochs={1: 1}, configuration=Configuration(2))
    node = replica(F2, image)
    ((_, promise),) = sent(hear(node, Seal(PROMOTED, "c", "", True, 3), F1), Promise)
    assert promise == Promise(PROMOTED, "f2.1", True, 1, node.log.chain, 0, 1, {1: 1}, Configuration(2), rows[1:])
    ((_, short),) = sent(hear(node, Seal(PROMOTED, "c", "", False, 3), F1), Promise)
    assert short.entries == []


def test_what_a_promise_tells_does_not_change_when_the_node_goes_on() -> None:
    node = follower()
    ((_, promise),) = sent(hear(node, Seal(OWN, "c", "", True, 3)), Promise)
    hear(node, append(put(1, OWN)))
    assert promise.epochs == {}


def test_an_epoch_binds_only_if_it_comes_from_its_owner() -> None:
    node = follower()
    assert hear(node, Seal(PROMOTED, "c", "", True, 3), L) == []
    assert node.promised == OWN


def test_whoever_is_no_member_is_not_listened_to() -> None:
    node = follower()
    assert hear(node, Seal(PROMOTED, "c", "", True, 3), "stranger") == []
    assert (
        replica("", Image(HardState("x.1"), {}, []), members=()).step(Received(L, Seal(1, "c", "x.1", True, 3)), 0.0)
        == []
    )
    assert node.promised == OWN


def test_a_higher_epoch_ends_a_leadership() -> None:
    node = replica(F2, member_image("f2.1", write_quorum=5, promised=3))
    node.step(Started(False, ""), 0.0)
    assert node.role == "leader"
    later = 12 + 2
    effects = hear(node, Seal(later, "c", "", True, 5), F1)
    assert node.role == "follower"
    assert node.promised == later
    assert only(effects, CloseLinks)


# --- clusters ---


def blank(node_id: str = "f2.1") -> Replica:
    return replica(F2, Image(HardState(node_id), {}, []))


@pytest.mark.parametrize(
    ("birth", "voter"), [("f2.2", True), ("", False), pytest.param("f2.1", False, id="meant for the disk before")]
)
def test_a_blank_node_joins_the_cluster_that_seals_it_and_votes_only_if_born_into_it(birth: str, voter: bool) -> None:
    node = blank("f2.2")
    effects = hear(node, Seal(OWN, "c", birth, True, 2))
    (state,) = only(effects, SaveState)
    assert (state.hard.cluster_id, state.hard.voter, state.hard.promised) == ("c", voter, OWN)
    assert state.hard.configuration == Configuration(2)
    assert state.hard.nodes == 6
    ((_, promise),) = sent(effects, Promise)
    assert promise.voter is voter


def test_a_blank_node_that_wanted_to_found_a_cluster_joins_the_one_that_seals_it() -> None:
    node = blank()
    node.step(Started(True, "d"), 0.0)
    assert node.role == "candidate"
    effects = hear(node, Seal(OWN, "c", "", True, 2))
    assert (node.role, node.cluster_id) == ("follower", "c")
    assert only(effects, CloseLinks)


def test_a_node_of_another_cluster_promises_nothing() -> None:
    node = follower()
    effects = hear(node, Seal(PROMOTED, "other", "", True, 3), F1)
    assert sent(effects, Rejected) == [(F1, Rejected(PROMOTED, OWN, foreign=True))]
    assert node.promised == OWN


def test_a_blank_node_answers_nothing_but_a_seal() -> None:
    node = blank()
    assert hear(node, append(put(1, OWN))) == []
    assert node.promised == 0


def test_a_second_seal_does_not_make_a_learner_a_voter() -> None:
    node = blank()
    hear(node, Seal(OWN, "c", "", True, 2))
    ((_, promise),) = sent(hear(node, Seal(OWN, "c", "f2.1", True, 2)), Promise)
    assert not promise.voter


@pytest.mark.parametrize("message", [Ack(OWN, [], 1, 1), Confirmed(OWN, 1), Diverged(OWN, 1), Fetched(OWN, 0, [])])
def test_an_answer_to_one_who_does_not_lead_changes_nothing(message: Message) -> None:
    node = follower(put(1, OWN))
    assert hear(node, message, F1) == []
    assert acks(hear(node, beat(0, chain=0))) == [Ack(OWN, [], 1, 0)]


# --- accepting ---


def test_what_lies_above_a_hole_is_acknowledged_by_itself_and_the_rest_by_the_contiguous_point() -> None:
    node = follower()
    effects = hear(node, append(put(3, OWN)))
    assert effects[0] == SaveEntries([put(3, OWN)])
    assert acks(effects) == [Ack(OWN, [3], 0, 0)]
    assert acks(hear(node, append(put(1, OWN)))) == [Ack(OWN, [], 1, 0)]
    assert acks(hear(node, append(put(2, OWN)))) == [Ack(OWN, [], 3, 0)]


def test_the_first_entry_of_an_epoch_is_saved_with_where_the_epoch_began() -> None:
    node = follower(promised=PROMOTED)
    effects = hear(node, append(put(6, PROMOTED), epoch=PROMOTED, start=5), F1)
    assert only(effects, SaveEpoch) == [SaveEpoch(PROMOTED, 5)]
    assert only(hear(node, append(put(7, PROMOTED), epoch=PROMOTED, start=5), F1), SaveEpoch) == []


def test_a_duplicate_is_acknowledged_and_not_saved_again() -> None:
    node = follower()
    hear(node, append(put(1, OWN)))
    effects = hear(node, append(put(1, OWN)))
    assert acks(effects) == [Ack(OWN, [], 1, 0)]
    assert len(effects) == 1


def test_a_trusted_version_is_acknowledged_and_never_overwritten() -> None:
    node = follower(put(1, OWN, value=b"old"), promised=PROMOTED, trusted=1)
    effects = hear(node, append(put(1, PROMOTED, value=b"new"), epoch=PROMOTED, start=5), F1)
    assert acks(effects) == [Ack(PROMOTED, [], 1, 1)]
    assert only(effects, SaveEntries) == []
    assert node.log.rows["k"].value == b"old"


def test_an_entry_is_saved_with_the_epoch_in_which_it_was_accepted() -> None:
    node = follower(promised=PROMOTED)
    hear(node, append(put(1, OWN), epoch=PROMOTED, start=2), F1)
    assert node.log.above[1].epoch == PROMOTED


def test_an_entry_of_an_older_epoch_gives_way() -> None:
    node = follower(put(1, OWN, value=b"old"))
    hear(node, Seal(PROMOTED, "c", "", False, 3), F1)
    effects = hear(node, append(put(1, PROMOTED, value=b"new"), epoch=PROMOTED, start=2), F1)
    assert only(effects, SaveEntries) == [SaveEntries([put(1, PROMOTED, value=b"new")])]
    row = node.log.newest("k")
    assert row is not None
    assert row.value == b"new"


def test_a_version_too_far_ahead_is_neither_saved_nor_acknowledged() -> None:
    node = follower(limits=Limits(window=2))
    assert acks(hear(node, append(put(4, OWN), put(5, OWN)))) == [Ack(OWN, [4], 0, 0)]
    assert node.log.above.keys() == {4}


# --- the trusted prefix ---


def test_committed_versions_without_a_hole_are_trusted() -> None:
    node = follower()
    hear(node, append(put(1, OWN), put(3, OWN), commit=3))
    assert node.log.trusted == 1
    assert acks(hear(node, append(put(2, OWN)))) == [Ack(OWN, [], 3, 3)]


def test_only_entries_of_the_current_leader_extend_the_trusted_prefix() -> None:
    node = follower(put(1, OWN, value=b"old"), promised=PROMOTED)
    effects = hear(node, Heartbeat(PROMOTED, 2, 1, 0), F1)
    assert node.log.trusted == 0
    assert acks(effects) == [Ack(PROMOTED, [], 0, 0)]
    hear(node, append(put(1, PROMOTED, value=b"new"), epoch=PROMOTED, start=2, commit=1), F1)
    assert node.log.rows["k"].value == b"new"


def test_what_was_accepted_in_the_promised_epoch_counts_again_after_a_restart() -> None:
    node = follower(put(1, OWN), put(2, OWN), put(4, OWN))
    assert acks(hear(node, beat(0, chain=0))) == [Ack(OWN, [], 2, 0)]


def test_ghosts_of_an_earlier_leader_go_on_the_first_contact_with_a_later_one() -> None:
    node = follower(*(put(version, OWN) for version in (1, 2, 3, 4)), promised=PROMOTED)
    effects = hear(node, Heartbeat(PROMOTED, 3, 0, 0), F1)
    assert only(effects, SaveEntries) == [SaveEntries([], [3, 4])]
    assert node.log.above.keys() == {1, 2}
    assert node.leader == F1
    assert only(hear(node, Heartbeat(PROMOTED, 3, 0, 0), F1), SaveEntries) == []


def test_entries_of_the_current_leader_are_no_ghosts_after_a_restart() -> None:
    node = follower(put(3, PROMOTED), put(4, OWN), promised=PROMOTED)
    effects = hear(node, Heartbeat(PROMOTED, 3, 0, 0), F1)
    assert only(effects, SaveEntries) == [SaveEntries([], [4])]


def test_a_configuration_in_the_trusted_prefix_says_who_speaks_for_this_member() -> None:
    learner = replica(F2, member_image("f2.2", voter=False))
    effects = hear(learner, append(config(1, OWN, 3, {F2: "f2.2"}), commit=1))
    assert learner.may_vote
    assert only(effects, SaveState)[-1].hard.voter
    replaced = follower()
    hear(replaced, append(config(1, OWN, 3, {F2: "f2.2"}), commit=1))
    assert not replaced.may_vote
