"""From what the user asked for to a target: simulated, a running server, or a cluster started for the experiment."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path

from retinue import tokens
from retinue.errors import SettingsError
from retinue.lab.connection import Servers
from retinue.lab.experiments.contract import Settings
from retinue.lab.targets import recognition
from retinue.lab.targets.contract import NetworkConditions, Target
from retinue.lab.targets.http import HttpTarget
from retinue.lab.targets.local import local_cluster
from retinue.lab.targets.running import RunningCluster, find_cluster
from retinue.lab.targets.simulated import SimulatedTarget


@dataclass(frozen=True, kw_only=True)
class Where:
    """Which cluster to measure; nothing given means one that is started for the experiment.

    `url` is the address of a running server, `followers` those of its followers where it does not tell them (or where
    they have others from here), `dialect` one of `dialects.NAMES` where it cannot be told by asking, `write_quorum` the
    one that a server of somebody else is configured to. `token` is taken from `RETINUE_TOKEN` when it is `None`.
    `data_parent`: where the nodes of a started cluster get their folder, the current directory when it is `None`.
    """

    url: str | None = None
    followers: tuple[str, ...] = ()
    dialect: str | None = None
    simulated: bool = False
    token: str | None = None
    write_quorum: int | None = None
    data_parent: Path | None = None


@asynccontextmanager
async def open_target(where: Where, settings: Settings) -> AsyncIterator[Target]:
    """The target that `where` names, until the block ends. A running cluster gets back the settings that it had.

    A simulated one needs the event loop of `simulated.run_virtually`. Raises `SettingsError` for what contradicts
    itself or is no address, `Unreachable` when nobody answers, `ClusterError`, `NoLeader` and `Unauthorized` for a
    cluster that cannot be measured.
    """
    _check(where)
    if where.simulated:
        network = NetworkConditions(
            distribution=settings.distribution, min_ms=settings.min_delay_ms, max_ms=settings.max_delay_ms
        )
        async with SimulatedTarget(settings.followers, settings.seed, network) as simulated:
            yield simulated
    elif where.url is None:
        async with local_cluster(settings, where.data_parent) as started:
            yield started
    else:
        token = tokens.from_environment() if where.token is None else where.token
        with closing(Servers(token)) as servers:
            target = await _connect(servers, where, where.url, settings.seed)
            try:
                yield target
            finally:
                if isinstance(target, RunningCluster):
                    await target.restore()


def _check(where: Where) -> None:
    if where.simulated and where.url is not None:
        raise SettingsError(f"--simulated and --url={where.url} exclude each other: give one of them.")
    if where.url is None and (where.followers or where.dialect is not None):
        option = "--followers" if where.followers else "--dialect"
        raise SettingsError(f"{option} is about a running server: give its address with --url too.")


async def _connect(servers: Servers, where: Where, url: str, seed: int) -> HttpTarget:
    health = await recognition.ask(servers.at(url), "/health")
    if not recognition.is_retinue(health):
        return await HttpTarget.connect(
            servers, url, where.followers, dialect=where.dialect, write_quorum=where.write_quorum
        )
    spoken = await recognition.recognise(servers.at(url), where.dialect)
    return RunningCluster(await find_cluster(servers, url, where.followers), spoken, seed=seed)
