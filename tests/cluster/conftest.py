"""Real clusters of real processes: on free ports, in a directory of their own, stopped at the end whatever happened."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from retinue.cluster import Cluster
from retinue.ports import free_ports

StartCluster = Callable[..., Cluster]


@pytest.fixture
def start_cluster(tmp_path: Path) -> Iterator[StartCluster]:
    """A function that starts a cluster: `start_cluster(followers=5, write_quorum=3, ...)`, settings by their names."""
    made: list[Cluster] = []

    def start(followers: int = 5, **settings: object) -> Cluster:
        texts = {name: str(value) for name, value in settings.items()}
        cluster = Cluster(tmp_path / f"cluster{len(made)}", free_ports(followers + 1), texts)
        made.append(cluster)
        cluster.start()
        return cluster

    yield start
    for cluster in made:
        cluster.stop()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Six nodes that the tests of a module share; a test leaves all of them running and healthy."""
    with Cluster(tmp_path_factory.mktemp("cluster"), free_ports(6)) as started:
        yield started
