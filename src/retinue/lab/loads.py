"""Load on a target: a closed loop of clients, and an open loop that starts writes whether or not the others are done.

Both are asynchronous generators and leave nothing running when they are closed (`contextlib.aclosing`), cancelled, or
at their end. Times come from the target's clock, so both work on virtual time.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import AsyncGenerator, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import msgspec

from retinue.errors import SettingsError
from retinue.lab.targets.contract import Target, Written

MS = 1000.0
IN_FLIGHT_LIMIT = 800

Numbered = tuple[int, Written]


class Put(NamedTuple):
    """A write to send."""

    key: str
    value: str


def key_choices(keys: int, writes: int, seed: int, *, tag: str = "") -> Iterator[Put]:
    """So many writes to keys that are chosen evenly: the same for the same seed. `tag` begins every value.

    No value occurs twice. Raises `SettingsError` for fewer than one key.
    """
    if keys < 1:
        raise SettingsError(f"{keys} keys are not possible: give at least 1.")
    return _choose(keys, writes, random.Random(f"{seed}/keys"), tag)


def _choose(keys: int, writes: int, dice: random.Random, tag: str) -> Iterator[Put]:
    for number in range(writes):
        yield Put(f"key{dice.randrange(keys)}", f"{tag}value{number}")


async def closed_loop(
    target: Target, requests: Iterable[Put], concurrency: int, *, timeout_ms: float | None = None
) -> AsyncGenerator[Numbered, None]:
    """Let `concurrency` clients write, each sending its next request when the last is answered.

    Yields each answer with the position of its request, in the order of completion.
    """
    if concurrency < 1:
        raise SettingsError(f"{concurrency} clients are not possible: give at least 1.")
    waiting = enumerate(requests)
    answers: asyncio.Queue[Numbered | None] = asyncio.Queue()

    async def work() -> None:
        try:
            for number, put in waiting:
                answers.put_nowait((number, await target.write(put.key, put.value, timeout_ms=timeout_ms)))
        finally:
            answers.put_nowait(None)

    clients = [asyncio.create_task(work()) for _ in range(concurrency)]
    try:
        working = concurrency
        while working:
            answer = await answers.get()
            if answer is not None:
                yield answer
                continue
            working -= 1
            _raise_first_error(clients)
    finally:
        await _end(clients)


@dataclass
class Backlog:
    """What became of the schedule of an open loop.

    `most_in_flight`: the most writes that were under way at once. `held_back`: writes that began late because
    `in_flight_limit` of them were under way. `latest_ms`: the most that a write began after its intended start.
    """

    most_in_flight: int = 0
    held_back: int = 0
    latest_ms: float = 0.0


async def open_loop(
    target: Target,
    requests: Iterable[Put],
    rate_per_s: float,
    *,
    poisson_seed: int | None = None,
    in_flight_limit: int = IN_FLIGHT_LIMIT,
    backlog: Backlog | None = None,
    timeout_ms: float | None = None,
) -> AsyncGenerator[Numbered, None]:
    """Start writes at a fixed rate, or as a Poisson process with `poisson_seed`, however long the answers take.

    Yields as `closed_loop` does. `Written.begun_ms` is the intended start, so waiting counts as latency. No write is
    left out: beyond `in_flight_limit` the next one waits for a free place, which `backlog` tells. Event loops wake up
    within about a millisecond; the intended starts are computed from the first one, so that this does not add up.
    """
    if not (math.isfinite(rate_per_s) and rate_per_s > 0):
        raise SettingsError(f"A rate of {rate_per_s:g} writes a second is not possible: give a number above 0.")
    run = _OpenLoop(target, backlog or Backlog(), in_flight_limit, timeout_ms)
    dispatcher = asyncio.create_task(run.dispatch(requests, _starts_ms(rate_per_s, poisson_seed)))
    try:
        while (answer := await run.answers.get()) is not None:
            yield answer
        _raise_first_error([dispatcher])
    finally:
        await _end([dispatcher])


def _starts_ms(rate_per_s: float, poisson_seed: int | None) -> Iterator[float]:
    """The intended starts, in ms after the first."""
    gap_ms = MS / rate_per_s
    if poisson_seed is None:
        number = 0
        while True:
            yield number * gap_ms
            number += 1
    dice = random.Random(f"{poisson_seed}/starts")
    start_ms = 0.0
    while True:
        yield start_ms
        start_ms += dice.expovariate(1 / gap_ms)


class _OpenLoop:
    """The writes under way. `answers` ends with `None`."""

    def __init__(self, target: Target, backlog: Backlog, in_flight_limit: int, timeout_ms: float | None) -> None:
        self.answers: asyncio.Queue[Numbered | None] = asyncio.Queue()
        self._target = target
        self._backlog = backlog
        self._places = asyncio.Semaphore(max(in_flight_limit, 1))
        self._timeout_ms = timeout_ms
        self._in_flight = 0

    async def dispatch(self, requests: Iterable[Put], starts_ms: Iterator[float]) -> None:
        target, backlog = self._target, self._backlog
        first_ms = target.now_ms()
        try:
            async with asyncio.TaskGroup() as writes:
                for (number, put), start_ms in zip(enumerate(requests), starts_ms, strict=False):
                    intended_ms = first_ms + start_ms
                    wait_ms = intended_ms - target.now_ms()
                    if wait_ms > 0:
                        await asyncio.sleep(wait_ms / MS)
                    backlog.held_back += self._places.locked()
                    await self._places.acquire()
                    backlog.latest_ms = max(backlog.latest_ms, target.now_ms() - intended_ms)
                    self._in_flight += 1
                    backlog.most_in_flight = max(backlog.most_in_flight, self._in_flight)
                    writes.create_task(self._write(number, put, intended_ms))
        except ExceptionGroup as group:
            raise group.exceptions[0] from None
        finally:
            self.answers.put_nowait(None)

    async def _write(self, number: int, put: Put, intended_ms: float) -> None:
        try:
            written = await self._target.write(put.key, put.value, timeout_ms=self._timeout_ms)
        finally:
            self._in_flight -= 1
            self._places.release()
        self.answers.put_nowait((number, msgspec.structs.replace(written, begun_ms=intended_ms)))


def _raise_first_error(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        if task.done() and not task.cancelled() and (error := task.exception()) is not None:
            raise error


async def _end(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
