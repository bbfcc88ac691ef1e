"""Values that end: what readers see at both doors, what the leader deletes, and what it keeps track of."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from retinue.expiry import SPARE_ENTRIES, now_ms
from tests.resp.serving import Raw, RespHost, RespServed, encoded, lone_leader, wait_until

Start = Callable[..., RespServed]
Connect = Callable[..., Raw]


def frozen(served: RespServed, resp_host: RespHost) -> None:
    """Delete nothing from now on, so that what is over stays in place."""

    async def stop() -> None:
        served.node.expiry.stop()

    resp_host.run(stop())


def test_a_value_that_is_over_is_absent_at_both_doors_before_it_is_deleted(
    resp_host: RespHost, start_single: Start, connect: Connect
) -> None:
    served = start_single()
    frozen(served, resp_host)
    talk = connect(served)
    talk("SET", "a", "1", "PX", "1")
    talk("SET", "b", "1")
    time.sleep(0.01)
    assert talk("GET", "a") == b"$-1"
    assert talk("TTL", "a") == b":-2"
    assert talk("EXISTS", "a", "b") == b":1"
    assert talk("KEYS", "*") == b"*1\r\n$1\r\nb"
    assert talk("SCAN", "0") == b"*2\r\n$1\r\n0\r\n*1\r\n$1\r\nb"
    assert [talk("RANDOMKEY") for _ in range(5)] == [b"$1\r\nb"] * 5
    for path in ("/kv/a", "/kv/a?read=strong", "/kv/a?read=local", "/kv/a?min_version=1.1"):
        assert served("GET", path).status == 404
    assert [item["key"] for item in served("GET", "/kv").json()["items"]] == ["b"]
    assert list(served("GET", "/dump").json()) == ["b"]
    assert talk("DBSIZE") == b":2"


def test_changes_find_a_value_that_is_over_absent(resp_host: RespHost, start_single: Start, connect: Connect) -> None:
    served = start_single()
    frozen(served, resp_host)
    talk = connect(served)

    def over(key: str) -> None:
        talk("SET", key, "41", "PX", "1")
        time.sleep(0.005)

    for key, command, reply in (
        ("a", ("INCR", "a"), b":1"),
        ("b", ("SET", "b", "v", "NX"), b"+OK"),
        ("c", ("DEL", "c"), b":0"),
        ("d", ("PERSIST", "d"), b":0"),
        ("e", ("APPEND", "e", "x"), b":1"),
        ("f", ("SET", "f", "v", "KEEPTTL"), b"+OK"),
    ):
        over(key)
        assert talk(*command) == reply
    assert talk("TTL", "a") == talk("TTL", "b") == talk("TTL", "f") == b":-1"
    over("g")
    assert served("DELETE", "/kv/g").status == 404
    over("h")
    assert served("PUT", "/kv/h", {"value": 1}, {"If-None-Match": "*"}).status == 200
    over("i")
    assert served("PUT", "/kv/i", {"value": 1}, {"If-Match": "*"}).status == 412


def test_a_put_over_http_lets_the_value_stay(talk: Raw, single: RespServed) -> None:
    talk("SET", "stay", "1", "EX", "100")
    assert single("PUT", "/kv/stay", {"value": "2"}).status == 200
    assert talk("TTL", "stay") == b":-1"


def test_what_is_over_is_deleted_and_what_was_prolonged_is_not(start_single: Start, connect: Connect) -> None:
    served = start_single()
    talk = connect(served)
    talk.send(b"".join([encoded("SET", f"brief:{n}", "x", "PX", "50") for n in range(300)]))
    assert all(talk.reply() == b"+OK\r\n" for _ in range(300))
    talk("SET", "prolonged", "x", "PX", "50")
    talk("PEXPIRE", "prolonged", "100000")
    talk("SET", "kept", "x", "PX", "50")
    talk("PERSIST", "kept")
    talk("SET", "rewritten", "x", "PX", "50")
    talk("SET", "rewritten", "y")
    talk("SET", "counted", "1", "PX", "50")
    talk("INCR", "counted")
    wait_until(lambda: talk("DBSIZE") == b":3")
    assert talk("MGET", "prolonged", "kept", "rewritten", "counted") == b"*4\r\n$1\r\nx\r\n$1\r\nx\r\n$1\r\ny\r\n$-1"
    assert served.node.expiry.deleted >= 301
    assert b"expired_keys:" in talk("INFO", "stats")


def test_an_expiry_survives_a_restart(
    resp_host: RespHost, start_single: Start, connect: Connect, tmp_path: Path
) -> None:
    served = lone_leader(resp_host, memory=False, data_dir=tmp_path)
    talk = connect(served)
    at = now_ms() + 1500
    talk("SET", "brief", "x", "PXAT", at)
    talk("MSET", "stays", "x", "more", "x")
    talk("EXPIRE", "more", "1000")
    resp_host.stop(served)
    talk = connect(start_single(memory=False, data_dir=tmp_path))
    assert talk("PEXPIRETIME", "brief") in (b":%d" % at, b":-2")
    assert 900 < int(talk("TTL", "more")[1:]) <= 1000
    wait_until(lambda: talk("DBSIZE") == b":2")
    assert now_ms() >= at


def test_keys_that_are_forgotten_cost_nothing_for_long(start_single: Start, connect: Connect) -> None:
    served = start_single()
    talk = connect(served)
    count = SPARE_ENTRIES + 5000
    for start in range(0, count, 1000):
        names = [f"session:{n}" for n in range(start, start + 1000)]
        talk.send(b"".join([encoded("SET", name, "x", "EX", "100000") for name in names] + [encoded("DEL", *names)]))
        assert [talk.reply() for _ in range(1001)][-1] == b":1000\r\n"
    wait_until(lambda: len(served.node.expiry) < SPARE_ENTRIES - 2000)


def test_a_key_is_kept_track_of_once(start_single: Start, connect: Connect) -> None:
    served = start_single()
    talk = connect(served)
    talk.send(b"".join([encoded("SET", "one", n, "EX", 100_000 - n) for n in range(2000)]))
    assert all(talk.reply() == b"+OK\r\n" for _ in range(2000))
    assert len(served.node.expiry) == 1
    assert abs(int(talk("TTL", "one")[1:]) - 98_001) <= 2
