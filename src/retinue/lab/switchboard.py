"""The way between simulated clients and nodes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from retinue.core.messages import Event, ReadResult, Result
from retinue.core.replica import Replica
from retinue.lab.virtual_time import VirtualTime

Query = Callable[[Replica], None]
"""A read that the doors answer from the replica at once, without an event."""


class Server(Protocol):
    """What a client needs of a node."""

    @property
    def up(self) -> bool:
        """Whether the process runs."""

    def deliver(self, event: Event | Query) -> None:
        """Ask the node something."""


class Switchboard:
    """Carries requests to nodes and answers back; both take time and may get lost. `latency_ms` bounds each way."""

    def __init__(self, time: VirtualTime, servers: dict[str, Server], members: tuple[str, ...]) -> None:
        self.time = time
        self.servers = servers
        self.members = members
        self.latency_ms = (0.1, 1.1)
        self.loss = 0.0
        self.lateness = 0.0
        self._token = 0
        self._waiting: dict[int, Callable[[Result | ReadResult], None]] = {}

    def open(self, answer: Callable[[Result | ReadResult], None]) -> int:
        """A new token, under which `answer` is called once."""
        self._token += 1
        self._waiting[self._token] = answer
        return self._token

    def give_up(self, token: int, then: Callable[[], None]) -> None:
        """Wait no longer, if no answer has come."""
        if self._waiting.pop(token, None) is not None:
            then()

    def ask(self, node: str, request: Event | Query, arrived: Callable[[bool], None] | None = None) -> None:
        """Send a request; sometimes it is lost, or arrives when nobody thinks of it any more.

        `arrived` is told, when it arrives, whether the node is there to take it.
        """
        random = self.time.random.random
        if self.loss and random() < self.loss:
            return
        delay_ms = self.hop_ms()
        if self.lateness and random() < self.lateness:
            delay_ms = 1500 * random()
        self.time.after(delay_ms, self._arrive, node, request, arrived)

    def hop_ms(self) -> float:
        """Draw the time that one way takes."""
        low, high = self.latency_ms
        return low + (high - low) * self.time.random.random()

    def _arrive(self, node: str, request: Event | Query, arrived: Callable[[bool], None] | None) -> None:
        server = self.servers[node]
        if arrived is not None:
            arrived(server.up)
        server.deliver(request)

    def answer(self, token: int, result: Result | ReadResult) -> None:
        """A node has answered."""
        if token in self._waiting and not (self.loss and self.time.random.random() < self.loss):
            self.time.after(self.hop_ms(), self._pass_on, token, result)

    def _pass_on(self, token: int, result: Result | ReadResult) -> None:
        waiting = self._waiting.pop(token, None)
        if waiting is not None:
            waiting(result)
