"""Commands that only read. Each takes its client and its arguments and returns the reply."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from retinue.expiry import now_ms
from retinue.resp import glob
from retinue.resp.arguments import Options, integer_of, word_of
from retinue.resp.replies import (
    EMPTY_LIST,
    NULLS,
    SYNTAX_ERROR,
    CommandError,
    array,
    bulk,
    integer,
    status,
    strings,
    text,
)

if TYPE_CHECKING:
    from retinue.resp.client import Client

REPLY_LIMIT_BYTES = 64 << 20
SCAN_COUNT = 10
SCAN_COUNT_MAX = 100_000
NO_KEY = "ERR no such key"

_LITERAL_PREFIX = re.compile(rb"[^*?\[\\]*")


def get(client: Client, arguments: list[bytes]) -> bytes:
    """GET key."""
    row = client.view.row(arguments[1])
    if row is None:
        return NULLS[client.version]
    value = row.value
    return b"$%d\r\n%b\r\n" % (len(value), value)


def mget(client: Client, arguments: list[bytes]) -> bytes:
    """MGET key [key ...]."""
    rows = [client.view.row(raw) for raw in arguments[1:]]
    if sum([len(row.value) for row in rows if row is not None]) > REPLY_LIMIT_BYTES:
        raise CommandError(f"ERR the values have more than {REPLY_LIMIT_BYTES} bytes: ask for fewer keys at once")
    null = NULLS[client.version]
    return array([null if row is None else bulk(row.value) for row in rows])


def exists(client: Client, arguments: list[bytes]) -> bytes:
    """EXISTS key [key ...]: how many of these keys exist; one that is given twice counts twice."""
    return integer(sum([client.view.row(raw) is not None for raw in arguments[1:]]))


def type_(client: Client, arguments: list[bytes]) -> bytes:
    """TYPE key."""
    return status("none" if client.view.row(arguments[1]) is None else "string")


def strlen(client: Client, arguments: list[bytes]) -> bytes:
    """STRLEN key."""
    row = client.view.row(arguments[1])
    return integer(0 if row is None else len(row.value))


def getrange(client: Client, arguments: list[bytes]) -> bytes:
    """GETRANGE key start end: both ends included, negative ones from the end."""
    first, last = integer_of(arguments[2]), integer_of(arguments[3])
    row = client.view.row(arguments[1])
    value = b"" if row is None else row.value
    size = len(value)
    first = max(first + size, 0) if first < 0 else first
    last = max(last + size, 0) if last < 0 else last
    backwards = integer_of(arguments[2]) < 0 and integer_of(arguments[3]) < 0 and first > last
    return bulk(b"" if backwards or not size else value[first : last + 1])


# --- when a value ends ---


def _end(client: Client, raw_key: bytes, unit_ms: int, *, relative: bool) -> bytes:
    row = client.view.row(raw_key)
    if row is None:
        return integer(-2)
    if not row.expires_ms:
        return integer(-1)
    left = row.expires_ms - (now_ms() if relative else 0)
    return integer((max(left, 0) + (unit_ms // 2 if relative else 0)) // unit_ms)


def ttl(client: Client, arguments: list[bytes]) -> bytes:
    """TTL key."""
    return _end(client, arguments[1], 1000, relative=True)


def pttl(client: Client, arguments: list[bytes]) -> bytes:
    """PTTL key."""
    return _end(client, arguments[1], 1, relative=True)


def expiretime(client: Client, arguments: list[bytes]) -> bytes:
    """EXPIRETIME key."""
    return _end(client, arguments[1], 1000, relative=False)


def pexpiretime(client: Client, arguments: list[bytes]) -> bytes:
    """PEXPIRETIME key."""
    return _end(client, arguments[1], 1, relative=False)


# --- many keys ---


def keys(client: Client, arguments: list[bytes]) -> bytes:
    """KEYS pattern."""
    return strings(_matching(list(client.view.keys(_literal_prefix(arguments[1]))), arguments[1]))


def scan(client: Client, arguments: list[bytes]) -> bytes:
    """SCAN cursor [MATCH pattern] [COUNT count] [TYPE type]."""
    cursor = integer_of(arguments[1], "ERR invalid cursor")
    pattern, count, wanted = b"*", SCAN_COUNT, "STRING"
    options = Options(arguments[2:])
    while options:
        word = options.word()
        if word == "MATCH":
            pattern = options.value()
        elif word == "COUNT":
            count = integer_of(options.value())
        elif word == "TYPE":
            wanted = word_of(options.value())
        else:
            raise CommandError(SYNTAX_ERROR)
    if count < 1:
        raise CommandError(SYNTAX_ERROR)
    following, found = client.view.page(cursor, _literal_prefix(pattern), min(count, SCAN_COUNT_MAX))
    shown = strings(_matching(found, pattern)) if wanted == "STRING" else EMPTY_LIST
    return array([text(str(following)), shown])


def _literal_prefix(pattern: bytes) -> str:
    """How every key that matches begins."""
    literal = _LITERAL_PREFIX.match(pattern)
    assert literal is not None, "nothing is a prefix too"
    return literal[0].decode("utf-8", "ignore")


def _matching(found: list[str], pattern: bytes) -> list[str]:
    if pattern == b"*":
        return found
    if len(pattern) > glob.PATTERN_LIMIT_BYTES:
        raise CommandError("ERR the pattern is too long")
    fits = glob.compiled(pattern).fullmatch
    return [key for key in found if fits(key.encode()) is not None]


def dbsize(client: Client, arguments: list[bytes]) -> bytes:
    """DBSIZE."""
    return integer(client.view.count())


def randomkey(client: Client, arguments: list[bytes]) -> bytes:
    """RANDOMKEY."""
    key = client.view.some_key()
    return NULLS[client.version] if key is None else text(key)


# --- about one key ---

# What a row costs in memory beside key and value: the row, its place in the table, two headers of strings.
ROW_OVERHEAD_BYTES = 250


def memory(client: Client, arguments: list[bytes]) -> bytes:
    """MEMORY USAGE key [SAMPLES n]."""
    if word_of(arguments[1]) != "USAGE" or len(arguments) not in (3, 5):
        raise CommandError(f"ERR unknown subcommand '{arguments[1].decode('latin-1')}'. Try MEMORY USAGE.")
    row = client.view.row(arguments[2])
    if row is None:
        return NULLS[client.version]
    return integer(len(arguments[2]) + len(row.value) + ROW_OVERHEAD_BYTES)


def object_(client: Client, arguments: list[bytes]) -> bytes:
    """OBJECT ENCODING | REFCOUNT | IDLETIME | FREQ key."""
    word = word_of(arguments[1])
    if len(arguments) != 3 or word not in ("ENCODING", "REFCOUNT", "IDLETIME", "FREQ"):
        raise CommandError(f"ERR unknown subcommand '{arguments[1].decode('latin-1')}'. Try OBJECT ENCODING.")
    if client.view.row(arguments[2]) is None:
        raise CommandError(NO_KEY)
    if word == "ENCODING":
        return text("raw")
    return integer(1 if word == "REFCOUNT" else 0)
