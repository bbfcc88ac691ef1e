"""The event loop on virtual time: it never sleeps, never hangs, and runs a world in the right order."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Callable

import pytest

from retinue.lab.virtual_loop import VirtualLoop, run_virtually
from retinue.lab.virtual_time import VirtualTime


def virtual_loop() -> VirtualLoop:
    """The loop that runs this."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    return loop


class Diary:
    """What happened when, in virtual seconds."""

    def __init__(self) -> None:
        self.lines: list[tuple[float, str]] = []

    def note(self, what: str) -> None:
        self.lines.append((round(virtual_loop().time(), 6), what))


def test_a_hundred_days_take_no_time() -> None:
    async def main() -> float:
        await asyncio.sleep(100 * 86_400)
        return asyncio.get_running_loop().time()

    assert run_virtually(main()) == pytest.approx(100 * 86_400)


def test_a_sleep_without_end_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="sleeps for ever"):
        run_virtually(asyncio.sleep(1e9))


def test_tasks_and_the_world_take_turns_in_order_of_time() -> None:
    async def main() -> list[tuple[float, str]]:
        diary, world = Diary(), VirtualTime(1)
        await asyncio.sleep(2)
        virtual_loop().enter(world)
        for due_ms in (100, 250, 251, 400):
            world.after(due_ms, diary.note, f"world {due_ms}")
        woken = asyncio.get_running_loop().create_future()
        world.after(250, woken.set_result, None)
        asyncio.get_running_loop().call_later(0.3, diary.note, "timer 300")
        await woken
        diary.note("woken")
        await asyncio.sleep(0.2)
        diary.note("slept")
        return diary.lines

    assert run_virtually(main()) == [
        (2.1, "world 100"),
        (2.25, "world 250"),
        (2.25, "woken"),
        (2.251, "world 251"),
        (2.3, "timer 300"),
        (2.4, "world 400"),
        (2.45, "slept"),
    ]


def test_the_clock_goes_on_where_a_world_was_left() -> None:
    async def main() -> float:
        loop = virtual_loop()
        for _ in range(3):
            loop.enter(VirtualTime(1))
            await asyncio.sleep(1)
            loop.leave()
            await asyncio.sleep(1)
        return loop.time()

    assert run_virtually(main()) == pytest.approx(6)


def test_one_world_at_a_time() -> None:
    async def main() -> None:
        virtual_loop().enter(VirtualTime(1))
        virtual_loop().enter(VirtualTime(2))

    with pytest.raises(RuntimeError, match="leave that one first"):
        run_virtually(main())


def test_a_deadlock_is_an_error() -> None:
    async def main() -> None:
        await asyncio.get_running_loop().create_future()

    with pytest.raises(RuntimeError, match="deadlock"):
        run_virtually(main())


def test_a_world_that_wakes_nobody_is_an_error() -> None:
    async def main() -> None:
        world = VirtualTime(1)

        def tick() -> None:
            world.after(10_000, tick)

        virtual_loop().enter(world)
        tick()
        await asyncio.get_running_loop().create_future()

    with pytest.raises(RuntimeError, match="woken none of them"):
        run_virtually(main())


def test_what_is_left_over_is_cancelled_and_closed() -> None:
    ended: list[str] = []

    async def leftover() -> None:
        try:
            await asyncio.sleep(1000)
        finally:
            ended.append("task")

    async def numbers() -> AsyncIterator[int]:
        try:
            for number in range(10):
                yield number
        finally:
            ended.append("generator")

    async def main() -> int:
        running = asyncio.create_task(leftover())
        iterator = numbers()
        await asyncio.sleep(0)
        assert not running.done()
        return await anext(iterator)

    assert run_virtually(main()) == 0
    assert sorted(ended) == ["generator", "task"]


def interrupt_now(world: VirtualTime) -> None:
    asyncio.get_running_loop().call_soon(signal.raise_signal, signal.SIGINT)


def interrupt_from_the_world(world: VirtualTime) -> None:
    world.after(500, signal.raise_signal, signal.SIGINT)


@pytest.mark.parametrize("interrupt", [interrupt_now, interrupt_from_the_world])
def test_an_interrupt_cancels_the_main_task(interrupt: Callable[[VirtualTime], None]) -> None:
    cancelled: list[float] = []

    async def main() -> None:
        world = VirtualTime(1)
        virtual_loop().enter(world)
        interrupt(world)
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            cancelled.append(virtual_loop().time())
            raise

    with pytest.raises(KeyboardInterrupt):
        run_virtually(main())
    assert len(cancelled) == 1
    assert cancelled[0] <= 0.5


def test_errors_come_out() -> None:
    async def main() -> None:
        await asyncio.sleep(1)
        raise LookupError("lost")

    with pytest.raises(LookupError, match="lost"):
        run_virtually(main())
