"""The light HTTP client: one connection for many requests, and what went wrong in one sentence."""

from __future__ import annotations

import asyncio

import pytest

from retinue.errors import SettingsError
from retinue.lab.connection import AnswerLost, NotSent, Pool, Reply, Servers, parse_address
from retinue.ports import free_ports
from tests.lab.serving import Rude, rude_server

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


def ask(*answers: bytes | None, times: int = 1, method: str = "GET", close: bool = False) -> tuple[list[Reply], Rude]:
    """What a pool is told by a server that answers so, and what the server saw."""

    async def run() -> tuple[list[Reply], Rude]:
        async with rude_server(*answers, close=close) as server:
            pool = Pool(parse_address(server.url))
            try:
                replies = []
                for _ in range(times):
                    replies.append(await pool.ask(method, "/x", patience_s=1))
                    await asyncio.sleep(0.01)
                return replies, server
            finally:
                pool.close()

    return asyncio.run(run())


def test_one_connection_serves_many_requests() -> None:
    replies, server = ask(OK, times=5)
    assert [reply.status for reply in replies] == [200] * 5
    assert server.connections == 1


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n[1,\r\n2\r\n2]\r\n0\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n[1,2]",
        b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\n[1,2]",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\n[1,2]",
    ],
    ids=["chunked", "after a 100", "HTTP/1.0", "connection: close"],
)
def test_answers_of_many_kinds(answer: bytes) -> None:
    replies, _ = ask(answer, times=2)
    assert [reply.json() for reply in replies] == [[1, 2], [1, 2]]


def test_an_answer_that_ends_with_its_connection() -> None:
    replies, server = ask(b"HTTP/1.0 200 OK\r\n\r\n[1,2]", times=2, close=True)
    assert [reply.json() for reply in replies] == [[1, 2], [1, 2]]
    assert server.connections == 2


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"SSH-2.0-OpenSSH\r\n", "is not HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n[1", "without an answer|broke"),
        (None, "without an answer|broke"),
    ],
    ids=["another protocol", "half an answer", "none"],
)
def test_an_answer_that_is_lost(answer: bytes | None, why: str) -> None:
    with pytest.raises(AnswerLost, match=why):
        ask(answer, method="PUT", close=True)


def test_an_answer_that_does_not_come_in_time() -> None:
    async def run() -> None:
        async with rude_server(b"") as server:
            await Pool(parse_address(server.url)).ask("GET", "/", patience_s=0.05)

    with pytest.raises(AnswerLost, match=r"within 0\.05 s"):
        asyncio.run(run())


def test_a_server_that_is_not_there() -> None:
    with pytest.raises(NotSent, match="Connection refused"):
        asyncio.run(Pool(parse_address(f"127.0.0.1:{free_ports(1)[0]}")).ask("GET", "/"))


def test_a_read_is_sent_again_when_the_idle_connection_was_closed_and_a_write_is_not() -> None:
    replies, server = ask(OK, None, OK, times=2)
    assert [reply.status for reply in replies] == [200, 200]
    assert server.connections == 2
    with pytest.raises(AnswerLost):
        ask(OK, None, OK, times=2, method="PUT")


def test_a_cancelled_request_takes_its_connection_with_it() -> None:
    async def run() -> int:
        async with rude_server(b"", OK) as server:
            pool = Pool(parse_address(server.url))
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(pool.ask("GET", "/first"), 0.05)
            reply = await pool.ask("GET", "/second")
            pool.close()
            assert reply.status == 200
            return server.connections

    assert asyncio.run(run()) == 2


def test_the_token_goes_with_every_request() -> None:
    async def run() -> list[bytes]:
        async with rude_server(OK) as server:
            pool = Servers("abc").at(server.url)
            await pool.ask("PUT", "/x", {"value": "blue"})
            pool.close()
            return server.requests

    (request,) = asyncio.run(run())
    assert b"\r\nAuthorization: Bearer abc\r\n" in request
    assert request.endswith(b'\r\n\r\n{"value":"blue"}')


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("localhost:8000", "http://localhost:8000"),
        ("http://127.0.0.1:8000/", "http://127.0.0.1:8000"),
        ("http://[::1]:8000/store/", "http://[::1]:8000/store"),
        ("https://example.org", "https://example.org:443"),
    ],
)
def test_addresses(text: str, url: str) -> None:
    assert parse_address(text).url == url


@pytest.mark.parametrize("text", ["", "http://", "ftp://host", "http://host:port", "http://host:1?x=1", "http://a b"])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(SettingsError, match="is not the address of a server"):
        parse_address(text)


def test_a_token_that_no_header_can_carry() -> None:
    with pytest.raises(SettingsError, match="RETINUE_TOKEN"):
        Servers("a\r\nX: y")
