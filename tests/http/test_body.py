"""Strict JSON, and values between JSON and what is stored."""

from __future__ import annotations

import json
import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retinue.core.messages import Encoding
from retinue.errors import BadRequest, InvalidValue, Overloaded, TooLarge
from retinue.http.answer import encode_json
from retinue.http.body import (
    DEPTH_LIMIT,
    BodyBudget,
    check_unescaped_size,
    json_from_stored,
    parse_json,
    stored_from_json,
)

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def nested(levels: int) -> object:
    value: object = []
    for _ in range(levels - 1):
        value = [value]
    return value


def round_trip(body: bytes) -> object:
    """What a client gets back for a body that it stored."""
    document = parse_json(body)
    assert isinstance(document, dict)
    value, encoding = json_from_stored(*stored_from_json(document["value"]))
    assert encoding is None
    return json.loads(encode_json({"value": value}))["value"]


@given(JSON_VALUES)
def test_a_value_reads_back_as_it_was_sent(value: object) -> None:
    body = json.dumps({"value": value}).encode()
    assert round_trip(body) == json.loads(body)["value"]


@given(JSON_VALUES)
def test_a_value_reads_back_with_the_same_types(value: object) -> None:
    returned = round_trip(json.dumps({"value": value}, ensure_ascii=False).encode())
    assert json.dumps(returned) == json.dumps(json.loads(json.dumps(value)))


@pytest.mark.parametrize(
    "number",
    ["0", "-0", "9007199254740993", "18446744073709551616", "1" + "0" * 400, "0.1", "1e308", "-1.5e-300", "5e-324"],
)
def test_numbers_keep_their_value(number: str) -> None:
    assert round_trip(b'{"value":%s}' % number.encode()) == json.loads(number)


def test_strings_are_stored_as_their_utf8_bytes() -> None:
    assert stored_from_json("gr\u00fcn\U0001f7e2") == ("gr\u00fcn\U0001f7e2".encode(), Encoding.RAW)


def test_other_values_are_stored_as_compact_text() -> None:
    assert stored_from_json({"a": [1, None, "\u00e9"]}) == ('{"a":[1,null,"\u00e9"]}'.encode(), Encoding.JSON)


def test_bytes_that_are_no_text_are_shown_as_base64_and_taken_back() -> None:
    shown, encoding = json_from_stored(b"\xff\x00", Encoding.RAW)
    assert (shown, encoding) == ("/wA=", "base64")
    assert stored_from_json(shown, encoding) == (b"\xff\x00", Encoding.RAW)


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ("/wA", "base64"),
        ("/wA=", "hex"),
        (5, "base64"),
        ("\u00e9", "base64"),
        ("YWJj=", "base64"),
        ("YWJj====", "base64"),
        ("YWI=YWI=", "base64"),
        ("YWJj\n", "base64"),
    ],
)
def test_bad_base64_is_refused(value: object, name: str) -> None:
    with pytest.raises(InvalidValue):
        stored_from_json(value, name)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"{",
        b'{"value":1',
        b'{"value":1}x',
        b'{"value":1}{"value":2}',
        b'{"value":NaN}',
        b'{"value":Infinity}',
        b'{"value":-Infinity}',
        b'{"value":01}',
        b'{"value":.5}',
        b'{"value":+1}',
        b'{"value":1.}',
        b'{"value":0x10}',
        b"{'value':1}",
        b'{"value":1,}',
        b'{"value":"\x01"}',
        b'{"value":"\\x41"}',
        b'{"value":"\\ud8"}',
        b'{"value":"\xff"}',
        b'{"value":"\xed\xa0\x80"}',
        b'\xef\xbb\xbf{"value":1}',
        '{"value":1}'.encode("utf-16"),
        '{"value":\uff11}'.encode(),
        b'{"value":\x0b1}',
        b"\x00",
    ],
)
def test_what_is_no_json_is_a_bad_request(body: bytes) -> None:
    with pytest.raises(BadRequest) as caught:
        parse_json(body)
    assert caught.value.status == 400


@pytest.mark.parametrize(
    "body",
    [
        b'{"value":1,"value":2}',
        b'{"value":{"a":1,"\\u0061":2}}',
        b'[{"a":1,"a":1}]',
        b'{"value":' + b"9" * 5000 + b"}",
        b"[" * 100_000,
        b'{"a":' * 100_000,
    ],
)
def test_ambiguous_json_is_not_allowed(body: bytes) -> None:
    with pytest.raises(InvalidValue):
        parse_json(body)


@pytest.mark.parametrize(
    "body", [b'"\\ud800"', b'["\\udfff"]', b'{"\\ud800":1}', b"1e999", b"[-1e400]", json.dumps(nested(33)).encode()]
)
def test_values_that_cannot_come_back_are_not_allowed(body: bytes) -> None:
    with pytest.raises(InvalidValue):
        stored_from_json(parse_json(body))


def test_the_depth_limit_is_the_last_depth_allowed() -> None:
    value = nested(DEPTH_LIMIT)
    assert stored_from_json(value)[0] == json.dumps(value).encode()
    with pytest.raises(InvalidValue):
        stored_from_json([value])
    with pytest.raises(InvalidValue):
        stored_from_json({"a": value})


@given(st.binary(max_size=60) | st.text(alphabet='{}[]",:0123eE+-.\\u \ntruefalsn\u00e9', max_size=40).map(str.encode))
def test_any_bytes_are_either_a_value_that_comes_back_or_a_refusal(body: bytes) -> None:
    try:
        stored, encoding = stored_from_json(parse_json(body))
    except BadRequest:
        return
    shown, _ = json_from_stored(stored, encoding)
    expected = json.loads(body)
    assert json.loads(encode_json(shown)) == expected
    assert not (isinstance(expected, float) and math.isinf(expected))


@given(st.binary())
def test_any_stored_bytes_can_be_shown(value: bytes) -> None:
    shown, encoding = json_from_stored(value, Encoding.RAW)
    assert stored_from_json(msgspec.json.decode(encode_json(shown)), encoding) == (value, Encoding.RAW)


def test_bodies_that_are_too_long_even_unescaped_are_refused_before_parsing() -> None:
    check_unescaped_size(b'{"value":"' + b"\\u0041" * 1000 + b'"}', 1000)
    with pytest.raises(TooLarge):
        check_unescaped_size(b"[" * 20_000, 1000)


def test_the_budget_counts_what_is_held() -> None:
    budget = BodyBudget(10)
    budget.take(6)
    with pytest.raises(Overloaded):
        budget.take(5)
    budget.give_back(6)
    budget.take(10)
    assert budget.held_bytes == 10
