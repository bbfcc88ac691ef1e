from __future__ import annotations

import pytest

from retinue.lab.schedules import (
    HEALED_AT,
    NAMED,
    REPAIRS,
    Action,
    Schedule,
    draw_quorum,
    draw_schedule,
    named_schedule,
)

NODES = ("leader", *(f"follower{number}" for number in range(1, 6)))
SEEDS = range(1, 200)


def drawn(seed: int) -> Schedule:
    return draw_schedule(seed, NODES, draw_quorum(seed, 5), 4000)


def every_schedule() -> list[Schedule]:
    named = [named_schedule(name, NODES, quorum, 4000) for name in NAMED for quorum in range(1, 6)]
    return named + [drawn(seed) for seed in SEEDS]


def most_broken(schedule: Schedule) -> int:
    """Perform it on paper; the largest number of nodes that were broken at the same time."""
    broken: dict[str, Action] = {}
    most, before_ms = 0, 0.0
    for event in schedule.events:
        assert event.at_ms >= before_ms
        before_ms = event.at_ms
        if event.action.breaks:
            assert event.node not in broken
            broken[event.node] = event.action
        elif event.action.mends:
            assert REPAIRS[broken.pop(event.node)] is event.action
        else:
            assert event.node not in broken
            # A take-over needs N - k nodes, or it could miss an acknowledged write.
            assert len(NODES) - len(broken) >= len(NODES) - schedule.quorum
        most = max(most, len(broken))
    assert broken == {}
    return most


def test_every_schedule_can_be_performed_and_ends_healed() -> None:
    for schedule in every_schedule():
        assert most_broken(schedule) >= 1, schedule.name
        assert schedule.events[-1].at_ms <= HEALED_AT * schedule.duration_ms


def test_a_seed_is_one_schedule() -> None:
    assert drawn(7) == drawn(7)
    assert len({drawn(seed).events for seed in SEEDS}) == len(SEEDS)


def test_the_seeds_break_everything_there_is() -> None:
    schedules = [drawn(seed) for seed in SEEDS]
    done = {(event.action, event.node) for schedule in schedules for event in schedule.events}
    assert done == {(action, node) for action in Action for node in NODES}
    assert {most_broken(schedule) for schedule in schedules} >= {1, 2, 3, 4, 5}
    assert {schedule.quorum for schedule in schedules} == {1, 2, 3, 4, 5}


def test_a_dead_leader_is_restarted_in_some_seeds_and_replaced_in_others() -> None:
    ends = set()
    for seed in SEEDS:
        events = drawn(seed).events
        killed = next((i for i, event in enumerate(events) if event[1:] == (Action.KILL, "leader")), None)
        if killed is not None:
            after = (
                event
                for event in events[killed:]
                if event[1:] == (Action.START, "leader") or event.action is Action.PROMOTE
            )
            ends.add(next(after).action)
    assert ends == {Action.START, Action.PROMOTE}


@pytest.mark.parametrize("quorum", [1, 3, 5])
def test_a_lost_quorum_takes_away_one_follower_more_than_can_be_missed(quorum: int) -> None:
    schedule = named_schedule("quorum-lost", NODES, quorum, 4000)
    assert most_broken(schedule) == 5 - quorum + 1


def test_whoever_replaces_the_leader_is_told() -> None:
    assert not named_schedule("partition", NODES, 3, 4000).keeps_the_leader
    assert named_schedule("rolling", NODES, 3, 4000).keeps_the_leader
