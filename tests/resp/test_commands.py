"""Every command: its replies in both protocols, and its errors in the words of Redis."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from retinue.resp.accounts import NO_PASSWORD_SET
from retinue.resp.table import COMMANDS, Command
from tests.resp.serving import Raw, RespServed, encoded

INT = "ERR value is not an integer or out of range"
SYNTAX = "ERR syntax error"

# Each line: what is sent, and the reply without its last end of line. The keys are this test's own.
CONVERSATION: list[tuple[str, str]] = [
    ("PING", "+PONG"),
    ("ping hello", "$5\r\nhello"),
    ("ECHO a", "$1\r\na"),
    ("SELECT 0", "+OK"),
    ("SELECT 1", "-ERR DB index is out of range"),
    ("SELECT x", "-ERR invalid DB index"),
    ("GET c:a", "$-1"),
    ("SET c:a 1", "+OK"),
    ("GET c:a", "$1\r\n1"),
    ("GeT c:a", "$1\r\n1"),
    ("SET c:a 2 NX", "$-1"),
    ("SET c:b 2 XX", "$-1"),
    ("SET c:a 2 XX GET", "$1\r\n1"),
    ("SET c:a 3 NX GET", "$1\r\n2"),
    ("SET c:a 2 GET", "$1\r\n2"),
    ("SET c:a 2 NX XX", f"-{SYNTAX}"),
    ("SET c:a 2 EX", f"-{SYNTAX}"),
    ("SET c:a 2 EX 1 PX 1", f"-{SYNTAX}"),
    ("SET c:a 2 EX 1 KEEPTTL", f"-{SYNTAX}"),
    ("SET c:a 2 EX 0", "-ERR invalid expire time in 'set' command"),
    ("SET c:a 2 EX 9223372036854775807", "-ERR invalid expire time in 'set' command"),
    ("SET c:a 2 EX x", f"-{INT}"),
    ("SET c:a 2 FOO", f"-{SYNTAX}"),
    ("SETNX c:a 9", ":0"),
    ("SETNX c:n 9", ":1"),
    ("GETSET c:n 8", "$1\r\n9"),
    ("GETDEL c:n", "$1\r\n8"),
    ("GETDEL c:n", "$-1"),
    ("INCR c:a", ":3"),
    ("DECR c:a", ":2"),
    ("INCRBY c:a 40", ":42"),
    ("DECRBY c:a 50", ":-8"),
    ("INCRBY c:a x", f"-{INT}"),
    ("INCRBY c:a 01", f"-{INT}"),
    ("SET c:a 9223372036854775807", "+OK"),
    ("INCR c:a", "-ERR increment or decrement would overflow"),
    ("DECRBY c:a -9223372036854775808", "-ERR decrement would overflow"),
    ("SET c:a ten", "+OK"),
    ("INCR c:a", f"-{INT}"),
    ("INCRBYFLOAT c:f 1.5", "$3\r\n1.5"),
    ("INCRBYFLOAT c:f 1.5e3", "$6\r\n1501.5"),
    ("INCRBYFLOAT c:f -1501.5", "$1\r\n0"),
    ("INCRBYFLOAT c:f nan", "-ERR value is not a valid float"),
    ("INCRBYFLOAT c:a 1", "-ERR value is not a valid float"),
    ("APPEND c:a s", ":4"),
    ("APPEND c:p new", ":3"),
    ("STRLEN c:a", ":4"),
    ("STRLEN c:x", ":0"),
    ("GETRANGE c:a 1 -2", "$2\r\nen"),
    ("GETRANGE c:a 0 100", "$4\r\ntens"),
    ("GETRANGE c:a -1 -3", "$0\r\n"),
    ("GETRANGE c:x 0 -1", "$0\r\n"),
    ("MSET c:1 a c:2 b c:1 c", "+OK"),
    ("MSET c:1 a c:2", "-ERR wrong number of arguments for 'mset' command"),
    ("MGET c:1 c:2 c:x", "*3\r\n$1\r\nc\r\n$1\r\nb\r\n$-1"),
    ("EXISTS c:1 c:2 c:x c:1", ":3"),
    ("TYPE c:1", "+string"),
    ("TYPE c:x", "+none"),
    ("TTL c:1", ":-1"),
    ("TTL c:x", ":-2"),
    ("EXPIRETIME c:1", ":-1"),
    ("EXPIRE c:1 100", ":1"),
    ("TTL c:1", ":100"),
    ("EXPIRE c:1 50 GT", ":0"),
    ("EXPIRE c:1 50 LT", ":1"),
    ("EXPIRE c:1 70 NX", ":0"),
    ("EXPIRE c:1 70 XX", ":1"),
    ("EXPIRE c:1 70 NX GT", "-ERR NX and XX, GT or LT options at the same time are not compatible"),
    ("EXPIRE c:1 70 GT LT", "-ERR GT and LT options at the same time are not compatible"),
    ("EXPIRE c:1 70 FOO", "-ERR Unsupported option FOO"),
    ("EXPIRE c:x 70", ":0"),
    ("EXPIRE c:1 9223372036854775807", "-ERR invalid expire time in 'expire' command"),
    ("PERSIST c:1", ":1"),
    ("PERSIST c:1", ":0"),
    ("EXPIREAT c:1 4000000000", ":1"),
    ("EXPIRETIME c:1", ":4000000000"),
    ("PEXPIREAT c:1 4000000000123", ":1"),
    ("PEXPIRETIME c:1", ":4000000000123"),
    ("SET c:1 z KEEPTTL", "+OK"),
    ("PEXPIRETIME c:1", ":4000000000123"),
    ("GETEX c:1 PERSIST", "$1\r\nz"),
    ("PTTL c:1", ":-1"),
    ("GETEX c:1 EXAT 4000000000", "$1\r\nz"),
    ("GETEX c:1", "$1\r\nz"),
    ("GETEX c:1 FOO", f"-{SYNTAX}"),
    ("GETEX c:1 EX 1 EX 2", f"-{SYNTAX}"),
    ("EXPIRETIME c:1", ":4000000000"),
    ("SET c:1 y", "+OK"),
    ("EXPIRETIME c:1", ":-1"),
    ("SETEX c:1 100 y", "+OK"),
    ("TTL c:1", ":100"),
    ("PSETEX c:1 100000 y", "+OK"),
    ("TTL c:1", ":100"),
    ("SETEX c:1 0 y", "-ERR invalid expire time in 'setex' command"),
    ("EXPIRE c:1 -1", ":1"),
    ("EXISTS c:1", ":0"),
    ("DEL c:2 c:2 c:x", ":1"),
    ("UNLINK c:p", ":1"),
    ("DEL c:p", ":0"),
    ("OBJECT ENCODING c:a", "$3\r\nraw"),
    ("OBJECT REFCOUNT c:a", ":1"),
    ("OBJECT FREQ c:x", "-ERR no such key"),
    ("MEMORY USAGE c:x", "$-1"),
    ("MEMORY USAGE c:a", ":257"),
    ("CLIENT SETNAME me", "+OK"),
    ("CLIENT GETNAME", "$2\r\nme"),
    ("CLIENT SETINFO LIB-NAME lib", "+OK"),
    ("CLIENT SETINFO LIB-VER 1", "+OK"),
    ("CLIENT SETINFO FOO 1", "-ERR Unrecognized option 'FOO'"),
    ("CLIENT NO-EVICT ON", "+OK"),
    ("CLIENT REPLY ON", "+OK"),
    ("CLIENT FOO", "-ERR unknown subcommand or wrong number of arguments for 'FOO'. Try CLIENT HELP."),
    ("CONFIG GET save", "*2\r\n$4\r\nsave\r\n$0\r\n"),
    ("CONFIG GET appendonly databases", "*4\r\n$10\r\nappendonly\r\n$2\r\nno\r\n$9\r\ndatabases\r\n$1\r\n1"),
    ("CONFIG SET a b", "-ERR unknown subcommand or wrong number of arguments for 'SET'. Try CONFIG HELP."),
    ("WAIT 0 0", ":0"),
    ("WAIT x 0", f"-{INT}"),
    ("WAIT 1 -1", "-ERR timeout is negative"),
    ("WAITAOF 1 0 0", "-ERR WAITAOF cannot be used when numlocal is set but appendonly is disabled."),
    ("WAITAOF 0 0 0", "*2\r\n:0\r\n:0"),
    ("WAITAOF 2 0 0", "-ERR value is out of range, must between 0 and 1"),
    ("GET", "-ERR wrong number of arguments for 'get' command"),
    ("GET a b", "-ERR wrong number of arguments for 'get' command"),
    ("FOO", "-ERR unknown command 'FOO', with args beginning with: "),
    ("FLUSHALL a b", "-ERR unknown command 'FLUSHALL', with args beginning with: 'a' 'b' "),
    ("MULTI", "-ERR unknown command 'MULTI', with args beginning with: "),
    ("AUTH x", f"-{NO_PASSWORD_SET}"),
    ("AUTH default x", "+OK"),
    ("AUTH somebody x", "-WRONGPASS invalid username-password pair or user is disabled."),
    ("HELLO 4", "-NOPROTO unsupported protocol version"),
    ("HELLO x", "-ERR Protocol version is not an integer or out of range"),
    ("HELLO 2 FOO", "-ERR Syntax error in HELLO option 'foo'"),
    ("SCAN x", "-ERR invalid cursor"),
    ("SCAN 12345", "-ERR invalid cursor"),
    ("SCAN 0 COUNT 0", f"-{SYNTAX}"),
    ("SCAN 0 FOO", f"-{SYNTAX}"),
    ("SCAN 0 TYPE hash COUNT 100000", "*2\r\n$1\r\n0\r\n*0"),
    ("COMMAND INFO nope", "*1\r\n*-1"),
    ("RESET", "+RESET"),
    ("CLIENT GETNAME", "$-1"),
]  # fmt: skip


def test_a_long_conversation(talk: Raw) -> None:
    for sent, expected in CONVERSATION:
        assert (sent, talk(*sent.split()).decode()) == (sent, expected)


def test_version_three_has_its_own_nulls_maps_sets_and_texts(talk: Raw) -> None:
    talk("SET", "c3:a", "1")
    assert talk("HELLO", "3").startswith(b"%7\r\n$6\r\nserver\r\n$5\r\nredis\r\n")
    assert talk("GET", "c3:x") == b"_"
    assert talk("MGET", "c3:a", "c3:x") == b"*2\r\n$1\r\n1\r\n_"
    assert talk("CONFIG", "GET", "save") == b"%1\r\n$4\r\nsave\r\n$0\r\n"
    assert talk("SET", "c3:a", "2", "NX") == b"_"
    assert talk("INFO", "cpu").startswith(b"=")
    assert b"~2\r\n+readonly\r\n+fast" in talk("COMMAND", "INFO", "get")
    assert talk("COMMAND", "DOCS", "get").startswith(b"%1\r\n$3\r\nget\r\n%3\r\n")
    assert talk("HELLO", "2", "SETNAME", "me").startswith(b"*14\r\n")
    assert talk("CLIENT", "GETNAME") == b"$2\r\nme"


def test_values_are_bytes(talk: Raw) -> None:
    value = bytes(range(256))
    assert talk("SET", "bytes", value) == b"+OK"
    assert talk("GET", "bytes") == b"$256\r\n" + value


@pytest.mark.parametrize("key", [b"", b"x" * 1025, b"\xff", b"\xed\xa0\x80"])
def test_keys_that_cannot_be_are_refused(talk: Raw, key: bytes) -> None:
    for command in (
        (b"SET", key, b"v"),
        (b"GET", key),
        (b"INCR", key),
        (b"DEL", b"k", key),
        (b"MSET", b"k", b"v", key, b"v"),
    ):
        assert talk(*command) == b"-ERR a key has 1 to 1024 bytes of UTF-8"
    assert talk("SET", "x" * 1024, "v") == b"+OK"


def test_values_beyond_the_limit_are_refused(
    start_single: Callable[..., RespServed], connect: Callable[..., Raw]
) -> None:
    talk = connect(start_single(value_limit_bytes=10, batch_limit=2))
    too_long = b"-ERR string exceeds maximum allowed size (proto-max-bulk-len)"
    assert talk("SET", "k", "x" * 10) == b"+OK"
    for command in (("SET", "k", "x" * 11), ("SETNX", "n", "x" * 11), ("APPEND", "k", "x"), ("MSET", "k", "x" * 11)):
        assert talk(*command) == too_long
    assert talk("MSET", "a", "1", "b", "2", "c", "3") == b"-ERR a batch has at most 2 keys (batch_limit)"
    assert talk("GET", "k") == b"$10\r\nxxxxxxxxxx"


def test_both_doors_show_the_same_values(talk: Raw, single: RespServed) -> None:
    talk("SET", "door", "gr\u00fc\u00df")
    assert single("GET", "/kv/door").json()["value"] == "gr\u00fc\u00df"
    single("PUT", "/kv/door", {"value": "bl\u00e5"})
    assert talk("GET", "door") == b"$4\r\n" + "bl\u00e5".encode()
    single("PUT", "/kv/door", {"value": {"a": [1, None]}})
    assert talk("GET", "door") == b'$14\r\n{"a":[1,null]}'
    single("PUT", "/kv/door", {"value": 41})
    assert talk("INCR", "door") == b":42"
    assert single("GET", "/kv/door").json()["value"] == 42
    talk("SET", "door", b"\xff\x00")
    assert single("GET", "/kv/door").json()["encoding"] == "base64"
    talk("DEL", "door")
    assert single("GET", "/kv/door").status == 404


def test_keys_are_found_by_pattern_and_by_pages(
    start_single: Callable[..., RespServed], connect: Callable[..., Raw]
) -> None:
    talk = connect(start_single())
    names = {b"s:%03d" % number for number in range(250)}
    talk("MSET", *[part for name in names for part in (name, b"v")], "other", "v")
    assert talk("DBSIZE") == b":251"
    assert talk("KEYS", "s:1[0-4]?").count(b"$5") == 50
    assert talk("KEYS", "*").startswith(b"*251\r\n")
    odd = {name for name in names if name.endswith(b"1")}
    for words, expected in (
        (("MATCH", "s:*"), names),
        (("MATCH", "s:*", "COUNT", "7"), names),
        (("COUNT", "1000"), names | {b"other"}),
        (("MATCH", "*1", "COUNT", "100", "TYPE", "string"), odd),
    ):
        found, cursor = scanned(talk, b"0", *words)
        while cursor != b"0":
            more, cursor = scanned(talk, cursor, *words)
            found += more
        assert sorted(found) == sorted(expected)
    assert talk("RANDOMKEY").startswith(b"$5\r\n")


def scanned(talk: Raw, cursor: bytes, *words: str) -> tuple[list[bytes], bytes]:
    """One page of a scan, and the cursor for the next."""
    talk.send(encoded("SCAN", cursor, *words))
    lines = talk.reply().split(b"\r\n")
    return [key for key in lines[5::2] if key], lines[2]


def test_a_scan_goes_on_while_keys_come_and_go(
    start_single: Callable[..., RespServed], connect: Callable[..., Raw]
) -> None:
    talk = connect(start_single())
    talk("MSET", *[part for number in range(100) for part in (f"k:{number:02}", "v")])
    found, cursor = scanned(talk, b"0", "COUNT", "9")
    turn = 0
    while cursor != b"0":
        turn += 1
        talk("SET", f"j:{turn}", "v")
        talk("DEL", f"k:{turn:02}")
        more, cursor = scanned(talk, cursor, "COUNT", "9")
        found += more
    assert set(found) >= {b"k:%02d" % number for number in range(turn + 1, 100)}


def test_info_has_what_tools_look_at(talk: Raw) -> None:
    shown = talk("INFO").decode()
    fields = dict(line.split(":", 1) for line in shown.split("\r\n") if ":" in line)
    assert fields["redis_version"].startswith("7.")
    assert fields["role"] == "master"
    assert int(fields["used_memory"]) > 1_000_000
    assert int(fields["total_commands_processed"]) > 0
    assert int(fields["connected_clients"]) >= 1
    assert "keys=" in fields.get("db0", "keys=")
    only = talk("INFO", "replication", "cpu").decode()
    assert "# Replication" in only
    assert "# CPU" in only
    assert "# Clients" not in only


def test_role_time_and_clients(talk: Raw, single: RespServed) -> None:
    talk("SET", "role", "1")
    version = single.last_version
    assert talk("ROLE") == b"*3\r\n$6\r\nmaster\r\n:%d\r\n*0" % version
    seconds = int(talk("TIME").split(b"\r\n")[2])
    assert abs(seconds - time.time()) < 60
    number = int(talk("CLIENT", "ID")[1:])
    assert f"id={number} addr=127.0.0.1:".encode() in talk("CLIENT", "LIST")
    shown = dict(word.split(b"=", 1) for word in talk("CLIENT", "INFO").split()[1:])
    assert shown[b"resp"] == b"2"
    # The numbers without which redis-py 5 cannot read it.
    wanted = b"id age idle db sub psub multi qbuf qbuf-free obl argv-mem oll omem tot-mem".split()
    assert all(int(shown[name]) >= -1 for name in wanted)


def test_every_command_is_described(talk: Raw) -> None:
    assert talk("COMMAND", "COUNT") == b":%d" % len(COMMANDS)
    listed = talk("COMMAND", "LIST")
    assert all(command.name.encode() in listed for command in COMMANDS)
    get = b"*10\r\n$3\r\nget\r\n:2\r\n*2\r\n+readonly\r\n+fast\r\n:1\r\n:1\r\n:1\r\n*1\r\n+@read\r\n*0\r\n*0\r\n*0"
    assert talk("COMMAND", "INFO", "get") == b"*1\r\n" + get
    assert talk("COMMAND").startswith(b"*%d\r\n" % len(COMMANDS))


@pytest.mark.parametrize("known", COMMANDS, ids=lambda command: command.name)
def test_a_wrong_number_of_arguments_is_told(talk: Raw, known: Command) -> None:
    fewest = abs(known.arity) - 1
    for count in {fewest - 1, fewest + 1 if known.arity > 0 else fewest - 1} - {-1}:
        assert (
            talk(known.name, *["1"] * count) == b"-ERR wrong number of arguments for '%b' command" % known.name.encode()
        )


def test_commands_are_counted(talk: Raw, single: RespServed) -> None:
    def counted() -> float:
        text = single("GET", "/metrics").body.decode()
        [line] = [
            line for line in text.splitlines() if line.startswith('retinue_resp_commands_total{command="strlen"}')
        ]
        return float(line.split()[1])

    talk("STRLEN", "k")
    before = counted()
    talk("STRLEN", "k")
    assert counted() == before + 1


def test_the_port_is_shown(single: RespServed) -> None:
    assert single("GET", "/config").json()["resp_port"] == single.resp.port
