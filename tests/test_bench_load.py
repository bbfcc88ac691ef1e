"""The load generator of `bench/`, built here and run against a cluster of ours."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.generator import Load, build, run
from retinue.cluster import Cluster
from retinue.errors import ClusterError
from retinue.ports import free_ports

pytestmark = pytest.mark.skipif(
    not any(shutil.which(name) for name in ("cc", "gcc", "clang")), reason="there is no C compiler to build load.c with"
)


@pytest.fixture(scope="module")
def generator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("generator"))


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    settings = {"memory": "true", "write_quorum": "1"}
    with Cluster(tmp_path_factory.mktemp("cluster"), free_ports(2), settings) as running:
        yield running


def load(mode: str, port: int, *, pipeline: int = 1) -> Load:
    return Load(mode=mode, port=port, connections=4, seconds=0.3, warm_up=0.0, keys=100, pipeline=pipeline, replicas=1)


@pytest.fixture(scope="module")
def resp_port(cluster: Cluster) -> int:
    port = cluster.request("leader", "GET", "/config").checked().json()["resp_port"]
    assert isinstance(port, int)
    return port


def test_a_built_generator_is_built_once(generator: Path) -> None:
    written_ns = generator.stat().st_mtime_ns
    assert build(generator.parent) == generator
    assert generator.stat().st_mtime_ns == written_ns


@pytest.mark.parametrize("mode", ["http-put", "http-put-bytes"])
def test_it_writes_over_http_what_it_says(generator: Path, cluster: Cluster, mode: str) -> None:
    result = run(generator, load(mode, cluster.ports[0]))
    assert result.count > 0
    assert result.errors == {}
    assert 0 < result.p50_us <= result.p95_us <= result.p99_us
    stored = cluster.request("leader", "GET", "/kv?prefix=key:&limit=1").checked().json()["items"]
    assert isinstance(stored, list)
    assert len(stored[0]["value"]) == 100


@pytest.mark.parametrize("pipeline", [1, 16])
def test_it_fills_and_reads_over_the_redis_protocol(generator: Path, resp_port: int, pipeline: int) -> None:
    filling = Load(mode="resp-set", port=resp_port, connections=4, seconds=60, keys=100, fill=True, pipeline=pipeline)
    filled = run(generator, filling)
    assert filled.errors == {}
    assert filled.count >= 100
    reading = run(generator, load("resp-get", resp_port, pipeline=pipeline))
    assert reading.count > 0
    assert reading.errors == {}


def test_it_counts_replies_to_wait(generator: Path, resp_port: int) -> None:
    enough = run(generator, load("resp-set-wait", resp_port))
    assert enough.count > 0
    assert enough.errors == {}


def test_refusals_are_errors_by_kind_and_count_for_nothing(generator: Path, cluster: Cluster) -> None:
    result = run(generator, load("http-put", cluster.ports[1]))
    assert result.count == 0
    assert list(result.errors) == ["403"]


def test_missing_keys_are_errors(generator: Path, resp_port: int) -> None:
    result = run(generator, Load(mode="resp-get", port=resp_port, connections=1, seconds=0.3, keys=10**9, warm_up=0.0))
    assert result.errors.get("no such key", 0) > 0


def test_nobody_there_is_said_in_a_sentence(generator: Path) -> None:
    with pytest.raises(ClusterError, match="cannot connect"):
        run(generator, load("resp-set", free_ports(1)[0]))
