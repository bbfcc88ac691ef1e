"""Small servers of somebody else: stores that speak a lab's dialect, and servers that answer as no server should."""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

Answer = tuple[int, object]
Route = Callable[[Mapping[str, str], Any], Answer]
Routes = Mapping[str, Route]
"""`"GET /get/{key}"` -> what it answers to parameters and JSON body: a status, and JSON (or text as it is)."""


def store_routes(write: str, read: str, dump: str, *, delete: str = "", wrapped: str = "") -> Routes:
    """A store without versions that is asked by these routes; its dump may be `wrapped` in a member."""
    rows: dict[str, object] = {}

    def put(parameters: Mapping[str, str], body: Any) -> Answer:
        key = parameters.get("key") or body.get("key")
        if key is None or "value" not in body:
            return 400, {"error": "key and value are needed"}
        rows[key] = body["value"]
        return 200, {"status": "ok", "replicated_to": 2}

    def get(parameters: Mapping[str, str], _: Any) -> Answer:
        key = parameters.get("key", "")
        return (200, {"key": key, "value": rows[key]}) if key in rows else (404, {"error": "no such key"})

    def remove(parameters: Mapping[str, str], _: Any) -> Answer:
        return (200, {"status": "deleted"}) if rows.pop(parameters["key"], None) else (404, {"error": "no such key"})

    def show(_: Mapping[str, str], __: Any) -> Answer:
        return 200, {"role": "leader", wrapped: dict(rows)} if wrapped else dict(rows)

    routes = {write: put, read: get, dump: show}
    return routes | ({delete: remove} if delete else {})


@contextmanager
def serving(routes: Routes, *, framework: bool = True, version: str = "HTTP/1.1") -> Iterator[str]:
    """Serve these routes and give the address.

    A `framework` answers a method that an address does not have with 405 and OPTIONS with what it has; else there is
    nothing but GET, POST, PUT and DELETE.
    """
    methods = ["GET", "POST", "PUT", "DELETE"] + (["OPTIONS"] if framework else [])

    class Handler(BaseHTTPRequestHandler):
        protocol_version = version
        disable_nagle_algorithm = True

        def __getattr__(self, name: str) -> Callable[[], None]:
            if name.removeprefix("do_") not in methods:
                raise AttributeError(name)
            return self._answer

        def log_message(self, *_: object) -> None:
            pass

        def _answer(self) -> None:
            parts = urlsplit(self.path)
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            found: dict[str, tuple[Route, dict[str, str]]] = {}
            for route, answer in routes.items():
                method, _, path = route.partition(" ")
                match = re.fullmatch(path.replace("{key}", "(?P<key>[^/]+)"), parts.path)
                if match:
                    named = {name: unquote(text) for name, text in match.groupdict().items()}
                    found[method] = (answer, dict(parse_qsl(parts.query)) | named)
            if self.command in found:
                answer, parameters = found[self.command]
                self._send(*answer(parameters, json.loads(body) if body else {}))
            elif found and framework:
                self._send(200 if self.command == "OPTIONS" else 405, "", ", ".join([*found, "OPTIONS"]))
            else:
                self._send(404, {"error": "not found"} if framework else "nothing here")

        def _send(self, status: int, told: object, allow: str = "") -> None:
            content = told.encode() if isinstance(told, str) else json.dumps(told).encode()
            self.send_response(status)
            self.send_header("Content-Type", "text/plain" if isinstance(told, str) else "application/json")
            self.send_header("Content-Length", str(len(content)))
            if allow:
                self.send_header("Allow", allow)
            self.end_headers()
            self.wfile.write(content)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.block_on_close = False
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class Rude:
    """What a `rude_server` saw: how many connections, and the requests."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.connections = 0
        self.requests: list[bytes] = []


@asynccontextmanager
async def rude_server(*answers: bytes | None, close: bool = False) -> AsyncIterator[Rude]:
    """A server that answers the requests with these bytes, one after another, and the last one for ever.

    `None` hangs up instead of answering, and so does `close` after each answer.
    """
    left = list(answers)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        rude.connections += 1
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = re.search(rb"Content-Length: (\d+)", head)
                rude.requests.append(head + await reader.readexactly(int(length[1]) if length else 0))
                answer = left.pop(0) if len(left) > 1 else left[0]
                if answer is None:
                    break
                writer.write(answer)
                if close:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    rude = Rude(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    async with server:
        yield rude
