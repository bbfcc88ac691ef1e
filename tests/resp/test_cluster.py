"""The Redis door of a real cluster of processes: followers, quorums, kills."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from retinue.cluster import Cluster
from retinue.ports import free_ports
from retinue.settings import RESP_PORT_OFFSET
from tests.resp.serving import Raw, wait_until

Connect = Callable[..., Raw]


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with Cluster(tmp_path, free_ports(3), {"write_quorum": "2", "write_timeout_ms": "1500"}) as running:
        yield running


def resp_port(cluster: Cluster, name: str) -> int:
    return cluster.ports[cluster.names.index(name)] - RESP_PORT_OFFSET


@pytest.fixture
def connect(cluster: Cluster) -> Iterator[Callable[..., Raw]]:
    opened: list[Raw] = []

    def open_one(name: str = "leader") -> Raw:
        opened.append(Raw(resp_port(cluster, name)))
        return opened[-1]

    yield open_one
    for raw in opened:
        raw.close()


def has_keys(client: Raw, count: int) -> bool:
    return client("DBSIZE") == b":%d" % count


def test_followers_read_and_refuse_writes(cluster: Cluster, connect: Connect) -> None:
    leader, follower = connect(), connect("follower1")
    assert leader("SET", "k", "v") == b"+OK"
    wait_until(lambda: follower("GET", "k") == b"$1\r\nv")
    refused = b"-READONLY You can't write against a read only replica. The leader is 127.0.0.1:%d"
    for command in (("SET", "k", "w"), ("INCR", "n"), ("DEL", "k"), ("MSET", "k", "w"), ("EXPIRE", "k", "1")):
        assert follower(*command) == refused % resp_port(cluster, "leader")
    assert follower("WAIT", "1", "1").startswith(b"-ERR WAIT cannot be used with replica instances.")
    role = follower("ROLE")
    assert role.startswith(b"*5\r\n$5\r\nslave\r\n$9\r\n127.0.0.1\r\n:%d\r\n" % resp_port(cluster, "leader"))
    assert b"role:slave" in follower("INFO", "replication")
    shown = leader("ROLE")
    assert shown.startswith(b"*3\r\n$6\r\nmaster\r\n")
    assert all(str(resp_port(cluster, name)).encode() in shown for name in cluster.names[1:])
    assert b"connected_slaves:2" in leader("INFO", "replication")


def test_wait_tells_how_many_followers_have_what_was_written(cluster: Cluster, connect: Connect) -> None:
    leader = connect()
    assert leader("SET", "k", "v") == b"+OK"
    assert leader("WAIT", "2", "5000") == b":2"
    assert leader("WAITAOF", "1", "2", "5000") == b"*2\r\n:1\r\n:2"
    began = time.monotonic()
    assert leader("WAIT", "3", "200") == b":2"
    assert time.monotonic() - began >= 0.19


def test_writes_without_a_quorum_are_refused_or_unknown(cluster: Cluster, connect: Connect) -> None:
    leader = connect()
    assert leader("SET", "k", "1") == b"+OK"
    for name in cluster.names[1:]:
        cluster.pause(name)
    # Paused followers still count as reachable, so the write gets a version and its outcome is not known.
    unknown = b"-UNKNOWN The write quorum did not answer in time; the write may still take effect."
    assert leader("SET", "k", "2") == unknown
    assert leader("GET", "k") == b"$1\r\n1"
    assert (
        leader("INCR", "k")
        == b"-BUSY Other writes of the key were in the way until the deadline: nothing was written, try again."
    )
    for name in cluster.names[1:]:
        cluster.resume(name)
    wait_until(lambda: leader("GET", "k") == b"$1\r\n2")
    assert leader("INCR", "k") == b":3"
    cluster.kill("follower1")
    refused = b"-NOREPLICAS Not enough good replicas to write."
    wait_until(lambda: leader("SET", "k", "4") == refused)
    assert leader("INCR", "k") == refused
    assert leader("GET", "k") == b"$1\r\n3"


def test_kills_lose_neither_values_nor_when_they_end(cluster: Cluster, connect: Connect) -> None:
    leader = connect()
    assert leader("SET", "long", "v", "EX", "1000") == b"+OK"
    assert leader("MSET", "a", "1", "b", "2") == b"+OK"
    assert leader("EXPIRE", "b", "500") == b":1"
    assert leader("SET", "brief", "v", "PX", "3000") == b"+OK"
    end = leader("PEXPIRETIME", "long")
    for name in cluster.names:
        cluster.kill(name)
    cluster.start()
    leader = connect()
    assert leader("PEXPIRETIME", "long") == end
    assert leader("GET", "a") == b"$1\r\n1"
    assert 400 < int(leader("TTL", "b")[1:]) <= 500
    wait_until(lambda: leader("DBSIZE") == b":3")
    for name in cluster.names[1:]:
        follower = connect(name)
        wait_until(partial(has_keys, follower, 3))
        assert follower("PEXPIRETIME", "long") == end
        assert follower("GET", "brief") == b"$-1"


def test_a_promoted_node_goes_on_with_what_ends(cluster: Cluster, connect: Connect) -> None:
    leader, other = connect(), connect("follower1")
    assert leader("SET", "brief", "v", "PX", "2500") == b"+OK"
    assert leader("SET", "k", "1") == b"+OK"
    cluster.request("follower1", "POST", "/promote", {}, timeout_s=20).checked()
    assert other("INCR", "k") == b":2"
    wait_until(lambda: leader("SET", "k", "9").startswith(b"-READONLY"))
    assert b"The leader is 127.0.0.1:%d" % resp_port(cluster, "follower1") in leader("SET", "k", "9")
    wait_until(lambda: other("DBSIZE") == b":1")
    wait_until(lambda: leader("DBSIZE") == b":1")
