"""A node whose history differs from its leader's."""

from __future__ import annotations

from retinue.core.messages import (
    Ack,
    Configuration,
    Confirm,
    Confirmed,
    Diverged,
    Heartbeat,
    Promise,
    SaveState,
    Seal,
    Snapshot,
)
from tests.core.one_node import (
    OWN,
    PROMOTED,
    acks,
    append,
    beat,
    chain_of,
    follower,
    hear,
)
from tests.core.parts import (
    F1,
    F2,
    L,
    member_image,
    only,
    put,
    replica,
    sent,
)


def test_a_node_whose_history_differs_from_the_leaders_goes_into_quarantine_and_says_so() -> None:
    node = follower(put(1, OWN, value=b"bad"), trusted=1)
    effects = hear(node, beat(1, chain=chain_of(put(1, OWN))))
    assert node.quarantined
    assert only(effects, SaveState)[-1].hard.quarantined
    assert sent(effects, Diverged) == [(L, Diverged(OWN, 1))]
    assert acks(effects) == []
    assert not node.may_vote


def test_histories_are_compared_when_the_commit_point_is_reached() -> None:
    good = [put(1, OWN), put(2, OWN)]
    node = follower()
    assert acks(hear(node, beat(2, chain=chain_of(*good)))) == [Ack(OWN, [], 0, 0)]
    assert acks(hear(node, append(*good))) == [Ack(OWN, [], 2, 2)]
    other = follower()
    hear(other, beat(2, chain=chain_of(*good)))
    effects = hear(other, append(put(1, OWN, value=b"bad"), put(2, OWN), put(3, OWN), commit=3))
    assert sent(effects, Diverged) == [(L, Diverged(OWN, 2))]
    assert acks(effects) == []
    assert other.log.trusted == 2, "nothing more is trusted on top of a history that differs"


def test_a_heartbeat_that_finds_a_difference_on_the_way_is_not_acknowledged() -> None:
    node = follower(put(1, OWN, value=b"bad"))
    effects = hear(node, beat(1, chain=chain_of(put(1, OWN))))
    assert sent(effects, Diverged) == [(L, Diverged(OWN, 1))]
    assert acks(effects) == []


def test_an_old_heartbeat_is_not_compared() -> None:
    node = follower(put(1, OWN), trusted=1)
    assert acks(hear(node, beat(0, chain=99))) == [Ack(OWN, [], 1, 1)]


def test_a_node_in_quarantine_promises_and_confirms_but_accepts_nothing_even_after_a_restart() -> None:
    node = replica(F2, member_image("f2.1", put(1, OWN), quarantined=True, trusted=1, epochs={OWN: 1}))
    effects = hear(node, append(put(2, OWN)))
    assert sent(effects, Diverged) == [(L, Diverged(OWN, 1))]
    assert not node.log.above
    effects = hear(node, Snapshot(OWN, 1, 5, 0, 0, Configuration(3), 0, []))
    assert sent(effects, Diverged) == [(L, Diverged(OWN, 1))]
    assert node.log.trusted == 1
    effects = hear(node, Seal(PROMOTED, "c", "", True, 3), F1)
    assert sent(effects, Diverged) == [(F1, Diverged(PROMOTED, 1))]
    ((_, promise),) = sent(effects, Promise)
    assert not promise.voter
    assert promise.contiguous == 0, "nothing that it holds counts"
    assert sent(hear(node, Confirm(PROMOTED, 4), F1), Confirmed) == [(F1, Confirmed(PROMOTED, 4))]


def test_a_node_that_trusts_what_an_accepted_loss_gave_up_goes_into_quarantine() -> None:
    node = follower(put(1, OWN), put(2, OWN), trusted=2)
    effects = hear(node, Heartbeat(PROMOTED, 2, 0, 0), F1)
    assert node.quarantined
    assert sent(effects, Diverged) == [(F1, Diverged(PROMOTED, 2))]
    assert acks(effects) == []


def test_a_node_that_trusts_versions_of_the_current_epoch_is_in_order_after_a_restart() -> None:
    image = member_image("f2.1", put(1, OWN), put(2, PROMOTED), promised=PROMOTED, trusted=2, epochs={PROMOTED: 2})
    node = replica(F2, image)
    assert acks(hear(node, Heartbeat(PROMOTED, 2, 0, 0), F1)) == [Ack(PROMOTED, [], 2, 2)]
    assert not node.quarantined
