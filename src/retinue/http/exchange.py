"""One request and its answer on a connection: uvicorn's cycle with a leaner way to send.

Head and body of an answer leave in one packet, and the head is put together without looking every header over: all of
them are this package's own.
"""

from __future__ import annotations

import asyncio
import logging
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

if TYPE_CHECKING:
    from collections.abc import Iterable

    from uvicorn._types import ASGI3Application

    from retinue.http.answer import Answer

log = logging.getLogger(__name__)

STATUS_LINES = {int(status): f"HTTP/1.1 {status} {status.phrase}\r\n".encode("ascii") for status in HTTPStatus}


def head_of(status: int, headers: Iterable[tuple[bytes, bytes]], *, last: bool) -> bytes:
    """Status line and headers of an answer, up to the empty line; `last` says that the connection ends with it."""
    pieces = [STATUS_LINES[status]]
    for name, value in headers:
        pieces += (name, b": ", value, b"\r\n")
    pieces.append(b"connection: close\r\n\r\n" if last else b"\r\n")
    return b"".join(pieces)


def whole_answer(answer: Answer, default_headers: Iterable[tuple[bytes, bytes]], *, last: bool) -> bytes:
    """An answer whose body is bytes, head and all."""
    assert isinstance(answer.body, bytes)
    return head_of(answer.status, [*default_headers, *answer.all_headers()], last=last) + answer.body


class Exchange(RequestResponseCycle):
    """A request and its answer."""

    _head = b""

    async def run_asgi(self, app: ASGI3Application) -> None:
        """Let the application answer, which tells its own errors; only a stop of the door cancels it."""
        try:
            await app(self.scope, self.receive, self.send)
        except asyncio.CancelledError:
            self.transport.abort()
        except Exception:
            log.exception("an answer could not be sent")
            self.transport.abort()
        finally:
            # Else the connection and its last exchange would keep each other.
            self.on_response = lambda: None

    async def send(self, message: Any) -> None:
        """Send a part of the answer; what is sent to nobody is dropped."""
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        # Only the last of pipelined requests is told when the client is gone.
        if self.disconnected or self.transport.is_closing():
            return
        if not self.response_started:
            self._start(message["status"], message["headers"])
            return
        more = message.get("more_body", False)
        self._write(message["body"], more)
        if more:
            return
        self.response_complete = True
        self.message_event.set()
        if not self.keep_alive and not self.more_body:
            self.transport.close()
        self.on_response()

    def _start(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        """Keep the head until the body comes."""
        self.response_started = True
        self.waiting_for_100_continue = False
        names = [name for name, _ in headers]
        if b"connection" in names:
            self.keep_alive = False
            headers = [header for header in headers if header[0] != b"connection"]
        # Without chunks, as for HTTP/1.0, a stream ends with the connection.
        unknown_length = b"content-length" not in names and status not in (204, 304)
        self.chunked_encoding = unknown_length and self.scope["http_version"] != "1.0"
        if self.chunked_encoding:
            headers = [*headers, (b"transfer-encoding", b"chunked")]
        self._head = head_of(status, [*self.default_headers, *headers], last=not self.keep_alive)

    def _write(self, body: bytes, more: bool) -> None:
        head, self._head = self._head, b""
        if self.scope["method"] == "HEAD":
            body = b""
        elif self.chunked_encoding:
            if body:
                body = b"%x\r\n%b\r\n" % (len(body), body)
            if not more:
                body += b"0\r\n\r\n"
        if head or body:
            self.transport.write(head + body)
