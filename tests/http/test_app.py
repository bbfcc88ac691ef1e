"""The application on its own: faults of a route, and the table it is made of."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import pytest

from retinue.http.access import Role
from retinue.http.answer import Answer
from retinue.http.app import App
from retinue.http.door import Door
from retinue.http.request import Request
from retinue.http.routes import ROUTES, Route, Table
from retinue.metrics import Registry
from tests.http.serving import Served


async def fail(door: Door, request: Request) -> Answer:
    request.key()
    raise RuntimeError("a fault with a secret in it")


def ask(app: App, path: bytes) -> tuple[int, dict[str, Any]]:
    """Status and body of the answer to a request in process."""
    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": "PUT",
        "raw_path": path,
        "query_string": b"",
        "headers": [(b"host", b"localhost")],
        "state": {"reserve": False, "closed": lambda: False},
    }
    asyncio.run(app(scope, receive, send))
    return sent[0]["status"], json.loads(sent[1]["body"])


def test_a_fault_is_told_without_its_details(alone: Served, caplog: pytest.LogCaptureFixture) -> None:
    registry = Registry()
    broken = Route("PUT", "/broken/{key}", Role.WRITE, fail, "Fail", "Receipt", parameters=("key",), writes=True)
    app = App(alone.node, alone.node.settings, registry, (*ROUTES, broken))
    with caplog.at_level(logging.ERROR):
        status, problem = ask(app, b"/broken/a")
    assert status == 500
    assert (problem["outcome"], problem["key"], problem["version"]) == ("unknown", "a", None)
    assert "secret" not in json.dumps(problem)
    assert "a fault with a secret in it" in caplog.text
    text = registry.render().decode()
    assert 'retinue_http_requests_total{route="/broken/{key}",method="PUT",status="500"} 1' in text
    assert "retinue_http_requests_in_flight 0" in text


def test_a_route_is_in_the_table_once() -> None:
    with pytest.raises(AssertionError):
        Table((*ROUTES, ROUTES[0]))
