"""Links between nodes: meeting, refusing, finding each other again, and messages without a simulated network."""

from __future__ import annotations

import asyncio
import logging
import shutil
import ssl
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from retinue.core.messages import Ack, Heartbeat, LinkDown, LinkFull, LinkUp, Rejected, Seal
from retinue.peers import Member
from tests.linking import LOOPS, LinkedNode, append, impostor, linked, run, until

both_loops = pytest.mark.parametrize("loop_factory", LOOPS, ids=["asyncio", "uvloop"])
NewLoop = Callable[[], asyncio.AbstractEventLoop]


@both_loops
def test_members_meet_and_talk_both_ways(loop_factory: NewLoop) -> None:
    async def scenario() -> None:
        async with linked("leader", "follower1", "follower2") as (leader, first, second):
            assert leader.events[0] in (
                LinkUp("follower1", "id-follower1", "", 7),
                LinkUp("follower2", "id-follower2", "", 7),
            )
            members = (leader.member, first.member, second.member)
            assert first.heard == [("leader", "follower1", members)]
            leader.peers.send("follower1", Seal(1, "c", "id-follower1", False, 3))
            assert leader.peers.replicate(["follower1", "follower2"], append(1, 2)) is None
            leader.peers.send("follower2", Heartbeat(1, 1, 2, 5))
            await until(lambda: len(first.messages) == 2 and len(second.messages) == 2)
            assert first.messages == [Seal(1, "c", "id-follower1", False, 3), append(1, 2)]
            assert second.messages == [append(1, 2), Heartbeat(1, 1, 2, 5)]
            second.peers.send("leader", Ack(1, [1, 2], 2, 0))
            first.peers.send("leader", Rejected(1, 9))
            await until(lambda: len(leader.messages) == 2)
            assert {message.epoch for message in leader.messages} == {1}
            first.peers.send("nobody", Rejected(1, 9))
            first.peers.send("leader", Seal(1, "c", "id-follower1", False, 3))
            await until(lambda: leader.peers.status()["follower1"].round_trip_ms is not None)
            status = leader.peers.status()["follower1"]
            assert status.connected
            assert 0 < (status.round_trip_ms or 0) < 5000
            assert min(status.sent_bytes, status.received_bytes) > 0
            assert (status.refused, status.unreachable) == ("", "")
            assert list(leader.peers.status()) == ["follower1", "follower2"]
            assert first.peers.status()["leader"].connected

    run(scenario(), loop_factory)


@both_loops
def test_what_is_sent_in_one_tick_keeps_its_order(loop_factory: NewLoop) -> None:
    async def scenario() -> None:
        async with linked("leader", "follower1") as (leader, follower):
            beats = [Heartbeat(1, 1, number, 0) for number in range(2000)]
            for beat in beats[:1000]:
                leader.peers.send("follower1", beat)
            leader.peers.flush()
            for beat in beats[1000:]:
                leader.peers.send("follower1", beat)
            await until(lambda: len(follower.messages) == 2000)
            assert follower.messages == beats

    run(scenario(), loop_factory)


@both_loops
def test_a_lost_link_comes_back(loop_factory: NewLoop) -> None:
    async def scenario() -> None:
        async with linked("leader", "follower1") as (leader, follower):
            port = follower.peers.port
            await follower.peers.stop()
            await until(lambda: leader.told(LinkDown) == [LinkDown("follower1")])
            await until(lambda: "No connection" in leader.peers.status()["follower1"].unreachable)
            assert not leader.peers.status()["follower1"].connected
            again = LinkedNode("follower1", port=port)
            await again.peers.start()
            await until(lambda: len(leader.told(LinkUp)) == 2)
            leader.peers.replicate(["follower1"], append(1))
            await until(lambda: again.messages == [append(1)])
            assert leader.peers.status()["follower1"].unreachable == ""
            await again.peers.stop()

    run(scenario(), loop_factory)


def test_closing_links_is_quiet_and_opening_them_again_works() -> None:
    async def scenario() -> None:
        async with linked("leader", "follower1") as (leader, follower):
            leader.peers.open_links()
            leader.peers.close_links()
            leader.peers.send("follower1", Heartbeat(1, 1, 1, 0))
            await until(lambda: not follower.peers.status()["leader"].connected)
            leader.peers.open_links()
            await until(lambda: len(leader.told(LinkUp)) == 2)
            assert leader.told(LinkDown) == []
            assert follower.messages == []

    run(scenario())


def test_links_cross_when_two_nodes_lead() -> None:
    async def scenario() -> None:
        async with linked("leader", "follower1") as (leader, follower):
            follower.peers.set_members((leader.member, follower.member))
            follower.peers.open_links()
            await until(lambda: len(follower.told(LinkUp)) == 1)
            follower.peers.send("leader", Seal(2, "c", "", True, 3))
            leader.peers.send("follower1", Rejected(2, 3))
            await until(lambda: leader.messages and follower.messages)
            assert leader.messages == [Seal(2, "c", "", True, 3)]
            leader.peers.close_links()
            leader.peers.send("follower1", Rejected(2, 4))
            await until(lambda: len(follower.messages) == 2)
            assert follower.told(LinkDown) == []

    run(scenario())


def test_members_that_go_lose_their_links() -> None:
    async def scenario() -> None:
        async with linked("leader", "follower1", "follower2") as (leader, first, second):
            leader.peers.set_members((leader.member, second.member))
            await until(lambda: leader.told(LinkDown) == [LinkDown("follower1")])
            leader.peers.set_members((leader.member, first.member, second.member))
            await until(lambda: len(leader.told(LinkUp)) == 3)
            with pytest.raises(ValueError, match="not host:port"):
                leader.peers.set_members((Member("x", "nowhere", ""),))

    run(scenario())


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"secret": b"another"}, "The peer secrets differ"),
        ({"cluster_id": "cluster-2"}, "belongs to cluster cluster-2, the caller to cluster cluster-1"),
        ({"name": "follower2"}, "is follower2, the caller takes it for follower1"),
    ],
)
def test_refusals_are_told_at_both_ends_once(
    options: dict[str, str], sentence: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        leader = LinkedNode("leader", cluster_id="cluster-1")
        follower = LinkedNode(**{"name": "follower1", **options})  # type: ignore[arg-type]
        for node in (leader, follower):
            await node.peers.start()
        wrong = Member("follower1", follower.member.peer_address, "")
        for node in (leader, follower):
            node.peers.set_members((leader.member, wrong))
        leader.peers.open_links()
        await until(lambda: sentence in leader.peers.status()["follower1"].refused)
        assert sentence in follower.peers.status()["leader"].refused
        attempts = leader.introductions
        await until(lambda: leader.introductions > attempts + 1)
        assert leader.events == follower.events == []
        for node in (leader, follower):
            await node.peers.stop()

    with caplog.at_level(logging.WARNING, "retinue.peers"):
        run(scenario())
    lines = [record.getMessage() for record in caplog.records]
    assert len([line for line in lines if line.startswith("No link with follower1") and sentence in line]) == 1
    assert len([line for line in lines if line.startswith("A caller from 127.0.0.1") and sentence in line]) == 1
    assert len(lines) == 2


def test_the_node_itself_may_refuse_a_caller() -> None:
    async def scenario() -> None:
        caller, called = LinkedNode("mallory"), LinkedNode("follower1")
        for node in (caller, called):
            await node.peers.start()
        caller.peers.set_members((caller.member, called.member))
        caller.peers.open_links()
        await until(lambda: "no calls from mallory" in caller.peers.status()["follower1"].refused)
        for node in (caller, called):
            await node.peers.stop()

    run(scenario())


def test_addresses_by_host_name_and_ipv6() -> None:
    async def scenario() -> None:
        leader = LinkedNode("leader")
        first, second = LinkedNode("follower1"), LinkedNode("follower2", host="::1")
        for node in (leader, first, second):
            await node.peers.start()
        members = (
            leader.member,
            Member("follower1", f"localhost:{first.peers.port}", ""),
            Member("follower2", f"[::1]:{second.peers.port}", ""),
            Member("follower3", "no-such-host.invalid:9000", ""),
        )
        leader.peers.set_members(members)
        leader.peers.open_links()
        await until(lambda: len(leader.told(LinkUp)) == 2)
        await until(lambda: "No connection" in leader.peers.status()["follower3"].unreachable)
        for node in (leader, first, second):
            await node.peers.stop()

    run(scenario())


def test_a_port_that_is_taken_is_an_os_error_and_stopping_is_harmless() -> None:
    async def scenario() -> None:
        async with linked("leader") as (leader,):
            second = LinkedNode("follower1", port=leader.peers.port)
            with pytest.raises(OSError, match="in use"):
                await second.peers.start()
            await second.peers.stop()

    run(scenario())


def test_a_follower_that_does_not_read_fills_its_queue_once() -> None:
    async def scenario() -> None:
        async with (
            linked("leader", queue_limit_bytes=2_000_000) as (leader,),
            impostor("follower1") as (member, reading),
        ):
            leader.peers.set_members((leader.member, member))
            await until(lambda: leader.told(LinkUp))
            sent = 0
            while not leader.told(LinkFull):
                leader.peers.replicate(["follower1"], append(sent + 1, size=100_000))
                sent += 1
                assert sent < 3000
                await asyncio.sleep(0)
            assert leader.told(LinkFull) == [LinkFull("follower1")]
            left_bytes = leader.peers.status()["follower1"].queued_bytes
            assert 0 < left_bytes < 2_000_000
            leader.peers.send("follower1", Heartbeat(1, 1, 1, 0))
            assert leader.told(LinkFull) == [LinkFull("follower1")]
            reading.set()
            await until(lambda: leader.peers.status()["follower1"].queued_bytes == 0)
            assert leader.told(LinkDown) == []

    run(scenario())


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl to make a certificate")
def test_links_over_tls(tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-days", "2", "-subj", "/CN=retinue", "-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", key, "-out", certificate),
        ],
        check=True,
        capture_output=True,
    )
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate, key)
    client = ssl.create_default_context(cafile=str(certificate))

    async def scenario() -> None:
        async with linked("leader", "follower1", server_tls=server, client_tls=client) as (leader, follower):
            leader.peers.replicate(["follower1"], append(*range(1, 2001), size=1000))
            await until(lambda: len(follower.entries) == 2000)
            follower.peers.send("leader", Ack(1, [1], 1, 0))
            await until(lambda: leader.messages == [Ack(1, [1], 1, 0)])

    run(scenario())
