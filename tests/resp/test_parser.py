"""Requests out of bytes, however they are cut, and the errors of Redis for what is none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retinue.resp.inline import split_line
from retinue.resp.parser import RequestParser
from tests.resp.serving import encoded

PING = b"*1\r\n$4\r\nPING\r\n"

words = st.binary(max_size=40) | st.sampled_from([b"\r\n", b"*1\r\n$4\r\n", b"+\r\n", b"+", b"", b"$0\r\n\r\n", PING])
requests = st.lists(st.lists(words, min_size=1, max_size=6), min_size=1, max_size=8)


def parser(bulk_limit: int = 1000, request_limit: int = 10_000) -> RequestParser:
    return RequestParser(bulk_limit, request_limit)


@given(requests, st.lists(st.integers(1, 200), min_size=1))
def test_requests_are_the_same_however_their_bytes_are_cut(commands: list[list[bytes]], cuts: list[int]) -> None:
    wire = b"".join(encoded(*command) for command in commands)
    reading, found = parser(), []
    while wire:
        for cut in cuts:
            if wire:
                found += reading.feed(wire[:cut])
                wire = wire[cut:]
    assert found == commands
    assert reading.error == ""
    assert reading.held_bytes == 0


@pytest.mark.parametrize(
    ("sent", "commands", "error"),
    [
        (b"*1\r\n$1001\r\n", 0, "invalid bulk length"),
        (PING + b"*2\r\n$4\r\nECHO\r\n$1000000000\r\n", 1, "invalid bulk length"),
        (b"*1\r\n$-1\r\n", 0, "invalid bulk length"),
        (b"*1\r\n$abc\r\n", 0, "invalid bulk length"),
        (b"*1\r\n$04\r\n", 0, "invalid bulk length"),
        (b"*1000000000\r\n", 0, "invalid multibulk length"),
        (PING + b"*99999999999999999999\r\n", 1, "invalid multibulk length"),
        (b"*x\r\n", 0, "invalid multibulk length"),
        (b"*2\r\n:1\r\n", 0, "expected '$', got ':'"),
        (b"*1\r\n*1\r\n$1\r\na\r\n", 0, "expected '$', got '*'"),
        (b"*2\r\n$4\r\nECHO\r\n%1\r\n+a\r\n+b\r\n" + PING, 0, "expected '$', got '%'"),
        (b'SET a "b\r\n', 0, "unbalanced quotes in request"),
        (b"x" * 70_000, 0, "too big inline request"),
        (b"*" + b"1" * 70_000, 0, "too big mbulk count string"),
        (b"*1\r\n$" + b"1" * 70_000, 0, "too big bulk count string"),
        (b"*20\r\n" + b"$1000\r\n%b\r\n" % bytes(1000) * 11, 0, "too big request"),
    ],
)
def test_what_cannot_be_understood_ends_the_connection_with_the_error_of_redis(
    sent: bytes, commands: int, error: str
) -> None:
    reading = parser()
    assert len(reading.feed(sent)) == commands
    assert reading.error == f"Protocol error: {error}"
    assert reading.feed(PING) == []
    assert reading.held_bytes == 0


@pytest.mark.parametrize("nothing", [b"*0\r\n*-1\r\n\r\n  \r\n", b"*0\r\n", b"*0\r\n*0\r\n", b"*-1\r\n", b"\r\n"])
def test_requests_of_no_arguments_are_passed_over(nothing: bytes) -> None:
    assert parser().feed(nothing) == []
    assert parser().feed(nothing + PING) == [[b"PING"]]
    assert parser().feed(PING + nothing + PING + PING) == [[b"PING"]] * 3
    assert parser().feed(PING + nothing) == [[b"PING"]]


def test_inline_commands_may_stand_between_others() -> None:
    sent = PING + b"GET  a\r\nset b 'two words'\n" + PING + b'ECHO "\\x41\\n"\r\n'
    found = [[b"PING"], [b"GET", b"a"], [b"set", b"b", b"two words"], [b"PING"], [b"ECHO", b"A\n"]]
    assert parser().feed(sent) == found
    reading, cut = parser(), []
    for byte in sent:
        cut += reading.feed(bytes([byte]))
    assert cut == found


def test_a_request_that_has_begun_takes_no_more_than_its_limit() -> None:
    reading = parser(request_limit=2000)
    reading.feed(b"*9999\r\n")
    for _ in range(20):
        reading.feed(b"$1\r\nx\r\n")
    assert not reading.error
    for _ in range(20):
        reading.feed(b"$1\r\nx\r\n")
    assert reading.error == "Protocol error: too big request"


def test_a_large_value_is_kept_once_and_read_when_it_is_whole() -> None:
    reading = RequestParser(1 << 24, 1 << 25)
    value = bytes(range(256)) * 40_000
    wire = encoded("SET", "k", value)
    pieces = [wire[start : start + 60_000] for start in range(0, len(wire), 60_000)]
    for piece in pieces[:-1]:
        assert reading.feed(piece) == []
    assert reading.held_bytes < len(wire)
    assert reading.feed(pieces[-1] + PING) == [[b"SET", b"k", value], [b"PING"]]


def test_strangers_get_little() -> None:
    for sent, error in ((b"*11\r\n", "multibulk"), (b"*1\r\n$16385\r\n", "bulk")):
        reading = parser(1 << 20, 1 << 21)
        reading.stranger = True
        assert reading.feed(encoded("AUTH", "x")) == [[b"AUTH", b"x"]]
        assert reading.feed(sent) == []
        assert reading.error == f"Protocol error: unauthenticated {error} length"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"", []),
        (b"  a\t b ", [b"a", b"b"]),
        (b"\"\" ''", [b"", b""]),
        (b"\"a\\\"b\" 'a\\'b'", [b'a"b', b"a'b"]),
        (b'"\\r\\n\\t\\b\\a\\q\\\\"', [b"\r\n\t\b\aq\\"]),
        (b'"\\xff\\x0"', [b"\xffx0"]),
        (b"'\\n'", [b"\\n"]),
        (b'k"e y"', [b"ke y"]),
        (b'"a"b', None),
        (b"'a", None),
        (b'"a', None),
        (b'"a\\"', None),
    ],
)
def test_words_of_a_line(line: bytes, expected: list[bytes] | None) -> None:
    assert split_line(line) == expected
