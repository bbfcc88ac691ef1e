"""Commands that read a key and write it at once: what each makes of the value it finds.

A step takes what the key holds and returns the reply and what the key holds then; the very same object where nothing is
to be written. Steps are pure, for they may run again when somebody else has changed the key meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal, InvalidOperation, localcontext
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from retinue.core.messages import Encoding
from retinue.resp.arguments import (
    EXPIRY_OPTIONS,
    INTEGER_MAX,
    INTEGER_MIN,
    MILLISECONDS,
    SECONDS,
    Options,
    integer_of,
    key_of,
    moment_of,
)
from retinue.resp.replies import NO_INTEGER, NULLS, OK, ONE, SYNTAX_ERROR, ZERO, CommandError, bulk, error, integer

if TYPE_CHECKING:
    from retinue.settings import Settings

TOO_LONG = "ERR string exceeds maximum allowed size (proto-max-bulk-len)"
NO_FLOAT = "ERR value is not a valid float"
FLOAT_DIGITS = 17


class Held(NamedTuple):
    """What a key holds."""

    value: bytes
    encoding: int = Encoding.RAW
    expires_ms: int = 0


Step = Callable[[Held | None], tuple[bytes, Held | None]]


class Steps(NamedTuple):
    """The steps of one command, one for each key. Where there are several, their replies are numbers to be added."""

    keys: list[str]
    step: Step


def _old(version: int, held: Held | None) -> bytes:
    return NULLS[version] if held is None else bulk(held.value)


# --- SET and its relatives ---


class SetOptions(NamedTuple):
    """The options of SET. `expires_ms` is 0 for a value that stays."""

    expires_ms: int = 0
    keep_ttl: bool = False
    only_absent: bool = False
    only_present: bool = False
    get: bool = False

    @property
    def plain(self) -> bool:
        """Whether the command needs to know nothing of what the key holds."""
        return not (self.keep_ttl or self.only_absent or self.only_present or self.get)


def set_options(arguments: list[bytes]) -> SetOptions:
    """The options after `SET key value`. Raises `CommandError`."""
    given: dict[str, bytes] = {}
    options = Options(arguments)
    while options:
        word = options.word()
        if word in given or word not in ("NX", "XX", "GET", "KEEPTTL", *EXPIRY_OPTIONS):
            raise CommandError(SYNTAX_ERROR)
        given[word] = options.value() if word in EXPIRY_OPTIONS else b""
    timed = [word for word in EXPIRY_OPTIONS if word in given]
    if len(timed) + ("KEEPTTL" in given) > 1 or {"NX", "XX"} <= given.keys():
        raise CommandError(SYNTAX_ERROR)
    expires_ms = 0
    for word in timed:
        unit_ms, relative = EXPIRY_OPTIONS[word]
        expires_ms = moment_of(given[word], unit_ms, relative=relative, command="set")
    return SetOptions(expires_ms, "KEEPTTL" in given, "NX" in given, "XX" in given, "GET" in given)


def set_step(version: int, value: bytes, options: SetOptions, held: Held | None) -> tuple[bytes, Held | None]:
    """SET with conditions, GET or KEEPTTL."""
    if (options.only_absent and held is not None) or (options.only_present and held is None):
        return _old(version, held) if options.get else NULLS[version], held
    expires_ms = held.expires_ms if options.keep_ttl and held is not None else options.expires_ms
    return _old(version, held) if options.get else OK, Held(value, Encoding.RAW, expires_ms)


def setnx(arguments: list[bytes], version: int, settings: Settings) -> Steps:
    """SETNX key value."""
    value = _checked(arguments[2], settings.value_limit_bytes)

    def step(held: Held | None) -> tuple[bytes, Held | None]:
        return (ONE, Held(value)) if held is None else (ZERO, held)

    return Steps([key_of(arguments[1])], step)


def getset(arguments: list[bytes], version: int, settings: Settings) -> Steps:
    """GETSET key value."""
    value = _checked(arguments[2], settings.value_limit_bytes)
    return Steps([key_of(arguments[1])], lambda held: (_old(version, held), Held(value)))


def getdel(arguments: list[bytes], version: int, settings: Settings) -> Steps:
    """GETDEL key."""
    return Steps([key_of(arguments[1])], lambda held: (_old(version, held), None))


def getex(arguments: list[bytes], version: int, settings: Settings) -> Steps:
    """GETEX key with one of its options."""
    options = Options(arguments[2:])
    word = options.word()
    if word in EXPIRY_OPTIONS:
        unit_ms, relative = EXPIRY_OPTIONS[word]
        expires_ms = moment_of(options.value(), unit_ms, relative=relative, command="getex")
    elif word == "PERSIST":
        expires_ms = 0
    else:
        raise CommandError(SYNTAX_ERROR)
    if options:
        raise CommandError(SYNTAX_ERROR)

    def step(held: Held | None) -> tuple[bytes, Held | None]:
        unchanged = held is None or held.expires_ms == expires_ms
        return _old(version, held), held if unchanged or held is None else held._replace(expires_ms=expires_ms)

    return Steps([key_of(arguments[1])], step)


def delete(arguments: list[bytes], version: int, settings: Settings) -> Steps:
    """DEL key [key ...]."""
    return Steps(list(map(key_of, arguments[1:])), lambda held: (ZERO, None) if held is None else (ONE, None))


def append(arguments: list[bytes], version: int, settings: Settings) -> Steps:
    """APPEND key value."""
    limit = settings.value_limit_bytes

    def step(held: Held | None) -> tuple[bytes, Held | None]:
        before = Held(b"") if held is None else held
        if len(before.value) + len(arguments[2]) > limit:
            return error(TOO_LONG), held
        value = before.value + arguments[2]
        return integer(len(value)), Held(value, Encoding.RAW, before.expires_ms)

    return Steps([key_of(arguments[1])], step)


def _checked(value: bytes, limit: int) -> bytes:
    if len(value) > limit:
        raise CommandError(TOO_LONG)
    return value


# --- counters ---


def incr(arguments: list[bytes], version: int, settings: Settings) -> Steps:
    """INCR key."""
    return Steps([key_of(arguments[1])], partial(_add, 1))


def decr(arguments: list[bytes], version: int, settings: Settings) -> Steps:
    """DECR key."""
    return Steps([key_of(arguments[1])], partial(_add, -1))


def incrby(arguments: list[bytes], version: int, settings: Settings) -> Steps:
    """INCRBY key increment."""
    return Steps([key_of(arguments[1])], partial(_add, integer_of(arguments[2])))


def decrby(arguments: list[bytes], version: int, settings: Settings) -> Steps:
    """DECRBY key decrement."""
    amount = integer_of(arguments[2])
    if amount == INTEGER_MIN:
        raise CommandError("ERR decrement would overflow")
    return Steps([key_of(arguments[1])], partial(_add, -amount))


def _add(amount: int, held: Held | None) -> tuple[bytes, Held | None]:
    """A number that was written as JSON stays one."""
    before = Held(b"0") if held is None else held
    try:
        number = integer_of(before.value, NO_INTEGER) + amount
    except CommandError as failed:
        return error(str(failed)), held
    if not INTEGER_MIN <= number <= INTEGER_MAX:
        return error("ERR increment or decrement would overflow"), held
    return integer(number), before._replace(value=b"%d" % number)


def incrbyfloat(arguments: list[bytes], version: int, settings: Settings) -> Steps:
    """INCRBYFLOAT key increment."""
    return Steps([key_of(arguments[1])], partial(_add_float, _decimal(arguments[2])))


def _add_float(amount: Decimal, held: Held | None) -> tuple[bytes, Held | None]:
    before = Held(b"0") if held is None else held
    try:
        with localcontext(prec=FLOAT_DIGITS):
            number = _decimal(before.value) + amount
    except CommandError as failed:
        return error(str(failed)), held
    shown = f"{number:f}"
    value = (shown.rstrip("0").rstrip(".") if "." in shown else shown).encode()
    return bulk(value), before._replace(value=value)


def _decimal(raw: bytes) -> Decimal:
    try:
        number = Decimal(raw.decode("ascii"))
    except (InvalidOperation, UnicodeDecodeError):
        number = Decimal("NaN")
    # Beyond this a double has no such number either; and it would be written with as many digits.
    if not number.is_finite() or abs(number.adjusted()) > 300 or raw != raw.strip() or b"_" in raw:
        raise CommandError(NO_FLOAT)
    return number


# --- when a value ends ---


def _expire(unit_ms: int, relative: bool, arguments: list[bytes], version: int, settings: Settings) -> Steps:
    name = arguments[0].decode("latin-1").lower()
    moment = moment_of(arguments[2], unit_ms, relative=relative, command=name, positive=False)
    given = {raw.decode("latin-1").upper() for raw in arguments[3:]}
    for word in sorted(given - {"NX", "XX", "GT", "LT"}):
        raise CommandError(f"ERR Unsupported option {word}")
    if "NX" in given and len(given) > 1:
        raise CommandError("ERR NX and XX, GT or LT options at the same time are not compatible")
    if {"GT", "LT"} <= given:
        raise CommandError("ERR GT and LT options at the same time are not compatible")

    def step(held: Held | None) -> tuple[bytes, Held | None]:
        if held is None:
            return ZERO, None
        before = held.expires_ms
        refused = (
            ("NX" in given and before)
            or ("XX" in given and not before)
            or ("GT" in given and (not before or moment <= before))
            or ("LT" in given and before and moment >= before)
        )
        return (ZERO, held) if refused else (ONE, held._replace(expires_ms=moment))

    return Steps([key_of(arguments[1])], step)


expire = partial(_expire, SECONDS, True)
pexpire = partial(_expire, MILLISECONDS, True)
expireat = partial(_expire, SECONDS, False)
pexpireat = partial(_expire, MILLISECONDS, False)


def persist(arguments: list[bytes], version: int, settings: Settings) -> Steps:
    """PERSIST key."""

    def step(held: Held | None) -> tuple[bytes, Held | None]:
        lasting = held is None or not held.expires_ms
        return (ZERO, held) if lasting or held is None else (ONE, held._replace(expires_ms=0))

    return Steps([key_of(arguments[1])], step)
