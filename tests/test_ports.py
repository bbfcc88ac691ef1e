"""Free ports: no two processes get the same ones, though nobody listens there yet."""

from __future__ import annotations

import json
import socket
import subprocess
import sys

import pytest

from retinue.errors import ClusterError
from retinue.ports import BLOCK, FREE_FROM, FREE_UPTO, OwnPorts, free_ports, taken_port
from retinue.settings import PEER_PORT_OFFSET, RESP_PORT_OFFSET

FIND = "import json, sys; from retinue.ports import free_ports; print(json.dumps(free_ports({})), flush=True); input()"


def with_derived(ports: list[int]) -> list[int]:
    return [port + offset for port in ports for offset in (-RESP_PORT_OFFSET, 0, PEER_PORT_OFFSET)]


def test_processes_side_by_side_get_different_ports() -> None:
    finders = [
        subprocess.Popen(
            [sys.executable, "-c", FIND.format(2 * BLOCK)], text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        for _ in range(4)
    ]
    found: list[int] = []
    for finder in finders:
        assert finder.stdout is not None
        found += json.loads(finder.stdout.readline())
    found += free_ports(2 * BLOCK)
    for finder in finders:
        finder.communicate("\n", timeout=30)
        assert finder.returncode == 0
    needed = with_derived(found)
    assert len(set(needed)) == len(needed) == 3 * 5 * 2 * BLOCK
    assert set(needed) <= set(range(FREE_FROM, FREE_UPTO))


def test_a_port_comes_again_only_after_all_others() -> None:
    own = OwnPorts()
    found: list[int] = []
    while (port := own.find(1, "127.0.0.1")[0]) not in found:
        found.append(port)
    assert port == found[0]
    assert len(found) > BLOCK // 2


def test_a_host_without_ports_is_named() -> None:
    with pytest.raises(ClusterError, match=r"No port can be had on 203\.0\.113\.9"):
        free_ports(1, "203.0.113.9")


def test_a_port_is_passed_over_where_one_that_follows_from_it_is_in_use() -> None:
    first, second = free_ports(2)
    taken = [
        socket.create_server(("127.0.0.1", port)) for port in (first + PEER_PORT_OFFSET, second - RESP_PORT_OFFSET)
    ]
    assert taken_port("127.0.0.1", with_derived([first])) == first + PEER_PORT_OFFSET
    found = free_ports(2 * BLOCK)
    assert not {first, second} & set(found)
    for listener in taken:
        listener.close()
