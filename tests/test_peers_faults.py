"""Peers that are silent, stopped, hostile or wrong."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from retinue.accepting import STRANGERS_LIMIT
from retinue.core.messages import Ack, Heartbeat, LinkDown, LinkUp, Received
from retinue.frames import encode_frame
from retinue.handshake import HANDSHAKE_LIMIT_BYTES, Challenge, Member, Refusal
from tests.linking import LinkedNode, impostor, linked, run, until

ROOT = Path(__file__).parent.parent
CHILD = """
import asyncio
from tests.linking import LinkedNode

async def main():
    node = LinkedNode("follower1")
    await node.peers.start()
    print(node.peers.port, flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


@pytest.fixture
def child() -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A follower in a process of its own, and its port."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}
    process = subprocess.Popen([sys.executable, "-c", CHILD], stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    try:
        yield process, int(process.stdout.readline())
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_a_stopped_process_is_noticed_and_found_again(child: tuple[subprocess.Popen[str], int]) -> None:
    process, port = child

    async def scenario() -> None:
        async with linked("leader", peer_timeout_ms=400) as (leader,):
            leader.peers.set_members((leader.member, Member("follower1", f"127.0.0.1:{port}", "")))
            await until(lambda: leader.told(LinkUp))
            process.send_signal(signal.SIGSTOP)
            stopped_s = time.monotonic()
            await until(lambda: leader.told(LinkDown))
            assert 0.3 < time.monotonic() - stopped_s < 5
            process.send_signal(signal.SIGCONT)
            await until(lambda: len(leader.told(LinkUp)) == 2)
            process.kill()
            await until(lambda: len(leader.told(LinkDown)) == 2)

    run(scenario())


def test_a_node_that_was_stopped_itself_keeps_its_links() -> None:
    async def scenario() -> None:
        async with linked("leader", "follower1", peer_timeout_ms=1000) as (leader, follower):
            time.sleep(1.6)  # noqa: ASYNC251 - this is the stall
            leader.peers.send("follower1", Heartbeat(1, 1, 1, 0))
            await until(lambda: follower.messages)
            assert leader.told(LinkDown) == []

    run(scenario())


def test_a_listener_that_says_nothing_is_given_up_and_stopping_does_not_wait_for_it() -> None:
    async def scenario() -> None:
        connected = asyncio.Event()

        async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            connected.set()
            await reader.read()
            writer.close()

        server = await asyncio.start_server(silent, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        leader = LinkedNode("leader")
        await leader.peers.start()
        leader.peers.set_members((leader.member, Member("follower1", f"127.0.0.1:{port}", "")))
        leader.peers.open_links()
        await connected.wait()
        status = leader.peers.status()["follower1"]
        assert not status.connected
        assert leader.events == []
        await asyncio.wait_for(leader.peers.stop(), 5)
        server.close()
        await server.wait_closed()

    run(scenario())


def test_a_peer_that_falls_silent_after_the_handshake_is_dropped() -> None:
    async def scenario() -> None:
        async with linked("leader", peer_timeout_ms=200) as (leader,), impostor("follower1") as (member, _):
            leader.peers.set_members((leader.member, member))
            await until(lambda: leader.told(LinkDown) == [LinkDown("follower1")])
            assert leader.told(LinkUp)[0] == LinkUp("follower1", "id", "", 7)

    run(scenario())


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        (HANDSHAKE_LIMIT_BYTES + 1).to_bytes(4, "big"),
        b"\x00\x00\x00\x01\xc1",
        b"\x00\x00\x00\x00",
        encode_frame(Heartbeat(1, 1, 1, 0)),
        encode_frame(Refusal("no")),
        encode_frame(Challenge(1, b"x" * 32)),
    ],
)
def test_strangers_that_talk_nonsense_are_cut_off(data: bytes) -> None:
    async def scenario() -> None:
        async with linked("follower1") as (node,):
            reader, writer = await asyncio.open_connection("127.0.0.1", node.peers.port)
            writer.write(data)
            with contextlib.suppress(ConnectionError):
                await asyncio.wait_for(reader.read(), 10)
            writer.close()
            assert node.events == []
            assert node.heard == []

    run(scenario())


def test_a_listener_that_talks_nonsense_is_refused_and_named() -> None:
    async def scenario() -> None:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(encode_frame(Challenge(99, b"x" * 32)))
            await reader.read()
            writer.close()

        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with linked("leader") as (leader,):
            leader.peers.set_members((leader.member, Member("follower1", f"127.0.0.1:{port}", "")))
            await until(lambda: "speaks version 99" in leader.peers.status()["follower1"].refused)
        server.close()
        await server.wait_closed()

    run(scenario())


def test_a_malformed_frame_closes_an_open_link_and_it_comes_back(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        acknowledgement = Ack(1, [1], 1, 0)
        nonsense = b"\x00\x00\x00\x09\x92\xa6\x1b[31m\n\x01"
        sent = encode_frame(acknowledgement) + nonsense
        async with linked("leader") as (leader,), impostor("follower1", sent) as (member, _):
            leader.peers.set_members((leader.member, member))
            await until(lambda: len(leader.told(LinkUp)) == 2)
            assert leader.events[1:3] == [Received("follower1", acknowledgement), LinkDown("follower1")]

    run(scenario())
    assert [record for record in caplog.records if "is not a message" in record.getMessage()]
    assert "\x1b" not in caplog.text


def test_idle_strangers_cannot_keep_a_node_from_its_peers() -> None:
    async def scenario() -> None:
        async with linked("leader") as (leader,):
            follower = LinkedNode("follower1")
            await follower.peers.start()
            idle = []
            for _ in range(STRANGERS_LIMIT + 10):
                idle.append(await asyncio.open_connection("127.0.0.1", follower.peers.port))
                await idle[-1][0].read(1)
            # The first ones had to make room.
            for reader, _ in idle[:10]:
                with contextlib.suppress(ConnectionError):
                    await asyncio.wait_for(reader.read(), 3)
            leader.peers.set_members((leader.member, follower.member))
            await until(lambda: leader.told(LinkUp))
            for _, writer in idle:
                writer.close()
            await follower.peers.stop()

    run(scenario())


def test_a_stranger_that_takes_too_long_is_cut_off() -> None:
    async def scenario() -> None:
        async with linked("follower1") as (node,):
            reader, writer = await asyncio.open_connection("127.0.0.1", node.peers.port)
            begin_s = time.monotonic()
            with contextlib.suppress(ConnectionError):
                await asyncio.wait_for(reader.read(), 20)
            assert 4 < time.monotonic() - begin_s < 15
            writer.close()

    run(scenario())


def test_links_given_up_while_they_are_dialed_do_not_hold_up_the_stop() -> None:
    async def scenario() -> None:
        async with linked("leader", "follower1") as (leader, _):
            for turns in range(60):
                leader.peers.close_links()
                leader.peers.open_links()
                for _turn in range(turns % 12):
                    await asyncio.sleep(0)
            leader.peers.close_links()
            async with asyncio.timeout(10):
                await leader.peers.stop()

    run(scenario())
