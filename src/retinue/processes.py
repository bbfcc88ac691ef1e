"""Processes of this machine that outlive whoever started them: start, recognise again, signal.

A process is known by its pid together with the moment it started, so a pid that was given to another program since is
never taken for ours, and never signalled.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_POLL_S = 0.01
_REAP_TIMEOUT_S = 2.0


@dataclass
class Process:
    """One process. `started` identifies it beside its pid: boot, and clock ticks from there to its start.

    `ours` marks one that this program started and has not seen end; `exit_code` is known for those once they have
    ended (negative: the signal that ended them).
    """

    pid: int
    started: str
    ours: bool = False
    exit_code: int | None = None

    def alive(self) -> bool:
        """Whether it runs or is paused."""
        if not self.ours:
            return self._exists(ended=False)
        # This alone decides: to look at its state as well could find it ended with its exit code unknown.
        ended, status = os.waitpid(self.pid, os.WNOHANG)
        if ended:
            self.ours, self.exit_code = False, os.waitstatus_to_exitcode(status)
        return self.ours

    def send(self, number: signal.Signals) -> bool:
        """Signal it; `False` if it is gone. The descriptor holds the pid while its identity is checked."""
        try:
            descriptor = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return False
        try:
            if not self._exists(ended=False):
                return False
            signal.pidfd_send_signal(descriptor, number)
        except ProcessLookupError:
            return False
        finally:
            os.close(descriptor)
        return True

    def wait(self, timeout_s: float) -> bool:
        """Wait until it has ended; `False` if it still runs after `timeout_s`."""
        deadline = time.monotonic() + timeout_s
        while self.alive():
            if time.monotonic() >= deadline:
                return False
            time.sleep(_POLL_S)
        return True

    def _exists(self, *, ended: bool) -> bool:
        """Whether the system has this process; with `ended` also one that has ended and was not waited for."""
        started, has_ended = _look_at(self.pid)
        return started != "" and started == self.started and (ended or not has_ended)


def wait_until_forgotten(processes: Collection[Process]) -> None:
    """Wait until the system has forgotten processes that ended, which their parent, often pid 1, has to bring about.

    Not for long: a pid 1 that does not care, as in some containers, never does it.
    """
    deadline = time.monotonic() + _REAP_TIMEOUT_S
    while any(process._exists(ended=True) for process in processes) and time.monotonic() < deadline:
        time.sleep(_POLL_S)


def spawn(arguments: Sequence[str], environment: Mapping[str, str], log_file: Path) -> Process:
    """Start a process in a session of its own, without input, with both outputs appended to `log_file`."""
    appending = os.O_WRONLY | os.O_APPEND | os.O_CREAT
    pid = os.posix_spawn(
        arguments[0],
        list(arguments),
        dict(environment),
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(log_file), appending, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsid=True,
        setsigmask=(),
        setsigdef=(signal.SIGINT, signal.SIGPIPE, signal.SIGTERM, signal.SIGHUP),
    )
    return Process(pid, _look_at(pid)[0], ours=True)


def _look_at(pid: int) -> tuple[str, bool]:
    """What tells this process from any other with the same pid, empty if there is none; and whether it has ended."""
    try:
        line = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return "", True
    after_name = line.rpartition(")")[2].split()
    # While other threads of a killed process are still on their way out, its ports and locks are held.
    has_ended = after_name[0] in "ZX" and int(after_name[17]) <= 1
    return f"{_boot()}/{after_name[19]}", has_ended


@cache
def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
