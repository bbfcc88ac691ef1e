"""Opening a target: what cannot be opened is said in one sentence, with the right exit code."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from retinue.call import call
from retinue.cluster import Cluster
from retinue.errors import ClusterError, RetinueError, SettingsError, Unreachable
from retinue.lab.experiments.contract import Settings
from retinue.lab.targets.contract import NetworkConditions
from retinue.lab.targets.opening import Where, open_target
from retinue.lab.targets.simulated import run_virtually
from retinue.ports import free_ports
from retinue.processes import spawn
from tests.cluster.workload import wait_until
from tests.lab.serving import serving, store_routes


def refused(where: Where) -> RetinueError:
    async def run() -> None:
        async with open_target(where, Settings()):
            pass

    with pytest.raises(RetinueError) as caught:
        asyncio.run(run())
    return caught.value


@pytest.mark.parametrize(
    ("where", "error", "sentence"),
    [
        (Where(url="nonsense://x"), SettingsError, "'nonsense://x' is not the address of a server"),
        (Where(url="http://127.0.0.1:1", token="a\nb"), SettingsError, "RETINUE_TOKEN"),
        (Where(url="http://127.0.0.1:1", simulated=True), SettingsError, "exclude each other"),
        (Where(followers=("http://127.0.0.1:1",)), SettingsError, "--followers is about a running server"),
        (Where(dialect="set"), SettingsError, "--dialect is about a running server"),
        (Where(data_parent=Path("/proc/no")), SettingsError, "The nodes cannot have their data in /proc/no"),
    ],
    ids=["address", "token", "two places", "followers alone", "dialect alone", "folder"],
)
def test_what_is_asked_for_is_not_possible(where: Where, error: type[RetinueError], sentence: str) -> None:
    told = refused(where)
    assert isinstance(told, error)
    assert sentence in told.detail
    assert told.exit_code == 2


def test_nobody_listens() -> None:
    url = f"http://127.0.0.1:{free_ports(1)[0]}"
    told = refused(Where(url=url))
    assert isinstance(told, Unreachable)
    assert told.detail == f"No server answers at {url} (Connection refused): start it, or give another address."
    assert told.exit_code == 4


def test_a_follower_does_not_listen() -> None:
    follower = f"http://127.0.0.1:{free_ports(1)[0]}"
    routes = store_routes("POST /write", "GET /read", "GET /dump")
    with serving(routes) as url:
        assert f"No server answers at {follower}" in refused(Where(url=url, followers=(follower,))).detail


def test_a_running_cluster_gets_back_its_quorum_and_its_network(tmp_path: Path) -> None:
    async def experiment(url: str) -> None:
        async with open_target(Where(url=url), Settings()) as target:
            await target.set_quorum(1)
            await target.set_network(NetworkConditions(distribution="fixed", max_ms=7.0, in_order=True))
            raise ClusterError("The experiment ends half-way.")

    settings = {"min_free_bytes": "0", "memory": "true", "write_quorum": "2", "max_delay_ms": "3"}
    with Cluster(tmp_path, free_ports(3), settings) as cluster:
        before = cluster.request("leader", "GET", "/config").json()
        with pytest.raises(ClusterError, match="half-way"):
            asyncio.run(experiment(cluster.url("follower1")))
        assert cluster.request("leader", "GET", "/config").json() == before


def test_followers_whose_names_are_not_known_here_are_asked_for(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    options = ["--port", str(port), "--write-quorum", "1", "--memory", "--role", "leader"]
    command = [sys.executable, "-m", "retinue", "serve", *options, "--followers", "http://follower1.invalid:8001"]
    process = spawn(command, dict(os.environ), tmp_path / "log")
    try:
        wait_until(lambda: answers(url), "the leader answers")
        told = refused(Where(url=url))
    finally:
        process.send(signal.SIGTERM)
        assert process.wait(10)
    assert "The cluster has follower1 at http://follower1.invalid:8001, a name that is not known here" in told.detail
    assert told.exit_code == 1


def answers(url: str) -> bool:
    try:
        return call(url, "GET", "/leader").status == 200
    except Unreachable:
        return False


def test_a_simulated_target_has_the_network_of_the_settings() -> None:
    async def run() -> tuple[str, NetworkConditions | None]:
        async with open_target(Where(simulated=True), Settings(followers=2, max_delay_ms=7.0)) as target:
            return target.description, target.network

    assert run_virtually(run()) == ("3 simulated nodes on virtual time", NetworkConditions(max_ms=7.0))
