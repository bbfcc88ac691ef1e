"""Exact deadlines on both event loops, with the kernel's timer and with the loop's own."""

from __future__ import annotations

import asyncio
import random
import sys
import time
from collections.abc import Callable, Coroutine, Iterator

import pytest
import uvloop

from retinue.deadlines import BUSY_TURN_S, IDLE_LOOKS_MAX, DeadlineTimer
from tests.linking import kernel_timers, machine_watched

Run = Callable[[Coroutine[object, object, None]], None]


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Iterator[Run]:
    with asyncio.Runner(loop_factory=request.param) as runner:
        yield runner.run


@pytest.fixture(params=[True, False], ids=["timerfd", "call_later"])
def precise(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


class Watch:
    """Notes what a timer hands over, and how late in seconds; `done` once `expected` items have come."""

    def __init__(self, expected: int) -> None:
        self.calls: list[list[float]] = []
        self.late_s: list[float] = []
        self.done = asyncio.Event()
        self._expected = expected

    def __call__(self, deadlines_s: list[float]) -> None:
        now_s = time.monotonic()
        self.calls.append(deadlines_s)
        self.late_s += [now_s - at_s for at_s in deadlines_s]
        if len(self.late_s) >= self._expected:
            self.done.set()


def test_nothing_is_early_lost_or_out_of_order(run: Run, precise: bool) -> None:
    async def scenario() -> None:
        watch = Watch(500)
        timer = DeadlineTimer(asyncio.get_running_loop(), watch, precise=precise)
        dice, begin_s = random.Random(1), time.monotonic() + 0.02
        for _ in range(500):
            at_s = begin_s + dice.uniform(0, 0.2)
            timer.schedule([(at_s, at_s)])
        assert len(timer) == 500
        with machine_watched() as lost_s:
            await asyncio.wait_for(watch.done.wait(), 10)
        timer.close()
        handed_over = [at_s for call in watch.calls for at_s in call]
        assert handed_over == sorted(handed_over)
        assert min(watch.late_s) >= 0
        # A quiet machine shows 0.1 ms; this bound only tells a working timer from a broken one.
        assert sorted(watch.late_s)[250] < 0.03 + lost_s()

    run(scenario())


def test_what_is_due_together_comes_in_one_call(run: Run, precise: bool) -> None:
    async def scenario() -> None:
        watch = Watch(1001)
        timer = DeadlineTimer(asyncio.get_running_loop(), watch, precise=precise)
        at_s = time.monotonic() + 0.01
        for _ in range(1000):
            timer.schedule([(at_s, at_s)])
        timer.schedule([(at_s - 60, at_s - 60)])
        await asyncio.wait_for(watch.done.wait(), 10)
        timer.close()
        assert len(watch.calls[0]) in (1, 1001)
        assert len(watch.calls) <= 2

    run(scenario())


def test_an_earlier_deadline_overtakes_and_a_callback_may_schedule(run: Run, precise: bool) -> None:
    async def scenario() -> None:
        order: list[str] = []
        done = asyncio.Event()

        def on_due(items: list[str]) -> None:
            order.extend(items)
            if "early" in items:
                timer.schedule([(time.monotonic() - 1, "at once")])
            if "late" in items:
                done.set()

        timer = DeadlineTimer(asyncio.get_running_loop(), on_due, precise=precise)
        now_s = time.monotonic()
        timer.schedule([(now_s + 0.2, "late")])
        await asyncio.sleep(0.01)  # The timer is set by now.
        timer.schedule([(now_s + 0.04, "early")])
        await asyncio.wait_for(done.wait(), 10)
        timer.close()
        assert order == ["early", "at once", "late"]

    run(scenario())


def test_what_is_due_can_be_had_before_the_loop_comes_round(run: Run, precise: bool) -> None:
    async def scenario() -> None:
        watch = Watch(2)
        timer = DeadlineTimer(asyncio.get_running_loop(), watch, precise=precise)
        now_s = time.monotonic()
        timer.schedule([(now_s + 0.2, 1.0), (now_s + 0.21, 2.0), (now_s + 60, 3.0)])
        timer.hand_over_due()
        assert watch.calls == []
        time.sleep(0.22)  # noqa: ASYNC251 - the loop must not come round
        timer.hand_over_due()
        timer.hand_over_due()
        assert watch.calls == [[1.0, 2.0]]
        assert len(timer) == 1
        timer.close()

    run(scenario())


def test_discarded_items_never_come(run: Run, precise: bool) -> None:
    async def scenario() -> None:
        watch = Watch(1)
        timer = DeadlineTimer(asyncio.get_running_loop(), watch, precise=precise)
        now_s = time.monotonic()
        kept_s = now_s + 0.03
        for at_s in (now_s + 0.01, kept_s, now_s + 0.02):
            timer.schedule([(at_s, at_s)])
        timer.discard(lambda at_s: at_s != kept_s)
        assert len(timer) == 1
        await asyncio.wait_for(watch.done.wait(), 10)
        timer.close()
        assert watch.calls == [[kept_s]]

    run(scenario())


@pytest.mark.skipif(sys.platform != "linux", reason="looks at the kernel's timers")
def test_no_timer_without_items_and_none_after_closing(run: Run, precise: bool) -> None:
    async def scenario() -> None:
        watch = Watch(1)
        before = kernel_timers()
        timer = DeadlineTimer(asyncio.get_running_loop(), watch, precise=precise)
        assert kernel_timers() == before
        at_s = time.monotonic() + 0.1
        timer.schedule([(at_s, 0.0)] * 100)
        timer.schedule([(at_s + 60, 0.0)])
        await asyncio.sleep(0.02)
        assert kernel_timers() == before + precise
        timer.close()
        timer.close()
        assert kernel_timers() == before
        calls = len(watch.calls)  # None, unless this process was stopped for long.
        await asyncio.sleep(at_s + 0.02 - time.monotonic())
        assert len(watch.calls) == calls

    run(scenario())


@pytest.mark.skipif(sys.platform != "linux", reason="looks at the kernel's timers")
def test_no_timer_is_set_while_the_loop_has_work_and_something_is_due_now_and_then(run: Run) -> None:
    async def scenario() -> None:
        watch = Watch(20)
        before = kernel_timers()
        timer = DeadlineTimer(asyncio.get_running_loop(), watch)
        now_s = time.monotonic()
        timer.schedule([(now_s + number / 1000, 0.0) for number in range(1, 21)])
        while not watch.done.is_set():
            time.sleep(0.0005)  # noqa: ASYNC251 - the work of this turn
            assert kernel_timers() == before
            await asyncio.sleep(0)
        timer.close()

    run(scenario())


@pytest.mark.skipif(sys.platform != "linux", reason="looks at the kernel's timers")
def test_the_timer_is_set_after_some_turns_however_long_they_take(run: Run) -> None:
    async def scenario() -> None:
        before = kernel_timers()
        timer = DeadlineTimer(asyncio.get_running_loop(), Watch(1))
        timer.schedule([(time.monotonic() + 60, 0.0)])
        for _ in range(IDLE_LOOKS_MAX + 2):
            time.sleep(2 * BUSY_TURN_S)  # noqa: ASYNC251 - the work of this turn
            await asyncio.sleep(0)
        assert kernel_timers() == before + 1
        timer.close()

    run(scenario())
