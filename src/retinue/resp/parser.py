"""Requests of the Redis protocol, out of bytes as they arrive.

Whole requests, which is nearly everything, go through hiredis. A request that has only begun, an inline one, or
anything that a client should not send is read by the exact parser below, one line at a time, with the errors that Redis
gives. hiredis never keeps a part of a request: it would make room for as many arguments as a client announces.
"""

from __future__ import annotations

import re
from itertools import chain

import hiredis

from retinue.resp.inline import split_line

Command = list[bytes]

INLINE_LIMIT_BYTES = 64 * 1024
ARGUMENTS_MAX = 1024 * 1024
ARGUMENT_OVERHEAD_BYTES = 64

# What a client that has not shown a token may send, as in Redis.
STRANGER_ARGUMENTS_MAX = 10
STRANGER_BULK_MAX = 16_384

_ARRAY, _BULK = ord("*"), ord("$")
_NUMBER = re.compile(rb"0|-?[1-9][0-9]{0,17}")

# hiredis makes the list for the arguments at once, so it must not see a number beyond what any honest client sends.
_MANY_ARGUMENTS = re.compile(rb"\*[0-9]{5}")


# An empty status, fed after all that has come: if it comes out as such, everything before it was whole.
_MARK = b"+\r\n"


class RequestParser:
    """The requests of one connection. `error` is set once, when the rest of what comes cannot be understood.

    `bulk_limit` is the longest argument taken, `request_limit` the longest request. `stranger` is for clients who have
    still to say who they are, and get less.
    """

    __slots__ = (
        "_arguments",
        "_buffer",
        "_left",
        "_needed",
        "_position",
        "_taken",
        "bulk_limit",
        "error",
        "request_limit",
        "stranger",
    )

    def __init__(self, bulk_limit: int, request_limit: int) -> None:
        self.bulk_limit = bulk_limit
        self.request_limit = request_limit
        self.stranger = False
        self.error = ""
        self._buffer = bytearray()
        self._position = 0  # Everything before it has been taken.
        self._needed = 0  # There is nothing to do before the buffer has as many bytes.
        self._arguments: Command = []
        self._taken = 0  # What the arguments of the request that has begun weigh.
        self._left = 0  # Arguments that are missing of the request that has begun.

    @property
    def held_bytes(self) -> int:
        """Bytes of a request that has begun."""
        return len(self._buffer) + self._taken

    def feed(self, data: bytes) -> list[Command]:
        """The requests that are whole now."""
        if self.error:
            return []
        if self._buffer or self._left:
            self._buffer += data
            return self._read_on() if len(self._buffer) >= self._needed else []
        if data[0] != _ARRAY or self.stranger or _announces_many(data):
            self._buffer += data
            return self._read_on()
        return self._read_whole(data)

    def _read_whole(self, data: bytes) -> list[Command]:
        """The requests in bytes that begin with one; what is left at the end is kept for the exact parser."""
        global _reader
        reader = _reader
        commands: list[Command] = []
        try:
            reader.feed(data)
            reader.feed(_MARK)
            # One without arguments is none at all, and how long it was cannot be told from here.
            while type(command := reader.gets()) is list and command:
                commands.append(command)
            # hiredis takes replies of any kind; of the arguments of a request only strings of bytes can be joined.
            b"".join(chain.from_iterable(commands))
            if command == b"" and not reader.has_data():
                return commands
        except (hiredis.ProtocolError, TypeError):
            commands = []
        _reader = hiredis.Reader()
        # Some request is not whole, or not as it should be; the mark may have become a part of the last one.
        del commands[-1:]
        self._buffer += data[sum(map(_length, commands)) :]
        return commands + self._read_on()

    # --- one line at a time ---

    def _read_on(self) -> list[Command]:
        commands: list[Command] = []
        while not self.error and self._position < len(self._buffer):
            if not self._read_one(commands):
                break
        del self._buffer[: self._position]
        self._needed -= self._position
        self._position = 0
        if not self.error and self.held_bytes > self.request_limit:
            self.error = "Protocol error: too big request"
        if self.error:
            self._buffer.clear()
            self._arguments = []
            self._taken = 0
        return commands

    def _read_one(self, commands: list[Command]) -> bool:
        """Take the next piece of a request; false if it is not whole yet."""
        if self._left:
            return self._read_argument(commands)
        if self._buffer[self._position] != _ARRAY:
            return self._read_inline(commands)
        line = self._line("too big mbulk count string")
        if line is None:
            return False
        count = _number(line)
        if count is None or count > ARGUMENTS_MAX:
            self.error = "Protocol error: invalid multibulk length"
        elif self.stranger and count > STRANGER_ARGUMENTS_MAX:
            self.error = "Protocol error: unauthenticated multibulk length"
        elif count > 0:
            self._left = count
        return not self.error

    def _read_argument(self, commands: list[Command]) -> bool:
        buffer, start = self._buffer, self._position
        if buffer[start] != _BULK:
            self.error = f"Protocol error: expected '$', got '{chr(buffer[start])}'"
            return False
        line = self._line("too big bulk count string")
        if line is None:
            return False
        size = _number(line)
        if size is None or size < 0 or size > self.bulk_limit:
            self.error = "Protocol error: invalid bulk length"
            return False
        if self.stranger and size > STRANGER_BULK_MAX:
            self.error = "Protocol error: unauthenticated bulk length"
            return False
        end = self._position + size
        if len(buffer) < end + 2:
            self._position, self._needed = start, end + 2
            return False
        with memoryview(buffer) as view:
            self._arguments.append(bytes(view[self._position : end]))
        self._position = end + 2
        self._left -= 1
        self._taken += size + ARGUMENT_OVERHEAD_BYTES
        if not self._left:
            commands.append(self._arguments)
            self._arguments = []
            self._taken = 0
        return True

    def _read_inline(self, commands: list[Command]) -> bool:
        end = self._buffer.find(b"\n", self._position)
        if end < 0:
            if len(self._buffer) - self._position > INLINE_LIMIT_BYTES:
                self.error = "Protocol error: too big inline request"
            return False
        arguments = split_line(bytes(self._buffer[self._position : end]).removesuffix(b"\r"))
        self._position = end + 1
        if arguments is None:
            self.error = "Protocol error: unbalanced quotes in request"
            return False
        if arguments:
            commands.append(arguments)
        return True

    def _line(self, too_long: str) -> bytes | None:
        """What follows the next byte up to the end of its line; `None` if that has not come yet."""
        end = self._buffer.find(b"\r", self._position)
        if end < 0 or end + 1 >= len(self._buffer):
            if len(self._buffer) - self._position > INLINE_LIMIT_BYTES:
                self.error = f"Protocol error: {too_long}"
            return None
        line = bytes(self._buffer[self._position + 1 : end])
        self._position = end + 2
        return line


def _announces_many(data: bytes) -> bool:
    # A large value rarely has a star, and looking for one alone is ten times as fast as the pattern.
    return bool(_MANY_ARGUMENTS.match(data)) or (data.find(b"*", 1) > 0 and bool(_MANY_ARGUMENTS.search(data, 1)))


def _number(text: bytes) -> int | None:
    return int(text) if _NUMBER.fullmatch(text) else None


def _length(command: Command) -> int:
    """How many bytes a request has."""
    # "*<count>\r\n", and for each argument "$<size>\r\n<bytes>\r\n".
    sizes = [len(item) for item in command]
    return 3 + len(str(len(command))) + sum(sizes) + sum([5 + len(str(size)) for size in sizes])


# Shared by all connections, since it never keeps anything between two calls.
_reader = hiredis.Reader()
