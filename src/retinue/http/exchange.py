"""One request and its answer on a connection: uvicorn's cycle with a leaner way to send.

Head and body of an answer leave in one packet, and the head is put together without looking every header over: all of
them are this package's own.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

if TYPE_CHECKING:
    from collections.abc import Iterable

STATUS_LINES = {int(status): f"HTTP/1.1 {status} {status.phrase}\r\n".encode("ascii") for status in HTTPStatus}


def head_of(status: int, headers: Iterable[tuple[bytes, bytes]], *, last: bool) -> bytes:
    """Status line and headers of an answer, up to the empty line; `last` says that the connection ends with it."""
    pieces = [STATUS_LINES[status]]
    for name, value in headers:
        pieces += (name, b": ", value, b"\r\n")
    pieces.append(b"connection: close\r\n\r\n" if last else b"\r\n")
    return b"".join(pieces)


class Exchange(RequestResponseCycle):
    """A request and its answer."""

    _head = b""

    async def send(self, message: Any) -> None:
        """Send a part of the answer; what is sent to nobody is dropped."""
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected:
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
