"""Patterns of keys against a matcher that follows the definition word by word."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retinue.resp.glob import compiled

ALPHABET = b"ab-]"
keys = st.lists(st.sampled_from(list(ALPHABET)), max_size=8).map(bytes)
pieces = st.sampled_from(
    [b"*", b"?", b"a", b"b", b"[ab]", b"[^a]", b"[a-b]", b"[b-a]", b"\\*", b"\\a", b"[\\]]", b"]", b"-"]
)
patterns = st.lists(pieces, max_size=7)

MEANINGS = {
    b"?": ALPHABET,
    b"[ab]": b"ab",
    b"[^a]": b"b-]",
    b"[a-b]": b"ab",
    b"[b-a]": b"ab",
    b"\\*": b"*",
    b"\\a": b"a",
    b"[\\]]": b"]",
}


def fits(pattern: list[bytes], key: bytes) -> bool:
    if not pattern:
        return not key
    piece, rest = pattern[0], pattern[1:]
    if piece == b"*":
        return any(fits(rest, key[start:]) for start in range(len(key) + 1))
    return bool(key) and key[:1] in MEANINGS.get(piece, piece) and fits(rest, key[1:])


@given(patterns, keys)
def test_patterns_mean_what_their_parts_mean(pattern: list[bytes], key: bytes) -> None:
    assert (compiled(b"".join(pattern)).fullmatch(key) is not None) == fits(pattern, key)


@pytest.mark.parametrize(
    ("pattern", "key", "expected"),
    [
        (b"user:*", b"user:1", True),
        (b"h[a-z]llo", b"h\nllo", False),
        (b"h?llo", b"h\nllo", True),
        (b"[", b"a", False),
        (b"[^]x", b"ax", True),
        (b"[ab", b"b", True),
        (b"a\\", b"a\\", True),
        (b"**a**", b"xxaxx", True),
        ("gr\u00fc*".encode(), "gr\u00fcn".encode(), True),
    ],
)
def test_corners(pattern: bytes, key: bytes, expected: bool) -> None:
    assert (compiled(pattern).fullmatch(key) is not None) == expected


def test_many_stars_do_not_take_for_ever() -> None:
    began = time.process_time()
    assert compiled(b"a*" * 200 + b"b").fullmatch(b"a" * 1024) is None
    assert time.process_time() - began < 5
