"""Bad input: a sentence and a 4xx, never a 500, and nothing changes."""

from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.http.serving import Client, Served

BAD_JSON = [
    b"",
    b"{",
    b"nonsense",
    b'{"value":NaN}',
    b'{"value":Infinity}',
    b'{"value":1e999}',
    b'{"value":-1e999}',
    b'{"value":"\\ud800"}',
    b'{"value":{"\\udfff":1}}',
    b'{"value":' + b"[" * 33 + b"]" * 33 + b"}",
    b'{"value":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    b"[" * 500_000,
    b'{"a":' * 100_000,
    b'{"value":' + b"9" * 10_000 + b"}",
    b'{"value":1,"value":2}',
    b'{"value":{"a":1,"a":2}}',
    b'{"value":1}\x00',
    b'{"value":1} {"value":2}',
    b'\xef\xbb\xbf{"value":1}',
    b'{"value":"\xff"}',
    b'{"value":"\xc0\x80"}',
    '{"value":1}'.encode("utf-16"),
    b'{"Value":1}',
    b'{"value":1,"ttl":5}',
    b"{}",
    b"[]",
    b"null",
    b"5",
    b'"value"',
    b'{"value":1,"encoding":"base64"}',
    b'{"value":"x","encoding":"gzip"}',
]


def assert_refused(served: Served, before: int, status: int, body: bytes) -> None:
    assert 400 <= status < 500
    problem = json.loads(body)
    assert problem["status"] == status
    assert problem["error"] == problem["detail"]
    assert problem["detail"].endswith(".")
    assert served.last_version == before


@pytest.mark.parametrize("body", BAD_JSON, ids=lambda body: repr(body[:40]))
@pytest.mark.parametrize(
    ("method", "path"),
    [("PUT", "/kv/bad"), ("POST", "/set"), ("POST", "/write"), ("POST", "/batch"), ("POST", "/replicate")],
)
def test_bad_json(alone: Served, method: str, path: str, body: bytes) -> None:
    before = alone.last_version
    answer = alone(method, path, body, {"Content-Type": "application/json"})
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert_refused(alone, before, answer.status, answer.body)


@pytest.mark.parametrize("body", BAD_JSON, ids=lambda body: repr(body[:40]))
@pytest.mark.parametrize(("method", "path"), [("PATCH", "/config"), ("POST", "/promote")])
def test_bad_admin_json(alone: Served, method: str, path: str, body: bytes) -> None:
    if body == b"{}":
        return
    before, config = alone.last_version, alone("GET", "/config").json()
    answer = alone(method, path, body, {"Content-Type": "application/json"})
    assert_refused(alone, before, answer.status, answer.body)
    assert alone("GET", "/config").json() == config


@pytest.mark.parametrize(
    "path", ["/kv/", "/kv/%", "/kv/%zz", "/kv/%ff", "/kv/%ed%a0%80", "/kv/" + "a" * 1025, "/kv/" + "%C3%A9" * 513]
)
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "HEAD"])
def test_bad_keys(alone: Served, method: str, path: str) -> None:
    before = alone.last_version
    answer = alone(method, path, {"value": 1} if method == "PUT" else None)
    assert answer.status == 400
    assert alone.last_version == before


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Content-Encoding": "gzip"}, 415),
        ({"Content-Encoding": "identity"}, 200),
        ({"Content-Type": "application/json; charset=latin-1"}, 415),
        ({"If-Match": "nonsense"}, 400),
        ({"Idempotency-Key": "a b"}, 400),
        ({"Idempotency-Key": ""}, 400),
        ({"Host": "evil.example"}, 421),
        ({"Origin": "http://evil.example"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
    ],
)
def test_headers(alone: Served, headers: dict[str, str], status: int) -> None:
    before = alone.last_version
    assert alone("PUT", "/kv/headers", {"value": 1}, headers).status == status
    assert alone.last_version == before + (status == 200)


@pytest.mark.parametrize(
    ("body", "content_type"), [(b"{}", "text/plain"), (b"{}", "application/xml"), (b"{}", "multipart/form-data")]
)
def test_admin_bodies_must_be_json(alone: Served, body: bytes, content_type: str) -> None:
    assert alone("PATCH", "/config", body, {"Content-Type": content_type}).status == 415


def test_unknown_addresses_and_methods(alone: Served) -> None:
    for path in ("/nowhere", "/kvx", "/health/", "//kv", "/KV/a", "/%6bv/a", "/set/a"):
        assert alone("GET", path).status == 404, path
    answer = alone("PATCH", "/kv/a")
    assert (answer.status, answer.headers["Allow"]) == (405, "DELETE, GET, HEAD, OPTIONS, PUT")
    assert alone("TRACE", "/health").status == 405
    options = alone("OPTIONS", "/batch")
    assert (options.status, options.headers["Allow"], options.body) == (204, "OPTIONS, POST", b"")
    assert options.headers["Access-Control-Allow-Origin"] is None


@pytest.mark.parametrize(
    "data",
    [
        b"nonsense\r\n\r\n",
        b"GET /health\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: localhost\r\nbad header\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost : localhost\r\n\r\n",
        b"GET /kv/\xff HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"PUT /kv/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        b"PUT /kv/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999999999999999\r\n\r\n",
        b"PUT /kv/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxy",
        b"PUT /kv/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"PUT /kv/a HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
    ids=repr,
)
def test_what_is_no_http(alone: Served, data: bytes) -> None:
    before = alone.last_version
    answer = alone.client.talk(data)
    assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert b"connection: close" in answer
    assert_refused(alone, before, 400, answer.partition(b"\r\n\r\n")[2])


@pytest.mark.parametrize(
    "head",
    [
        b"GET /health HTTP/1.1\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n",
    ],
)
def test_the_host_header_is_there_once(alone: Served, head: bytes) -> None:
    assert alone.client.talk(head, until_closed=False).startswith(b"HTTP/1.1 400 ")


@given(st.binary(max_size=200))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_bytes_as_a_body(alone: Served, body: bytes) -> None:
    before = alone.last_version
    for method, path in (
        ("PUT", "/kv/any"),
        ("POST", "/batch"),
        ("POST", "/set"),
        ("PATCH", "/config"),
        ("POST", "/promote"),
    ):
        answer = alone(method, path, body, {"Content-Type": "application/json"})
        assert_refused(alone, before, answer.status, answer.body)


@given(st.text(alphabet=st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=60))
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_address(alone: Served, address: str) -> None:
    client = Client(alone.door.port)
    answer = client("GET", "/" + address)
    client.close()
    assert answer.status < 500


@given(st.binary(max_size=300))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_bytes_on_the_wire(alone: Served, data: bytes) -> None:
    before = alone.last_version
    answer = alone.client.talk(data + b"\r\n\r\n\x00\r\n\r\n")
    assert not answer or answer.startswith(b"HTTP/1.1 4")
    assert alone.last_version == before
