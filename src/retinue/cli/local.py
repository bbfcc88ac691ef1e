"""The verbs for nodes on this machine: one node in the foreground, or a whole cluster in the background."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec

from retinue.call import call
from retinue.cli import output
from retinue.cli.options import Verbs, add_setting_options, add_verb, given_settings
from retinue.cluster import PER_NODE, Cluster, NodeStatus
from retinue.cluster_state import STATE_FILE
from retinue.errors import EXIT_DONE, EXIT_FAILED, ClusterError, RetinueError, SettingsError
from retinue.settings import HTTP_PORT_MAX, PREFIX, collect, load
from retinue.values import integer, path

DEFAULT_DATA_DIR = Path(".retinue")
DEFAULT_PORT = 8000
DEFAULT_FOLLOWERS = 5
MAX_FOLLOWERS = 99
FOLLOWER_COUNT_NAMES = (f"{PREFIX}FOLLOWER_COUNT", "FOLLOWER_COUNT")
LOG_LINES = 100
_FOLLOW_POLL_S = 0.2

_GIVEN_BY_CLUSTER = PER_NODE - {"port", "data_dir"}


def register(verbs: Verbs[argparse.ArgumentParser]) -> None:
    """Add these verbs."""
    serve = add_verb(verbs, "serve", _serve, "run one node in the foreground", with_json=False)
    serve.add_argument("--config", metavar="FILE", type=Path, help="a TOML file with settings")
    add_setting_options(serve)
    start = add_verb(verbs, "start", _start, "start a local cluster in the background, or what is missing of it")
    start.add_argument("node", metavar="NODE", nargs="?", help="only this one")
    restart = add_verb(verbs, "restart", _restart, "stop and start with the same data and settings")
    restart.add_argument("node", metavar="NODE", nargs="?", help="only this one")
    for parser in (start, restart):
        add_cluster_options(parser)
    stop = add_verb(verbs, "stop", _stop, "stop the local cluster")
    stop.add_argument("node", metavar="NODE", nargs="?", help="only this one")
    nodes = add_verb(verbs, "nodes", _nodes, "show the nodes of the local cluster")
    logs = add_verb(verbs, "logs", _logs, "print what the nodes of the local cluster wrote", with_json=False)
    logs.add_argument("node", metavar="NODE", nargs="?", help="only this one")
    logs.add_argument(
        "--lines", metavar="N", type=int, default=LOG_LINES, help="the last N lines (default: %(default)s)"
    )
    logs.add_argument("--follow", action="store_true", help="go on until Ctrl-C")
    for parser in (stop, nodes, logs):
        parser.add_argument(
            "--data-dir", metavar="DIR", help="directory of the cluster (default: DATA_DIR, else .retinue)"
        )


def add_cluster_options(parser: argparse.ArgumentParser) -> None:
    """Add what shapes a local cluster: how many nodes, where, and the settings that they share."""
    parser.add_argument(
        "--follower-count", metavar="N", help=f"followers (default: FOLLOWER_COUNT, else {DEFAULT_FOLLOWERS})"
    )
    add_setting_options(parser, leave_out=_GIVEN_BY_CLUSTER)


@dataclass(frozen=True)
class Wish:
    """What flags and environment say about a local cluster. `None` and absent names: not said."""

    data_dir: Path
    port: int | None
    followers: int | None
    settings: dict[str, str]
    sources: dict[str, str]

    def cluster(self, before: Cluster | None = None) -> Cluster:
        """The cluster that is meant; what is not said stays as it was `before`. Raises `SettingsError`."""
        old_ports = before.ports if before else (DEFAULT_PORT,)
        port = old_ports[0] if self.port is None else self.port
        old_count = len(old_ports) - 1 if before else DEFAULT_FOLLOWERS
        count = old_count if self.followers is None else self.followers
        if port > HTTP_PORT_MAX - count:
            raise SettingsError(f"PORT={port} is not allowed: use a number from 1 to {HTTP_PORT_MAX - count}.")
        unchanged = before is not None and self.port is None and count == old_count
        ports = old_ports if unchanged else tuple(range(port, port + count + 1))
        return Cluster(self.data_dir, ports, (before.settings if before else {}) | self.settings, self.sources)

    def differs_from(self, running: Cluster) -> str:
        """How the user called the first thing that a running cluster has otherwise; empty if there is none."""
        if self.port is not None and self.port != running.ports[0]:
            return self.sources["port"]
        if self.followers is not None and self.followers != len(running.ports) - 1:
            return "FOLLOWER_COUNT"
        different = (name for name, text in self.settings.items() if running.settings.get(name) != text)
        return next((self.sources[name] for name in different), "")


def read_wish(parsed: argparse.Namespace, environ: Mapping[str, str]) -> Wish:
    """What the user wants of a local cluster. Raises `SettingsError`."""
    values, sources = collect(given_settings(parsed), environ)
    counts = [
        ("--follower-count", parsed.follower_count),
        *((n, environ.get(n, "").strip()) for n in FOLLOWER_COUNT_NAMES),
    ]
    called, count = next((pair for pair in counts if pair[1]), ("FOLLOWER_COUNT", None))
    followers = _whole_number(called, count, 0, MAX_FOLLOWERS)
    port = _whole_number(sources.get("port", "PORT"), values.pop("port", None), 1, HTTP_PORT_MAX)
    data_dir = _directory(values.pop("data_dir", DEFAULT_DATA_DIR))
    shared = {name: _as_text(value) for name, value in values.items() if name not in _GIVEN_BY_CLUSTER}
    kept = {name: called for name, called in sources.items() if name in shared or name == "port"}
    return Wish(data_dir, port, followers, shared, kept)


def _whole_number(called: str, value: object, low: int, high: int) -> int | None:
    try:
        return None if value is None else int(str(integer(low, high)(value)))
    except ValueError as error:
        raise SettingsError(f"{called}={value} is not allowed: {error}.") from None


def _as_text(value: object) -> str:
    if isinstance(value, Path):
        return str(value.absolute())
    if isinstance(value, tuple):
        return ",".join(value)
    return "" if value is None else str(value)


def _serve(parsed: argparse.Namespace) -> int:
    from retinue import server

    return server.run(load(given_settings(parsed), os.environ, parsed.config))


def _start(parsed: argparse.Namespace) -> int:
    wish = read_wish(parsed, os.environ)
    before = Cluster.load(wish.data_dir)
    if before is not None and not before.stopped:
        different = wish.differs_from(before)
        if different:
            raise SettingsError(f"{different} differs from the cluster in {wish.data_dir}: use `restart` to change it.")
        cluster = before
    else:
        cluster = wish.cluster()
        _refuse_other_size(before, cluster)
    with _waiting(f"starting {parsed.node or f'{len(cluster.names)} nodes'}"):
        started = cluster.start([parsed.node] if parsed.node else None)
    return _tell_started(parsed, cluster, started)


def _refuse_other_size(before: Cluster | None, cluster: Cluster) -> None:
    """The number of nodes is part of the data. Raises `SettingsError` before anything is stopped or started."""
    if before is None or len(before.names) == len(cluster.names):
        return
    data = before.node_dir("leader")
    if data.is_dir() and any(data.iterdir()):
        count, known = len(cluster.names) - 1, len(before.names) - 1
        raise SettingsError(
            f"FOLLOWER_COUNT={count} is not allowed: the data in {before.data_dir} belongs to a cluster with {known} "
            f"followers: use {known}, or another DATA_DIR."
        )


def _restart(parsed: argparse.Namespace) -> int:
    wish = read_wish(parsed, os.environ)
    before = Cluster.load(wish.data_dir)
    cluster = wish.cluster(before)
    _refuse_other_size(before, cluster)
    names = [parsed.node] if parsed.node else None
    if parsed.node and before is not None and wish.differs_from(before):
        raise SettingsError("The nodes of a cluster share their settings: restart all of them to change one.")
    with _waiting("restarting"):
        (before or cluster).stop(names)
        started = cluster.start(names)
    return _tell_started(parsed, cluster, started)


def _stop(parsed: argparse.Namespace) -> int:
    cluster = _existing(parsed)
    with _waiting("stopping"):
        stopped = cluster.stop([parsed.node] if parsed.node else None) if cluster else []
    if parsed.json:
        output.show_json({"stopped": stopped})
    else:
        output.say(f"Stopped {', '.join(stopped)}." if stopped else "Nothing was running.")
    return EXIT_DONE


def _nodes(parsed: argparse.Namespace) -> int:
    cluster = _existing(parsed)
    nodes = [msgspec.to_builtins(node) for node in cluster.status()] if cluster else []
    if parsed.json:
        output.show_json({"nodes": nodes})
    elif nodes:
        output.show_rows(nodes)
    else:
        output.say("There is no cluster here yet: start one.")
    return EXIT_DONE


def _logs(parsed: argparse.Namespace) -> int:
    cluster = _existing(parsed)
    if cluster is None:
        raise ClusterError("There is no cluster here yet: start one.")
    names = [parsed.node] if parsed.node else list(cluster.names)
    tails = {name: _tail(cluster.log_file(name), parsed.lines) for name in names}
    labelled = len(names) > 1
    _print_lines(tails, labelled=labelled)
    while parsed.follow:
        time.sleep(_FOLLOW_POLL_S)
        _print_lines(tails, labelled=labelled)
    return EXIT_DONE


def _tail(file: Path, lines: int) -> Callable[[], list[str]]:
    """A function that returns the lines not returned before; at first the last `lines`."""
    offset = 0

    def more() -> list[str]:
        nonlocal offset
        try:
            with file.open("rb") as opened:
                opened.seek(offset)
                content = opened.read()
        except FileNotFoundError:
            return []
        first, offset = offset == 0, offset + len(content)
        text = content.decode("utf-8", "backslashreplace").splitlines()
        return text[max(0, len(text) - lines) :] if first else text

    return more


def _print_lines(tails: Mapping[str, Callable[[], list[str]]], *, labelled: bool) -> None:
    for name, more in tails.items():
        for line in more():
            output.say(f"{name}: {line}" if labelled else line)
    sys.stdout.flush()


def _existing(parsed: argparse.Namespace) -> Cluster | None:
    wanted = parsed.data_dir or os.environ.get(f"{PREFIX}DATA_DIR") or os.environ.get("DATA_DIR") or DEFAULT_DATA_DIR
    return Cluster.load(_directory(wanted))


def _directory(value: object) -> Path:
    try:
        return Path(str(path(value)))
    except ValueError as error:
        raise SettingsError(f"DATA_DIR={value} is not allowed: {error}.") from None


def _tell_started(parsed: argparse.Namespace, cluster: Cluster, started: list[str]) -> int:
    nodes = cluster.status()
    if parsed.json:
        output.show_json({"started": started, "nodes": [msgspec.to_builtins(node) for node in nodes]})
        return EXIT_DONE
    output.say(f"Started {', '.join(started)}." if started else "All nodes were running already.")
    for node in nodes:
        output.say(f"  {node.name:<10}  {node.role:<9}  {node.url}  {'healthy' if node.healthy else 'not running'}")
    healthy = all(node.healthy for node in nodes if node.pid)
    if parsed.node is None and healthy:
        _tell_what_to_try(cluster, nodes)
    return EXIT_DONE if healthy else EXIT_FAILED


def _tell_what_to_try(cluster: Cluster, nodes: list[NodeStatus]) -> None:
    leader = next((node.url for node in nodes if node.role == "leader" and node.healthy), nodes[0].url)
    reader = next((node.url for node in nodes if node.role == "follower" and node.healthy), leader)
    value = shlex.quote('{"value": "blue"}')
    output.say(
        f"Data: {cluster.data_dir} (the processes are in {STATE_FILE} there)\n"
        "Try:\n"
        f"  curl -X PUT {leader}/kv/color -H 'Content-Type: application/json' -d {value}\n"
        f"  curl {reader}/kv/color\n"
        f"  curl {leader}/status"
    )
    with suppress(RetinueError):
        token = os.environ.get(f"{PREFIX}TOKEN", "")
        resp_port = call(leader, "GET", "/config", token=token).checked().json().get("resp_port")
        if resp_port:
            output.say(f"  redis-cli -p {resp_port} get color")


@contextmanager
def _waiting(what: str) -> Iterator[None]:
    """A spinner on a terminal for what may take more than a second."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status(what):
        yield
