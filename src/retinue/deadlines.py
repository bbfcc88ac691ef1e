"""Exact deadlines in an event loop: one heap, one timer, whatever the number of deadlines.

`loop.call_later` is too coarse for simulated delays: on asyncio it is about 0.6 ms late, and on uvloop, whose clock
counts whole milliseconds, it can fire more than a millisecond early. On Linux the timer is therefore a timerfd that
the loop watches like a socket; elsewhere it is `loop.call_later`, armed again whenever it came too early.

Setting a timer is dear on a virtual machine: its hardware timer belongs to the host (7 to 50 us where this was written;
a turn of the loop takes 5). So it is set when the loop has nothing else to do. While there is work, every turn of the
loop looks whether something is due; only after some turns in a row without is the timer set all the same.

A process runs some time after its timer has run out: 0.03 to 0.1 ms on the virtual machine this was written on. So the
timerfd is set as much earlier as it was late at the least lately, and the rest, if any, is waited for turn by turn.

All deadlines are seconds on the clock of `time.monotonic`. Nothing is ever handed over early.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import heapq
import os
import sys
import time
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

Item = TypeVar("Item")

# A turn of the loop that takes longer had work to do, so the next turns come anyway.
BUSY_TURN_S = 0.00002
# After so many turns with nothing due the timer is set all the same: on a slow machine every turn takes that long.
IDLE_LOOKS_MAX = 8
# What setting the timer may take on a virtual machine: what is due sooner is waited for turn by turn.
ARMING_S = 0.00005
# How much earlier than a deadline the timer may be set, and how fast that grows while wake-ups are later.
LEAD_LIMIT_S = 0.0001
LEAD_GROWTH = 0.05

_CLOCK_MONOTONIC = 1
_TFD_TIMER_ABSTIME = 1


if sys.version_info >= (3, 13):

    def _open_timerfd() -> tuple[int, Callable[[int, int], None]]:
        def arm(fd: int, at_ns: int) -> None:
            os.timerfd_settime_ns(fd, flags=os.TFD_TIMER_ABSTIME, initial=at_ns)

        return os.timerfd_create(time.CLOCK_MONOTONIC, flags=os.TFD_NONBLOCK | os.TFD_CLOEXEC), arm

else:

    class _Timespec(ctypes.Structure):
        _fields_ = (("tv_sec", ctypes.c_long), ("tv_nsec", ctypes.c_long))

    class _Itimerspec(ctypes.Structure):
        _fields_ = (("it_interval", _Timespec), ("it_value", _Timespec))

    def _open_timerfd() -> tuple[int, Callable[[int, int], None]]:
        library = ctypes.CDLL(None, use_errno=True)
        fd: int = library.timerfd_create(_CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        if fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create failed")
        spec = _Itimerspec()
        pointer = ctypes.byref(spec)

        def arm(fd: int, at_ns: int) -> None:
            spec.it_value.tv_sec, spec.it_value.tv_nsec = divmod(at_ns, 1_000_000_000)
            if library.timerfd_settime(fd, _TFD_TIMER_ABSTIME, pointer, None) < 0:
                raise OSError(ctypes.get_errno(), "timerfd_settime failed")

        return fd, arm


def _timerfd() -> tuple[int, Callable[[int, int], None]] | None:
    """A new timerfd and the function that sets it to a time in nanoseconds; `None` where there is none."""
    if sys.platform != "linux":
        return None
    try:
        return _open_timerfd()
    except (OSError, AttributeError):
        return None


class DeadlineTimer(Generic[Item]):
    """Hands items over once their deadlines have passed.

    `on_due` gets all items that are due at a wake-up in one call, in the order of their deadlines. Without items
    there is no timer. `precise=False` uses the loop's own timer even where there is a better one.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, on_due: Callable[[list[Item]], None], *, precise: bool = True
    ) -> None:
        self._loop = loop
        self._on_due = on_due
        self._precise = precise
        self._heap: list[tuple[float, int, Item]] = []
        self._sequence = 0
        self._armed_s: float | None = None
        self._looking = False
        self._looked_s = 0.0
        self._idle_looks = 0
        self._lead_s = 0.0
        self._set_to_s = 0.0
        self._fd = -1
        self._set_fd: Callable[[int, int], None] | None = None
        self._handle: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        """How many items wait."""
        return len(self._heap)

    def schedule(self, items: Iterable[tuple[float, Item]]) -> None:
        """Hand each item over at its deadline, or right after this loop tick if that has passed."""
        for at_s, item in items:
            self._sequence += 1
            heapq.heappush(self._heap, (at_s, self._sequence, item))
        if self._heap and (self._armed_s is None or self._heap[0][0] < self._armed_s):
            self._look_next_turn()

    def hand_over_due(self) -> None:
        """Hand over at once what is due, if anything. For whoever has much to do before the loop comes round."""
        if self._heap and self._heap[0][0] <= time.monotonic():
            self._hand_over(busy=True)

    def discard(self, unwanted: Callable[[Item], bool]) -> None:
        """Forget the items that `unwanted` is true for. Takes time in proportion to all that wait."""
        self._heap = [waiting for waiting in self._heap if not unwanted(waiting[2])]
        heapq.heapify(self._heap)

    def close(self) -> None:
        """Forget everything and free the timer."""
        self._heap.clear()
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1
        self._armed_s = None

    def _arm(self, at_s: float) -> None:
        self._armed_s = at_s
        self._idle_looks = 0
        if self._fd < 0 and self._precise:
            self._open()
        if self._fd >= 0 and self._set_fd is not None:
            early_s = at_s - self._lead_s
            self._set_to_s = early_s if early_s > time.monotonic() else at_s
            # Zero would disarm it. Rounding up to a nanosecond keeps the float's rounding from being early.
            self._set_fd(self._fd, max(1, int(self._set_to_s * 1e9) + 1))
            return
        if self._handle is not None:
            self._handle.cancel()
        self._handle = self._loop.call_later(max(0.0, at_s - time.monotonic()), self._wake)

    def _open(self) -> None:
        opened = _timerfd()
        if opened is None:
            self._precise = False
            return
        self._fd, self._set_fd = opened
        self._loop.add_reader(self._fd, self._on_timerfd)

    def _on_timerfd(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._fd, 8)
            late_s = time.monotonic() - self._set_to_s
            grown_s = self._lead_s + (late_s - self._lead_s) * LEAD_GROWTH
            self._lead_s = max(0.0, min(late_s, grown_s, LEAD_LIMIT_S))
        self._wake()

    def _wake(self) -> None:
        self._handle = None
        self._armed_s = None
        self._hand_over(busy=True)

    def _look(self) -> None:
        self._looking = False
        self._hand_over(busy=time.monotonic() - self._looked_s > BUSY_TURN_S)

    def _hand_over(self, busy: bool) -> None:
        """Hand over what is due. Look again in the next turn, or set the timer if the loop is not `busy`."""
        heap, now_s = self._heap, time.monotonic()
        due: list[Item] = []
        while heap and heap[0][0] <= now_s:
            due.append(heapq.heappop(heap)[2])
        self._idle_looks = 0 if due else self._idle_looks + 1
        if heap:
            look = due or (busy and self._idle_looks < IDLE_LOOKS_MAX)
            if look or heap[0][0] < now_s + ARMING_S:
                self._look_next_turn()
            elif self._armed_s is None or heap[0][0] < self._armed_s:
                self._arm(heap[0][0])
        if due:
            self._on_due(due)

    def _look_next_turn(self) -> None:
        if not self._looking:
            self._looking = True
            self._looked_s = time.monotonic()
            self._loop.call_soon(self._look)
