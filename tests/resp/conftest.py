"""Nodes for the tests of the Redis door; those of the session are shared, so tests use keys of their own on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.resp.serving import Raw, RespHost, RespServed, lone_leader


@pytest.fixture(scope="session")
def resp_host() -> Iterator[RespHost]:
    running = RespHost()
    yield running
    running.close()


@pytest.fixture(scope="session")
def single(resp_host: RespHost) -> RespServed:
    """A leader without followers, for tests that need no other state than their own keys."""
    return lone_leader(resp_host)


@pytest.fixture
def start_single(resp_host: RespHost) -> Iterator[Callable[..., RespServed]]:
    """Starts leaders without followers that end with the test."""
    started: list[RespServed] = []

    def start(**changes: Any) -> RespServed:
        started.append(lone_leader(resp_host, **changes))
        return started[-1]

    yield start
    for served in started:
        resp_host.stop(served)


@pytest.fixture
def connect(single: RespServed) -> Iterator[Callable[..., Raw]]:
    """Opens connections that end with the test, to the shared node unless told otherwise."""
    opened: list[Raw] = []

    def open_one(served: RespServed = single) -> Raw:
        opened.append(served.raw())
        return opened[-1]

    yield open_one
    for raw in opened:
        raw.close()


@pytest.fixture
def talk(connect: Callable[..., Raw]) -> Raw:
    """A connection to the shared node."""
    return connect()
