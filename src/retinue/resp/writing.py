"""Commands that write without looking: their changes are proposed at once, so that a pipeline is one group commit."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from retinue.core.messages import Change, Encoding, Kind
from retinue.resp.arguments import MILLISECONDS, SECONDS, key_of, moment_of
from retinue.resp.changing import TOO_LONG, Steps, set_options, set_step
from retinue.resp.replies import CommandError

if TYPE_CHECKING:
    from retinue.settings import Settings

Changes = tuple[Change, ...]


def put(raw_key: bytes, value: bytes, limit: int, expires_ms: int = 0) -> Change:
    """One key and its value. Raises `CommandError` where one of them is not allowed."""
    if len(value) > limit:
        raise CommandError(TOO_LONG)
    return Change(Kind.PUT, key_of(raw_key), value, Encoding.RAW, expires_ms)


def set_(arguments: list[bytes], version: int, settings: Settings) -> Changes | Steps:
    """SET key value with its options."""
    options = set_options(arguments[3:])
    change = put(arguments[1], arguments[2], settings.value_limit_bytes, options.expires_ms)
    if options.plain:
        return (change,)
    return Steps([change.key], partial(set_step, version, change.value, options))


def _setex(unit_ms: int, arguments: list[bytes], version: int, settings: Settings) -> Changes | Steps:
    name = arguments[0].decode("latin-1").lower()
    expires_ms = moment_of(arguments[2], unit_ms, relative=True, command=name)
    return (put(arguments[1], arguments[3], settings.value_limit_bytes, expires_ms),)


setex = partial(_setex, SECONDS)
psetex = partial(_setex, MILLISECONDS)


def mset(arguments: list[bytes], version: int, settings: Settings) -> Changes | Steps:
    """MSET key value [key value ...]: one batch; of a key that is there twice the last value counts."""
    if len(arguments) % 2 == 0:
        raise CommandError("ERR wrong number of arguments for 'mset' command")
    limit, most, most_bytes = settings.value_limit_bytes, settings.batch_limit, settings.batch_limit_bytes
    pairs = zip(arguments[1::2], arguments[2::2], strict=True)
    changes = {change.key: change for key, value in pairs for change in (put(key, value, limit),)}
    if len(changes) > most:
        raise CommandError(f"ERR a batch has at most {most} keys (batch_limit)")
    if sum(map(len, arguments)) > most_bytes:
        raise CommandError(f"ERR a batch has at most {most_bytes} bytes (batch_limit_bytes)")
    return tuple(changes.values())
