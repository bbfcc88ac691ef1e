"""Waiting until nothing changes any more, and what is different then."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress

import msgspec

from retinue.errors import RetinueError
from retinue.lab.judging.comparison import Difference, compare
from retinue.lab.targets.contract import Cell, Target

POLL_S = 0.1

Dump = Mapping[str, Cell]


class Settled(msgspec.Struct, frozen=True, kw_only=True):
    """The nodes after waiting.

    `dumps`: what each node has. `differences`: those of each other node from the leader, empty lists where it agrees.
    `waited_ms`: how long it took until all agreed, or until it was given up. `quiet_ms`: for how long nothing had
    changed by then. `silent`: nodes that could not be asked, and why.
    """

    leader: str
    dumps: dict[str, Dump]
    differences: dict[str, list[Difference]]
    waited_ms: float
    quiet_ms: float = 0.0
    silent: dict[str, str] = {}

    @property
    def equal(self) -> bool:
        """Whether all nodes answered and hold the same."""
        return not self.silent and not any(self.differences.values())


class Watch:
    """Looks at all nodes again and again, and remembers each change of each key: what replicas went through.

    `changes[node][key]`: the cells that the node had one after another, `None` for an absent key.
    """

    def __init__(self, target: Target, prefix: str = "") -> None:
        self.dumps: dict[str, Dump] = {}
        self.silent: dict[str, str] = {}
        self.changes: dict[str, dict[str, list[Cell | None]]] = {node: {} for node in target.nodes}
        self.changed_ms = target.now_ms()
        self._target = target
        self._prefix = prefix

    async def look(self) -> None:
        """Ask every node once."""
        looked = await asyncio.gather(*(self._look_at(node) for node in self._target.nodes))
        if any(looked):
            self.changed_ms = self._target.now_ms()

    async def _look_at(self, node: str) -> bool:
        """Ask one node; whether it has something else than before."""
        try:
            everything = await self._target.dump(node)
        except RetinueError as error:
            before = self.silent.get(node)
            self.silent[node] = error.detail
            self.dumps.pop(node, None)
            return before is None
        spoke_before = self.silent.pop(node, None) is None
        dump = {key: cell for key, cell in everything.items() if key.startswith(self._prefix)}
        before_dump, self.dumps[node] = self.dumps.get(node), dump
        if before_dump is not None and before_dump == dump:
            return not spoke_before
        changes = self.changes[node]
        for key in {*dump, *changes}:
            seen = changes.setdefault(key, [])
            if not seen or seen[-1] != dump.get(key):
                seen.append(dump.get(key))
        return True

    def settled(self, leader: str, waited_ms: float) -> Settled:
        """What was seen last, compared with the leader."""
        first = self.dumps.get(leader, {})
        return Settled(
            leader=leader,
            dumps={node: self.dumps[node] for node in self.changes if node in self.dumps},
            differences={
                node: compare(first, self.dumps[node]) for node in self.changes if node in self.dumps and node != leader
            },
            waited_ms=waited_ms,
            quiet_ms=self._target.now_ms() - self.changed_ms,
            silent=dict(self.silent),
        )


async def settle(
    target: Target, watch: Watch, *, timeout_ms: float, quiet_ms: float = float("inf")
) -> AsyncIterator[Settled]:
    """Look until all nodes hold the same, until nothing has changed for `quiet_ms`, or until the time is over.

    Yields what every look shows; the last one counts. Where nobody can tell who leads, the first node is compared with.
    """
    begun_ms = target.now_ms()
    watch.changed_ms = begun_ms
    while True:
        await watch.look()
        leader = await leader_of(target)
        waited_ms = target.now_ms() - begun_ms
        settled = watch.settled(leader, waited_ms)
        yield settled
        quiet = target.now_ms() - watch.changed_ms >= quiet_ms
        if settled.equal or quiet or waited_ms >= timeout_ms:
            return
        await asyncio.sleep(POLL_S)


async def leader_of(target: Target) -> str:
    """The node that leads; where nobody can tell, the first one."""
    with suppress(RetinueError):  # a node that does not answer is told of as silent
        return await target.leader() or target.nodes[0]
    return target.nodes[0]
