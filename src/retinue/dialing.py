"""The side that calls: keep one link to one member, whatever happens to it.

A dialer connects, introduces this node, stays while the link lasts and begins again, with pauses that grow while
nobody answers. A refusal is final only for the moment: someone may correct a setting, so it asks again, slowly.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from retinue.frames import encode_frame
from retinue.handshake import (
    HANDSHAKE_TIMEOUT_S,
    Challenge,
    HandshakeFrame,
    Hello,
    Refusal,
    Welcome,
    printable,
    refuse_challenge,
    refuse_welcome,
    split_address,
)
from retinue.links import Link

# A lost link is dialed again after this pause, doubled up to the longest; jitter keeps nodes from dialing in step.
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.05, 1.0

_logger = logging.getLogger("retinue.peers")
_jitter = random.Random()  # noqa: S311 - spreads retries, guards nothing


@dataclass(frozen=True, slots=True)
class DialerEvents:
    """What all dialers of a node need from it, and tell it. `opened` comes before anything else from the link."""

    make_link: Callable[[str], Link]
    connect: Callable[[Link, str, int], Awaitable[object]]
    make_hello: Callable[[Challenge, str], Hello]
    opened: Callable[[Link, Welcome], None]
    is_cut: Callable[[str], bool]


class Dialer:
    """Dials the member `name` until `stop`. `refused` and `unreachable` say in one sentence why there is no link."""

    def __init__(self, name: str, address: str, secret: bytes, events: DialerEvents) -> None:
        self.refused = ""
        self.unreachable = ""
        self.stopped = False
        self._name = name
        self._host, self._port = split_address(address)
        self._secret = secret
        self._events = events
        self.task = asyncio.get_running_loop().create_task(self._run(), name=f"dialing {name}")

    def stop(self) -> None:
        """Dial no more. The link goes with the task, a moment later."""
        self.stopped = True
        self.task.cancel()

    async def _run(self) -> None:
        pause_s = FIRST_PAUSE_S
        while True:
            # A cut link does not answer: the same as dialing into it and waiting.
            try:
                if not self._events.is_cut(self._name) and await self._dial():
                    pause_s = FIRST_PAUSE_S
            except Exception:
                _logger.exception("dialing %s failed in a way that is a bug; it goes on", self._name)
            await asyncio.sleep(pause_s * _jitter.uniform(0.5, 1))
            pause_s = LONGEST_PAUSE_S if self.refused else min(2 * pause_s, LONGEST_PAUSE_S)

    async def _dial(self) -> bool:
        """Connect, and stay while the link lasts; false if there was none."""
        link = self._events.make_link(self._name)
        try:
            async with asyncio.timeout(HANDSHAKE_TIMEOUT_S):
                await self._events.connect(link, self._host, self._port)
                opened = await link.opened
            if opened:
                await link.lost
            elif not self.refused:
                self.unreachable = "The node there hung up during the handshake."
        except (OSError, UnicodeError) as error:
            self.refused = ""
            self.unreachable = f"No connection: {printable(str(error)) or 'no answer in time'}."
            return False
        else:
            return opened
        finally:
            link.abort()

    def take(self, link: Link, frame: HandshakeFrame) -> None:
        """The next frame of the handshake."""
        if isinstance(frame, Challenge) and link.challenge is None:
            self._answer(link, frame)
        elif isinstance(frame, Welcome) and link.challenge is not None and link.hello is not None:
            self._enter(link, frame, link.challenge, link.hello)
        elif isinstance(frame, Refusal):
            self._refuse(link, printable(frame.sentence))
        else:
            link.abort("a frame of the handshake out of turn")

    def _answer(self, link: Link, challenge: Challenge) -> None:
        sentence = refuse_challenge(challenge)
        if sentence:
            self._refuse(link, sentence)
            return
        link.challenge = challenge
        link.hello = self._events.make_hello(challenge, self._name)
        link.send_now(encode_frame(link.hello))

    def _enter(self, link: Link, welcome: Welcome, challenge: Challenge, hello: Hello) -> None:
        sentence = refuse_welcome(welcome, hello, challenge, self._secret)
        if sentence:
            self._refuse(link, sentence)
        elif self.stopped:
            link.abort()
        else:
            self.refused = self.unreachable = ""
            link.open(self._name)
            self._events.opened(link, welcome)

    def _refuse(self, link: Link, sentence: str) -> None:
        if sentence != self.refused:
            _logger.warning("No link with %s: %s", self._name, sentence)
        self.refused, self.unreachable = sentence, ""
        link.abort()
