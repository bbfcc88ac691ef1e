"""What the samples of the experiment `quorum` amount to at one quorum, with theory beside it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from retinue.lab.experiments.preparing import law_of
from retinue.lab.experiments.quorum_sample import AT_ONCE, READ, REPLICA, SETTLED, WRITE, QuorumSample
from retinue.lab.inference import Fit, Interval, goodness_of_fit, mean_interval
from retinue.lab.targets.contract import Outcome
from retinue.lab.theory import OrderStatistic

if TYPE_CHECKING:
    from retinue.lab.experiments.quorum import QuorumSettings

Array = NDArray[np.float64]


class AtQuorum:
    """The writes at one quorum. Latencies are of acknowledged writes, in ms, in order of their answers.

    `theory` is `None` where no delay is simulated.
    """

    def __init__(self, settings: QuorumSettings, quorum: int, samples: Sequence[QuorumSample]) -> None:
        here = [sample for sample in samples if sample.quorum == quorum]
        self.quorum = quorum
        self.writes = [sample for sample in here if sample.kind == WRITE]
        self.reads = [sample for sample in here if sample.kind == READ]
        self.at_once = [sample for sample in here if sample.kind == REPLICA and sample.moment == AT_ONCE]
        self.settled = [sample for sample in here if sample.kind == REPLICA and sample.moment == SETTLED]
        self.acknowledged = [sample for sample in self.writes if sample.outcome == Outcome.COMMITTED.value]
        self.law = law_of(settings)
        self.theory = OrderStatistic(self.law, quorum, settings.followers) if settings.max_delay_ms > 0 else None

    @cached_property
    def latencies_ms(self) -> Array:
        """Latencies of acknowledged writes."""
        return np.array([sample.latency_ms for sample in self.acknowledged])

    @property
    def mean_ms(self) -> float:
        """The mean latency."""
        return float(self.latencies_ms.mean())

    def quantile_ms(self, p: float) -> float:
        """The latency that a fraction `p` of the acknowledged writes did not exceed."""
        return float(np.quantile(self.latencies_ms, p))

    @property
    def interval(self) -> Interval | None:
        """Where the true mean lies with 95 % confidence; `None` for fewer than two writes."""
        return mean_interval(self.latencies_ms) if len(self.latencies_ms) > 1 else None

    @property
    def half_width_ms(self) -> float | None:
        """Half the width of the confidence interval."""
        return None if self.interval is None else (self.interval.high - self.interval.low) / 2

    @cached_property
    def overheads_ms(self) -> Array | None:
        """What each write took beyond the delays that were drawn for it; `None` where the server does not tell them."""
        known = [sample for sample in self.acknowledged if sample.drawn_ms is not None]
        if not known:
            return None
        return np.array([sample.latency_ms - (sample.drawn_ms or 0.0) for sample in known])

    @property
    def overhead_ms(self) -> float | None:
        """The mean overhead: over the drawn delays, else over the mean of theory, which is less certain."""
        if self.overheads_ms is not None:
            return float(self.overheads_ms.mean())
        return None if self.theory is None else self.mean_ms - self.theory.mean

    @property
    def is_load_bound(self) -> bool:
        """Whether the median overhead is above the spread of theory, so that the load makes the shape of latencies."""
        if self.theory is None or self.overheads_ms is None:
            return False
        return float(np.median(self.overheads_ms)) > self.theory.standard_deviation

    @property
    def agrees(self) -> bool | None:
        """Whether theory's mean, with the overhead, lies in the confidence interval; `None` where that cannot be said.

        Where the drawn delays are not known the overhead is taken from theory itself, so nothing can be said.
        """
        if self.theory is None or self.interval is None or self.overheads_ms is None or self.overhead_ms is None:
            return None
        return self.interval.low <= self.theory.mean + self.overhead_ms <= self.interval.high

    @cached_property
    def fit(self) -> Fit | None:
        """Whether latency minus overhead follows the order statistic; `None` for laws without spread."""
        if self.theory is None or self.law.certain_ms is not None:
            return None
        typical_ms = self.overhead_ms if self.overheads_ms is None else float(np.median(self.overheads_ms))
        return goodness_of_fit(self.latencies_ms - (typical_ms or 0.0), self.theory)

    @property
    def per_second(self) -> float:
        """Acknowledged writes per second, from the first request to the last answer."""
        begun_ms = min(sample.begun_ms for sample in self.writes)
        ended_ms = max(sample.begun_ms + sample.latency_ms for sample in self.writes)
        return len(self.acknowledged) / max(ended_ms - begun_ms, 1e-3) * 1000

    @property
    def success_percent(self) -> float:
        """Acknowledged writes of all that were sent."""
        return 100 * len(self.acknowledged) / len(self.writes)

    @property
    def failures(self) -> dict[str, list[QuorumSample]]:
        """Writes that were not acknowledged, by outcome."""
        failed = [sample for sample in self.writes if sample.outcome != Outcome.COMMITTED.value]
        kinds = Counter(sample.outcome for sample in failed)
        return {kind: [sample for sample in failed if sample.outcome == kind] for kind in kinds}


def by_quorum(settings: QuorumSettings, samples: Sequence[QuorumSample]) -> list[AtQuorum]:
    """The quorums at which at least one write was acknowledged, in order."""
    quorums = sorted({sample.quorum for sample in samples})
    found = [AtQuorum(settings, quorum, samples) for quorum in quorums]
    return [at for at in found if at.acknowledged]
