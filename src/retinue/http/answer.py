"""Answers: a status, headers and a body, and how they are sent.

Every answer carries `X-Content-Type-Options: nosniff` and `Cache-Control: no-store`: what a node holds must neither be
guessed to be a page nor be kept by a cache in between.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from typing import Any

import msgspec

Scope = Mapping[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

JSON = b"application/json"
PROBLEM = b"application/problem+json"
BYTES = b"application/octet-stream"
LINES = b"application/x-ndjson"

encode_json = msgspec.json.Encoder().encode

_SAFETY = ((b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store"))


class Answer:
    """What is sent back. A body that is an iterator is streamed, piece by piece as the client takes it."""

    __slots__ = ("body", "content_type", "headers", "status")

    def __init__(
        self,
        status: int,
        body: bytes | AsyncGenerator[bytes, None],
        content_type: bytes = JSON,
        headers: Headers | None = None,
    ) -> None:
        self.status = status
        self.body = body
        self.content_type = content_type
        self.headers: Headers = [] if headers is None else headers

    def all_headers(self) -> Headers:
        """The headers to send, with the length of a body that is known."""
        headers = [(b"content-type", self.content_type), *_SAFETY, *self.headers]
        if isinstance(self.body, bytes) and self.status not in (204, 304):
            headers.append((b"content-length", b"%d" % len(self.body)))
        return headers

    async def send(self, send: Send, is_closed: Callable[[], bool]) -> None:
        """Send status, headers and body; a stream ends where the client is gone."""
        headers = self.all_headers()
        body = self.body
        if isinstance(body, bytes):
            await send({"type": "http.response.start", "status": self.status, "headers": headers})
            await send({"type": "http.response.body", "body": body})
            return
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        # The client learns at once that the answer has begun, however long the first piece takes.
        await send({"type": "http.response.body", "body": b"", "more_body": True})
        async with aclosing(body):
            async for piece in body:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
                if is_closed():
                    return
        await send({"type": "http.response.body", "body": b""})


def json_answer(content: object, status: int = 200, headers: Headers | None = None) -> Answer:
    """`content` as JSON, with a newline at its end for those who read it in a terminal."""
    return Answer(status, encode_json(content) + b"\n", JSON, headers)


def entity_tag(version: int) -> bytes:
    """The `ETag` of a version."""
    return b'"%d"' % version
