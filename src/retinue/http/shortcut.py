"""The short cut for plain requests on keys: nothing is taken apart that this node has seen and checked before.

A client that keeps its connection open sends the same headers with every request. When the parser has taken a `PUT`
or `GET` of a key apart, and its headers ask for nothing special and stand up to what would be checked on the way, the
connection remembers their bytes. A later request with the very same header bytes (but for the content length), a key
without percent signs and, for a `PUT`, raw bytes or JSON of the plainest form, means the same but for key and value; so
it goes straight to the node. Everything else goes the whole way, and so does every request where tokens are asked for.

What a client sees is the same on both ways: same answers, same headers, same metrics. See docs/decisions/0008.
"""

from __future__ import annotations

import logging
import re
import time
from typing import TYPE_CHECKING

from retinue.core.messages import Change, Encoding, Kind
from retinue.errors import RetinueError
from retinue.http.answer import BYTES, JSON
from retinue.http.body import check_value_size
from retinue.http.kv import found_answer, receipt_answer
from retinue.http.problem import WriteContext, internal_error, problem_answer
from retinue.http.routes import KEY_READ, KEY_WRITE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from retinue.http.answer import Answer
    from retinue.http.app import App
    from retinue.http.connection import Connection
    from retinue.http.door import Door
    from retinue.http.routes import Route
    from retinue.waiting import Answer as NodeAnswer

log = logging.getLogger(__name__)

KNOWN_HEADS = 16

# Small enough that no key makes a head too large, and that what a connection remembers stays small.
BLOCK_LIMIT_BYTES = 1024
BODY_LIMIT_BYTES = 4096

_PUT, _GET = b"PUT /kv/", b"GET /kv/"
_VERSION = b" HTTP/1.1\r\n"
_HEAD_END = b"\r\n\r\n"

_KEY = re.compile(rb"[A-Za-z0-9._~:@!$&'()*+,;=/-]{1,255}")

_LENGTH = re.compile(rb"(?i:(?:\A|\r\n)content-length): ?([0-9]{1,4})(?=\r\n|\Z)")

# A string without escapes, or an integer that is written as this node would write it.
_BODY = re.compile(rb'\{"value": ?(?:"([^"\\\x00-\x1f]*)"|(0|-?[1-9][0-9]{0,14}))\}')

# As plain numbers, for they are compared and encoded with every entry.
_KIND_PUT, _RAW, _JSON = int(Kind.PUT), int(Encoding.RAW), int(Encoding.JSON)

_RAW_TYPES = (BYTES, b"text/plain")
_JSON_ACCEPTED = (b"*/*", JSON)
_PLAIN_HEADERS = frozenset(
    (b"host", b"user-agent", b"accept", b"accept-encoding", b"connection", b"content-type", b"content-length")
)


class KnownHeads:
    """The header blocks of one connection that may take the short cut.

    Those of a `PUT` are kept without their content length, with whether the content is JSON.
    """

    __slots__ = ("gets", "puts")

    def __init__(self) -> None:
        self.gets: set[bytes] = set()
        self.puts: dict[bytes, bool] = {}


def header_block(data: bytes) -> bytes | None:
    """The bytes of the headers, if `data` begins with the whole head of a request on a plain key."""
    head = _plain_head(data)
    return None if head is None else head[1]


def _plain_head(data: bytes) -> tuple[str, bytes, int] | None:
    """Key, header block and where the body begins, if `data` begins with the whole head of a request on a plain key."""
    line_end = data.find(_VERSION, len(_PUT))
    head_end = data.find(_HEAD_END, line_end)
    if line_end < 0 or head_end < 0 or not data.startswith((_PUT, _GET)):
        return None
    if not _KEY.fullmatch(data, len(_PUT), line_end):
        return None
    key, block = data[len(_PUT) : line_end].decode("ascii"), data[line_end + len(_VERSION) : head_end]
    return key, block, head_end + len(_HEAD_END)


class ShortCut:
    """What the connections of a door ask whether a request may take it, and what answers it then."""

    def __init__(self, app: App, door: Door) -> None:
        self.node = door.node
        self.in_flight = app.in_flight
        self.budget = door.budget
        self.value_limit_bytes = door.settings.value_limit_bytes
        self._count = app.count
        self._guard = door.guard

    # --- which requests ---

    def learn(self, heads: KnownHeads, block: bytes, method: str, headers: Sequence[tuple[bytes, bytes]]) -> None:
        """Remember a header block that the parser has taken apart into `headers`, if nothing in it is special.

        Whatever the way of all requests checks must be checked here as well, or ruled out.
        """
        if len(heads.puts) + len(heads.gets) >= KNOWN_HEADS or block in heads.gets:
            return
        without_length, length = _length_apart(block)
        if without_length in heads.puts:
            return
        values = dict(headers)
        plain = (
            len(block) <= BLOCK_LIMIT_BYTES
            and len(values) == len(headers)
            and values.keys() <= _PLAIN_HEADERS
            and values.get(b"connection", b"keep-alive").lower() == b"keep-alive"
            and values.get(b"accept", b"*/*") in _JSON_ACCEPTED
            and not self._guard.needs_tokens
            and b"host" in values
            and self._guard.knows_host(values[b"host"])
        )
        content_type = values.get(b"content-type")
        if plain and method == "GET" and b"content-length" not in values:
            heads.gets.add(block)
        elif plain and method == "PUT" and length >= 0 and content_type in (JSON, *_RAW_TYPES):
            heads.puts[without_length] = content_type == JSON

    def take(self, connection: Connection, heads: KnownHeads, data: bytes) -> bool:
        """Answer, now or later, the request that is all of `data`; false if it must go the whole way.

        Where only the body is missing, as with clients that send it apart, the connection waits for it.
        """
        head = _plain_head(data)
        if head is None:
            return False
        key, block, rest = head
        if data.startswith(_GET):
            if block not in heads.gets or rest != len(data) or self.node.driver.unsettled:
                return False
            self._get(connection, key)
            return True
        without_length, length = _length_apart(block)
        is_json = heads.puts.get(without_length)
        limit_bytes = BODY_LIMIT_BYTES if is_json else min(BODY_LIMIT_BYTES, self.value_limit_bytes)
        if is_json is None or not len(data) - rest <= length <= limit_bytes:
            return False
        if len(data) - rest < length:
            connection.wait_for_body(data)
            return True
        stored = _stored_from_json(data[rest:]) if is_json else (data[rest:], _RAW)
        if stored is None:
            return False
        _Put(self, connection, Change(_KIND_PUT, key, *stored), length).begin()
        return True

    # --- what answers them ---

    def _get(self, connection: Connection, key: str) -> None:
        started_s = time.perf_counter()
        try:
            answer = found_answer(self.node.read_now(key))
        except Exception as error:
            answer = problem_answer(_told(error, KEY_READ))
        self.end(connection, KEY_READ, answer, started_s)

    def end(self, connection: Connection, route: Route, answer: Answer, started_s: float) -> None:
        """Send an answer, and count the request."""
        connection.answer_short_cut(answer)
        self._count(route, answer.status, time.perf_counter() - started_s)


def _length_apart(block: bytes) -> tuple[bytes, int]:
    """A header block without the digits of its content length, and the length; -1 where there is none."""
    found = _LENGTH.search(block)
    return (block, -1) if found is None else (block[: found.start(1)] + block[found.end(1) :], int(found[1]))


def _stored_from_json(body: bytes) -> tuple[bytes, int] | None:
    """Value and encoding of a body of the plainest form; `None` for any other."""
    plain = _BODY.fullmatch(body)
    if plain is None:
        return None
    text, number = plain.groups()
    if text is None:
        return number, _JSON
    try:
        text.decode()
    except UnicodeDecodeError:
        return None
    return text, _RAW


def _told(error: Exception, route: Route) -> RetinueError:
    """What the client is told of an error; the log has those that are faults of this node."""
    if isinstance(error, RetinueError):
        return error
    log.error("%s failed", route.summary, exc_info=error)
    return internal_error()


class _Put:
    """A write on its way; calling it with its result answers it."""

    __slots__ = ("begun_ms", "body_bytes", "change", "connection", "held_bytes", "short_cut", "started_s")

    def __init__(self, short_cut: ShortCut, connection: Connection, change: Change, body_bytes: int) -> None:
        self.short_cut = short_cut
        self.connection = connection
        self.change = change
        self.body_bytes = body_bytes
        self.held_bytes = 0
        self.begun_ms = 0.0
        self.started_s = time.perf_counter()

    def begin(self) -> None:
        """Hand the write to the node."""
        short_cut = self.short_cut
        self.connection.begin_short_cut()
        short_cut.in_flight.value += 1
        try:
            short_cut.budget.take(self.body_bytes)
            self.held_bytes = self.body_bytes
            check_value_size(self.change.value, short_cut.value_limit_bytes)
            self.begun_ms = short_cut.node.put(self.change, self)
        except Exception as error:
            self._end(self._problem(error))

    def __call__(self, result: NodeAnswer) -> None:
        """The node has answered."""
        try:
            receipt = self.short_cut.node.receipt(result, self.begun_ms, self.change.key)
            answer = receipt_answer(receipt, self.change)
        except Exception as error:
            # The core is at work behind this call, and a fault of an answer must not become one of its own.
            answer = self._problem(error)
        self._end(answer)

    def _problem(self, error: Exception) -> Answer:
        write = WriteContext(self.change.key, self.short_cut.node.write_quorum)
        return problem_answer(_told(error, KEY_WRITE), write)

    def _end(self, answer: Answer) -> None:
        short_cut = self.short_cut
        short_cut.in_flight.value -= 1
        short_cut.budget.give_back(self.held_bytes)
        short_cut.end(self.connection, KEY_WRITE, answer, self.started_s)
