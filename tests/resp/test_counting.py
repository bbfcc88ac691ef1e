"""Commands that read and write at once, from many clients, against other writers of the same keys."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from tests.http.serving import Client, Cluster
from tests.resp.serving import Raw, RespHost, RespServed, encoded

Connect = Callable[..., Raw]


@pytest.fixture(scope="module")
def slow(resp_host: RespHost) -> Iterator[RespServed]:
    """The leader of a cluster whose replication takes some milliseconds, in no order."""
    cluster = Cluster(resp_host, min_delay_ms=0, max_delay_ms=4, seed=7)
    assert isinstance(cluster.leader, RespServed)
    yield cluster.leader
    cluster.stop()


def in_threads(work: Callable[[int], None], count: int) -> None:
    failures: list[BaseException] = []

    def guarded(number: int) -> None:
        try:
            work(number)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []


def test_every_increment_counts_once_and_is_seen_by_what_follows(slow: RespServed, connect: Connect) -> None:
    clients, each = 8, 60
    connections = [connect(slow) for _ in range(clients)]
    seen: list[list[int]] = [[] for _ in range(clients)]

    def count(number: int) -> None:
        talk = connections[number]
        for turn in range(each):
            if turn % 3:
                seen[number].append(int(talk("INCR", "hot")[1:]))
            else:
                talk.send(encoded("INCR", "hot") * 2 + encoded("GET", "hot"))
                first, second = int(talk.reply()[1:]), int(talk.reply()[1:])
                shown = int(talk.reply().split(b"\r\n")[1])
                assert first < second <= shown
                seen[number] += [first, second]

    in_threads(count, clients)
    numbers = [number for found in seen for number in found]
    assert sorted(numbers) == list(range(1, len(numbers) + 1))
    # Real time: what one client saw rises, for each of its commands began after the one before was answered.
    assert all(found == sorted(found) for found in seen)


def test_a_hot_counter_costs_far_fewer_versions_than_increments(slow: RespServed, connect: Connect) -> None:
    talk = connect(slow)
    before = slow.last_version
    talk.send(encoded("INCR", "cheap") * 1000)
    assert [talk.reply() for _ in range(1000)] == [b":%d\r\n" % n for n in range(1, 1001)]
    assert slow.last_version - before < 100


def test_plain_writes_between_increments_lose_nothing(slow: RespServed, connect: Connect) -> None:
    """Whoever sets the counter to a number above all others sees every later increment start from there."""
    connections = [connect(slow) for _ in range(6)]
    seen: list[int] = []

    def work(number: int) -> None:
        talk = connections[number]
        if number == 0:
            for turn in range(1, 21):
                assert talk("SET", "mixed", turn * 100_000) == b"+OK"
        elif number == 1:
            client = Client(slow.door.port)
            for turn in range(10):
                assert client("PUT", "/kv/mixed", {"value": 50_000_000 + turn * 100_000}).status == 200
            client.close()
        else:
            for _ in range(40):
                reply = talk("INCR", "mixed")
                assert reply[:1] == b":"
                seen.append(int(reply[1:]))

    in_threads(work, 6)
    assert len(seen) == len(set(seen)) == 160


def test_one_of_many_takes_a_lock(slow: RespServed, connect: Connect) -> None:
    connections = [connect(slow) for _ in range(8)]
    for turn in range(5):
        won: list[int] = []

        def take(number: int, turn: int = turn, won: list[int] = won) -> None:
            if connections[number]("SET", f"lock:{turn}", number, "NX", "PX", "60000") == b"+OK":
                won.append(number)

        in_threads(take, 8)
        assert len(won) == 1
        assert connections[0]("GET", f"lock:{turn}") == b"$1\r\n%d" % won[0]


def test_appends_and_deletes_are_each_seen_once(slow: RespServed, connect: Connect) -> None:
    connections = [connect(slow) for _ in range(5)]
    taken: list[bytes] = []

    def work(number: int) -> None:
        talk = connections[number]
        for turn in range(30):
            if number:
                talk("APPEND", "list", f"{number}.{turn};")
            else:
                taken.append(talk("GETDEL", "list"))

    in_threads(work, 5)
    taken.append(connections[0]("GETDEL", "list"))
    items = [item for reply in taken if reply != b"$-1" for item in reply.split(b"\r\n")[1].split(b";") if item]
    assert sorted(items) == sorted(b"%d.%d" % (number, turn) for number in range(1, 5) for turn in range(30))


def test_a_delete_of_several_keys_counts_each_once(slow: RespServed, connect: Connect) -> None:
    connections = [connect(slow) for _ in range(4)]
    names = [f"many:{number}" for number in range(40)]
    connections[0]("MSET", *[part for name in names for part in (name, "v")])
    deleted: list[int] = []
    in_threads(lambda number: deleted.append(int(connections[number]("DEL", *names)[1:])), 4)
    assert sum(deleted) == len(names)
    assert connections[0]("EXISTS", *names) == b":0"


def test_order_holds_across_kinds_with_slow_replication(slow: RespServed, connect: Connect) -> None:
    talk = connect(slow)
    turns = 15
    one = [
        encoded("SET", "w", n) + encoded("INCR", "w") + encoded("GET", "w") + encoded("DEL", "w", "v")
        for n in range(turns)
    ]
    talk.send(b"".join(one))
    for n in range(turns):
        shown = str(n + 1).encode()
        expected = [b"+OK\r\n", b":%b\r\n" % shown, b"$%d\r\n%b\r\n" % (len(shown), shown), b":1\r\n"]
        assert [talk.reply() for _ in range(4)] == expected


def test_a_scan_and_a_count_see_what_was_just_written(slow: RespServed, connect: Connect) -> None:
    """Also where an earlier version of somebody else has still to commit."""
    talk, noisy = connect(slow), connect(slow)
    for turn in range(20):
        noisy.send(encoded("SET", f"noise:{turn}", "x") * 5)
        assert talk("SET", f"mine:{turn:02}", "x") == b"+OK"
        assert f"mine:{turn:02}".encode() in talk("KEYS", "mine:*")
        assert f"mine:{turn:02}".encode() in talk("SCAN", "0", "MATCH", "mine:*", "COUNT", "1000")
        assert talk("EXISTS", f"mine:{turn:02}") == b":1"
        for _ in range(5):
            noisy.reply()
    count = int(talk("DBSIZE")[1:])
    assert count == int(talk("KEYS", "*").split(b"\r\n")[0][1:])
