"""The HTTP door of a node: a listening socket, its connections, and a stop that lets requests under way finish."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
import time
from email.utils import formatdate
from typing import TYPE_CHECKING

from uvicorn import Config
from uvicorn.server import ServerState

from retinue.errors import SettingsError
from retinue.http.app import App
from retinue.http.connection import Connection, Limits, sweep
from retinue.http.readings import node_readings
from retinue.http.shortcut import ShortCut
from retinue.metrics import Registry

if TYPE_CHECKING:
    from retinue.node import Node
    from retinue.settings import Settings

log = logging.getLogger(__name__)

BACKLOG = 2048
SWEEP_INTERVAL_S = 0.25
STOP_GRACE_S = 5.0

# `localhost` may stand for an address of a family that is switched off.
_ADDRESS_NOT_HERE = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)


class HttpDoor:
    """Listens for clients of `node`, in the event loop that the node lives in.

    Raises `SettingsError` for a token file or peer secret that cannot be used.
    """

    def __init__(self, node: Node, settings: Settings) -> None:
        self._settings = settings
        self.registry = Registry()
        self.registry.read_from(lambda: node_readings(node))
        self.app = App(node, settings, self.registry)
        self._short_cut = ShortCut(self.app, self.app.door)
        self._state = ServerState()
        self._limits = Limits(settings.max_connections, settings.header_timeout_s, settings.idle_timeout_s)
        self._config = Config(
            self.app,
            interface="asgi3",
            http=Connection,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
        )
        self._closed = asyncio.Event()
        self._servers: list[asyncio.Server] = []
        self._sweeper: asyncio.TimerHandle | None = None
        self.port = settings.port

    @property
    def url(self) -> str:
        """Where this door is reached from this machine; the port is the real one once `start` is done."""
        host = self._settings.host
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}"

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self._state.connections)

    async def start(self) -> None:
        """Listen. Raises `SettingsError` when the address is taken or is none of this machine's."""
        self._config.load()
        loop = asyncio.get_running_loop()
        listeners = _listen(self._settings.host, self._settings.port)
        self.port = listeners[0].getsockname()[1]
        self.app.listens_on(self.port)
        for listener in listeners:
            server = await loop.create_server(
                lambda: Connection(self._config, self._state, self._limits, self._short_cut, self._closed.set, loop),
                sock=listener,
                backlog=BACKLOG,
            )
            self._servers.append(server)
        self._sweep()

    async def stop(self) -> None:
        """Take no more connections, let requests under way finish for a while, then end what is left."""
        for server in self._servers:
            server.close()
        for connection in list(self._state.connections):
            connection.shutdown()
        deadline_s = time.monotonic() + STOP_GRACE_S
        while self._state.connections and (left_s := deadline_s - time.monotonic()) > 0:
            self._closed.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._closed.wait(), left_s)
        if self._sweeper is not None:
            self._sweeper.cancel()
        for connection in list(self._state.connections):
            connection.transport.abort()
        for task in list(self._state.tasks):
            task.cancel()
        for server in self._servers:
            await server.wait_closed()
        self._servers.clear()

    def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        self._state.default_headers = [(b"date", formatdate(usegmt=True).encode("ascii"))]
        sweep(self._state.connections, loop.time())
        self._sweeper = loop.call_later(SWEEP_INTERVAL_S, self._sweep)


def _listen(host: str, port: int) -> list[socket.socket]:
    """A socket for each address that `host` stands for and this machine has, all with the same port."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise SettingsError(f"host={host} is not an address: {error.strerror}. Choose another one.") from None
    listeners: list[socket.socket] = []
    failed: OSError | None = None
    for family, *_, address in found:
        # With port 0 the first socket takes a free one, and the others follow it.
        wanted_port = listeners[0].getsockname()[1] if listeners else port
        try:
            listeners.append(_listener(family, (address[0], wanted_port, *address[2:])))
        except OSError as error:
            failed = error
            if error.errno not in _ADDRESS_NOT_HERE:
                break
    if failed is not None and (not listeners or failed.errno not in _ADDRESS_NOT_HERE):
        for opened in listeners:
            opened.close()
        raise SettingsError(f"port={port} on {host} cannot be used: {failed.strerror}. Choose another one.") from None
    return listeners


def _listener(family: int, address: tuple[object, ...]) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind(address)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener
