"""`retinue bench`: latency and throughput of a local cluster or a running one, by number of clients and much else.

Every write of the local cluster is synced to disk by the leader and by each follower that acknowledges it, so one
client alone waits for two syncs a write, while many clients share them (group commit).
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TypeVar

import msgspec
import uvloop
from rich import box
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from retinue import tokens
from retinue.errors import EXIT_DONE, ClusterError, RetinueError, SettingsError
from retinue.lab import bench_grid
from retinue.lab.bench_report import RESULTS, Report, write_pictures
from retinue.lab.bench_run import ending_like_ctrl_c, found_at, local_cluster, local_settings, measure
from retinue.lab.experiments.registry import packages_missing
from retinue.lab.load import LoadResult, closed_loop
from retinue.lab.reports.folder import create
from retinue.lab.reports.text import print_lines, print_table

QUICK_CLIENTS = (1, 64)
QUICK_DURATION_S = 3.0
WARM_UP_S = 1.0
GRID_ONLY = ("door", "operation", "pipeline", "out")
DEFAULT_OUT = Path("results")

_T = TypeVar("_T", int, str)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `retinue bench`. Where several values may be given, all combinations are measured."""
    parser.add_argument(
        "--quick", action="store_true", help="one client against 64, writes over HTTP, a few seconds each; no files"
    )
    several = parser.add_argument_group("what to measure: one value or several, such as 1,16,64 or 0..5")
    several.add_argument("--clients", metavar="N,...", help="clients at once, 1 to 1000 (1,4,16,64,128,256)")
    several.add_argument("--quorum", metavar="K,...", help="write quorums, 0 to the number of followers (3)")
    several.add_argument("--value-bytes", metavar="N,...", help="bytes of each value, up to 1 MiB (100)")
    several.add_argument("--operation", metavar="NAME,...", help="write, read (write)")
    several.add_argument("--door", metavar="NAME,...", help="http, resp: HTTP and the Redis protocol (http)")
    several.add_argument("--pipeline", metavar="N,...", help="requests that a RESP client sends at once, to 1000 (1)")
    several.add_argument("--storage", metavar="NAME,...", help="disk, memory: synced to disk, or nothing is (disk)")
    parser.add_argument("--memory", action="store_true", help="the same as --storage memory")
    parser.add_argument("--duration", metavar="S", help="seconds for each case (5; with --quick 3)")
    parser.add_argument("--followers", metavar="N", help="followers of the local cluster, up to 16 (5)")
    parser.add_argument(
        "--url",
        help="the leader of a running cluster, instead of starting one here; key0 to key999 are written there, with"
        " the token in RETINUE_TOKEN",
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="where the results go: JSON and pictures (results)")
    parser.add_argument("--json", action="store_true", help="print the results as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Run the benchmark and print its table. Raises `SettingsError` for options that are not possible."""
    return _quick(arguments) if arguments.quick else _grid(arguments)


def _grid(arguments: argparse.Namespace) -> int:
    grid = found_at(bench_grid.grid_from(arguments))
    report = Report(create(arguments.out or DEFAULT_OUT, "bench"), grid)
    stopped_by: BaseException | None = None
    try:
        measure(grid, report.keep, quiet=arguments.json)
    except (Exception, KeyboardInterrupt) as error:
        stopped_by = error
    finally:
        if not report.points:
            report.folder.rmdir()
    if stopped_by is None and not any(point.requests for point in report.points):
        stopped_by = ClusterError(
            f"No request succeeded; the failures are counted by kind in {report.folder / RESULTS}."
        )
    if report.points:
        _show_report(report, stopped_by, as_json=arguments.json)
    if stopped_by is not None:
        raise stopped_by
    return EXIT_DONE


def _show_report(report: Report, stopped_by: BaseException | None, *, as_json: bool) -> None:
    """Write the pictures and show all; an error carries the JSON, so that there is one JSON text only."""
    files, missing = [RESULTS], ""
    try:
        files += write_pictures(report)
    except ModuleNotFoundError as error:
        missing = f"No pictures: {packages_missing(error)}"
    if as_json:
        shown = report.plain() | {"folder": str(report.folder), "files": files}
        if isinstance(stopped_by, RetinueError):
            stopped_by.fields |= shown
        else:
            print(msgspec.json.encode(shown).decode())
        return
    print_table(report.table())
    print_lines(f"Results: {', '.join(str(report.folder / name) for name in files)}", *filter(None, [missing]))


def _quick(arguments: argparse.Namespace) -> int:
    for name in GRID_ONLY:
        if getattr(arguments, name) is not None:
            raise SettingsError(f"--quick writes over HTTP and makes no files: leave out --{name}, or --quick.")
    clients = bench_grid.clients_from(arguments, QUICK_CLIENTS)
    duration_s = bench_grid.duration_from(arguments, QUICK_DURATION_S)
    value_bytes = _single("--value-bytes", bench_grid.value_sizes_from(arguments))
    with ending_like_ctrl_c(), ExitStack() as stack:
        url, token = bench_grid.url_from(arguments), ""
        if url is None:
            url = _start_cluster(arguments, stack)
        else:
            token = tokens.from_environment()
        results = _measure(url, token, clients, duration_s, value_bytes, quiet=arguments.json)
    if arguments.json:
        print(msgspec.json.encode([_as_plain(result) for result in results]).decode())
    else:
        _show(results)
    return EXIT_DONE


def _single(option: str, values: tuple[_T, ...]) -> _T:
    if len(values) > 1:
        raise SettingsError(f"--quick takes one value for {option}: leave the others out, or --quick.")
    return values[0]


def _start_cluster(arguments: argparse.Namespace, stack: ExitStack) -> str:
    followers = bench_grid.followers_from(arguments)
    quorum = _single("--quorum", bench_grid.quorums_from(arguments, followers))
    storage = _single("--storage", bench_grid.storages_from(arguments))
    settings = local_settings(quorum=quorum, storage=storage)
    return stack.enter_context(local_cluster(followers, settings)).url("leader")


def _measure(
    url: str, token: str, clients: tuple[int, ...], duration_s: float, value_bytes: int, *, quiet: bool
) -> list[LoadResult]:
    results = []
    with Progress(console=Console(file=sys.stderr), transient=True, disable=quiet) as progress:
        task = progress.add_task("measuring", total=len(clients) * (duration_s + WARM_UP_S))
        for number in clients:
            progress.update(task, description=f"{number} clients")
            try:
                _run_load(url, token, number, WARM_UP_S, value_bytes)
                progress.advance(task, WARM_UP_S)
                results.append(_run_load(url, token, number, duration_s, value_bytes))
            except OSError as error:
                raise ClusterError(f"The node at {url} cannot be reached ({error.strerror}): is it running?") from None
            progress.advance(task, duration_s)
    return results


def _run_load(url: str, token: str, clients: int, duration_s: float, value_bytes: int) -> LoadResult:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(closed_loop(url, clients, duration_s, value_bytes=value_bytes, token=token))


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
