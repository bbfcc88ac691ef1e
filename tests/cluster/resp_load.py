"""Full load over the Redis protocol, in which every write is remembered with what its client was told."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Mapping

import hiredis

from retinue.cluster import Cluster
from retinue.lab.history import Outcome
from retinue.lab.targets.contract import Cell
from retinue.lab.targets.opening import Where
from retinue.lab.verify import verify
from retinue.settings import RESP_PORT_OFFSET
from tests.cluster.verification import wait_for_agreement
from tests.cluster.workload import Load

VALUE_BYTES = 100
OVERWRITTEN_KEYS = 16
_RETRY_PAUSE_S = 0.02

# The one error after which a write may still take effect; after all others nothing was written.
_DOUBTFUL = "UNKNOWN"


class Client:
    """One client: its writes by number, over as many connections as it takes.

    `outcomes[n]` is what it knows of write n. It writes `keys` keys in turn; 0 means that every write has its own key.
    """

    def __init__(self, name: str, keys: int) -> None:
        self.name = name
        self.outcomes: list[Outcome] = []
        self._keys = keys

    def key(self, number: int) -> str:
        """The key of a write."""
        return f"{self.name}.{number % self._keys if self._keys else number}"

    def value(self, number: int) -> str:
        """The value of a write; no other write has it."""
        return f"{self.name} {number} ".ljust(VALUE_BYTES, "x")

    def request(self, number: int) -> bytes:
        """A write as it is sent."""
        key, value = self.key(number), self.value(number)
        return b"*3\r\n$3\r\nSET\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n" % (len(key), key.encode(), len(value), value.encode())

    def complaints(self, dump: Mapping[str, Cell]) -> list[str]:
        """What is wrong with what a node holds in the end: acknowledged writes that are lost, others that came back."""
        held: dict[str, list[int]] = {}
        for number in range(len(self.outcomes)):
            held.setdefault(self.key(number), []).append(number)
        found = []
        for key, numbers in held.items():
            acknowledged = [number for number in numbers if self.outcomes[number] is Outcome.OK]
            # Writes of one connection take effect in order: only those from the last acknowledged one on may be there.
            since = acknowledged[-1] if acknowledged else 0
            possible = {
                self.value(number)
                for number in numbers
                if number >= since and self.outcomes[number] is not Outcome.FAILED
            }
            cell = dump.get(key)
            if cell is None and acknowledged:
                found.append(f"{key}: acknowledged write {since} is lost")
            elif cell is not None and cell.value not in possible:
                found.append(f"{key}: holds {cell.value.rstrip('x')!r}, acknowledged was write {since}")
        return found


class _Connection(asyncio.Protocol):
    """One connection of a client: a pipeline of writes, and the next one when all of it is answered."""

    def __init__(self, load: RespLoad, client: Client) -> None:
        self.lost = asyncio.get_running_loop().create_future()
        self._load = load
        self._client = client
        self._reader = hiredis.Reader(encoding="utf-8")
        self._next = 0  # The write whose reply comes next.
        self._sent_s = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._send()

    def _send(self) -> None:
        if self._load.ended or self._transport.is_closing():
            self._transport.close()
            return
        outcomes = self._client.outcomes
        self._next = len(outcomes)
        outcomes += [Outcome.UNKNOWN] * self._load.pipeline
        self._sent_s = time.monotonic()
        self._transport.write(b"".join(map(self._client.request, range(self._next, len(outcomes)))))

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        now_s = time.monotonic()
        while (reply := self._reader.gets()) is not False:
            if reply == "OK":
                self._client.outcomes[self._next] = Outcome.OK
                self._load.latencies.append((self._sent_s, (now_s - self._sent_s) * 1000))
            else:
                kind = str(reply).split(" ", 1)[0]
                self._load.errors[kind] += 1
                self._client.outcomes[self._next] = Outcome.UNKNOWN if kind == _DOUBTFUL else Outcome.FAILED
            self._next += 1
        if self._next == len(self._client.outcomes):
            refused = self._client.outcomes[-1] is not Outcome.OK
            asyncio.get_running_loop().call_later(_RETRY_PAUSE_S if refused else 0, self._send)

    def connection_lost(self, error: Exception | None) -> None:
        self.lost.set_result(None)


class RespLoad(Load):
    """Clients that write to the leader as fast as it takes it, until the end of the `with` block.

    Those whose connection breaks connect again. `latencies` are the acknowledged writes: when sent (monotonic s), and
    how long it took (ms). `errors` counts the others by their first word.
    """

    def __init__(self, cluster: Cluster, *, connections: int = 32, pipeline: int = 4) -> None:
        super().__init__(cluster)
        self.pipeline = pipeline
        self.writers = [Client(f"c{n}", OVERWRITTEN_KEYS if n % 4 == 0 else 0) for n in range(connections)]
        self.latencies: list[tuple[float, float]] = []
        self.errors: Counter[str] = Counter()
        self._port = cluster.ports[0] - RESP_PORT_OFFSET

    @property
    def ended(self) -> bool:
        """Whether no more is to be sent."""
        return self._ended

    def acknowledged(self) -> int:
        return len(self.latencies)

    def latencies_ms(self, begin_s: float, end_s: float) -> list[float]:
        """How long the writes took that were sent in this time."""
        return [took_ms for sent_s, took_ms in list(self.latencies) if begin_s <= sent_s < end_s]

    async def _all(self) -> None:
        await asyncio.gather(*map(self._write, self.writers))

    async def _write(self, client: Client) -> None:
        loop = asyncio.get_running_loop()
        while not self._ended:
            try:
                _, connection = await loop.create_connection(lambda: _Connection(self, client), "127.0.0.1", self._port)
                await connection.lost
            except OSError:
                await asyncio.sleep(_RETRY_PAUSE_S)


def check(cluster: Cluster, load: RespLoad, timeout_s: float = 30) -> None:
    """What must hold in the end: all nodes are identical, every acknowledged write is there, no version given twice."""
    wait_for_agreement(cluster, timeout_s)
    findings = asyncio.run(verify(Where(url=cluster.url("leader")), (), timeout_s, timeout_s))
    assert findings.sentences() == []
    assert findings.settled.equal
    assert set(findings.settled.dumps) == set(cluster.names)
    dump = findings.settled.dumps["leader"]
    complaints = [complaint for client in load.writers for complaint in client.complaints(dump)]
    assert complaints[:5] == []
    assert len({cell.version for cell in dump.values()}) == len(dump)
    assert set(dump) <= {client.key(n) for client in load.writers for n in range(len(client.outcomes))}
