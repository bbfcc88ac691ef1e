"""When writes went through and when not, from the attempts of all clients."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from statistics import median
from typing import NamedTuple

from retinue.lab.clients import Attempt
from retinue.lab.targets.contract import Outcome

BIN_MS = 200.0
OUTAGE_MS = 300.0
"""The shortest time without a committed write that counts as an outage. Shorter gaps are the scatter of few clients."""


class Bin(NamedTuple):
    """The attempts that ended in one bin by outcome, and those that waited through all of it without need.

    `at_ms`: its begin. An attempt waits without need when it is older than two attempts usually become.
    """

    at_ms: float
    committed: int = 0
    refused: int = 0
    unknown: int = 0
    failed: int = 0
    waiting: int = 0

    @property
    def available(self) -> float | None:
        """The share that was committed; `None` when nothing ended and nobody waited too long."""
        total = self.committed + self.refused + self.unknown + self.failed + self.waiting
        return self.committed / total if total else None


class Outage(NamedTuple):
    """A time without a committed write, from `begun_ms` to `ended_ms`."""

    begun_ms: float
    ended_ms: float

    @property
    def ms(self) -> float:
        """How long it was."""
        return self.ended_ms - self.begun_ms


def bins(attempts: Sequence[Attempt], begun_ms: float, ended_ms: float, bin_ms: float = BIN_MS) -> list[Bin]:
    """The time from `begun_ms` to `ended_ms` in bins; `at_ms` counts from `begun_ms`."""
    count = max(1, int((ended_ms - begun_ms) // bin_ms))
    patience_ms = max(bin_ms, 2 * usual_ms(attempts))
    outcomes: list[dict[str, int]] = [{} for _ in range(count)]

    def note(number: int, what: str) -> None:
        if 0 <= number < count:
            outcomes[number][what] = outcomes[number].get(what, 0) + 1

    for attempt in attempts:
        first = int((attempt.begun_ms - begun_ms) // bin_ms)
        last = int((attempt.ended_ms - begun_ms) // bin_ms)
        note(last, attempt.outcome.value)
        for number in range(first + 1, min(last, count)):
            if begun_ms + (number + 1) * bin_ms - attempt.begun_ms >= patience_ms:
                note(number, "waiting")
    return [Bin(number * bin_ms, **found) for number, found in enumerate(outcomes)]


def outages(
    attempts: Sequence[Attempt], begun_ms: float, ended_ms: float, shortest_ms: float = OUTAGE_MS
) -> list[Outage]:
    """All times without a committed write, in order: at least `shortest_ms`, and what two attempts usually take."""
    shortest_ms = max(shortest_ms, 2 * usual_ms(attempts))
    commits = sorted(
        attempt.ended_ms
        for attempt in attempts
        if attempt.outcome is Outcome.COMMITTED and begun_ms <= attempt.ended_ms <= ended_ms
    )
    moments = [begun_ms, *commits, ended_ms]
    gaps = pairwise(moments)
    return [Outage(before, after) for before, after in gaps if after - before >= shortest_ms]


def usual_ms(attempts: Sequence[Attempt]) -> float:
    """The median time of a committed attempt; 0 when none was committed."""
    times = [attempt.ended_ms - attempt.begun_ms for attempt in attempts if attempt.outcome is Outcome.COMMITTED]
    return median(times) if times else 0.0
