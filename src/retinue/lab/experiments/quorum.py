"""The experiment `quorum`: how long writes take, by the number of followers that must confirm them.

At each write quorum a closed loop writes to a few keys. When its last write is acknowledged all replicas are compared,
and again when every copy must have arrived; only then does the next quorum begin, so none disturbs another.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from retinue.errors import ClusterError, SettingsError
from retinue.lab.experiments import quorum_pictures, quorum_summary
from retinue.lab.experiments.contract import Attachment, Experiment, Picture, Settings, Step, Summary, option
from retinue.lab.experiments.preparing import (
    PATIENCE_MS,
    check_at_least,
    check_quorums,
    check_target,
    choose_quorum,
    law_of,
    settled_ms,
    simulate_network,
)
from retinue.lab.experiments.quorum_sample import AT_ONCE, READ, REPLICA, SETTLED, WRITE, QuorumSample
from retinue.lab.judging.comparison import State, compare
from retinue.lab.loads import Put, closed_loop, key_choices
from retinue.lab.targets.contract import Cell, Outcome, Target, Unsuitable, Written
from retinue.lab.theory import OrderStatistic

BY_KEY = "by-key"
ORDERS = ("mixed", BY_KEY)

# What a write costs without delays, for the estimate of the time left only.
ORDINARY_WRITE_MS = 2.0
# So many failures in a row, for each client, make us ask whether anybody leads.
FAILURES_IN_A_ROW = 3


@dataclass(frozen=True, kw_only=True)
class QuorumSettings(Settings):
    """What `retinue lab quorum` can be told."""

    max_delay_ms: float = option(
        1000.0, "largest simulated delay of an entry; docs/settings.md has the other laws", "ms"
    )
    quorums: tuple[int, ...] = option((), "write quorums (default: 1 to the number of followers)")
    writes: int = option(100, "writes at each quorum")
    keys: int = option(10, "keys that are written")
    concurrency: int = option(10, "writes under way at a time")
    order: str = option("mixed", "order of the writes: mixed, or by-key (all of one key, then the next)")
    value_bytes: int = option(100, "size of a value", "bytes")
    warm_up: int = option(10, "writes before the first that counts, at each quorum")
    readers: int = option(0, "clients that read while the others write, at all nodes in turn")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.quorums:
            check_quorums(self.quorums, "--quorums")
            if max(self.quorums) > self.followers:
                raise SettingsError(
                    f"--quorums={','.join(map(str, self.quorums))} is above the number of followers "
                    f"({self.followers}): choose less, or give more with --followers."
                )
        check_at_least(self, writes=1, keys=1, concurrency=1, value_bytes=1, warm_up=0, readers=0)
        if self.order not in ORDERS:
            raise SettingsError(f"--order={self.order} is not allowed: choose one of {', '.join(ORDERS)}.")

    @property
    def chosen_quorums(self) -> tuple[int, ...]:
        """The write quorums to measure, in order."""
        return self.quorums or tuple(range(1, self.followers + 1))

    def puts(self) -> list[Put]:
        """The writes at each quorum, those of the warm-up first."""
        puts = list(key_choices(self.keys, self.warm_up + self.writes, self.seed))
        if self.order == BY_KEY:
            keys = ["key0"] * self.warm_up + [
                f"key{number * self.keys // self.writes}" for number in range(self.writes)
            ]
            puts = [Put(key, put.value) for key, put in zip(keys, puts, strict=True)]
        return [Put(put.key, put.value.ljust(self.value_bytes, ".")) for put in puts]

    def expected_ms(self, quorum: int) -> float:
        """About how long the writes at one quorum take."""
        each_ms = ORDINARY_WRITE_MS + OrderStatistic(law_of(self), quorum, self.followers).mean
        return (self.writes + self.warm_up) / self.concurrency * each_ms

    @property
    def settled_ms(self) -> float:
        """When, counted from the last acknowledgement, every copy must have arrived."""
        return settled_ms(self)


class Quorum(Experiment[QuorumSettings, QuorumSample]):
    """Write latency against write quorum."""

    name = "quorum"
    title = "What a write quorum costs"
    question = "How long does a write take when 1, 2, ... all followers must confirm it?"
    settings_type = QuorumSettings
    sample_type = QuorumSample

    async def run(self, target: Target, settings: QuorumSettings) -> AsyncIterator[Step | QuorumSample | Attachment]:
        """Measure one quorum after the other; see the module."""
        quorums = settings.chosen_quorums
        _check(target, quorums)
        await simulate_network(target, settings)
        total_ms = sum(settings.expected_ms(quorum) + settings.settled_ms for quorum in quorums)
        done_ms = 0.0
        for quorum in quorums:
            what = f"write quorum {quorum}"
            yield Step(done_ms, total_ms, what)
            await choose_quorum(target, quorum)
            burst = _Burst(target, settings, quorum)
            await burst.warm_up()
            expected_ms = settings.expected_ms(quorum)
            async with aclosing(burst.write()) as samples:
                async for sample in samples:
                    yield sample
                    yield Step(done_ms + expected_ms * burst.answered / settings.writes, total_ms, what)
            for sample in burst.reads:
                yield sample
            done_ms += expected_ms
            yield Step(done_ms, total_ms, f"{what}, settling")
            async for sample in burst.observe():
                yield sample
            done_ms += settings.settled_ms
        yield Step(total_ms, total_ms, "done")

    def summary(self, settings: QuorumSettings, samples: Sequence[QuorumSample]) -> Summary:
        """Tables, reading and verdict."""
        return quorum_summary.summarize(settings, samples)

    def figures(self, settings: QuorumSettings, samples: Sequence[QuorumSample]) -> list[Picture]:
        """Latency by quorum, densities, and cumulative distributions, each with theory."""
        return quorum_pictures.pictures(settings, samples)


def _check(target: Target, quorums: Sequence[int]) -> None:
    """Raise unless the target can be measured at these quorums. Of some servers only the leader is known."""
    if len(target.nodes) > 1:
        check_target(target, quorums, "--quorums")
    elif len(quorums) > 1 and not target.abilities.quorum:
        raise Unsuitable(
            "The write quorum of this server cannot be changed by a request: set it there, and give --write-quorum too."
        )


class _Burst:
    """The load at one quorum."""

    def __init__(self, target: Target, settings: QuorumSettings, quorum: int) -> None:
        self._target = target
        self._settings = settings
        self._quorum = quorum
        puts = settings.puts()
        self._first, self._puts = puts[: settings.warm_up], puts[settings.warm_up :]
        self._written = {put.key for put in puts}
        self._origin_ms = target.now_ms()
        self._ended_ms = target.now_ms()
        self._failed_in_a_row = 0
        self.answered = 0
        self.reads: list[QuorumSample] = []

    async def warm_up(self) -> None:
        """Let connections open and caches fill."""
        async for _ in closed_loop(self._target, self._first, self._settings.concurrency):
            pass
        self._origin_ms = self._target.now_ms()

    async def write(self) -> AsyncGenerator[QuorumSample]:
        """Write all, and yield a sample of each write as it is answered."""
        readers = [asyncio.ensure_future(self._read(number)) for number in range(self._settings.readers)]
        try:
            async with aclosing(closed_loop(self._target, self._puts, self._settings.concurrency)) as answers:
                async for number, written in answers:
                    self.answered += 1
                    self._ended_ms = max(self._ended_ms, written.ended_ms)
                    yield self._sample(self._puts[number].key, written)
                    await self._check_alive(written)
        finally:
            for reader in readers:
                reader.cancel()
            await asyncio.gather(*readers, return_exceptions=True)

    async def observe(self) -> AsyncIterator[QuorumSample]:
        """Compare the replicas now, and when every copy must have arrived."""
        if len(self._target.nodes) == 1:
            return
        for sample in await self._compare(AT_ONCE):
            yield sample
        await self._wait_until(self._ended_ms + self._settings.settled_ms)
        samples = await self._compare(SETTLED)
        if any(sample.differing for sample in samples):
            await self._wait_until(self._ended_ms + self._settings.settled_ms + PATIENCE_MS)
            samples = await self._compare(SETTLED)
        for sample in samples:
            yield sample

    def _sample(self, key: str, written: Written) -> QuorumSample:
        drawn_ms = None
        if written.delays_ms is not None and len(written.delays_ms) >= self._quorum:
            drawn_ms = round(sorted(written.delays_ms.values())[self._quorum - 1], 4)
        return QuorumSample(
            kind=WRITE,
            quorum=self._quorum,
            key=key,
            begun_ms=round(written.begun_ms - self._origin_ms, 4),
            latency_ms=round(written.latency_ms, 4),
            outcome=written.outcome.value,
            drawn_ms=drawn_ms,
            server_ms=None if written.server_ms is None else round(written.server_ms, 4),
            version=written.version,
            acked_by=[ack.node for ack in written.acked_by],
            acked_ms=[round(ack.ms, 4) for ack in written.acked_by],
            detail=written.detail,
        )

    async def _check_alive(self, written: Written) -> None:
        """Stop a run whose cluster is gone, instead of noting one failure after another."""
        self._failed_in_a_row = 0 if written.outcome is Outcome.COMMITTED else self._failed_in_a_row + 1
        if self._failed_in_a_row < FAILURES_IN_A_ROW * self._settings.concurrency:
            return
        self._failed_in_a_row = 0
        if await self._target.leader() is None:
            detail = f": {written.detail}" if written.detail else "."
            raise ClusterError(f"The cluster stopped answering at write quorum {self._quorum}{detail}")

    async def _read(self, number: int) -> None:
        """Read one key after another, at one node after another, until cancelled."""
        keys = itertools.cycle(sorted(self._written))
        nodes = itertools.cycle(self._target.nodes)
        for _ in range(number):
            next(keys), next(nodes)
        for key, node in zip(keys, nodes, strict=False):
            seen = await self._target.read(node, key)
            self.reads.append(
                QuorumSample(
                    kind=READ,
                    quorum=self._quorum,
                    key=key,
                    node=node,
                    begun_ms=round(seen.begun_ms - self._origin_ms, 4),
                    latency_ms=round(seen.ended_ms - seen.begun_ms, 4),
                    outcome="answered" if seen.answered else Outcome.FAILED.value,
                    version=seen.cell.version if seen.cell else 0,
                    detail=seen.detail,
                )
            )
            if seen.ended_ms <= seen.begun_ms:
                await asyncio.sleep(0.001)  # on virtual time a read may take none, and time must go on

    async def _compare(self, moment: str) -> list[QuorumSample]:
        leader = await self._target.leader() or self._target.nodes[0]
        followers = [node for node in self._target.nodes if node != leader]
        taken_ms = self._target.now_ms()
        leading, *dumps = await asyncio.gather(*(self._ours(node) for node in (leader, *followers)))
        samples = []
        for node, cells in zip(followers, dumps, strict=True):
            states = [found.state for found in compare(leading, cells)]
            missing, older = states.count(State.MISSING), states.count(State.OLDER)
            samples.append(
                QuorumSample(
                    kind=REPLICA,
                    quorum=self._quorum,
                    node=node,
                    moment=moment,
                    begun_ms=round(taken_ms - self._origin_ms, 4),
                    latency_ms=round(self._target.now_ms() - taken_ms, 4),
                    cells=len(leading),
                    missing=missing,
                    older=older,
                    other=len(states) - missing - older,
                )
            )
        return samples

    async def _ours(self, node: str) -> dict[str, Cell]:
        """What a node has under the keys of this experiment: a running cluster may hold others."""
        cells = await self._target.dump(node)
        return {key: cell for key, cell in cells.items() if key in self._written}

    async def _wait_until(self, time_ms: float) -> None:
        await asyncio.sleep(max(0.0, time_ms - self._target.now_ms()) / 1000)
