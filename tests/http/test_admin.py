"""Health, status, settings in force, probes, metrics, promotion."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from tests.http.serving import Cluster, Secured, Served


def body_of(description: Any, method: str, path: str) -> Any:
    return description["paths"][path][method]["requestBody"]["content"]["application/json"]["schema"]


def settings_in(description: Any) -> Any:
    return body_of(description, "patch", "/config")["properties"]


def is_described(cluster: Cluster, patch: dict[str, object]) -> bool:
    """Whether the leader's description allows this change."""
    described = body_of(cluster.leader("GET", "/openapi.json").json(), "patch", "/config")
    return Draft202012Validator(described).is_valid(patch)


def test_health(alone: Served) -> None:
    answer = alone("GET", "/health")
    assert answer.status == 200
    assert answer.json().items() >= {"status": "healthy", "role": "leader", "node": "leader", "epoch": 1}.items()


@pytest.mark.parametrize("path", ["/health", "/livez", "/readyz", "/leader", "/ping", "/"])
def test_what_a_leader_answers_to_probes(alone: Served, path: str) -> None:
    assert alone("GET", path).status == 200
    assert alone("HEAD", path).status == 200


def test_the_leader_is_no_replica(alone: Served) -> None:
    answer = alone("GET", "/replica")
    assert (answer.status, answer.headers["Retry-After"]) == (503, "1")
    assert answer.json()["role"] == "leader"


@pytest.mark.parametrize("query", ["max_lag_ms=-1", "max_lag_ms=x", "max_lag_ms=", "max_lag_ms=1&max_lag_ms=1"])
def test_bad_lags(alone: Served, query: str) -> None:
    assert alone("GET", f"/replica?{query}").status == 400


def test_a_follower_answers_to_probes(cluster: Cluster) -> None:
    follower = cluster.followers[0]
    assert follower("GET", "/replica?max_lag_ms=10000").json()["role"] == "follower"
    assert follower("GET", "/replica?max_lag_ms=0").status == 503
    answer = follower("GET", "/leader")
    assert answer.status == 503
    assert answer.json()["leader"] == cluster.leader.door.url
    assert follower("GET", "/ping").json() == {"role": "follower", "status": "ok"}
    assert follower("GET", "/readyz").json()["role"] == "follower"


def test_status_and_config(cluster: Cluster) -> None:
    status = cluster.leader("GET", "/status").json()
    assert [follower["name"] for follower in status["followers"]] == ["follower1", "follower2"]
    config = cluster.leader("GET", "/config").json()
    assert config["port"] == cluster.leader.door.port
    assert (config["write_quorum"], config["role"]) == (2, "leader")
    assert len(config["followers"]) == 2


def test_changing_the_network_and_the_quorum(own_cluster: Cluster) -> None:
    leader = own_cluster.leader
    changed = leader("PATCH", "/config", {"min_delay_ms": 1, "max_delay_ms": 2.5, "write_quorum": 1})
    assert changed.status == 200
    assert changed.json().items() >= {"min_delay_ms": 1, "max_delay_ms": 2.5, "write_quorum": 1}.items()
    receipt = leader("PUT", "/kv/a?w=all", {"value": 1}).json()
    assert receipt["delays_ms"].keys() == {"follower1", "follower2"}
    assert all(1 <= delay_ms <= 2.5 for delay_ms in receipt["delays_ms"].values())
    assert leader("GET", "/config").json()["write_quorum"] == 1


@pytest.mark.parametrize(
    "patch",
    [
        {"write_quorum": 3},
        {"write_quorum": -1},
        {"write_quorum": True},
        {"write_quorum": 1.5},
        {"write_quorum": "2"},
        {"min_delay_ms": -1},
        {"max_delay_ms": 1e300},
        {"max_delay_ms": None},
        {"max_delay_ms": [1]},
        {"delay_distribution": "normal"},
        {"delay_distribution": {}},
        {"loss": 2},
        {"seed": "x"},
        {"seed": 1.5},
        {"links": []},
        {"links": {"follower9": {"loss": 0.5}}},
        {"links": {"follower1": {"speed": 1}}},
        {"links": {"follower1": 1}},
        {"links": {"follower1": {"cut": 1}}},
        {"cut": "follower1"},
        {"cut": [1]},
        {"cut": [["follower1"]]},
        {"cut": ["leader"]},
        {"port": 1},
        {"data_dir": "/tmp/x"},
        {"max_delay_ms": 5, "write_quorum": 99},
    ],
    ids=repr,
)
def test_bad_settings_change_nothing(cluster: Cluster, patch: dict[str, object]) -> None:
    before = cluster.leader("GET", "/config").json()
    answer = cluster.leader("PATCH", "/config", patch)
    assert answer.status == 422
    assert not is_described(cluster, patch)
    assert answer.json()["detail"].endswith(".")
    assert cluster.leader("GET", "/config").json() == before


@pytest.mark.parametrize(
    ("patch", "both"),
    [
        ({"min_delay_ms": 5}, ("min_delay_ms=5", "max_delay_ms=0")),
        ({"min_delay_ms": 7, "max_delay_ms": 6.5, "write_quorum": 1}, ("min_delay_ms=7", "max_delay_ms=6.5")),
        ({"links": {"follower2": {"min_ms": 3}}}, ("links.follower2.min_ms=3", "links.follower2.max_ms=0")),
    ],
    ids=repr,
)
def test_settings_that_exclude_each_other_change_nothing(
    cluster: Cluster, patch: dict[str, object], both: tuple[str, str]
) -> None:
    before = cluster.leader("GET", "/config").json()
    answer = cluster.leader("PATCH", "/config", patch)
    assert (answer.status, answer.json()["outcome"]) == (409, "not_written")
    assert is_described(cluster, patch)
    assert all(value in answer.json()["detail"] for value in both)
    assert cluster.leader("GET", "/config").json() == before


def test_whole_numbers_may_be_written_with_a_fraction(alone: Served) -> None:
    changed = alone("PATCH", "/config", b'{"write_quorum": 0.0, "seed": 7.0}')
    assert (changed.status, changed.json()["write_quorum"], changed.json()["seed"]) == (200, 0, 7)
    assert alone("PATCH", "/config", {"seed": None}).json()["seed"] is None


def test_curl_may_leave_its_content_type(alone: Served) -> None:
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    assert alone("PATCH", "/config", b'{"loss": 0}', form).status == 200
    assert alone("PATCH", "/config", b'{"loss": 0}').status == 200


def test_metrics(alone: Served) -> None:
    alone("GET", "/health")
    answer = alone("GET", "/metrics")
    assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    lines = answer.body.decode().splitlines()
    assert any(
        line.startswith('retinue_http_requests_total{route="/health",method="GET",status="200"} ') for line in lines
    )
    assert "retinue_http_requests_in_flight 1" in lines
    assert "retinue_serving 1" in lines
    assert "retinue_write_quorum 0" in lines


def test_followers_are_in_the_metrics(cluster: Cluster) -> None:
    text = cluster.leader("GET", "/metrics").body.decode()
    assert 'retinue_follower_lag_versions{follower="follower2"} ' in text
    assert 'retinue_follower_state{follower="follower1",state="live"} 1' in text


def test_promotion(own_cluster: Cluster) -> None:
    follower = own_cluster.followers[1]
    version = own_cluster.leader("PUT", "/kv/a?w=all", {"value": 1}).json()["version"]
    answer = follower("POST", "/promote", {"accept_loss": False})
    assert answer.status == 200
    assert answer.json()["role"] == "leader"
    assert follower("GET", "/leader").status == 200
    assert follower("GET", "/kv/a").json()["version"] == version
    assert follower("PUT", "/kv/a", {"value": 2}).json()["epoch"] > 1


@pytest.mark.parametrize("body", [{"accept_loss": 1}, {"accept_loss": None}, {"force": True}, []])
def test_bad_promotions(cluster: Cluster, body: object) -> None:
    assert cluster.followers[0]("POST", "/promote", body).status == 422
    assert cluster.leader("GET", "/leader").status == 200


def test_the_description_knows_the_node(cluster: Cluster, alone: Served) -> None:
    answer = cluster.leader("GET", "/openapi.json")
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.json()["openapi"] == "3.1.0"
    allowed = settings_in(answer.json())
    assert allowed["write_quorum"]["maximum"] == 2
    assert allowed["links"]["properties"].keys() == {"follower1", "follower2"}
    assert allowed["cut"]["items"]["enum"] == ["follower1", "follower2"]
    allowed = settings_in(cluster.followers[0]("GET", "/openapi.json").json())
    assert allowed["cut"]["items"]["enum"] == ["leader", "follower2"]
    allowed = settings_in(alone("GET", "/openapi.json").json())
    assert (allowed["write_quorum"]["maximum"], allowed["cut"]["maxItems"]) == (0, 0)


def test_the_description_has_the_limit_of_batches(start_leader: Callable[..., Served]) -> None:
    served = start_leader(batch_limit=3)
    described = body_of(served("GET", "/openapi.json").json(), "post", "/batch")
    assert described["properties"]["writes"]["maxItems"] == 3


def test_the_description_names_members_to_readers_only(secured: Secured) -> None:
    for role, told in ((None, False), ("wrong", False), ("read", True), ("admin", True)):
        answer = secured(role, "GET", "/openapi.json")
        assert answer.status == 200
        assert ("maximum" in settings_in(answer.json())["write_quorum"]) is told
