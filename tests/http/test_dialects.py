"""The addresses that the five lab systems documented."""

from __future__ import annotations

import uuid

import pytest

from tests.http.serving import Cluster, Served, wait_until


def fresh() -> str:
    return f"lab-{uuid.uuid4().hex}"


def test_set_get_delete(alone: Served) -> None:
    key = fresh()
    written = alone("POST", "/set", {"key": key, "value": "v"}).json()
    assert (written["status"], written["message"], written["replicated_to"]) == ("success", "Write successful", 0)
    read = alone("GET", f"/get/{key}").json()
    assert read.items() >= {"status": "success", "key": key, "value": "v", "version": written["version"]}.items()
    deleted = alone("DELETE", f"/delete/{key}").json()
    assert (deleted["status"], deleted["message"]) == ("deleted", "Delete successful")
    for method, path in (("GET", f"/get/{key}"), ("DELETE", f"/delete/{key}")):
        answer = alone(method, path)
        assert answer.status == 404
        assert answer.json()["error"]


def test_write_read_dump(alone: Served) -> None:
    key = fresh() + " /\u00e9"
    version = alone("POST", "/write", {"key": key, "value": {"a": 1}}).json()["version"]
    read = alone("GET", "/read?key=" + key.replace(" ", "+").replace("/", "%2F").replace("\u00e9", "%C3%A9")).json()
    assert (read["key"], read["value"], read["node"], read["version"]) == (key, {"a": 1}, "leader", version)
    for path in ("/dump", "/data"):
        assert alone("GET", path).json()[key] == {"value": {"a": 1}, "version": version}
    everything = alone("GET", "/all").json()
    assert everything["role"] == "leader"
    assert everything["data"][key] == {"value": {"a": 1}, "version": version}


def test_large_dumps_come_in_pieces(alone: Served) -> None:
    prefix = fresh()
    for start in range(0, 1800, 900):
        writes = [{"key": f"{prefix}-{number}", "value": number} for number in range(start, start + 900)]
        alone("POST", "/batch", {"writes": writes})
    answer = alone("GET", "/dump")
    assert answer.headers["Transfer-Encoding"] == "chunked"
    assert sum(key.startswith(prefix) for key in answer.json()) == 1800
    assert alone("GET", "/all").json()["data"].keys() == answer.json().keys()
    assert alone("HEAD", "/dump").status == 200


@pytest.mark.parametrize("path", ["/set", "/write"])
@pytest.mark.parametrize("body", [{}, {"key": "a"}, {"value": 1}, {"key": "", "value": 1}, {"key": 5, "value": 1}, []])
def test_missing_members_are_bad_requests(alone: Served, path: str, body: object) -> None:
    before = alone.last_version
    answer = alone("POST", path, body)
    assert answer.status == 400
    assert answer.json()["outcome"] == "not_written"
    assert alone.last_version == before


def test_other_members_and_types_are_tolerated(alone: Served) -> None:
    key = fresh()
    for content_type in ("text/plain", "application/x-www-form-urlencoded", None):
        headers = {} if content_type is None else {"Content-Type": content_type}
        body = b'{"key": "%s", "value": null, "ttl": 5}' % key.encode()
        assert alone("POST", "/set", body, headers).status == 200
    assert alone("GET", f"/get/{key}").json()["value"] is None


def test_keys_must_be_whole_characters(alone: Served) -> None:
    assert alone("POST", "/set", b'{"key": "\\ud800", "value": 1}').status == 422


def test_reading_without_a_key(alone: Served) -> None:
    assert alone("GET", "/read").status == 400
    assert alone("GET", "/read?key=").status == 400
    assert alone("GET", "/read?key=none-such").status == 404


def test_followers_refuse_writes_in_every_dialect(cluster: Cluster) -> None:
    follower = cluster.followers[0]
    body = {"key": "a", "value": 1}
    for method, path, sent in (
        ("PUT", "/kv/a", {"value": 1}),
        ("PUT", "/kv/a?w=2", {"value": 1}),
        ("DELETE", "/kv/a", None),
        ("POST", "/batch", {"writes": [body]}),
        ("POST", "/set", body),
        ("POST", "/write", body),
        ("DELETE", "/delete/a", None),
    ):
        answer = follower(method, path, sent)
        assert answer.status == 403, (method, path)
        problem = answer.json()
        assert problem["leader"] == cluster.leader.door.url
        assert (problem["outcome"], problem["acks"]) == ("not_written", 0)


def test_every_node_serves_reads_in_every_dialect(cluster: Cluster) -> None:
    key = fresh()
    receipt = cluster.leader("POST", "/set", {"key": key, "value": 1}).json()
    for node in (cluster.leader, *cluster.followers):
        assert node("GET", f"/kv/{key}?min_version={receipt['session']}").json()["value"] == 1
        assert node("GET", f"/get/{key}?min_version={receipt['session']}").json()["version"] == receipt["version"]
        assert node("GET", f"/read?key={key}").json()["value"] == 1
        for path in ("/dump", "/data"):
            assert node("GET", path).json()[key] == {"value": 1, "version": receipt["version"]}
        assert node("GET", "/all").json()["data"][key]["value"] == 1


def test_replicate_follows_the_rules_of_the_links(own_cluster: Cluster) -> None:
    leader, follower = own_cluster.leader, own_cluster.followers[0]
    version = leader("PUT", "/kv/a?w=all", {"value": "new"}).json()["version"]
    wait_until(lambda: follower.node.replica.log.trusted >= version)
    assert follower("POST", "/replicate", {"key": "a", "value": "old", "version": version}).status == 200
    assert follower("GET", "/kv/a").json()["value"] == "new"
    far = follower("POST", "/replicate", {"key": "a", "value": "x", "version": version + 1_000_000})
    assert (far.status, far.json()["outcome"]) == (409, "not_written")
    assert leader("POST", "/replicate", {"key": "a", "value": "x", "version": version}).status == 403
    ahead = follower("POST", "/replicate", {"key": "b", "value": [1], "version": version + 1})
    assert ahead.status == 200
    shown = follower("GET", "/kv/b").json()
    assert (shown["value"], shown["version"], shown["committed"]) == ([1], version + 1, False)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"key": "a", "value": 1}, 400),
        ({"key": "a", "version": 1}, 400),
        ({"value": 1, "version": 1}, 400),
        ({"key": "a", "value": 1, "version": 0}, 422),
        ({"key": "a", "value": 1, "version": True}, 422),
        ({"key": "a", "value": 1, "version": 1.5}, 422),
        ({"key": "a", "value": 1, "version": "1"}, 422),
        ({"key": "a", "value": 1, "version": 2**63}, 422),
        ({"key": "a", "value": 1, "version": 1, "epoch": 0}, 422),
        ({"key": "a", "value": 1, "version": 1, "epoch": 2**63 - 1}, 409),
        ({"key": "a", "value": 1, "version": 1, "delete": 1}, 422),
    ],
)
def test_bad_replicated_entries(cluster: Cluster, body: dict[str, object], status: int) -> None:
    assert cluster.followers[0]("POST", "/replicate", body).status == status
