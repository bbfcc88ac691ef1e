"""Patterns of keys as Redis has them: `*`, `?`, `[a-c]`, `[^a]`, and a backslash before what is meant as it stands."""

from __future__ import annotations

import re

PATTERN_LIMIT_BYTES = 4096


def compiled(pattern: bytes) -> re.Pattern[bytes]:
    """A pattern that `fullmatch`es the keys that are meant.

    Each star is bound to the first place where what follows it fits, which finds the same keys and never tries twice.
    """
    pieces: list[bytes] = []
    starred: list[list[bytes]] = []
    position = 0
    while position < len(pattern):
        byte = pattern[position : position + 1]
        position += 1
        if byte == b"*":
            starred.append(pieces)
            pieces = []
        elif byte == b"?":
            pieces.append(b".")
        elif byte == b"[":
            piece, position = _one_of(pattern, position)
            pieces.append(piece)
        else:
            if byte == b"\\" and position < len(pattern):
                byte = pattern[position : position + 1]
                position += 1
            pieces.append(re.escape(byte))
    starred.append(pieces)
    first, *others = [b"".join(each) for each in starred]
    if not others:
        return re.compile(first, re.DOTALL)
    middle = b"".join([b"(?>.*?%b)" % each for each in others[:-1] if each])
    return re.compile(b"%b%b.*%b" % (first, middle, others[-1]), re.DOTALL)


def _one_of(pattern: bytes, position: int) -> tuple[bytes, int]:
    """The bytes in brackets, and where they end; brackets that nobody closes end with the pattern."""
    negated = pattern[position : position + 1] == b"^"
    position += negated
    ranges: list[bytes] = []
    while position < len(pattern) and pattern[position : position + 1] != b"]":
        if pattern[position : position + 1] == b"\\" and position + 1 < len(pattern):
            position += 1
        low = high = pattern[position : position + 1]
        if pattern[position + 1 : position + 2] == b"-" and position + 2 < len(pattern):
            high = pattern[position + 2 : position + 3]
            position += 2
        low, high = min(low, high), max(low, high)
        ranges.append(re.escape(low) + b"-" + re.escape(high))
        position += 1
    inside = b"".join(ranges)
    if not inside:
        return (b"." if negated else b"(?!)"), position + 1
    return b"[%b%b]" % (b"^" if negated else b"", inside), position + 1
