"""Measuring the grid of `retinue bench`: clusters are started, loaded case by case, and stopped, whatever happens."""

from __future__ import annotations

import asyncio
import itertools
import json
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import uvloop
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from retinue import tokens
from retinue.call import call
from retinue.cluster import Cluster
from retinue.errors import ClusterError, RetinueError, SettingsError
from retinue.lab.bench_grid import DISK, MEMORY, READ, RESP, Case, Grid
from retinue.lab.bench_load import KEYS, Seen, run_case
from retinue.ports import free_ports

WARM_UP_S = 1.0
"""Or as long as a case takes, if that is shorter."""
_START_S = 3.0
"""About what the start of a cluster takes: for the time left only."""
_SETTLE_TIMEOUT_S = 30.0
_BATCH_BYTES = 1 << 20
_HISTORY_BYTES = 1 << 28
_LOG_RETENTION = 100_000
"""The default of the setting."""


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """One measured case. Latencies are NaN without any success; `generator_cpu` is in s of CPU per s."""

    case: Case
    duration_s: float
    requests: int
    per_second: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    generator_cpu: float
    failures: dict[str, int]


def local_settings(*, quorum: int, storage: str) -> dict[str, str]:
    """The settings of a cluster that is started here to be measured."""
    return {"write_quorum": str(quorum), "memory": str(storage == MEMORY).lower(), "min_free_bytes": "0"}


@contextmanager
def local_cluster(followers: int, settings: dict[str, str]) -> Iterator[Cluster]:
    """A cluster on free ports, with its data in a folder below the current one; both are gone in the end."""
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="retinue-bench-", dir=Path.cwd()))
        cluster = Cluster(Path(folder), free_ports(followers + 1), settings)
        stack.callback(_stop, cluster)  # also what an interrupted start has left
        cluster.start()
        yield cluster


def _stop(cluster: Cluster) -> None:
    """Stop it; a second Ctrl-C must not leave nodes behind."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        cluster.stop()
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def ending_like_ctrl_c() -> Iterator[None]:
    """Let SIGTERM and a closed terminal end this program as Ctrl-C does, so that whatever was started is stopped."""

    def interrupt(*_: object) -> None:
        signal.raise_signal(signal.SIGINT)

    ends = [number for number in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, interrupt) for number in ends}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Bar:
    """A progress bar on standard error, with the time left; nothing where that is no terminal."""

    def __init__(self, total_s: float, *, quiet: bool) -> None:
        self.total_s = total_s
        columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
        # Few refreshes: they take time from the generator, which runs in this process.
        self.progress = Progress(
            *columns,
            console=Console(file=sys.stderr),
            transient=True,
            refresh_per_second=2,
            disable=quiet or not sys.stderr.isatty(),
        )
        self.task = self.progress.add_task("starting", total=total_s)

    def say(self, what: str) -> None:
        self.progress.update(self.task, description=what)

    def advance(self, seconds: float) -> None:
        self.progress.advance(self.task, seconds)


def measure(grid: Grid, keep: Callable[[Point], None], *, quiet: bool) -> None:
    """Measure all cases and hand over each as it is done. Raises `RetinueError`, or `KeyboardInterrupt` on Ctrl-C."""
    cases = list(grid.cases())
    groups = [list(group) for _, group in itertools.groupby(cases, key=lambda case: (case.storage, case.value_bytes))]
    total_s = len(cases) * (min(WARM_UP_S, grid.duration_s) + grid.duration_s)
    total_s += 0 if grid.url else len(groups) * _START_S
    bar = _Bar(total_s, quiet=quiet)
    with ending_like_ctrl_c(), bar.progress:
        for group in groups:
            _measure_group(grid, group, keep, bar)


def _measure_group(grid: Grid, cases: list[Case], keep: Callable[[Point], None], bar: _Bar) -> None:
    """Measure the cases of one cluster."""
    with ExitStack() as stack:
        url, token = grid.url, tokens.from_environment() if grid.url else ""
        if url is None:
            bar.say("starting a cluster")
            settings = local_settings(quorum=grid.quorums[0], storage=cases[0].storage)
            # 100 kB at a time, the default would keep 10 GB of history for each node.
            settings["log_retention"] = str(min(_LOG_RETENTION, _HISTORY_BYTES // cases[0].value_bytes))
            url = stack.enter_context(local_cluster(grid.followers, settings)).url("leader")
            bar.advance(_START_S)
        if any(case.operation == READ for case in cases):
            _fill(url, cases[0].value_bytes)
        for case in cases:
            if grid.url is None and case.quorum is not None:
                _ask(url, "PATCH", "/config", {"write_quorum": case.quorum})
            _settle(url)
            bar.say(described(case))
            keep(_point(case, _load(case, _address(url, case), token, grid.duration_s, bar)))


def described(case: Case) -> str:
    """A case in a few words."""
    quorum = "" if case.quorum is None else f", quorum {case.quorum}"
    pipeline = f", pipelines of {case.pipeline}" if case.pipeline > 1 else ""
    clients = f"{case.clients} client{'s' if case.clients > 1 else ''}"
    return f"{case.storage}, {case.door} {case.operation}s of {case.value_bytes} B{quorum}{pipeline}, {clients}"


def _load(case: Case, address: tuple[str, int], token: str, duration_s: float, bar: _Bar) -> Seen:
    warm_up_s = min(WARM_UP_S, duration_s)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            return runner.run(run_case(case, address, token, warm_up_s, duration_s, bar.advance))
        except OSError as error:
            raise ClusterError(
                f"The node at {address[0]}:{address[1]} cannot be reached ({error.strerror}): is it running?"
            ) from None


def _point(case: Case, seen: Seen) -> Point:
    ordered = sorted(seen.latencies_ms)

    def quantile_ms(p: float) -> float:
        return ordered[min(int(p * len(ordered)), len(ordered) - 1)] if ordered else float("nan")

    return Point(
        case=case,
        duration_s=seen.duration_s,
        requests=len(ordered),
        per_second=len(ordered) / seen.duration_s,
        p50_ms=quantile_ms(0.5),
        p95_ms=quantile_ms(0.95),
        p99_ms=quantile_ms(0.99),
        generator_cpu=seen.generator_cpu,
        failures=seen.failures,
    )


def found_at(grid: Grid) -> Grid:
    """The grid with what a running cluster decides itself: its write quorum, its storage, its number of followers.

    Raises `ClusterError` if no node of ours answers there.
    """
    if grid.url is None:
        return grid
    told = _ask(grid.url, "GET", "/config")
    if not {"write_quorum", "memory", "members", "resp"} <= told.keys():
        raise ClusterError(f"The server at {grid.url} is not a retinue node of this version: give the address of one.")
    return msgspec.structs.replace(
        grid,
        quorums=(told["write_quorum"],),
        storages=(MEMORY if told["memory"] else DISK,),
        followers=len(told["members"]) - 1,
    )


def _address(url: str, case: Case) -> tuple[str, int]:
    """Host and port of the door that a case uses. Raises `SettingsError` if the node has no such door."""
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or 80
    if case.door != RESP:
        return host, port
    told = _ask(url, "GET", "/config")
    if not told["resp"]:
        raise SettingsError(f"The node at {url} does not speak the Redis protocol: leave out --door resp.")
    return host, int(told["resp_port"])


def _fill(url: str, value_bytes: int) -> None:
    """Write every key once."""
    at_once = max(1, min(KEYS, _BATCH_BYTES // value_bytes))
    for first in range(0, KEYS, at_once):
        keys = [f"key{number}" for number in range(first, min(first + at_once, KEYS))]
        _ask(url, "POST", "/batch", {"writes": [{"key": key, "value": "x" * value_bytes} for key in keys]})


def _settle(url: str) -> None:
    """Wait until the followers hold what was written for the case before, for a while."""
    deadline_s = time.monotonic() + _SETTLE_TIMEOUT_S
    while time.monotonic() < deadline_s:
        followers = _ask(url, "GET", "/status")["followers"]
        if all(each["lag_versions"] == 0 for each in followers if each["state"] == "live"):
            return
        time.sleep(0.05)


def _ask(url: str, method: str, path: str, body: object = None) -> dict[str, Any]:
    """What a node answers to this. Raises `RetinueError`."""
    content = None if body is None else json.dumps(body).encode()
    headers = {} if body is None else {"Content-Type": "application/json"}
    token = tokens.from_environment()
    try:
        return call(url, method, path, body=content, headers=headers, token=token).checked().json()
    except RetinueError as error:
        raise ClusterError(f"The node at {url} did not answer as a leader does: {error.detail}") from None
