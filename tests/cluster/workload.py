"""Clients that write down what they asked and what they were told, and a load of them that runs beside a test."""

from __future__ import annotations

import asyncio
import itertools
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

from retinue.cluster import Cluster
from retinue.lab.connection import AnswerLost, Connection, NotSent, Reply, parse_address
from retinue.lab.history import PRESENT, Kind, Level, Operation, Outcome

Session = tuple[int, int]

_REFUSED = "not_written"
_RETRY_PAUSE_S = 0.02


class Client:
    """One client. Every operation it finishes is appended to `history`; values are unique in it.

    `leader` says which node takes writes; it is asked before every attempt. `refusals` has the sentences it was told.
    """

    def __init__(
        self, name: str, urls: Mapping[str, str], history: list[Operation], leader: Callable[[], str] = lambda: "leader"
    ) -> None:
        self.name = name
        self.history = history
        self.session: Session | None = None
        self.refusals: list[str] = []
        self._leader = leader
        self._connections = {node: Connection(parse_address(url)) for node, url in urls.items()}
        self._count = 0

    def close(self) -> None:
        """Hang up everywhere."""
        for connection in self._connections.values():
            connection.close()

    async def ask(self, node: str, method: str, path: str, body: object = None, **more: Any) -> Reply:
        """Any other request; not recorded."""
        return await self._connections[node].ask(method, path, body, **more)

    # --- writing ---

    async def put(
        self, key: str, *, expected: int | None = None, timeout_ms: float = 4000, retry_s: float = 0
    ) -> Operation:
        """Write a new value. What is not definite is tried again under the same id for `retry_s` seconds."""
        self._count += 1
        value = f"{self.name}-{self._count}"
        return await self._write("PUT", key, {"value": value}, value, expected, timeout_ms, retry_s)

    async def delete(self, key: str, *, timeout_ms: float = 4000, retry_s: float = 0) -> Operation:
        """Delete a key, which must be there."""
        self._count += 1
        return await self._write("DELETE", key, None, None, PRESENT, timeout_ms, retry_s)

    async def _write(
        self,
        method: str,
        key: str,
        body: object,
        value: str | None,
        expected: int | None,
        timeout_ms: float,
        retry_s: float,
    ) -> Operation:
        request_id = f"{self.name}.{self._count}"
        headers = {"Idempotency-Key": request_id}
        if method == "PUT" and expected is not None:
            headers |= {"If-None-Match": "*"} if expected == 0 else {"If-Match": f'"{expected}"'}
        path = f"/kv/{quote(key, safe='')}?timeout_ms={timeout_ms:g}"
        invoked_s = time.monotonic()
        doubtful = False
        while True:
            outcome, version = await self._attempt(method, path, body, headers)
            doubtful |= outcome is Outcome.UNKNOWN
            definite = outcome is Outcome.OK or not (doubtful or outcome is Outcome.FAILED)
            if definite or time.monotonic() >= invoked_s + retry_s:
                break
            await asyncio.sleep(_RETRY_PAUSE_S)
        if doubtful and outcome is not Outcome.OK:
            # A refused retry says nothing about the attempt before it.
            outcome, version = Outcome.UNKNOWN, 0
        operation = Operation(
            client=self.name,
            kind=Kind.PUT if method == "PUT" else Kind.DELETE,
            key=key,
            invoked_ms=invoked_s * 1000,
            completed_ms=None if outcome is Outcome.UNKNOWN else time.monotonic() * 1000,
            outcome=outcome,
            value=value,
            expected=expected,
            version=version,
            request_id=request_id,
        )
        self.history.append(operation)
        return operation

    async def _attempt(self, method: str, path: str, body: object, headers: Mapping[str, str]) -> tuple[Outcome, int]:
        """One attempt: what the client knows after it, and the version."""
        try:
            reply = await self._connections[self._leader()].ask(method, path, body, headers)
        except NotSent as error:
            self.refusals.append(f"not sent: {error}")
            return Outcome.FAILED, 0
        except AnswerLost:
            return Outcome.UNKNOWN, 0
        told = reply.told
        if reply.status == 200:
            epoch, version = (int(number) for number in told["session"].split("."))
            self.session = max(self.session or (0, 0), (epoch, version))
            return Outcome.OK, version
        if reply.status in (404, 412):
            return Outcome.CONDITION_FAILED, int(told.get("current") or 0)
        if told.get("outcome") == "unknown":
            return Outcome.UNKNOWN, 0
        assert told.get("outcome") == _REFUSED, f"{method} {path}: {reply.status} {told}"
        assert not told.get("version"), f"a refusal with a version: {told}"
        self.refusals.append(told["detail"])
        return Outcome.FAILED, 0

    # --- reading ---

    async def read(self, key: str, level: Level = Level.COMMITTED, node: str = "") -> Operation:
        """Read a key: of the leader unless `node` is another. A session read asks for what this client knows."""
        place = node or self._leader()
        path = f"/kv/{quote(key, safe='')}?timeout_ms=4000"
        session = self.session if level is Level.SESSION else None
        if level is Level.SESSION:
            path += f"&min_version={session[0]}.{session[1]}" if session else ""
        else:
            path += f"&read={level.value}"
        invoked_ms = time.monotonic() * 1000
        outcome, observed, version = Outcome.FAILED, None, 0
        try:
            reply = await self._connections[place].ask("GET", path)
        except (NotSent, AnswerLost):
            reply = None
        if reply is not None and reply.status == 200:
            outcome, observed, version = Outcome.OK, str(reply.told["value"]), int(reply.told["version"])
        elif reply is not None and reply.status == 404:
            outcome = Outcome.OK
        elif reply is not None:
            assert reply.status in (403, 503), f"GET {path}: {reply.status} {reply.body!r}"
        if level is Level.SESSION and session is not None:
            self.session = (session[0], max(session[1], version))
        operation = Operation(
            client=self.name,
            kind=Kind.READ,
            key=key,
            invoked_ms=invoked_ms,
            completed_ms=time.monotonic() * 1000,
            outcome=outcome,
            observed=observed,
            version=version,
            level=level,
            node=place,
            session=session,
        )
        self.history.append(operation)
        return operation


def urls_of(cluster: Cluster) -> dict[str, str]:
    """Name and address of every node."""
    return {name: cluster.url(name) for name in cluster.names}


class Load:
    """Clients that read and write a few keys until the end of the `with` block, in a thread of their own.

    `target` is the node they take for the leader; a test changes it when it promotes another. Every second client tries
    again what was not definite, under the same request id. `history` has what they saw.
    """

    def __init__(self, cluster: Cluster, *, clients: int = 8, keys: int = 6, pause_s: float = 0.005) -> None:
        self.target = "leader"
        self.history: list[Operation] = []
        self.error: BaseException | None = None
        self._urls = urls_of(cluster)
        self._clients = clients
        self._keys = [f"key{number}" for number in range(keys)]
        self._pause_s = pause_s
        self._ended = False
        self._thread = threading.Thread(target=self._run, name="load")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended = True
        self._thread.join()
        if self.error is not None and error is None:
            raise self.error

    def acknowledged(self) -> int:
        """Writes that were acknowledged so far."""
        return sum(op.is_write and op.outcome is Outcome.OK for op in list(self.history))

    def wait_for_writes(self, count: int, timeout_s: float = 20) -> None:
        """Wait until so many more writes have been acknowledged."""
        before = self.acknowledged()
        wait_until(
            lambda: self.error is not None or self.acknowledged() >= before + count, f"{count} writes go on", timeout_s
        )

    def _run(self) -> None:
        try:
            asyncio.run(self._all())
        except BaseException as error:  # it is raised again where the load is waited for
            self.error = error

    async def _all(self) -> None:
        clients = [
            Client(f"c{number}", self._urls, self.history, lambda: self.target) for number in range(self._clients)
        ]
        try:
            await asyncio.gather(*(self._drive(client, number % 2 == 0) for number, client in enumerate(clients)))
        finally:
            for client in clients:
                client.close()

    async def _drive(self, client: Client, persistent: bool) -> None:
        dice = random.Random(client.name)
        retry_s = 10.0 if persistent else 0.0
        seen: dict[str, int] = {}
        while not self._ended:
            key, draw = dice.choice(self._keys), dice.random()
            if draw < 0.45:
                op = await client.put(key, retry_s=retry_s)
            elif draw < 0.6:
                op = await client.put(key, expected=seen.get(key, 0), retry_s=retry_s)
            elif draw < 0.7:
                op = await client.delete(key, retry_s=retry_s)
            else:
                op = await client.read(key, Level.STRONG if draw < 0.9 else Level.COMMITTED)
            if op.outcome in (Outcome.OK, Outcome.CONDITION_FAILED):
                seen[key] = 0 if op.kind is Kind.DELETE else op.version
            await asyncio.sleep(self._pause_s * dice.uniform(0.5, 1.5) if op.outcome is not Outcome.FAILED else 0.03)


def wait_until(condition: Callable[[], object], what: str, timeout_s: float = 20, poll_s: float = 0.02) -> float:
    """Wait until `condition` is true; the seconds that it took. Fails the test if it does not come true."""
    begun_s = time.monotonic()
    while not condition():
        waited_s = time.monotonic() - begun_s
        assert waited_s < timeout_s, f"not within {timeout_s} s: {what}"
        time.sleep(poll_s)
    return time.monotonic() - begun_s


_runs = itertools.count()


def in_parallel(cluster: Cluster, jobs: Sequence[Callable[[Client], Any]], clients: int) -> list[Operation]:
    """Let `clients` clients do these jobs, each one after another; what they saw. No write may be refused."""
    history: list[Operation] = []
    refusals: list[str] = []

    async def drive(client: Client, waiting: list[Callable[[Client], Any]]) -> None:
        while waiting:
            await waiting.pop()(client)
        client.close()
        refusals.extend(client.refusals)

    async def run() -> None:
        waiting = list(reversed(jobs))
        run_number = next(_runs)
        made = [Client(f"p{run_number}.{number}", urls_of(cluster), history) for number in range(clients)]
        await asyncio.gather(*(drive(client, waiting) for client in made))

    asyncio.run(run())
    assert not refusals, refusals
    return history
