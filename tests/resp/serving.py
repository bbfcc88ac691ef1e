"""Real nodes with their Redis doors, in one event loop in a thread, and a client that sends exactly what it is told."""

from __future__ import annotations

import contextlib
import socket
from typing import Any

from retinue.http import HttpDoor
from retinue.node import Node
from retinue.ports import free_ports
from retinue.resp import RespDoor
from retinue.settings import Settings
from tests.http.serving import WAIT_S, Host, Served, wait_until

__all__ = ["Raw", "RespHost", "RespServed", "lone_leader", "wait_until"]


def encoded(*arguments: bytes | str | int) -> bytes:
    """A request as clients send it."""
    raw = [item if isinstance(item, bytes) else str(item).encode() for item in arguments]
    return b"".join([b"*%d\r\n" % len(raw), *[b"$%d\r\n%b\r\n" % (len(item), item) for item in raw]])


class Raw:
    """A connection on which bytes are bytes."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=WAIT_S)
        self._stream = self.socket.makefile("rb")

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def line(self) -> bytes:
        """The next line, without its end; empty when the node has closed the connection."""
        with contextlib.suppress(ConnectionResetError):
            return self._stream.readline().removesuffix(b"\r\n")
        return b""

    def reply(self) -> bytes:
        """The next reply, as it came."""
        line = self._stream.readline()
        kind, rest = line[:1], line[1:].rstrip()
        if kind in b"$=" and rest != b"-1":
            return line + self._stream.read(int(rest) + 2)
        if kind in b"*~%" and rest != b"-1":
            return line + b"".join(self.reply() for _ in range(int(rest) * (2 if kind == b"%" else 1)))
        return line

    def __call__(self, *arguments: bytes | str | int) -> bytes:
        """Send a command; its reply, without the end of the line where that is all of it."""
        self.send(encoded(*arguments))
        return self.reply().removesuffix(b"\r\n")

    def rest(self) -> bytes:
        """What comes until the node closes."""
        with contextlib.suppress(ConnectionResetError):
            return self._stream.read()
        return b""

    def close(self) -> None:
        self._stream.close()
        self.socket.close()


class RespServed(Served):
    """One running node with both its doors."""

    def __init__(self, node: Node, door: HttpDoor, resp: RespDoor) -> None:
        super().__init__(node, door)
        self.resp = resp

    def raw(self) -> Raw:
        return Raw(self.resp.port)


class RespHost(Host):
    """Runs nodes that serve the Redis protocol too."""

    async def _start(self, settings: Settings) -> RespServed:
        plain = await super()._start(settings)
        resp = RespDoor(plain.node, settings, plain.door.registry)
        try:
            await resp.start()
        except BaseException:
            await plain.door.stop()
            await plain.node.driver.stop()
            raise
        plain.node.expiry.start()
        return RespServed(plain.node, plain.door, resp)

    def stop(self, served: Served) -> None:
        if isinstance(served, RespServed):
            served.node.expiry.stop()
            self.run(served.resp.stop())
        super().stop(served)


def lone_leader(host: RespHost, **changes: Any) -> RespServed:
    """A leader without followers."""
    given: dict[str, Any] = {"port": free_ports(1)[0], "memory": True, "write_quorum": 0, "followers": ()} | changes
    served = host.start(Settings(**given))
    assert isinstance(served, RespServed)
    wait_until(lambda: served("GET", "/health").status == 200)
    return served
