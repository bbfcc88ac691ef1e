"""The short cut for requests whose head and body come apart, as many clients send them."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from tests.http.lines import END, PUT, comparable, line_to, request, status_of, the_long_way
from tests.http.serving import Host, Served
from tests.http.test_shortcut_states import LIVE, turn


def apart(data: bytes) -> tuple[bytes, bytes]:
    head, _, body = data.partition(END)
    return head + END, body


@pytest.mark.parametrize("body", [b'{"value":1}', b'{"value":"' + b"v" * 3000 + b'"}', b"{}"], ids=["1", "long", "bad"])
def test_a_body_that_comes_after_its_head(host: Host, alone: Served, body: bytes) -> None:
    data = request(b"PUT", body=body)
    answers = []
    for wanted in (data, the_long_way(data)):
        with line_to(alone, PUT) as line:
            before = line.end.cycle
            line.send(apart(wanted)[0])
            turn(host)
            assert bool(line.end._without_body) == (wanted is data)
            line.send(body[:2])
            turn(host)
            line.send(body[2:])
            answers.append(line.read())
            assert (line.end.cycle is before) == (wanted is data and body != b"{}")
    assert comparable(answers[0]) == comparable(answers[1])


def test_a_body_that_never_comes_is_given_up(start_leader: Callable[..., Served]) -> None:
    served = start_leader(idle_timeout_s=0.3)
    answers = []
    for data in (PUT, the_long_way(PUT)):
        with line_to(served, PUT) as line:
            line.send(apart(data)[0])
            answers.append(line.read())
            assert line.read() == b""
    assert comparable(answers[0]) == comparable(answers[1])
    assert status_of(answers[0]) == 408


def test_a_stop_lets_a_body_come_that_its_head_announced(host: Host, start_leader: Callable[..., Served]) -> None:
    for data in (PUT, the_long_way(PUT)):
        served = start_leader()
        with line_to(served, PUT) as line:
            head, body = apart(data)
            line.send(head)
            turn(host)
            stopping = threading.Thread(target=host.run, args=(served.door.stop(),))
            stopping.start()
            turn(host)
            line.send(body)
            assert status_of(line.read()) == 200
            assert line.read() == b""
            stopping.join()


def test_small_pipelined_requests_do_not_count_as_one_large_head(alone: Served) -> None:
    count = 6000
    with line_to(alone) as line:
        sender = threading.Thread(target=line.send, args=(LIVE * count,))
        sender.start()
        assert all(status_of(line.read()) == 200 for _ in range(count))
        sender.join()
