"""A Docker engine for the tests: the one that answers, or one that a script starts for them.

Test processes take turns: six nodes at a time are enough for a small machine.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]
SETUP_NAME = "RETINUE_CONTAINER_SETUP"
NO_ENGINE = f"no Docker engine answers; start one, or name a script that starts one in {SETUP_NAME}"

_SETUP_TIMEOUT_S = 600.0


class EngineMissingError(Exception):
    """There is no engine, and nobody said how to start one."""


@contextmanager
def engine() -> Iterator[None]:
    """An engine that answers, as long as the context lasts. Raises `EngineMissingError`."""
    lock = Path(tempfile.gettempdir()) / f"retinue-containers-{os.getuid()}.lock"
    with lock.open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        script = os.environ.get(SETUP_NAME, "")
        answered = _answers()
        if not script and not answered:
            raise EngineMissingError(NO_ENGINE)
        try:
            if script:
                _run_script(script, "up", str(ROOT / "Dockerfile"))
            yield
        finally:
            if script and not answered:
                _run_script(script, "stop")


def _answers() -> bool:
    try:
        asked = subprocess.run(["docker", "info"], capture_output=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return asked.returncode == 0


def _run_script(script: str, *arguments: str) -> None:
    # Into a file: daemons that the script leaves running would keep a pipe open.
    with tempfile.TemporaryFile("w+") as output:
        command = [script, *arguments]
        ended = subprocess.run(command, stdout=output, stderr=output, timeout=_SETUP_TIMEOUT_S, check=False)
        output.seek(0)
        assert ended.returncode == 0, f"{' '.join(command)} ended with {ended.returncode}:\n{output.read()}"
