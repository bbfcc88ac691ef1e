"""`retinue up` with and without a terminal: what it shows, and that nothing stays behind."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

from retinue.cluster import Cluster
from retinue.ports import free_ports

TIMEOUT_S = 60.0


def port_pair() -> int:
    """A port that is free together with the one after it, and their peer ports."""
    from retinue.ports import taken_port

    while True:
        port = free_ports(1)[0]
        if taken_port("127.0.0.1", (port + 1, port + 1001)) is None:
            return port


def command(directory: Path, *more: str) -> list[str]:
    shape = ["--follower-count", "1", "--port", str(port_pair()), "--data-dir", str(directory)]
    return [sys.executable, "-m", "retinue", "up", *shape, *more]


def processes(directory: Path) -> list[int]:
    cluster = Cluster.load(directory)
    assert cluster is not None
    return [pid for name in cluster.names if (pid := cluster.pid(name))]


def test_without_a_terminal_each_change_is_a_line(tmp_path: Path) -> None:
    with subprocess.Popen(command(tmp_path, "--json"), stdout=subprocess.PIPE, text=True) as up:
        assert up.stdout is not None
        states: dict[str, str] = {}
        while list(states.values()) != ["healthy", "healthy"]:
            sight = json.loads(up.stdout.readline())
            states[sight["name"]] = sight["state"]
        (leader, _) = pids = processes(tmp_path)
        os.kill(leader, signal.SIGKILL)
        while True:
            sight = json.loads(up.stdout.readline())
            if sight["name"] == "leader" and sight["state"].startswith("stopped"):
                break
        second = subprocess.run(command(tmp_path), text=True, capture_output=True, check=False)
        assert (second.returncode, "runs in" in second.stderr) == (1, True)
        up.send_signal(signal.SIGTERM)
        up.communicate(timeout=TIMEOUT_S)
    assert up.returncode == 0
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_on_a_terminal_there_is_a_table_and_keys(tmp_path: Path) -> None:
    controller, terminal = pty.openpty()
    environment = os.environ | {"COLUMNS": "160", "TERM": "xterm"}
    up = subprocess.Popen(command(tmp_path), stdin=terminal, stdout=terminal, stderr=terminal, env=environment)
    os.close(terminal)
    screen = Screen(controller)
    screen.wait_for(r"leader .* healthy .*\n.*follower1 .* healthy")
    os.kill(processes(tmp_path)[1], signal.SIGKILL)
    screen.wait_for(r"follower1 +follower +stopped")
    os.write(controller, b"1")
    screen.wait_for(r"follower1 was started again")
    screen.wait_for(r"follower1 .* healthy")
    pids = processes(tmp_path)
    assert len(pids) == 2
    up.send_signal(signal.SIGINT)
    screen.wait_for("All nodes are stopped")
    assert up.wait(TIMEOUT_S) == 0
    os.close(controller)
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


class Screen:
    """Reads a terminal, without its control sequences, until it shows something."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.text = ""

    def wait_for(self, pattern: str) -> None:
        deadline = time.monotonic() + TIMEOUT_S
        while not (found := re.search(pattern, self.text)):
            left = deadline - time.monotonic()
            assert left > 0, self.text[-3000:]
            if select.select([self.descriptor], [], [], left)[0]:
                shown = os.read(self.descriptor, 65536).decode(errors="replace")
                self.text += re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\r", "", shown)
        self.text = self.text[found.end() :]
