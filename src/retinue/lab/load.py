"""A light load generator: writes over HTTP in a closed loop, each client sending the next when the last is answered.

It speaks HTTP/1.1 straight on asyncio protocols, for a general client library costs more per request than the server
under test.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import cast
from urllib.parse import urlsplit

import httptools
import msgspec


class LoadResult(msgspec.Struct, frozen=True):
    """What a run of load saw: how long it took, the latency in ms of each success, and other answers by status."""

    clients: int
    duration_s: float
    latencies_ms: list[float]
    failures: dict[int, int]

    @property
    def per_second(self) -> float:
        """Successful requests per second."""
        return len(self.latencies_ms) / self.duration_s

    def quantile_ms(self, p: float) -> float:
        """The latency that a fraction `p` of the successful requests did not exceed; NaN without any."""
        ordered = sorted(self.latencies_ms)
        return ordered[min(int(p * len(ordered)), len(ordered) - 1)] if ordered else float("nan")


class Client(asyncio.Protocol):
    """One connection that sends one request after another until told to stop. A subclass understands the answers."""

    def __init__(self, run: Run, number: int) -> None:
        self.run = run
        self.number = number
        self.sequence = 0
        self.begun_s = 0.0
        self.transport: asyncio.Transport | None = None
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Tell the run, which says when to begin."""
        self.transport = cast(asyncio.Transport, transport)
        self.run.connected(self)

    def connection_lost(self, error: Exception | None) -> None:
        """The server, or the end of the run, closed the connection."""
        if not self.done.done():
            self.done.set_result(None)

    def next_request(self) -> None:
        """Send the next request, or close at the end of the run."""
        assert self.transport is not None
        self.begun_s = time.perf_counter()
        if self.begun_s >= self.run.until_s:
            self.transport.close()
            return
        self.sequence += 1
        self.transport.write(self.run.request(self.number, self.sequence))


class HttpClient(Client):
    """A client of the HTTP door: one request at a time."""

    def __init__(self, run: Run, number: int) -> None:
        super().__init__(run, number)
        self.parser = httptools.HttpResponseParser(self)

    def data_received(self, data: bytes) -> None:
        """Part of an answer."""
        self.parser.feed_data(data)

    def on_message_complete(self) -> None:
        """One answer is complete."""
        self.run.answered(self.parser.get_status_code(), self.begun_s)
        self.next_request()


class Run:
    """The clients of one run and what they saw. `request(client, sequence)` makes the bytes that a client sends."""

    def __init__(self, request: Callable[[int, int], bytes], until_s: float) -> None:
        self.request = request
        self.until_s = until_s
        self.latencies_ms: list[float] = []
        self.failures: dict[int, int] = {}

    def connected(self, client: Client) -> None:
        """A client has its connection: it begins at once."""
        client.next_request()

    def answered(self, status: int, begun_s: float) -> None:
        """Note one answer."""
        if status == 200:
            self.latencies_ms.append((time.perf_counter() - begun_s) * 1000)
        else:
            self.failures[status] = self.failures.get(status, 0) + 1


def common_headers(host: str, token: str) -> bytes:
    """The header lines that every request has; none for an empty token."""
    authorization = f"Authorization: Bearer {token}\r\n" if token else ""
    return f"Host: {host}\r\n{authorization}".encode()


def put_request(host: str, keys: int, value_bytes: int, token: str = "") -> Callable[[int, int], bytes]:
    """Writes of `value_bytes` bytes to `keys` keys, spread over clients."""
    value = b"x" * value_bytes
    tail = b" HTTP/1.1\r\n%sContent-Type: application/octet-stream\r\nContent-Length: %d\r\n\r\n%s" % (
        common_headers(host, token),
        value_bytes,
        value,
    )

    def request(client: int, sequence: int) -> bytes:
        return b"PUT /kv/key%d" % ((client * 7919 + sequence) % keys) + tail

    return request


async def closed_loop(
    url: str, clients: int, duration_s: float, *, keys: int = 1000, value_bytes: int = 100, token: str = ""
) -> LoadResult:
    """Let `clients` clients write to the node at `url` for `duration_s` seconds, with this token if there is one.

    Raises `OSError` if the node cannot be reached.
    """
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or 80
    event_loop = asyncio.get_running_loop()
    begun_s = time.perf_counter()
    run = Run(put_request(f"{host}:{port}", keys, value_bytes, token), begun_s + duration_s)
    connections = []
    for number in range(clients):
        _, client = await event_loop.create_connection(lambda number=number: HttpClient(run, number), host, port)  # type: ignore[misc]
        connections.append(client)
    await asyncio.gather(*(client.done for client in connections))
    return LoadResult(clients, time.perf_counter() - begun_s, run.latencies_ms, run.failures)
