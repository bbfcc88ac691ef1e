"""Those who wait for an answer of the core, by token."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable
from functools import partial
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

log = logging.getLogger("retinue.driver")

Answer = Result | ReadResult

UNKNOWN = Result(Outcome.UNKNOWN, Reason.TIMEOUT)


class _Waiting(NamedTuple):
    """One that waits, until when (ms), and what to say if the core cannot say it by then."""

    answer: Callable[[Answer], None]
    deadline: float
    late: Answer


def _resolve(future: asyncio.Future[Answer], answer: Answer) -> None:
    if not future.done():
        future.set_result(answer)


class WaitingRoom:
    """Requests on their way through the core."""

    def __init__(self) -> None:
        self._waiting: dict[int, _Waiting] = {}
        self._token = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def enter(self, answer: Callable[[Answer], None], deadline: float = math.inf, late: Answer = UNKNOWN) -> int:
        """A token for a request. `answer` is called once: with `late` if the core stands still at `deadline` (ms)."""
        self._token += 1
        self._waiting[self._token] = _Waiting(answer, deadline, late)
        return self._token

    def enter_future(self, deadline: float = math.inf, late: Answer = UNKNOWN) -> tuple[int, asyncio.Future[Answer]]:
        """A token, and the future that gets the answer."""
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        return self.enter(partial(_resolve, future), deadline, late), future

    def answer(self, token: int, answer: Answer) -> None:
        """Answer a request; one that nobody waits for any more is forgotten."""
        waiting = self._waiting.pop(token, None)
        if waiting is not None:
            try:
                waiting.answer(answer)
            except Exception:
                # The fault of one answer must not keep others from theirs: they belong to the same group commit.
                log.exception("an answer could not be given")

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
        """The node stops: whoever still waits hears that the outcome is not known."""
        for token in list(self._waiting):
            self.answer(token, self._waiting[token].late)
