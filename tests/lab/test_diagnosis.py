from __future__ import annotations

import pytest

from retinue.lab.diagnosis import (
    LAST_ARRIVAL,
    LOST_DELETES,
    LOST_SENDS,
    LOST_WRITES,
    RESURRECTED,
    SLEEPING_THREADS,
    STALE_FOR_GOOD,
    TOO_FEW_COPIES,
    Facts,
    NodeFacts,
    diagnose,
    flat_over_quorum,
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


THEORY = {1: 166.7, 2: 333.3, 3: 500.0, 4: 666.7, 5: 833.3}


def test_latency_that_does_not_rise_with_the_quorum_is_named() -> None:
    fault = flat_over_quorum(dict.fromkeys(THEORY, 2500.0), THEORY)
    assert fault is not None
    assert fault.name == SLEEPING_THREADS
    assert "2500 ms at quorum 1 and 2500 ms at quorum 5, where theory expects 167 and 833 ms" in fault.seen


@pytest.mark.parametrize(
    ("measured", "theory"),
    [
        ({quorum: ms + 20 for quorum, ms in THEORY.items()}, THEORY),
        (dict.fromkeys(THEORY, 5.0), dict.fromkeys(THEORY, 3.0)),
        ({3: 500.0}, THEORY),
        ({}, {}),
    ],
)
def test_latency_as_theory_has_it_is_no_fault(measured: dict[int, float], theory: dict[int, float]) -> None:
    assert flat_over_quorum(measured, theory) is None
