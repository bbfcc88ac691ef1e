"""Tokens and roles, the names of this node, and requests that foreign pages start."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from retinue import tokens
from retinue.errors import BadRequest, Forbidden, Misdirected, SettingsError, Unauthorized
from retinue.http.access import Guard, Role
from retinue.http.body import BodyBudget
from retinue.http.request import Request
from retinue.http.routes import ROUTES
from retinue.settings import Settings


async def nothing_to_receive() -> dict[str, Any]:
    raise AssertionError("no body is read here")


def make_request(method: str = "GET", http_version: str = "1.1", **headers: str) -> Request:
    scope = {
        "method": method,
        "raw_path": b"/",
        "query_string": b"",
        "http_version": http_version,
        "headers": [(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in headers.items()],
    }
    return Request(scope, nothing_to_receive, BodyBudget(1))


def bearing(token: str) -> Request:
    return make_request(authorization=f"Bearer {token}")


@pytest.fixture
def token_file(tmp_path: Path) -> tuple[Path, dict[str, str]]:
    path = tmp_path / "tokens"
    return path, {role: tokens.create(path, role) for role in tokens.ROLES}


@pytest.mark.parametrize(
    ("role", "allowed"),
    [
        ("read", {Role.PUBLIC, Role.READ}),
        ("write", {Role.PUBLIC, Role.READ, Role.WRITE}),
        ("admin", {Role.PUBLIC, Role.READ, Role.WRITE, Role.ADMIN, Role.PEER}),
    ],
)
def test_a_role_includes_the_ones_below(token_file: tuple[Path, dict[str, str]], role: str, allowed: set[Role]) -> None:
    path, known = token_file
    guard = Guard(Settings(token_file=path))
    for needed in Role:
        if needed in allowed:
            guard.check_role(needed, bearing(known[role]))
        else:
            with pytest.raises(Forbidden):
                guard.check_role(needed, bearing(known[role]))


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer ", "Bearer nonsense", "Basic eDp5", "Bearer \xff\xfe"])
def test_unknown_tokens_are_refused(token_file: tuple[Path, dict[str, str]], header: str) -> None:
    guard = Guard(Settings(token_file=token_file[0]))
    guard.check_role(Role.PUBLIC, make_request(authorization=header))
    for needed in set(Role) - {Role.PUBLIC}:
        with pytest.raises(Unauthorized):
            guard.check_role(needed, make_request(authorization=header))


def test_no_token_file_means_no_tokens() -> None:
    guard = Guard(Settings())
    for needed in Role:
        guard.check_role(needed, make_request())
    guard.check_fault_injection()


def test_the_peer_secret_opens_the_peer_route_only(tmp_path: Path, token_file: tuple[Path, dict[str, str]]) -> None:
    secret = tmp_path / "secret"
    secret.write_text("s" * 40 + "\n")
    path, known = token_file
    guard = Guard(Settings(token_file=path, peer_secret_file=secret))
    guard.check_role(Role.PEER, bearing("s" * 40))
    for token in (known["admin"], "s" * 39):
        with pytest.raises(Unauthorized):
            guard.check_role(Role.PEER, bearing(token))
    for needed in (Role.READ, Role.WRITE, Role.ADMIN):
        with pytest.raises(Unauthorized):
            guard.check_role(needed, bearing("s" * 40))


def test_a_bad_secret_stops_the_start(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.touch()
    for path in (empty, tmp_path / "missing"):
        with pytest.raises(SettingsError):
            Guard(Settings(peer_secret_file=path))


def test_the_token_file_is_read_again_when_it_changes(token_file: tuple[Path, dict[str, str]]) -> None:
    path, known = token_file
    file = tokens.TokenFile(path, recheck_interval_s=0)
    later = tokens.create(path, "write")
    assert file.role_of(later.encode()) == "write"
    assert file.role_of(known["read"].encode()) == "read"
    path.write_text("nonsense\n")
    assert file.role_of(later.encode()) == "write"
    path.unlink()
    assert file.role_of(later.encode()) == "write"
    os.close(os.open(path, os.O_CREAT, 0o600))
    assert file.role_of(later.encode()) is None


def test_fault_injection_needs_a_token_beyond_loopback(token_file: tuple[Path, dict[str, str]]) -> None:
    with pytest.raises(Forbidden):
        Guard(Settings(host="0.0.0.0", insecure=True)).check_fault_injection()
    Guard(Settings(host="0.0.0.0", insecure=True, token_file=token_file[0])).check_fault_injection()


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST:8000",
        "127.0.0.1:8000",
        "[::1]:8000",
        "[::1]",
        "192.0.2.7",
        "node.example",
        "node.example.:80",
        "db.example:1234",
    ],
)
def test_names_of_this_node(host: str) -> None:
    settings = Settings(allowed_hosts=("node.example",), advertise_url="http://db.example:9000")
    Guard(settings).check_host(make_request(host=host))


@pytest.mark.parametrize(
    "host",
    ["evil.example", "localhost.evil.example", "", "127.0.0.1.evil.example", "evil.example:8000", "0x7f.1", "\xff"],
)
def test_other_names_are_refused(host: str) -> None:
    with pytest.raises(Misdirected):
        Guard(Settings()).check_host(make_request(host=host))


def test_only_http_1_0_may_leave_out_its_host() -> None:
    guard = Guard(Settings())
    guard.check_host(make_request(http_version="1.0"))
    with pytest.raises(BadRequest):
        guard.check_host(make_request())


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://localhost:3000"},
        {"origin": ""},
        {"sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "same-site"},
        {"origin": "http://localhost:8000", "sec_fetch_site": "cross-site"},
    ],
)
@pytest.mark.parametrize("method", ["PUT", "POST", "PATCH", "DELETE"])
def test_foreign_pages_change_nothing(method: str, headers: dict[str, str]) -> None:
    guard = Guard(Settings())
    with pytest.raises(Forbidden):
        guard.check_origin(make_request(method, host="localhost:8000", **headers))
    guard.check_origin(make_request("GET", host="localhost:8000", **headers))


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"origin": "http://localhost:8000", "sec_fetch_site": "same-origin"},
        {"origin": "https://LOCALHOST:8000"},
        {"sec_fetch_site": "none"},
    ],
)
def test_own_pages_and_programs_may(headers: dict[str, str]) -> None:
    Guard(Settings()).check_origin(make_request("PUT", host="localhost:8000", **headers))


def test_every_route_that_changes_something_needs_more_than_reading() -> None:
    for route in ROUTES:
        if route.method != "GET":
            assert route.role in (Role.WRITE, Role.ADMIN, Role.PEER), route.path
        if route.writes:
            assert route.method != "GET"


def test_the_public_routes_are_these() -> None:
    assert {route.path for route in ROUTES if route.role is Role.PUBLIC} == {
        "/",
        "/health",
        "/leader",
        "/livez",
        "/openapi.json",
        "/ping",
        "/readyz",
        "/replica",
    }
