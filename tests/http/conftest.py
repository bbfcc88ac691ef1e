"""Nodes for the tests of the HTTP door; those of the session are shared, so tests use keys of their own on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from retinue import tokens
from tests.http.serving import PEER_SECRET, Cluster, Host, Secured, Served, lone_leader


@pytest.fixture(scope="session")
def host() -> Iterator[Host]:
    running = Host()
    yield running
    running.close()


@pytest.fixture(scope="session")
def alone(host: Host) -> Served:
    """A leader without followers, for tests that need no other state than their own keys."""
    return lone_leader(host)


@pytest.fixture
def start_leader(host: Host) -> Iterator[Callable[..., Served]]:
    """Starts leaders without followers that end with the test."""
    started: list[Served] = []

    def start(**changes: Any) -> Served:
        started.append(lone_leader(host, **changes))
        return started[-1]

    yield start
    for served in started:
        host.stop(served)


@pytest.fixture(scope="session")
def cluster(host: Host) -> Cluster:
    """A cluster that no test may break."""
    return Cluster(host)


@pytest.fixture
def own_cluster(host: Host) -> Iterator[Cluster]:
    """A cluster that the test may break."""
    started = Cluster(host)
    yield started
    started.stop()


@pytest.fixture(scope="session")
def secured(host: Host, tmp_path_factory: pytest.TempPathFactory) -> Secured:
    directory: Path = tmp_path_factory.mktemp("secrets")
    token_file, secret_file = directory / "tokens", directory / "peers"
    known = {role: tokens.create(token_file, role) for role in tokens.ROLES}
    secret_file.write_text(PEER_SECRET)
    secret_file.chmod(0o600)
    served = lone_leader(host, token_file=token_file, peer_secret_file=secret_file)
    return Secured(served, known | {"peer": PEER_SECRET, "wrong": "x" * 43})
