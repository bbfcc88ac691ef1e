"""What a recorded history says about the state at the end, above all whether something acknowledged was lost.

It needs no versions: a key's final state must be the effect of a write that no acknowledged write came after. Where
servers tell versions, the checks of `checker` say more.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

import msgspec

from retinue.lab.checker import check_history
from retinue.lab.history import Kind, Level, Operation, Outcome
from retinue.lab.linearizability import search_key
from retinue.lab.targets.contract import Cell

FINAL_READER = "the final comparison"


class Loss(NamedTuple):
    """An acknowledged write that the final state does not show, and that no later write explains."""

    write: Operation
    found: Cell | None

    @property
    def undone_delete(self) -> bool:
        """Whether a deleted key is there again."""
        return self.write.kind is Kind.DELETE

    def __str__(self) -> str:
        now = "the key is absent" if self.found is None else f"the key has {self.found.value!r}"
        if self.undone_delete:
            return f"the delete of {self.write.key!r} was acknowledged, and {now}"
        return f"{self.write.value!r} was acknowledged for {self.write.key!r}, and {now}"


class Judgement(msgspec.Struct, frozen=True, kw_only=True):
    """What the history and the leader's final state say together.

    `lost`: acknowledged writes that are gone, at most one a key. `broken`: the other promises that were broken, one
    sentence each. `undecided`: keys for which the search of an order gave up. `linearizable`: whether an order was
    found for every key; `None` when some stayed undecided.
    """

    lost: list[Loss]
    broken: list[str]
    undecided: int
    linearizable: bool | None


def judge(
    history: Sequence[Operation], final: Mapping[str, Cell] | None, ended_ms: float, linearizable: Collection[Level]
) -> Judgement:
    """Check a history against the leader's final state, or alone where nobody could read that.

    `ended_ms`: when the state was read, on the clock of the history. `linearizable`: levels of reads that must show the
    newest state.
    """
    closed = history if final is None else [*history, *_final_reads(history, final, ended_ms)]
    lost = [] if final is None else losses(history, final)
    if any(op.version for op in history):
        verdict = check_history(closed, linearizable)
        sentences = [f"{violation.check}: {violation.detail}" for violation in verdict.violations]
        undecided = verdict.undecided
        disorder = any(violation.check == "linearizability" for violation in verdict.violations)
    else:
        sentences, undecided = _check_without_versions(closed, linearizable)
        disorder = bool(sentences)
    return Judgement(
        lost=lost,
        broken=sentences,
        undecided=undecided,
        linearizable=False if disorder else None if undecided else True,
    )


def losses(history: Iterable[Operation], final: Mapping[str, Cell]) -> list[Loss]:
    """The newest acknowledged write of each key whose final state nothing explains."""
    by_key: dict[str, list[Operation]] = defaultdict(list)
    for op in history:
        if op.may_have_effect:
            by_key[op.key].append(op)
    found = []
    for key, writes in by_key.items():
        cell = final.get(key)
        if not any(_explains(op, cell) for op in possibly_last(writes)):
            acknowledged = [op for op in writes if op.outcome is Outcome.OK]
            if acknowledged:
                found.append(Loss(max(acknowledged, key=lambda op: (op.version, op.completed_ms or 0.0)), cell))
    return found


def possibly_last(writes: Sequence[Operation]) -> list[Operation]:
    """Those writes of one key that may have taken effect last: no acknowledged one surely came after them."""
    acknowledged = [op for op in writes if op.outcome is Outcome.OK]
    latest_ms = max((op.invoked_ms for op in acknowledged), default=-math.inf)
    newest = max((op.version for op in acknowledged), default=0)
    return [op for op in writes if _may_follow(op, latest_ms, newest)]


def _may_follow(op: Operation, latest_ms: float, newest: int) -> bool:
    if op.outcome is Outcome.UNKNOWN or op.completed_ms is None:
        return True
    return op.version >= newest and op.completed_ms >= latest_ms


def _explains(op: Operation, cell: Cell | None) -> bool:
    if op.kind is Kind.DELETE:
        return cell is None
    return cell is not None and cell.value == op.value and (not op.version or cell.version in (0, op.version))


def _final_reads(history: Iterable[Operation], final: Mapping[str, Cell], ended_ms: float) -> list[Operation]:
    reads = []
    for key in sorted({op.key for op in history}):
        cell = final.get(key)
        reads.append(
            Operation(
                client=FINAL_READER,
                kind=Kind.READ,
                key=key,
                invoked_ms=ended_ms,
                completed_ms=ended_ms,
                observed=cell.value if cell else None,
                version=cell.version if cell else 0,
                level=Level.STRONG,
            )
        )
    return reads


def _check_without_versions(history: Sequence[Operation], linearizable: Collection[Level]) -> tuple[list[str], int]:
    by_key: dict[str, list[Operation]] = defaultdict(list)
    for op in history:
        if op.may_have_effect or (op.kind is Kind.READ and op.level in linearizable):
            by_key[op.key].append(op)
    broken, undecided = [], 0
    for key, operations in by_key.items():
        found = search_key(operations)
        if found.linearizable is None:
            undecided += 1
        elif not found.linearizable:
            stuck = "" if found.stuck is None else f"; nothing explains: {found.stuck.brief()}"
            broken.append(f"linearizability: no order explains the history of {key!r}{stuck}")
    return broken, undecided
