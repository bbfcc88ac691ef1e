"""A candidate that lacks committed versions."""

from __future__ import annotations

import msgspec

from retinue.core.messages import (
    Configuration,
    Effect,
    Fetch,
    Fetched,
    LinkDown,
    Outcome,
    Proposed,
    Reason,
    Result,
    SaveEntries,
    SaveState,
    Seal,
    Snapshot,
)
from tests.core.one_node import (
    EPOCH,
    Candidate,
    outcome,
)
from tests.core.parts import (
    F1,
    F2,
    F3,
    F4,
    F5,
    config,
    member_image,
    only,
    put,
    replies,
    sent,
    write,
)


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
    node.step(LinkDown(F3))
    assert sent(node.tick(1500), Fetch) == [(F1, Fetch(EPOCH, 2))]


def test_when_nobody_who_has_it_can_be_asked_other_answers_will_do() -> None:
    node, _ = fetching()
    node.hear(F1, Fetched(EPOCH, 2, [put(3, 1)]))
    node.step(LinkDown(F1))
    node.step(LinkDown(F3))
    effects = node.tick(500)
    assert sent(effects, Fetch) == []
    assert [to for to, _ in sent(effects, Seal)] == [F4]
    node.answer(F4, trusted=1)
    assert node.role == "candidate", "two of three answers"
    node.link(F5)
    node.answer(F5, trusted=2)
    assert node.role == "leader"
    assert node.node.log.trusted == 3, "what it has fetched before counts"


def test_a_node_that_has_it_and_comes_back_answers_again() -> None:
    node, _ = fetching()
    node.step(LinkDown(F1))
    node.step(LinkDown(F3))
    node.tick(500)
    assert [to for to, _ in sent(node.link(F3), Seal)] == [F3]
    node.answer(F3, trusted=4)
    assert sent(node.answer(F4, trusted=1), Fetch) == [(F3, Fetch(EPOCH, 2))]


def test_a_loss_that_is_accepted_is_accepted_again_without_those_who_have_gone() -> None:
    node = Candidate(F2, member_image("follower2.1", put(1, 1), trusted=1))
    node.promote(accept_loss=True, deadline=100)
    node.link(F1)
    node.tick(100)
    node.answer(F1, trusted=4)
    assert sent(node.tick(600), Fetch) == [(F1, Fetch(EPOCH, 1))]
    node.step(LinkDown(F1))
    node.tick(700)
    assert node.role == "candidate"
    node.tick(1100)
    assert node.role == "leader"


def test_no_loss_is_accepted_before_its_deadline() -> None:
    node = Candidate(F2, member_image("follower2.1", put(1, 1), trusted=1))
    node.promote(accept_loss=True, deadline=30_000)
    node.link(F1, F3)
    node.answer(F3, trusted=1)
    node.answer(F1, trusted=4)
    node.step(LinkDown(F1))
    for at in (100, 600, 1200, 29_000):
        node.tick(at)
        assert node.role == "candidate"
    node.link(F1)
    node.answer(F1, trusted=4)
    node.hear(F1, Fetched(EPOCH, 1, [put(2, 1), put(3, 1), put(4, 1)]))
    assert node.role == "leader"


def test_an_answer_counts_also_when_somebody_else_was_asked_meanwhile() -> None:
    node, _ = fetching()
    assert sent(node.tick(500), Fetch) == [(F3, Fetch(EPOCH, 2))]
    node.hear(F1, Fetched(EPOCH, 2, [put(3, 1), put(4, 1)]))
    assert node.role == "leader"


def test_a_snapshot_may_take_longer_than_a_range_but_not_without_its_sender() -> None:
    node = Candidate(F2, member_image("follower2.1", put(1, 1), put(2, 1), trusted=2))
    node.promote()
    node.link(F1, F3)
    node.answer(F1, trusted=4, floor=3)
    assert sent(node.answer(F3, trusted=4, floor=3), Fetch) == [(F1, Fetch(EPOCH, 2))]
    assert sent(node.tick(20_000), Fetch) == []
    node.step(LinkDown(F1))
    assert sent(node.tick(20_050), Fetch) == [(F3, Fetch(EPOCH, 2))]
    assert sent(node.tick(90_000), Fetch) == [(F3, Fetch(EPOCH, 2))]


def test_a_candidate_that_fetches_what_replaces_its_own_disk_gives_up_when_it_can_fetch_no_more() -> None:
    node, _ = fetching()
    node.hear(F1, Fetched(EPOCH, 2, [config(3, 1, 3, {F2: "follower2.9"})]))
    node.step(LinkDown(F1))
    node.step(LinkDown(F3))
    assert outcome(node.tick(500)) == (Outcome.NOT_WRITTEN, Reason.NOT_VOTER)
    assert node.role == "follower"


def test_a_disk_that_has_replaced_one_that_answered_is_not_asked_nor_believed() -> None:
    node, _ = fetching()
    node.step(LinkDown(F1))
    node.link(F1, life=2)
    assert node.hear(F1, Fetched(EPOCH, 2, [put(3, 1)])) == []
    assert sent(node.tick(500), Fetch) == [(F3, Fetch(EPOCH, 2))]
    assert node.hear(F4, Fetched(EPOCH, 2, [put(3, 1)])) == []
    assert sent(node.tick(1000), Fetch) == [(F3, Fetch(EPOCH, 2))]


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
