"""The experiment `staleness`: how often a read at a follower misses a write that was acknowledged t ms ago.

Each write has a key of its own, so each read tests one write. Writes come at a fixed rate that leaves the machine idle
most of the time: what is measured is the simulated delay, not a queue.
"""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import msgspec

from retinue.errors import SettingsError
from retinue.lab.experiments import staleness_summary
from retinue.lab.experiments.contract import Attachment, Experiment, Picture, Settings, Step, Summary, option
from retinue.lab.experiments.preparing import (
    check_at_least,
    check_quorums,
    check_target,
    choose_quorum,
    largest_delay_ms,
    simulate_network,
    some_quorums,
)
from retinue.lab.loads import Put, open_loop
from retinue.lab.targets.contract import Outcome, Target, Written


@dataclass(frozen=True, kw_only=True)
class StalenessSettings(Settings):
    """What `retinue lab staleness` can be told."""

    max_delay_ms: float = option(
        1000.0, "largest simulated delay of an entry; docs/settings.md has the other laws", "ms"
    )
    quorums: tuple[int, ...] = option((), "write quorums (default: the smallest, the middle and the largest)")
    writes: int = option(800, "writes at each quorum, each to a key of its own")
    writes_per_s: float = option(60.0, "rate of the writes", "1/s")
    at_ms: tuple[float, ...] = option(
        (0, 50, 100, 200, 300, 400, 500, 600, 700, 800, 900, 1000),
        "when a random follower is read, counted from the acknowledgement; at 0 all followers are",
        "ms",
    )
    session_reads: int = option(5, "reads with the session token after each write, at random moments and followers")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_quorums(self.chosen_quorums, "--quorums", self.followers)
        check_at_least(self, writes=1, writes_per_s=0.1, session_reads=0)
        if not self.at_ms or not all(0 <= at_ms <= 3_600_000 for at_ms in self.at_ms):
            given = ",".join(f"{at_ms:g}" for at_ms in self.at_ms) or "nothing"
            raise SettingsError(f"--at-ms={given} is not allowed: give times from 0, such as 0,100,500.")

    @property
    def chosen_quorums(self) -> tuple[int, ...]:
        """The write quorums to measure, in order."""
        return self.quorums or some_quorums(self.followers)


class ReadSample(msgspec.Struct, frozen=True, kw_only=True):
    """One read of the key of an acknowledged write.

    Times count from the acknowledgement: `due_ms` when the read was to begin, `begun_ms` and `ended_ms` when it did
    and had its answer. `stale`: it did not return the write. `answered`: it was answered at all. `session`: it carried
    the session token.
    """

    quorum: int
    write: int
    session: bool
    node: str
    due_ms: float
    begun_ms: float
    ended_ms: float
    stale: bool
    answered: bool


class Staleness(Experiment[StalenessSettings, ReadSample]):
    """Stale reads at followers by time since the acknowledgement, with and without session token."""

    name = "staleness"
    title = "Stale reads at followers"
    question = "How likely does a read at a follower miss a write that was acknowledged a moment ago?"
    settings_type = StalenessSettings
    sample_type = ReadSample

    async def run(self, target: Target, settings: StalenessSettings) -> AsyncIterator[Step | ReadSample | Attachment]:
        """Write, and read each write at its moments; see the module."""
        check_target(target, settings.chosen_quorums, "--quorums")
        await simulate_network(target, settings)
        writing_ms = settings.writes / settings.writes_per_s * 1000
        per_quorum_ms = writing_ms + largest_delay_ms(settings) + max(settings.at_ms)
        total_ms = per_quorum_ms * len(settings.chosen_quorums)
        for number, quorum in enumerate(settings.chosen_quorums):
            await choose_quorum(target, quorum)
            begun_ms = target.now_ms()
            async with aclosing(_Readers(target, settings, quorum).run()) as samples:
                async for sample in samples:
                    yield sample
                    spent_ms = min(target.now_ms() - begun_ms, per_quorum_ms)
                    yield Step(number * per_quorum_ms + spent_ms, total_ms, f"quorum {quorum}")
        yield Step(total_ms, total_ms, "done")

    def summary(self, settings: StalenessSettings, samples: Sequence[ReadSample]) -> Summary:
        """Probabilities beside theory, and the verdict about session reads."""
        return staleness_summary.summarize(settings, samples)

    def figures(self, settings: StalenessSettings, samples: Sequence[ReadSample]) -> list[Picture]:
        """Probability of a stale read over time, and over the number of followers that are read."""
        return staleness_summary.pictures(settings, samples)


class _Readers:
    """Writes at one quorum, and the reads that follow each acknowledgement."""

    def __init__(self, target: Target, settings: StalenessSettings, quorum: int) -> None:
        self._target = target
        self._settings = settings
        self._quorum = quorum
        self._followers = target.nodes[1:]
        self._random = random.Random(f"{settings.seed}/{quorum}")
        self._finished: list[ReadSample] = []
        self._running: set[asyncio.Task[None]] = set()

    async def run(self) -> AsyncGenerator[ReadSample]:
        """Write, read, and yield what the reads found; ends when all reads have their answers."""
        fresh = uuid.uuid4().hex[:8]
        puts = [Put(f"lab-{fresh}-{number}", f"write {number}") for number in range(self._settings.writes)]
        try:
            async with aclosing(open_loop(self._target, puts, self._settings.writes_per_s)) as answers:
                async for number, written in answers:
                    if written.outcome is Outcome.COMMITTED:
                        self._begin_reads(number, puts[number], written)
                    for sample in self._take():
                        yield sample
            while self._running:
                await asyncio.wait(self._running, return_when=asyncio.FIRST_COMPLETED)
                for sample in self._take():
                    yield sample
        finally:
            for task in self._running:
                task.cancel()
        for sample in self._take():
            yield sample

    def _begin_reads(self, number: int, put: Put, written: Written) -> None:
        for read in self._reads_of(number, put, written):
            task = asyncio.create_task(read)
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    def _take(self) -> list[ReadSample]:
        taken, self._finished = self._finished, []
        return taken

    def _reads_of(self, number: int, put: Put, written: Written) -> Iterator[Coroutine[Any, Any, None]]:
        """The reads that follow one acknowledged write."""
        for at_ms in self._settings.at_ms:
            nodes = self._followers if at_ms == 0 else (self._random.choice(self._followers),)
            for node in nodes:
                yield self._read(number, put, written, node, at_ms, "")
        if written.session and self._target.abilities.sessions:
            for _ in range(self._settings.session_reads):
                node, at_ms = self._random.choice(self._followers), self._random.choice(self._settings.at_ms)
                yield self._read(number, put, written, node, at_ms, written.session)

    async def _read(self, number: int, put: Put, written: Written, node: str, at_ms: float, session: str) -> None:
        """One read at one follower, `at_ms` after the acknowledgement."""
        acknowledged_ms = written.ended_ms
        await asyncio.sleep(max(0.0, acknowledged_ms + at_ms - self._target.now_ms()) / 1000)
        seen = await self._target.read(node, put.key, session=session)
        self._finished.append(
            ReadSample(
                quorum=self._quorum,
                write=number,
                session=bool(session),
                node=node,
                due_ms=at_ms,
                begun_ms=round(seen.begun_ms - acknowledged_ms, 3),
                ended_ms=round(seen.ended_ms - acknowledged_ms, 3),
                stale=seen.answered and (seen.cell is None or seen.cell.value != put.value),
                answered=seen.answered,
            )
        )
