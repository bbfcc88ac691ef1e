"""Replies as bytes. `version` is the protocol of the connection, 2 or 3: they differ in nulls, maps, sets and texts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

OK = b"+OK\r\n"
PONG = b"+PONG\r\n"
ZERO = b":0\r\n"
ONE = b":1\r\n"
EMPTY_LIST = b"*0\r\n"
NULLS = {2: b"$-1\r\n", 3: b"_\r\n"}

SYNTAX_ERROR = "ERR syntax error"
NO_INTEGER = "ERR value is not an integer or out of range"


class CommandError(Exception):
    """A command that is answered with an error: its code and its sentence, as Redis words it."""


def error(text: str) -> bytes:
    """An error; its text is one line."""
    return b"-%b\r\n" % text.translate(_ONE_LINE).encode("utf-8", "surrogateescape")


_ONE_LINE = {ord("\r"): " ", ord("\n"): " "}


def status(text: str) -> bytes:
    """A word without quotes."""
    return b"+%b\r\n" % text.encode()


def integer(number: int) -> bytes:
    """A whole number."""
    return b":%d\r\n" % number


def bulk(value: bytes) -> bytes:
    """A string of bytes."""
    return b"$%d\r\n%b\r\n" % (len(value), value)


def text(value: str) -> bytes:
    """A string."""
    return bulk(value.encode())


def array(items: Sequence[bytes]) -> bytes:
    """A list of replies."""
    return b"*%d\r\n%b" % (len(items), b"".join(items))


def strings(values: Iterable[str]) -> bytes:
    """A list of strings."""
    return array([text(value) for value in values])


def mapping(version: int, pairs: Sequence[tuple[bytes, bytes]]) -> bytes:
    """A map of replies; a flat list in version 2."""
    items = b"".join([part for pair in pairs for part in pair])
    return b"%%%d\r\n%b" % (len(pairs), items) if version == 3 else b"*%d\r\n%b" % (2 * len(pairs), items)


def statuses(version: int, words: Sequence[str]) -> bytes:
    """A set of words; a list in version 2."""
    return b"%b%d\r\n%b" % (b"~" if version == 3 else b"*", len(words), b"".join(map(status, words)))


def page(version: int, value: str) -> bytes:
    """A text for people to read."""
    raw = value.encode()
    return b"=%d\r\ntxt:%b\r\n" % (len(raw) + 4, raw) if version == 3 else bulk(raw)
