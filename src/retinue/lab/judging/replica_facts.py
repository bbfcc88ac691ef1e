"""How followers differ from the leader in the end, as the numbers that tell faults apart."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import pairwise
from types import MappingProxyType

from retinue.lab.history import Kind, Operation, Outcome
from retinue.lab.judging.comparison import Difference, State
from retinue.lab.judging.diagnosis import NodeFacts
from retinue.lab.judging.settling import Settled, Watch

SHOWN_KEYS = 3


def written_once(history: Iterable[Operation]) -> set[str]:
    """Keys with a single write, an acknowledged put."""
    writes: dict[str, list[Operation]] = {}
    for op in history:
        if op.may_have_effect:
            writes.setdefault(op.key, []).append(op)
    return {
        key for key, ops in writes.items() if len(ops) == 1 and ops[0].kind is Kind.PUT and ops[0].outcome is Outcome.OK
    }


def plain_facts(settled: Settled, once: Collection[str] = ()) -> list[NodeFacts]:
    """The differences of each node as numbers, without knowing what it went through."""
    return [node_facts(node, differences, once=once) for node, differences in settled.differences.items()]


def node_facts(
    node: str,
    differences: Sequence[Difference],
    watch: Watch | None = None,
    issued: Mapping[str, Sequence[str]] = MappingProxyType({}),
    once: Collection[str] = (),
) -> NodeFacts:
    """The differences of one node as numbers.

    With a `watch` they also tell what the node went through: a key it once had is not called missing. `issued`: values
    of keys in the order in which the leader is known to have taken them, to tell a way back. `once`: keys that were
    written exactly once.
    """
    changes = watch.changes[node] if watch else {}
    seen = {each.key: [cell.value if cell else None for cell in changes.get(each.key, [])] for each in differences}
    undeleted = [each.key for each in differences if each.state is State.EXTRA]
    missing = [each.key for each in differences if each.state is State.MISSING and not any(seen[each.key])]
    outdated = [key for key in seen if key not in {*undeleted, *missing}]
    return NodeFacts(
        node=node,
        missing=len(missing),
        missing_once=sum(key in once for key in missing),
        outdated=len(outdated),
        went_back=sum(_went_back(seen[key], issued.get(key, ())) for key in outdated),
        undeleted=len(undeleted),
        came_back=sum(key in issued and _came_back(seen[key]) for key in undeleted),
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
