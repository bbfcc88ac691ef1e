"""Those who wait for an answer of the core, by token."""

from __future__ import annotations

import asyncio
import math
from typing import NamedTuple

from retinue.core.messages import (
    ConfigureRequested,
    Event,
    Injected,
    Outcome,
    PromoteRequested,
    ReadResult,
    Reason,
    Result,
    SessionRead,
    StrongRead,
)

Answer = Result | ReadResult

UNKNOWN = Result(Outcome.UNKNOWN, Reason.TIMEOUT)


class _Waiting(NamedTuple):
    """One that waits, until when (ms), and what to say if the core cannot say it by then."""

    answer: asyncio.Future[Answer]
    deadline: float
    late: Answer


class WaitingRoom:
    """Requests on their way through the core."""

    def __init__(self) -> None:
        self._waiting: dict[int, _Waiting] = {}
        self._token = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def enter(self, deadline: float = math.inf, late: Answer = UNKNOWN) -> tuple[int, asyncio.Future[Answer]]:
        """A token for a request, and the future that gets its answer: `late` if the core stands still at `deadline`."""
        self._token += 1
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting[self._token] = _Waiting(future, deadline, late)
        return self._token, future

    def answer(self, token: int, answer: Answer) -> None:
        """Answer a request; one that nobody waits for any more is forgotten."""
        waiting = self._waiting.pop(token, None)
        if waiting is not None and not waiting.answer.done():
            waiting.answer.set_result(answer)

    def refuse(self, event: Event) -> bool:
        """Answer the request in an event that the core will not see, for the disk is full; false if it is none."""
        if isinstance(event, StrongRead | SessionRead):
            self.answer(event.token, ReadResult(Reason.DISK_LOW))
        elif isinstance(event, PromoteRequested | ConfigureRequested | Injected):
            self.answer(event.token, Result(Outcome.NOT_WRITTEN, Reason.DISK_LOW))
        else:
            return False
        return True

    def expire(self, now_ms: float) -> None:
        """Answer those whose deadline has passed, since the core stands still."""
        for token in [token for token, waiting in self._waiting.items() if waiting.deadline <= now_ms]:
            self.answer(token, self._waiting[token].late)

    def close(self) -> None:
        """Nobody gets an answer any more."""
        for waiting in self._waiting.values():
            waiting.answer.cancel()
