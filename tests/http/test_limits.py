"""Slow, huge and many clients, and connections that end in the middle."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from retinue.http import server
from tests.http.serving import Host, Served, read_all, wait_until

HEAD = b"PUT /kv/limits HTTP/1.1\r\nHost: localhost\r\n"
GET = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n"


@contextlib.contextmanager
def connected(served: Served) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", served.door.port), timeout=20) as raw:
        yield raw


def status_of(answer: bytes) -> int:
    return int(answer[9:12])


@pytest.mark.parametrize(
    "data",
    [
        GET + b"X-Long: " + b"a" * 17_000 + b"\r\n\r\n",
        GET + b"X-Endless: " + b"a" * 400_000,
        GET + b"".join(b"X-%d: a\r\n" % number for number in range(3000)) + b"\r\n",
        b"GET /kv/" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /kv/" + b"a" * 400_000,
    ],
    ids=["one long header", "a header without an end", "many headers", "a long address", "an address without an end"],
)
def test_headers_have_a_limit(alone: Served, data: bytes) -> None:
    answer = alone.client.talk(data)
    assert status_of(answer) == 431
    assert b"connection: close" in answer
    assert b"x-content-type-options: nosniff" in answer


def test_headers_below_the_limit_pass(alone: Served) -> None:
    assert alone("GET", "/livez", headers={"X-Long": "a" * 16_000}).status == 200
    assert alone("GET", "/livez?" + "a" * 16_000).status == 200


def test_pipelined_requests_do_not_add_up(alone: Served) -> None:
    request = GET + b"X-Pad: " + b"a" * 3000 + b"\r\n\r\n"
    last = GET + b"Connection: close\r\n\r\n"
    assert alone.client.talk(request * 20 + last).count(b"HTTP/1.1 200 OK") == 21


def test_answers_to_pipelined_requests_keep_their_order(alone: Served) -> None:
    writes = b"".join(
        b"PUT /kv/order HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n%02d" % number for number in range(20)
    )
    answer = alone.client.talk(writes + b"nonsense\r\n\r\n")
    assert [answer.index(b'"value":"%02d"' % number) for number in range(20)] == sorted(
        answer.index(b'"value":"%02d"' % number) for number in range(20)
    )
    assert answer.count(b"HTTP/1.1 200 OK") == 20


@pytest.mark.parametrize(
    "sent",
    [
        b"G",
        GET,
        GET + b"X-Slow: a",
        HEAD + b"Content-Length: 5\r\n\r\nab",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n",
    ],
)
def test_slow_requests_are_given_up(start_leader: Callable[..., Served], sent: bytes) -> None:
    served = start_leader(header_timeout_s=0.3, idle_timeout_s=0.5)
    started_s = time.monotonic()
    answer = served.client.talk(sent)
    assert status_of(answer) == 408
    assert time.monotonic() - started_s > 0.29


def test_a_drip_of_headers_does_not_extend_the_deadline(start_leader: Callable[..., Served]) -> None:
    served = start_leader(header_timeout_s=0.5)
    with connected(served) as raw:
        raw.sendall(GET)
        started_s = time.monotonic()
        with contextlib.suppress(OSError):
            while time.monotonic() - started_s < 10:
                raw.sendall(b"X-A: b\r\n")
                time.sleep(0.05)
                raw.settimeout(0.01)
                with contextlib.suppress(TimeoutError):
                    if not raw.recv(1, socket.MSG_PEEK):
                        break
                    break
        assert time.monotonic() - started_s < 5


def test_quiet_connections_are_closed(start_leader: Callable[..., Served]) -> None:
    served = start_leader(idle_timeout_s=0.3)
    with connected(served) as raw:
        assert read_all(raw) == b""
    with connected(served) as raw:
        raw.sendall(GET + b"\r\n")
        assert read_all(raw).startswith(b"HTTP/1.1 200 OK")
    wait_until(lambda: not served.door.connections)


def test_bodies_are_refused_before_they_are_read(alone: Served) -> None:
    with connected(alone) as raw:
        raw.sendall(HEAD + b"Content-Length: 999999999\r\n\r\n")
        assert status_of(raw.recv(65_536)) == 413


def test_bodies_without_a_length_are_refused_while_they_are_read(alone: Served) -> None:
    chunk = b"10000\r\n" + b"a" * 65_536 + b"\r\n"
    before = alone.last_version
    with connected(alone) as raw:
        raw.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
        for _ in range(32):
            raw.sendall(chunk)
        raw.sendall(b"0\r\n\r\n")
        assert status_of(raw.recv(65_536)) == 413
        raw.sendall(GET + b"\r\n")
        assert status_of(raw.recv(65_536)) == 200
    assert alone.last_version == before


@pytest.mark.parametrize("ending", [b"Connection: close\r\n", b""], ids=["close", "keep open"])
def test_whoever_sends_too_much_gets_to_read_why(alone: Served, ending: bytes) -> None:
    size = 20_000_000
    with connected(alone) as raw:
        raw.sendall(HEAD + ending + b"Content-Length: %d\r\n\r\n" % size)
        for _ in range(20):
            raw.sendall(b"a" * (size // 20))
        assert status_of(raw.recv(65_536)) == 413
        if ending:
            assert raw.recv(65_536) == b""
        else:
            raw.sendall(GET + b"\r\n")
            assert status_of(raw.recv(65_536)) == 200


def test_what_follows_a_last_request_is_not_done(alone: Served) -> None:
    before = alone.last_version
    body = b"a" * 2_000_000
    first = HEAD + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body)
    alone.client.talk(first + body + HEAD + b"Content-Length: 1\r\n\r\na")
    assert alone.last_version == before


def test_an_endless_body_ends_with_the_connection(alone: Served) -> None:
    with connected(alone) as raw, contextlib.suppress(OSError):
        raw.sendall(HEAD + b"Content-Length: 900000000\r\n\r\n")
        for _ in range(900):
            raw.sendall(b"a" * 1_000_000)
        pytest.fail("900 MB were taken")


def test_expectations(alone: Served) -> None:
    with connected(alone) as raw:
        raw.sendall(HEAD + b"Content-Length: 3\r\nExpect: 100-continue\r\n\r\n")
        assert raw.recv(65_536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        raw.sendall(b"abc")
        assert status_of(raw.recv(65_536)) == 200
    refused = alone.client.talk(HEAD + b"Content-Length: 999999999\r\nExpect: 100-continue\r\n\r\n")
    assert status_of(refused) == 413
    assert b"connection: close" in refused


def test_upgrades_are_ignored(alone: Served) -> None:
    answer = alone.client.talk(
        GET + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n\r\n"
    )
    assert status_of(answer) == 200
    write = HEAD + b"Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 3\r\n\r\nabc"
    before = alone.last_version
    assert status_of(alone.client.talk(write)) == 400
    assert alone.last_version == before


def test_http_1_0(alone: Served) -> None:
    answer = alone.client.talk(b"GET /livez HTTP/1.0\r\n\r\n")
    assert status_of(answer) == 200


def test_an_absolute_address(alone: Served) -> None:
    answer = alone.client.talk(b"GET http://localhost/livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    assert status_of(answer) == 200


def test_a_body_that_breaks_off_changes_nothing(alone: Served) -> None:
    before, held = alone.last_version, alone.door.connections
    with connected(alone) as raw:
        raw.sendall(HEAD + b"Content-Length: 10\r\n\r\nabc")
        wait_until(lambda: alone.door.connections > held)
    wait_until(lambda: alone.door.connections == held)
    assert alone.last_version == before


def test_too_many_connections(start_leader: Callable[..., Served]) -> None:
    served = start_leader(max_connections=3)
    served.client.close()
    wait_until(lambda: not served.door.connections)
    with contextlib.ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(connected(served))
        wait_until(lambda: served.door.connections == 3)
        with connected(served) as raw:
            raw.sendall(HEAD + b"Content-Length: 1\r\n\r\na")
            answer = read_all(raw)
            assert status_of(answer) == 429
            assert b"retry-after: 1" in answer
        with connected(served) as raw:
            raw.sendall(GET + b"\r\n")
            assert status_of(read_all(raw)) == 200
        for _ in range(60):
            stack.enter_context(connected(served))
        wait_until(lambda: served.door.connections == 35)
    assert served("GET", "/health").status == 200


def test_too_many_bytes_in_bodies(start_leader: Callable[..., Served]) -> None:
    served = start_leader(max_pending_bytes=200_000)
    with connected(served) as raw:
        raw.sendall(HEAD + b"Content-Length: 190000\r\n\r\n" + b"a" * 150_000)
        wait_until(lambda: served.door.app.held_bytes > 100_000)
        answer = served("PUT", "/kv/a", b"a" * 100_000)
        assert (answer.status, answer.headers["Retry-After"]) == (429, "1")
        assert served("GET", "/health").status == 200
        assert served("PUT", "/kv/a", b"a").status == 200
        raw.sendall(b"a" * 40_000)
        assert status_of(raw.recv(65_536)) == 200
    wait_until(lambda: served.door.app.held_bytes == 0)


def test_a_client_that_does_not_read_is_dropped(start_leader: Callable[..., Served]) -> None:
    served = start_leader(idle_timeout_s=0.5)
    for number in range(30):
        served("PUT", f"/kv/{number}", b"a" * 1_000_000)
    served.client.close()
    with connected(served) as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.sendall(b"GET /dump HTTP/1.1\r\nHost: localhost\r\n\r\n")
        wait_until(lambda: served.door.connections > 0)
        wait_until(lambda: not served.door.connections)


def test_a_client_that_pipelines_and_does_not_read_is_dropped_without_a_fault(
    start_leader: Callable[..., Served], caplog: pytest.LogCaptureFixture
) -> None:
    served = start_leader(idle_timeout_s=0.5)
    served("PUT", "/kv/large", b"a" * 1_000_000)
    served.client.close()
    with connected(served) as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.sendall(b"GET /kv/large HTTP/1.1\r\nHost: localhost\r\nX-Way: long\r\n\r\n" * 12)
        wait_until(lambda: served.door.connections > 0)
        wait_until(lambda: not served.door.connections)
    assert caplog.records == []


def test_a_stop_does_not_wait_for_a_body_for_ever_and_is_no_fault(
    host: Host, start_leader: Callable[..., Served], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "STOP_GRACE_S", 0.2)
    served = start_leader()
    with connected(served) as raw:
        raw.sendall(HEAD + b"Content-Length: 10\r\n\r\nhalf")
        wait_until(lambda: served.door.app.held_bytes == 4)
        host.run(served.door.stop())
        assert read_all(raw) == b""
    assert caplog.records == []


def test_a_client_that_reads_slowly_gets_everything(start_leader: Callable[..., Served]) -> None:
    served = start_leader()
    for number in range(20):
        served("PUT", f"/kv/{number}", b"a" * 1_000_000)
    with connected(served) as raw:
        raw.sendall(b"GET /dump HTTP/1.0\r\n\r\n")
        time.sleep(0.2)
        answer = read_all(raw)
    assert len(json.loads(answer.partition(b"\r\n\r\n")[2])) == 20


def test_streams_pause_for_a_slow_client(start_leader: Callable[..., Served]) -> None:
    served = start_leader()
    for start in range(0, 6000, 1000):
        writes = [{"key": f"{number}", "value": "v" * 2000} for number in range(start, start + 1000)]
        assert served("POST", "/batch", {"writes": writes}).status == 200
    for version, chunked in ((b"1.0", False), (b"1.1", True)):
        with connected(served) as raw:
            raw.sendall(b"GET /dump HTTP/" + version + b"\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            time.sleep(0.2)
            head, _, body = read_all(raw).partition(b"\r\n\r\n")
        assert (b"transfer-encoding: chunked" in head) is chunked
        if not chunked:
            assert len(json.loads(body)) == 6000
        assert body.count(b'"version"') == 6000


def test_other_transfer_codings_are_refused(alone: Served) -> None:
    before = alone.last_version
    with connected(alone) as raw:
        raw.sendall(HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
        assert status_of(raw.recv(65_536)) == 415
    assert alone.last_version == before


def test_requests_at_once(alone: Served) -> None:
    statuses: list[int] = []

    def write(number: int) -> None:
        answer = alone.client.talk(HEAD + b"Connection: close\r\nContent-Length: 2\r\n\r\n%02d" % number)
        statuses.append(status_of(answer))

    before = alone.last_version
    threads = [threading.Thread(target=write, args=(number,)) for number in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [200] * 40
    assert alone.last_version == before + 40
