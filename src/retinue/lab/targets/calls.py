"""Requests of a client to simulated nodes, as an HTTP client would see them: answered, refused, or never answered."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from functools import partial

import msgspec

from retinue.core.messages import Event, ReadResult, Result
from retinue.lab.switchboard import Query, Server, Switchboard
from retinue.lab.virtual_time import VirtualTime

CLIENT_PATIENCE_MS = 1000.0
"""How long a client waits past the deadline that it gave to the node."""


class NoAnswer(msgspec.Struct, frozen=True):
    """What a client sees of a node that does not answer. `refused`: it never got the request."""

    refused: bool
    detail: str


Answer = Result | ReadResult | NoAnswer


class Call(msgspec.Struct):
    """A request to a node, from now until it is answered. `request_id` is empty for all but writes.

    `arrived_ms` and `replied_ms` say when the node got it and when it sent its answer, `None` until then.
    """

    node: str
    answer: asyncio.Future[Answer]
    request_id: str = ""
    arrived_ms: float | None = None
    replied_ms: float | None = None

    @property
    def server_ms(self) -> float | None:
        """How long the node took, once it has answered."""
        if self.arrived_ms is None or self.replied_ms is None:
            return None
        return self.replied_ms - self.arrived_ms


class Calls:
    """All calls under way, by token."""

    def __init__(self, time: VirtualTime, servers: Mapping[str, Server], latency_ms: tuple[float, float]) -> None:
        self.time = time
        self.switchboard = Switchboard(time, dict(servers), tuple(servers))
        self.switchboard.latency_ms = latency_ms
        self._open: dict[int, Call] = {}

    async def ask(self, call: Call, request: Callable[[int], Event | Query], timeout_ms: float) -> Answer:
        """Send a request, made for its token, and wait for what comes back, at most a little longer than `timeout_ms`.

        A node that is down refuses it.
        """
        token = self.switchboard.open(lambda result: self._conclude(token, result))
        self._open[token] = call
        self.switchboard.ask(call.node, request(token), partial(self._arrived, token))
        late = NoAnswer(False, f"{call.node} did not answer in time.")
        self.time.after(timeout_ms + CLIENT_PATIENCE_MS, self._give_up, token, late)
        return await call.answer

    def find(self, token: int) -> Call | None:
        """The call under this token, if it still waits."""
        return self._open.get(token)

    def reply(self, token: int, result: Result | ReadResult) -> None:
        """A node answers."""
        call = self._open.get(token)
        if call is not None:
            call.replied_ms = self.time.now_ms
        self.switchboard.answer(token, result)

    def died(self, node: str) -> None:
        """A node was killed: whoever waits for its answer sees the connection break."""
        lost = NoAnswer(False, f"{node} died before it answered.")
        for token, call in self._open.items():
            if call.node == node and call.arrived_ms is not None and call.replied_ms is None:
                self.time.after(self.switchboard.hop_ms(), self._give_up, token, lost)

    def close(self) -> None:
        """Nobody gets an answer any more."""
        closed = NoAnswer(False, "The simulated cluster was closed before it answered.")
        for token in list(self._open):
            self._conclude(token, closed)

    def _arrived(self, token: int, up: bool) -> None:
        call = self._open.get(token)
        if call is None:
            return
        if up:
            call.arrived_ms = self.time.now_ms
        else:
            refused = NoAnswer(True, f"{call.node} does not run, so nothing was done: start it.")
            self.time.after(self.switchboard.hop_ms(), self._give_up, token, refused)

    def _give_up(self, token: int, answer: NoAnswer) -> None:
        self.switchboard.give_up(token, partial(self._conclude, token, answer))

    def _conclude(self, token: int, answer: Answer) -> None:
        call = self._open.pop(token, None)
        if call is not None and not call.answer.done():
            call.answer.set_result(answer)
