"""The side that is called: let in who knows the secret and belongs here, and nobody else.

Until then a caller is a stranger: it may send one small frame, has a few seconds for it, and there is room for few.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from retinue.frames import encode_frame
from retinue.handshake import (
    HANDSHAKE_TIMEOUT_S,
    HandshakeFrame,
    Hello,
    Identity,
    Member,
    make_welcome,
    new_challenge,
    refuse_hello,
    refuse_name,
)
from retinue.links import Link

# Strangers that may be in the middle of a handshake; beyond it the oldest goes, for it is the likeliest to be idle.
STRANGERS_LIMIT = 64

_logger = logging.getLogger("retinue.peers")


@dataclass(frozen=True, slots=True)
class AcceptorEvents:
    """What the acceptor needs from its node, and tells it.

    `admit(caller, your_name, members)` may refuse with a sentence. `opened(link)` comes before anything else from the
    link. `refused(caller, sentence)` names who a refused caller says it is, proven or not.
    """

    identity: Callable[[], Identity]
    admit: Callable[[str, str, tuple[Member, ...]], str]
    opened: Callable[[Link], None]
    refused: Callable[[str, str], None]
    is_cut: Callable[[str], bool]


class Acceptor:
    """Handles the callers of one node until they are known."""

    def __init__(self, secret: bytes, events: AcceptorEvents) -> None:
        self._secret = secret
        self._events = events
        self._strangers: dict[Link, None] = {}
        self._last_refusal = ""

    def connected(self, link: Link) -> None:
        """A stranger is there: ask who it is."""
        self._strangers[link] = None
        if len(self._strangers) > STRANGERS_LIMIT:
            next(iter(self._strangers)).abort()
        link.challenge = new_challenge()
        link.send_now(encode_frame(link.challenge))

    def closed(self, link: Link) -> None:
        """The connection is gone."""
        self._strangers.pop(link, None)

    def expire(self, now_s: float) -> None:
        """Hang up on strangers that take too long."""
        for link in [link for link in self._strangers if now_s - link.made_s > HANDSHAKE_TIMEOUT_S]:
            link.abort()

    def take(self, link: Link, frame: HandshakeFrame) -> None:
        """The next frame from a stranger: there is only one that fits."""
        if not isinstance(frame, Hello) or link.hello is not None or link.challenge is None:
            link.abort("a frame of the handshake out of turn")
            return
        link.hello = frame
        if self._events.is_cut(frame.name):
            link.abort()
            return
        sentence = (
            refuse_hello(frame, link.challenge, self._events.identity(), self._secret)
            or self._events.admit(frame.name, frame.your_name, frame.members)
            or refuse_name(frame, self._events.identity())
        )
        if sentence:
            self._refuse(link, frame.name, sentence)
            return
        self._last_refusal = ""
        del self._strangers[link]
        welcome = make_welcome(link.challenge, frame, self._events.identity(), self._secret)
        link.open(frame.name)
        link.send_now(encode_frame(welcome))
        self._events.opened(link)

    def _refuse(self, link: Link, caller: str, sentence: str) -> None:
        # Only the last one is remembered: strangers could otherwise fill the memory with names.
        if sentence != self._last_refusal:
            _logger.warning("A caller from %s was refused: %s", link.remote, sentence)
        self._last_refusal = sentence
        self._events.refused(caller, sentence)
        link.refuse(sentence)
