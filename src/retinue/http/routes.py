"""The one table of what is served: method, address, the role it needs, and what it takes and answers.

Requests are dispatched by it, access is decided by it, and the OpenAPI description is made from it. An address that is
not here is 404; a route cannot be written down without its role. `{key}` and `{version}` stand for the rest of the
path.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from retinue.errors import MethodNotAllowed, NotFound
from retinue.http import admin, dialects, kv
from retinue.http.access import Role

if TYPE_CHECKING:
    from retinue.http.answer import Answer
    from retinue.http.door import Door
    from retinue.http.request import Request

Handler = Callable[["Door", "Request"], Awaitable["Answer"]]


@dataclass(frozen=True, slots=True, eq=False)
class Route:
    """One method of one address.

    `answer`, `parameters` and `body` name entries of the OpenAPI description; `errors` are the statuses beyond those
    that any route may answer with. `writes` marks routes whose failures say whether anything was written. `probe` marks
    those that are answered on the connections kept in reserve when there are too many.
    """

    method: str
    path: str
    role: Role
    handler: Handler
    summary: str
    answer: str
    parameters: tuple[str, ...] = ()
    body: str | None = None
    errors: tuple[int, ...] = ()
    writes: bool = False
    probe: bool = False


_READ_QUERY = ("read", "min_version", "timeout_ms")
_WRITE_ERRORS = (408, 412, 413, 415, 422, 504)
_JSON_ERRORS = (408, 413, 415, 422)


def _write(
    method: str, path: str, handler: Handler, summary: str, *, parameters: tuple[str, ...] = (), body: str | None = None
) -> Route:
    return Route(
        method,
        path,
        Role.WRITE,
        handler,
        summary,
        "Receipt",
        parameters=(*parameters, "w", "timeout_ms"),
        body=body,
        errors=_WRITE_ERRORS if body is not None else (404, *_WRITE_ERRORS),
        writes=True,
    )


def _read(
    path: str,
    handler: Handler,
    summary: str,
    answer: str,
    *,
    parameters: tuple[str, ...] = (),
    errors: tuple[int, ...] = (),
) -> Route:
    return Route("GET", path, Role.READ, handler, summary, answer, parameters=parameters, errors=errors)


def _state(
    path: str, handler: Handler, summary: str, *, parameters: tuple[str, ...] = (), probe: bool = False
) -> Route:
    return Route("GET", path, Role.PUBLIC, handler, summary, "State", parameters=parameters, probe=probe)


KEY_WRITE = _write("PUT", "/kv/{key}", kv.put_key, "Store a value", parameters=("key",), body="Value")
KEY_READ = _read("/kv/{key}", kv.get_key, "Read a value", "Found", parameters=("key", *_READ_QUERY), errors=(404, 409))

ROUTES: tuple[Route, ...] = (
    KEY_WRITE,
    KEY_READ,
    _write("DELETE", "/kv/{key}", kv.delete_key, "Remove a key", parameters=("key",)),
    _read("/kv", kv.list_keys, "List keys and values", "Page", parameters=("prefix", "after", "limit", "list_read")),
    _write("POST", "/batch", kv.batch, "Write several keys as one", body="Batch"),
    _read(
        "/writes/{version}",
        kv.write_state,
        "What became of a version",
        "WriteState",
        parameters=("version",),
        errors=(404,),
    ),
    _state("/health", admin.health, "Whether this node serves", probe=True),
    _state("/livez", admin.live, "Whether the process runs", probe=True),
    _state("/readyz", admin.ready, "Whether this node serves reads", probe=True),
    _state("/leader", admin.leader, "200 on the node that takes writes"),
    _state("/replica", admin.replica, "200 on a follower that is near enough", parameters=("max_lag_ms",)),
    _state("/ping", admin.ping, "The role of this node"),
    _read("/status", admin.status, "The cluster as this node sees it", "Document"),
    _read("/config", admin.config, "The settings in force", "Document"),
    Route(
        "PATCH",
        "/config",
        Role.ADMIN,
        admin.change_config,
        "Change the write quorum or the simulated network",
        "Document",
        body="ConfigPatch",
        errors=(*_JSON_ERRORS, 409, 504),
    ),
    Route(
        "POST",
        "/promote",
        Role.ADMIN,
        admin.promote,
        "Make this node the leader",
        "Document",
        parameters=("timeout_ms",),
        body="Promotion",
        errors=(*_JSON_ERRORS, 409, 504),
    ),
    _read("/metrics", admin.metrics, "Counters, gauges and histograms", "Metrics"),
    Route("GET", "/openapi.json", Role.PUBLIC, admin.description, "This description", "Document"),
    Route("GET", "/", Role.PUBLIC, admin.index, "Where to find what", "Document"),
    _write("POST", "/set", dialects.write_from_body, "Store a value (lab dialect)", body="KeyAndValue"),
    _read(
        "/get/{key}",
        dialects.read_from_path,
        "Read a value (lab dialect)",
        "Found",
        parameters=("key", *_READ_QUERY),
        errors=(404, 409),
    ),
    _write("DELETE", "/delete/{key}", dialects.delete_from_path, "Remove a key (lab dialect)", parameters=("key",)),
    _read("/all", dialects.show_all, "All keys (lab dialect)", "RoleAndData"),
    _write("POST", "/write", dialects.write_from_body, "Store a value (lab dialect)", body="KeyAndValue"),
    _read(
        "/read",
        dialects.read_from_query,
        "Read a value (lab dialect)",
        "Found",
        parameters=("key_query", *_READ_QUERY),
        errors=(404, 409),
    ),
    _read("/dump", dialects.show_dump, "All keys (lab dialect)", "Rows"),
    _read("/data", dialects.show_dump, "All keys (lab dialect)", "Rows"),
    Route(
        "POST",
        "/replicate",
        Role.PEER,
        dialects.replicate,
        "Accept one replicated entry (lab dialect)",
        "Document",
        body="ReplicatedEntry",
        errors=(*_JSON_ERRORS, 409),
        writes=True,
    ),
)


class Table:
    """Finds the route of a request."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._exact: dict[bytes, dict[str, Route]] = {}
        self._prefixes: dict[bytes, dict[str, Route]] = {}
        for route in routes:
            stem, brace, _ = route.path.partition("{")
            methods = (self._prefixes if brace else self._exact).setdefault(stem.encode("ascii"), {})
            assert route.method not in methods, f"{route.method} {route.path} is in the table twice"
            methods[route.method] = route
            if route.method == "GET":
                methods["HEAD"] = route

    def find(self, request: Request) -> Route | None:
        """The route, its variable part put into `request.tail`; `None` for `OPTIONS`.

        Raises `NotFound` for an unknown address, `MethodNotAllowed` for a method that it does not have.
        """
        methods = self._methods(request)
        route = methods.get(request.method)
        if route is None and request.method != "OPTIONS":
            allowed = allow(methods)
            raise MethodNotAllowed(f"{request.method} is not possible here: use {', '.join(allowed)}.", allow=allowed)
        return route

    def allowed_methods(self, request: Request) -> list[str]:
        """What `OPTIONS` tells."""
        return allow(self._methods(request))

    def _methods(self, request: Request) -> dict[str, Route]:
        path = request.path
        for prefix, methods in self._prefixes.items():
            if path.startswith(prefix):
                request.tail = path[len(prefix) :]
                return methods
        found = self._exact.get(path)
        if found is None:
            raise NotFound("Nothing is at this address: /openapi.json lists what there is.")
        return found


def allow(methods: Iterable[str]) -> list[str]:
    """The methods of one address, as the `Allow` header lists them."""
    return sorted({*methods, "OPTIONS"})
