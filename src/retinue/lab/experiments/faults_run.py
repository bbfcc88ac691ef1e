"""One schedule of faults on a running target: clients, events, recovery, and the verdict on what the clients saw."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import suppress

from retinue.errors import RetinueError
from retinue.lab.availability import bins, outages
from retinue.lab.checker import FIXED_LEADER, STRONG_ONLY
from retinue.lab.clients import Client, Records, habits_of, keep_busy
from retinue.lab.experiments.faults_sample import BROKEN, EVENT, FaultSample, FaultsSettings, Scribe
from retinue.lab.experiments.faults_verdict import closing_samples
from retinue.lab.judging.settling import Watch, settle
from retinue.lab.schedules import REPAIRS, Action, Event, Schedule
from retinue.lab.targets.contract import Outcome, Target

RETRY_MS = 3000.0
"""How long half of the clients try again what was not definite."""

PATIENCE_S = 2.0
"""The longest time for one event, so that a promotion that cannot succeed does not hold up the schedule."""

LOOK_S = 0.25
"""How often clients learn who leads."""

PROMOTIONS = 20
"""How often a promotion between two schedules is tried."""

CATCH_UP_LIMIT_MS = 60_000.0

PROMOTE_AFTER_MS = 3000.0
"""Without a committed write for so long after everything was healed, the expected leader is promoted (again)."""


class ScheduleRun:
    """One schedule under load. `samples` grows while it runs; `records` has what the clients saw."""

    def __init__(self, target: Target, schedule: Schedule, mark: str, settings: FaultsSettings) -> None:
        self.schedule = schedule
        self.samples: list[FaultSample] = []
        self.records = Records()
        self._target = target
        self._mark = mark
        self._settings = settings
        self._scribe = Scribe(schedule.name, schedule.quorum)
        self._keys = [f"{mark}k{number}" for number in range(settings.keys)]
        self._leader = target.nodes[0]
        self._broken: dict[str, Action] = {}
        self._begun_ms = 0.0
        self._ended = False
        self._chores: list[asyncio.Task[None]] = []

    async def run(self) -> AsyncGenerator[str, None]:
        """Do all of it; yields a few words whenever something has happened."""
        await self._let_the_first_lead()
        if self._target.abilities.quorum:
            await self._target.set_quorum(self.schedule.quorum)
        self._begun_ms = self._target.now_ms()
        clients = [
            asyncio.create_task(self._client(number), name=f"client {number}")
            for number in range(self._settings.clients)
        ]
        looking = asyncio.create_task(self._look_for_the_leader())
        try:
            async for what in self._play():
                yield what
            self._ended = True
            await asyncio.gather(*clients)
            yield "waiting for the followers"
            await asyncio.gather(*self._chores)
        finally:
            self._ended = True
            for task in (*clients, looking, *self._chores):
                task.cancel()
            await asyncio.gather(*clients, looking, *self._chores, return_exceptions=True)
        load_ended_ms = self._target.now_ms()
        yield "comparing replicas"
        await self._close(load_ended_ms)

    async def _let_the_first_lead(self) -> None:
        """Give the leadership back to the node that led at the start, so that a schedule is the same in any order."""
        first = self._target.nodes[0]
        for attempts_left in reversed(range(PROMOTIONS)):
            if await self._target.leader() == first:
                break
            try:
                await self._target.promote(first)
                break
            except RetinueError:
                if not attempts_left:
                    raise
                await asyncio.sleep(LOOK_S)
        self._leader = first

    async def _client(self, number: int) -> None:
        client = Client(f"{self._mark}c{number}", self._target, self.records, self._settings.write_timeout_ms)
        habits = habits_of(number, self._target.abilities.sessions, RETRY_MS)
        await keep_busy(client, self._keys, self._target.nodes, lambda: self._leader, habits, lambda: self._ended)

    async def _look_for_the_leader(self) -> None:
        while True:
            with suppress(RetinueError):  # while nobody answers, clients go on asking whom they know
                self._leader = await self._target.leader() or self._leader
            await asyncio.sleep(LOOK_S)

    # --- the events ---

    async def _play(self) -> AsyncIterator[str]:
        expected = self._leader
        for event in self.schedule.events:
            await self._sleep_until(event.at_ms)
            if event.action is Action.PROMOTE:
                expected = event.node
            await self._perform(event)
            yield str(event)
        # What failed half-way may have left something broken.
        for node, action in list(self._broken.items()):
            await self._perform(Event(self._now_ms(), REPAIRS[action], node))
        await self._sleep_until(self.schedule.duration_ms)
        yield "waiting for writes to go on"
        await self._wait_for_writes(expected)

    async def _perform(self, event: Event) -> None:
        target, node, detail = self._target, event.node, ""
        actions = {
            Action.KILL: target.kill,
            Action.START: target.start,
            Action.PAUSE: target.pause,
            Action.RESUME: target.resume,
            Action.CUT_OFF: target.cut_off,
            Action.HEAL: target.heal,
            Action.PROMOTE: target.promote,
        }
        session = self.records.newest_session
        if event.action.breaks:
            # Also if it fails, for it may have failed after it was done.
            self._broken[node] = event.action
        at_ms = self._now_ms()
        try:
            async with asyncio.timeout(PATIENCE_S):
                await actions[event.action](node)
        except TimeoutError:
            detail = f"It took longer than {PATIENCE_S:g} s."
        except RetinueError as error:
            detail = error.detail
        else:
            if event.action is Action.PROMOTE:
                self._leader = node
                self._chores.append(asyncio.create_task(self._choose_quorum()))
        if event.action.mends and not detail:
            self._broken.pop(node, None)
            if session and target.abilities.sessions:
                self._chores.append(asyncio.create_task(self._catch_up(event, at_ms, session)))
        self.samples.append(self._scribe.event(at_ms, event.action.value, node, detail))

    async def _choose_quorum(self) -> None:
        """Let the quorum of the schedule hold: a node that takes over may bring one of its own settings."""
        if self._target.abilities.quorum:
            with suppress(RetinueError):  # without enough followers it stays as it is
                await self._target.set_quorum(self.schedule.quorum)

    async def _catch_up(self, event: Event, mended_ms: float, session: str) -> None:
        """Measure until a node that was away knows what the newest client knew when it was mended."""
        while self._now_ms() < mended_ms + CATCH_UP_LIMIT_MS:
            seen = await self._target.read(event.node, self._keys[0], session=session)
            if seen.answered:
                took_ms = self._now_ms() - mended_ms
                self.samples.append(self._scribe.catch_up(mended_ms, took_ms, event.action.value, event.node))
                return
            await asyncio.sleep(0.02)

    async def _wait_for_writes(self, expected: str) -> None:
        """Wait until a write commits that began after the healing; promote if nobody leads."""
        healed_ms = tried_ms = self._target.now_ms()
        while not self._committed_since(healed_ms):
            now_ms = self._target.now_ms()
            if now_ms >= healed_ms + self._settings.settle_s * 1000:
                waited = f"no write was committed within {self._settings.settle_s:g} s after everything was healed"
                self.samples.append(self._scribe.sentence(BROKEN, waited))
                return
            if now_ms >= tried_ms + PROMOTE_AFTER_MS:
                tried_ms = now_ms
                await self._perform(Event(self._now_ms(), Action.PROMOTE, expected))
            await asyncio.sleep(0.05)

    def _committed_since(self, since_ms: float) -> bool:
        """Whether a write that began after `since_ms` was committed; the newest attempts are the last."""
        for attempt in reversed(self.records.attempts):
            if attempt.ended_ms < since_ms:
                return False
            if attempt.begun_ms >= since_ms and attempt.outcome is Outcome.COMMITTED:
                return True
        return False

    # --- the end ---

    async def _close(self, load_ended_ms: float) -> None:
        watch = Watch(self._target, self._mark)
        # A looking-around that finds all equal ends the waiting; the last one counts in any case.
        async for settled in settle(self._target, watch, timeout_ms=self._settings.settle_s * 1000):
            last = settled
        promoted = any(sample.sort == EVENT and sample.what == Action.PROMOTE.value for sample in self.samples)
        levels = STRONG_ONLY if promoted or not self.schedule.keeps_the_leader else FIXED_LEADER
        self.samples += self._availability(load_ended_ms)
        self.samples += self._scribe.answers(self.records.attempts)
        self.samples += closing_samples(self._scribe, self.records.history, last, levels, self._target)

    def _availability(self, load_ended_ms: float) -> Iterator[FaultSample]:
        attempts, begun_ms = self.records.attempts, self._begun_ms
        repairs = [
            sample
            for sample in self.samples
            if sample.sort == EVENT and (Action(sample.what).mends or sample.what == Action.PROMOTE.value)
        ]
        for found in bins(attempts, begun_ms, load_ended_ms):
            yield self._scribe.bin(found)
        for outage in outages(attempts, begun_ms, load_ended_ms):
            relative = outage._replace(begun_ms=outage.begun_ms - begun_ms, ended_ms=outage.ended_ms - begun_ms)
            inside = [repair for repair in repairs if relative.begun_ms <= repair.at_ms < relative.ended_ms]
            yield self._scribe.outage(relative, inside[-1] if inside else None)

    @property
    def elapsed_ms(self) -> float:
        """The time since the schedule began."""
        return self._now_ms()

    def _now_ms(self) -> float:
        return self._target.now_ms() - self._begun_ms

    async def _sleep_until(self, at_ms: float) -> None:
        wait_ms = at_ms - self._now_ms()
        if wait_ms > 0:
            await asyncio.sleep(wait_ms / 1000)
