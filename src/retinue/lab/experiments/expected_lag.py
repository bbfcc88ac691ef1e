"""How many cells should be behind after a burst of writes, by simulating the burst alone: no nodes, only delays.

There is no short formula for it: which writes are still on the way at the last acknowledgement depends on how many
clients write at once, and on the order of the keys. So the burst is drawn many times, all draws at once in numpy.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from retinue.lab.theory import Law

Array = NDArray[np.float64]


class Burst(msgspec.Struct, frozen=True, kw_only=True):
    """A burst of writes in a closed loop. `keys`: the key of each write, in the order of the versions.

    `concurrency` clients send the next write when their last is answered, which is when `quorum` of `followers` have
    it. The last `deletes` writes begin together, when all others are answered.
    """

    keys: tuple[str, ...]
    concurrency: int
    quorum: int
    followers: int
    deletes: int = 0


class ExpectedLag:
    """The lag after a burst, from `draws` simulated bursts with independent delays of `law`."""

    def __init__(self, law: Law, burst: Burst, *, draws: int = 2000, seed: int = 1) -> None:
        self._left_ms = _time_left_ms(law, burst, draws, np.random.default_rng(seed))

    def cells_behind(self, times_ms: Sequence[float] | Array) -> Array:
        """The mean number of cells (follower, key) behind, at each of these times after the last acknowledgement."""
        ordered = np.sort(self._left_ms, axis=None)
        later = ordered.size - np.searchsorted(ordered, np.asarray(times_ms, dtype=float), side="right")
        return np.asarray(later / len(self._left_ms))

    def cells_behind_interval(self, time_ms: float, bursts: int, confidence: float = 0.95) -> tuple[float, float]:
        """Where the mean over `bursts` measured bursts lies with this probability."""
        counts = (self._left_ms > time_ms).sum(axis=(1, 2))
        rng = np.random.default_rng(len(counts))
        means = rng.choice(counts, size=(4000, bursts)).mean(axis=1)
        low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
        return float(low), float(high)

    @property
    def equal_ms(self) -> float:
        """The mean time from the last acknowledgement until every follower has the last write of every key."""
        return float(np.maximum(self._left_ms.max(axis=(1, 2)), 0.0).mean())


def _time_left_ms(law: Law, burst: Burst, draws: int, rng: np.random.Generator) -> Array:
    """When each cell gets its last write, from the last acknowledgement on: draws x keys x followers."""
    free_ms = np.zeros((draws, burst.concurrency))
    rows = np.arange(draws)
    end_ms = np.zeros(draws)
    arrivals: dict[str, Array] = {}
    together = len(burst.keys) - burst.deletes
    for number, key in enumerate(burst.keys):
        if number < together:
            client = free_ms.argmin(axis=1)
            begun_ms = free_ms[rows, client]
        elif number == together:
            begun_ms = end_ms.copy()
        delays: Any = law.quantile(rng.random((draws, burst.followers)))
        answered_ms = begun_ms + np.partition(delays, burst.quorum - 1, axis=1)[:, burst.quorum - 1]
        if number < together:
            free_ms[rows, client] = answered_ms
        end_ms = np.maximum(end_ms, answered_ms)
        arrivals[key] = begun_ms[:, None] + delays
    return np.stack(list(arrivals.values()), axis=1) - end_ms[:, None, None]
