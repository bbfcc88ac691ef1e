"""Commands typed as a line of words, quoted as in a shell; for people with telnet."""

from __future__ import annotations

import re

_WORD = re.compile(
    rb"""
    \s*(?:
        "((?:[^"\\]|\\.)*)"(?=\s|$)     # double quotes: escapes count
        | '((?:[^'\\]|\\.)*)'(?=\s|$)   # single quotes: only \' is an escape
        | ([^\s"']+)                    # a bare word
    )""",
    re.VERBOSE | re.DOTALL,
)
_ESCAPE = re.compile(rb"\\(?:x([0-9a-fA-F]{2})|(.))", re.DOTALL)
_LETTERS = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"b": b"\b", b"a": b"\a"}


def split_line(line: bytes) -> list[bytes] | None:
    """The words of a line; `None` if its quotes do not match."""
    line = line.rstrip(b" \t\r\n\v\f\0")
    words: list[bytes] = []
    position = 0
    glued = False
    while position < len(line):
        found = _WORD.match(line, position)
        if found is None:
            return None
        double, single, bare = found.groups()
        if double is not None:
            word = _ESCAPE.sub(_unescape, double)
        elif single is not None:
            word = single.replace(b"\\'", b"'")
        else:
            word = bare
        # A quote may begin in the middle of a word, as in a shell.
        if glued and not line[found.start() : found.start() + 1].isspace():
            words[-1] += word
        else:
            words.append(word)
        glued = bare is not None
        position = found.end()
    return words


def _unescape(found: re.Match[bytes]) -> bytes:
    digits, letter = found.groups()
    return bytes.fromhex(digits.decode()) if digits is not None else _LETTERS.get(letter, letter)
