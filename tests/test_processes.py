"""Processes that this program starts, and how it learns of their end."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from retinue.processes import spawn

# The first thread ends at once by the system call of that name, the second one ends the process when told to.
TWO_THREADS = """
import ctypes, os, sys, threading, time
def end_when_told():
    while not os.path.exists(sys.argv[1]):
        time.sleep(0.01)
    os._exit(3)
threading.Thread(target=end_when_told).start()
SYS_EXIT = {"x86_64": 60, "aarch64": 93}[os.uname().machine]
ctypes.CDLL(None).syscall(SYS_EXIT, 0)
"""


def test_a_process_lives_until_its_last_thread_has_ended_and_then_tells_how(tmp_path: Path) -> None:
    told = tmp_path / "told"
    process = spawn([sys.executable, "-c", TWO_THREADS, str(told)], os.environ, tmp_path / "log")
    stat = Path(f"/proc/{process.pid}/stat")
    deadline = time.monotonic() + 20
    while stat.read_text().rpartition(")")[2].split()[0] != "Z":
        assert time.monotonic() < deadline, (tmp_path / "log").read_text()
        time.sleep(0.01)
    assert process.alive()
    assert process.exit_code is None
    told.touch()
    assert process.wait(20)
    assert process.exit_code == 3
    assert not process.alive()
