"""One client connection: uvicorn's HTTP/1.1 protocol with the limits that keep slow, huge and many clients harmless.

* Headers, request line included, may take `HEADER_LIMIT_BYTES` (431), and `header_timeout_s` from the first byte (408).
* A body must have arrived `idle_timeout_s` after its headers (408); a quiet connection is closed after as long.
* Above the cap on connections a few are held in reserve, on which only health checks are answered; above those a
  connection is dropped at once.
* What is left of a body whose request has been answered already is read and thrown away up to a limit, so that the
  client gets to read the answer.

Deadlines are plain numbers that the server's sweep compares with the clock: no timer per request.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from retinue.errors import BadRequest, HeadersTooLarge, RetinueError
from retinue.http.exchange import Exchange, whole_answer
from retinue.http.problem import RequestTimeout, problem_answer
from retinue.http.shortcut import KnownHeads, header_block

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from uvicorn import Config
    from uvicorn._types import ASGI3Application
    from uvicorn.protocols.http.httptools_impl import RequestResponseCycle
    from uvicorn.server import ServerState

    from retinue.http.answer import Answer
    from retinue.http.shortcut import ShortCut

log = logging.getLogger(__name__)

HEADER_LIMIT_BYTES = 16_384
DISCARD_LIMIT_BYTES = 64 << 20
RESERVE_CONNECTIONS = 32
LINGER_S = 1.0

_BODY_HEADERS = (b"content-length", b"transfer-encoding")


class Limits:
    """What a server allows each of its connections."""

    __slots__ = ("header_timeout_s", "idle_timeout_s", "max_connections")

    def __init__(self, max_connections: int, header_timeout_s: float, idle_timeout_s: float) -> None:
        self.max_connections = max_connections
        self.header_timeout_s = header_timeout_s
        self.idle_timeout_s = idle_timeout_s


class Connection(HttpToolsProtocol):
    """One connection. `deadline_s` is the moment in the loop's time at which it is given up, `None` for never."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        limits: Limits,
        short_cut: ShortCut,
        on_closed: Callable[[], None],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        super().__init__(config, server_state, {"reserve": False, "closed": self.is_closed}, loop)
        self.limits = limits
        self.deadline_s: float | None = None
        self.write_deadline_s: float | None = None
        self._on_closed = on_closed
        self._running: RequestResponseCycle | None = None
        self._in_head = False
        self._head_bytes = 0
        self._unparsed_bytes = 0
        self._discarded_bytes = 0
        self._refused = False
        self._short_cut = short_cut
        self._known_heads = KnownHeads()
        self._new_block: bytes | None = None
        self._on_short_cut = False
        self._last_short_cut = False
        self._held = b""
        self._without_body = b""

    # --- what the transport tells ---

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take the connection, into the reserve if there are as many as there may be already."""
        super().connection_made(transport)
        held = len(self.connections)
        if held > self.limits.max_connections + RESERVE_CONNECTIONS:
            transport.abort()
            return
        self.app_state["reserve"] = held > self.limits.max_connections
        self._wait_at_most(self.limits.idle_timeout_s)

    def data_received(self, data: bytes) -> None:
        """Parse what has come; what is no HTTP is answered with 400 and the connection ends."""
        if self._refused:
            self._discard(len(data))
            return
        if self._on_short_cut:
            self._held += data
            self.flow.pause_reading()
            return
        if self._without_body:
            data, self._without_body = self._without_body + data, b""
        if self._is_between_requests():
            if self._short_cut.take(self, self._known_heads, data):
                return
            self._new_block = header_block(data)
        self._parse(data)

    def _parse(self, data: bytes) -> None:
        unfinished = self.scope if self._in_head else None
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._ignore_upgrade()
        except httptools.HttpParserError as error:
            # A limit raises inside the parser, which wraps it.
            cause = error.__context__
            self.refuse(cause if isinstance(cause, RetinueError) else BadRequest("This is not valid HTTP: correct it."))
        else:
            if self._in_head and self.scope is unfinished:
                self._unparsed_bytes += len(data)
                if self._unparsed_bytes > HEADER_LIMIT_BYTES:
                    self.refuse(_headers_too_large())

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        super().connection_lost(exc)
        self.deadline_s = self.write_deadline_s = None
        self._on_closed()

    def pause_writing(self) -> None:
        """Start the clock of a client that does not read."""
        super().pause_writing()
        self.write_deadline_s = self.loop.time() + self.limits.idle_timeout_s

    def resume_writing(self) -> None:
        """Stop it: the client has read."""
        super().resume_writing()
        self.write_deadline_s = None

    def is_closed(self) -> bool:
        """Whether there is nobody left to answer."""
        return self.transport.is_closing()

    # --- what the parser tells ---

    def on_message_begin(self) -> None:
        """Start the clock of the headers."""
        super().on_message_begin()
        self._in_head = True
        self._head_bytes = self._unparsed_bytes = self._discarded_bytes = 0
        self._wait_at_most(self.limits.header_timeout_s)

    def on_url(self, url: bytes) -> None:
        """Take the address, or a piece of it."""
        self.url += url
        self._count_head(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header."""
        name = name.lower()
        if name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        self.headers.append((name, value))
        self._count_head(len(name) + len(value) + len(b": \r\n"))

    def on_headers_complete(self) -> None:
        """Start the clock of the body, and the request."""
        self._in_head = False
        self._wait_at_most(self.limits.idle_timeout_s)
        if self.parser.should_upgrade() and any(name in _BODY_HEADERS for name, _ in self.headers):
            # The parser would take the body for the other protocol, and an empty value would be stored.
            raise BadRequest("A request with a body cannot ask for another protocol: send it without Upgrade.")
        version = self.parser.get_http_version()
        self.scope["method"] = self.parser.get_method().decode("ascii")
        self.scope["http_version"] = version
        self.scope["raw_path"], self.scope["query_string"] = _path_and_query(self.url)
        self.cycle = Exchange(
            scope=self.scope,
            transport=self.transport,
            flow=self.flow,
            logger=log,
            access_logger=log,
            access_log=False,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=self.expect_100_continue,
            keep_alive=version != "1.0" and self.parser.should_keep_alive(),
            on_response=self.on_response_complete,
        )
        block, self._new_block = self._new_block, None
        if block is not None:
            self._short_cut.learn(self._known_heads, block, self.scope["method"], self.headers)
        if self._running is None or self._running.response_complete:
            self._start_asgi_task(self.cycle, self.app)
        else:
            # Pipelined: it waits until the requests before it are answered.
            self.flow.pause_reading()
            self.pipeline.appendleft((self.cycle, self.app))

    def on_body(self, body: bytes) -> None:
        """Hand on a piece of the body, or throw it away if its request has been answered."""
        if self.cycle.response_complete:
            self._discard(len(body))
        else:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """Stop the clock: from here on the client waits for this node."""
        self.deadline_s = None
        if self.cycle.response_complete:
            self._wait_at_most(self.limits.idle_timeout_s)
        super().on_message_complete()

    # --- what the request tells ---

    def on_response_complete(self) -> None:
        """Go on with the next request that waits, or wait for one."""
        self.server_state.total_requests += 1
        if self.deadline_s is None:
            self._wait_at_most(self.limits.idle_timeout_s)
        if self.transport.is_closing():
            return
        assert self._running is not None, "an answer belongs to a request"
        if not self._running.keep_alive:
            self._end_after_body()
            return
        self.flow.resume_reading()
        if self.pipeline:
            cycle, app = self.pipeline.pop()
            if not cycle.more_body:
                self.deadline_s = None
            self._start_asgi_task(cycle, app)

    # --- requests on the short cut ---

    def _is_between_requests(self) -> bool:
        """Whether everything that came has been answered, and the next byte begins a request."""
        answered = self._running is None or (self.cycle.response_complete and not self.cycle.more_body)
        return answered and not self._in_head and not self.flow.write_paused

    def begin_short_cut(self) -> None:
        """A request on the short cut has begun; what comes meanwhile waits."""
        self._on_short_cut = True
        self.deadline_s = None

    def wait_for_body(self, data: bytes) -> None:
        """The head of a request that may take the short cut is there, and its body is not."""
        self._without_body = data
        self._wait_at_most(self.limits.idle_timeout_s)

    def answer_short_cut(self, answer: Answer) -> None:
        """Answer it, and go on with what has come meanwhile, but not right here: the core may be at work behind."""
        if self._held:
            self.loop.call_soon(self._take_held)
        else:
            self._on_short_cut = False
        if self.transport.is_closing():
            return
        try:
            self.transport.write(whole_answer(answer, self.server_state.default_headers, last=self._last_short_cut))
        except (OSError, RuntimeError):
            # uvloop raises on a connection that the client has closed; it will tell so in `connection_lost`.
            self.transport.abort()
            return
        self.server_state.total_requests += 1
        if self._last_short_cut:
            self.transport.close()
        else:
            self._wait_at_most(self.limits.idle_timeout_s)

    def _take_held(self) -> None:
        self._on_short_cut = False
        held, self._held = self._held, b""
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        self.data_received(held)
        if self._last_short_cut and not self._on_short_cut:
            super().shutdown()

    def shutdown(self) -> None:
        """End the connection as soon as no request is under way."""
        if self._on_short_cut:
            self._last_short_cut = True
            return
        if self._without_body:
            data, self._without_body = self._without_body, b""
            self._parse(data)
        super().shutdown()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    # --- limits ---

    def give_up(self) -> None:
        """The deadline has passed: tell the client if it was sending a request, then close."""
        if self._refused or not self._expects_more() or self.transport.is_closing():
            # Closing would wait for the client to read what is left, so this ends the connection there and then.
            self.transport.abort()
            return
        self.refuse(RequestTimeout("The request did not arrive in time: send it without pauses."))

    def refuse(self, error: RetinueError) -> None:
        """Answer without the application, and end the connection once the client has had time to read the answer."""
        self._refused = True
        if self.pipeline and self.pipeline[0][0].more_body:
            self.pipeline.popleft()
        running = self._running
        if running is not None and not running.response_complete:
            if self.pipeline or not running.more_body or running.response_started:
                # What had arrived whole is answered first, and the last of these answers ends the connection.
                last = self.pipeline[0][0] if self.pipeline else running
                last.keep_alive = False
                self.deadline_s = None
                return
            running.disconnected = True
            running.message_event.set()
        self.transport.write(_raw_answer(error, self.server_state.default_headers))
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._wait_at_most(LINGER_S)

    def _end_after_body(self) -> None:
        """End a connection on which a body is still arriving.

        Closing it now would reset it, and the client, which is busy sending, would never read the answer. The deadline
        of the body stays in force. Places in the reserve are too few to wait on.
        """
        if self.app_state["reserve"]:
            self.transport.close()
            return
        self._refused = True
        self.flow.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()

    def _expects_more(self) -> bool:
        """Whether a request has begun and not arrived yet."""
        running = self._running
        if self._in_head or self._without_body:
            return True
        return running is not None and running.more_body and not running.response_started

    def _count_head(self, count: int) -> None:
        self._head_bytes += count
        if self._head_bytes > HEADER_LIMIT_BYTES:
            raise _headers_too_large()

    def _discard(self, count: int) -> None:
        self._discarded_bytes += count
        if self._discarded_bytes > DISCARD_LIMIT_BYTES:
            self.transport.close()

    def _ignore_upgrade(self) -> None:
        """The request has been read as plain HTTP/1.1; what follows it would be another protocol, so it is the last."""
        self.cycle.keep_alive = False

    def _wait_at_most(self, seconds: float) -> None:
        self.deadline_s = self.loop.time() + seconds


def _headers_too_large() -> HeadersTooLarge:
    return HeadersTooLarge(f"The headers are larger than {HEADER_LIMIT_BYTES} bytes: send fewer or shorter ones.")


def _path_and_query(url: bytes) -> tuple[bytes, bytes]:
    """Both as they were sent, still percent-encoded. An address with scheme and host is taken apart by the parser."""
    if url.startswith(b"/") and b"#" not in url:
        path, _, query = url.partition(b"?")
        return path, query
    parsed = httptools.parse_url(url)
    return parsed.path or b"/", parsed.query or b""


def _raw_answer(error: RetinueError, default_headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    return whole_answer(problem_answer(error), default_headers, last=True)


def sweep(connections: Iterable[Any], now_s: float) -> None:
    """Give up the connections whose deadline has passed, but not those that this node itself keeps waiting."""
    for connection in list(connections):
        if connection.write_deadline_s is not None and connection.write_deadline_s < now_s:
            connection.transport.abort()
        elif connection.deadline_s is not None and connection.deadline_s < now_s and not connection.flow.read_paused:
            connection.give_up()
