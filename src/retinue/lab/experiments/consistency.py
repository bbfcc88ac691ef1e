"""The experiment `consistency`: every replica compared with the leader, from the last acknowledgement on.

A burst of writes runs at each write quorum. When its last write is acknowledged all nodes are dumped and compared, then
again while the rest of the copies arrive, and once more when all must have arrived. What differs at first and heals is
lag: the price of a small quorum. What still differs at the end is divergence, and a fault.
"""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import NamedTuple

import msgspec

from retinue.errors import SettingsError
from retinue.lab.experiments import consistency_pictures, consistency_summary
from retinue.lab.experiments.consistency_summary import EQUAL
from retinue.lab.experiments.contract import Attachment, Experiment, Picture, Settings, Step, Summary, option
from retinue.lab.experiments.expected_lag import Burst
from retinue.lab.experiments.preparing import (
    LARGEST,
    PATIENCE_MS,
    check_at_least,
    check_quorums,
    check_target,
    choose_quorum,
    law_of,
    likely_delay_ms,
    settled_ms,
    simulate_network,
)
from retinue.lab.judging.comparison import difference
from retinue.lab.loads import Put, closed_loop
from retinue.lab.targets.contract import Cell, Outcome, Target, Unsuitable, Written
from retinue.lab.theory import OrderStatistic

ORDERS = ("by-key", "mixed")

# Below this, settling takes no longer than looking at all nodes does.
SHORTEST_SETTLING_MS = 20.0


@dataclass(frozen=True, kw_only=True)
class ConsistencySettings(Settings):
    """What `retinue lab consistency` can be told."""

    max_delay_ms: float = option(
        1000.0, "largest simulated delay of an entry; docs/settings.md has the other laws", "ms"
    )
    quorums: tuple[int, ...] = option((), "write quorums (default: 1 to the number of followers)")
    keys: int = option(10, "keys of a burst")
    writes_per_key: int = option(10, "writes to each key")
    concurrency: int = option(10, "writes under way at a time")
    order: str = option("by-key", "order of the writes: by-key (all of one key, then the next) or mixed")
    deletes: int = option(0, "keys, the last ones, that are deleted at the end of a burst")
    rounds: int = option(2, "bursts at each quorum")
    moments: int = option(10, "comparisons while settling")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_quorums(self.chosen_quorums, "--quorums", self.followers)
        check_at_least(self, keys=1, writes_per_key=1, concurrency=1, deletes=0, rounds=1, moments=2)
        if self.keys * self.writes_per_key > LARGEST:
            raise SettingsError(
                f"--keys={self.keys} with --writes-per-key={self.writes_per_key} is not allowed: give at most "
                f"{LARGEST:,} writes together."
            )
        if self.order not in ORDERS:
            raise SettingsError(f"--order={self.order} is not allowed: choose one of {', '.join(ORDERS)}.")
        if self.deletes > self.keys:
            raise SettingsError(f"--deletes={self.deletes} is above the number of keys ({self.keys}): give fewer.")

    @property
    def chosen_quorums(self) -> tuple[int, ...]:
        """The write quorums to measure, in order."""
        return self.quorums or tuple(range(1, self.followers + 1))

    @property
    def settled_ms(self) -> float:
        """When, counted from the last acknowledgement, every copy must have arrived."""
        return settled_ms(self)

    @property
    def moments_ms(self) -> tuple[float, ...]:
        """When all nodes are compared, counted from the last acknowledgement."""
        settling_ms = likely_delay_ms(self, 0.999)
        if settling_ms < SHORTEST_SETTLING_MS:
            return (0.0, self.settled_ms)
        step_ms = settling_ms / self.moments
        return (*(round(number * step_ms, 1) for number in range(self.moments + 1)), self.settled_ms)

    def sequence(self, burst: int) -> list[str]:
        """The key of each write of a burst, deletes at the end; the same for the same seed."""
        names = [f"key{number:0{len(str(self.keys))}d}" for number in range(1, self.keys + 1)]
        writes = [name for name in names for _ in range(self.writes_per_key)]
        if self.order == "mixed":
            random.Random(f"{self.seed}/{burst}").shuffle(writes)
        return writes + names[self.keys - self.deletes :]

    def burst(self, quorum: int, followers: int) -> Burst:
        """The first burst as theory sees it."""
        keys = tuple(self.sequence(1))
        return Burst(keys=keys, concurrency=self.concurrency, quorum=quorum, followers=followers, deletes=self.deletes)


class CellSample(msgspec.Struct, frozen=True, kw_only=True):
    """One key at one follower at one moment, compared with the leader.

    `moment_ms`: when it was to be compared, from the last acknowledgement on; `taken_ms`: when the follower had
    answered. `state`: equal, missing, older, newer, different or extra. Versions are 0 for absent keys, and where the
    server tells none. `unacknowledged`: writes of this burst that failed, or whose outcome is unknown.
    """

    quorum: int
    round: int
    moment_ms: float
    taken_ms: float
    node: str
    key: str
    state: str
    leader_version: int
    node_version: int
    versioned: bool
    unacknowledged: int


class _Burst(NamedTuple):
    """A burst that was written: the names of its keys on the servers by short name, its end, its failures."""

    names: dict[str, str]
    ended_ms: float
    unacknowledged: int


class Consistency(Experiment[ConsistencySettings, CellSample]):
    """Replicas compared with the leader after a burst of writes."""

    name = "consistency"
    title = "Consistency of the replicas"
    question = "How far are the followers behind when the last write is acknowledged, and do they all end up equal?"
    settings_type = ConsistencySettings
    sample_type = CellSample

    async def run(self, target: Target, settings: ConsistencySettings) -> AsyncIterator[Step | CellSample | Attachment]:
        """Write bursts and compare; see the module."""
        check_target(target, settings.chosen_quorums, "--quorums")
        if settings.deletes and not target.abilities.deletes:
            raise Unsuitable("This server cannot delete: leave out --deletes.")
        await simulate_network(target, settings)
        law, followers = law_of(settings), len(target.nodes) - 1
        per_burst = [
            len(settings.sequence(1)) / settings.concurrency * OrderStatistic(law, quorum, followers).mean
            for quorum in settings.chosen_quorums
            for _ in range(settings.rounds)
        ]
        total_ms, done_ms = sum(per_burst) + len(per_burst) * settings.settled_ms, 0.0
        for quorum in settings.chosen_quorums:
            await choose_quorum(target, quorum)
            for number in range(1, settings.rounds + 1):
                what = f"quorum {quorum}, burst {number} of {settings.rounds}"
                expected_ms = per_burst.pop(0)
                writer = _Writer(target, settings, number)
                async with aclosing(writer.write()) as shares:
                    async for share in shares:
                        yield Step(done_ms + share * expected_ms, total_ms, what)
                done_ms += expected_ms
                async for event in _observe(target, settings, quorum, number, writer.burst):
                    if isinstance(event, CellSample):
                        yield event
                    else:
                        yield Step(done_ms + event, total_ms, f"{what}, settling")
                done_ms += settings.settled_ms
        yield Step(total_ms, total_ms, "done")

    def summary(self, settings: ConsistencySettings, samples: Sequence[CellSample]) -> Summary:
        """Tables, reading and verdict."""
        return consistency_summary.summarize(settings, samples)

    def figures(self, settings: ConsistencySettings, samples: Sequence[CellSample]) -> list[Picture]:
        """The grid of cells, and cells behind over time."""
        return consistency_pictures.pictures(settings, samples)


class _Writer:
    """Writes one burst to keys that nobody has used before; `burst` is what it became."""

    def __init__(self, target: Target, settings: ConsistencySettings, number: int) -> None:
        self._target = target
        self._settings = settings
        self._sequence = settings.sequence(number)
        fresh = uuid.uuid4().hex[:8]
        self._names = {short: f"lab-{fresh}-{short}" for short in self._sequence}
        self._answers: list[Written] = []

    async def write(self) -> AsyncGenerator[float]:
        """Write, and yield the share that is done."""
        puts = len(self._sequence) - self._settings.deletes
        requests = [Put(self._names[key], f"{key} write {n}") for n, key in enumerate(self._sequence[:puts], 1)]
        async with aclosing(closed_loop(self._target, requests, self._settings.concurrency)) as answers:
            async for _, written in answers:
                self._answers.append(written)
                yield len(self._answers) / len(self._sequence)
        deletes = [self._target.delete(self._names[key]) for key in self._sequence[puts:]]
        self._answers += await asyncio.gather(*deletes)

    @property
    def burst(self) -> _Burst:
        """What was written."""
        failures = sum(answer.outcome is not Outcome.COMMITTED for answer in self._answers)
        return _Burst(self._names, max(answer.ended_ms for answer in self._answers), failures)


async def _observe(
    target: Target, settings: ConsistencySettings, quorum: int, number: int, burst: _Burst
) -> AsyncIterator[CellSample | float]:
    """Compare all nodes at all moments; yields the moments, too, as a measure of progress."""
    moments = [*settings.moments_ms]
    while moments:
        moment_ms = moments.pop(0)
        await asyncio.sleep(max(0.0, burst.ended_ms + moment_ms - target.now_ms()) / 1000)
        yield min(moment_ms, settings.settled_ms)
        samples = await _compare(target, burst, quorum, number, moment_ms)
        for sample in samples:
            yield sample
        if moment_ms == settings.settled_ms and any(sample.state != EQUAL for sample in samples):
            moments.append(moment_ms + PATIENCE_MS)


async def _compare(target: Target, burst: _Burst, quorum: int, number: int, moment_ms: float) -> list[CellSample]:
    async def dump(node: str) -> tuple[dict[str, Cell], float]:
        cells = await target.dump(node)
        return cells, target.now_ms()

    # Who leads is asked at the same time, for asking first would be later than the moment.
    dumping = asyncio.gather(*(dump(node) for node in target.nodes))
    told, found = await asyncio.gather(target.leader(), dumping)
    dumps = dict(zip(target.nodes, found, strict=True))
    leading, _ = dumps.pop(told or target.nodes[0])
    samples = []
    for node, (cells, taken_ms) in dumps.items():
        for short, name in burst.names.items():
            ours, theirs = leading.get(name), cells.get(name)
            state = difference(ours, theirs)
            samples.append(
                CellSample(
                    quorum=quorum,
                    round=number,
                    moment_ms=moment_ms,
                    taken_ms=round(taken_ms - burst.ended_ms, 3),
                    node=node,
                    key=short,
                    state=EQUAL if state is None else state.value,
                    leader_version=ours.version if ours else 0,
                    node_version=theirs.version if theirs else 0,
                    versioned=target.abilities.versions,
                    unacknowledged=burst.unacknowledged,
                )
            )
    return samples
