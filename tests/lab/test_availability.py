from __future__ import annotations

from retinue.lab.availability import Bin, Outage, bins, outages, usual_ms
from retinue.lab.clients import Attempt
from retinue.lab.targets.contract import Outcome


def attempt(begun_ms: float, ended_ms: float, outcome: Outcome = Outcome.COMMITTED) -> Attempt:
    return Attempt(begun_ms, ended_ms, outcome)


def test_attempts_count_in_the_bin_in_which_they_end() -> None:
    attempts = [attempt(1000, 1010), attempt(1100, 1250, Outcome.REFUSED), attempt(1190, 1210, Outcome.UNKNOWN)]
    assert bins(attempts, 1000, 1400) == [Bin(0, committed=1), Bin(200, refused=1, unknown=1)]


def test_who_waits_far_longer_than_usual_is_not_served() -> None:
    attempts = [attempt(0, 10), attempt(20, 30), attempt(50, 900)]
    assert [found.available for found in bins(attempts, 0, 1000)] == [1.0, 0.0, 0.0, 0.0, 1.0]


def test_writes_that_always_take_long_are_available_all_the_same() -> None:
    attempts = [attempt(start, start + 700) for start in range(0, 2000, 100)]
    assert {found.available for found in bins(attempts, 0, 2000)} <= {None, 1.0}
    assert outages(attempts, 0, 2000) == []


def test_an_outage_lies_between_two_commits() -> None:
    attempts = [attempt(0, 100), attempt(100, 350, Outcome.REFUSED), attempt(150, 700), attempt(700, 950)]
    assert outages(attempts, 0, 1000) == [Outage(100, 700)]
    assert outages([], 0, 1000) == [Outage(0, 1000)]


def test_the_usual_time_is_that_of_commits() -> None:
    assert usual_ms([attempt(0, 10), attempt(0, 30), attempt(0, 5000, Outcome.UNKNOWN)]) == 20
    assert usual_ms([]) == 0
