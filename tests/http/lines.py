"""Requests to the byte, and a connection seen from both ends: what tests of the short cut are made of."""

from __future__ import annotations

import contextlib
import re
import socket
from collections.abc import Iterator

from retinue.http.answer import JSON
from retinue.http.connection import Connection
from tests.http.serving import WAIT_S, Served, wait_until

END = b"\r\n\r\n"
PLAIN = b"Host: localhost\r\nUser-Agent: twin\r\nAccept: */*"
BODY = b'{"value":"abc"}'
HOST = b"Host: localhost\r\n"

# What may differ between two answers to the same request.
VARIES = re.compile(
    rb"(?:date|server-timing|content-length|etag): [^\r]*|"
    rb'"version":\d+|"session":"[\d.]+"|_ms":[\d.e-]+|"acked_by":\[[^]]*\]'
)


def request(
    method: bytes, key: bytes = b"twin", headers: bytes = PLAIN, body: bytes | None = None, kind: bytes = JSON
) -> bytes:
    """A request; a `PUT` has `BODY` unless told otherwise."""
    head = method + b" /kv/" + key + b" HTTP/1.1\r\n" + headers
    if body is None and method == b"PUT":
        body = BODY
    if body is None:
        return head + END
    return head + b"\r\nContent-Type: %b\r\nContent-Length: %d" % (kind, len(body)) + END + body


PUT, GET = request(b"PUT"), request(b"GET")


def the_long_way(data: bytes) -> bytes:
    """The same request with a header that no short cut knows."""
    head, _, rest = data.partition(END)
    return head + b"\r\nX-Way: long" + END + rest


def lesson(data: bytes) -> bytes:
    """A request with the same headers for another key, with a body of the same length."""
    head, _, body = data.partition(END)
    first, _, block = head.partition(b"\r\n")
    return first.split(b" ")[0] + b" /kv/lesson HTTP/1.1\r\n" + block + END + b"x" * len(body)


def status_of(answer: bytes) -> int:
    return int(answer[9:12] or b"0")


def in_flight(served: Served) -> float:
    return served.door.app.in_flight.value


def comparable(answer: bytes) -> bytes:
    return VARIES.sub(b"", answer)


class Line:
    """A connection to a node, seen from both ends."""

    def __init__(self, served: Served) -> None:
        self.raw = socket.create_connection(("127.0.0.1", served.door.port), timeout=WAIT_S)
        self.raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._come = b""
        self._state = served.door._state
        self._end: Connection | None = None

    @property
    def end(self) -> Connection:
        """The node's end, once the node has answered something."""
        assert self._end is not None
        return self._end

    def _find_end(self) -> None:
        own = self.raw.getsockname()
        ends = [end for end in list(self._state.connections) if isinstance(end, Connection) and end.client == own]
        self._end = ends[0] if ends else None

    def send(self, data: bytes) -> None:
        self.raw.sendall(data)

    def read(self, *, bodiless: bool = False) -> bytes:
        """One answer; nothing where the connection has ended."""
        with contextlib.suppress(ConnectionResetError):
            while END not in self._come:
                self._take()
            head, _, self._come = self._come.partition(END)
            if head.startswith(b"HTTP/1.1 100 "):
                return self.read()
            length = re.search(rb"content-length: (\d+)", head)
            size = int(length[1]) if length and not bodiless else 0
            while len(self._come) < size:
                self._take()
            body, self._come = self._come[:size], self._come[size:]
            return head + END + body
        return b""

    def _take(self) -> None:
        piece = self.raw.recv(65_536)
        if not piece:
            raise ConnectionResetError
        self._come += piece

    def ask(self, data: bytes) -> tuple[bytes, bool]:
        """The answer to a request, and whether it came by the short cut."""
        before = None if self._end is None else self._end.cycle
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.send(data)
        answer = self.read(bodiless=data.startswith(b"HEAD"))
        if before is None:
            self._find_end()
            return answer, False
        return answer, answer != b"" and self.end.cycle is before and not self.end._refused

    def learn(self, *requests: bytes) -> None:
        """Have the node go through these headers the whole way."""
        for data in requests:
            self.ask(lesson(data))

    def begin(self, data: bytes) -> None:
        """Send a write, and return when it is on its way by the short cut."""
        self.send(data)
        wait_until(lambda: self.end._on_short_cut)


@contextlib.contextmanager
def line_to(served: Served, *lessons: bytes) -> Iterator[Line]:
    line = Line(served)
    with line.raw:
        line.learn(*lessons)
        yield line


def assert_twins(served: Served, data: bytes) -> bool:
    """Both ways give the same answer and leave the same behind; returns whether the short cut was taken."""
    learnt = ask_and_look(served, data, data)
    long = ask_and_look(served, the_long_way(data))
    assert comparable(learnt[0]) == comparable(long[0])
    assert not long[1]
    return learnt[1]


def ask_and_look(served: Served, data: bytes, *lessons: bytes) -> tuple[bytes, bool]:
    """The answer with what is at the key then, and whether the short cut was taken."""
    with line_to(served, *lessons) as line:
        answer, short = line.ask(data)
        if not answer:
            # The lesson has ended the connection.
            return ask_and_look(served, data)
    if status_of(answer) != 200:
        return answer, short
    etag = re.search(rb'etag: ("(\d+)")', answer)
    assert etag is not None
    assert not data.startswith(b"PUT") or b'"version":%b,' % etag[2] in answer
    key = data.partition(b"/kv/")[2].partition(b" ")[0]
    with line_to(served) as line:
        found, _ = line.ask(request(b"GET", key))
    assert etag[0] in found
    return answer + found, short
