"""Clients of Redis as they are: redis-py in both protocols, sync and asyncio, redis-cli, redis-benchmark."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import redis

from tests.resp.serving import Raw, RespServed

Connect = Callable[..., Raw]

REDIS_PY = Path(__file__).parent / "clients" / "redis_py.py"


def tool(name: str) -> str:
    """The path of a program; the test is skipped where it is not installed."""
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed here")
    return path


def drive_redis_py(port: int, packages: Path | None = None) -> str:
    """Drive a leader with the redis-py in this folder, else with the installed one; the version that it was."""
    before = {} if packages is None else {"PYTHONPATH": str(packages)}
    command = [sys.executable, str(REDIS_PY), str(port)]
    done = subprocess.run(command, env=before, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    print(done.stdout)
    ways = [line.removeprefix("redis-py ") for line in done.stdout.splitlines()]
    version = ways[0].partition(",")[0]
    assert ways == [f"{version}{way}, RESP{protocol}: passed" for protocol in (2, 3) for way in ("", " with asyncio")]
    return version


def test_redis_py(single: RespServed) -> None:
    assert drive_redis_py(single.resp.port) == redis.__version__


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("version", ["==5.0.8", "~=5.0", "~=6.0", "~=7.0", "~=8.0"])
def test_other_versions_of_redis_py(single: RespServed, tmp_path: Path, version: str) -> None:
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    done = subprocess.run(
        [*pip, "--target", str(tmp_path), f"redis{version}"], capture_output=True, text=True, timeout=300, check=False
    )
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["pip does not say why"]
        pytest.skip(f"redis{version} cannot be installed here: {said[-1]}")
    assert drive_redis_py(single.resp.port, tmp_path)[0] == version[2]


def run(*words: str) -> str:
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_redis_cli(start_single: Callable[..., RespServed], connect: Connect) -> None:
    cli = tool("redis-cli")
    served = start_single()
    talk = connect(served)
    talk("MSET", *[part for n in range(120) for part in (f"cli:{n:03}", "x" * n)])
    port = str(served.resp.port)
    assert run(cli, "-p", port, "SET", "k", "a b") == "OK\n"
    assert run(cli, "-3", "-p", port, "GET", "k") == "a b\n"
    assert len(run(cli, "-p", port, "--scan", "--pattern", "cli:*").split()) == 120
    assert '"cli:119"\' has 119 bytes' in run(cli, "-p", port, "--bigkeys")
    assert "Sampled 121 keys" in run(cli, "-p", port, "--memkeys")
    piped = subprocess.run(
        [cli, "-p", port, "--pipe"],
        input=b"SET piped 1\r\nINCR piped\r\n",
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert b"replies: 2" in piped.stdout
    assert talk("GET", "piped") == b"$1\r\n2"


def test_redis_cli_stat(single: RespServed) -> None:
    cli = tool("redis-cli")
    with subprocess.Popen(
        ["stdbuf", "-oL", cli, "-p", str(single.resp.port), "--stat", "-i", "0.1"], stdout=subprocess.PIPE, text=True
    ) as watching:
        assert watching.stdout is not None
        lines = [watching.stdout.readline() for _ in range(4)]
        watching.kill()
    assert "requests" in lines[1]
    assert lines[2].split()[0].isdigit()


def test_redis_benchmark(single: RespServed) -> None:
    benchmark = tool("redis-benchmark")
    shown = run(
        benchmark, "-p", str(single.resp.port), "-t", "set,get,incr,mset", "-P", "16", "-n", "2000", "-c", "20", "--csv"
    )
    assert [line.split(",")[0] for line in shown.splitlines()[1:]] == ['"SET"', '"GET"', '"INCR"', '"MSET (10 keys)"']
    assert "rror" not in shown
