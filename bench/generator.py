"""The load generator `load.c`: built where it is used, run as a process of its own, read as one line of JSON.

Python is too slow to load a server that speaks the Redis protocol: it would be what is measured.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import msgspec

from retinue.errors import ClusterError

SOURCES = (Path(__file__).with_name("load.c"), Path(__file__).with_name("protocols.h"))
WARM_UP_S = 0.5
_PATIENCE_S = 40.0


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """One run of load: what is asked of whom. `replicas` is how many a `WAIT` or `WAITAOF` must count at least."""

    mode: str
    port: int
    connections: int
    seconds: float
    value_bytes: int = 100
    keys: int = 10_000
    pipeline: int = 1
    replicas: int = 3
    fill: bool = False
    warm_up: float = WARM_UP_S


class LoadResult(msgspec.Struct, frozen=True, kw_only=True):
    """What a run of load saw: answered requests, latencies in µs, errors by kind, CPU of the generator in s.

    `accepted_s` is how long it took until every connection was answered once; `all` counts the requests of the warm-up
    too. `servers_cpu_us` is the CPU of all processes of the system for each of these, user and system, filled in by
    whoever knows the processes; 0 if nobody does.
    """

    connections: int
    count: int
    seconds: float
    per_second: float
    p50_us: float
    p95_us: float
    p99_us: float
    max_us: float
    mean_us: float = 0.0
    generator_cpu_s: float = 0.0
    accepted_s: float = 0.0
    all: int = 0
    servers_cpu_us: float = 0.0
    errors: dict[str, int] = {}


def build(cache: Path) -> Path:
    """The built generator, from `cache` where it was built before. Raises `ClusterError` if it cannot be built."""
    digest = hashlib.sha256(b"".join(source.read_bytes() for source in SOURCES)).hexdigest()[:12]
    program = cache / f"load-{digest}"
    if program.exists():
        return program
    compiler = next((found for name in ("cc", "gcc", "clang") if (found := shutil.which(name))), None)
    if compiler is None:
        raise ClusterError("The load generator cannot be built: there is no C compiler (on Debian: apt install gcc).")
    cache.mkdir(parents=True, exist_ok=True)
    unfinished = program.with_suffix(f".{os.getpid()}")
    done = subprocess.run(
        [compiler, "-O2", "-o", str(unfinished), str(SOURCES[0])], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise ClusterError(f"{SOURCES[0].name} cannot be built: {(done.stderr.strip() or 'no reason given')[:300]}")
    unfinished.replace(program)
    return program


def run(program: Path, load: Load) -> LoadResult:
    """Run the generator. Raises `ClusterError` when it cannot reach the server, or is left by it."""
    fields = msgspec.structs.asdict(load) | {"fill": int(load.fill)}
    options = [text for name, value in fields.items() for text in (f"--{name.replace('_', '-')}", str(value))]
    patience_s = load.seconds + load.warm_up + _PATIENCE_S
    try:
        done = subprocess.run([str(program), *options], capture_output=True, text=True, timeout=patience_s, check=False)
    except subprocess.TimeoutExpired:
        raise ClusterError(f"The load {load.mode} did not end within {patience_s:.0f} s.") from None
    if done.returncode:
        raise ClusterError(f"The load {load.mode} ended early: {done.stderr.strip() or 'no reason given'}")
    return msgspec.json.decode(done.stdout, type=LoadResult)
