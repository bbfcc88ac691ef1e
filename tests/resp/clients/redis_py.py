"""All that redis-py does against a live leader, in versions 5 to 8 of it, sync and asyncio.

A program of its own, so that any interpreter with any redis-py can run it: nothing but redis-py is imported.

    python tests/resp/clients/redis_py.py 6400

Prints one line with the version of redis-py for each way it was driven. Ends with a traceback if an answer is wrong.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable
from typing import Any

import redis
import redis.asyncio

PROTOCOLS = (2, 3)
PIPELINED = 100


def equal(found: object, expected: object) -> None:
    """Fail unless an answer is what it should be."""
    if found != expected or type(found) is not type(expected):
        raise AssertionError(f"{found!r} instead of {expected!r}")


def fails(call: Any, said: str) -> None:
    """Fail unless a call is answered with this error."""
    try:
        found = call()
    except redis.ResponseError as error:
        if said in str(error):
            return
        raise
    raise AssertionError(f"{found!r} instead of the error {said!r}")


def strings(client: Any, key: str) -> None:
    """Commands on values."""
    equal(client.set(key, "1", ex=100), True)
    equal(client.get(key), "1")
    equal(client.set(key, "2", nx=True), None)
    equal(client.set(key, "2", xx=True, keepttl=True), True)
    equal(client.set(key, "1", get=True), "2")
    equal(client.incr(key, 41), 42)
    equal(client.decr(key, 2), 40)
    equal(client.decrby(key, 30), 10)
    equal(client.incrbyfloat(key, 0.5), 10.5)
    equal(client.setnx(key, "x"), False)
    equal(client.getset(key, "abc"), "10.5")
    equal(client.append(key, "def"), 6)
    equal(client.getrange(key, 1, 3), "bcd")
    equal(client.strlen(key), 6)
    equal(client.setex(key, 50, "y"), True)
    equal(client.psetex(key, 50_000, "z"), True)
    equal(client.getex(key, persist=True), "z")
    equal(client.ttl(key), -1)
    equal(client.getdel(key), "z")
    equal(client.get(key), None)
    equal(client.mset({f"{key}:a": "x", f"{key}:b": "y"}), True)
    equal(client.mget(f"{key}:a", f"{key}:b", f"{key}:c"), ["x", "y", None])


def keys(client: Any, key: str) -> None:
    """Commands on keys, and on when they end."""
    equal(sorted(client.scan_iter(f"{key}:*")), [f"{key}:a", f"{key}:b"])
    equal(sorted(client.keys(f"{key}:*")), [f"{key}:a", f"{key}:b"])
    equal(client.exists(f"{key}:a", f"{key}:c"), 1)
    equal(client.type(f"{key}:a"), "string")
    equal(client.dbsize() >= 2, True)
    equal(isinstance(client.randomkey(), str), True)
    equal(client.memory_usage(f"{key}:a") > 0, True)
    equal(client.object("encoding", f"{key}:a") in ("raw", "embstr", "int"), True)
    equal(client.expire(f"{key}:a", 100), True)
    equal(client.pexpire(f"{key}:a", 90_000, gt=True), False)
    equal(90 < client.ttl(f"{key}:a") <= 100, True)
    equal(90_000 < client.pttl(f"{key}:a") <= 100_000, True)
    until_s = int(time.time()) + 1000
    equal(client.expireat(f"{key}:a", until_s), True)
    equal(client.expiretime(f"{key}:a"), until_s)
    equal(client.pexpireat(f"{key}:a", until_s * 1000 + 1), True)
    equal(client.pexpiretime(f"{key}:a"), until_s * 1000 + 1)
    equal(client.persist(f"{key}:a"), True)
    equal(client.unlink(f"{key}:a"), 1)
    equal(client.delete(f"{key}:a", f"{key}:b", f"{key}:c"), 1)


def node(client: Any) -> None:
    """Commands on the node and the connection."""
    equal(client.ping(), True)
    equal(client.echo("hello"), "hello")
    equal(client.info()["role"], "master")
    equal(client.info("replication")["role"], "master")
    equal(client.config_get("databases"), {"databases": "1"})
    equal(client.role()[0], "master")
    equal(client.client_getname(), "test")
    equal(client.client_id() > 0, True)
    equal(any(each["name"] == "test" for each in client.client_list()), True)
    equal(client.client_info()["name"], "test")
    equal(client.client_info()["id"], client.client_id())
    equal(len(client.time()), 2)
    equal("set" in client.command(), True)
    equal(client.command_count() > 10, True)
    equal(client.wait(0, 10) >= 0, True)
    equal(client.select(0), True)


def errors(client: Any, key: str) -> None:
    """What is refused."""
    fails(lambda: client.lpush(key, "x"), "unknown command")
    client.set(key, "x")
    fails(lambda: client.incr(key), "not an integer")
    fails(lambda: client.execute_command("GET"), "wrong number of arguments")
    fails(lambda: client.set("k" * 2000, "x"), "key")
    equal(client.delete(key), 1)


def fill(pipeline: Any, key: str) -> None:
    """Put plain writes, changes and reads into a pipeline."""
    for number in range(PIPELINED):
        pipeline.set(f"{key}:p", number)
        pipeline.incr(f"{key}:n")
        pipeline.get(f"{key}:p")


def expected() -> list[Any]:
    """What the pipeline of `fill` answers."""
    return [part for number in range(PIPELINED) for part in (True, number + 1, str(number))]


def drive(port: int, protocol: int) -> None:
    """Everything, one command after another."""
    key = f"py{protocol}"
    given: dict[str, Any] = {"protocol": protocol, "client_name": "test", "decode_responses": True}
    with redis.Redis(port=port, **given) as client:
        strings(client, key)
        keys(client, key)
        node(client)
        errors(client, key)
        with client.pipeline(transaction=False) as pipeline:
            fill(pipeline, key)
            equal(pipeline.execute(), expected())
        equal(client.delete(f"{key}:p", f"{key}:n"), 2)
    with redis.Redis(port=port, protocol=protocol) as client:
        raw = bytes(range(256)) * 400
        equal(client.set(key, raw), True)
        equal(client.get(key), raw)
        equal(client.delete(key), 1)


async def drive_with_asyncio(port: int, protocol: int) -> None:
    """The same client with asyncio: many commands at once on connections of a pool, and a pipeline."""
    key = f"aio{protocol}"
    given: dict[str, Any] = {"protocol": protocol, "decode_responses": True}
    async with redis.asyncio.Redis(port=port, **given) as client:
        counting: list[Awaitable[Any]] = [client.incr(key) for _ in range(80)]
        equal(sorted(await asyncio.gather(*counting)), list(range(1, 81)))
        async with client.pipeline(transaction=False) as pipeline:
            fill(pipeline, key)
            equal(await pipeline.execute(), expected())
        equal(await client.set(key, "1", px=50_000, get=True), "80")
        equal(await client.mset({f"{key}:a": "x", f"{key}:b": "y"}), True)
        equal([each async for each in client.scan_iter(f"{key}:[ab]")], [f"{key}:a", f"{key}:b"])
        equal(await client.mget(f"{key}:a", f"{key}:c"), ["x", None])
        equal((await client.info())["role"], "master")
        equal((await client.role())[0], "master")
        equal(await client.wait(0, 10) >= 0, True)
        try:
            await client.lpush(key, "x")
        except redis.ResponseError as error:
            equal("unknown command" in str(error), True)
        else:
            raise AssertionError("LPUSH was taken")
        equal(await client.delete(key, f"{key}:a", f"{key}:b", f"{key}:p", f"{key}:n"), 5)


def main(port: int) -> None:
    """Drive the leader at this port in all ways."""
    for protocol in PROTOCOLS:
        drive(port, protocol)
        print(f"redis-py {redis.__version__}, RESP{protocol}: passed", flush=True)
        asyncio.run(drive_with_asyncio(port, protocol))
        print(f"redis-py {redis.__version__} with asyncio, RESP{protocol}: passed", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]))
