"""An asyncio event loop on virtual time: nothing sleeps, the clock jumps to whatever comes next.

    run_virtually(main())

The loop lives in a simulated world and has its clock. While some callback is ready the clock stands still; then the
world goes on, one action after another, until one of them wakes a task or an asyncio timer is due. So coroutines that
use `asyncio.sleep` and `loop.time` run beside simulated nodes as they would run beside real ones, only that a minute
takes no minute, and that the same program always gives the same run.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any, TypeVar, TypeVarTuple, Unpack

from retinue.lab.virtual_time import VirtualTime

PATIENCE_MS = 3_600_000.0
"""A world that has woken nobody for so long, while no timer is set, never will: its nodes tick for ever."""

LIMIT_S = 1e7
"""A run ends with an error after so long: asyncio adds a nanosecond to its clock, which far beyond changes nothing."""

_T = TypeVar("_T")
_Ts = TypeVarTuple("_Ts")


class _JumpingSelector(selectors.DefaultSelector):
    """Never sleeps: where the loop would wait for a file, virtual time passes instead."""

    def __init__(self, jump: Callable[[float | None], None]) -> None:
        super().__init__()
        self._jump = jump

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Files that are ready now; without any, let `timeout` seconds (`None`: any time) pass in the world."""
        ready = super().select(0)
        if not ready:
            self._jump(timeout)
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock is that of a simulated world; an empty one until it moves into another.

    What runs in other threads takes no virtual time, and the loop does not wait for it.
    """

    def __init__(self) -> None:
        self._world = VirtualTime(0)
        self._passed_ms = 0.0
        self._hosted = False
        super().__init__(_JumpingSelector(self._jump))

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return (self._passed_ms + self._world.now_ms) / 1000

    def enter(self, world: VirtualTime) -> None:
        """Live in this world from now on, which goes on from its own time. Raises `RuntimeError` in another one."""
        if self._hosted:
            raise RuntimeError("The loop lives in a simulated world already: leave that one first.")
        self._move(world)
        self._hosted = True

    def leave(self) -> None:
        """Live in an empty world again; the one that was left stands still."""
        self._move(VirtualTime(0))
        self._hosted = False

    def _move(self, world: VirtualTime) -> None:
        self._passed_ms += self._world.now_ms - world.now_ms
        self._world = world

    def call_soon(
        self, callback: Callable[[Unpack[_Ts]], object], *args: *_Ts, context: Context | None = None
    ) -> asyncio.Handle:
        """Like any loop; and the world stops after the present action, so that what is ready runs first."""
        self._world.interrupt()
        return super().call_soon(callback, *args, context=context)

    def _jump(self, timeout_s: float | None) -> None:
        """Let the world go on until it wakes somebody, at most for `timeout_s`.

        Raises `RuntimeError` where everybody waits for something that cannot happen.
        """
        world = self._world
        if self.time() > LIMIT_S:
            raise RuntimeError("The run has taken more than a hundred days of virtual time: some task sleeps for ever.")
        if timeout_s is not None:
            world.run_until(world.now_ms + timeout_s * 1000)
        elif world.idle:
            raise RuntimeError("Every task waits and nothing is scheduled: this is a deadlock.")
        elif world.run_until(world.now_ms + PATIENCE_MS):
            raise RuntimeError("Every task waits, and the world has woken none of them for an hour of virtual time.")


def run_virtually(main: Coroutine[Any, Any, _T]) -> _T:
    """Run a coroutine on a new `VirtualLoop`, as `asyncio.run` does on a usual one.

    Ctrl-C cancels `main` and raises `KeyboardInterrupt`; whatever is left over is cancelled in the end.
    """
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)
