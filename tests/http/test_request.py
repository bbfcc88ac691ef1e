"""Addresses, parameters and headers of a request: strict, and decoded exactly once."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from retinue.core.messages import Condition
from retinue.errors import BadRequest
from retinue.http.body import BodyBudget
from retinue.http.request import (
    KEY_LIMIT_BYTES,
    Request,
    acknowledgements,
    is_known_version,
    milliseconds,
    prefers,
    request_id,
    session_token,
    timeout_ms,
    whole_number,
    write_condition,
)


async def nothing_to_receive() -> dict[str, Any]:
    raise AssertionError("no body is read here")


def make_request(*headers: tuple[str, str], tail: bytes = b"", query: bytes = b"") -> Request:
    scope = {
        "method": "PUT",
        "raw_path": b"/kv/" + tail,
        "query_string": query,
        "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in headers],
    }
    request = Request(scope, nothing_to_receive, BodyBudget(1))
    request.tail = tail
    return request


@given(st.text(min_size=1, max_size=200), st.sampled_from(["", "/", "~"]))
def test_a_key_is_percent_decoded_exactly_once(key: str, safe: str) -> None:
    assume(len(key.encode()) <= KEY_LIMIT_BYTES)
    assert make_request(tail=quote(key, safe=safe).encode()).key() == key


@pytest.mark.parametrize(
    ("tail", "key"),
    [
        (b"a/b//c/", "a/b//c/"),
        (b"..", ".."),
        (b"../../etc/passwd", "../../etc/passwd"),
        (b"%2e%2E/%2F", "..//"),
        (b"a%2525", "a%25"),
        (b"a+b", "a+b"),
        (b"%20", " "),
        (b"%00%0a%7f", "\x00\n\x7f"),
        (b"%F0%9F%9F%A2", "\U0001f7e2"),
        (b"a;b=c:d@e", "a;b=c:d@e"),
    ],
)
def test_keys_are_opaque(tail: bytes, key: str) -> None:
    assert make_request(tail=tail).key() == key


@pytest.mark.parametrize(
    "tail", [b"", b"%", b"%2", b"%zz", b"a%2", b"%u0041", b"%ff", b"%ed%a0%80", b"%c0%80", b"%f8%88%80%80%80", b"\xff"]
)
def test_bad_keys_are_refused(tail: bytes) -> None:
    with pytest.raises(BadRequest):
        make_request(tail=tail).key()


def test_the_length_of_a_key_counts_bytes() -> None:
    assert make_request(tail=b"%C3%A9" * 512).key() == "\u00e9" * 512
    with pytest.raises(BadRequest):
        make_request(tail=b"%C3%A9" * 513).key()


@given(st.dictionaries(st.sampled_from(["w", "read", "timeout_ms"]), st.text()))
def test_parameters_are_decoded_as_forms_write_them(given_values: dict[str, str]) -> None:
    request = make_request(query=urlencode(given_values).encode())
    assert request.query("w", "read", "timeout_ms") == given_values


def test_unknown_parameters_are_ignored() -> None:
    assert make_request(query=b"x=1&x=2&w=1&=&&y").query("w") == {"w": "1"}


@pytest.mark.parametrize("query", [b"w=1&w=1", b"w=%zz", b"w=%ff", b"%w=1", b"w=1&%77=2"])
def test_bad_queries_are_refused(query: bytes) -> None:
    with pytest.raises(BadRequest):
        make_request(query=query).query("w")


@pytest.mark.parametrize(("text", "acks"), [(None, None), ("0", 0), ("5", 5), ("all", 5), ("majority", 3), ("003", 3)])
def test_w_is_a_number_of_followers(text: str | None, acks: int | None) -> None:
    assert acknowledgements(text, 5) == acks


@pytest.mark.parametrize(("followers", "majority"), [(0, 0), (1, 1), (2, 1), (3, 2), (4, 2), (5, 3), (6, 3)])
def test_a_majority_of_all_nodes_counts_the_leader(followers: int, majority: int) -> None:
    nodes = followers + 1
    assert acknowledgements("majority", followers) == majority
    assert majority + 1 > nodes / 2 >= majority


@pytest.mark.parametrize("text", ["", "6", "-1", "1.0", "1e0", "All", "\u0663", "9" * 40, " 1", "+1"])
def test_bad_w_is_refused(text: str) -> None:
    with pytest.raises(BadRequest):
        acknowledgements(text, 5)


@pytest.mark.parametrize(
    ("text", "value"), [(None, None), ("1", 1.0), ("1.5", 1.5), ("6e4", 60000.0), ("60000", 60000.0)]
)
def test_deadlines_are_milliseconds(text: str | None, value: float | None) -> None:
    assert timeout_ms(text) == value


@pytest.mark.parametrize(
    "text", ["", "0", "0.0", "-1", "nan", "inf", "1e-3", "0.99", "1e999", "60000.1", "1_0", "\u0661", "0x1"]
)
def test_bad_deadlines_are_refused(text: str) -> None:
    with pytest.raises(BadRequest):
        timeout_ms(text)


@pytest.mark.parametrize(("text", "token"), [(None, None), ("7", (4, 7)), ("2.7", (2, 7)), ("0", (4, 0))])
def test_a_session_is_an_epoch_and_a_version(text: str | None, token: tuple[int, int] | None) -> None:
    assert session_token(text, 4) == token


@pytest.mark.parametrize("text", ["", "1.", ".1", "1.2.3", "a", "-1", "1.-2", "9" * 19, "\u0661.1"])
def test_bad_sessions_are_refused(text: str) -> None:
    with pytest.raises(BadRequest):
        session_token(text, 4)


def test_whole_numbers_and_milliseconds() -> None:
    assert whole_number("limit", "10", 1, 1000) == 10
    assert whole_number("limit", None, 1, 1000) is None
    assert milliseconds("max_lag_ms", "1.5") == 1.5
    for text in ("0", "1001", "x", "", "1.0"):
        with pytest.raises(BadRequest):
            whole_number("limit", text, 1, 1000)
    for text in ("-1", "x", "", "1e999"):
        with pytest.raises(BadRequest):
            milliseconds("max_lag_ms", text)


@pytest.mark.parametrize(
    ("headers", "condition"),
    [
        ((), None),
        ((("If-Match", '"5"'),), Condition(version=5)),
        ((("If-Match", "5"),), Condition(version=5)),
        ((("If-Match", "*"),), Condition(present=True)),
        ((("If-None-Match", "*"),), Condition(absent=True)),
    ],
)
def test_conditions(headers: tuple[tuple[str, str], ...], condition: Condition | None) -> None:
    assert write_condition(make_request(*headers)) == condition


@pytest.mark.parametrize(
    "headers",
    [
        [("If-Match", '"a"')],
        [("If-Match", '"1", "2"')],
        [("If-Match", 'W/"1"')],
        [("If-Match", "")],
        [("If-Match", '"0"')],
        [("If-Match", '"' + "9" * 19 + '"')],
        [("If-None-Match", '"1"')],
        [("If-Match", '"1"'), ("If-None-Match", "*")],
    ],
)
def test_bad_conditions_are_refused(headers: list[tuple[str, str]]) -> None:
    with pytest.raises(BadRequest):
        write_condition(make_request(*headers))


def test_known_versions() -> None:
    assert is_known_version(make_request(("If-None-Match", '"1", W/"7"')), 7)
    assert is_known_version(make_request(("If-None-Match", "*")), 7)
    assert not is_known_version(make_request(("If-None-Match", '"77"')), 7)
    assert not is_known_version(make_request(), 7)


def test_request_ids() -> None:
    assert request_id(make_request()) == ""
    assert request_id(make_request(("Idempotency-Key", "a-1"))) == "a-1"
    for text in ("", "a b", "x" * 256, "\u00e9", "a\t"):
        with pytest.raises(BadRequest):
            request_id(make_request(("Idempotency-Key", text)))


def test_headers_that_must_be_unique() -> None:
    make_request(("Accept", "a"), ("Accept", "b")).check_headers()
    for name in ("Host", "Authorization", "Idempotency-Key", "If-Match", "Content-Type", "Origin"):
        with pytest.raises(BadRequest):
            make_request((name, "a"), (name, "a")).check_headers()


@pytest.mark.parametrize(
    ("accept", "preferred"),
    [
        ("application/octet-stream", True),
        ("APPLICATION/octet-stream;q=1", False),
        ("application/json, application/octet-stream", False),
        ("application/octet-stream, application/json", True),
        ("application/json;q=0.5, application/octet-stream;q=0.9", True),
        ("application/octet-stream;q=0", False),
        ("*/*", False),
        ("application/octet-stream, */*;q=0.1", True),
    ],
)
def test_accept(accept: str, preferred: bool) -> None:
    assert prefers(make_request(("Accept", accept)), b"application/octet-stream") is preferred


@given(st.binary(max_size=30), st.sampled_from([session_token, timeout_ms, acknowledgements]))
def test_no_text_breaks_a_parser(raw: bytes, parse: Callable[..., object]) -> None:
    arguments: tuple[object, ...] = (raw.decode("latin-1"),) if parse is timeout_ms else (raw.decode("latin-1"), 3)
    with contextlib.suppress(BadRequest):
        parse(*arguments)
