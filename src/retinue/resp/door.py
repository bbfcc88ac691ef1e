"""The Redis-protocol door of a node: a listening socket, its connections, and one flush a turn of what became due."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import time
from typing import TYPE_CHECKING

from retinue.errors import RetinueError, SettingsError
from retinue.resp.accounts import FORBIDDEN, NEEDED, NOBODY, Accounts
from retinue.resp.changing import Held, Step
from retinue.resp.connection import Connection
from retinue.resp.queues import Queues
from retinue.resp.replies import OK, error
from retinue.resp.table import COMMANDS, Command
from retinue.resp.view import View
from retinue.resp.waits import Waits

if TYPE_CHECKING:
    from collections.abc import Callable

    from retinue.core.messages import Change
    from retinue.metrics import Counter, Registry
    from retinue.node import Node
    from retinue.resp.client import Client
    from retinue.settings import Settings

log = logging.getLogger(__name__)

BACKLOG = 511
SWEEP_INTERVAL_S = 1.0
STOP_GRACE_S = 2.0
SETTLE_RETRY_S = 0.05
NAME_SHOWN_BYTES = 128


class Entry:
    """One command of a door, and how often it was called."""

    __slots__ = ("command", "counter", "is_set", "rank")

    def __init__(self, command: Command, counter: Counter) -> None:
        self.command = command
        self.counter = counter
        self.rank = command.rank
        self.is_set = command.name == "set"


class RespDoor:
    """Listens for Redis clients of `node`, in the event loop that the node lives in.

    Raises `SettingsError` for a token file that cannot be used.
    """

    def __init__(self, node: Node, settings: Settings, registry: Registry) -> None:
        self.node = node
        self.settings = settings
        self.accounts = Accounts(settings)
        self.view = View(node)
        self.waits = Waits(node)
        self.connections: dict[int, Client] = {}
        self.port = settings.resp_port
        self.commands_per_s = 0.0
        counted = registry.counter("retinue_resp_commands_total", "Redis commands taken, by command", ("command",))
        self.accepted = registry.counter("retinue_resp_connections_total", "Redis connections taken").labelled()
        self.refused = registry.counter("retinue_resp_connections_refused_total", "Too many at once").labelled()
        self._open = registry.gauge("retinue_resp_connections", "Redis connections that are open").labelled()
        self._unknown = counted.labelled("unknown")
        self._every = [Entry(command, counted.labelled(command.name)) for command in COMMANDS]
        self.entries = {
            name: entry
            for entry in self._every
            for name in (entry.command.name.encode(), entry.command.name.upper().encode())
        }
        self._numbers = itertools.count(1)
        self._dirty: list[Connection] = []
        self._server: asyncio.Server | None = None
        self._sweeper: asyncio.TimerHandle | None = None
        self._settling: asyncio.Task[None] | None = None
        self._unsettled: list[Callable[[], None]] = []
        self._seen_commands = 0
        self._all_gone: asyncio.Event | None = None

    # --- life ---

    async def start(self) -> bool:
        """Listen; false where that is not possible on a port that nobody asked for. Raises `SettingsError`."""
        self._loop = asyncio.get_running_loop()
        self.queues = Queues(self.node, self._loop.call_soon, self._when_settled)
        host, port = self.settings.host, self.settings.resp_port
        try:
            self._server = await self._loop.create_server(self._connection, host, port, backlog=BACKLOG)
        except OSError as failed:
            sentence = f"resp_port={port} on {host} cannot be used: {failed.strerror}"
            if "resp_port" in self.settings.explicit or "resp" in self.settings.explicit:
                raise SettingsError(f"{sentence}. Choose another one.") from None
            log.warning("%s; this node goes on without the Redis protocol. Set resp_port to another port.", sentence)
            return False
        self.port = self.node.resp_port = self._server.sockets[0].getsockname()[1]
        self._sweep()
        return True

    async def stop(self) -> None:
        """Take no more connections, give what is under way a moment, then end what is left."""
        if self._server is None:
            return
        self._server.close()
        self._all_gone = asyncio.Event()
        for connection in self._open_connections():
            connection.ending = True
            connection.mark()
        if self.connections:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._all_gone.wait(), STOP_GRACE_S)
        if self._sweeper is not None:
            self._sweeper.cancel()
        if self._settling is not None:
            self._settling.cancel()
        self.waits.stop()
        for connection in self._open_connections():
            connection.transport.abort()
        await self._server.wait_closed()
        self._server = None
        self.node.resp_port = None

    def _connection(self) -> Connection:
        return Connection(self, next(self._numbers))

    def _open_connections(self) -> list[Connection]:
        return [each for each in self.connections.values() if isinstance(each, Connection)]

    def admit(self, connection: Connection) -> bool:
        """Whether there is room for one more."""
        if len(self.connections) >= self.settings.max_connections:
            self.refused.add()
            return False
        self.connections[connection.number] = connection
        self.accepted.add()
        self._open.set(len(self.connections))
        return True

    def forget(self, connection: Connection) -> None:
        """A connection is gone."""
        self.connections.pop(connection.number, None)
        self._open.set(len(self.connections))
        if self._all_gone is not None and not self.connections:
            self._all_gone.set()

    def _sweep(self) -> None:
        """Close connections whose clients have not read for long, and see how busy this door is."""
        self._sweeper = self._loop.call_later(SWEEP_INTERVAL_S, self._sweep)
        before_s = time.monotonic() - self.settings.idle_timeout_s
        for connection in self._open_connections():
            if connection.paused_at_s is not None and connection.paused_at_s < before_s:
                log.warning("the Redis client at %s does not read its replies: closed", connection.address)
                connection.transport.abort()
        processed = self.commands_processed
        self.commands_per_s, self._seen_commands = (processed - self._seen_commands) / SWEEP_INTERVAL_S, processed

    # --- what connections ask ---

    def now_s(self) -> float:
        """The clock of how long a client has not read, in seconds."""
        return time.monotonic()

    def deadline(self) -> float:
        """The deadline of what begins now, in ms of the driver's clock."""
        return self.node.driver.now_ms + self.settings.write_timeout_ms

    def find(self, name: bytes) -> Entry | None:
        """The command of a name in letters of both sizes."""
        return self.entries.get(name.lower())

    def refusal(self, client: Client, entry: Entry | None, arguments: list[bytes]) -> bytes:
        """The error for a command that is not known, or that this client may not use."""
        if client.rank == NOBODY:
            return error(NEEDED)
        if entry is not None:
            return error(FORBIDDEN.format(entry.command.name))
        self._unknown.add()
        shown = arguments[0][:NAME_SHOWN_BYTES].decode("utf-8", "backslashreplace")
        given = ""
        for argument in arguments[1:]:
            if len(given) >= NAME_SHOWN_BYTES:
                break
            given += f"'{argument[: NAME_SHOWN_BYTES - len(given)].decode('utf-8', 'backslashreplace')}' "
        return error(f"ERR unknown command '{shown}', with args beginning with: {given}")

    def overwriting(self, change: Change) -> Step:
        """A plain write as a step in the queue of its key."""
        held = Held(change.value, change.encoding, change.expires_ms)
        return lambda _: (OK, held)

    def is_settled(self, connection: Connection) -> bool:
        """Whether what this node shows is durable; if not, the connection is told when it is."""
        if not self.node.driver.unsettled:
            return True
        self._when_settled(connection.mark)
        return False

    def _when_settled(self, work: Callable[[], None]) -> None:
        """Do this when what this node shows is durable."""
        self._unsettled.append(work)
        if self._settling is None:
            self._settling = self._loop.create_task(self._wait_until_settled())

    async def _wait_until_settled(self) -> None:
        while self.node.driver.unsettled:
            try:
                await self.node.driver.settled()
            except RetinueError:
                await asyncio.sleep(SETTLE_RETRY_S)
        self._settling = None
        waiting, self._unsettled = self._unsettled, []
        for work in waiting:
            work()

    @property
    def commands_processed(self) -> int:
        """Commands taken so far."""
        return int(sum([entry.counter.value for entry in self._every]))

    @property
    def blocked(self) -> int:
        """Clients in WAIT and WAITAOF."""
        return len(self.waits)

    # --- one flush a turn ---

    def mark(self, connection: Connection) -> None:
        """Flush this connection at the end of this turn."""
        if not self._dirty:
            self._loop.call_soon(self._flush)
        self._dirty.append(connection)

    def _flush(self) -> None:
        dirty, self._dirty = self._dirty, []
        for connection in dirty:
            if not connection.closed:
                connection.flush()
