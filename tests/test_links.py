"""What one link writes, when, and what it keeps back: against a transport that only notes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from retinue.frames import FRAME_LIMIT_BYTES, Ping, decode_frame
from retinue.links import Link, LinkEvents

LIMIT_BYTES = 100


class Recorder(asyncio.Transport):
    """A transport that notes what is written and sends nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written.append(bytes(data))

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return 0

    def abort(self) -> None:
        pass

    def is_closing(self) -> bool:
        return True


class Owner:
    """Whoever has the link: the events it was told, and whether the link is cut."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.cut = False
        self.transport = Recorder()
        self.link = Link(self._events(), LIMIT_BYTES, "follower1")
        self.link.connection_made(self.transport)

    def _events(self) -> LinkEvents:
        def tell(name: str) -> Callable[..., None]:
            return lambda *_: self.told.append(name)

        told: dict[str, Any] = {
            name: tell(name)
            for name in ("connected", "handshake", "messages", "dirty", "full", "stream_done", "closed", "lost")
        }
        return LinkEvents(**told, is_cut=lambda peer: self.cut)

    @property
    def written(self) -> bytes:
        return b"".join(self.transport.written)


def on_a_link(check: Callable[[Owner], None]) -> None:
    async def run() -> None:
        check(Owner())

    asyncio.run(run())


def test_a_frame_sent_now_leaves_at_once_and_alone() -> None:
    def check(owner: Owner) -> None:
        owner.link.send_now(b"first")
        assert owner.transport.written == [b"first"]
        assert owner.link.sent_bytes == 5
        assert "dirty" not in owner.told

    on_a_link(check)


def test_it_does_not_overtake_what_waits() -> None:
    def check(owner: Owner) -> None:
        owner.link.enqueue(b"first")
        owner.link.send_now(b"second")
        assert owner.written == b"firstsecond"

    on_a_link(check)


def test_a_sign_of_life_goes_ahead_of_it() -> None:
    def check(owner: Owner) -> None:
        owner.link.ping()
        owner.link.send_now(b"first")
        assert owner.written.endswith(b"first")
        assert isinstance(decode_frame(owner.written[4 : -len(b"first")]), Ping)

    on_a_link(check)


def test_while_the_peer_is_slow_it_waits_and_counts() -> None:
    def check(owner: Owner) -> None:
        owner.link.pause_writing()
        owner.link.send_now(b"x" * 60)
        assert (owner.written, owner.link.queued_bytes) == (b"", 60)
        owner.link.send_now(b"y" * 60)
        assert owner.told.count("full") == 1
        owner.link.resume_writing()
        assert owner.written == b"x" * 60

    on_a_link(check)


def test_a_cut_link_passes_nothing_of_it_later_either() -> None:
    def check(owner: Owner) -> None:
        owner.cut = True
        owner.link.send_now(b"first")
        owner.cut = False
        owner.link.send_now(b"second")
        assert owner.written == b"second"

    on_a_link(check)


def test_a_closed_link_writes_nothing() -> None:
    def check(owner: Owner) -> None:
        owner.link.abort()
        owner.link.send_now(b"first")
        assert owner.written == b""

    on_a_link(check)


@pytest.mark.parametrize("send", [Link.send_now, Link.enqueue])
def test_a_frame_that_no_peer_would_take_is_not_sent(send: Callable[[Link, bytes], None]) -> None:
    def check(owner: Owner) -> None:
        send(owner.link, bytes(FRAME_LIMIT_BYTES + 1))
        assert (owner.written, "full" in owner.told) == (b"", True)

    on_a_link(check)
