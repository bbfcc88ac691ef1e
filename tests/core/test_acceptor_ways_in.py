"""Entries that come another way than one by one over a link: ranges, snapshots, other doors."""

from __future__ import annotations

import pytest

from retinue.core.messages import (
    Ack,
    Change,
    Configuration,
    Fetch,
    Heartbeat,
    Injected,
    Install,
    Kind,
    LinkUp,
    Outcome,
    Proposed,
    Reason,
    Reply,
    Result,
    SaveEntries,
    SaveEpoch,
    SaveState,
    SendRange,
    SendSnapshot,
    Snapshot,
    Started,
    Write,
)
from retinue.core.replica import Limits, Replica
from tests.core.one_node import (
    OWN,
    PROMOTED,
    acks,
    append,
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
    replies,
)

# --- catching up ---


def test_a_candidate_gets_committed_entries_from_a_node_that_trusts_them() -> None:
    node = follower(*(put(version, OWN) for version in range(1, 6)), trusted=4, limits=Limits(catch_up_batch=2))
    effects = hear(node, Fetch(PROMOTED, 1), F1)
    assert only(effects, SendRange) == [SendRange(F1, PROMOTED, 0, 4, 1, 3, fetched=True)]


def test_a_candidate_that_lacks_what_is_compacted_gets_a_snapshot() -> None:
    image = member_image("f2.1", put(3, OWN), put(4, OWN), trusted=4, floor=3)
    node = replica(F2, image)
    effects = hear(node, Fetch(PROMOTED, 2), F1)
    head = Snapshot(PROMOTED, 0, 4, 3, 0, Configuration(3), 0, [])
    assert only(effects, SendSnapshot) == [SendSnapshot(F1, head)]


def test_a_snapshot_replaces_what_is_below_it_and_keeps_what_was_accepted_above() -> None:
    node = follower(put(1, OWN, "gone"), put(2, OWN, "gone"), put(6, PROMOTED), trusted=1, promised=PROMOTED)
    rows = [put(3, OWN, "a"), put(5, OWN, "b")]
    effects = hear(node, Snapshot(PROMOTED, 6, 5, 4, 77, Configuration(2, {F1: "x"}), 4, rows), F1)
    assert only(effects, Install) == [Install(5, rows)]
    assert node.log.rows.keys() == {"a", "b"}
    assert node.log.above.keys() == {6}
    assert acks(effects) == [Ack(PROMOTED, [], 6, 5)]
    hard = only(effects, SaveState)[-1].hard
    assert (hard.trusted, hard.floor, hard.chain, hard.configuration_version) == (5, 4, 77, 4)
    assert hard.configuration == Configuration(2, {F1: "x"})
    assert only(effects, SaveEpoch) == [SaveEpoch(PROMOTED, 6)]


def test_a_snapshot_of_what_is_trusted_already_changes_nothing() -> None:
    node = follower(put(1, OWN), trusted=1)
    effects = hear(node, Snapshot(OWN, 1, 1, 1, 77, Configuration(2), 0, []))
    assert acks(effects) == [Ack(OWN, [], 1, 1)]
    assert len(effects) == 1


# --- another door ---


def inject(node: Replica, version: int, epoch: int | None = None, key: str = "k", value: bytes = b"i") -> Result:
    effects = node.step(Injected(7, version, epoch, Change(Kind.PUT, key, value)), 10.0)
    result = replies(effects)[7]
    assert isinstance(result, Result)
    assert (result.outcome is Outcome.ACCEPTED) == (result.reason is Reason.OK)
    return result


def test_an_injected_entry_without_an_epoch_is_provisional_and_replaces_nothing() -> None:
    node = follower()
    hear(node, append(put(1, OWN)))
    assert inject(node, 1).reason is Reason.OK
    assert node.log.above[1] == put(1, OWN)
    assert inject(node, 2, value=b"i").reason is Reason.OK
    assert node.log.above[2].epoch == 0
    assert node.acceptor.contiguous == 1
    hear(node, append(put(2, OWN, value=b"real")))
    assert node.log.above[2].value == b"real"


def test_an_injected_entry_of_the_followed_epoch_is_accepted_like_the_leaders_own() -> None:
    node = follower()
    hear(node, Heartbeat(OWN, 1, 0, 0))
    effects = node.step(Injected(7, 1, OWN, Change(Kind.PUT, "k", b"i")), 10.0)
    assert only(effects, SaveEntries) == [SaveEntries([put(1, OWN, value=b"i")])]
    assert only(effects, SaveEpoch) == [SaveEpoch(OWN, 1)]
    assert node.acceptor.contiguous == 1


def test_an_injected_entry_keeps_its_expiry() -> None:
    node = follower()
    node.step(Injected(7, 1, None, Change(Kind.PUT, "k", b"i", expires_ms=5)), 10.0)
    row = node.read_local("k")
    assert row is not None
    assert row.expires_ms == 5


def test_an_injected_entry_of_an_epoch_whose_start_is_not_known_is_refused() -> None:
    node = follower()
    assert inject(node, 1, OWN).reason is Reason.WRONG_EPOCH
    assert not node.log.above


@pytest.mark.parametrize("epoch", [OWN - 1, OWN + 1, PROMOTED])
def test_an_injected_entry_of_another_epoch_is_refused(epoch: int) -> None:
    node = follower()
    hear(node, Heartbeat(OWN, 1, 0, 0))
    assert inject(node, 1, epoch).reason is Reason.WRONG_EPOCH
    assert node.promised == OWN


def test_an_injected_entry_of_a_trusted_version_changes_nothing() -> None:
    node = follower(put(1, OWN), trusted=1)
    effects = node.step(Injected(7, 1, None, Change(Kind.PUT, "k", b"i")), 10.0)
    assert [type(effect) for effect in effects] == [Reply]


def test_an_injected_entry_beyond_the_window_is_refused() -> None:
    node = follower(limits=Limits(window=2))
    assert inject(node, 3).reason is Reason.BEYOND_WINDOW
    assert inject(node, 2).reason is Reason.OK


def test_nothing_is_injected_into_a_leader() -> None:
    node = replica(L, member_image("l.1", write_quorum=5))
    node.step(Started(True, ""), 0.0)
    node.step(LinkUp(F1, "f1.1", "c", OWN), 0.0)
    assert node.role == "leader"
    assert inject(node, 1).reason is Reason.NOT_FOLLOWER


def test_no_leadership_takes_injected_entries_for_a_leaders() -> None:
    node = replica(L, member_image("l.1", write_quorum=5))
    inject(node, 1)
    effects = node.step(Started(True, ""), 0.0)
    assert node.role == "leader"
    assert only(effects, SaveEntries) == [SaveEntries([], [1])]
    assert node.log.last == 0


def test_a_write_that_reaches_a_follower_is_refused() -> None:
    node = follower()
    result = replies(node.step(Proposed([Write(1, (Change(Kind.PUT, "k"),), 1.0)]), 0.0))[1]
    assert isinstance(result, Result)
    assert (result.outcome, result.reason) == (Outcome.NOT_WRITTEN, Reason.NOT_LEADER)
