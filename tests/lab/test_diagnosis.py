from __future__ import annotations

import pytest

from retinue.lab.judging.diagnosis import (
    LAST_ARRIVAL,
    LOST_DELETES,
    LOST_SENDS,
    LOST_WRITES,
    MORE_THAN_WAITING,
    RESURRECTED,
    STALE_FOR_GOOD,
    TOO_FEW_COPIES,
    Facts,
    NodeFacts,
    diagnose,
    slower_than_all,
    summed,
)


def names(*nodes: NodeFacts, **more: object) -> list[str]:
    return [fault.name for fault in diagnose(Facts(nodes=nodes, settled_s=3, **more))]  # type: ignore[arg-type]


def test_a_correct_cluster_has_no_faults() -> None:
    assert names(NodeFacts(node="follower1"), NodeFacts(node="follower2"), once=40, quorum=3) == []


@pytest.mark.parametrize(
    ("facts", "name"),
    [
        (NodeFacts(node="f", missing=2), LOST_SENDS),
        (NodeFacts(node="f", undeleted=2, came_back=1), RESURRECTED),
        (NodeFacts(node="f", undeleted=2), LOST_DELETES),
        (NodeFacts(node="f", outdated=2, went_back=1), LAST_ARRIVAL),
        (NodeFacts(node="f", outdated=2), STALE_FOR_GOOD),
    ],
)
def test_what_is_seen_at_a_follower_has_a_name(facts: NodeFacts, name: str) -> None:
    assert names(facts) == [name]


def test_losses_come_first() -> None:
    seen = NodeFacts(node="f", missing=1)
    assert names(seen, lost=("it is gone",), few_copies=1, quorum=3) == [LOST_WRITES, TOO_FEW_COPIES, LOST_SENDS]


def test_the_sentence_says_what_where_and_why() -> None:
    nodes = (
        NodeFacts(node="follower1", missing=8, missing_once=8, missing_keys="a, b"),
        NodeFacts(node="follower3", missing=12, missing_once=12, missing_keys="c"),
    )
    [fault] = diagnose(Facts(nodes=nodes, settled_s=3.2, once=20))
    assert fault.sentence == (
        "lost remaining sends: 3 s after the last change follower3 still lacks 12 keys (follower3: 12, follower1: 8), "
        "such as a, b at follower1; a key that is written once never comes to 1.0 of 2 followers, as if the quorum "
        "were 1: the server stops sending once the quorum is met, so the other followers never get the write."
    )


def test_facts_of_several_rounds_add_up() -> None:
    rounds = [NodeFacts(node="f", missing=1, missing_keys="a"), NodeFacts(node="g"), NodeFacts(node="f", missing=2)]
    assert summed(rounds) == (NodeFacts(node="f", missing=3, missing_keys="a"), NodeFacts(node="g"))


def test_writes_that_take_longer_than_all_followers_are_named() -> None:
    fault = slower_than_all(1, 1250.0, 833.3)
    assert fault is not None
    assert fault.name == MORE_THAN_WAITING
    assert "quorum 1 take at least 1250 ms in the mean, and to wait for every follower would take 833 ms" in fault.seen


def test_an_overhead_alone_is_no_fault() -> None:
    assert slower_than_all(5, 860.0, 833.3) is None
