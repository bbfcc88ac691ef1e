"""The ASGI application: from a request to its route, from an error to its answer, and what is counted on the way.

There is no framework between the server and the routes: one table lookup, the checks of access, the route. Every
request goes this way, so none can reach a route past the checks, but for plain ones on a key (`shortcut.py`): what is
checked here must be checked or ruled out there.
"""

from __future__ import annotations

import logging
import time
from functools import lru_cache
from typing import TYPE_CHECKING

from retinue.errors import Overloaded, RetinueError
from retinue.http.answer import Answer, Receive, Scope, Send, encode_json
from retinue.http.door import Door
from retinue.http.openapi import describe
from retinue.http.problem import WriteContext, internal_error, problem_answer
from retinue.http.request import Request
from retinue.http.routes import ROUTES, Route, Table

if TYPE_CHECKING:
    from retinue.http.schemas import Known
    from retinue.metrics import Counter, Histogram, Registry
    from retinue.node import Node
    from retinue.settings import Settings

log = logging.getLogger(__name__)

UNROUTED = "unrouted"


class App:
    """The HTTP door of one node as an ASGI application."""

    def __init__(self, node: Node, settings: Settings, registry: Registry, routes: tuple[Route, ...] = ROUTES) -> None:

        @lru_cache(maxsize=2)
        def description(known: Known) -> bytes:
            return encode_json(describe(routes, known))

        self.door = Door(node, settings, registry, description)
        self._table = Table(routes)
        self._requests = registry.counter(
            "retinue_http_requests_total",
            "HTTP requests answered, by route, method and status",
            ("route", "method", "status"),
        )
        self._durations = registry.histogram(
            "retinue_http_request_duration_seconds",
            "From the headers of a request to its answer, by route",
            ("route", "method"),
        )
        self.in_flight = registry.gauge("retinue_http_requests_in_flight", "HTTP requests being answered").labelled()
        self._counted: dict[tuple[Route | None, int], tuple[Counter, Histogram]] = {}

    def listens_on(self, port: int) -> None:
        """Show this port in `GET /config`: the settings may have left it open."""
        self.door.port = port

    @property
    def held_bytes(self) -> int:
        """Bytes of request bodies in memory."""
        return self.door.budget.held_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        started_s = time.perf_counter()
        self.in_flight.value += 1
        request = Request(scope, receive, self.door.budget)
        route: Route | None = None
        try:
            try:
                route = self._admit(request)
                answer = await self._answer(route, request)
            except RetinueError as error:
                answer = problem_answer(error, self._write_context(route, request))
            except Exception:
                log.exception("%s failed", route.summary if route is not None else "Routing a request")
                answer = problem_answer(internal_error(), self._write_context(route, request))
            self._close_where_needed(request, answer)
            await answer.send(send, scope["state"]["closed"])
            self.count(route, answer.status, time.perf_counter() - started_s)
        finally:
            self.in_flight.value -= 1
            request.release()

    def _admit(self, request: Request) -> Route | None:
        """The route of a request that passed all checks; `None` for `OPTIONS`, which answers without a route."""
        guard = self.door.guard
        request.check_headers()
        guard.check_host(request)
        route = self._table.find(request)
        if request.scope["state"]["reserve"] and (route is None or not route.probe):
            raise Overloaded("This node has as many connections as it may: close some, or try again in a moment.")
        if route is not None:
            guard.check_origin(request)
            guard.check_role(route.role, request)
        return route

    async def _answer(self, route: Route | None, request: Request) -> Answer:
        if route is None:
            allowed = ", ".join(self._table.allowed_methods(request))
            return Answer(204, b"", headers=[(b"allow", allowed.encode("ascii"))])
        return await route.handler(self.door, request)

    def _write_context(self, route: Route | None, request: Request) -> WriteContext | None:
        if route is None or not route.writes:
            return None
        return WriteContext(request.key_text, self.door.node.write_quorum)

    def _close_where_needed(self, request: Request, answer: Answer) -> None:
        """A client that waits to be told to send its body may do so or not after another answer: start afresh."""
        waits = not request.body_complete and request.header(b"expect") is not None
        if waits or request.scope["state"]["reserve"]:
            answer.headers.append((b"connection", b"close"))

    def count(self, route: Route | None, status: int, duration_s: float) -> None:
        """Count an answer."""
        counted = self._counted.get((route, status))
        if counted is None:
            path, method = (route.path, route.method) if route is not None else (UNROUTED, UNROUTED)
            counted = self._requests.labelled(path, method, str(status)), self._durations.labelled(path, method)
            self._counted[route, status] = counted
        counter, histogram = counted
        counter.value += 1
        histogram.observe(duration_s)
