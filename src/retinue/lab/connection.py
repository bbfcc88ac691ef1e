"""A light HTTP/1.1 client on asyncio protocols: what it adds to a measured latency is a fraction of a millisecond.

A `Connection` has one request under way at a time; a `Pool` keeps those of one server and opens as many as are needed.
Both tell apart a request that never left (`NotSent`) from an answer that was lost (`AnswerLost`), which is what decides
whether a write may have happened.
"""

from __future__ import annotations

import asyncio
import os
import ssl
import time
from collections.abc import Mapping
from typing import Any, NamedTuple, cast
from urllib.parse import urlsplit

import httptools
import msgspec

from retinue.errors import SettingsError
from retinue.tokens import checked

CONNECT_TIMEOUT_S = 5.0
DEFAULT_PATIENCE_S = 30.0
ANSWER_LIMIT_BYTES = 256 << 20
IDLE_LIMIT_S = 1.0
"""A connection that was idle for longer is not used again: servers close theirs after two seconds or more, and a
request that crosses with that is lost."""


class NotSent(Exception):
    """The server could not be reached: the request never left, so nothing can have come of it."""


class AnswerLost(Exception):
    """The request left, and no complete answer came. `begun`: some of it did."""

    def __init__(self, why: str, *, begun: bool = False) -> None:
        super().__init__(why)
        self.begun = begun


class Address(NamedTuple):
    """Where a server listens. `prefix` comes before every path; it has no slash at its end."""

    host: str
    port: int
    prefix: str
    tls: bool

    @property
    def authority(self) -> str:
        """Host and port as the `Host` header has them."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        """The address as people write it."""
        return f"http{'s' if self.tls else ''}://{self.authority}{self.prefix}"


def parse_address(url: str) -> Address:
    """The address that a URL means; `http://` may be left out. Raises `SettingsError` for what is no address."""
    text = url.strip()
    try:
        parts = urlsplit(text if "://" in text else f"http://{text}")
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    host, printable = parts.hostname or "", text.isascii() and text.isprintable() and " " not in text
    if parts.scheme not in ("http", "https") or not host or not printable or parts.query or parts.fragment:
        raise SettingsError(f"{url!r} is not the address of a server: give one such as http://127.0.0.1:8000.")
    tls = parts.scheme == "https"
    return Address(host, port or (443 if tls else 80), parts.path.rstrip("/"), tls)


class Reply(msgspec.Struct, frozen=True):
    """One answer. `headers` have names in lower case; `ended_s` is when it was complete, by `time.perf_counter`."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    ended_s: float

    def json(self) -> Any:
        """The body as JSON. Raises `ValueError` if it is none."""
        return msgspec.json.decode(self.body)

    @property
    def told(self) -> dict[str, Any]:
        """The JSON object of the body; empty for a body that is none."""
        try:
            told = self.json()
        except ValueError:
            return {}
        return told if isinstance(told, dict) else {}


class Connection(asyncio.Protocol):
    """One connection to a server, dialled whenever there is none. `headers` go with every request."""

    def __init__(self, address: Address, headers: Mapping[str, str] | None = None) -> None:
        self.address = address
        self.used_s = 0.0
        fixed = {"Host": address.authority, **(headers or {})}
        self._head = "".join(f"\r\n{name}: {text}" for name, text in fixed.items())
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[Reply] | None = None
        self._parser: httptools.HttpResponseParser | None = None
        self._keeps_alive = False
        self._begin_message()

    @property
    def connected(self) -> bool:
        """Whether a request can be sent without dialling."""
        return self._transport is not None and not self._transport.is_closing()

    async def ask(
        self,
        method: str,
        path: str,
        body: object = None,
        headers: Mapping[str, str] | None = None,
        patience_s: float = DEFAULT_PATIENCE_S,
    ) -> Reply:
        """Send one request, its `body` as JSON, and wait for the answer. Raises `NotSent` and `AnswerLost`.

        When it is cancelled, the connection is closed.
        """
        assert self._answer is None, "one request at a time"
        keep = False
        try:
            request = self._encode(method, path, body, headers)
            transport = await self._dial(patience_s)
            reply = await self._send(transport, request, patience_s)
            keep = self._keeps_alive
        finally:
            if not keep:
                self.close()
        self.used_s = reply.ended_s
        return reply

    def close(self) -> None:
        """Hang up."""
        if self._transport is not None:
            self._transport.abort()
            self._transport = None

    def _encode(self, method: str, path: str, body: object, headers: Mapping[str, str] | None) -> bytes:
        head = f"{method} {self.address.prefix}{path} HTTP/1.1{self._head}"
        for name, text in (headers or {}).items():
            head += f"\r\n{name}: {text}"
        if body is None:
            length = "" if method in ("GET", "HEAD", "OPTIONS") else "\r\nContent-Length: 0"
            return f"{head}{length}\r\n\r\n".encode("latin-1")
        content = msgspec.json.encode(body)
        type_and_length = f"\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
        return f"{head}{type_and_length}".encode("latin-1") + content

    async def _send(self, transport: asyncio.Transport, request: bytes, patience_s: float) -> Reply:
        loop = asyncio.get_running_loop()
        self._answer = loop.create_future()
        timer = loop.call_later(patience_s, self._fail, f"no answer came within {patience_s:g} s")
        transport.write(request)
        try:
            return await self._answer
        finally:
            timer.cancel()
            self._answer = None

    async def _dial(self, patience_s: float) -> asyncio.Transport:
        if not self.connected:
            host, port, _, tls = self.address
            context = ssl.create_default_context() if tls else None
            try:
                async with asyncio.timeout(min(CONNECT_TIMEOUT_S, patience_s)):
                    await asyncio.get_running_loop().create_connection(lambda: self, host, port, ssl=context)
            except TimeoutError:
                raise NotSent("it did not accept the connection in time") from None
            except (OSError, UnicodeError) as error:
                raise NotSent(_reason(error)) from None
        if self._transport is None:
            raise NotSent("it hung up at once")
        return self._transport

    def _fail(self, why: str) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(AnswerLost(why, begun=self._begun))
        self.close()

    # --- what asyncio and the parser call ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The server has accepted the connection."""
        self._transport = cast(asyncio.Transport, transport)
        self._parser = httptools.HttpResponseParser(self)
        self._begin_message()

    def data_received(self, data: bytes) -> None:
        """Part of an answer."""
        assert self._parser is not None
        if self._answer is None:
            self.close()  # what nobody asked for
            return
        self._begun = True
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._fail("what it answered is not HTTP")

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header of an answer."""
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        """All headers of an answer."""
        self._headers_complete = True

    def on_body(self, body: bytes) -> None:
        """Part of the body of an answer."""
        self._body.append(body)
        self._body_bytes += len(body)
        if self._body_bytes > ANSWER_LIMIT_BYTES:
            self._fail(f"its answer is longer than {ANSWER_LIMIT_BYTES >> 20} MiB")

    def on_message_complete(self) -> None:
        """One answer is complete; those below 200 only announce one."""
        assert self._parser is not None
        status = self._parser.get_status_code()
        if status >= 200:
            self._keeps_alive = self._parser.should_keep_alive()
            self._complete(status)
        self._begin_message()

    def connection_lost(self, error: Exception | None) -> None:
        """The server, or `close`, ended the connection."""
        self._transport = None
        self._keeps_alive = False
        if self._headers_complete and self._ends_with_the_connection() and self._parser is not None:
            self._complete(self._parser.get_status_code())
        self._fail(
            f"the connection broke ({_reason(error)})" if error else "it closed the connection without an answer"
        )

    def _ends_with_the_connection(self) -> bool:
        return not self._headers.keys() & {"content-length", "transfer-encoding"}

    def _complete(self, status: int) -> None:
        if self._answer is not None and not self._answer.done():
            body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
            self._answer.set_result(Reply(status, self._headers, body, time.perf_counter()))

    def _begin_message(self) -> None:
        self._headers: dict[str, str] = {}
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._headers_complete = False
        self._begun = False


class Pool:
    """The connections to one server: as many as there are requests under way, the ones used last used first."""

    def __init__(self, address: Address, headers: Mapping[str, str] | None = None) -> None:
        self.address = address
        self._headers = dict(headers or {})
        self._idle: list[Connection] = []
        self._closed = False

    @property
    def url(self) -> str:
        """The address of the server."""
        return self.address.url

    async def ask(
        self,
        method: str,
        path: str,
        body: object = None,
        headers: Mapping[str, str] | None = None,
        patience_s: float = DEFAULT_PATIENCE_S,
    ) -> Reply:
        """As `Connection.ask`; a GET is sent again where the server closed an idle connection meanwhile."""
        connection = self._take()
        reused = connection.connected
        try:
            reply = await connection.ask(method, path, body, headers, patience_s)
        except AnswerLost as lost:
            if not reused or lost.begun or method != "GET":
                raise
            connection = Connection(self.address, self._headers)
            reply = await connection.ask(method, path, body, headers, patience_s)
        if self._closed:
            connection.close()
        elif connection.connected:
            self._idle.append(connection)
        return reply

    def close(self) -> None:
        """Hang up on all connections; those in use as soon as they have their answer."""
        self._closed = True
        while self._idle:
            self._idle.pop().close()

    def _take(self) -> Connection:
        oldest_s = time.perf_counter() - IDLE_LIMIT_S
        while self._idle:
            connection = self._idle.pop()
            if connection.connected and connection.used_s >= oldest_s:
                return connection
            connection.close()
        return Connection(self.address, self._headers)


class Servers:
    """The servers that one client talks to, each with its pool. `token` is presented to all of them.

    Raises `SettingsError` for a token that no header can carry.
    """

    def __init__(self, token: str = "") -> None:
        self._headers = {"Authorization": f"Bearer {checked(token)}"} if token else {}
        self._pools: dict[Address, Pool] = {}

    def at(self, url: str) -> Pool:
        """The connections to the server at an address. Raises `SettingsError` for what is no address."""
        address = parse_address(url)
        return self._pools.setdefault(address, Pool(address, self._headers))

    def close(self) -> None:
        """Hang up on all of them."""
        for pool in self._pools.values():
            pool.close()


def _reason(error: BaseException) -> str:
    if isinstance(error, OSError) and error.errno and error.errno > 0:
        return os.strerror(error.errno)
    return str(error) or type(error).__name__
