"""Errors as problem+json."""

from __future__ import annotations

import json
from typing import Any

import pytest

from retinue.errors import (
    BadRequest,
    ConditionFailed,
    KeyNotFound,
    MethodNotAllowed,
    NoQuorum,
    NotLeader,
    Overloaded,
    QuorumTimeout,
    RetinueError,
    Unauthorized,
)
from retinue.http.answer import Answer
from retinue.http.problem import WriteContext, internal_error, problem_answer


def members_of(answer: Answer) -> dict[str, Any]:
    assert isinstance(answer.body, bytes)
    members: dict[str, Any] = json.loads(answer.body)
    return members


def test_the_members_of_every_problem() -> None:
    answer = problem_answer(BadRequest("Send less."))
    assert (answer.status, answer.content_type, answer.headers) == (400, b"application/problem+json", [])
    assert members_of(answer) == {
        "type": "urn:retinue:bad-request",
        "title": "Bad request",
        "status": 400,
        "detail": "Send less.",
        "error": "Send less.",
    }


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (BadRequest("x"), {"outcome": "not_written", "version": None, "acks": 0, "required_quorum": 3}),
        (KeyNotFound("x"), {"outcome": "not_written"}),
        (NotLeader("x", leader="http://a:1"), {"outcome": "not_written", "leader": "http://a:1"}),
        (NoQuorum("x", acks=1, required_quorum=4), {"outcome": "not_written", "acks": 1, "required_quorum": 4}),
        (QuorumTimeout("x", version=9, acks=2), {"outcome": "unknown", "version": 9, "acks": 2}),
        (QuorumTimeout("x", version=9, outcome="committed"), {"outcome": "committed", "version": 9}),
        (ConditionFailed("x", current=7), {"outcome": "not_written", "version": 7, "current": 7}),
        (internal_error(), {"outcome": "unknown", "status": 500}),
    ],
)
def test_a_failed_write_says_what_is_known(error: RetinueError, expected: dict[str, object]) -> None:
    members = members_of(problem_answer(error, WriteContext("color", 3)))
    assert members["key"] == "color"
    assert members.items() >= expected.items()
    assert members.keys() >= {"outcome", "version", "acks", "required_quorum"}


def test_a_key_that_could_not_be_read_is_left_out() -> None:
    assert "key" not in members_of(problem_answer(BadRequest("x"), WriteContext(None, 3)))


@pytest.mark.parametrize(
    ("error", "header"),
    [
        (Overloaded("x"), (b"retry-after", b"1")),
        (NoQuorum("x", retry_after_s=7), (b"retry-after", b"7")),
        (Unauthorized("x"), (b"www-authenticate", b'Bearer realm="retinue"')),
        (MethodNotAllowed("x", allow=["GET", "PUT"]), (b"allow", b"GET, PUT")),
        (ConditionFailed("x", current=7), (b"etag", b'"7"')),
    ],
)
def test_headers(error: RetinueError, header: tuple[bytes, bytes]) -> None:
    assert problem_answer(error).headers == [header]
