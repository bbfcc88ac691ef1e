"""Listening: the real port, a port that is taken, a host that is none."""

from __future__ import annotations

import socket

import pytest

from retinue.errors import SettingsError
from retinue.http.server import HttpDoor
from retinue.settings import Settings
from tests.http.serving import Host, Served


def refused(runner: Host, served: Served, **changes: object) -> SettingsError:
    door = HttpDoor(served.node, Settings(followers=(), **changes))  # type: ignore[arg-type]
    with pytest.raises(SettingsError) as caught:
        runner.run(door.start())
    runner.run(door.stop())
    return caught.value


def test_port_0_takes_a_free_one(host: Host, alone: Served) -> None:
    door = HttpDoor(alone.node, Settings(port=0))
    host.run(door.start())
    assert door.port > 0
    assert door.url == f"http://127.0.0.1:{door.port}"
    with socket.create_connection(("127.0.0.1", door.port), timeout=5) as raw:
        raw.sendall(b"GET /config HTTP/1.0\r\n\r\n")
        assert b'"port":%d' % door.port in raw.recv(65_536)
    host.run(door.stop())


def test_a_name_may_stand_for_several_addresses(host: Host, alone: Served) -> None:
    door = HttpDoor(alone.node, Settings(host="localhost", port=0))
    host.run(door.start())
    for *_, address in socket.getaddrinfo("localhost", door.port, type=socket.SOCK_STREAM):
        socket.create_connection((str(address[0]), door.port), timeout=5).close()
    host.run(door.stop())


def test_a_port_that_is_taken_stops_the_start(host: Host, alone: Served) -> None:
    error = refused(host, alone, port=alone.door.port)
    assert error.detail.startswith(f"port={alone.door.port} on 127.0.0.1 cannot be used: ")


def test_an_address_of_another_machine_stops_the_start(host: Host, alone: Served) -> None:
    assert "192.0.2.1" in refused(host, alone, host="192.0.2.1", port=8000, insecure=True).detail
    assert "host=" in refused(host, alone, host="no.such.host.invalid", port=8000, insecure=True).detail


def test_stopping_twice_is_harmless(host: Host, alone: Served) -> None:
    door = HttpDoor(alone.node, Settings(port=0))
    host.run(door.start())
    host.run(door.stop())
    host.run(door.stop())
