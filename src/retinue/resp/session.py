"""Commands about the connection itself, and those that wait for followers."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from retinue.resp.arguments import Options, integer_of, word_of
from retinue.resp.outcomes import LOADING, read_only
from retinue.resp.replies import NULLS, OK, PONG, CommandError, bulk, integer, mapping, page, text

if TYPE_CHECKING:
    from retinue.resp.client import Client

# The Redis whose commands these are; clients choose by it what they ask for.
REDIS_VERSION = "7.2.0"

# What nobody counts here for a client. redis-py 5 cannot read a description without these numbers.
_NOT_KEPT = (
    "idle=0 flags=N db=0 sub=0 psub=0 ssub=0 multi=-1 qbuf=0 qbuf-free=0 argv-mem=0 multi-mem=0 obl=0 oll=0 omem=0 "
    "tot-mem=0 events=r"
)

_WORD_BYTES = range(ord("!"), ord("~") + 1)


def ping(client: Client, arguments: list[bytes]) -> bytes:
    """PING [message]."""
    return PONG if len(arguments) == 1 else bulk(arguments[1])


def echo(client: Client, arguments: list[bytes]) -> bytes:
    """ECHO message."""
    return bulk(arguments[1])


def select(client: Client, arguments: list[bytes]) -> bytes:
    """SELECT 0: there is one database."""
    if integer_of(arguments[1], "ERR invalid DB index") != 0:
        raise CommandError("ERR DB index is out of range")
    return OK


def quit_(client: Client, arguments: list[bytes]) -> bytes:
    """QUIT."""
    client.ending = True
    return OK


def reset(client: Client, arguments: list[bytes]) -> bytes:
    """RESET: as if the connection had just begun."""
    client.reset()
    client.limits_changed()
    return b"+RESET\r\n"


def auth(client: Client, arguments: list[bytes]) -> bytes:
    """AUTH [user] token."""
    _show(client, arguments[1] if len(arguments) == 3 else None, arguments[-1])
    return OK


def _show(client: Client, user: bytes | None, token: bytes) -> None:
    client.rank = client.accounts.rank_of(user, token)
    client.user = (user or b"default").decode("utf-8", "backslashreplace")
    client.limits_changed()


def hello(client: Client, arguments: list[bytes]) -> bytes:
    """HELLO [version [AUTH user token] [SETNAME name]]."""
    version = client.version
    if len(arguments) > 1:
        version = integer_of(arguments[1], "ERR Protocol version is not an integer or out of range")
        if version not in (2, 3):
            raise CommandError("NOPROTO unsupported protocol version")
    options = Options(arguments[2:])
    name = client.name
    while options:
        word = options.word()
        if word == "AUTH":
            user = options.value()
            _show(client, user, options.value())
        elif word == "SETNAME":
            name = _client_word(options.value(), "Client names")
        else:
            raise CommandError(f"ERR Syntax error in HELLO option '{word.lower()}'")
    if not client.rank:
        raise CommandError(
            "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto> AUTH "
            "<user> <pass> option can be used to authenticate the client and select the RESP protocol version at the "
            "same time"
        )
    client.version, client.name = version, name
    pairs = [
        ("server", text("redis")),
        ("version", text(REDIS_VERSION)),
        ("proto", integer(version)),
        ("id", integer(client.number)),
        ("mode", text("standalone")),
        ("role", text("master" if client.node.role == "leader" else "replica")),
        ("modules", b"*0\r\n"),
    ]
    return mapping(version, [(text(key), value) for key, value in pairs])


# --- CLIENT ---


def client_(client: Client, arguments: list[bytes]) -> bytes:
    """CLIENT ID | GETNAME | SETNAME | SETINFO | INFO | LIST | NO-EVICT | NO-TOUCH | REPLY ON."""
    word, given = word_of(arguments[1]), arguments[2:]
    if word == "ID" and not given:
        return integer(client.number)
    if word == "GETNAME" and not given:
        return text(client.name) if client.name else NULLS[client.version]
    if word == "SETNAME" and len(given) == 1:
        client.name = _client_word(given[0], "Client names")
        return OK
    if word == "SETINFO" and len(given) == 2:
        return _set_info(client, given)
    if word == "INFO" and not given:
        return page(client.version, _described(client))
    if word == "LIST":
        return page(client.version, "".join(map(_described, client.statistics.connections.values())))
    if word in ("NO-EVICT", "NO-TOUCH") and len(given) == 1 and word_of(given[0]) in ("ON", "OFF"):
        return OK
    if word == "REPLY" and len(given) == 1:
        if word_of(given[0]) != "ON":
            raise CommandError("ERR every command is answered here: CLIENT REPLY takes ON only")
        return OK
    raise CommandError(unknown_subcommand("CLIENT", arguments[1]))


def unknown_subcommand(command: str, raw: bytes) -> str:
    """The error for a subcommand that is not there, or that was given too much or too little."""
    shown = raw.decode("utf-8", "backslashreplace")[:128]
    return f"ERR unknown subcommand or wrong number of arguments for '{shown}'. Try {command} HELP."


def _set_info(client: Client, given: list[bytes]) -> bytes:
    word, value = word_of(given[0]), _client_word(given[1], given[0].decode("latin-1").lower())
    if word == "LIB-NAME":
        client.library = value
    elif word == "LIB-VER":
        client.library_version = value
    else:
        raise CommandError(f"ERR Unrecognized option '{given[0].decode('utf-8', 'backslashreplace')}'")
    return OK


def _client_word(raw: bytes, what: str) -> str:
    if any(byte not in _WORD_BYTES for byte in raw):
        raise CommandError(f"ERR {what} cannot contain spaces, newlines or special characters.")
    return raw.decode("ascii")


def _described(client: Client) -> str:
    age_s = int(time.monotonic() - client.begun_s)
    return (
        f"id={client.number} addr={client.address} laddr={client.local_address} name={client.name} age={age_s} "
        f"{_NOT_KEPT} cmd={client.last_command} user={client.user} resp={client.version} lib-name={client.library} "
        f"lib-ver={client.library_version}\n"
    )


# --- waiting for followers ---


def wait(client: Client, arguments: list[bytes]) -> None:
    """WAIT numreplicas timeout: until so many followers have all that this connection has written."""
    needed = integer_of(arguments[1])
    _wait(client, "WAIT", needed, arguments[2], None)


def waitaof(client: Client, arguments: list[bytes]) -> None:
    """WAITAOF numlocal numreplicas timeout: the same, for whatever is acknowledged here is on disk."""
    local, needed = integer_of(arguments[1]), integer_of(arguments[2])
    if not 0 <= local <= 1:
        raise CommandError("ERR value is out of range, must between 0 and 1")
    if local and client.node.settings.memory:
        raise CommandError("ERR WAITAOF cannot be used when numlocal is set but appendonly is disabled.")
    _wait(client, "WAITAOF", needed, arguments[3], local)


def _wait(client: Client, name: str, needed: int, raw_timeout: bytes, local: int | None) -> None:
    timeout_ms = integer_of(raw_timeout, "ERR timeout is not an integer or out of range")
    if timeout_ms < 0:
        raise CommandError("ERR timeout is negative")
    if client.node.replica.leadership is None:
        raise CommandError(f"ERR {name} cannot be used with replica instances. {read_only(client.node)}")
    if not client.node.replica.serving:
        raise CommandError(LOADING)
    client.wait(needed, timeout_ms, with_local=local)
