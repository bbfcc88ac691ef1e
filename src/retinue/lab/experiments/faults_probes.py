"""What can be found out about a cluster that nobody may break: writes whose traces tell correct servers from others.

* Keys that are written once: whoever lacks one for good never got it.
* Keys that are written twice in a row, the second before the first is answered: where nothing puts writes in order, the
  one that happens to arrive last stays.
* Keys that are deleted while a put is still on its way: where deletes leave no trace, the put brings the key back.
* Clients that read and write the same few keys, for the history.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable

from retinue.lab.availability import bins
from retinue.lab.checker import FIXED_LEADER
from retinue.lab.clients import Client, Habits, Records, habits_of, keep_busy
from retinue.lab.experiments.faults_sample import FaultSample, FaultsSettings, Scribe
from retinue.lab.experiments.faults_verdict import closing_samples
from retinue.lab.history import Operation
from retinue.lab.judging.replica_facts import known_from, node_facts
from retinue.lab.judging.settling import POLL_S, Settled, Watch, leader_of, settle
from retinue.lab.targets.contract import Target

NAME = "no faults"

PATIENCE_MS = 10_000.0
"""A server that nobody breaks gets all the time it wants."""

GAP_S = 0.01
"""Between a write and the one that follows without waiting for it: enough to arrive in this order."""

CONCURRENCY = 10


class Probes:
    """All probes on one target.

    `samples` grows at the end, `records` has what the clients saw, `silent` why nodes do not answer in the end.
    """

    def __init__(self, target: Target, mark: str, settings: FaultsSettings) -> None:
        self.samples: list[FaultSample] = []
        self.records = Records()
        self._target = target
        self._mark = mark
        self._settings = settings
        self._watch = Watch(target, mark)
        self.silent: dict[str, str] = {}
        self._watched = False
        self._clients = 0

    async def run(self) -> AsyncGenerator[str, None]:
        """Do all of it; yields a few words at each step."""
        begun_ms = self._target.now_ms()
        watching = asyncio.create_task(self._keep_watching())
        try:
            yield "keys that are written once"
            await _in_turn(self._write_once, self._names("once"))
            yield "keys that are overwritten at once"
            await _in_turn(self._overwrite, self._names("twice"))
            if self._target.abilities.deletes:
                yield "keys that are deleted at once"
                await _in_turn(self._put_and_delete, self._names("gone"))
            yield "clients at random"
            await self._mix()
            self._watched = True
            await watching
        finally:
            watching.cancel()
        ended_ms = self._target.now_ms()
        yield "waiting until nothing changes"
        settings = self._settings
        async for settled in settle(
            self._target, self._watch, timeout_ms=settings.settle_s * 1000, quiet_ms=settings.quiet_s * 1000
        ):
            last = settled
        scribe = Scribe(NAME, settings.quorum)
        self.samples += [scribe.bin(found) for found in bins(self.records.attempts, begun_ms, ended_ms)]
        self.samples += scribe.answers(self.records.attempts)
        known = known_from(self.records.history, last, settings.quorum)._replace(issued=self._issued(last))
        self.silent = last.silent
        facts = [node_facts(node, found, known, self._watch) for node, found in last.differences.items()]
        self.samples += closing_samples(scribe, self.records.history, last, FIXED_LEADER, self._target, facts)

    async def _keep_watching(self) -> None:
        while not self._watched:
            await self._watch.look()
            await asyncio.sleep(POLL_S)

    def _names(self, kind: str) -> list[str]:
        return [f"{self._mark}{kind}{number}" for number in range(self._settings.probe_keys)]

    def _client(self) -> Client:
        self._clients += 1
        return Client(f"{self._mark}c{self._clients}", self._target, self.records, PATIENCE_MS)

    async def _write_once(self, key: str) -> None:
        await self._client().put(key)

    async def _overwrite(self, key: str) -> None:
        await _soon_after(self._client().put(key), self._client().put(key))

    async def _put_and_delete(self, key: str) -> None:
        client = self._client()
        await client.put(key)
        await _soon_after(client.put(key), self._client().delete(key))

    async def _mix(self) -> None:
        target, settings = self._target, self._settings
        leader = await leader_of(target)
        ends_ms = target.now_ms() + settings.duration_s * 1000
        keys = [f"{self._mark}k{number}" for number in range(settings.keys)]

        def habits(number: int) -> Habits:
            chosen = habits_of(number, target.abilities.sessions, 0.0)
            return chosen if target.abilities.deletes else chosen._replace(delete_share=0.0)

        await asyncio.gather(
            *(
                keep_busy(
                    self._client(), keys, target.nodes, lambda: leader, habits(n), lambda: target.now_ms() >= ends_ms
                )
                for n in range(settings.clients)
            )
        )

    def _issued(self, settled: Settled) -> dict[str, list[str]]:
        """The values of the probed keys in the order in which the leader took them.

        It took the second write of a key last if it has what that one wrote; otherwise nobody knows the order.
        """
        leader = settled.dumps.get(settled.leader, {})
        writes: dict[str, list[Operation]] = {}
        for op in sorted(self.records.history, key=lambda op: op.invoked_ms):
            if op.is_write and op.key.startswith((f"{self._mark}twice", f"{self._mark}gone")):
                writes.setdefault(op.key, []).append(op)
        issued = {}
        for key, operations in writes.items():
            cell = leader.get(key)
            if operations[-1].value == (cell.value if cell else None):
                issued[key] = [op.value for op in operations if op.value is not None]
        return issued


async def _in_turn(probe: Callable[[str], Awaitable[None]], keys: Iterable[str]) -> None:
    """Probe key after key, a few at a time."""
    waiting = iter(keys)

    async def work() -> None:
        for key in waiting:
            await probe(key)

    await asyncio.gather(*(work() for _ in range(CONCURRENCY)))


async def _soon_after(first: Awaitable[object], second: Awaitable[object]) -> None:
    """Start the second when the first is under way, not when it has ended."""
    started = asyncio.ensure_future(first)
    await asyncio.sleep(GAP_S)
    await asyncio.gather(started, second)
