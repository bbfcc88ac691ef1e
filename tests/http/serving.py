"""Real nodes with their HTTP doors, in one event loop in a thread, and a client that sends exactly what it is told."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import socket
import threading
import time
import uuid
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import uvloop

from retinue.errors import RetinueError
from retinue.http import HttpDoor
from retinue.node import Node
from retinue.ports import free_ports
from retinue.server import open_store
from retinue.settings import Settings

WAIT_S = 20.0
PEER_SECRET = "p" * 40

T = TypeVar("T")


class Reply:
    """An answer as it came."""

    def __init__(self, status: int, headers: http.client.HTTPMessage, body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    def json(self) -> Any:
        return json.loads(self.body)


class Client:
    """A connection to one node, kept open from request to request; it adds no headers but `Host` and the length."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=WAIT_S)

    def __call__(
        self, method: str, path: str, body: bytes | object = None, headers: dict[str, str] | None = None
    ) -> Reply:
        """Send a request; a body that is not bytes is sent as JSON."""
        sent = dict(headers or {})
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
            sent.setdefault("Content-Type", "application/json")
        connection = self._connection
        with contextlib.suppress(http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError):
            return self._send(connection, method, path, body, sent)
        connection.close()
        return self._send(connection, method, path, body, sent)

    def _send(
        self, connection: http.client.HTTPConnection, method: str, path: str, body: bytes | None, sent: dict[str, str]
    ) -> Reply:
        connection.putrequest(method, path, skip_host=any(n.lower() == "host" for n in sent), skip_accept_encoding=True)
        if body is not None:
            sent.setdefault("Content-Length", str(len(body)))
        for name, value in sent.items():
            connection.putheader(name, value)
        connection.endheaders(body)
        answer = connection.getresponse()
        return Reply(answer.status, answer.headers, answer.read())

    def close(self) -> None:
        self._connection.close()

    def talk(self, data: bytes, *, until_closed: bool = True, timeout_s: float = WAIT_S) -> bytes:
        """Send these bytes on a connection of their own; what came back until the node closed it."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=timeout_s) as raw:
            with contextlib.suppress(OSError):
                raw.sendall(data)
            return read_all(raw) if until_closed else raw.recv(65_536)


def read_all(raw: socket.socket) -> bytes:
    """What comes until the other end closes."""
    pieces = []
    with contextlib.suppress(ConnectionResetError):
        while piece := raw.recv(65_536):
            pieces.append(piece)
    return b"".join(pieces)


class Served:
    """One running node with its door."""

    def __init__(self, node: Node, door: HttpDoor) -> None:
        self.node = node
        self.door = door
        self.client = Client(door.port)

    def __call__(self, *args: Any, **kwargs: Any) -> Reply:
        return self.client(*args, **kwargs)

    @property
    def last_version(self) -> int:
        """The highest version that this node has."""
        return self.node.replica.log.last


class Host:
    """Runs nodes in an event loop of its own thread."""

    def __init__(self) -> None:
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="nodes", daemon=True)
        self._thread.start()
        self._served: list[Served] = []
        self.failures: list[RetinueError] = []

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(WAIT_S)

    def start(self, settings: Settings) -> Served:
        served = self.run(self._start(settings))
        self._served.append(served)
        return served

    async def _start(self, settings: Settings) -> Served:
        secret = b"" if settings.peer_secret_file is None else settings.peer_secret_file.read_bytes().strip()
        store = open_store(settings)
        node = Node(settings, store, secret)
        door = HttpDoor(node, settings)
        try:
            await door.start()
            await node.driver.start(uuid.uuid4().hex, self.failures.append)
        except BaseException:
            await door.stop()
            await node.driver.stop()
            raise
        return Served(node, door)

    def stop(self, served: Served) -> None:
        self._served.remove(served)
        served.client.close()
        self.run(served.door.stop())
        self.run(served.node.driver.stop())

    def close(self) -> None:
        for served in list(self._served):
            self.stop(served)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        assert not self.failures


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, "this did not happen in time"
        time.sleep(0.005)


def lone_leader(host: Host, **changes: Any) -> Served:
    """A leader without followers."""
    given: dict[str, Any] = {"port": free_ports(1)[0], "memory": True, "write_quorum": 0, "followers": ()} | changes
    served = host.start(Settings(**given))
    wait_until(lambda: served("GET", "/health").status == 200)
    return served


class Cluster:
    """A leader and two followers, two copies needed besides the leader's own unless told otherwise."""

    def __init__(self, host: Host, **changes: Any) -> None:
        self.host = host
        ports = free_ports(3)
        common: dict[str, Any] = {"memory": True} | changes
        urls = tuple(f"http://127.0.0.1:{port}" for port in ports[1:])
        self.followers = [
            host.start(Settings(role="follower", port=port, follower_id=str(number), **common))
            for number, port in enumerate(ports[1:], 1)
        ]
        leader = {"write_quorum": 2} | common
        self.leader = host.start(Settings(port=ports[0], followers=urls, **leader))
        wait_until(lambda: self.leader("GET", "/leader").status == 200)
        wait_until(lambda: all(follower.node.leader_url() is not None for follower in self.followers))
        wait_until(lambda: all(state == "live" for state in self.states().values()))

    def states(self) -> dict[str, str]:
        """The followers as the leader sees them."""
        return {follower["name"]: follower["state"] for follower in self.leader("GET", "/status").json()["followers"]}

    def stop(self) -> None:
        for served in (self.leader, *self.followers):
            if served in self.host._served:
                self.host.stop(served)


class Secured:
    """A leader that asks for tokens, and the tokens by role; `peer` is the secret of the other nodes."""

    def __init__(self, served: Served, known: dict[str, str]) -> None:
        self.served = served
        self.tokens = known

    def __call__(self, role: str | None, method: str, path: str, body: object = None) -> Reply:
        token = self.tokens[role] if role is not None else None
        return self.served(method, path, body, {} if token is None else {"Authorization": f"Bearer {token}"})
