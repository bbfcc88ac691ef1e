"""Targets over HTTP: a real cluster, one started for the experiment, and servers of somebody else."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from retinue import tokens
from retinue.cluster import Cluster
from retinue.errors import ClusterError, NoLeader, RetinueError, SettingsError, Unauthorized
from retinue.lab.experiments.contract import Settings
from retinue.lab.targets.contract import Cell, NetworkConditions, Outcome, Target, Unsuitable, Written
from retinue.lab.targets.opening import Where, open_target
from retinue.ports import free_ports
from tests.lab.serving import rude_server, serving, store_routes

T = TypeVar("T")

QUIET = NetworkConditions()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A leader and two followers in memory; a test leaves the first node leading, at quorum 1, without delays."""
    settings = {"memory": "true", "write_quorum": "1", "min_free_bytes": "0"}
    with Cluster(tmp_path_factory.mktemp("nodes"), free_ports(3), settings) as started:
        yield started


def on(where: Where, scenario: Callable[[Target], Awaitable[T]], *, followers: int = 2) -> T:
    """Do this with a target."""

    async def run() -> T:
        async with open_target(where, Settings(followers=followers, memory=True)) as target:
            return await scenario(target)

    return asyncio.run(run())


async def nothing(_: Target) -> None:
    """Opening it is all."""


# --- a running cluster ---


@pytest.mark.parametrize("entrance", ["leader", "follower2"])
def test_a_cluster_is_found_through_any_of_its_nodes(cluster: Cluster, entrance: str) -> None:
    async def look(target: Target) -> tuple[str, ...]:
        assert target.description == f"retinue cluster at {cluster.url('leader')}, leader and 2 followers"
        assert target.network == QUIET
        assert target.abilities.quorum
        assert target.abilities.network
        assert target.abilities.sessions
        assert not target.abilities.faults
        assert await target.leader() == "leader"
        return target.nodes

    assert on(Where(url=cluster.url(entrance)), look) == ("leader", "follower1", "follower2")


def test_followers_that_are_given_are_the_ones_that_are_asked(cluster: Cluster) -> None:
    async def names(target: Target) -> tuple[str, ...]:
        return target.nodes

    where = Where(url=cluster.url("leader"), followers=(cluster.url("follower2"),))
    assert on(where, names) == ("leader", "follower2")


@pytest.mark.parametrize("dialect", [None, "set", "write"])
def test_writes_and_reads(cluster: Cluster, dialect: str | None) -> None:
    async def use(target: Target) -> None:
        await target.set_quorum(2)
        written = await target.write("a/b é", "blue", timeout_ms=20_000, request_id=f"first-{dialect}")
        again = await target.write("a/b é", "blue", timeout_ms=20_000, request_id=f"first-{dialect}")
        assert (written.outcome, written.detail) == (Outcome.COMMITTED, "")
        assert written.version == again.version > 0
        assert {name for name, _ in written.acked_by} == {"follower1", "follower2"}
        assert written.server_ms is not None
        assert 0 < written.server_ms <= written.latency_ms
        for node in target.nodes:
            seen = await target.read(node, "a/b é", session=written.session)
            assert seen.cell == Cell("blue", written.version), seen
            assert (await target.dump(node))["a/b é"] == Cell("blue", written.version)
        strong = await target.read("leader", "a/b é", level="strong")
        assert strong.cell == Cell("blue", written.version)
        assert not (await target.read("follower1", "a/b é", level="strong")).answered
        deleted = await target.delete("a/b é")
        absent = await target.delete("a/b é")
        assert (deleted.outcome, deleted.version) == (Outcome.COMMITTED, written.version + 1)
        assert (absent.outcome, absent.version) == (Outcome.COMMITTED, 0)
        gone = await target.read("follower1", "a/b é", session=deleted.session)
        assert (gone.answered, gone.cell) == (True, None)
        await target.set_quorum(1)

    on(Where(url=cluster.url("leader"), dialect=dialect), use)


def test_a_refused_write_says_why(cluster: Cluster) -> None:
    async def use(target: Target) -> list[Written]:
        return [await target.write("", "x"), await target.write("k", "\ud800"), await target.write("k" * 2000, "x")]

    for written in on(Where(url=cluster.url("leader")), use):
        assert written.outcome is Outcome.REFUSED
        assert written.detail


def test_the_same_seed_draws_the_same_delays(cluster: Cluster) -> None:
    law = NetworkConditions(min_ms=1, max_ms=9)

    async def delays(target: Target) -> list[object]:
        drawn: list[object] = []
        for _ in range(2):
            await target.set_network(law)
            assert target.network == law
            drawn.append([(await target.write("k", "v")).delays_ms for _ in range(3)])
        await target.set_network(QUIET)
        return drawn

    first, second = on(Where(url=cluster.url("leader")), delays)
    assert first == second
    assert isinstance(first, list)
    assert all(1 <= delay <= 9 for drawn in first for delay in drawn.values())


def test_a_quorum_above_the_followers(cluster: Cluster) -> None:
    with pytest.raises(SettingsError, match="write quorum 3 is not possible: the cluster has 2 followers"):
        on(Where(url=cluster.url("leader")), lambda target: target.set_quorum(3))


def test_a_network_that_cannot_be(cluster: Cluster) -> None:
    with pytest.raises(RetinueError, match="smallest delay") as refused:
        on(Where(url=cluster.url("leader")), lambda target: target.set_network(NetworkConditions(min_ms=2, max_ms=1)))
    assert refused.value.exit_code == 2


def test_writes_follow_the_leader(cluster: Cluster) -> None:
    async def use(target: Target) -> None:
        await target.write("k", "before")
        async with open_target(Where(url=cluster.url("follower1")), Settings()) as other:
            await other.promote("follower1")
            while (moved := await target.write("k", "after")).outcome is not Outcome.COMMITTED:
                # The old leader may not have heard of the new one yet, or hear of it while it has the write.
                assert moved.outcome in (Outcome.REFUSED, Outcome.UNKNOWN)
                await asyncio.sleep(0.02)
            assert await target.leader() == "follower1"
            await target.set_quorum(2)
            await other.promote("leader")
            await target.set_quorum(1)

    on(Where(url=cluster.url("leader")), use)


def test_faults_are_for_whoever_started_the_cluster(cluster: Cluster) -> None:
    async def use(target: Target) -> None:
        for fault in (target.kill, target.pause, target.resume, target.start, target.cut_off, target.heal):
            with pytest.raises(Unsuitable, match="Only who started this cluster can"):
                await fault("follower1")
        with pytest.raises(ClusterError, match="There is no node x: the nodes are leader, follower1, follower2"):
            await target.dump("x")
        assert "There is no node x" in (await target.read("x", "k")).detail

    on(Where(url=cluster.url("leader")), use)


def test_a_client_that_may_only_write_asks_for_acknowledgements(tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    write_token, admin_token = tokens.create(file, "write"), tokens.create(file, "admin")
    settings = {"memory": "true", "write_quorum": "1", "token_file": str(file)}

    async def use(target: Target) -> None:
        assert not target.abilities.network
        await target.set_network(QUIET)
        with pytest.raises(Unsuitable, match=r"RETINUE_TOKEN, or start the nodes .*MIN_DELAY, MAX_DELAY"):
            await target.set_network(NetworkConditions(max_ms=5))
        for quorum in (0, 1, 2):
            await target.set_quorum(quorum)
            written = await target.write("k", str(quorum))
            assert written.outcome is Outcome.COMMITTED, written
            assert len(written.acked_by) >= quorum
        assert "asked for with each write" in target.description

    async def change(target: Target) -> None:
        assert target.abilities.network
        await target.set_quorum(2)

    with Cluster(tmp_path / "nodes", free_ports(3), settings) as cluster:
        url = cluster.url("leader")
        with pytest.raises(Unauthorized, match="needs a token"):
            on(Where(url=url, token=""), nothing)
        on(Where(url=url, token=write_token), use)
        on(Where(url=url, token=admin_token), change)
        cluster.stop(["leader"])
        with pytest.raises(NoLeader, match=r"No node of the cluster at .* leads"):
            on(Where(url=cluster.url("follower1"), token=admin_token), nothing)


# --- a server of somebody else ---


def test_a_store_of_somebody_else() -> None:
    routes = store_routes("POST /set", "GET /get/{key}", "GET /all", delete="DELETE /delete/{key}", wrapped="data")

    async def use(target: Target) -> None:
        assert target.nodes == ("leader", "follower1")
        assert "dialect set (POST /set, GET /get/{key}, DELETE /delete/{key}, GET /all)" in target.description
        assert target.description.endswith("with 1 follower, write quorum 1 as configured there")
        assert not target.abilities.quorum
        assert not target.abilities.versions
        assert target.abilities.deletes
        written = await target.write("a b", "blue", timeout_ms=5000, request_id="x")
        assert (written.outcome, written.version, written.acked_by) == (Outcome.COMMITTED, 0, ())
        assert (await target.read("leader", "a b", session="1.1", level="strong")).cell == Cell("blue", 0)
        assert await target.dump("leader") == {"a b": Cell("blue", 0)}
        assert await target.dump("follower1") == {}
        assert (await target.delete("a b")).outcome is Outcome.COMMITTED
        assert (await target.read("leader", "a b")).cell is None
        await target.set_quorum(1)
        with pytest.raises(Unsuitable, match=r"write quorum .* cannot be set to 2 from here"):
            await target.set_quorum(2)
        with pytest.raises(Unsuitable, match="MIN_DELAY and MAX_DELAY"):
            await target.set_network(QUIET)
        with pytest.raises(Unsuitable, match="can promote follower1"):
            await target.promote("follower1")
        assert target.network is None

    with serving(routes) as url, serving(store_routes("POST /set", "GET /get/{key}", "GET /all")) as follower:
        on(Where(url=url, followers=(follower,), write_quorum=1), use)


def test_what_a_server_tells_of_versions_is_noticed() -> None:
    routes = {
        "POST /write": lambda *_: (200, {"version": 4}),
        "GET /read": lambda *_: (200, {"value": "x", "version": 4}),
        "GET /dump": lambda *_: (200, {}),
    }

    async def use(target: Target) -> tuple[bool, bool]:
        before = target.abilities.versions
        await target.write("k", "x")
        return before, target.abilities.versions

    with serving(routes) as url:
        assert on(Where(url=url), use) == (False, True)


def test_a_server_that_fails_leaves_the_outcome_open() -> None:
    routes = {"POST /write": lambda *_: (500, {"error": "boom"}), "GET /read": lambda *_: (500, {"error": "boom"})}

    async def use(target: Target) -> None:
        written = await target.write("k", "v")
        assert (written.outcome, written.detail) == (Outcome.UNKNOWN, "boom")
        seen = await target.read("leader", "k")
        assert (seen.answered, seen.detail) == (False, "boom")
        deleted = await target.delete("k")
        assert (deleted.outcome, deleted.detail) == (Outcome.REFUSED, "This server has no way to delete.")
        with pytest.raises(ClusterError, match="leader does not show its keys at /dump"):
            await target.dump("leader")

    with serving(routes) as url:
        on(Where(url=url, dialect="write"), use)


def test_a_server_that_goes_away() -> None:
    async def use(target: Target) -> None:
        stop()
        written = await target.write("k", "v")
        assert (written.outcome, written.detail) == (Outcome.REFUSED, "leader did not answer: Connection refused.")
        assert not (await target.read("leader", "k")).answered
        assert await target.leader() is None
        with pytest.raises(ClusterError, match=r"leader at .* did not answer GET /dump"):
            await target.dump("leader")

    running = serving(store_routes("POST /write", "GET /read", "GET /dump"), version="HTTP/1.0")
    url = running.__enter__()

    def stop() -> None:
        running.__exit__(None, None, None)

    on(Where(url=url), use)


def test_a_server_that_hangs_up_in_the_middle_of_a_write() -> None:
    told = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"

    async def run() -> Written:
        async with (
            rude_server(*[told] * 40, None) as server,
            open_target(Where(url=server.url, dialect="set"), Settings()) as target,
        ):
            while (written := await target.write("k", "v")).outcome is Outcome.REFUSED:
                pass
            return written

    written = asyncio.run(run())
    assert written.outcome is Outcome.UNKNOWN
    assert "leader did not answer" in written.detail


def test_a_follower_of_somebody_else_is_not_taken_for_the_leader() -> None:
    routes = store_routes("POST /write", "GET /read", "GET /dump")
    pinged = {**routes, "GET /ping": lambda *_: (200, {"role": "follower"})}
    with serving(pinged) as url, pytest.raises(ClusterError, match="it is a follower: give the leader's address"):
        on(Where(url=url), nothing)
