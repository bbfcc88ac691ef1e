"""The load of `retinue bench` beyond `--quick`: a closed loop over HTTP or the Redis protocol, reads and pipelines too.

All clients of a run connect first and begin together; answers count that come between the end of the warm-up and the
end of the run. The generator is one Python process: `Seen.generator_cpu` says when it, not the cluster, was the limit.
"""

from __future__ import annotations

import asyncio
import errno
import time
from collections.abc import Callable
from functools import partial
from typing import cast

import hiredis
import msgspec

from retinue.lab.bench_grid import HTTP, WRITE, Case
from retinue.lab.load import Client, HttpClient, Run, common_headers, put_request

KEYS = 1000
PATIENCE_S = 10.0
TICK_S = 1.0
CONNECTION_LOST = "connection lost"
NO_ANSWER = "no answer"


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What a run saw: the latency in ms of each success, failures by kind, and CPU s of the generator per s.

    In a pipeline the latency of each request is that of the whole group.
    """

    duration_s: float
    latencies_ms: list[float]
    failures: dict[str, int]
    generator_cpu: float


class RespClient(Client):
    """A client of the Redis-protocol door: it sends a group of requests and waits for the replies to all of them."""

    run: _TimedRun

    def __init__(self, run: _TimedRun, number: int) -> None:
        super().__init__(run, number)
        self.run = run
        self.reader = hiredis.Reader()
        self.unanswered = 0
        self.authenticating = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Present the token first, if there is one."""
        if not self.run.token:
            super().connection_made(transport)
            return
        self.transport = cast(asyncio.Transport, transport)
        self.authenticating = True
        self.transport.write(b"*2\r\n$4\r\nAUTH\r\n$%d\r\n%s\r\n" % (len(self.run.token), self.run.token.encode()))

    def data_received(self, data: bytes) -> None:
        """Some replies, the last maybe in part."""
        self.reader.feed(data)
        if self.authenticating:
            self._authenticated()
            return
        while (reply := self.reader.gets()) is not False:
            self.unanswered -= 1
            if reply is None:
                self.run.failed("no such key")
            elif isinstance(reply, hiredis.ReplyError):
                self.run.failed(str(reply).split(" ", 1)[0])
            else:
                self.run.succeeded(self.begun_s)
        if not self.unanswered:
            self.next_request()

    def _authenticated(self) -> None:
        # An error counts with what it leads to: a node that asks for no token answers one, and goes on.
        if self.reader.gets() is not False:
            self.authenticating = False
            self.run.connected(self)

    def next_request(self) -> None:
        """Send the next group."""
        self.unanswered = self.run.pipeline
        super().next_request()


class _TimedRun(Run):
    """A run whose clients begin together, and whose answers count from `from_s` to `until_s`."""

    def __init__(self, request: Callable[[int, int], bytes], case: Case, token: str) -> None:
        super().__init__(request, until_s=0.0)
        self.pipeline = case.pipeline
        self.token = token
        self.all_connected: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._clients = case.clients
        self.from_s = 0.0
        self.errors: dict[str, int] = {}
        self.waiting: list[Client] = []

    def connected(self, client: Client) -> None:
        """A client waits until all are connected."""
        self.waiting.append(client)
        if len(self.waiting) == self._clients:
            self.all_connected.set_result(None)

    def begin(self, warm_up_s: float, duration_s: float) -> None:
        """All are connected: they begin."""
        self.from_s = time.perf_counter() + warm_up_s
        self.until_s = self.from_s + duration_s
        for client in self.waiting:
            client.next_request()

    def answered(self, status: int, begun_s: float) -> None:
        """Note an answer over HTTP."""
        if status == 200:
            self.succeeded(begun_s)
        else:
            self.failed(str(status))

    def succeeded(self, begun_s: float) -> None:
        """Note a success."""
        now_s = time.perf_counter()
        if self.from_s <= now_s < self.until_s:
            self.latencies_ms.append((now_s - begun_s) * 1000)

    def failed(self, kind: str) -> None:
        """Note a failure."""
        if self.from_s <= time.perf_counter() < self.until_s:
            self.errors[kind] = self.errors.get(kind, 0) + 1


def requests_of(case: Case, host: str, token: str) -> Callable[[int, int], bytes]:
    """What makes the requests of a case: `KEYS` keys, which clients go through from different places."""
    if case.door == HTTP:
        if case.operation == WRITE:
            return put_request(host, KEYS, case.value_bytes, token)
        return _http_get(host, token)
    command = _resp_set(case.value_bytes) if case.operation == WRITE else _resp_get
    if case.pipeline == 1:
        return command

    def group(client: int, sequence: int) -> bytes:
        first = sequence * case.pipeline
        return b"".join([command(client, first + number) for number in range(case.pipeline)])

    return group


def _http_get(host: str, token: str) -> Callable[[int, int], bytes]:
    tail = b" HTTP/1.1\r\n%s\r\n" % common_headers(host, token)
    return lambda client, sequence: b"GET /kv/%s%s" % (_key(client, sequence), tail)


def _resp_set(value_bytes: int) -> Callable[[int, int], bytes]:
    tail = b"$%d\r\n%s\r\n" % (value_bytes, b"x" * value_bytes)

    def command(client: int, sequence: int) -> bytes:
        key = _key(client, sequence)
        return b"*3\r\n$3\r\nSET\r\n$%d\r\n%s\r\n%s" % (len(key), key, tail)

    return command


def _resp_get(client: int, sequence: int) -> bytes:
    key = _key(client, sequence)
    return b"*2\r\n$3\r\nGET\r\n$%d\r\n%s\r\n" % (len(key), key)


def _key(client: int, sequence: int) -> bytes:
    """The keys of `put_request`."""
    return b"key%d" % ((client * 7919 + sequence) % KEYS)


async def run_case(
    case: Case,
    address: tuple[str, int],
    token: str,
    warm_up_s: float,
    duration_s: float,
    tick: Callable[[float], None],
) -> Seen:
    """Load the node at this host and port as the case says, with this token unless it is empty.

    `tick` is told the seconds that went by, now and then. Raises `OSError` if the node cannot be reached.
    """
    host, port = address
    run = _TimedRun(requests_of(case, f"{host}:{port}", token), case, token)
    loop = asyncio.get_running_loop()
    make = HttpClient if case.door == HTTP else RespClient
    clients: list[Client] = []
    try:
        for number in range(case.clients):
            _, client = await loop.create_connection(partial(make, run, number), host, port)
            clients.append(client)
        await _all_connected(run)
        run.begin(warm_up_s, duration_s)
        await _wait_until(run.from_s, tick)
        cpu_before_s = time.process_time()
        await _wait_until(run.until_s, tick)
        cpu_s = time.process_time() - cpu_before_s
        await asyncio.wait([client.done for client in clients], timeout=PATIENCE_S)
    finally:
        for client in clients:
            if client.transport is not None:
                client.transport.abort()
    lost = sum(client.begun_s < run.until_s and client.done.done() for client in clients)
    silent = sum(not client.done.done() for client in clients)
    failures = run.errors | {kind: count for kind, count in ((CONNECTION_LOST, lost), (NO_ANSWER, silent)) if count}
    return Seen(
        duration_s=duration_s,
        latencies_ms=run.latencies_ms,
        failures=failures,
        generator_cpu=cpu_s / duration_s,
    )


async def _all_connected(run: _TimedRun) -> None:
    try:
        await asyncio.wait_for(run.all_connected, PATIENCE_S)
    except TimeoutError:
        raise OSError(errno.ETIMEDOUT, "it does not answer AUTH") from None


async def _wait_until(moment_s: float, tick: Callable[[float], None]) -> None:
    while (left_s := moment_s - time.perf_counter()) > 0:
        pause_s = min(left_s, TICK_S)
        await asyncio.sleep(pause_s)
        tick(pause_s)
