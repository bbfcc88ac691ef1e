"""A whole cluster of node processes on this machine: start, stop, kill, pause, cut off.

Everything about it lies in one directory: a folder of data and a log file for each node, and `cluster.json`, which says
what the nodes are and which processes run them. So any program can take over a cluster that another one started.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from retinue import cluster_state
from retinue.call import Answer, call
from retinue.cluster_state import NodeRecord, State
from retinue.errors import ClusterError, RetinueError, SettingsError
from retinue.ports import taken_port
from retinue.processes import Process, spawn, wait_until_forgotten
from retinue.settings import DEFINITIONS, PEER_PORT_OFFSET, PREFIX, Settings

START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 10.0
HEALTH_TIMEOUT_S = 2.0
_POLL_S = 0.03
_NODE_DIR_MODE = 0o700

PER_NODE = frozenset(
    {"role", "port", "peer_port", "resp_port", "followers", "follower_id", "data_dir", "advertise_url", "peer_host"}
)
"""Settings that differ from node to node; the cluster gives them itself."""

_NOT_FOR_NODES = {f"{PREFIX}TOKEN", f"{PREFIX}URL"} | {name for d in DEFINITIONS for name in d.environment}


class NodeStatus(msgspec.Struct, frozen=True):
    """One node as seen from outside. `pid` is `None` when its process does not run."""

    name: str
    role: str
    url: str
    pid: int | None
    data_dir: str
    healthy: bool


class Cluster:
    """One leader and its followers. `ports` are their HTTP ports, the leader's first; peer ports lie 1000 above.

    `settings` are the ones all nodes share, by setting name, as text; `sources` says how the user called them. Nothing
    runs before `start`. As a context manager it starts on entry and stops on exit. Raises `SettingsError` when no node
    could start with these settings.
    """

    def __init__(
        self,
        data_dir: Path,
        ports: Sequence[int],
        settings: Mapping[str, str] | None = None,
        sources: Mapping[str, str] | None = None,
    ) -> None:
        self.data_dir = data_dir.absolute()
        self.settings = dict(settings or {})
        self.names = ("leader", *(f"follower{number}" for number in range(1, len(ports))))
        self._ports = dict(zip(self.names, ports, strict=True))
        self._children: dict[int, Process] = {}
        shared: dict[str, Any] = dict(self.settings)
        followers = self._follower_urls("127.0.0.1")
        checked = Settings(**shared, role="leader", port=ports[0], followers=followers, sources=sources or {})
        self._host = checked.host

    @classmethod
    def load(cls, data_dir: Path) -> Cluster | None:
        """The cluster that was last started in this directory, running or not; `None` if there is none."""
        state = cluster_state.read(data_dir.absolute())
        return cls(data_dir, [record.port for record in state.nodes], state.settings) if state else None

    @property
    def stopped(self) -> bool:
        """Whether it was stopped as a whole, or never started. Not so when its processes died by themselves."""
        state = cluster_state.read(self.data_dir)
        return state is None or state.stopped

    @property
    def ports(self) -> tuple[int, ...]:
        """The HTTP ports, the leader's first."""
        return tuple(self._ports.values())

    def url(self, name: str) -> str:
        """The HTTP address of a node. Raises `ClusterError` for an unknown name."""
        host = "127.0.0.1" if self._host in ("0.0.0.0", "::") else self._host  # noqa: S104 - compared, not bound
        return f"http://{f'[{host}]' if ':' in host else host}:{self._ports[self._known(name)]}"

    def node_dir(self, name: str) -> Path:
        """The data directory of a node."""
        return self.data_dir / self._known(name)

    def log_file(self, name: str) -> Path:
        """Where a node writes what it has to say."""
        return self.data_dir / f"{self._known(name)}.log"

    def running(self, name: str) -> bool:
        """Whether the process of a node exists, be it paused."""
        return self._process(name) is not None

    def pid(self, name: str) -> int | None:
        """The process id of a node, `None` if it does not run."""
        process = self._process(name)
        return process.pid if process else None

    def process(self, name: str) -> Process:
        """The process of a node. Raises `ClusterError` if it does not run."""
        process = self._process(name)
        if process is None:
            raise ClusterError(f"{name} does not run: start it first.")
        return process

    def start(self, names: Sequence[str] | None = None, timeout_s: float = START_TIMEOUT_S) -> list[str]:
        """Start those of these nodes (all by default) that do not run, wait until they serve, return their names.

        They serve when they are healthy and, after a start of the whole cluster, when one leads and the others follow.
        Raises `SettingsError` for a port that is taken, and `ClusterError` when a node ends or does not become healthy;
        when one ends, those started by this call are stopped again.
        """
        with cluster_state.locked(self.data_dir):
            started = self._launch(names)
            try:
                self.wait_healthy(names, timeout_s)
                if names is None:
                    self._wait_until(self._why_not_led, self.names, timeout_s)
            except _Ended:
                self._end(started)
                raise
        return list(started)

    def launch(self, names: Sequence[str] | None = None) -> list[str]:
        """Start as `start` does, without waiting until the nodes are healthy."""
        with cluster_state.locked(self.data_dir):
            return list(self._launch(names))

    def stop(self, names: Sequence[str] | None = None, timeout_s: float = STOP_TIMEOUT_S) -> list[str]:
        """Stop these nodes (all by default) and return which of them ran; what resists for `timeout_s` is killed."""
        if not self.data_dir.is_dir():
            return []
        with cluster_state.locked(self.data_dir):
            running = {name: process for name in self._chosen(names) if (process := self._process(name))}
            self._end(running, timeout_s)
            some_left = any(self.running(name) for name in self.names)
            self._write_state(dict.fromkeys(running), stopped=not some_left if running else self.stopped)
        return list(running)

    def restart(self, name: str) -> None:
        """Stop one node and start it again with its data."""
        self.stop([name])
        self.start([name])

    def kill(self, name: str) -> None:
        """End a node with SIGKILL: no goodbye, no flush. It stays down until it is started."""
        process = self.process(name)
        process.send(signal.SIGKILL)
        process.wait(STOP_TIMEOUT_S)

    def pause(self, name: str) -> None:
        """Freeze a node with SIGSTOP: its connections stay open and nothing answers."""
        self.process(name).send(signal.SIGSTOP)

    def resume(self, name: str) -> None:
        """Let a paused node go on."""
        self.process(name).send(signal.SIGCONT)

    def last_words(self, name: str) -> str:
        """The last line that a node wrote."""
        try:
            lines = self.log_file(name).read_text(encoding="utf-8", errors="replace").split("\n")
        except OSError:
            lines = []
        said = [line.strip() for line in lines if line.strip()]
        return said[-1] if said else f"it said nothing; see {self.log_file(name)}."

    def cut_off(self, name: str, others: Sequence[str] | None = None) -> None:
        """Let nothing pass between this node and those (all others by default); an empty list ends it."""
        cut = [other for other in self.names if other != name] if others is None else list(others)
        self.request(name, "PATCH", "/config", {"cut": cut}).checked()

    def heal(self, name: str) -> None:
        """End what `cut_off` did."""
        self.cut_off(name, [])

    def request(
        self, name: str, method: str, path: str, body: object = None, timeout_s: float = HEALTH_TIMEOUT_S
    ) -> Answer:
        """Send one HTTP request to a node; `body` goes as JSON. The token is taken from `RETINUE_TOKEN`."""
        content = None if body is None else json.dumps(body).encode()
        headers = {} if body is None else {"Content-Type": "application/json"}
        token = os.environ.get(f"{PREFIX}TOKEN", "")
        return call(self.url(name), method, path, body=content, headers=headers, token=token, timeout_s=timeout_s)

    def leader(self) -> str | None:
        """The name of a node that says that it leads; `None` if none does."""
        return next((node.name for node in self.status() if node.healthy and node.role == "leader"), None)

    def status(self) -> list[NodeStatus]:
        """All nodes, asked at the same time."""
        with ThreadPoolExecutor(len(self.names)) as pool:
            return list(pool.map(self._node_status, self.names))

    def wait_healthy(self, names: Sequence[str] | None = None, timeout_s: float = START_TIMEOUT_S) -> None:
        """Wait until these nodes (all by default) answer that they are healthy. Raises `ClusterError`."""
        self._wait_until(self._why_not_healthy, self._chosen(names), timeout_s)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # --- the processes ---

    def _known(self, name: str) -> str:
        if name not in self.names:
            raise ClusterError(f"There is no node {name}: the nodes are {', '.join(self.names)}.")
        return name

    def _chosen(self, names: Sequence[str] | None) -> tuple[str, ...]:
        return self.names if names is None else tuple(self._known(name) for name in names)

    def _process(self, name: str) -> Process | None:
        state = cluster_state.read(self.data_dir)
        written = state.process(self._known(name)) if state else None
        if written is None:
            return None
        child = self._children.get(written.pid)
        process = child if child is not None and child.started == written.started else written
        return process if process.alive() else None

    def _launch(self, names: Sequence[str] | None) -> dict[str, Process]:
        missing = [name for name in self._chosen(names) if not self.running(name)]
        for name in missing:
            self._refuse_taken_port(name)
        # An interrupt between starting a process and writing it down would leave one that nobody knows.
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
        try:
            started = {name: self._spawn(name) for name in missing}
            self._write_state(started, stopped=False)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        return started

    def _spawn(self, name: str) -> Process:
        self.node_dir(name).mkdir(_NODE_DIR_MODE, parents=True, exist_ok=True)
        process = spawn([sys.executable, "-m", "retinue", "serve"], self._environment(name), self.log_file(name))
        self._children[process.pid] = process
        return process

    def _environment(self, name: str) -> dict[str, str]:
        """What a node process is told: the shared settings and its own, under canonical names only."""
        own = {"port": str(self._ports[name]), "data_dir": str(self.node_dir(name))}
        if name == "leader":
            own |= {"role": "leader", "followers": ",".join(self._follower_urls())}
        else:
            own |= {"role": "follower", "follower_id": name}
        given = {PREFIX + setting.upper(): text for setting, text in (self.settings | own).items()}
        return {key: text for key, text in os.environ.items() if key not in _NOT_FOR_NODES} | given

    def _follower_urls(self, host: str = "") -> tuple[str, ...]:
        return tuple(f"http://{host}:{self._ports[n]}" if host else self.url(n) for n in self.names[1:])

    def _end(self, processes: Mapping[str, Process], timeout_s: float = STOP_TIMEOUT_S) -> None:
        for number, patience_s in ((signal.SIGTERM, timeout_s), (signal.SIGKILL, STOP_TIMEOUT_S)):
            for process in processes.values():
                process.send(number)
                process.send(signal.SIGCONT)
            deadline = time.monotonic() + patience_s
            left = [n for n, process in processes.items() if not process.wait(max(0.0, deadline - time.monotonic()))]
            if not left:
                wait_until_forgotten(processes.values())
                return
        raise ClusterError(f"These nodes could not be ended: {', '.join(left)}. Look at the disk they write to.")

    def _refuse_taken_port(self, name: str) -> None:
        port = self._ports[name]
        taken = taken_port(self._host, (port, port + PEER_PORT_OFFSET))
        if taken is not None:
            raise SettingsError(
                f"PORT={self._ports['leader']} is not possible: port {taken}, which {name} needs, is in use; "
                "stop the program that uses it, or set PORT to another number."
            )

    # --- asking the nodes ---

    def _wait_until(self, why_not: Callable[[str], str], names: Sequence[str], timeout_s: float) -> None:
        """Wait until `why_not` finds nothing to say of any of these nodes. Raises `ClusterError` with what it says."""
        deadline = time.monotonic() + timeout_s
        for name in names:
            while True:
                reason = why_not(name)
                # Also when all is well: what answers on the port of a node that has ended is another program.
                for node in names:
                    if not self.running(node):
                        raise _Ended(f"{node} has ended: {self.last_words(node)}")
                if not reason:
                    break
                if time.monotonic() >= deadline:
                    raise ClusterError(f"{name} runs but was not healthy within {timeout_s:g} s: {reason}")
                time.sleep(_POLL_S)

    def _why_not_healthy(self, name: str) -> str:
        try:
            self.request(name, "GET", "/health").checked()
        except RetinueError as error:
            return error.detail
        return ""

    def _why_not_led(self, name: str) -> str:
        """Why a node has no leader that takes writes with the write quorum of the settings; empty if it has one."""
        try:
            health = self.request(name, "GET", "/health").checked().json()
            if health.get("role") == "leader":
                self.request(name, "GET", "/leader").checked()
                in_force = str(health.get("write_quorum"))
                if in_force != self.settings.get("write_quorum", in_force):
                    return "its write quorum is not in force yet."
        except RetinueError as error:
            return error.detail
        return "" if health.get("leader") else "it has not heard of a leader."

    def _node_status(self, name: str) -> NodeStatus:
        process, healthy = self._process(name), False
        role = "leader" if name == "leader" else "follower"
        if process is not None:
            try:
                answer = self.request(name, "GET", "/health")
                healthy, role = answer.status == 200, str(answer.json().get("role", role))
            except RetinueError:
                healthy = False
        pid = process.pid if process else None
        return NodeStatus(name, role, self.url(name), pid, str(self.node_dir(name)), healthy)

    def _write_state(self, changed: Mapping[str, Process | None], *, stopped: bool) -> None:
        """Write down these processes (`None`: ended) beside those that were written down before."""
        before = cluster_state.read(self.data_dir)
        records = []
        for name in self.names:
            process = changed[name] if name in changed else before.process(name) if before else None
            pid, started = (process.pid, process.started) if process else (0, "")
            records.append(NodeRecord(name, self._ports[name], pid, started))
        cluster_state.write(self.data_dir, State(self.settings, records, stopped))


class _Ended(ClusterError):
    """A node ended while it was waited for."""
