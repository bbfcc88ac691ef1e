"""A cluster that is started for an experiment: its faults, and that nothing is left of it."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import pytest

from retinue.errors import ClusterError
from retinue.lab.experiments.contract import Settings
from retinue.lab.targets.contract import NetworkConditions, Outcome, Target
from retinue.lab.targets.local import LocalTarget, local_cluster

T = TypeVar("T")


def local(parent: Path, scenario: Callable[[LocalTarget], Awaitable[T]], **settings: object) -> T:
    async def run() -> T:
        chosen = Settings(followers=2, memory=True, **settings)  # type: ignore[arg-type]
        async with local_cluster(chosen, parent) as target:
            return await scenario(target)

    return asyncio.run(run())


def left_of_clusters_in(folder: Path) -> list[str]:
    """The processes that have this folder in their environment, and what is in it."""
    left = []
    for file in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            left += [str(file)] if str(folder).encode() in file.read_bytes() else []
    return left + [str(path) for path in folder.iterdir()]


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    for _ in range(1000):
        if await condition():
            return
        await asyncio.sleep(0.02)
    raise AssertionError("it did not come true")


def test_faults_of_a_cluster_of_its_own(tmp_path: Path) -> None:
    async def scenario(target: LocalTarget) -> None:
        assert target.description == "3 local processes (leader and 2 followers), in memory"
        assert target.abilities.faults
        await target.set_quorum(1)
        await target.set_network(NetworkConditions(distribution="fixed", max_ms=5))

        await target.pause("follower1")
        await target.cut_off("follower2")
        alone = await target.write("k", "alone", timeout_ms=300)
        assert alone.outcome in (Outcome.UNKNOWN, Outcome.REFUSED)
        await target.resume("follower1")
        await target.heal("follower2")
        await until(lambda: committed(target))

        await target.kill("leader")
        assert await target.leader() is None
        refused = await target.write("k", "nobody")
        assert (refused.outcome, refused.detail) == (Outcome.REFUSED, "leader did not answer: Connection refused.")
        await target.promote("follower1")
        written = await target.write("k", "moved")
        assert written.outcome is Outcome.COMMITTED, written
        assert await target.leader() == "follower1"
        assert set((written.delays_ms or {}).values()) == {5.0}

        await target.start("leader")
        await until(lambda: has(target, "leader", "moved"))
        with pytest.raises(ClusterError, match="There is no node x"):
            await target.kill("x")

    local(tmp_path, scenario)
    assert left_of_clusters_in(tmp_path) == []


async def committed(target: Target) -> bool:
    return (await target.write("k", "again")).outcome is Outcome.COMMITTED


async def has(target: Target, node: str, value: str) -> bool:
    cell = (await target.read(node, "k")).cell
    return cell is not None and cell.value == value


def test_a_cluster_of_its_own_has_the_network_of_the_settings(tmp_path: Path) -> None:
    async def scenario(target: LocalTarget) -> NetworkConditions | None:
        return target.network

    settings = {"distribution": "exponential", "min_delay_ms": 1.0, "max_delay_ms": 3.0}
    expected = NetworkConditions(distribution="exponential", min_ms=1, max_ms=3)
    assert local(tmp_path, scenario, **settings) == expected


@pytest.mark.parametrize("patience_s", [0.05, 30.0], ids=["while it starts", "while it runs"])
def test_nothing_is_left_of_a_cluster_whose_experiment_is_cancelled(tmp_path: Path, patience_s: float) -> None:
    async def experiment() -> None:
        async with local_cluster(Settings(followers=2, memory=True), tmp_path):
            running.set()
            await asyncio.sleep(60)

    async def run() -> None:
        task = asyncio.create_task(experiment())
        await asyncio.wait([asyncio.create_task(running.wait())], timeout=patience_s)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    running = asyncio.Event()
    asyncio.run(run())
    assert running.is_set() == (patience_s > 1)
    assert left_of_clusters_in(tmp_path) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_nothing_is_left_of_a_cluster_whose_program_is_told_to_end(tmp_path: Path, number: signal.Signals) -> None:
    before = signal.getsignal(number)

    async def told_to_end(_: LocalTarget) -> None:
        signal.raise_signal(number)
        await asyncio.sleep(60)

    with pytest.raises(KeyboardInterrupt):
        local(tmp_path, told_to_end)
    assert left_of_clusters_in(tmp_path) == []
    assert signal.getsignal(number) is before
