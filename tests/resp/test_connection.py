"""Connections: halves and pipelines, bad input, clients that vanish, never read, or speak HTTP; limits; the end."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from retinue import tokens
from retinue.errors import SettingsError
from retinue.ports import free_ports
from retinue.resp.connection import QUEUE_LIMIT, Connection
from tests.resp.serving import Raw, RespHost, RespServed, encoded, wait_until

Start = Callable[..., RespServed]
Connect = Callable[..., Raw]


def test_a_pipeline_is_answered_in_order(talk: Raw) -> None:
    count = 2000
    talk.send(
        b"".join(encoded("SET", f"p:{n}", n) + encoded("GET", f"p:{n}") + encoded("ECHO", n) for n in range(count))
    )
    for n in range(count):
        shown = b"$%d\r\n%d\r\n" % (len(str(n)), n)
        assert (talk.reply(), talk.reply(), talk.reply()) == (b"+OK\r\n", shown, shown)


def test_kinds_of_commands_in_one_pipeline_take_effect_in_order(talk: Raw) -> None:
    talk.send(
        encoded("DEL", "o:k", "o:n")
        + encoded("SET", "o:k", "5")
        + encoded("INCR", "o:k")
        + encoded("GET", "o:k")
        + encoded("INCR", "o:n")
        + encoded("INCR", "o:k")
        + encoded("FOO")
        + encoded("SET", "o:k", "x")
        + encoded("INCR", "o:k")
        + encoded("WAIT", "0", "0")
        + encoded("MSET", "o:k", "1", "o:n", "2")
        + encoded("MGET", "o:k", "o:n")
        + encoded("GETDEL", "o:k")
        + encoded("EXISTS", "o:k")
        + encoded("GET")
        + encoded("PING")
    )
    assert talk.reply()[:1] == b":"
    expected = [
        b"+OK",
        b":6",
        b"$1\r\n6",
        b":1",
        b":7",
        b"-ERR unknown command 'FOO', with args beginning with: ",
        b"+OK",
        b"-ERR value is not an integer or out of range",
        b":0",
        b"+OK",
        b"*2\r\n$1\r\n1\r\n$1\r\n2",
        b"$1\r\n1",
        b":0",
        b"-ERR wrong number of arguments for 'get' command",
        b"+PONG",
    ]
    assert [talk.reply().removesuffix(b"\r\n") for _ in expected] == expected


def test_halves_of_messages_wait_for_the_rest(talk: Raw) -> None:
    talk.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for byte in encoded("SET", "half", "x" * 20) + b"GET half\r\n":
        talk.send(bytes([byte]))
    assert talk.reply() == b"+OK\r\n"
    assert talk.reply() == b"$20\r\n" + b"x" * 20 + b"\r\n"


@pytest.mark.parametrize(
    ("sent", "error"),
    [
        (b"*1\r\n$2000000\r\n", b"invalid bulk length"),
        (b"*1000000000\r\n", b"invalid multibulk length"),
        (b"*1\r\n:1\r\n", b"expected '$', got ':'"),
        (b"GET 'a\r\n", b"unbalanced quotes in request"),
    ],
)
def test_what_cannot_be_understood_is_answered_in_its_turn_and_ends_the_connection(
    talk: Raw, sent: bytes, error: bytes
) -> None:
    talk.send(
        encoded("SET", "bad", "1") + encoded("INCR", "bad") + encoded("GET", "bad") + sent + encoded("SET", "bad", "9")
    )
    assert talk.rest() == b"+OK\r\n:2\r\n$1\r\n2\r\n-ERR Protocol error: " + error + b"\r\n"


def test_quit_is_answered_and_nothing_after_it(talk: Raw) -> None:
    talk.send(encoded("SET", "q", "1") + encoded("QUIT") + encoded("SET", "q", "2"))
    assert talk.rest() == b"+OK\r\n+OK\r\n"


def test_what_came_before_the_end_of_the_input_is_answered(talk: Raw) -> None:
    talk.send(encoded("SET", "eof", "1") + encoded("INCR", "eof") + b"GET eof\r\n")
    talk.socket.shutdown(socket.SHUT_WR)
    assert talk.rest() == b"+OK\r\n:2\r\n$1\r\n2\r\n"


@pytest.mark.parametrize("method", [b"POST", b"GET", b"PUT", b"OPTIONS"])
def test_http_requests_change_nothing(connect: Connect, method: bytes) -> None:
    page, other = connect(), connect()
    other("SET", "http", "1")
    page.send(method + b" / HTTP/1.1\r\nHost: localhost:6400\r\nContent-Length: 20\r\n\r\nSET http 2\r\n")
    assert b"OK" not in page.rest()
    assert other("GET", "http") == b"$1\r\n1"


def test_a_client_that_dies_disturbs_nobody(single: RespServed, connect: Connect) -> None:
    other = connect()
    for _ in range(20):
        dying = single.raw()
        dying.send(
            encoded("SET", "dying", "x" * 1000) * 200 + encoded("INCR", "dying:n") * 50 + encoded("GET", "dying") * 500
        )
        # A reset, not an orderly end.
        dying.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        dying.close()
        assert other("SET", "living", "1") == b"+OK"
        assert other("INCR", "living") == b":2"
    wait_until(lambda: len(single.resp.connections) == 1)


def test_a_client_that_never_reads_costs_little_and_is_closed(start_single: Start, connect: Connect) -> None:
    served = start_single(idle_timeout_s=1.0)
    talk, other = connect(served), connect(served)
    talk.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    assert other("SET", "large", "x" * 1_000_000) == b"+OK"
    refused = threading.Event()

    def send() -> None:
        try:
            while True:
                talk.send(encoded("GET", "large") * 1000)
        except OSError:
            refused.set()

    threading.Thread(target=send, daemon=True).start()
    wait_until(lambda: paused(served) is not None)
    connection = paused(served)
    assert connection is not None
    for _ in range(50):
        assert other("STRLEN", "large") == b":1000000"
    assert connection.transport.get_write_buffer_size() < 4_000_000
    assert connection.parser.held_bytes + sum(len(each) for each in connection.backlog) < 2_000_000
    assert refused.wait(20)
    wait_until(lambda: connection.number not in served.resp.connections)


def paused(served: RespServed) -> Connection | None:
    """The connection whose client does not read."""
    every = [each for each in list(served.resp.connections.values()) if isinstance(each, Connection)]
    return next((each for each in every if each.paused_at_s is not None), None)


def test_a_client_is_not_read_from_while_it_has_too_much_under_way(connect: Connect, single: RespServed) -> None:
    """Everything is answered in the end, in order, however much comes at once."""
    talk = connect()
    turns, plain = 200, QUEUE_LIMIT // 10
    one = encoded("SET", "flood", "x") * plain + encoded("INCR", "flood:n")
    threading.Thread(target=talk.send, args=(one * turns,), daemon=True).start()
    for turn in range(1, turns + 1):
        assert all(talk.reply() == b"+OK\r\n" for _ in range(plain))
        assert talk.reply() == b":%d\r\n" % turn
        assert (
            max(len(each.backlog) for each in list(single.resp.connections.values()) if isinstance(each, Connection))
            < 50_000
        )


def test_connections_above_the_limit_are_refused(start_single: Start) -> None:
    served = start_single(max_connections=3)
    held = [served.raw() for _ in range(3)]
    assert all(raw("PING") == b"+PONG" for raw in held)
    extra = served.raw()
    assert extra.rest() == b"-ERR max number of clients reached\r\n"
    held.pop().close()
    wait_until(lambda: len(served.resp.connections) == 2)
    again = served.raw()
    assert again("PING") == b"+PONG"
    for raw in (extra, again, *held):
        raw.close()


def test_too_many_pending_writes_are_refused(start_single: Start, connect: Connect) -> None:
    talk = connect(start_single(max_pending_writes=1))
    talk.send(b"".join([encoded("SET", "busy", n) for n in range(50)]))
    replies = [talk.reply() for _ in range(50)]
    assert replies[0] == b"+OK\r\n"
    assert set(replies[1:]) <= {
        b"+OK\r\n",
        b"-BUSY Too many writes wait for their quorum: nothing was written, try again in a moment.\r\n",
    }
    assert len(set(replies)) == 2
    assert talk("SET", "busy", "x") == b"+OK"


def test_a_stop_answers_what_is_under_way_and_ends(resp_host: RespHost, start_single: Start) -> None:
    served = start_single()
    raw = served.raw()
    assert raw("SET", "k", "v") == b"+OK"
    resp_host.run(served.resp.stop())
    assert raw.rest() == b""
    raw.close()
    assert served.node.resp_port is None
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", served.resp.port), timeout=5)


def test_a_port_in_use_is_an_error_only_where_it_was_asked_for(resp_host: RespHost, start_single: Start) -> None:
    port = free_ports(1)[0]
    with socket.create_server(("127.0.0.1", port)):
        served = start_single(resp_port=port)
        assert served.node.resp_port is None
        assert served("GET", "/config").json()["resp_port"] is None
        with pytest.raises(SettingsError, match=f"resp_port={port}.*Choose another"):
            start_single(resp_port=port, sources={"resp_port": "RETINUE_RESP_PORT"})


# --- tokens ---


@pytest.fixture
def guarded(start_single: Start, tmp_path: Path) -> tuple[RespServed, dict[str, str]]:
    file = tmp_path / "tokens"
    known = {role: tokens.create(file, role) for role in tokens.ROLES}
    return start_single(token_file=file), known


def test_without_a_token_nothing_is_allowed(guarded: tuple[RespServed, dict[str, str]], connect: Connect) -> None:
    talk = connect(guarded[0])
    for command in (("GET", "k"), ("SET", "k", "v"), ("PING",), ("CLIENT", "LIST"), ("FOO",)):
        assert talk(*command) == b"-NOAUTH Authentication required."
    assert talk("HELLO", "3").startswith(b"-NOAUTH HELLO must be called")
    assert talk("AUTH", "wrong").startswith(b"-WRONGPASS")
    talk.send(b"*100\r\n")
    assert talk.rest() == b"-ERR Protocol error: unauthenticated multibulk length\r\n"


def test_a_role_may_do_what_it_may_over_http(guarded: tuple[RespServed, dict[str, str]], connect: Connect) -> None:
    served, known = guarded
    reader, writer = connect(served), connect(served)
    assert reader("AUTH", known["read"]) == b"+OK"
    assert reader("GET", "k") == b"$-1"
    assert reader("GETEX", "k", "PERSIST") == b"-NOPERM this user has no permissions to run the 'getex' command"
    assert reader("SET", "k", "v") == b"-NOPERM this user has no permissions to run the 'set' command"
    assert writer("HELLO", "3", "AUTH", "anybody", known["write"]).startswith(b"%7\r\n")
    assert writer("SET", "k", "v") == b"+OK"
    assert writer("RESET") == b"+RESET"
    assert writer("GET", "k") == b"-NOAUTH Authentication required."
