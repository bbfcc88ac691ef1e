"""Every command once: how many arguments it takes, what it needs of a client, what it does."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from retinue.resp import changing, describing, reading, session, writing
from retinue.resp.accounts import NOBODY, READ, WRITE
from retinue.resp.arguments import word_of
from retinue.resp.changing import Steps
from retinue.resp.replies import CommandError, array, integer, mapping, statuses, strings, text
from retinue.resp.writing import Changes

if TYPE_CHECKING:
    from retinue.resp.client import Client
    from retinue.settings import Settings

Read = Callable[["Client", list[bytes]], bytes | None]
Write = Callable[[list[bytes], int, "Settings"], Changes | Steps]


class Command(NamedTuple):
    """One command. `arity` counts the name; a negative one is the least number.

    `read` returns the reply, or `None` where that comes later; `write` what is to be written. A command that has both
    only reads when it is given nothing but a key. `keys` are the places of the first and the last key, and the step.
    """

    name: str
    arity: int
    summary: str
    read: Read | None = None
    write: Write | None = None
    rank: int = READ
    keys: tuple[int, int, int] = (0, 0, 0)
    group: str = "connection"

    def accepts(self, count: int) -> bool:
        """Whether it may be given so many arguments."""
        return count == self.arity or count >= -self.arity > 0


_ONE_KEY, _KEYS, _PAIRS = (1, 1, 1), (1, -1, 1), (1, -1, 2)


def _reads(
    name: str, arity: int, read: Read, summary: str, *, keys: tuple[int, int, int] = _ONE_KEY, group: str = "string"
) -> Command:
    return Command(name, arity, summary, read=read, keys=keys, group=group)


def _writes(
    name: str, arity: int, write: Write, summary: str, *, keys: tuple[int, int, int] = _ONE_KEY, group: str = "string"
) -> Command:
    return Command(name, arity, summary, write=write, rank=WRITE, keys=keys, group=group)


_GENERIC: tuple[Command, ...] = (
    _writes("del", -2, changing.delete, "Deletes keys.", keys=_KEYS, group="generic"),
    _writes("unlink", -2, changing.delete, "Deletes keys.", keys=_KEYS, group="generic"),
    _reads("exists", -2, reading.exists, "Counts which of these keys exist.", keys=_KEYS, group="generic"),
    _reads("type", 2, reading.type_, "The type of a value.", group="generic"),
    _writes("expire", -3, changing.expire, "Sets in how many seconds a value ends.", group="generic"),
    _writes("pexpire", -3, changing.pexpire, "Sets in how many milliseconds a value ends.", group="generic"),
    _writes("expireat", -3, changing.expireat, "Sets the second at which a value ends.", group="generic"),
    _writes("pexpireat", -3, changing.pexpireat, "Sets the millisecond at which a value ends.", group="generic"),
    _writes("persist", 2, changing.persist, "Lets a value stay.", group="generic"),
    _reads("ttl", 2, reading.ttl, "In how many seconds a value ends.", group="generic"),
    _reads("pttl", 2, reading.pttl, "In how many milliseconds a value ends.", group="generic"),
    _reads("expiretime", 2, reading.expiretime, "The second at which a value ends.", group="generic"),
    _reads("pexpiretime", 2, reading.pexpiretime, "The millisecond at which a value ends.", group="generic"),
    _reads("keys", 2, reading.keys, "The keys that match a pattern.", keys=(0, 0, 0), group="generic"),
    _reads("scan", -2, reading.scan, "The keys, a page at a time.", keys=(0, 0, 0), group="generic"),
    _reads("randomkey", 1, reading.randomkey, "Some key.", keys=(0, 0, 0), group="generic"),
    _reads("object", -2, reading.object_, "About the value of a key.", keys=(2, 2, 1), group="generic"),
    Command("wait", 3, "Waits until followers have what this connection wrote.", read=session.wait, group="generic"),
    Command("waitaof", 4, "The same; every copy is on disk.", read=session.waitaof, group="generic"),
)

_STRINGS: tuple[Command, ...] = (
    _reads("get", 2, reading.get, "The value of a key."),
    _reads("mget", -2, reading.mget, "The values of keys.", keys=_KEYS),
    _reads("strlen", 2, reading.strlen, "The length of a value."),
    _reads("getrange", 4, reading.getrange, "A part of a value."),
    _writes("set", -3, writing.set_, "Sets the value of a key."),
    _writes("mset", -3, writing.mset, "Sets several keys at once, all or none.", keys=_PAIRS),
    _writes("setnx", 3, changing.setnx, "Sets the value of a key that has none."),
    _writes("setex", 4, writing.setex, "Sets a value that ends in some seconds."),
    _writes("psetex", 4, writing.psetex, "Sets a value that ends in some milliseconds."),
    _writes("getset", 3, changing.getset, "Sets a value and returns the one before."),
    _writes("getdel", 2, changing.getdel, "Deletes a key and returns its value."),
    Command(
        "getex",
        -2,
        "Returns a value and sets when it ends.",
        read=reading.get,
        write=changing.getex,
        rank=WRITE,
        keys=_ONE_KEY,
        group="string",
    ),
    _writes("append", 3, changing.append, "Adds to the end of a value."),
    _writes("incr", 2, changing.incr, "Adds one."),
    _writes("decr", 2, changing.decr, "Takes one away."),
    _writes("incrby", 3, changing.incrby, "Adds a whole number."),
    _writes("decrby", 3, changing.decrby, "Takes a whole number away."),
    _writes("incrbyfloat", 3, changing.incrbyfloat, "Adds a decimal number."),
)

_CONNECTION: tuple[Command, ...] = (
    Command("ping", -1, "Says PONG, or the message.", read=session.ping),
    Command("echo", 2, "Says the message.", read=session.echo),
    Command("auth", -2, "Shows a token.", read=session.auth, rank=NOBODY),
    Command("hello", -1, "Chooses the protocol version.", read=session.hello, rank=NOBODY),
    Command("select", 2, "Chooses database 0.", read=session.select),
    Command("client", -2, "About client connections.", read=session.client_),
    Command("quit", -1, "Closes the connection.", read=session.quit_, rank=NOBODY),
    Command("reset", 1, "Begins the connection anew.", read=session.reset, rank=NOBODY),
    Command("dbsize", 1, "How many keys there are.", read=reading.dbsize, group="server"),
    Command("info", -1, "About the node.", read=describing.info, group="server"),
    Command("role", 1, "Whether this node leads, and who follows.", read=describing.role, group="server"),
    Command("config", -2, "Settings, as clients of Redis ask for them.", read=describing.config, group="server"),
    Command("time", 1, "The wall clock of the node.", read=describing.time_, group="server"),
    Command("memory", -2, "How much memory a key takes.", read=reading.memory, group="server"),
)

# --- the command COMMAND ---


def _command(client: Client, arguments: list[bytes]) -> bytes:
    """COMMAND [COUNT | LIST | INFO [name ...] | DOCS [name ...]]."""
    word = word_of(arguments[1]) if len(arguments) > 1 else "INFO"
    names = [raw.decode("utf-8", "backslashreplace").lower() for raw in arguments[2:]]
    if word == "COUNT" and not names:
        return integer(len(_known([])))
    if word == "LIST" and not names:
        return strings([command.name for command in _known([]) if command is not None])
    if word == "INFO":
        return array([b"*-1\r\n" if command is None else _described(client, command) for command in _known(names)])
    if word == "DOCS":
        shown = [command for command in _known(names) if command is not None]
        return mapping(client.version, [(text(command.name), _documented(client, command)) for command in shown])
    raise CommandError(session.unknown_subcommand("COMMAND", arguments[1]))


def _described(client: Client, command: Command) -> bytes:
    flags = ["write" if command.rank == WRITE else "readonly", "fast"]
    category = "@write" if command.rank == WRITE else "@read"
    lists = [statuses(client.version, [category]), array([]), array([]), array([])]
    first, last, step = command.keys
    numbers = [integer(first), integer(last), integer(step)]
    return array([text(command.name), integer(command.arity), statuses(client.version, flags), *numbers, *lists])


def _documented(client: Client, command: Command) -> bytes:
    facts = {"summary": command.summary, "since": "1.0.0", "group": command.group}
    return mapping(client.version, [(text(name), text(value)) for name, value in facts.items()])


COMMANDS: tuple[Command, ...] = (
    *_GENERIC,
    *_STRINGS,
    *_CONNECTION,
    Command("command", -1, "The commands of this node.", read=_command, group="server"),
)


def _known(names: list[str]) -> list[Command | None]:
    """The commands of these names, `None` for one that is not there; all of them if none is named."""
    listed = {command.name: command for command in COMMANDS}
    return [listed.get(name) for name in names] if names else list(COMMANDS)
