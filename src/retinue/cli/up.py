"""`retinue up`: a local cluster that lives as long as this command, with a live table of its nodes."""

from __future__ import annotations

import argparse
import os
import select
import signal
import sys
import termios
import threading
import tty
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from types import FrameType

from retinue.cli import output
from retinue.cli.local import add_cluster_options, read_wish
from retinue.cli.options import Verbs, add_verb
from retinue.cluster import Cluster
from retinue.errors import EXIT_DONE, ClusterError, RetinueError

REFRESH_S = 0.25
COLUMNS = ("", "node", "role", "state", "T", "lag", "url", "pid")


def register(verbs: Verbs[argparse.ArgumentParser]) -> None:
    """Add this verb."""
    parser = add_verb(verbs, "up", _up, "run a local cluster until Ctrl-C and watch it")
    add_cluster_options(parser)


@dataclass(frozen=True)
class Sight:
    """One node at one moment, as the table shows it. Without an answer `trusted` and `lag_versions` are `None`."""

    name: str
    role: str
    state: str
    url: str
    pid: int | None
    trusted: int | None = None
    lag_versions: int | None = None


def _up(parsed: argparse.Namespace) -> int:
    wish = read_wish(parsed, os.environ)
    before = Cluster.load(wish.data_dir)
    if before is not None and any(before.running(name) for name in before.names):
        raise ClusterError(f"A cluster runs in {wish.data_dir} already: stop it, or name another --data-dir.")
    cluster = wish.cluster()
    with _stop_signals() as stop:
        try:
            cluster.launch()
            if sys.stdout.isatty() and sys.stdin.isatty() and not parsed.json:
                _watch_live(cluster, stop)
            else:
                _watch_plainly(cluster, stop, as_json=parsed.json)
        finally:
            cluster.stop()
    if not parsed.json:
        output.say("All nodes are stopped.")
    return EXIT_DONE


@contextmanager
def _stop_signals() -> Iterator[threading.Event]:
    """An event that Ctrl-C, SIGTERM and a closed terminal set, so that none of them cuts the clean-up short."""
    stop = threading.Event()

    def ask_to_stop(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, ask_to_stop) for number in numbers}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _watch_live(cluster: Cluster, stop: threading.Event) -> None:
    from rich.console import Group
    from rich.live import Live
    from rich.text import Text

    said = "Ctrl-C or q stops all nodes; the number of a stopped node starts it again."
    with _single_keys() as next_key, Live(auto_refresh=False) as live:
        while not stop.is_set():
            sights = look(cluster)
            live.update(Group(output.table(COLUMNS, _rows(sights)), Text(output.safe(said))), refresh=True)
            key = next_key(REFRESH_S)
            if key == "q":
                stop.set()
            elif key.isdigit() and int(key) < len(sights) and sights[int(key)].pid is None:
                said = _start_again(cluster, sights[int(key)].name)


def _watch_plainly(cluster: Cluster, stop: threading.Event, *, as_json: bool) -> None:
    """One line for each change of a node, for logs and for other programs."""
    shown: Mapping[str, Sight] = {}
    while not stop.is_set():
        sights = {sight.name: sight for sight in look(cluster)}
        for name, sight in sights.items():
            old = shown.get(name)
            if old is not None and (old.state, old.role, old.pid) == (sight.state, sight.role, sight.pid):
                continue
            text = f"{sight.name}: {sight.state}, {sight.role}, {sight.url}, pid {output.plain(sight.pid)}"
            print(output.safe_json(asdict(sight), indent=None) if as_json else output.safe(text), flush=True)
        shown = sights
        stop.wait(REFRESH_S)


def look(cluster: Cluster) -> list[Sight]:
    """All nodes now, asked at the same time."""
    pids = {name: cluster.pid(name) for name in cluster.names}
    with ThreadPoolExecutor(len(cluster.names)) as pool:
        return list(pool.map(lambda name: _look_at(cluster, name, pids[name]), cluster.names))


def _why_stopped(last_words: str) -> str:
    """A node that could not go on says why as its last words; one that was killed says nothing."""
    reason = last_words.removeprefix("retinue: ")
    return f"stopped: {reason}" if reason != last_words else "stopped"


def _look_at(cluster: Cluster, name: str, pid: int | None) -> Sight:
    role, url = "leader" if name == "leader" else "follower", cluster.url(name)
    if pid is None:
        return Sight(name, role, _why_stopped(cluster.last_words(name)), url, None)
    try:
        health = cluster.request(name, "GET", "/health")
        state = "healthy" if health.status == 200 else str(health.json().get("detail", "not healthy"))
        status = cluster.request(name, "GET", "/status").json()
    except RetinueError:
        return Sight(name, role, "does not answer", url, pid)
    lag = status.get("lag")
    behind = lag.get("versions") if isinstance(lag, dict) else None
    trusted = status.get("trusted")
    return Sight(
        name,
        str(status.get("role", role)),
        state,
        url,
        pid,
        trusted if isinstance(trusted, int) else None,
        behind if isinstance(behind, int) else None,
    )


def _rows(sights: list[Sight]) -> list[list[str]]:
    return [
        [str(number), s.name, s.role, s.state, *map(output.plain, (s.trusted, s.lag_versions, s.url, s.pid))]
        for number, s in enumerate(sights)
    ]


def _start_again(cluster: Cluster, name: str) -> str:
    try:
        cluster.launch([name])
    except RetinueError as error:
        return error.detail
    return f"{name} was started again."


@contextmanager
def _single_keys() -> Iterator[Callable[[float], str]]:
    """Let keys be read one by one, without Enter: a function that waits so long for one and returns it, or nothing."""
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)

    def next_key(timeout_s: float) -> str:
        ready, _, _ = select.select([descriptor], [], [], timeout_s)
        return os.read(descriptor, 1).decode("ascii", "replace") if ready else ""

    tty.setcbreak(descriptor)
    try:
        yield next_key
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
