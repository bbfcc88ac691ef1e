"""The experiment `throughput`: how many requests a second, and what happens to latency on the way there.

Closed loop: each client sends its next request when the last is answered, so more clients mean more load until the
machine is busy. Open loop: requests come at a fixed rate whatever happens, so above the capacity a queue grows.

In the simulator computing takes no time, so nothing is ever busy: what is left is concurrency against delay.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass

import msgspec
import numpy as np

from retinue.errors import SettingsError
from retinue.lab.experiments import throughput_summary
from retinue.lab.experiments.contract import Attachment, Experiment, Picture, Settings, Step, Summary, option
from retinue.lab.experiments.preparing import (
    check_at_least,
    check_quorums,
    check_target,
    choose_quorum,
    simulate_network,
    some_quorums,
)
from retinue.lab.judging.diagnosis import counted
from retinue.lab.loads import Put, closed_loop, open_loop
from retinue.lab.targets.contract import Outcome, Target

KEYS = 100
WARM_UP_S = 0.3
MAX_CLIENTS = 4096
# A run at a fixed rate keeps at most about this many answers for its quantiles.
MAX_OPEN_LOOP_WRITES = 200_000
# On virtual time a measurement ends after so many requests, but a few of each client: each costs us real time there.
MAX_VIRTUAL_REQUESTS = 1000
VIRTUAL_REQUESTS_PER_CLIENT = 8

CLOSED, OPEN = "closed", "open"
WRITE, READ = "write", "read"

Request = Callable[[], Awaitable[tuple[float, bool]]]
"""Sends one request; its latency in ms, and whether it was answered as it should be."""


@dataclass(frozen=True, kw_only=True)
class ThroughputSettings(Settings):
    """What `retinue lab throughput` can be told."""

    quorums: tuple[int, ...] = option(
        (), "write quorums, the open loop takes the middle one (default: the smallest, the middle and the largest)"
    )
    clients: tuple[int, ...] = option((1, 4, 16, 64, 256), "clients of the closed loop")
    duration_s: float = option(2.0, "how long each number of clients and each rate lasts", "s")
    fractions: tuple[float, ...] = option(
        (0.25, 0.5, 0.75, 0.9, 1.1), "rates of the open loop, as fractions of the highest rate of the closed loop"
    )
    value_bytes: int = option(100, "size of the values", "B")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_quorums(self.chosen_quorums, "--quorums", self.followers)
        check_at_least(self, duration_s=0.1, value_bytes=1)
        if not self.clients or not all(1 <= clients <= MAX_CLIENTS for clients in self.clients):
            given = ",".join(map(str, self.clients)) or "nothing"
            raise SettingsError(
                f"--clients={given} is not allowed: give numbers from 1 to {MAX_CLIENTS}, such as 1,64."
            )
        if not all(0 < fraction <= 10 for fraction in self.fractions):
            given = ",".join(f"{fraction:g}" for fraction in self.fractions)
            raise SettingsError(
                f"--fractions={given} is not allowed: give numbers above 0 and up to 10, such as 0.5,0.9."
            )

    @property
    def chosen_quorums(self) -> tuple[int, ...]:
        """The write quorums to measure, in order."""
        return self.quorums or some_quorums(self.followers)

    @property
    def open_quorum(self) -> int:
        """The write quorum of the open loop."""
        return sorted(self.chosen_quorums)[(len(self.chosen_quorums) - 1) // 2]


class LoadSample(msgspec.Struct, frozen=True, kw_only=True):
    """One measurement: all requests of one number of clients (closed loop) or one rate (open loop).

    `clients` is 0 in the open loop, `rate_per_s` 0 in the closed one, `quorum` 0 for reads, which need none. Latencies
    are of the `count` requests that succeeded, NaN-free: 0 without any; those of the open loop count from the intended
    start. `client_cpu`: what share of one processor the load generator itself used; 0 on virtual time (`virtual`).
    """

    mode: str
    kind: str
    quorum: int
    clients: int = 0
    rate_per_s: float = 0.0
    duration_s: float = 0.0
    count: int = 0
    failures: int = 0
    mean_ms: float = 0.0
    p50_ms: float = 0.0
    p95_ms: float = 0.0
    p99_ms: float = 0.0
    max_ms: float = 0.0
    client_cpu: float = 0.0
    virtual: bool = False

    @property
    def per_second(self) -> float:
        """Successful requests per second."""
        return self.count / self.duration_s


class Throughput(Experiment[ThroughputSettings, LoadSample]):
    """Closed loop by clients and quorum, open loop by rate."""

    name = "throughput"
    title = "Throughput and latency under load"
    question = "How many requests a second does the cluster take, and what does latency do on the way there?"
    settings_type = ThroughputSettings
    sample_type = LoadSample

    async def run(self, target: Target, settings: ThroughputSettings) -> AsyncIterator[Step | LoadSample | Attachment]:
        """Measure writes at each quorum, reads, then writes at fixed rates."""
        check_target(target, settings.chosen_quorums, "--quorums")
        await simulate_network(target, settings)
        requests = _Requests(target, settings)
        meter = _Meter(target, settings)
        await requests.fill()
        total = (len(settings.chosen_quorums) + 1) * len(settings.clients) + len(settings.fractions)
        done, capacity = 0, 0.0
        for quorum in (*settings.chosen_quorums, 0):
            if quorum:
                await choose_quorum(target, quorum)
            kind, request = (WRITE, requests.write) if quorum else (READ, requests.read)
            for clients in settings.clients:
                at_quorum = f", quorum {quorum}" if quorum else ""
                yield Step(done, total, f"{kind}s, {counted(clients, 'client')}{at_quorum}")
                sample = await meter.closed(request, kind, quorum, clients)
                if quorum == settings.open_quorum:
                    capacity = max(capacity, sample.per_second)
                yield sample
                done += 1
        if capacity > 0:
            await choose_quorum(target, settings.open_quorum)
            for fraction in settings.fractions:
                yield Step(done, total, f"writes at {fraction:.0%} of the highest rate")
                yield await meter.open(requests, fraction * capacity)
                done += 1
        yield Step(total, total, "done")

    def summary(self, settings: ThroughputSettings, samples: Sequence[LoadSample]) -> Summary:
        """Tables and reading."""
        return throughput_summary.summarize(settings, samples)

    def figures(self, settings: ThroughputSettings, samples: Sequence[LoadSample]) -> list[Picture]:
        """Throughput and latency over clients, latency over rate."""
        return throughput_summary.pictures(settings, samples)


class _Requests:
    """The requests that are sent: writes to a few keys in turn, and reads of these keys at all nodes in turn."""

    def __init__(self, target: Target, settings: ThroughputSettings) -> None:
        self._target = target
        # The keys of an earlier run would change nothing; in the simulator there is none, and runs shall be equal.
        fresh = "simulated" if target.abilities.virtual else uuid.uuid4().hex[:8]
        self.puts = [Put(f"lab-{fresh}-{number}", "x" * settings.value_bytes) for number in range(KEYS)]
        self._writing = itertools.cycle(self.puts)
        self._reading = itertools.cycle(self.puts)
        self._nodes = itertools.cycle(target.nodes)

    async def fill(self) -> None:
        """Write every key once, so that reads find something."""
        async with aclosing(closed_loop(self._target, self.puts, 10)) as answers:
            async for _ in answers:
                pass

    async def write(self) -> tuple[float, bool]:
        """Write the next key."""
        put = next(self._writing)
        written = await self._target.write(put.key, put.value)
        return written.latency_ms, written.outcome is Outcome.COMMITTED

    async def read(self) -> tuple[float, bool]:
        """Read the next key at the next node."""
        seen = await self._target.read(next(self._nodes), next(self._reading).key)
        return seen.ended_ms - seen.begun_ms, seen.answered


class _Meter:
    """Takes the measurements; on virtual time each is bounded by a number of requests, too."""

    def __init__(self, target: Target, settings: ThroughputSettings) -> None:
        self._target = target
        self._settings = settings
        self._virtual = target.abilities.virtual

    async def closed(self, request: Request, kind: str, quorum: int, clients: int) -> LoadSample:
        """Let so many clients send, each its next request when the last is answered."""
        most = math.inf
        if self._virtual:
            most = max(MAX_VIRTUAL_REQUESTS, clients * VIRTUAL_REQUESTS_PER_CLIENT)
        else:
            await _run_clients(request, clients, WARM_UP_S, math.inf)
        begun_ms, cpu_s = self._target.now_ms(), time.process_time()
        latencies_ms, failures = await _run_clients(request, clients, self._settings.duration_s, most)
        known = LoadSample(mode=CLOSED, kind=kind, quorum=quorum, clients=clients, failures=failures)
        return self._sample(known, latencies_ms, begun_ms, cpu_s)

    async def open(self, requests: _Requests, rate_per_s: float) -> LoadSample:
        """Write at a fixed rate."""
        most = MAX_VIRTUAL_REQUESTS if self._virtual else MAX_OPEN_LOOP_WRITES
        count = min(max(1, round(rate_per_s * self._settings.duration_s)), most)
        puts = [requests.puts[number % KEYS] for number in range(count)]
        latencies_ms: list[float] = []
        begun_ms, cpu_s = self._target.now_ms(), time.process_time()
        async with aclosing(open_loop(self._target, puts, rate_per_s)) as answers:
            async for _, written in answers:
                if written.outcome is Outcome.COMMITTED:
                    latencies_ms.append(written.latency_ms)
        quorum, failures = self._settings.open_quorum, count - len(latencies_ms)
        known = LoadSample(mode=OPEN, kind=WRITE, quorum=quorum, rate_per_s=round(rate_per_s, 2), failures=failures)
        return self._sample(known, latencies_ms, begun_ms, cpu_s)

    def _sample(self, known: LoadSample, latencies_ms: list[float], begun_ms: float, cpu_s: float) -> LoadSample:
        """What was measured since `begun_ms` on the target's clock and `cpu_s` of processor time."""
        duration_s, cpu_s = (self._target.now_ms() - begun_ms) / 1000, time.process_time() - cpu_s
        found = np.array(latencies_ms or [0.0])
        p50_ms, p95_ms, p99_ms = (round(float(value), 4) for value in np.quantile(found, (0.5, 0.95, 0.99)))
        return msgspec.structs.replace(
            known,
            duration_s=round(duration_s, 6),
            count=len(latencies_ms),
            mean_ms=round(float(found.mean()), 4),
            p50_ms=p50_ms,
            p95_ms=p95_ms,
            p99_ms=p99_ms,
            max_ms=round(float(found.max()), 4),
            client_cpu=0.0 if self._virtual else round(cpu_s / duration_s, 3),
            virtual=self._virtual,
        )


async def _run_clients(request: Request, clients: int, duration_s: float, most: float) -> tuple[list[float], int]:
    """Latencies in ms, and failures, of so many clients that send for so long, but not more than `most` requests."""
    loop = asyncio.get_running_loop()
    until_s = loop.time() + duration_s
    latencies_ms: list[float] = []
    sent = failures = 0

    async def client() -> None:
        nonlocal sent, failures
        while loop.time() < until_s and sent < most:
            sent += 1
            latency_ms, succeeded = await request()
            if succeeded:
                latencies_ms.append(latency_ms)
            else:
                failures += 1

    await asyncio.gather(*(client() for _ in range(clients)))
    return latencies_ms, failures
