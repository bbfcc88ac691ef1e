"""Scenarios on a simulated cluster."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from retinue.lab.targets.contract import NetworkConditions, Target, Written
from retinue.lab.targets.simulated import SimulatedTarget, run_virtually

FOLLOWERS = 5
PLAIN = NetworkConditions()

T = TypeVar("T")


def on_target(
    scenario: Callable[[SimulatedTarget], Awaitable[T]],
    network: NetworkConditions = PLAIN,
    *,
    seed: int = 1,
    followers: int = FOLLOWERS,
    write_quorum: int | None = None,
) -> T:
    """Run a scenario on a new simulated cluster."""

    async def main() -> T:
        async with SimulatedTarget(followers, seed, network, write_quorum=write_quorum) as target:
            return await scenario(target)

    return run_virtually(main())


async def write_all(target: Target, writes: int, concurrency: int = 10) -> list[Written]:
    """So many writes on ten keys in a closed loop."""
    numbers = iter(range(writes))
    answers: list[Written] = []

    async def client() -> None:
        for number in numbers:
            answers.append(await target.write(f"key{number % 10}", f"value {number}"))  # noqa: PERF401

    async with asyncio.TaskGroup() as clients:
        for _ in range(concurrency):
            clients.create_task(client())
    return answers
