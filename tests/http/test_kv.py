"""Keys over HTTP: receipts, reads, conditions, lists, batches."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.http.serving import Served

RECEIPT = {
    "status",
    "message",
    "outcome",
    "committed",
    "key",
    "value",
    "version",
    "epoch",
    "session",
    "acks",
    "replicated_to",
    "required_quorum",
    "acked_by",
    "replication_time_ms",
    "total_time_ms",
}


def fresh() -> str:
    return f"k-{uuid.uuid4().hex}"


def test_a_write_and_a_read(alone: Served) -> None:
    key = fresh()
    before = alone.last_version
    answer = alone("PUT", f"/kv/{key}", {"value": {"a": [1, None, "\u00e9"]}})
    receipt = answer.json()
    assert answer.status == 200
    assert receipt.keys() == RECEIPT
    assert receipt["version"] == before + 1
    assert (receipt["status"], receipt["message"]) == ("success", "Write successful")
    assert (receipt["outcome"], receipt["committed"]) == ("committed", True)
    assert receipt["session"] == f"{receipt['epoch']}.{receipt['version']}"
    assert answer.headers["ETag"] == f'"{receipt["version"]}"'
    assert answer.headers["Server-Timing"].startswith("replication;dur=")

    found = alone("GET", f"/kv/{key}")
    assert found.status == 200
    assert found.headers["Content-Type"] == "application/json"
    assert found.headers["ETag"] == answer.headers["ETag"]
    assert found.json() == {
        "key": key,
        "value": {"a": [1, None, "\u00e9"]},
        "version": receipt["version"],
        "node": "leader",
        "role": "leader",
        "committed": True,
    }


def test_every_answer_forbids_guessing_and_keeping(alone: Served) -> None:
    for method, path in (("GET", "/kv/none"), ("GET", "/health"), ("GET", "/nowhere"), ("PATCH", "/kv/a")):
        answer = alone(method, path)
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["Server"] is None


@given(value=st.text(max_size=30) | st.integers() | st.lists(st.none() | st.booleans()))
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_values_come_back(alone: Served, value: object) -> None:
    assert alone("PUT", "/kv/value", {"value": value}).status == 200
    assert alone("GET", "/kv/value").json()["value"] == value


@given(key=st.text(min_size=1, max_size=60))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_text_is_a_key(alone: Served, key: str) -> None:
    address = f"/kv/{quote(key, safe='')}"
    assert alone("PUT", address, {"value": key}).json()["key"] == key
    assert alone("GET", address).json()["value"] == key
    assert alone("DELETE", address).status == 200


@pytest.mark.parametrize("address", ["a//b", "..", "../../x", "%2e%2e%2f", "a%252f", "a?", "%00", "%F0%9F%9F%A2%20"])
def test_addresses_are_not_normalised(alone: Served, address: str) -> None:
    assert alone("PUT", f"/kv/{address}", {"value": address}).status == 200
    assert alone("GET", f"/kv/{address}").json()["value"] == address


def test_raw_bytes(alone: Served) -> None:
    key = fresh()
    for content_type in ("application/octet-stream", "text/plain", "application/x-www-form-urlencoded", None):
        headers = {} if content_type is None else {"Content-Type": content_type}
        assert alone("PUT", f"/kv/{key}", b'{"value": 1}', headers).status == 200
        assert alone("GET", f"/kv/{key}").json()["value"] == '{"value": 1}'
    receipt = alone("PUT", f"/kv/{key}", b"\xff\x00\x01").json()
    assert (receipt["value"], receipt["encoding"]) == ("/wAB", "base64")
    shown = alone("GET", f"/kv/{key}").json()
    assert (shown["value"], shown["encoding"]) == ("/wAB", "base64")
    raw = alone("GET", f"/kv/{key}", headers={"Accept": "application/octet-stream"})
    assert (raw.body, raw.headers["Content-Type"]) == (b"\xff\x00\x01", "application/octet-stream")
    assert alone("PUT", f"/kv/{key}", {"value": "/wAC", "encoding": "base64"}).status == 200
    assert alone("GET", f"/kv/{key}", headers={"Accept": "application/octet-stream"}).body == b"\xff\x00\x02"
    assert alone("PUT", f"/kv/{key}", b"", {"Content-Type": "text/plain"}).status == 200
    assert alone("GET", f"/kv/{key}").json()["value"] == ""


@pytest.mark.parametrize("content_type", ["application/json", "application/json; charset=UTF-8", "application/x+json"])
def test_json_types(alone: Served, content_type: str) -> None:
    assert alone("PUT", "/kv/typed", b'{"value":7}', {"Content-Type": content_type}).json()["value"] == 7


def test_an_empty_value_must_be_meant(alone: Served) -> None:
    before = alone.last_version
    for body in (b"", None):
        assert alone("PUT", "/kv/empty", body).status == 400
    assert alone.last_version == before


def test_sessions_that_no_version_has(alone: Served) -> None:
    answer = alone("GET", f"/kv/a?min_version={alone.last_version + 1}")
    assert answer.status == 409


def test_deletes(alone: Served) -> None:
    key = fresh()
    version = alone("PUT", f"/kv/{key}", {"value": 1}).json()["version"]
    receipt = alone("DELETE", f"/kv/{key}").json()
    assert (receipt["status"], receipt["message"], receipt["version"]) == ("success", "Delete successful", version + 1)
    assert "value" not in receipt
    assert alone("GET", f"/kv/{key}").status == 404
    missing = alone("DELETE", f"/kv/{key}")
    assert missing.status == 404
    assert missing.json()["outcome"] == "not_written"
    assert alone.last_version == version + 1


def test_head_is_get_without_a_body(alone: Served) -> None:
    key = fresh()
    alone("PUT", f"/kv/{key}", {"value": "x"})
    shown = alone("GET", f"/kv/{key}")
    head = alone("HEAD", f"/kv/{key}")
    assert (head.status, head.body) == (200, b"")
    for name in ("ETag", "Content-Type", "Content-Length"):
        assert head.headers[name] == shown.headers[name]
    assert alone("HEAD", "/kv/none-such").status == 404


def test_versions_that_the_client_has_already(alone: Served) -> None:
    key = fresh()
    tag = alone("PUT", f"/kv/{key}", {"value": "x"}).headers["ETag"]
    unchanged = alone("GET", f"/kv/{key}", headers={"If-None-Match": tag})
    assert (unchanged.status, unchanged.body, unchanged.headers["ETag"]) == (304, b"", tag)
    assert alone("GET", f"/kv/{key}", headers={"If-None-Match": '"0"'}).status == 200


def test_conditions(alone: Served) -> None:
    address = f"/kv/{fresh()}"
    first = alone("PUT", address, {"value": 1}, {"If-None-Match": "*"})
    assert first.status == 200
    version = first.json()["version"]
    again = alone("PUT", address, {"value": 2}, {"If-None-Match": "*"})
    assert again.status == 412
    assert (again.json()["version"], again.json()["current"]) == (version, version)
    assert again.json()["outcome"] == "not_written"
    assert alone("PUT", address, {"value": 2}, {"If-Match": f'"{version}"'}).status == 200
    stale = alone("PUT", address, {"value": 3}, {"If-Match": f'"{version}"'})
    assert stale.status == 412
    assert stale.headers["ETag"] == f'"{version + 1}"'
    assert alone("DELETE", address, headers={"If-Match": f'"{version}"'}).status == 412
    assert alone("DELETE", address, headers={"If-Match": f'"{version + 1}"'}).status == 200
    assert alone("PUT", address, {"value": 1}, {"If-Match": "*"}).status == 412


def test_retries(alone: Served) -> None:
    address, request_id = f"/kv/{fresh()}", {"Idempotency-Key": uuid.uuid4().hex}
    first = alone("PUT", address, {"value": 1}, request_id).json()
    again = alone("PUT", address, {"value": 1}, request_id).json()
    assert (again["version"], again["replayed"]) == (first["version"], True)
    reused = alone("PUT", address, {"value": 2}, request_id)
    assert (reused.status, reused.json()["outcome"]) == (422, "not_written")
    assert alone("GET", address).json()["value"] == 1


def test_lists(alone: Served) -> None:
    prefix = f"list/{uuid.uuid4().hex}/"
    for number in range(7):
        alone("PUT", f"/kv/{prefix}{number}", {"value": number})
    page = alone("GET", f"/kv?prefix={prefix}&limit=3").json()
    assert [item["value"] for item in page["items"]] == [0, 1, 2]
    assert page["next"] == f"{prefix}2"
    assert page["version"] == alone.last_version
    rest = alone("GET", f"/kv?prefix={prefix}&after={page['next']}").json()
    assert [item["value"] for item in rest["items"]] == [3, 4, 5, 6]
    assert rest["next"] is None
    assert alone("GET", f"/kv?prefix={prefix}none").json()["items"] == []


def test_lines(alone: Served) -> None:
    prefix = f"lines/{uuid.uuid4().hex}/"
    for start in range(0, 2400, 800):
        writes = [{"key": f"{prefix}{number:05}", "value": number} for number in range(start, start + 800)]
        assert alone("POST", "/batch", {"writes": writes}).status == 200
    answer = alone("GET", f"/kv?prefix={prefix}", headers={"Accept": "application/x-ndjson"})
    assert answer.headers["Content-Type"] == "application/x-ndjson"
    assert [json.loads(line)["value"] for line in answer.body.splitlines()] == list(range(2400))
    some = alone("GET", f"/kv?prefix={prefix}&limit=5", headers={"Accept": "application/x-ndjson"})
    assert len(some.body.splitlines()) == 5


def test_batches(alone: Served) -> None:
    one, two, three = fresh(), fresh(), fresh()
    alone("PUT", f"/kv/{three}", {"value": 0})
    before = alone.last_version
    writes = [
        {"key": one, "value": 1},
        {"key": two, "value": "/w==", "encoding": "base64"},
        {"key": three, "delete": True},
    ]
    receipt = alone("POST", "/batch", {"writes": writes}).json()
    assert (receipt["version"], receipt["first_version"], receipt["writes"]) == (before + 1, before + 1, 3)
    assert alone("GET", f"/kv/{one}").json()["version"] == before + 1
    assert alone("GET", f"/kv/{two}").json()["encoding"] == "base64"
    assert alone("GET", f"/kv/{three}").status == 404


def test_the_last_write_of_a_key_in_a_batch_counts(alone: Served) -> None:
    one, two, three = fresh(), fresh(), fresh()
    alone("PUT", f"/kv/{three}", {"value": 0})
    writes = [
        {"key": one, "value": 1},
        {"key": two, "delete": True},
        {"key": three, "value": 2},
        {"key": one, "value": "x"},
        {"key": three, "delete": True},
        {"key": two, "value": "/w==", "encoding": "base64"},
        {"key": one, "value": [3]},
    ]
    sent = {"Idempotency-Key": fresh()}
    receipt = alone("POST", "/batch", {"writes": writes}, sent).json()
    assert receipt["writes"] == 3
    assert alone("GET", f"/kv/{one}").json()["value"] == [3]
    assert alone("GET", f"/kv/{two}").json().items() >= {"value": "/w==", "encoding": "base64"}.items()
    assert alone("GET", f"/kv/{three}").status == 404
    assert sorted(alone("GET", f"/writes/{receipt['version']}").json()["keys"]) == sorted((one, two, three))
    again = alone("POST", "/batch", {"writes": writes}, sent).json()
    assert (again["replayed"], again["version"], again["writes"]) == (True, receipt["version"], 3)


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"writes": []},
        {"writes": {}},
        {"writes": [{}]},
        {"writes": [1]},
        {"writes": [{"key": "a"}]},
        {"writes": [{"key": "a", "value": 1, "delete": True}]},
        {"writes": [{"key": "a", "delete": False}]},
        {"writes": [{"key": "a", "delete": 1}]},
        {"writes": [{"key": "", "value": 1}]},
        {"writes": [{"key": 1, "value": 1}]},
        {"writes": [{"key": "a", "value": 1, "ttl": 5}]},
        {"writes": [{"key": "a", "value": 1}], "atomic": True},
        {"writes": [{"key": f"{number}", "value": 1} for number in range(1001)]},
        [],
    ],
)
def test_bad_batches_write_nothing(alone: Served, document: object) -> None:
    before = alone.last_version
    answer = alone("POST", "/batch", document)
    assert answer.status in (400, 422)
    assert answer.json()["outcome"] == "not_written"
    assert alone.last_version == before


def test_what_became_of_a_version(alone: Served) -> None:
    version = alone("PUT", f"/kv/{fresh()}", {"value": 1}).json()["version"]
    state = alone("GET", f"/writes/{version}").json()
    assert (state["version"], state["state"]) == (version, "committed")
    assert alone("GET", f"/writes/{version + 1000}").status == 404
    assert (state["kind"], len(state["keys"]), state["idempotency_key"]) == ("put", 1, None)
    for bad in ("0", "-1", "x", "1.0", "", "9" * 30, "%31", "1/2"):
        assert alone("GET", f"/writes/{bad}").status == 400


def test_a_version_says_whose_it_is(alone: Served) -> None:
    one, two, name = fresh(), fresh(), {"Idempotency-Key": fresh()}
    version = alone("PUT", f"/kv/{one}", {"value": 1}, name).json()["version"]
    batch = {"writes": [{"key": one, "value": 2}, {"key": two, "delete": True}]}
    assert alone("POST", "/batch", batch).json()["version"] == version + 1
    told = [alone("GET", f"/writes/{number}").json() for number in (version, version + 1)]
    assert [(state["kind"], state["keys"]) for state in told] == [("put", [one]), ("batch", [one, two])]
    assert [state["idempotency_key"] for state in told] == [name["Idempotency-Key"], None]


def test_conditions_that_mean_nothing_are_refused(alone: Served) -> None:
    before = alone.last_version
    for headers in ({"If-Match": '"1"'}, {"If-Match": "*"}, {"If-None-Match": "*"}):
        answer = alone("POST", "/batch", {"writes": [{"key": "a", "value": 1}]}, headers)
        assert (answer.status, answer.json()["outcome"]) == (400, "not_written")
    assert alone("DELETE", f"/kv/{fresh()}", headers={"If-None-Match": "*"}).status == 400
    assert alone.last_version == before


def test_w_and_deadlines(alone: Served) -> None:
    for query in ("w=0", "w=all", "w=majority", "timeout_ms=60000", "unknown=1"):
        assert alone("PUT", f"/kv/{fresh()}?{query}", {"value": 1}).json()["committed"] is True
    for query in ("w=1", "w=-1", "w=most", "w=0&w=0", "timeout_ms=0", "timeout_ms=nan", "timeout_ms=60001", "w=%zz"):
        assert alone("PUT", f"/kv/{fresh()}?{query}", {"value": 1}).status == 400


@pytest.mark.parametrize("query", ["read=dirty", "min_version=x", "read=local&read=local", "timeout_ms=-1"])
def test_bad_reads(alone: Served, query: str) -> None:
    assert alone("GET", f"/kv/a?{query}").status == 400


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=1001", "limit=x", "read=dirty", "read=strong", "prefix=%ff", "after=%zz"]
)
def test_bad_lists(alone: Served, query: str) -> None:
    assert alone("GET", f"/kv?{query}").status == 400


@pytest.mark.parametrize("level", ["committed", "strong", "local"])
def test_read_levels(alone: Served, level: str) -> None:
    key = fresh()
    session = alone("PUT", f"/kv/{key}", {"value": 5}).json()["session"]
    assert alone("GET", f"/kv/{key}?read={level}&min_version={session}").json()["value"] == 5
    assert alone("GET", f"/kv/{key}?min_version={session.partition('.')[2]}").json()["value"] == 5


def test_values_up_to_the_limit(start_leader: Callable[..., Served]) -> None:
    served = start_leader(value_limit_bytes=1000)
    assert served("PUT", "/kv/a", {"value": "x" * 1000}).status == 200
    assert served("PUT", "/kv/a", {"value": "\u00e9" * 500}).status == 200
    assert served("PUT", "/kv/a", b"x" * 1000).status == 200
    before = served.last_version
    for body in ({"value": "x" * 1001}, {"value": "\u00e9" * 501}, b"x" * 1001, {"value": [1] * 501}):
        answer = served("PUT", "/kv/a", body)
        assert (answer.status, answer.json()["outcome"]) == (413, "not_written")
    batch = {"writes": [{"key": "a", "value": "x" * 1001}]}
    assert served("POST", "/batch", batch).status == 413
    assert served("POST", "/set", {"key": "a", "value": "x" * 1001}).status == 413
    assert served.last_version == before


def test_large_values_are_not_repeated(alone: Served) -> None:
    receipt = alone("PUT", "/kv/large", {"value": "x" * 5000}).json()
    assert "value" not in receipt
    assert alone("GET", "/kv/large").json()["value"] == "x" * 5000
