"""Every route with every kind of token: what is not allowed is refused before anything happens."""

from __future__ import annotations

import pytest

from retinue.http.access import Role
from retinue.http.routes import ROUTES, Route
from tests.http.serving import Secured

CALLERS = (None, "wrong", "read", "write", "admin", "peer")
ALLOWED: dict[Role, set[str | None]] = {
    Role.PUBLIC: set(CALLERS),
    Role.READ: {"read", "write", "admin"},
    Role.WRITE: {"write", "admin"},
    Role.ADMIN: {"admin"},
    Role.PEER: {"peer"},
}


def call(secured: Secured, caller: str | None, route: Route) -> tuple[int, str]:
    address = route.path.replace("{key}", "matrix").replace("{version}", "1")
    # A body that is refused as soon as it is looked at: nothing changes even where the caller may go on.
    body = {"no such member": 1} if route.method in ("PUT", "POST", "PATCH") else None
    answer = secured(caller, route.method, address, body)
    return answer.status, answer.headers["WWW-Authenticate"]


@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
def test_route_and_role(secured: Secured, route: Route, caller: str | None) -> None:
    before = secured.served.last_version
    status, challenge = call(secured, caller, route)
    if caller in ALLOWED[route.role]:
        assert status not in (401, 403) or (route.path, status) == ("/replicate", 403)
    elif caller in (None, "wrong", "peer") or route.role is Role.PEER:
        assert status == 401
        assert challenge == 'Bearer realm="retinue"'
    else:
        assert status == 403
    assert secured.served.last_version == before


def test_there_is_no_way_around(secured: Secured) -> None:
    for path in ("/%6bv/a", "/kv", "/kv/a", "//kv/a", "/kv/../config", "/KV/a", "/kv/%2e%2e/health", "/health/../kv/a"):
        assert secured(None, "GET", path).status in (401, 404), path
    assert secured(None, "OPTIONS", "/kv/a").status == 204
    assert secured(None, "HEAD", "/kv/a").status == 401


def test_tokens_do_not_appear_in_answers(secured: Secured) -> None:
    for path in ("/config", "/status", "/metrics", "/openapi.json"):
        text = secured("admin", "GET", path).body.decode()
        for role in ("read", "write", "admin", "peer"):
            assert secured.tokens[role] not in text
