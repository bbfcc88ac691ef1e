"""One project for all tests of a module, made whole again before each of them."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from retinue.ports import free_ports
from tests.containers.compose import SERVICES, Project, docker
from tests.containers.engine import EngineMissingError, engine

MIN_DELAY_MS, MAX_DELAY_MS = 20.0, 40.0


@pytest.fixture(scope="module")
def docker_engine() -> Iterator[None]:
    try:
        with engine():
            yield
    except EngineMissingError as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="module")
def started_project(docker_engine: None) -> Iterator[Project]:
    """The compose file as it is started by its users, with a simulated delay."""
    delays = {"MIN_DELAY": f"{MIN_DELAY_MS:g}", "MAX_DELAY": f"{MAX_DELAY_MS:g}"}
    name = f"retinue-test-{os.getpid()}"
    project = Project(name, name, free_ports(len(SERVICES)), **delays)
    try:
        project.up("--build")
        yield project
    finally:
        project.remove()
        docker("image", "rm", "--force", project.image)


@pytest.fixture
def project(started_project: Project) -> Project:
    """Six nodes that run and follow the leader."""
    started_project.heal()
    return started_project
