"""What a system under test can do, and what all of them use: a folder, processes, the load generator."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec

from bench.generator import WARM_UP_S, Load, LoadResult
from bench.generator import run as run_load
from retinue.errors import ClusterError
from retinue.processes import Process, spawn

HOST = "127.0.0.1"
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 15.0
_POLL_S = 0.05
_numbers = itertools.count(1)


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """What a system shall do in one round, whatever protocol it speaks; `what` is `write` or `read`."""

    what: str
    connections: int
    seconds: float
    pipeline: int = 1
    value_bytes: int = 100
    warm_up: float = WARM_UP_S


class Tools(msgspec.Struct, frozen=True):
    """What systems need from outside: the built generator, a cache of packages, a folder for data on a real disk."""

    generator: Path
    packages: Path
    data: Path


class System(ABC):
    """One system, started and stopped by this program. `name` is short; `configuration` says all that matters.

    Its data lie in `folder`, which goes at the end. As a context manager it starts on entry and stops on exit, and also
    stops when it comes up only in part.
    """

    name: str
    configuration: str

    def __init__(self, tools: Tools, name: str) -> None:
        self.name = name
        self.tools = tools
        self.folder = tools.data / f"{next(_numbers)}-{self.name.replace(' ', '-')}"
        self._processes: list[Process] = []
        self._stop_signal = signal.SIGTERM
        self._filled = 0

    @abstractmethod
    def start(self) -> None:
        """Start it, empty, and wait until it takes writes with its quorum.

        Raises `NotAvailable` when it cannot be had here, and `ClusterError` when it does not come up.
        """

    @abstractmethod
    def measure(self, work: Work) -> LoadResult:
        """Do one round of work; `work` is for callers."""

    def process_ids(self) -> list[int]:
        """The processes that belong to it now; those that they started need not be among them."""
        return [process.pid for process in self._processes]

    def prepare(self, work: Work) -> None:  # noqa: B027 - most have nothing to prepare
        """What has to be there before this work, and does not count."""

    def finish(self) -> None:  # noqa: B027
        """What shall be gone while the other system works."""

    def work(self, work: Work) -> LoadResult:
        """Do one round of work, and tell what CPU all processes took for a request together."""
        self.prepare(work)
        try:
            before_s = sum(cpu_seconds(pid) for pid in self.process_ids())
            result = self.measure(work)
            used_s = sum(cpu_seconds(pid) for pid in self.process_ids()) - before_s
        finally:
            self.finish()
        return msgspec.structs.replace(
            result, servers_cpu_us=max(0.0, used_s / result.all * 1e6) if result.all else 0.0
        )

    def stop(self) -> None:
        """End every process that was started."""
        for number, patience_s in ((self._stop_signal, STOP_TIMEOUT_S), (signal.SIGKILL, STOP_TIMEOUT_S)):
            for process in self._processes:
                process.send(number)
            deadline = time.monotonic() + patience_s
            self._processes = [p for p in self._processes if not p.wait(max(0.0, deadline - time.monotonic()))]

    def __enter__(self) -> System:
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    # --- for the systems ---

    def launch(self, command: Sequence[str], log: str, environment: Mapping[str, str] | None = None) -> Process:
        """Start a process; it is stopped with the system. The program needs its full path."""
        self.folder.mkdir(parents=True, exist_ok=True)
        process = spawn(command, dict(os.environ) | dict(environment or {}), self.folder / f"{log}.log")
        self._processes.append(process)
        return process

    def wait_for(self, ready: Callable[[], bool], what: str) -> None:
        """Wait until `ready`. Raises `ClusterError` after a minute, or when a process has ended."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while not ready():
            ended = [process.pid for process in self._processes if not process.alive()]
            if ended or time.monotonic() > deadline:
                reason = "a process has ended" if ended else f"not within {START_TIMEOUT_S:.0f} s"
                raise ClusterError(f"{self.name}: {what} failed, {reason}; last words: {self._last_words()}")
            time.sleep(_POLL_S)

    def load(self, work: Work, mode: str, port: int, replicas: int = 3) -> LoadResult:
        """Let the generator do this work in this mode."""
        return run_load(
            self.tools.generator,
            Load(
                mode=mode,
                port=port,
                replicas=replicas,
                connections=work.connections,
                seconds=work.seconds,
                pipeline=work.pipeline,
                value_bytes=work.value_bytes,
                warm_up=work.warm_up,
            ),
        )

    def fill(self, mode: str, port: int, keys: int = 10_000) -> None:
        """Write each key once, so that reads find them; only the first call does anything."""
        if keys == self._filled:
            return
        load = Load(mode=mode, port=port, connections=4, seconds=300, keys=keys, pipeline=16, fill=True)
        result = run_load(self.tools.generator, load)
        if result.errors:
            raise ClusterError(f"{self.name} could not be filled with {keys} keys: {result.errors}")
        self._filled = keys

    def _last_words(self) -> str:
        said = [
            line
            for log in sorted(self.folder.glob("*.log"), key=lambda file: file.stat().st_mtime)
            for line in log.read_text(encoding="utf-8", errors="replace").splitlines()
            if line.strip()
        ]
        return said[-1][-300:] if said else "none."


def cpu_seconds(pid: int) -> float:
    """The CPU time of a process and of its children, also of those that have ended, user and system."""
    ticks = 0
    for process in (pid, *_children(pid)):
        try:
            fields = (
                Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
            )
        except OSError:
            continue
        ticks += sum(int(field) for field in fields[11 : 15 if process == pid else 13])
    return ticks / os.sysconf("SC_CLK_TCK")


def _children(pid: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()]
    except OSError:
        return []
