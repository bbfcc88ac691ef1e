"""A cluster of processes that is started on this machine for one experiment, and goes with it."""

from __future__ import annotations

import asyncio
import shutil
import signal
import tempfile
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager, closing
from pathlib import Path
from typing import TypeVar

import msgspec

from retinue.cluster import Cluster
from retinue.errors import RetinueError, SettingsError
from retinue.lab.connection import Servers
from retinue.lab.experiments.contract import Settings
from retinue.lab.targets import recognition
from retinue.lab.targets.contract import Abilities, NetworkConditions
from retinue.lab.targets.dialects import Spoken
from retinue.lab.targets.running import Found, RunningCluster, find_cluster
from retinue.network import LARGEST_DRAW, Conditions
from retinue.ports import free_ports
from retinue.settings import DEFAULT_WRITE_QUORUM

DEADLINE_MS = 4000.0
"""The deadline of a write beyond the largest simulated delay."""

Result = TypeVar("Result")


class LocalTarget(RunningCluster):
    """Local processes, which can be killed, paused, cut off and started. `local_cluster` makes one.

    `worker` has one thread, in which everything that happens to the processes happens one after another.
    """

    def __init__(self, cluster: Cluster, worker: ThreadPoolExecutor, found: Found, spoken: Spoken, seed: int) -> None:
        super().__init__(found, spoken, seed=seed)
        self._cluster = cluster
        self._worker = worker

    @property
    def description(self) -> str:
        """What is measured, one line."""
        memory = self._cluster.settings["memory"] == "true"
        return f"{len(self._pools)} local processes ({self._size()}), {'in memory' if memory else 'synced to disk'}"

    @property
    def abilities(self) -> Abilities:
        """Everything but virtual time."""
        return msgspec.structs.replace(super().abilities, faults=True)

    async def set_network(self, conditions: NetworkConditions) -> None:
        """Simulate this network, also on nodes that are started later."""
        await super().set_network(conditions)
        self._cluster.settings.update(_as_settings(conditions))

    async def kill(self, node: str) -> None:
        """End a node's process at once."""
        await self._do(lambda: self._cluster.kill(node))

    async def pause(self, node: str) -> None:
        """Freeze a node's process."""
        await self._do(lambda: self._cluster.pause(node))

    async def resume(self, node: str) -> None:
        """Let a paused node go on."""
        await self._do(lambda: self._cluster.resume(node))

    async def start(self, node: str) -> None:
        """Start a killed node on its data."""
        await self._do(lambda: self._cluster.launch([node]))

    async def cut_off(self, node: str) -> None:
        """Let nothing pass between this node and all others."""
        await self._do(lambda: self._cluster.cut_off(node))

    async def heal(self, node: str) -> None:
        """End `cut_off`."""
        await self._do(lambda: self._cluster.heal(node))

    async def _do(self, action: Callable[[], object]) -> None:
        await asyncio.get_running_loop().run_in_executor(self._worker, action)


@asynccontextmanager
async def local_cluster(settings: Settings, data_parent: Path | None = None) -> AsyncIterator[LocalTarget]:
    """Start a cluster as `settings` say, in a new folder below `data_parent` (the current one); it ends with the block.

    However the block ends (SIGTERM ends it as Ctrl-C does), all processes are stopped and the folder is removed: that
    happens in a thread of its own, which even an interrupted program waits for. Raises `SettingsError` and
    `ClusterError` when it cannot be started.
    """
    cluster = _new_cluster(settings, Path.cwd() if data_parent is None else data_parent)
    worker = ThreadPoolExecutor(1, thread_name_prefix="local-cluster")
    signals = _like_interrupts()
    try:
        await asyncio.get_running_loop().run_in_executor(worker, cluster.start)
        with closing(Servers()) as servers:
            found = await find_cluster(servers, cluster.url("leader"))
            spoken = await recognition.recognise(found.pools["leader"])
            yield LocalTarget(cluster, worker, found, spoken, settings.seed)
    finally:
        ended = worker.submit(_remove, cluster)
        worker.shutdown(wait=False)
        with signals:
            await asyncio.shield(asyncio.wrap_future(ended))


def _like_interrupts() -> ExitStack:
    """Let SIGTERM and a closed terminal end the program as Ctrl-C does, until the stack is closed."""
    stack = ExitStack()
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGHUP):
            before = signal.signal(number, lambda *_: signal.raise_signal(signal.SIGINT))
            stack.callback(signal.signal, number, before)
    return stack


def _new_cluster(settings: Settings, parent: Path) -> Cluster:
    """A cluster in a new folder; it does not run yet."""
    ports = free_ports(settings.followers + 1)
    try:
        parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix="retinue-lab-", dir=parent))
    except OSError as error:
        raise SettingsError(
            f"The nodes cannot have their data in {parent} ({error.strerror}): name a directory that you may write to."
        ) from None
    try:
        return Cluster(folder, ports, _shared_settings(settings))
    except RetinueError:
        folder.rmdir()
        raise


def _remove(cluster: Cluster) -> None:
    try:
        cluster.stop()
    finally:
        shutil.rmtree(cluster.data_dir, ignore_errors=True)


def _shared_settings(settings: Settings) -> dict[str, str]:
    conditions = Conditions(settings.distribution, settings.min_delay_ms, settings.max_delay_ms)
    network = NetworkConditions(
        distribution=settings.distribution, min_ms=settings.min_delay_ms, max_ms=settings.max_delay_ms
    )
    return _as_settings(network) | {
        "memory": str(settings.memory).lower(),
        "seed": str(settings.seed),
        "write_quorum": str(min(DEFAULT_WRITE_QUORUM, settings.followers)),
        "write_timeout_ms": str(DEADLINE_MS + conditions.quantile(LARGEST_DRAW)),
        "min_free_bytes": "0",
        "max_connections": "5000",
    }


def _as_settings(conditions: NetworkConditions) -> dict[str, str]:
    return {
        "delay_distribution": conditions.distribution,
        "min_delay_ms": str(conditions.min_ms),
        "max_delay_ms": str(conditions.max_ms),
        "in_order_delivery": str(conditions.in_order).lower(),
    }
