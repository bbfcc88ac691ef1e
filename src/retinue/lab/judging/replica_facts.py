"""How followers differ from the leader in the end, as the numbers that tell faults apart."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import pairwise
from types import MappingProxyType
from typing import NamedTuple

from retinue.lab.history import Kind, Operation, Outcome
from retinue.lab.judging.comparison import Difference, State
from retinue.lab.judging.diagnosis import NodeFacts
from retinue.lab.judging.settling import Settled, Watch
from retinue.lab.targets.contract import Cell

SHOWN_KEYS = 3


class Known(NamedTuple):
    """What a history says about keys; it tells why a follower differs on them.

    `once`: written exactly once, by an acknowledged put. `deleted`: somebody may have deleted them, so a follower that
    lacks one may have had it. `confirmed`: every follower has confirmed what the leader has in the end, so one that
    has something else gave it up. `issued`: their values in the order in which the leader is known to have taken them.
    """

    once: Collection[str] = ()
    deleted: Collection[str] = ()
    confirmed: Collection[str] = ()
    issued: Mapping[str, Sequence[str]] = MappingProxyType({})


def known_from(history: Iterable[Operation], settled: Settled, quorum: int = 0) -> Known:
    """All of it but `issued`. `quorum`: how many followers confirm a write before it is acknowledged, 0 if unknown."""
    writes: dict[str, list[Operation]] = {}
    for op in history:
        if op.may_have_effect:
            writes.setdefault(op.key, []).append(op)
    leader = settled.dumps.get(settled.leader)
    followers = len({*settled.dumps, *settled.silent} - {settled.leader})
    confirmed = set()
    if leader is not None and 0 < followers <= quorum:
        confirmed = {key for key, ops in writes.items() if _is_acknowledged(ops, leader.get(key))}
    return Known(
        once={key for key, ops in writes.items() if _is_put_once(ops)},
        deleted={key for key, ops in writes.items() if any(op.kind is Kind.DELETE for op in ops)},
        confirmed=confirmed,
    )


def _is_put_once(writes: Sequence[Operation]) -> bool:
    return len(writes) == 1 and writes[0].kind is Kind.PUT and writes[0].outcome is Outcome.OK


def _is_acknowledged(writes: Sequence[Operation], cell: Cell | None) -> bool:
    """Whether what a key has was acknowledged; where it is absent, whichever delete that is owed to."""
    if cell is None:
        deletes = [op.outcome for op in writes if op.kind is Kind.DELETE]
        return bool(deletes) and set(deletes) == {Outcome.OK}
    return any(op.value == cell.value and op.outcome is Outcome.OK for op in writes)


def plain_facts(settled: Settled, known: Known) -> list[NodeFacts]:
    """The differences of each node as numbers, without knowing what it went through."""
    return [node_facts(node, differences, known) for node, differences in settled.differences.items()]


def node_facts(node: str, differences: Sequence[Difference], known: Known, watch: Watch | None = None) -> NodeFacts:
    """The differences of one node as numbers.

    A key is missing if nothing suggests that the node ever had it: neither the history nor, with a `watch`, what the
    node went through.
    """
    changes = watch.changes[node] if watch else {}
    seen = {each.key: [cell.value if cell else None for cell in changes.get(each.key, [])] for each in differences}
    had = {key for key in seen if any(seen[key]) or key in known.deleted or key in known.confirmed}
    undeleted = [each.key for each in differences if each.state is State.EXTRA]
    missing = [each.key for each in differences if each.state is State.MISSING and each.key not in had]
    outdated = [key for key in seen if key not in {*undeleted, *missing}]
    return NodeFacts(
        node=node,
        missing=len(missing),
        missing_once=sum(key in known.once for key in missing),
        outdated=len(outdated),
        went_back=sum(key in known.confirmed or _went_back(seen[key], known.issued.get(key, ())) for key in outdated),
        undeleted=len(undeleted),
        came_back=sum(key in known.confirmed or (key in known.issued and _came_back(seen[key])) for key in undeleted),
        missing_keys=_some(missing),
        outdated_keys=_some(outdated),
        undeleted_keys=_some(undeleted),
    )


def _some(keys: Sequence[str]) -> str:
    return ", ".join(keys[:SHOWN_KEYS])


def _went_back(seen: Sequence[str | None], issued: Sequence[str]) -> bool:
    """Whether an older value followed a newer one."""
    positions = [issued.index(value) for value in seen if value in issued]
    return any(after < before for before, after in pairwise(positions))


def _came_back(seen: Sequence[str | None]) -> bool:
    """There, then gone, then there."""
    gone = [number for number, value in enumerate(seen) if value is None and any(seen[:number])]
    return bool(gone) and seen[-1] is not None


def few_copies(history: Sequence[Operation], settled: Settled, quorum: int) -> int:
    """Keys whose value at the leader was acknowledged, and is on fewer followers than the quorum says."""
    acknowledged = {op.value for op in history if op.kind is Kind.PUT and op.outcome is Outcome.OK}
    followers = [dump for node, dump in settled.dumps.items() if node != settled.leader]
    found = 0
    for key, cell in settled.dumps.get(settled.leader, {}).items():
        if cell.value in acknowledged:
            found += sum(dump.get(key) == cell for dump in followers) < quorum
    return found
