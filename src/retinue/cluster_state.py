"""What a local cluster writes down about itself in its directory, so that any program can take it over."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from retinue.errors import ClusterError, SettingsError
from retinue.processes import Process

STATE_FILE = "cluster.json"
LOCK_FILE = "cluster.lock"
_DIRECTORY_MODE = 0o700


class NodeRecord(msgspec.Struct, frozen=True):
    """One node: its name, its HTTP port, and the process that runs it (`pid` 0: none)."""

    name: str
    port: int
    pid: int = 0
    started: str = ""


class State(msgspec.Struct, frozen=True):
    """The settings that all nodes share, and the nodes. `stopped`: the last thing done was to stop all of them."""

    settings: dict[str, str]
    nodes: list[NodeRecord]
    stopped: bool = False

    def process(self, name: str) -> Process | None:
        """The process written down for a node, be it alive or not."""
        record = next((record for record in self.nodes if record.name == name), None)
        return Process(record.pid, record.started) if record and record.pid else None


def read(data_dir: Path) -> State | None:
    """What is written down in this directory; `None` for nothing. Raises `ClusterError` for a damaged file."""
    file = data_dir / STATE_FILE
    try:
        return msgspec.json.decode(file.read_bytes(), type=State)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, msgspec.MsgspecError) as error:
        raise ClusterError(f"{file} cannot be read ({error}): remove it once no node of this cluster runs.") from None


def write(data_dir: Path, state: State) -> None:
    """Replace what is written down, in one step."""
    temporary = data_dir / f"{STATE_FILE}.new"
    temporary.write_bytes(msgspec.json.format(msgspec.json.encode(state), indent=2) + b"\n")
    temporary.replace(data_dir / STATE_FILE)


@contextmanager
def locked(data_dir: Path) -> Iterator[None]:
    """Let one program at a time start and stop nodes; the lock ends with whoever holds it. Makes the directory."""
    try:
        data_dir.mkdir(_DIRECTORY_MODE, parents=True, exist_ok=True)
        lock = (data_dir / LOCK_FILE).open("a", encoding="ascii")
    except OSError as error:
        why = f"DATA_DIR={data_dir} is not possible ({error.strerror})"
        raise SettingsError(f"{why}: name a directory that you may write to.") from None
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
