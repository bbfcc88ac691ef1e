"""The short cut while something is under way: order, limits, clients that leave, stops, what is counted."""

from __future__ import annotations

import asyncio
import re
import socket
import struct
import threading
from collections.abc import Callable, Iterator

import pytest

from retinue import commits
from retinue.http.answer import BYTES
from retinue.http.shortcut import KNOWN_HEADS
from tests.http.lines import (
    BODY,
    GET,
    HOST,
    PUT,
    assert_twins,
    comparable,
    in_flight,
    line_to,
    request,
    status_of,
    the_long_way,
)
from tests.http.serving import WAIT_S, Host, Secured, Served, wait_until

LIVE = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"
TOO_LARGE = request(b"PUT", body=b'{"value":"%b"}' % (b"v" * 21))
HELD_LIMIT_BYTES = 256 << 10


class SlowDisk:
    """A leader without followers whose disk ends no sync while `let_through` is clear."""

    def __init__(self, served: Served, let_through: threading.Event) -> None:
        self.served = served
        self.let_through = let_through


@pytest.fixture
def start_slow(
    start_leader: Callable[..., Served], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., SlowDisk]]:
    """Starts leaders whose disk can be held up."""
    monkeypatch.setattr(commits, "SLOW_SYNC_MS", -1.0)
    let_through = threading.Event()

    def start(**changes: object) -> SlowDisk:
        let_through.set()
        served = start_leader(**changes)
        store = served.node.driver.store
        commit = store.commit

        def commit_when_let(saves: object) -> None:
            let_through.wait(WAIT_S)
            commit(saves)  # type: ignore[arg-type]

        monkeypatch.setattr(store, "commit", commit_when_let)
        return SlowDisk(served, let_through)

    yield start
    let_through.set()


def put(number: int) -> bytes:
    return request(b"PUT", body=b'{"value":%d}' % number)


def turn(host: Host, count: int = 20) -> None:
    """Let the node's event loop take what has come."""
    for _ in range(count):
        host.run(asyncio.sleep(0.001))


def counts(served: Served) -> dict[str, float]:
    """What the door has counted on keys: requests by route, method and status, and durations."""
    lines = served.door.registry.render().decode().splitlines()
    found = (line.rpartition(" ") for line in lines if re.search(r"_total{|_seconds_count{", line) and "/kv/" in line)
    return {name: float(value) for name, _, value in found}


def new_counts(served: Served, before: dict[str, float]) -> dict[str, float]:
    now = counts(served)
    return {name: now[name] - before.get(name, 0) for name in now if now[name] != before.get(name, 0)}


# --- what may take it ---


def test_an_unknown_header_block_goes_the_whole_way(alone: Served) -> None:
    with line_to(alone) as line:
        other = request(b"PUT", headers=HOST[:-2])
        assert [line.ask(data)[1] for data in (PUT, PUT, GET, GET, other, other, put(12), GET)] == [
            *(False, True, False, True),
            *(False, True, True, True),
        ]
    with line_to(alone, GET) as line:
        assert not line.ask(PUT)[1]


def test_a_connection_remembers_few_header_blocks(alone: Served) -> None:
    with line_to(alone) as line:
        blocks = [HOST + b"User-Agent: %d" % number for number in range(3 * KNOWN_HEADS)]
        for block in blocks:
            line.learn(request(b"GET", headers=block), request(b"PUT", headers=block))
        assert len(line.end._known_heads.gets) + len(line.end._known_heads.puts) == KNOWN_HEADS
        assert line.ask(request(b"PUT", headers=blocks[0]))[1]
        assert not line.ask(request(b"PUT", headers=blocks[-1]))[1]


@pytest.mark.parametrize("data", [PUT, GET])
def test_tokens_close_it(secured: Secured, data: bytes) -> None:
    with line_to(secured.served, data, data) as line:
        for _ in range(3):
            answer, short = line.ask(data)
            assert (status_of(answer), short) == (401, False)


def test_a_reserve_connection_answers_nothing_but_probes(start_leader: Callable[..., Served]) -> None:
    served = start_leader(max_connections=1)
    with line_to(served) as line:
        assert status_of(line.ask(PUT + PUT + GET)[0]) == 429
        assert line.read() == b""


def test_a_read_waits_for_what_is_not_durable_yet(start_slow: Callable[..., SlowDisk]) -> None:
    slow = start_slow()
    with line_to(slow.served, PUT, PUT) as writer, line_to(slow.served, GET) as reader:
        assert status_of(writer.ask(put(100))[0]) == 200
        assert reader.ask(GET)[1]
        slow.let_through.clear()
        writer.learn(put(200))
        writer.begin(put(200))
        wait_until(lambda: slow.served.node.driver.unsettled)
        before = reader.end.cycle
        reader.send(GET)
        wait_until(lambda: reader.end.cycle is not before)
        slow.let_through.set()
        assert b'"value":200' in reader.read()
        assert status_of(writer.read()) == 200


# --- writes that are refused, or late ---


def test_bodies_count_against_the_budget(start_slow: Callable[..., SlowDisk]) -> None:
    slow = start_slow(max_pending_bytes=40)
    served = slow.served
    with line_to(served, PUT) as first, line_to(served, PUT) as second, line_to(served, PUT) as third:
        slow.let_through.clear()
        first.begin(PUT)
        second.begin(PUT)
        assert served.door.app.held_bytes == 2 * len(BODY)
        answer, short = third.ask(PUT)
        assert (status_of(answer), short) == (429, True)
        assert assert_twins(served, request(b"PUT", body=b'{"value":"abc"}'))
        slow.let_through.set()
        assert [status_of(line.read()) for line in (first, second)] == [200, 200]
    wait_until(lambda: served.door.app.held_bytes == 0)


def test_too_many_writes_wait(start_slow: Callable[..., SlowDisk]) -> None:
    slow = start_slow(max_pending_writes=1)
    with line_to(slow.served, PUT) as line:
        slow.let_through.clear()
        line.begin(PUT)
        assert assert_twins(slow.served, PUT)
        with line_to(slow.served, PUT) as other:
            answer, short = other.ask(PUT)
            assert (status_of(answer), short) == (429, True)
        slow.let_through.set()
        assert status_of(line.read()) == 200


def test_a_deadline_that_passes(start_slow: Callable[..., SlowDisk]) -> None:
    slow = start_slow(write_timeout_ms=1000.0)
    served = slow.served
    with line_to(served, PUT, GET) as short, line_to(served) as long:
        slow.let_through.clear()
        short.begin(PUT)
        long.send(the_long_way(PUT))
        answers = [short.read(), long.read()]
        assert [status_of(answer) for answer in answers] == [504, 504]
        assert b'"outcome":"unknown"' in answers[0]
        assert comparable(answers[0]) == comparable(answers[1])
        assert in_flight(served) == 0
        slow.let_through.set()
        wait_until(lambda: served("GET", "/kv/twin").status == 200)
        # The write came through, and nobody is told a second time.
        assert b'"key":"twin"' in short.ask(GET)[0]


# --- order and pieces ---


@pytest.mark.parametrize("data", [PUT, GET], ids=["PUT", "GET"])
def test_a_request_in_two_pieces(host: Host, alone: Served, data: bytes) -> None:
    with line_to(alone, PUT, GET, data) as line:
        line.ask(PUT)
        for cut in range(1, len(data)):
            line.send(data[:cut])
            turn(host, 1)
            line.send(data[cut:])
            answer = line.read()
            assert status_of(answer) == 200
            assert b'"value":"abc"' in answer


@pytest.mark.parametrize("more", [GET, put(1), the_long_way(GET), b"G", PUT[:-1], b"nonsense\r\n\r\n", b"\r\n"])
@pytest.mark.parametrize("first", [PUT, GET], ids=["PUT", "GET"])
def test_two_requests_in_a_packet_go_the_whole_way(alone: Served, first: bytes, more: bytes) -> None:
    with line_to(alone, PUT, GET, put(1)) as line:
        line.ask(PUT)
        before = line.end.cycle
        line.send(first + more)
        assert status_of(line.read()) == 200
        assert line.end.cycle is not before


def test_a_request_inside_a_header_is_none(alone: Served) -> None:
    with line_to(alone, PUT) as line:
        before = alone.last_version
        line.send(LIVE[:-2] + b"X-Inside: ")
        wait_until(lambda: line.end._in_head)
        line.send(PUT)
        # What looked like its headers are a second copy of those before.
        assert status_of(line.read()) == 400
        assert alone.last_version == before


def test_a_request_inside_a_body_is_none(host: Host, alone: Served) -> None:
    with line_to(alone, PUT) as line:
        before = alone.last_version
        line.send(LIVE[:-2] + b"Content-Length: %d\r\n\r\n" % len(PUT))
        assert status_of(line.read()) == 200
        line.send(PUT)
        turn(host)
        assert b'"key"' not in line.ask(LIVE)[0]
        assert alone.last_version == before


def test_answers_keep_the_order_of_requests(host: Host, start_slow: Callable[..., SlowDisk]) -> None:
    slow = start_slow()
    with line_to(slow.served, PUT, GET, put(1)) as line:
        slow.let_through.clear()
        line.begin(put(1))
        for data in (LIVE, GET, put(2), the_long_way(GET), PUT, GET):
            line.send(data)
            turn(host, 2)
        slow.let_through.set()
        answers = [line.read() for _ in range(7)]
        assert [status_of(answer) for answer in answers] == [200] * 7
        values = [re.findall(rb'"value":"?(\w+)', answer) for answer in answers]
        assert values == [[b"1"], [], [b"1"], [b"2"], [b"2"], [b"abc"], [b"abc"]]


def test_a_write_does_not_overtake_one_on_the_whole_way(host: Host, start_slow: Callable[..., SlowDisk]) -> None:
    slow = start_slow()
    with line_to(slow.served, PUT) as other, line_to(slow.served, put(1)) as line:
        slow.let_through.clear()
        # The two come into one group commit, behind this one.
        other.begin(PUT)
        wait_until(lambda: slow.served.node.driver.unsettled)
        line.send(the_long_way(put(1)))
        wait_until(lambda: in_flight(slow.served) == 2)
        line.send(put(2))
        turn(host)
        slow.let_through.set()
        assert b'"value":1}' in line.read()
        assert b'"value":2}' in line.read()


def test_what_waits_behind_a_write_is_bounded(host: Host, start_slow: Callable[..., SlowDisk]) -> None:
    slow = start_slow()
    size_bytes = 8 << 20
    with line_to(slow.served, PUT, GET) as line:
        slow.let_through.clear()
        line.begin(PUT)
        huge = request(b"PUT", body=b"v" * size_bytes, kind=BYTES)
        sender = threading.Thread(target=line.send, args=(huge,))
        sender.start()
        wait_until(lambda: line.end._held != b"")
        turn(host, 100)
        assert len(line.end._held) <= HELD_LIMIT_BYTES
        slow.let_through.set()
        assert [status_of(line.read()) for _ in range(2)] == [200, 413]
        sender.join()
        assert status_of(line.ask(GET)[0]) == 200


def test_answers_wait_for_a_client_that_does_not_read(start_leader: Callable[..., Served]) -> None:
    served = start_leader()
    served("PUT", "/kv/twin", b"v" * 1_000_000)
    with line_to(served, GET) as line:
        asked = 0
        while not line.end.flow.write_paused:
            done = served.door._state.total_requests
            line.send(GET)
            asked += 1
            wait_until(lambda done=done: served.door._state.total_requests > done)  # type: ignore[misc]
        before, held_bytes = line.end.cycle, line.end.transport.get_write_buffer_size()
        line.send(GET)
        wait_until(lambda: line.end.cycle is not before)
        assert line.end.transport.get_write_buffer_size() <= held_bytes
        assert [len(line.read()) > 1_000_000 for _ in range(asked + 1)] == [True] * (asked + 1)


# --- clocks and ends ---


def test_deadlines(start_slow: Callable[..., SlowDisk]) -> None:
    slow = start_slow()
    with line_to(slow.served, PUT, GET) as line:
        learnt_s = line.end.deadline_s
        assert learnt_s is not None
        wait_until(lambda: line.ask(GET)[1] and line.end.deadline_s != learnt_s)
        quiet_s = line.end.deadline_s
        assert quiet_s is not None
        assert quiet_s > learnt_s
        slow.let_through.clear()
        line.begin(PUT)
        assert line.end.deadline_s is None
        slow.let_through.set()
        line.read()
        wait_until(lambda: line.end.deadline_s is not None and line.end.deadline_s > quiet_s)


@pytest.mark.parametrize("behind", [b"", GET, b"GET /kv"], ids=["nothing behind", "a request", "half a request"])
@pytest.mark.parametrize("reset", [False, True], ids=["end", "reset"])
def test_a_client_that_leaves(host: Host, start_slow: Callable[..., SlowDisk], behind: bytes, reset: bool) -> None:
    slow = start_slow()
    served = slow.served
    before = counts(served)
    with line_to(served, PUT) as line:
        slow.let_through.clear()
        line.begin(PUT)
        if behind:
            line.send(behind)
            wait_until(lambda: line.end._held == behind)
        if reset:
            line.raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    turn(host)
    assert in_flight(served) == 1
    slow.let_through.set()
    wait_until(lambda: in_flight(served) == 0)
    wait_until(lambda: line.end not in served.door._state.connections)
    assert served("GET", "/kv/twin").status == 200
    assert new_counts(served, before)['retinue_http_requests_total{route="/kv/{key}",method="PUT",status="200"}'] == 1


def test_a_stop_lets_a_write_finish(host: Host, start_slow: Callable[..., SlowDisk]) -> None:
    slow = start_slow()
    served = slow.served
    with line_to(served, PUT, PUT) as line, line_to(served, GET) as quiet:
        slow.let_through.clear()
        line.begin(PUT)
        line.send(put(2))
        stopping = asyncio.run_coroutine_threadsafe(served.door.stop(), host._loop)
        assert quiet.read() == b""
        slow.let_through.set()
        answer = line.read()
        assert status_of(answer) == 200
        assert b"connection: close\r\n\r\n" in answer
        assert line.read() == b""
        stopping.result(WAIT_S)
    assert served.node.replica.log.newest("twin").value == b"abc"  # type: ignore[union-attr]


# --- what is counted ---


@pytest.mark.parametrize(
    ("data", "status"),
    [(PUT, 200), (GET, 200), (request(b"GET", b"never-there"), 404), (TOO_LARGE, 413)],
    ids=["PUT", "GET", "absent", "too large"],
)
def test_both_ways_count_alike(start_leader: Callable[..., Served], data: bytes, status: int) -> None:
    served = start_leader(value_limit_bytes=20)
    served("PUT", "/kv/twin", {"value": "abc"})
    with line_to(served, data) as short, line_to(served) as long:
        counted = []
        for line, sent in ((short, data), (long, the_long_way(data))):
            before = counts(served)
            answer, taken = line.ask(sent)
            assert (status_of(answer), taken) == (status, line is short)
            wait_until(lambda: in_flight(served) == 0)
            counted.append(new_counts(served, before))
    assert counted[0] == counted[1]
    assert sum(counted[0].values()) == 2
