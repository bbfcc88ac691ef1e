"""The experiment `ordering`: what it costs when messages must arrive, or be acknowledged, in the order they were sent.

The same Poisson writes run twice: over links where entries overtake each other, and over links that deliver in order.
From the first run a third latency follows, without further writes: that of a server which acknowledges writes in order.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass

import msgspec

from retinue.errors import SettingsError
from retinue.lab.experiments import ordering_summary
from retinue.lab.experiments.contract import Attachment, Experiment, Picture, Settings, Step, Summary, option
from retinue.lab.experiments.preparing import (
    LARGEST,
    check_at_least,
    check_quorums,
    check_target,
    choose_quorum,
    conditions_of,
    largest_delay_ms,
)
from retinue.lab.loads import IN_FLIGHT_LIMIT, Put, open_loop
from retinue.lab.targets.contract import Outcome, Target, Unsuitable

KEYS = 100
# A rate so low that its time gives few writes lasts longer: the mean of few scatters too much.
FEWEST_WRITES = 200
# Each write under way has a connection of its own. A cluster that is started for the experiment takes 5000 of them.
OWN_IN_FLIGHT_LIMIT = 4000


@dataclass(frozen=True, kw_only=True)
class OrderingSettings(Settings):
    """What `retinue lab ordering` can be told."""

    max_delay_ms: float = option(
        1000.0, "largest simulated delay of an entry; docs/settings.md has the other laws", "ms"
    )
    quorum: int = option(3, "write quorum")
    rates: tuple[float, ...] = option((10, 100, 1000), "rates of the writes", "1/s")
    duration_s: float = option(
        8.0, "how long each rate lasts, for each kind of delivery, or longer for 200 writes", "s"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_quorums((self.quorum,), "--quorum", self.followers)
        check_at_least(self, duration_s=0.1)
        if not self.rates or len(set(self.rates)) != len(self.rates) or not all(0 < r <= 100_000 for r in self.rates):
            given = ",".join(f"{rate:g}" for rate in self.rates) or "nothing"
            raise SettingsError(f"--rates={given} is not allowed: give different rates up to 100000, such as 10,100.")
        if max(self.rates) * self.duration_s > LARGEST:
            raise SettingsError(
                f"--duration-s={self.duration_s:g} is not allowed at {max(self.rates):g} writes/s: give less, so that "
                f"at most {LARGEST:,} writes are sent."
            )

    def writes(self, rate_per_s: float) -> int:
        """How many writes are sent at this rate."""
        return max(FEWEST_WRITES, round(rate_per_s * self.duration_s))


class OrderingSample(msgspec.Struct, frozen=True, kw_only=True):
    """One acknowledged write. `in_order`: over links that deliver in order. `sent_ms`: from the first write of the run.

    `version`: 0 where the server does not tell. Writes that were not acknowledged have `latency_ms` as the time until
    that was known, and `acknowledged` false.
    """

    in_order: bool
    rate_per_s: float
    sent_ms: float
    latency_ms: float
    version: int
    acknowledged: bool


class Ordering(Experiment[OrderingSettings, OrderingSample]):
    """Independent delays against links, and acknowledgements, in order."""

    name = "ordering"
    title = "The price of order"
    question = "What does it cost when entries must arrive, or be acknowledged, in the order they were sent?"
    settings_type = OrderingSettings
    sample_type = OrderingSample

    async def run(
        self, target: Target, settings: OrderingSettings
    ) -> AsyncIterator[Step | OrderingSample | Attachment]:
        """Write at each rate over both kinds of links; the network is as it was before at the end."""
        check_target(target, (settings.quorum,), "--quorum")
        if not target.abilities.network:
            raise Unsuitable(
                "This server cannot simulate links that deliver in order: start a cluster for it, without --url."
            )
        _check_in_flight(target, settings)
        before = target.network
        await choose_quorum(target, settings.quorum)
        longest_ms = {rate: settings.writes(rate) / rate * 1000 + largest_delay_ms(settings) for rate in settings.rates}
        total_ms, done_ms = sum(longest_ms.values()) * 2, 0.0
        try:
            for in_order in (False, True):
                await target.set_network(conditions_of(settings, in_order=in_order))
                for rate_per_s in settings.rates:
                    what = f"{rate_per_s:g} writes/s, {'links in order' if in_order else 'independent delays'}"
                    begun_ms = target.now_ms()
                    async with aclosing(_write(target, settings, rate_per_s, in_order)) as samples:
                        async for sample in samples:
                            yield sample
                            yield Step(
                                done_ms + min(target.now_ms() - begun_ms, longest_ms[rate_per_s]), total_ms, what
                            )
                    done_ms += longest_ms[rate_per_s]
        finally:
            await target.set_network(before or conditions_of(settings))
        yield Step(total_ms, total_ms, "done")

    def summary(self, settings: OrderingSettings, samples: Sequence[OrderingSample]) -> Summary:
        """Latency of the three kinds by rate, beside theory."""
        return ordering_summary.summarize(settings, samples)

    def figures(self, settings: OrderingSettings, samples: Sequence[OrderingSample]) -> list[Picture]:
        """Latency over rate."""
        return ordering_summary.pictures(settings, samples)


def _check_in_flight(target: Target, settings: OrderingSettings) -> None:
    """Refuse rates at which more writes would be under way than a node takes connections: they would wait outside."""
    most, limit = round(max(settings.rates) * largest_delay_ms(settings) / 1000), _in_flight_limit(target)
    if most > limit:
        raise SettingsError(
            f"--rates={max(settings.rates):g} is not possible with these delays: up to {most} writes would be under "
            f"way, and at most {limit} may; give a lower rate, shorter delays, or --simulated."
        )


def _in_flight_limit(target: Target) -> int:
    """How many writes may be under way at once; simulated ones need no connections."""
    if target.abilities.virtual:
        return LARGEST
    return OWN_IN_FLIGHT_LIMIT if target.abilities.faults else IN_FLIGHT_LIMIT


async def _write(
    target: Target, settings: OrderingSettings, rate_per_s: float, in_order: bool
) -> AsyncGenerator[OrderingSample]:
    fresh = uuid.uuid4().hex[:8]
    count = settings.writes(rate_per_s)
    puts = [Put(f"lab-{fresh}-{number % KEYS}", f"write {number}") for number in range(count)]
    first_ms = target.now_ms()
    limit = _in_flight_limit(target)
    async with aclosing(
        open_loop(target, puts, rate_per_s, poisson_seed=settings.seed, in_flight_limit=limit)
    ) as answers:
        async for _, written in answers:
            yield OrderingSample(
                in_order=in_order,
                rate_per_s=rate_per_s,
                sent_ms=round(written.begun_ms - first_ms, 3),
                latency_ms=round(written.latency_ms, 3),
                version=written.version,
                acknowledged=written.outcome is Outcome.COMMITTED,
            )
