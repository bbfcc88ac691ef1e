"""Clients of Redis as they are: redis-py in both protocols, redis-cli, redis-benchmark."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections.abc import Callable

import pytest
import redis
import redis.asyncio

from tests.resp.serving import Raw, RespServed

Connect = Callable[..., Raw]


def tool(name: str) -> str:
    """The path of a program; the test is skipped where it is not installed."""
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed here")
    return path


@pytest.mark.parametrize("protocol", [2, 3])
def test_redis_py(single: RespServed, protocol: int) -> None:
    key = f"py{protocol}"
    with redis.Redis(port=single.resp.port, protocol=protocol, client_name="test", decode_responses=True) as client:
        assert client.ping()
        assert client.set(key, "1", ex=100)
        assert client.get(key) == "1"
        assert client.set(key, "2", nx=True) is None
        assert client.incr(key, 41) == 42
        assert 90 < client.ttl(key) <= 100
        assert client.mset({f"{key}:a": "x", f"{key}:b": "y"})
        assert client.mget(f"{key}:a", f"{key}:b", f"{key}:c") == ["x", "y", None]
        assert sorted(client.scan_iter(f"{key}:*")) == [f"{key}:a", f"{key}:b"]
        assert client.delete(f"{key}:a", f"{key}:b", f"{key}:c") == 2
        with client.pipeline(transaction=False) as pipeline:
            for number in range(100):
                pipeline.set(f"{key}:p", number).incr(f"{key}:n").get(f"{key}:p")
            answers = pipeline.execute()
        assert answers == [part for number in range(100) for part in (True, number + 1, str(number))]
        assert client.info()["role"] == "master"
        assert client.config_get("databases") == {"databases": "1"}
        assert client.role()[0] == "master"
        assert client.client_getname() == "test"
        assert client.wait(0, 10) == 0
        with pytest.raises(redis.ResponseError, match="unknown command"):
            client.lpush(key, "x")
        client.set(key, "x")
        with pytest.raises(redis.ResponseError, match="not an integer"):
            client.incr(key)
        assert client.client_id() > 0


@pytest.mark.parametrize("protocol", [2, 3])
def test_redis_py_with_asyncio(single: RespServed, protocol: int) -> None:
    async def work() -> None:
        async with redis.asyncio.Redis(port=single.resp.port, protocol=protocol) as client:
            name = f"aio{protocol}"
            counted = await asyncio.gather(*[client.incr(name) for _ in range(80)])
            assert sorted(counted) == list(range(1, 81))
            async with client.pipeline(transaction=False) as pipeline:
                for number in range(50):
                    pipeline.set(name, number)
                    pipeline.get(name)
                answers = await pipeline.execute()
            assert answers == [part for number in range(50) for part in (True, str(number).encode())]
            assert await client.getdel(name) == b"49"
            assert await client.get(name) is None

    asyncio.run(work())


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
