"""The OpenAPI 3.1 description, made from the table of routes.

What no schema can say stands in the descriptions: a key's length counts bytes of UTF-8, `If-Match`, `If-None-Match` and
`Idempotency-Key` are taken by every write, and a condition that fails is 412.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from retinue import __version__
from retinue.http.access import Role
from retinue.http.answer import BYTES, JSON, LINES, PROBLEM
from retinue.http.body import DEPTH_LIMIT
from retinue.http.kv import LIST_LEVELS, READ_LEVELS
from retinue.http.request import TIMEOUT_LEAST_MS, TIMEOUT_LIMIT_MS, VERSION_LIMIT
from retinue.http.schemas import NOTHING_KNOWN, SCHEMAS, Known, bodies

if TYPE_CHECKING:
    from retinue.http.routes import Route

Document = dict[str, object]

_ABOUT = f"""A key-value store that one leader replicates to its followers.

Keys are 1 to 1024 bytes of UTF-8, percent-decoded once and otherwise opaque. Values are any JSON value up to
{DEPTH_LIMIT} levels deep, or bytes. Only the leader takes writes; a follower answers 403 with its address in `leader`.
This document has the members and limits of the node that serves it, as far as the caller may read them.
Every write takes `If-Match: "<version>"`, `If-None-Match: *` (412 with the current version where they do not hold) and
`Idempotency-Key` (a retry is answered with the first result; another request under the same key is 422).
"""

_ERROR_MEANINGS = {
    304: "The client has this version already",
    400: "The request cannot be understood",
    401: "A token is needed",
    403: "Not allowed, or not possible on this node",
    404: "Not there",
    405: "The address does not have this method",
    408: "The request did not arrive in time",
    409: "The request does not fit the present state",
    412: "The condition does not hold; nothing was written",
    413: "Too large; nothing was written",
    415: "A body of this type is not taken",
    421: "The Host header does not name this node",
    422: "A value is not allowed; nothing was written",
    429: "Overloaded; nothing was written",
    431: "Headers too large",
    500: "A fault of this node",
    503: "Not possible now; nothing was written",
    504: "The deadline passed; what the write became is not known yet",
}
_ERRORS_ANYWHERE = (400, 421, 429, 431, 500, 503)
_ERRORS_WITH_TOKENS = (401, 403)

_PARAMETERS: dict[str, Document] = {
    "key": {
        "name": "key",
        "in": "path",
        "required": True,
        "description": "The key: the rest of the address, percent-decoded once.",
        "schema": {"type": "string", "minLength": 1},
    },
    "key_query": {"name": "key", "in": "query", "required": True, "schema": {"type": "string", "minLength": 1}},
    "version": {
        "name": "version",
        "in": "path",
        "required": True,
        "schema": {"type": "integer", "minimum": 1, "maximum": VERSION_LIMIT},
    },
    "w": {
        "name": "w",
        "in": "query",
        "description": "Acknowledgements to wait for: a number up to that of the followers, `majority` or `all`.",
    },
    "timeout_ms": {
        "name": "timeout_ms",
        "in": "query",
        "description": "The deadline of this request in milliseconds.",
        "schema": {"type": "number", "minimum": TIMEOUT_LEAST_MS, "maximum": TIMEOUT_LIMIT_MS},
    },
    "read": {
        "name": "read",
        "in": "query",
        "description": "What the read may return; by default `committed` on the leader and `local` on followers.",
        "schema": {"type": "string", "enum": list(READ_LEVELS)},
    },
    "list_read": {
        "name": "read",
        "in": "query",
        "description": "`committed` asks for a list of the leader's; a list is a state that existed in any case.",
        "schema": {"type": "string", "enum": list(LIST_LEVELS)},
    },
    "min_version": {
        "name": "min_version",
        "in": "query",
        "description": "The `session` of a receipt: wait until this node has at least that.",
        "schema": {"type": "string", "pattern": r"^([0-9]{1,18}\.)?[0-9]{1,18}$"},
    },
    "prefix": {"name": "prefix", "in": "query", "schema": {"type": "string"}},
    "after": {
        "name": "after",
        "in": "query",
        "description": "Start above this key: `next` of the page before.",
        "schema": {"type": "string"},
    },
    "limit": {"name": "limit", "in": "query", "schema": {"type": "integer", "minimum": 1, "maximum": 1000}},
    "max_lag_ms": {
        "name": "max_lag_ms",
        "in": "query",
        "description": "How far a follower may lag, in milliseconds.",
        "schema": {"type": "number", "minimum": 0, "maximum": 1e15},
    },
}


# What a receipt is good for: to ask what became of the write, and to read it on any node.
_LINKS: Document = {
    "outcome": {"operationId": "get_writes_version", "parameters": {"version": "$response.body#/version"}},
    "read": {
        "operationId": "get_kv_key",
        "parameters": {"key": "$response.body#/key", "min_version": "$response.body#/session"},
    },
}


def describe(routes: Iterable[Route], known: Known = NOTHING_KNOWN) -> Document:
    """The whole description: of any node, or of the one of which this is known."""
    paths: dict[str, dict[str, Document]] = {}
    for route in routes:
        operations = paths.setdefault(route.path, {})
        operations[route.method.lower()] = _operation(route, known)
        if route.path == "/kv/{key}" and route.method == "GET":
            operations["head"] = _operation(route, known, head=True)
    return {
        "openapi": "3.1.0",
        "info": {"title": "retinue", "version": __version__, "description": _ABOUT, "license": {"name": "MIT"}},
        "paths": paths,
        "components": {
            "schemas": SCHEMAS,
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer", "description": "Needed where the node has a token file."}
            },
        },
    }


def _operation(route: Route, known: Known, *, head: bool = False) -> Document:
    operation: Document = {
        "operationId": _operation_id("HEAD" if head else route.method, route.path),
        "summary": route.summary,
        "responses": _responses(route, head=head),
    }
    if route.parameters:
        operation["parameters"] = [_parameter(name, known) for name in route.parameters]
    if route.body is not None:
        operation["requestBody"] = {"required": True, "content": bodies(known)[route.body]}
    if route.role is not Role.PUBLIC:
        # A node without a token file asks for none, hence the empty alternative.
        operation["security"] = [{}, {"token": []}]
    return operation


def _parameter(name: str, known: Known) -> Document:
    if name != "w":
        return _PARAMETERS[name]
    number = known.count_of_followers
    return _PARAMETERS[name] | {"schema": {"anyOf": [{"enum": ["majority", "all"]}, number]}}


def _operation_id(method: str, path: str) -> str:
    words = path.replace("{", "").replace("}", "").replace(".", "_").strip("/").split("/")
    return "_".join([method.lower(), *(word for word in words if word)])


def _responses(route: Route, *, head: bool) -> Document:
    responses: Document = {"200": _success(route, head=head)}
    statuses = {*_ERRORS_ANYWHERE, *route.errors}
    if route.role is not Role.PUBLIC or route.method != "GET":
        statuses.update(_ERRORS_WITH_TOKENS)
    problem = {"schema": {"$ref": "#/components/schemas/Problem"}}
    for status in sorted(statuses):
        answer: Document = {"description": _ERROR_MEANINGS[status]}
        if not head:
            answer["content"] = {PROBLEM.decode(): problem}
        responses[str(status)] = answer
    if route.path == "/kv/{key}" and route.method == "GET":
        responses["304"] = {"description": _ERROR_MEANINGS[304]}
    return responses


def _success(route: Route, *, head: bool) -> Document:
    answer: Document = {"description": "Done" if route.method != "GET" else "As asked"}
    if head:
        return answer
    if route.answer == "Metrics":
        answer["content"] = {"text/plain": {"schema": {"type": "string"}}}
        return answer
    content: Document = {JSON.decode(): {"schema": {"$ref": f"#/components/schemas/{route.answer}"}}}
    if route.path == "/kv/{key}" and route.method == "GET":
        content[BYTES.decode()] = {"schema": {}}
    if route.answer == "Page":
        content[LINES.decode()] = {"schema": {"type": "string"}}
    answer["content"] = content
    if route.answer == "Receipt":
        # A batch has several keys, which its receipt does not repeat.
        answer["links"] = {name: link for name, link in _LINKS.items() if name == "outcome" or route.body != "Batch"}
    return answer
