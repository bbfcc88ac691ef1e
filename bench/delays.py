"""Goals 10 and 11: how exactly a write keeps to the simulated delays that were drawn for it.

    python bench/delays.py                       # a table, and a picture beside it: .bench/delays.png

A receipt tells the delays that were drawn for its write and when each follower acknowledged it. Three things are told
apart:

* delivery: our deadline timer alone, in this process, with as many writes of five deadlines each under way: the time
  until the third deadline of a write is handed over, less its third smallest delay. What the simulation itself adds.
* acknowledgement: in a running cluster, the time until a follower's acknowledgement less the delay drawn for it. Adds
  both ways through loopback, the follower's work, and waiting for a core.
* whole excess: in a running cluster, the time until the third acknowledgement less the third smallest drawn delay.

With all clients writing at once the machine is busy with the writes themselves, and the last two are mostly waiting for
a core; `--pause-ms` lets each client wait before its next write.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).resolve().parents[1] / "src"), str(Path(__file__).resolve().parents[1])]

import msgspec
import uvloop
from rich import box
from rich.table import Table

from bench.rounds import MET, NOT_MET, Outcome, Plan
from bench.systems.contract import Tools
from bench.workshop import PLACE, at_least, console, run_command, write_picture
from retinue.cluster import Cluster
from retinue.deadlines import DeadlineTimer
from retinue.errors import EXIT_DONE, ClusterError
from retinue.lab.load import HttpClient, Run
from retinue.ports import free_ports

QUORUM, FOLLOWERS = 3, 5
WARM_UP_SHARE = 0.2


class Case(msgspec.Struct, frozen=True):
    """Delays spread evenly between two bounds, so many writes in flight, and the excess that is the goal."""

    goal: int
    min_ms: float
    max_ms: float
    in_flight: int
    bound_ms: float

    @property
    def name(self) -> str:
        """As people say it."""
        return f"U[{self.min_ms:g}, {self.max_ms:g}] ms, {self.in_flight} in flight"


CASES = (Case(10, 0, 1000, 10, 0.15), Case(10, 0, 1000, 1000, 0.15), Case(11, 0.1, 1, 10, 0.06))


class Measured(msgspec.Struct):
    """What one case gave, in ms: one number a write for the first and the last, one an acknowledgement between."""

    case: Case
    delivery_ms: list[float]
    acknowledgements_ms: list[float]
    excess_ms: list[float]
    per_second: float


class _AckedBy(msgspec.Struct):
    node: str
    ms: float


class _Receipt(msgspec.Struct):
    acked_by: list[_AckedBy]
    replication_time_ms: float
    delays_ms: dict[str, float]


class _Client(HttpClient):
    """One connection: writes, keeps the body of each answer, pauses, writes again until told to stop."""

    run: _Run

    def __init__(self, run: _Run, number: int) -> None:
        super().__init__(run, number)
        self.run = run
        self.body: list[bytes] = []

    def on_body(self, body: bytes) -> None:
        """Part of the body of an answer."""
        self.body.append(body)

    def on_message_complete(self) -> None:
        """A whole answer."""
        self.run.keep(self.parser.get_status_code(), b"".join(self.body))
        self.body.clear()
        if self.run.pause_s:
            asyncio.get_running_loop().call_later(self.run.pause_s * random.uniform(0.5, 1.5), self.next_request)
        else:
            self.next_request()


class _Run(Run):
    """The writes of one case. Answers are only kept while it runs and read afterwards, to disturb little."""

    def __init__(self, host: str, seconds: float, pause_s: float) -> None:
        begun_s = time.perf_counter()
        super().__init__(self._request, until_s=begun_s + seconds * (1 + WARM_UP_SHARE))
        self.from_s = begun_s + seconds * WARM_UP_SHARE
        self.template = (
            b"PUT /kv/key%%d-%%d HTTP/1.1\r\nHost: %s\r\nContent-Type: text/plain\r\nContent-Length: 100\r\n\r\n%s"
            % (host.encode(), b"v" * 100)
        )
        self.pause_s = pause_s
        self.bodies: list[bytes] = []

    def _request(self, client: int, sequence: int) -> bytes:
        return self.template % (client, sequence % 10)

    def keep(self, status: int, body: bytes) -> None:
        """Keep an answer."""
        if status != 200:
            self.failures[status] = self.failures.get(status, 0) + 1
        elif time.perf_counter() >= self.from_s:
            self.bodies.append(body)


def measure(cluster: Cluster, case: Case, seconds: float, pause_ms: float = 0.0) -> Measured:
    """Write for so long with the delays of this case. Raises `ClusterError` when a write fails."""
    network = {"min_delay_ms": case.min_ms, "max_delay_ms": case.max_ms, "delay_distribution": "uniform"}
    cluster.request("leader", "PATCH", "/config", network).checked()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        delivery_ms = runner.run(_deliveries(case, max(1.0, min(seconds, 3.0))))
        run = runner.run(_write(cluster.ports[0], case.in_flight, seconds, pause_ms))
    if run.failures or not run.bodies:
        raise ClusterError(f"{case.name}: writes failed, by status: {run.failures or 'no answer at all'}.")
    receipts = [msgspec.json.decode(body, type=_Receipt) for body in run.bodies]
    whole = [receipt for receipt in receipts if len(receipt.delays_ms) == FOLLOWERS]
    late_ms = [ack.ms - receipt.delays_ms[ack.node] for receipt in whole for ack in receipt.acked_by]
    excess_ms = [r.replication_time_ms - sorted(r.delays_ms.values())[QUORUM - 1] for r in whole]
    return Measured(case, delivery_ms, late_ms, excess_ms, len(receipts) / seconds)


async def _write(port: int, in_flight: int, seconds: float, pause_ms: float) -> _Run:
    loop = asyncio.get_running_loop()
    run = _Run(f"127.0.0.1:{port}", seconds, pause_ms / 1000)
    clients = []
    for number in range(in_flight):
        _, client = await loop.create_connection(partial(_Client, run, number), "127.0.0.1", port)
        clients.append(client)
    await asyncio.gather(*(client.done for client in clients))
    return run


class _Deadlines:
    """Writes that are nothing but their five deadlines: the next begins when the third of the last was handed over."""

    def __init__(self, case: Case, until_s: float) -> None:
        self.case, self.until_s = case, until_s
        self.excess_ms: list[float] = []
        loop = asyncio.get_running_loop()
        self.timer: DeadlineTimer[tuple[_Drawn, float]] = DeadlineTimer(loop, self.due)
        self.ended: asyncio.Future[None] = loop.create_future()
        self.begin(case.in_flight)

    def begin(self, count: int) -> None:
        """Draw so many writes and set their deadlines."""
        items = []
        for _ in range(count):
            delays_ms = [random.uniform(self.case.min_ms, self.case.max_ms) for _ in range(FOLLOWERS)]
            write = _Drawn(time.monotonic(), sorted(delays_ms)[QUORUM - 1])
            items += [(write.begun_s + delay_ms / 1000, (write, delay_ms)) for delay_ms in delays_ms]
        self.timer.schedule(items)

    def due(self, items: list[tuple[_Drawn, float]]) -> None:
        """Deadlines that have come."""
        now_s = time.monotonic()
        complete = 0
        for write, _ in items:
            write.delivered += 1
            if write.delivered == QUORUM:
                self.excess_ms.append((now_s - write.begun_s) * 1000 - write.third_ms)
                complete += 1
        if now_s < self.until_s:
            self.begin(complete)
        elif not len(self.timer) and not self.ended.done():
            self.ended.set_result(None)


class _Drawn:
    """One write of `_Deadlines`."""

    __slots__ = ("begun_s", "delivered", "third_ms")

    def __init__(self, begun_s: float, third_ms: float) -> None:
        self.begun_s, self.third_ms, self.delivered = begun_s, third_ms, 0


async def _deliveries(case: Case, seconds: float) -> list[float]:
    run = _Deadlines(case, time.monotonic() + seconds)
    await run.ended
    run.timer.close()
    return run.excess_ms


def start_cluster(tools: Tools, name: str, *, synced: bool = False) -> Cluster:
    """A cluster for these measurements, which is to be entered and so started. Its state is in memory by default."""
    settings = {
        "write_quorum": str(QUORUM),
        "memory": str(not synced).lower(),
        "min_free_bytes": "0",
        "max_connections": "2000",
    }
    return Cluster(tools.data / name, free_ports(FOLLOWERS + 1), settings)


def outcomes_of_goal_10(tools: Tools, plan: Plan) -> list[Outcome]:
    """The rows of goal 10 in the table of goals."""
    return _outcomes(10, tools, plan)


def outcomes_of_goal_11(tools: Tools, plan: Plan) -> list[Outcome]:
    """The rows of goal 11 in the table of goals."""
    return _outcomes(11, tools, plan)


def _outcomes(goal: int, tools: Tools, plan: Plan) -> list[Outcome]:
    found = []
    with start_cluster(tools, f"delays-{goal}") as cluster:
        for case in (case for case in CASES if case.goal == goal):
            rounds = [measure(cluster, case, max(plan.seconds, 2.0)) for _ in range(plan.rounds)]
            rows = [
                ("3rd delivery (timer alone)", [measured.delivery_ms for measured in rounds]),
                ("whole excess", [measured.excess_ms for measured in rounds]),
            ]
            acks_ms = statistics.median(statistics.fmean(measured.acknowledgements_ms) for measured in rounds)
            for what, values in rows:
                mean_ms = statistics.median(statistics.fmean(each) for each in values)
                found.append(
                    Outcome(
                        number=goal,
                        what=f"{case.name}: {what}",
                        goal=f"<= {case.bound_ms:g} ms",
                        verdict=MET if mean_ms <= case.bound_ms else NOT_MET,
                        ours=f"{mean_ms:.3f} ms",
                        note="" if what.startswith("3rd delivery") else f"any acknowledgement: {acks_ms:.3f} ms",
                    )
                )
    return found


def main(words: Sequence[str]) -> int:
    """The command of this file."""
    parser = argparse.ArgumentParser(prog="bench/delays.py", description="how exactly writes keep to simulated delays")
    parser.add_argument("--seconds", type=at_least(0.5), default=10.0, help="seconds for each case (10)")
    parser.add_argument("--pause-ms", type=at_least(0.0), default=0.0, help="pause of a client between two writes (0)")
    parser.add_argument("--synced", action="store_true", help="sync to disk, instead of keeping all in memory")
    parser.add_argument("--plot", type=Path, default=PLACE / "delays.png", help="where the picture goes")
    arguments = parser.parse_args(words)

    def body(tools: Tools) -> int:
        with start_cluster(tools, "delays", synced=arguments.synced) as cluster:
            results = [measure(cluster, case, arguments.seconds, arguments.pause_ms) for case in CASES]
        _show(results)
        write_picture("delays", results, arguments.plot)
        return EXIT_DONE

    return run_command(body)


def _show(results: list[Measured]) -> None:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("goal", "delays", "writes/s", "what", "mean ms", "p50", "p99", "wanted"):
        table.add_column(column, justify="left" if column in ("delays", "what") else "right")
    for result in results:
        case = result.case
        first = (str(case.goal), case.name, f"{result.per_second:,.0f}")
        for what, values, wanted in (
            ("delivery (timer alone)", result.delivery_ms, f"<= {case.bound_ms:g}"),
            ("acknowledgement", result.acknowledgements_ms, ""),
            ("whole excess", result.excess_ms, f"<= {case.bound_ms:g}"),
        ):
            p50, p99 = (sorted(values)[min(int(p * len(values)), len(values) - 1)] for p in (0.5, 0.99))
            table.add_row(*first, what, f"{statistics.fmean(values):.3f}", f"{p50:.3f}", f"{p99:.3f}", wanted)
            first = ("", "", "")
    console().print(table)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
