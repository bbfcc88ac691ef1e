"""What the arguments of commands mean: keys, numbers, moments, words."""

from __future__ import annotations

import re

from retinue.expiry import now_ms
from retinue.resp.replies import NO_INTEGER, SYNTAX_ERROR, CommandError

KEY_LIMIT_BYTES = 1024
KEYS_ONLY = "ERR a key has 1 to 1024 bytes of UTF-8"
INTEGER_MIN, INTEGER_MAX = -(1 << 63), (1 << 63) - 1

_INTEGER = re.compile(rb"0|-?[1-9][0-9]{0,18}")

SECONDS, MILLISECONDS = 1000, 1


def key_of(raw: bytes) -> str:
    """A key. Raises `CommandError` for what cannot be one."""
    if not 0 < len(raw) <= KEY_LIMIT_BYTES:
        raise CommandError(KEYS_ONLY)
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise CommandError(KEYS_ONLY) from None


def integer_of(raw: bytes, otherwise: str = NO_INTEGER) -> int:
    """A whole number of 64 bits, written as Redis writes it. Raises `CommandError`."""
    if _INTEGER.fullmatch(raw) and INTEGER_MIN <= (number := int(raw)) <= INTEGER_MAX:
        return number
    raise CommandError(otherwise)


def moment_of(raw: bytes, unit_ms: int, *, relative: bool, command: str, positive: bool = True) -> int:
    """A moment on the wall clock in ms, from a number of seconds or milliseconds, from now on or since 1970.

    Raises `CommandError` where there is no such moment, or where it must be `positive` and is not.
    """
    number = integer_of(raw)
    moment = number * unit_ms + (now_ms() if relative else 0)
    if (positive and number <= 0) or not INTEGER_MIN <= moment <= INTEGER_MAX:
        raise CommandError(f"ERR invalid expire time in '{command}' command")
    # A moment before 1970 has passed like any other; 0 would mean "never".
    return max(moment, 1)


def word_of(raw: bytes) -> str:
    """A word of a command's syntax, in capitals."""
    return raw.decode("latin-1").upper()


class Options:
    """The words after a command's fixed arguments, taken one by one."""

    def __init__(self, arguments: list[bytes]) -> None:
        self._arguments = arguments
        self._next = 0

    def __bool__(self) -> bool:
        return self._next < len(self._arguments)

    def word(self) -> str:
        """The next word."""
        return word_of(self.value())

    def value(self) -> bytes:
        """The next argument as it is. Raises `CommandError` if there is none."""
        if not self:
            raise CommandError(SYNTAX_ERROR)
        self._next += 1
        return self._arguments[self._next - 1]


# How options of SET and GETEX say when a value ends: unit, and whether from now on.
EXPIRY_OPTIONS = {
    "EX": (SECONDS, True),
    "PX": (MILLISECONDS, True),
    "EXAT": (SECONDS, False),
    "PXAT": (MILLISECONDS, False),
}
