"""Virtual time: a heap of things to do, one source of randomness, and the trace.

Everything that happens in a simulated world happens in the order of this heap, and everything that is drawn comes from
this one generator: the same seed gives the same run, to the last line of the trace.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from typing import Any


class VirtualTime:
    """The clock of a simulated world, in milliseconds from 0."""

    def __init__(self, seed: int, tracing: bool = False) -> None:
        self.now_ms = 0.0
        self.random = random.Random(seed)
        self.trace: list[str] | None = [] if tracing else None
        self.steps = 0
        self._interrupted = False
        self._order = 0
        self._heap: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []

    def after(self, delay_ms: float, action: Callable[..., None], *arguments: Any) -> None:
        """Call `action(*arguments)` once `delay_ms` have passed; equal times keep the order of the calls."""
        self.at(self.now_ms + delay_ms, action, *arguments)

    def at(self, due_ms: float, action: Callable[..., None], *arguments: Any) -> None:
        """Call `action(*arguments)` at this time, which is not over yet; equal times keep the order of the calls."""
        self._order += 1
        heapq.heappush(self._heap, (due_ms, self._order, action, arguments))

    @property
    def idle(self) -> bool:
        """Whether nothing is left to be done."""
        return not self._heap

    def interrupt(self) -> None:
        """End the `run_until` that is under way after the present action, at the present time."""
        self._interrupted = True

    def run_until(self, end_ms: float) -> bool:
        """Do everything that is due up to `end_ms`, and be there; false if an action interrupted it before."""
        self._interrupted = False
        heap = self._heap
        while heap and heap[0][0] <= end_ms:
            due_ms, _, action, arguments = heapq.heappop(heap)
            self.now_ms = due_ms
            self.steps += 1
            action(*arguments)
            if self._interrupted:
                return False
        self.now_ms = end_ms
        return True

    def note(self, place: str, text: str) -> None:
        """One line of the trace; callers check `trace` first where making the text costs something."""
        if self.trace is not None:
            self.trace.append(f"{self.now_ms:10.3f}  {place:<10} {text}")

    def chance(self, probability: float) -> bool:
        """True with this probability. Draws nothing for 0, so an absent fault changes no other draw."""
        return probability > 0 and self.random.random() < probability
