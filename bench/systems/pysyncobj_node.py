"""One node of a PySyncObj cluster, as a process: `pysyncobj_node.py OWN OTHER... [--door PORT]`.

With a door it is the one that will lead. Then it takes `SET`s of the Redis protocol on that port, and can do rounds of
writes by itself: it reads one round a line from its standard input (JSON with in_flight, seconds, warm_up, value_bytes,
keys) and answers with one line of JSON. The other nodes serve until they are stopped.
"""

from __future__ import annotations

import contextlib
import json
import random
import select
import socket
import sys
import time
from typing import Any

from pysyncobj import FAIL_REASON, SyncObj, SyncObjConf
from pysyncobj.batteries import ReplDict
from pysyncobj.poller import POLL_EVENT_TYPE

APPEND_PERIOD_S = 0.001
"""How often the leader sends what has come up: the batching that its documentation recommends for throughput."""
TICK_S = 0.00025
IDLE_TICK_S = 0.02


def configuration(*, leads: bool) -> Any:
    """In memory, batched, one thread; the first node stands for election long before the others."""
    return SyncObjConf(
        autoTick=False,
        appendEntriesUseBatch=True,
        appendEntriesPeriod=APPEND_PERIOD_S,
        appendEntriesBatchSizeBytes=1 << 20,
        sendBufferSize=1 << 20,
        recvBufferSize=1 << 20,
        raftMinTimeout=0.5 if leads else 5.0,
        raftMaxTimeout=0.6 if leads else 6.0,
        connectionTimeout=10.0,
        connectionRetryTime=0.2,
        logCompactionMinEntries=1_000_000,
        logCompactionMinTime=3600,
        journalFile=None,
        fullDumpFile=None,
    )


class Door:
    """Takes `SET`s and answers each when it is committed, in the thread and on the poller of the node.

    That spares the way from another thread, the most that a door for PySyncObj could cost. It understands whole `SET`s,
    one at a time on a connection, which is what the load generator sends.
    """

    def __init__(self, node: Any, store: Any, port: int) -> None:
        self.poller, self.store = node._poller, store
        self.parts: dict[int, bytes] = {}
        self.clients: dict[int, socket.socket] = {}
        self.listener = socket.create_server(("127.0.0.1", port), backlog=512)
        self.listener.setblocking(False)
        self.poller.subscribe(self.listener.fileno(), self.accept, POLL_EVENT_TYPE.READ)

    def accept(self, _: int, __: int) -> None:
        """Take a new client."""
        client, _address = self.listener.accept()
        client.setblocking(False)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.clients[client.fileno()] = client
        self.poller.subscribe(client.fileno(), self.receive, POLL_EVENT_TYPE.READ | POLL_EVENT_TYPE.ERROR)

    def receive(self, number: int, _: int) -> None:
        """Begin the write that a client asks for."""
        client = self.clients[number]
        try:
            data = client.recv(65536)
        except OSError:
            data = b""
        if not data:
            self.poller.unsubscribe(number)
            del self.clients[number]
            self.parts.pop(number, None)
            client.close()
            return
        request = self.parts.pop(number, b"") + data
        words = request.split(b"\r\n")
        if len(words) < 8:
            self.parts[number] = request
            return

        def ended(_: object, reason: int) -> None:
            answer = b"+OK\r\n" if reason == FAIL_REASON.SUCCESS else b"-FAILED %d\r\n" % reason
            with contextlib.suppress(OSError):
                client.send(answer)

        self.store.set(words[4], words[6], callback=ended)


class Round:
    """A closed loop of writes: as many are under way as there would be connections."""

    def __init__(self, node: Any, store: Any, wanted: dict[str, Any]) -> None:
        self.node, self.store, self.wanted = node, store, wanted
        self.value = "v" * (wanted["value_bytes"] - 8)
        self.taken_us: list[float] = []
        self.errors: dict[str, int] = {}
        self.number = 0
        self.begin_s = time.monotonic() + wanted["warm_up"]
        self.end_s = self.begin_s + wanted["seconds"]
        self.under_way = 0

    def write(self) -> None:
        """Begin one write; its end begins the next."""
        self.number += 1
        key = f"key:{random.randrange(self.wanted['keys']):012d}"
        begun_s = time.monotonic()

        def ended(_: object, reason: int) -> None:
            now_s = time.monotonic()
            if self.begin_s <= now_s < self.end_s:
                if reason == FAIL_REASON.SUCCESS:
                    self.taken_us.append((now_s - begun_s) * 1e6)
                else:
                    self.errors[str(reason)] = self.errors.get(str(reason), 0) + 1
            self.under_way -= 1

        self.under_way += 1
        self.store.set(key, f"{self.number % 100_000_000:08d}{self.value}", callback=ended)

    def run(self) -> dict[str, Any]:
        """The whole round, and what it gave."""
        while time.monotonic() < self.end_s:
            while self.under_way < self.wanted["in_flight"]:
                self.write()
            self.node.doTick(TICK_S)
        while self.under_way:
            self.node.doTick(TICK_S)
        taken = sorted(self.taken_us) or [0.0]
        p50, p95, p99 = (taken[min(int(p * len(taken)), len(taken) - 1)] for p in (0.5, 0.95, 0.99))
        return {
            "connections": self.wanted["in_flight"],
            "count": len(self.taken_us),
            "all": self.number,
            "seconds": self.wanted["seconds"],
            "per_second": len(self.taken_us) / self.wanted["seconds"],
            "mean_us": sum(taken) / len(taken),
            "p50_us": p50,
            "p95_us": p95,
            "p99_us": p99,
            "max_us": taken[-1],
            "errors": self.errors,
        }


def serve(own: str, others: list[str], door_port: int) -> None:
    """Tick for ever, or serve and do the rounds that are asked for."""
    store = ReplDict()
    node = SyncObj(own, others, configuration(leads=door_port > 0), consumers=[store])
    if not door_port:
        while True:
            node.doTick(IDLE_TICK_S)
    while not (node.isReady() and node._isLeader() and node.hasQuorum):
        node.doTick(IDLE_TICK_S)
    Door(node, store, door_port)
    print("leads", flush=True)
    while wanted := _next_line(node):
        print(json.dumps(Round(node, store, json.loads(wanted)).run()), flush=True)


def _next_line(node: Any) -> str:
    """The next line of standard input, empty at its end; the node goes on serving while it waits."""
    looked_s = 0.0
    while True:
        node.doTick(TICK_S)
        if (now_s := time.monotonic()) > looked_s + IDLE_TICK_S:
            looked_s = now_s
            if select.select([sys.stdin], [], [], 0)[0]:
                return sys.stdin.readline()


if __name__ == "__main__":
    at = sys.argv.index("--door") if "--door" in sys.argv else len(sys.argv)
    serve(sys.argv[1], sys.argv[2:at], int(sys.argv[at + 1]) if at < len(sys.argv) else 0)
