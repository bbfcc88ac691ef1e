"""One node as a process: store, node and doors in one event loop, until a signal ends it."""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import logging
import signal
import sys
import uuid
from typing import Any

import uvloop

from retinue import http
from retinue.errors import EXIT_DONE, RetinueError, SettingsError
from retinue.membership import fixed_name
from retinue.node import Node
from retinue.ports import free_ports
from retinue.resp import RespDoor
from retinue.settings import Settings
from retinue.store import Store
from retinue.store_memory import MemoryStore

log = logging.getLogger("retinue")

# Cyclic garbage is rare here; collecting less often keeps pauses away from requests.
SLOW_STOP_S = 7.0

GC_THRESHOLDS = (50_000, 50, 50)


def run(settings: Settings) -> int:
    """Run a node in the foreground until SIGTERM or SIGINT; the exit code.

    Raises `SettingsError` or `DataDirError` for what must be put right before it can start.
    """
    _log_to_stderr(settings.log_level)
    settings = with_free_port(settings)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_serve(settings))


def with_free_port(settings: Settings) -> Settings:
    """The settings with a real port in place of 0, since the other nodes are told it before anything listens."""
    if settings.port:
        return settings
    derived: dict[str, Any] = {
        name: None for name in ("peer_port", "resp_port", "advertise_url", "data_dir") if name not in settings.explicit
    }
    return dataclasses.replace(settings, port=free_ports(1, settings.host)[0], **derived)


def open_store(settings: Settings) -> Store:
    """The store that the settings ask for. Raises `StorageError`."""
    if settings.memory:
        return MemoryStore()
    return Store(settings.data_dir, synchronous=settings.synchronous, member=fixed_name(settings))


async def _serve(settings: Settings) -> int:
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[RetinueError | None] = loop.create_future()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end, ended, None)
    secret = _read_secret(settings)
    store = open_store(settings)
    try:
        node = Node(settings, store, secret)
        log.info("%s", store.opened.sentence)
        gc.freeze()
        gc.set_threshold(*GC_THRESHOLDS)
        return await _serve_node(node, settings, ended)
    finally:
        store.close()


def end(ended: asyncio.Future[RetinueError | None], error: RetinueError | None) -> None:
    """Let the process come to its end: `None` on request, an error when the node cannot go on."""
    if not ended.done():
        ended.set_result(error)


async def _serve_node(node: Node, settings: Settings, ended: asyncio.Future[RetinueError | None]) -> int:
    door = http.HttpDoor(node, settings)
    redis_door = RespDoor(node, settings, door.registry)
    try:
        # Whoever asks this node must find it in its role: a leader that has not begun looks like a healthy follower.
        await node.driver.start(uuid.uuid4().hex, lambda error: end(ended, error))
        await door.start()
        node.expiry.start()
        if settings.resp and await redis_door.start():
            log.info("node %s serves the Redis protocol on port %d", node.name, redis_door.port)
        log.info("node %s serves %s as %s", node.name, door.url, settings.role)
        error = await ended
        if error is not None:
            raise error
        return EXIT_DONE
    finally:
        slow = asyncio.get_running_loop().call_later(SLOW_STOP_S, _tell_what_is_left)
        node.expiry.stop()
        await asyncio.gather(door.stop(), redis_door.stop())
        await node.driver.stop()
        slow.cancel()


def _tell_what_is_left() -> None:
    """A stop that takes so long waits for something: say for what."""
    for task in asyncio.all_tasks():
        log.warning("the stop takes long; still under way: %r", task)


def _read_secret(settings: Settings) -> bytes:
    if settings.peer_secret_file is None:
        return b""
    try:
        secret = settings.peer_secret_file.read_bytes().strip()
    except OSError as error:
        raise SettingsError(f"peer_secret_file={settings.peer_secret_file} cannot be read: {error.strerror}.") from None
    if len(secret) < 32:
        raise SettingsError(
            f"peer_secret_file={settings.peer_secret_file} holds fewer than 32 bytes: use a longer secret."
        )
    return secret


class _PlainFormatter(logging.Formatter):
    """One line a record, with control characters escaped: a key must not forge lines or move a terminal's cursor."""

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        return "".join(c if c.isprintable() or c == "\n" else f"\\x{ord(c):02x}" for c in text)


def _log_to_stderr(level: str) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_PlainFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
