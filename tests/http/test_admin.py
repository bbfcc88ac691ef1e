"""Health, status, settings in force, probes, metrics, promotion."""

from __future__ import annotations

import pytest

from tests.http.serving import Cluster, Served


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
        {"min_delay_ms": 5},
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
    assert answer.status in (400, 422)
    assert answer.json()["detail"].endswith(".")
    assert cluster.leader("GET", "/config").json() == before


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


def test_the_description_is_served(alone: Served) -> None:
    answer = alone("GET", "/openapi.json")
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.json()["openapi"] == "3.1.0"
