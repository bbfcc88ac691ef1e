"""The short cut for plain requests: taken where it may be, nowhere else, and nobody can tell by the answers."""

from __future__ import annotations

import string
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import settings as campaign
from hypothesis import strategies as st

from retinue.http.answer import BYTES
from retinue.http.shortcut import BLOCK_LIMIT_BYTES, BODY_LIMIT_BYTES
from retinue.ports import free_ports
from retinue.settings import Settings
from tests.http.lines import (
    BODY,
    GET,
    HOST,
    PLAIN,
    PUT,
    assert_twins,
    comparable,
    in_flight,
    line_to,
    request,
    status_of,
    the_long_way,
)
from tests.http.serving import Cluster, Host, Served, wait_until

KEY_BYTES = (string.ascii_letters + string.digits + "._~:@!$&'()*+,;=/-").encode()


def test_every_byte_of_a_key(alone: Served) -> None:
    for byte in range(256):
        key = b"k%ck" % byte
        for method in (b"PUT", b"GET"):
            assert assert_twins(alone, request(method, key)) == (byte in KEY_BYTES), (method, key)


@pytest.mark.parametrize(
    ("key", "short"),
    [
        *[(key, True) for key in (b"..", b"../status", b"a//b/", b"/", b"*", b"a+b", b"k" * 255)],
        *[(key, False) for key in (b"", b"k" * 256, b"k" * 1024, b"k" * 1025, b"%61", b"%", b"%2", b"%00", b"%FF")],
        *[(key, False) for key in (b"a?w=0", b"a?read=strong", b"a#b", "\u00e9".encode(), b"a HTTP/1.1\r\nA:")],
    ],
)
@pytest.mark.parametrize("method", [b"PUT", b"GET"])
def test_keys(alone: Served, method: bytes, key: bytes, short: bool) -> None:
    assert assert_twins(alone, request(method, key)) == short


TEXTS = (b"", b"abc", b"a\x7fb", b"'{}[]:,", "\u00e9\u2028\u4e16\U0001f600\ufeff".encode(), b"NaN", b"%00")
NUMBERS = (b"0", b"7", b"-1", b"1" * 15, b"-" + b"9" * 15)
OTHERS = (
    *[b"-0", b"00", b"01", b"-01", b"1e3", b"1E3", b"1.0", b"0.10", b"+1", b"0x1", b"1" * 16, b"-" + b"1" * 16, b".5"],
    *[b"NaN", b"Infinity", b"1e999", b"true", b"null", b"[]", b"{}", b"[1]", b'{"value":"a"}', b"'a'", b"1 ", b""],
    *[rb'"\n"', rb'"\u0041"', rb'"\ud800"', rb'"\""', b'"\\"', b'"a\x00b"', b'"a\x1fb"', b'"a\nb"', b'"a', b'"a"b"'],
    *[b'"\xff"', b'"\xc0\x80"', b'"\xed\xa0\x80"', b'"\xe4\xb8"', b'"a","b":"c"', b'"a","value":"b"'],
    b'"YQ==","encoding":"base64"',
)


@pytest.mark.parametrize(
    ("body", "short"),
    [
        *[(b'{"value":"%b"}' % text, True) for text in TEXTS],
        *[(b'{"value": %b}' % number, True) for number in NUMBERS],
        *[(b'{"value":%b}' % other, False) for other in OTHERS],
        *[(bad, False) for bad in (b"", b"{}", b"nonsense", BODY + b"\n", b" " + BODY, b"\xef\xbb\xbf" + BODY)],
        *[(bad, False) for bad in (BODY + b"}", BODY[:-1], b'{"Value":"a"}', b'{"value":  "a"}', b'{"value" :"a"}')],
        (b'{"value":"%b"}' % (b"v" * (BODY_LIMIT_BYTES - 12)), True),
        (b'{"value":"%b"}' % (b"v" * (BODY_LIMIT_BYTES - 11)), False),
    ],
    ids=lambda given: repr(given[:30]) if isinstance(given, bytes) else "",
)
def test_bodies(alone: Served, body: bytes, short: bool) -> None:
    assert assert_twins(alone, request(b"PUT", body=body)) == short


@pytest.mark.parametrize(
    ("kind", "short"),
    [
        (BYTES, True),
        (b"text/plain", True),
        (b"text/plain; charset=utf-8", False),
        (b"Application/JSON", False),
        (b"application/json; charset=utf-8", False),
        (b"application/x+json", False),
        (b"image/png", False),
        (b"", False),
    ],
)
@pytest.mark.parametrize(
    "body", [b"", BODY, b"\xff\x00\r\n\r\n", request(b"PUT"), b"v" * BODY_LIMIT_BYTES], ids=lambda body: repr(body[:20])
)
def test_kinds_of_bodies(alone: Served, kind: bytes, short: bool, body: bytes) -> None:
    assert assert_twins(alone, request(b"PUT", body=body, kind=kind)) == short


SHORT_HEADERS = (
    b"Host: localhost",
    b"HOST:localhost",
    b"host:\t LocalHost:80 \t",
    b"Host: 127.0.0.1:1",
    b"Host: [::1]",
    *[HOST + line for line in (b"Connection: Keep-Alive", b"accept:application/json", b"Accept-Encoding: gzip, br")],
    *[HOST + line for line in (b"User-Agent: \xff\x80", b"User-Agent: PUT /kv/x HTTP/1.1", b"User-Agent:")],
    HOST + b"User-Agent: " + b"u" * (BLOCK_LIMIT_BYTES - 100),
)
LONG_HEADERS = (
    *[b"Host:", b"Host: evil.example", b"Host: localhost, evil.example", b"Host : localhost", b"User-Agent: no host"],
    *[HOST + line for line in (b"Host: localhost", b"Accept: */*\r\nAccept: */*", b"User-Agent: a\r\n b", b": a")],
    *[
        HOST + line
        for line in (b"User-Agent: a\nb: c", b"User-Agent: a\rb", b"User-Agent: a\x00b", b"\nA: b", b"A: b\n")
    ],
    *[HOST + b"Connection: " + what for what in (b"close", b"keep-alive, close", b"Upgrade\r\nUpgrade: h2c", b"x")],
    *[HOST + b"Accept: " + what for what in (b"application/octet-stream", b"text/html", b"*/*, text/html", b"")],
    *[HOST + line for line in (b"Origin: http://evil.example", b"Sec-Fetch-Site: cross-site", b"Range: bytes=0-")],
    *[
        HOST + line
        for line in (b"If-None-Match: *", b'If-Match: "9"', b"Idempotency-Key: \xff", b"Idempotency-Key: a b")
    ],
    *[HOST + line for line in (b"Authorization: Bearer x", b"Expect: 100-continue", b"Content-Encoding: gzip")],
    *[HOST + b"Transfer-Encoding: " + coding for coding in (b"gzip", b"identity")],
    *[HOST + b"User-Agent: " + b"u" * size for size in (BLOCK_LIMIT_BYTES, 16_250, 17_000)],
)


@pytest.mark.parametrize(
    ("headers", "short"),
    [*[(headers, True) for headers in SHORT_HEADERS], *[(headers, False) for headers in LONG_HEADERS]],
    ids=lambda given: repr(given[-30:]) if isinstance(given, bytes) else "",
)
@pytest.mark.parametrize("key", [b"twin", b"k" * 255], ids=["short key", "long key"])
@pytest.mark.parametrize("method", [b"PUT", b"GET"])
def test_headers(alone: Served, method: bytes, key: bytes, headers: bytes, short: bool) -> None:
    assert assert_twins(alone, request(method, key, headers)) == short


@pytest.mark.parametrize(
    "data",
    [
        *[request(method) for method in (b"HEAD", b"OPTIONS", b"POST", b"get", b" GET", b"GET ")],
        *[request(b"GET").replace(b"HTTP/1.1", other) for other in (b"HTTP/1.0", b"HTTP/1.2", b"http/1.1")],
        *[request(b"GET").replace(b"/kv/", other) for other in (b"http://localhost/kv/", b"//kv/", b"/KV/")],
        *[request(b"GET", headers=HOST + b"Content-Length: " + length) for length in (b"0", b"00")],
        request(b"GET").replace(b"twin HTTP/1.1\r", b"twin HTTP/1.1"),
        b"\r\n" + request(b"GET"),
        request(b"GET", body=BODY),
        request(b"PUT", body=b"v" * (BODY_LIMIT_BYTES + 1), kind=BYTES),
        *[request(b"PUT").replace(b": 15", length) for length in (b": +15", b": 15, 15", b": 1_5", b": 15 5")],
        request(b"PUT").replace(b"Content-Type: application/json\r\n", b""),
    ],
    ids=lambda data: repr(data[:26] + data[-46:]),
)
def test_other_requests(alone: Served, data: bytes) -> None:
    assert not assert_twins(alone, data)


STARTS = (b"POST /kv/", b"HEAD /kv/", b"DELETE /kv", b"PATCH /kv", b"PUT /get/", b"GET /get/", b"put /kv/", b"BAD /kv/")


@pytest.mark.parametrize("start", [*STARTS, b"PUT /kv/", b"GET /kv/"])
@pytest.mark.parametrize("taught", [PUT, GET], ids=["PUT", "GET"])
def test_known_headers_on_another_request(alone: Served, taught: bytes, start: bytes) -> None:
    data = start + taught[len(start) :]
    with line_to(alone, taught) as line, line_to(alone) as long:
        answer, short = line.ask(data)
        assert short == (data == taught)
        if not start.startswith(b"HEAD"):
            assert comparable(answer) == comparable(long.ask(the_long_way(data))[0])


_keys = st.one_of(
    st.text(KEY_BYTES.decode(), min_size=1, max_size=20).map(str.encode),
    st.lists(st.sampled_from([b"a", b"/", b"..", b"%41", b"%", b"?", b" ", b"\xc3\xa9"]), max_size=5).map(b"".join),
)
_values = st.one_of(
    st.text(max_size=10).map(lambda text: b'"%b"' % text.encode("utf-8", "surrogatepass")),
    st.integers(-(10**17), 10**17).map(lambda number: b"%d" % number),
    st.text("0123456789-+.eE", max_size=6).map(str.encode),
    st.binary(max_size=8).map(lambda raw: b'"%b"' % raw),
)
_lines = st.lists(
    st.sampled_from(
        [
            *[b"Host: localhost", b"host:localhost", b"Host: evil", b"User-Agent: a", b"user-agent: ", b"Accept: */*"],
            *[b"ACCEPT:application/json", b"Connection: keep-alive", b"Connection: close", b"X: y", b" a: b"],
        ]
    ),
    max_size=4,
    unique=True,
).map(lambda lines: b"\r\n".join([b"Host: localhost", *lines]))
_headers = st.one_of(st.just(PLAIN), _lines)


@campaign(max_examples=120, deadline=None)
@given(st.sampled_from([b"PUT", b"GET"]), _keys, st.sampled_from([b"", b" "]), _values, _headers)
def test_made_requests(alone: Served, method: bytes, key: bytes, gap: bytes, value: bytes, headers: bytes) -> None:
    assert_twins(alone, request(method, key, headers, b'{"value":%b%b}' % (gap, value) if method == b"PUT" else None))


# --- other nodes ---


def test_a_follower(cluster: Cluster) -> None:
    assert assert_twins(cluster.leader, PUT)
    wait_until(lambda: cluster.followers[0]("GET", "/kv/twin").json()["committed"])
    assert assert_twins(cluster.leader, GET)
    assert assert_twins(cluster.followers[0], GET)
    assert assert_twins(cluster.followers[0], PUT)
    assert assert_twins(cluster.followers[1], request(b"GET", b"never-there"))


def test_a_leader_shows_what_is_committed(own_cluster: Cluster) -> None:
    leader = own_cluster.leader
    with line_to(leader, PUT) as writer, line_to(leader, GET) as reader:
        assert status_of(writer.ask(PUT)[0]) == 200
        assert leader("PATCH", "/config", {"min_delay_ms": 10_000, "max_delay_ms": 10_000}).status == 200
        before = leader.last_version
        writer.begin(request(b"PUT", body=b'{"value":"new"}'))
        wait_until(lambda: leader.last_version > before)
        answer, short = reader.ask(GET)
        assert short
        assert b'"value":"abc"' in answer


def test_simulated_delays_are_told(own_cluster: Cluster) -> None:
    assert own_cluster.leader("PATCH", "/config", {"min_delay_ms": 1, "max_delay_ms": 1}).status == 200
    assert assert_twins(own_cluster.leader, PUT)
    with line_to(own_cluster.leader, PUT) as line:
        answer, short = line.ask(PUT)
        assert short
        assert answer.count(b'"delays_ms":{"follower') == 1
    assert not own_cluster.leader.node.driver.delays_ms


def test_a_leader_that_does_not_serve(host: Host) -> None:
    ports = free_ports(3)
    absent = tuple(f"http://127.0.0.1:{port}" for port in ports[1:])
    served = host.start(Settings(port=ports[0], followers=absent, memory=True))
    try:
        assert assert_twins(served, PUT)
        assert assert_twins(served, GET)
        with line_to(served, PUT) as line:
            assert status_of(line.ask(PUT)[0]) == 503
    finally:
        host.stop(served)


@pytest.mark.parametrize("size", [19, 20, 21])
def test_the_largest_value(start_leader: Callable[..., Served], size: int) -> None:
    served = start_leader(value_limit_bytes=20)
    data = request(b"PUT", body=b'{"value":"%b"}' % (b"v" * size))
    assert assert_twins(served, data)
    assert assert_twins(served, request(b"PUT", body=b"v" * size, kind=BYTES)) == (size <= 20)
    with line_to(served, data) as line:
        assert status_of(line.ask(data)[0]) == (413 if size > 20 else 200)


@pytest.mark.parametrize(("data", "broken"), [(GET, "read_now"), (PUT, "receipt"), (PUT, "_refuse_overload")])
def test_a_fault_is_told_without_its_details(
    start_leader: Callable[..., Served], monkeypatch: pytest.MonkeyPatch, data: bytes, broken: str
) -> None:
    served = start_leader()

    def fail(*_: object) -> None:
        raise RuntimeError("a fault with a secret in it")

    with line_to(served, data) as line:
        monkeypatch.setattr(served.node, broken, fail)
        answer, short = line.ask(data)
        assert (status_of(answer), short) == (500, True)
        assert b"secret" not in answer
        assert assert_twins(served, data)
        monkeypatch.undo()
        assert line.ask(data)[1]
        assert (in_flight(served), served.door.app.held_bytes) == (0, 0)
