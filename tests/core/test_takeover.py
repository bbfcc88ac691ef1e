"""Taking over: merges of hand-made answers, and the way from the first link to leadership."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retinue.core.messages import (
    CloseLinks,
    Configuration,
    Diverged,
    Effect,
    Entry,
    Fetch,
    Fetched,
    HardState,
    Image,
    Kind,
    LinkDown,
    LinkUp,
    Message,
    OpenLinks,
    Outcome,
    Promise,
    PromoteRequested,
    Proposed,
    Reason,
    Received,
    Rejected,
    Result,
    SaveEntries,
    SaveEpoch,
    SaveState,
    Seal,
    Snapshot,
    Started,
    Tick,
)
from retinue.core.replica import Limits, Replica
from retinue.core.takeover import Merge, Stage
from tests.core.cluster import (
    F1,
    F2,
    F3,
    F4,
    F5,
    Cluster,
    L,
    config,
    member_image,
    noop,
    only,
    put,
    replica,
    replies,
    sent,
    write,
)

EPOCH = 9
RESUMED = 7  # the epoch after 1 of the founder


def answer(
    *entries: Entry,
    trusted: int = 0,
    epochs: dict[int, int] | None = None,
    voter: bool = True,
    node_id: str = "",
    configuration: Configuration | None = None,
    epoch: int = EPOCH,
    floor: int = 0,
) -> Promise:
    own = epochs if epochs is not None else {entry.epoch: 1 for entry in entries if entry.epoch}
    known = configuration or Configuration(3)
    return Promise(epoch, node_id, voter, trusted, floor, trusted, own, known, [*entries])


def merged(*answers: Promise, base: int = 0, requests: dict[str, tuple[int, int]] | None = None) -> list[Entry]:
    return Merge(EPOCH, base, [*answers], requests or {}).entries()


# --- merging ---


def test_nothing_above_the_base_is_nothing_to_propose_again() -> None:
    assert merged(answer(), answer(trusted=3), base=3) == []


def test_a_committed_version_is_in_one_answer_and_is_proposed_again_in_the_new_epoch() -> None:
    assert merged(answer(), answer(put(1, 1, value=b"x"))) == [put(1, EPOCH, value=b"x")]


def test_the_highest_accept_epoch_wins() -> None:
    old, new = put(1, 1, value=b"old"), put(1, 3, value=b"new")
    tables = {1: 1, 3: 2}
    assert merged(answer(old, epochs=tables), answer(new, epochs=tables)) == [put(1, EPOCH, value=b"new")]
    assert merged(answer(new, epochs=tables), answer(old, epochs=tables)) == [put(1, EPOCH, value=b"new")]


def test_an_entry_is_a_ghost_if_a_later_epoch_began_at_or_below_its_version() -> None:
    old = [put(version, 1) for version in (1, 2, 3)]
    other = answer(put(2, 3, value=b"new"), epochs={3: 2})
    assert merged(answer(*old), other) == [put(1, EPOCH), put(2, EPOCH, value=b"new"), noop(3, EPOCH)]


def test_a_ghost_is_known_by_the_epochs_of_any_answer() -> None:
    assert merged(answer(put(2, 1)), answer(epochs={3: 2})) == [noop(1, EPOCH), noop(2, EPOCH)]


def test_an_entry_below_the_start_of_every_later_epoch_is_alive() -> None:
    assert merged(answer(put(1, 1)), answer(epochs={3: 2})) == [put(1, EPOCH)]


def test_an_epoch_does_not_make_ghosts_of_its_own_or_of_later_entries() -> None:
    assert merged(answer(put(1, 3), epochs={1: 1, 3: 1})) == [put(1, EPOCH)]


def test_holes_become_noops() -> None:
    assert merged(answer(put(2, 1)), answer(put(4, 1)), base=1) == [put(2, EPOCH), noop(3, EPOCH), put(4, EPOCH)]


def test_no_version_at_or_below_the_highest_one_seen_is_given_out_again_even_if_it_was_a_ghost() -> None:
    assert merged(answer(put(3, 1)), answer(epochs={3: 1})) == [noop(1, EPOCH), noop(2, EPOCH), noop(3, EPOCH)]


def test_entries_of_epoch_0_are_passed_over() -> None:
    assert merged(answer(put(1, 0), put(2, 0), epochs={})) == []
    assert merged(answer(put(1, 0), put(2, 1))) == [noop(1, EPOCH), put(2, EPOCH)]


def test_entries_below_the_base_are_passed_over() -> None:
    assert merged(answer(put(1, 1), put(2, 1), put(3, 1)), base=2) == [put(3, EPOCH)]


@pytest.mark.parametrize("newer", [2, 4])
def test_of_two_versions_of_one_request_the_one_with_the_highest_accept_epoch_stays(newer: int) -> None:
    epochs = {2: 3, 4: 1} if newer == 2 else {2: 1, 4: 3}
    rows = [put(2, epochs[4], request_id="x"), put(4, epochs[2], request_id="x"), put(3, 1, request_id="y")]
    result = {entry.version: entry for entry in merged(answer(*rows, epochs={1: 1, 3: 5}), base=1)}
    kept = 4 if newer == 2 else 2
    assert result[kept].request_id == "x"
    assert result[6 - kept] == noop(6 - kept, EPOCH)
    assert result[3].request_id == "y"


def test_a_request_that_is_trusted_at_one_version_is_not_proposed_again_at_another() -> None:
    later = answer(put(4, 1), put(5, 2, request_id="x"), epochs={1: 1, 2: 5}, trusted=3)
    result = merged(later, base=3, requests={"x": (3, 0), "z": (2, 0)})
    assert result == [put(4, EPOCH), noop(5, EPOCH)]


def test_a_request_that_is_known_only_above_the_base_is_proposed_again() -> None:
    assert merged(answer(put(4, 1, request_id="x"), trusted=3), base=3, requests={"x": (4, 0)}) == [
        put(4, EPOCH, request_id="x")
    ]


copies = st.builds(put, st.integers(1, 6), st.integers(0, 4), request_id=st.sampled_from(["", "", "x", "y"]))
answers = st.builds(
    lambda rows, epochs: answer(*{row.version: row for row in rows}.values(), epochs=epochs),
    st.lists(copies, max_size=5),
    st.dictionaries(st.integers(1, 4), st.integers(1, 6), max_size=3),
)


@given(st.lists(answers, min_size=1, max_size=3), st.integers(0, 3))
def test_a_merge_is_what_the_rules_say_version_by_version(found: list[Promise], base: int) -> None:
    rows = [row for each in found for row in each.entries if row.version > base and row.epoch > 0]
    later = {(epoch, start) for each in found for epoch, start in each.epochs.items()}
    starts = {epoch: [start for other, start in later if other == epoch][-1] for epoch, _ in later}
    result = Merge(EPOCH, base, found, {}).entries()
    assert [entry.version for entry in result] == [*range(base + 1, max((r.version for r in rows), default=base) + 1)]
    assert all(entry.epoch == EPOCH for entry in result)
    ids = [entry.request_id for entry in result if entry.request_id]
    assert len(ids) == len(set(ids))
    if len(starts) == len(later):
        for entry in result:
            alive = [
                row.epoch
                for row in rows
                if row.version == entry.version and not any(e > row.epoch and s <= row.version for e, s in later)
            ]
            if entry.kind == Kind.NOOP:
                lost = [row for row in rows if row.version == entry.version and row.epoch == max(alive, default=0)]
                assert not alive or any(row.request_id in ids for row in lost)
            else:
                sources = [row for row in rows if msgspec.structs.replace(row, epoch=EPOCH) == entry]
                assert max(alive) in [row.epoch for row in sources]


# --- the way to leadership, one node at a time ---


class Candidate:
    """A node on its way to leadership; the test speaks for all others."""

    def __init__(self, name: str, image: Image, *, limits: Limits | None = None) -> None:
        self.node: Replica = replica(name, image, limits=limits)
        self.now = 0.0

    def step(self, event: msgspec.Struct) -> list[Effect]:
        return self.node.step(event, self.now)  # type: ignore[arg-type]

    def start(self, lead: bool = True) -> list[Effect]:
        return self.step(Started(lead, "c"))

    def promote(self, *, accept_loss: bool = False, deadline: float = 5000.0) -> list[Effect]:
        return self.step(PromoteRequested(7, accept_loss, deadline))

    def link(self, *peers: str, promised: int = 1, cluster_id: str = "c", life: int = 1) -> list[Effect]:
        return [e for peer in peers for e in self.step(LinkUp(peer, f"{peer}.{life}", cluster_id, promised))]

    def tick(self, at: float) -> list[Effect]:
        self.now = at
        return self.step(Tick())

    def hear(self, sender: str, message: Message) -> list[Effect]:
        return self.step(Received(sender, message))

    def answer(self, sender: str, *entries: Entry, life: int = 1, **rest: object) -> list[Effect]:
        takeover = self.node.takeover
        assert takeover is not None
        told = answer(*entries, node_id=f"{sender}.{life}", epoch=takeover.epoch, **rest)  # type: ignore[arg-type]
        return self.hear(sender, told)

    @property
    def role(self) -> str:
        return self.node.role


def outcome(effects: list[Effect]) -> tuple[Outcome, Reason]:
    result = replies(effects)[7]
    assert isinstance(result, Result)
    return result.outcome, result.reason


def test_a_node_changes_nothing_before_enough_nodes_can_be_asked() -> None:
    node = Candidate(F2, member_image("follower2.1"))
    effects = node.promote()
    assert [type(effect) for effect in effects] == [OpenLinks]
    assert node.link(F1) == []
    assert node.node.promised == 1
    effects = node.link(F3)
    assert only(effects, SaveState)[0].hard.promised == EPOCH
    seal = Seal(EPOCH, "c", False, True, 3)
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
    assert all(message.birth for _, message in sent(effects, Seal))
    assert len(sent(effects, Seal)) == 5


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
    assert {to: message.birth for to, message in sent(effects, Seal)} == {F1: False, F2: True}


def test_nobody_is_born_under_a_name_that_the_configuration_knows_or_by_another_than_the_founder() -> None:
    known = Configuration(3, {F1: "follower1.1"})
    for founded, births in ((True, {F2: True, F1: False}), (False, {F2: False, F1: False})):
        node = Candidate(L, member_image("leader.1", founder=founded, configuration=known))
        node.start()
        effects = node.link(F1, F2)
        assert {to: message.birth for to, message in sent(effects, Seal)} == births


# --- fetching ---


def fetching() -> tuple[Candidate, list[Effect]]:
    """A candidate that trusts 2 versions and is told that others trust 4."""
    rows = [put(1, 1), put(2, 1), put(3, 1, value=b"unsure")]
    node = Candidate(F2, member_image("follower2.1", *rows, trusted=2, epochs={1: 1}))
    node.promote()
    node.link(F1, F3, F4)
    node.answer(F1, trusted=4)
    return node, node.answer(F3, trusted=4)


def test_what_is_missing_up_to_the_base_is_fetched_from_a_node_that_trusts_it() -> None:
    node, effects = fetching()
    assert sent(effects, Fetch) == [(F1, Fetch(EPOCH, 2))]
    effects = node.hear(F1, Fetched(EPOCH, 2, [put(3, 1)]))
    assert only(effects, SaveEntries) == [SaveEntries([put(3, 1)])]
    assert only(effects, SaveState)[-1].hard.trusted == 3
    assert sent(effects, Fetch) == [(F1, Fetch(EPOCH, 3))]
    node.hear(F1, Fetched(EPOCH, 3, [put(4, 1), put(5, 1)]))
    assert node.role == "leader"
    assert node.node.log.trusted == 4
    assert node.node.log.last == 4, "only what is trusted up to the base is adopted"


def test_an_answer_that_brings_nothing_new_is_not_followed_by_another_question() -> None:
    node, _ = fetching()
    for late in (Fetched(EPOCH, 2, []), Fetched(EPOCH, 1, [put(2, 1)]), Fetched(3, 2, [put(3, 1)])):
        assert node.hear(F1, late) == []
    assert node.hear(F1, Fetched(EPOCH, 3, [put(4, 1)])) == []
    assert node.node.log.trusted == 2


def test_a_node_that_does_not_send_what_it_has_is_passed_over() -> None:
    node, _ = fetching()
    assert sent(node.tick(499), Fetch) == []
    assert sent(node.tick(500), Fetch) == [(F3, Fetch(EPOCH, 2))]
    assert sent(node.tick(1000), Fetch) == [(F1, Fetch(EPOCH, 2))]
    node.step(LinkDown(F1))
    node.step(LinkDown(F3))
    assert sent(node.tick(1500), Fetch) == [], "the answer of a node stays valid, but it cannot be asked"
    node.link(F3)
    assert sent(node.tick(2000), Fetch) == [(F3, Fetch(EPOCH, 2))]


def test_late_promises_change_nothing_any_more() -> None:
    node, _ = fetching()
    node.answer(F4, put(9, 1), trusted=8)
    assert node.node.takeover is not None
    assert node.node.takeover.base == 4


def test_only_voters_are_asked_for_what_they_trust() -> None:
    node = Candidate(F2, member_image("follower2.1"))
    node.promote()
    node.link(F1, F3, F4)
    node.link(F5)
    node.answer(F1, trusted=9, voter=False)
    node.answer(F5, trusted=2, voter=False)
    node.answer(F3, trusted=2)
    effects = node.answer(F4, trusted=2)
    assert sent(effects, Fetch) == [(F3, Fetch(EPOCH, 0))]
    assert sent(node.tick(500), Fetch) == [(F4, Fetch(EPOCH, 0))]
    assert sent(node.tick(1000), Fetch) == [(F3, Fetch(EPOCH, 0))]


def test_a_snapshot_brings_a_candidate_to_the_base() -> None:
    node, _ = fetching()
    rows = [put(4, 1)]
    head = Snapshot(EPOCH, 0, 4, 4, 77, Configuration(3), 0, rows)
    assert node.hear(F1, msgspec.structs.replace(head, epoch=1)) == []
    assert node.hear(F1, msgspec.structs.replace(head, trusted=2)) == []
    assert node.node.log.rows["k"].value == b"v"
    node.hear(F1, head)
    assert node.role == "leader"
    assert (node.node.log.trusted, node.node.log.chain, node.node.log.last) == (4, 77, 4)


def test_a_snapshot_that_was_not_asked_for_is_not_taken() -> None:
    node = Candidate(F2, member_image("follower2.1"))
    node.promote()
    node.link(F1, F3)
    node.hear(F1, Snapshot(EPOCH, 0, 4, 4, 77, Configuration(3), 0, [put(4, 1)]))
    assert node.node.log.trusted == 0


def test_a_deadline_while_fetching_ends_the_waiting_but_not_the_take_over() -> None:
    node, _ = fetching()
    effects = node.tick(5000)
    assert outcome(effects) == (Outcome.UNKNOWN, Reason.TIMEOUT)
    assert node.role == "candidate"


def test_a_candidate_refuses_writes_for_certain() -> None:
    node, _ = fetching()
    result = replies(node.step(Proposed([write(1)])))[1]
    assert isinstance(result, Result)
    assert (result.outcome, result.reason) == (Outcome.NOT_WRITTEN, Reason.RECOVERING)


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
