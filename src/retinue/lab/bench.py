"""`retinue bench`: latency and throughput of writes by number of clients, on a local cluster or a running one.

Every write of the local cluster is synced to disk by the leader and by each follower that acknowledges it, so one
client alone waits for two syncs a write, while many clients share them (group commit).
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import msgspec
import uvloop
from rich import box
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from retinue.cluster import Cluster
from retinue.errors import EXIT_DONE, ClusterError, SettingsError
from retinue.lab.load import LoadResult, closed_loop
from retinue.ports import free_ports

QUICK_CLIENTS = (1, 64)
CLIENTS = (1, 4, 16, 64, 128, 256)
WARM_UP_S = 1.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `retinue bench`."""
    parser.add_argument("--quick", action="store_true", help="one client against 64, a few seconds each")
    parser.add_argument("--clients", help="numbers of clients, separated by commas")
    parser.add_argument("--duration", type=float, help="seconds for each number of clients (5; with --quick 3)")
    parser.add_argument("--quorum", type=int, default=3, help="write quorum of the local cluster (3)")
    parser.add_argument("--followers", type=int, default=5, help="followers of the local cluster (5)")
    parser.add_argument("--value-bytes", type=int, default=100, help="bytes of each value (100)")
    parser.add_argument("--memory", action="store_true", help="keep the local cluster in memory: nothing is synced")
    parser.add_argument("--url", help="the leader of a running cluster, instead of starting one here")
    parser.add_argument("--json", action="store_true", help="print the results as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Run the benchmark and print its table."""
    clients = _clients(arguments)
    duration_s = arguments.duration or (3.0 if arguments.quick else 5.0)
    with ExitStack() as stack:
        url = arguments.url or _start_cluster(arguments, stack)
        results = _measure(url, clients, duration_s, arguments.value_bytes, quiet=arguments.json)
    if arguments.json:
        print(msgspec.json.encode([_as_plain(result) for result in results]).decode())
    else:
        _show(results)
    return EXIT_DONE


def _clients(arguments: argparse.Namespace) -> tuple[int, ...]:
    if arguments.clients is None:
        return QUICK_CLIENTS if arguments.quick else CLIENTS
    try:
        numbers = tuple(int(number) for number in arguments.clients.split(","))
    except ValueError:
        numbers = ()
    if not numbers or not all(1 <= number <= 4096 for number in numbers):
        raise SettingsError(
            f"--clients {arguments.clients} is not allowed: give numbers from 1 to 4096, such as 1,16,64."
        )
    return numbers


def _start_cluster(arguments: argparse.Namespace, stack: ExitStack) -> str:
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="retinue-bench-", dir=Path.cwd()))
    settings = {"write_quorum": str(arguments.quorum), "memory": str(arguments.memory).lower(), "min_free_bytes": "0"}
    cluster = Cluster(Path(folder), free_ports(arguments.followers + 1), settings)
    stack.enter_context(cluster)
    return cluster.url("leader")


def _measure(
    url: str, clients: tuple[int, ...], duration_s: float, value_bytes: int, *, quiet: bool
) -> list[LoadResult]:
    results = []
    with Progress(console=Console(file=sys.stderr), transient=True, disable=quiet) as progress:
        task = progress.add_task("measuring", total=len(clients) * (duration_s + WARM_UP_S))
        for number in clients:
            progress.update(task, description=f"{number} clients")
            try:
                _run_load(url, number, WARM_UP_S, value_bytes)
                progress.advance(task, WARM_UP_S)
                results.append(_run_load(url, number, duration_s, value_bytes))
            except OSError as error:
                raise ClusterError(f"The node at {url} cannot be reached ({error.strerror}): is it running?") from None
            progress.advance(task, duration_s)
    return results


def _run_load(url: str, clients: int, duration_s: float, value_bytes: int) -> LoadResult:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(closed_loop(url, clients, duration_s, value_bytes=value_bytes))


def _as_plain(result: LoadResult) -> dict[str, object]:
    return {
        "clients": result.clients,
        "duration_s": round(result.duration_s, 3),
        "writes": len(result.latencies_ms),
        "writes_per_second": round(result.per_second, 1),
        "p50_ms": round(result.quantile_ms(0.5), 3),
        "p95_ms": round(result.quantile_ms(0.95), 3),
        "p99_ms": round(result.quantile_ms(0.99), 3),
        "failures": {str(status): count for status, count in result.failures.items()},
    }


def _show(results: list[LoadResult]) -> None:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("clients", "writes/s", "speed-up", "p50 ms", "p95 ms", "p99 ms", "failures"):
        table.add_column(column, justify="right")
    first = results[0].per_second
    for result in results:
        table.add_row(
            str(result.clients),
            f"{result.per_second:,.0f}",
            f"{result.per_second / first:.1f}" if first else "-",
            *(f"{result.quantile_ms(p):.2f}" for p in (0.5, 0.95, 0.99)),
            str(sum(result.failures.values())),
        )
    Console().print(table)
