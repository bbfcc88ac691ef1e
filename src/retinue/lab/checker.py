"""Checks of a recorded history, and of what the nodes hold at the end. The simulator and real clusters share them.

    verdict = check_history(load_history(path), linearizable={Level.STRONG})
    verdict = verdict.plus(check_final(nodes, history))
    if verdict.violations: ...

* `check_history`: for each key the search of `linearizability` and the order of versions; sessions of each client.
* `check_final`: all nodes equal, nothing pending, every acknowledged write exactly once everywhere.
* `check_set`, `check_list`, `check_counter`, `check_sums`: what a workload promises beyond single keys.

Every check returns a `Verdict`; none raises on a bad history. "Undecided" keys are counted, never taken as good.
"""

from __future__ import annotations

import json
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence

import msgspec

from retinue.lab.history import Kind, Level, Operation, Outcome
from retinue.lab.linearizability import STEP_CAP, search_key

STRONG_ONLY = frozenset({Level.STRONG})
"""The reads that are linearizable whatever happens."""

FIXED_LEADER = frozenset({Level.STRONG, Level.COMMITTED})
"""The reads that are linearizable as long as no other node takes the leadership."""


class Violation(msgspec.Struct, frozen=True):
    """One broken promise: the name of the check, and one sentence."""

    check: str
    detail: str


class Verdict(msgspec.Struct, frozen=True):
    """The outcome of checks: what was violated, how many operations were seen, how many keys stayed undecided."""

    violations: tuple[Violation, ...] = ()
    operations: int = 0
    undecided: int = 0

    def plus(self, other: Verdict) -> Verdict:
        """Both together."""
        return Verdict(
            self.violations + other.violations, self.operations + other.operations, self.undecided + other.undecided
        )


class FinalNode(msgspec.Struct, frozen=True):
    """What one node holds at the end.

    `digest` stands for the whole visible state. `requests` maps each request id to the versions of its rows; rows at or
    below `floor` may have been removed because newer ones supersede them.
    """

    name: str
    trusted: int
    pending: int
    digest: str
    floor: int = 0
    requests: Mapping[str, Sequence[int]] = {}


def check_history(
    history: Sequence[Operation], linearizable: Collection[Level] = STRONG_ONLY, step_cap: int = STEP_CAP
) -> Verdict:
    """Everything that can be said key by key and client by client.

    Reads of other levels need not be the newest. A failed condition shows the state at level `committed`.
    """
    violations: list[Violation] = []
    undecided = 0
    for key, operations in _by_key(history).items():
        violations += check_version_order(operations, linearizable)
        found = search_key(
            (op for op in operations if op.may_have_effect or _shows_the_newest(op, linearizable)), step_cap
        )
        if found.linearizable is None:
            undecided += 1
        elif not found.linearizable:
            stuck = "" if found.stuck is None else f"; nothing explains: {found.stuck.brief()}"
            violations.append(Violation("linearizability", f"no order explains the history of {key!r}{stuck}"))
    violations += check_sessions(history)
    return Verdict(tuple(violations), len(history), undecided)


def check_version_order(operations: Sequence[Operation], linearizable: Collection[Level]) -> list[Violation]:
    """One key, O(n log n): versions agree with real time, with each other, and with the conditions."""
    return [
        *_check_contents(operations),
        *_check_real_time(operations, linearizable),
        *_check_conditions(operations),
    ]


def _check_contents(operations: Sequence[Operation]) -> list[Violation]:
    """One value per version (local reads may show what never commits); every value read was written, and not later."""
    violations: list[Violation] = []
    by_version: dict[int, str | None] = {}
    written_at: dict[str, float] = {}
    for op in operations:
        if op.may_have_effect and op.value is not None:
            written_at[op.value] = min(op.invoked_ms, written_at.get(op.value, op.invoked_ms))
    for op in operations:
        if op.outcome is not Outcome.OK or not op.version:
            continue
        value = op.observed if op.kind is Kind.READ else op.value
        if op.level is not Level.LOCAL and by_version.setdefault(op.version, value) != value:
            violations.append(Violation("one value per version", f"{by_version[op.version]!r} and {op.brief()}"))
        if op.kind is Kind.READ and value is not None and op.completed_ms is not None:
            if value not in written_at:
                violations.append(Violation("phantom", f"nobody may have written what was read: {op.brief()}"))
            elif written_at[value] > op.completed_ms:
                violations.append(Violation("read from the future", op.brief()))
    return violations


def _check_real_time(operations: Sequence[Operation], linearizable: Collection[Level]) -> list[Violation]:
    """What began after something finished has a version that is not older; a write has a newer one."""
    violations: list[Violation] = []
    timed = [op for op in operations if _orders_in_time(op, linearizable)]
    finished = sorted((op.completed_ms or 0.0, op.version) for op in timed)
    deletes = _Deletes(operations)
    floor, position = 0, 0
    for op in sorted(timed, key=lambda op: op.invoked_ms):
        while position < len(finished) and finished[position][0] < op.invoked_ms:
            floor = max(floor, finished[position][1])
            position += 1
        if op.is_write and op.outcome is Outcome.OK:
            if op.version <= floor:
                violations.append(Violation("version order", f"version {floor} was finished before: {op.brief()}"))
        elif op.version:
            if op.version < floor:
                violations.append(Violation("stale read", f"version {floor} was finished before: {op.brief()}"))
        elif op.kind is Kind.READ and floor and not deletes.may_explain(op, floor):
            violations.append(Violation("lost value", f"version {floor} was finished before: {op.brief()}"))
    return violations


def _orders_in_time(op: Operation, linearizable: Collection[Level]) -> bool:
    return op.completed_ms is not None and (
        (op.is_write and op.outcome is Outcome.OK) or _shows_the_newest(op, linearizable)
    )


def _shows_the_newest(op: Operation, linearizable: Collection[Level]) -> bool:
    """Whether the answer had to be about the newest state: a linearizable read, or a failed condition."""
    if op.kind is Kind.READ:
        return op.outcome is Outcome.OK and op.level in linearizable
    return op.outcome is Outcome.CONDITION_FAILED and Level.COMMITTED in linearizable


class _Deletes:
    """The deletes of one key, to tell whether one may have removed a given version before a given time."""

    def __init__(self, operations: Sequence[Operation]) -> None:
        deletes = sorted(
            (op for op in operations if op.kind is Kind.DELETE and op.may_have_effect), key=lambda op: op.invoked_ms
        )
        self.invoked = [op.invoked_ms for op in deletes]
        self.newest: list[float] = []
        newest = 0.0
        for op in deletes:
            newest = max(newest, op.version if op.outcome is Outcome.OK else float("inf"))
            self.newest.append(newest)

    def may_explain(self, read: Operation, floor: int) -> bool:
        """Whether a delete that is not older than `floor` had been asked for before the read ended."""
        known = bisect_right(self.invoked, read.completed_ms or 0.0)
        return known > 0 and self.newest[known - 1] >= floor


def _check_conditions(operations: Sequence[Operation]) -> list[Violation]:
    """A write conditional on a version comes right after that version: nothing known lies between them."""
    violations: list[Violation] = []
    versions = sorted({op.version for op in operations if op.is_write and op.outcome is Outcome.OK})
    for op in operations:
        if op.outcome is not Outcome.OK or not op.is_write or op.expected is None or op.expected <= 0:
            continue
        after, upto = bisect_right(versions, op.expected), bisect_left(versions, op.version)
        if op.version <= op.expected or after < upto:
            between = versions[after:upto]
            violations.append(Violation("lost update", f"versions {between} lie before {op.brief()}"))
    return violations


def check_sessions(history: Sequence[Operation]) -> list[Violation]:
    """Session reads of one client: never older than its own writes and what it has seen before on that key."""
    violations: list[Violation] = []
    deletes = {key: _Deletes(operations) for key, operations in _by_key(history).items()}
    floors: dict[tuple[str, str], int] = defaultdict(int)
    finished = [op for op in history if op.completed_ms is not None and op.outcome is Outcome.OK]
    for op in sorted(finished, key=lambda op: op.completed_ms or 0.0):
        if op.kind is Kind.SCAN or op.level is Level.LOCAL:
            continue
        place = (op.client, op.key)
        if op.level is Level.SESSION:
            gone = not op.version and deletes[op.key].may_explain(op, floors[place])
            if op.version < floors[place] and not gone:
                violations.append(Violation("session", f"the session knew version {floors[place]}: {op.brief()}"))
        floors[place] = max(floors[place], op.version)
    return violations


def check_final(nodes: Sequence[FinalNode], history: Sequence[Operation]) -> Verdict:
    """After healing and convergence: one state, nothing pending, and each write where its answer said."""
    violations: list[Violation] = []
    first = nodes[0]
    for node in nodes:
        if (node.trusted, node.digest) != (first.trusted, first.digest):
            violations.append(
                Violation(
                    "nodes equal",
                    f"{node.name}: {node.digest} at {node.trusted}; {first.name}: {first.digest} at {first.trusted}",
                )
            )
        if node.pending:
            violations.append(Violation("nothing pending", f"{node.name} has {node.pending} versions undecided"))
    for op in {op.request_id: op for op in history if op.is_write and op.request_id}.values():
        violations += _check_request(op, nodes)
    return Verdict(tuple(violations))


def _check_request(op: Operation, nodes: Sequence[FinalNode]) -> list[Violation]:
    held = {node.name: list(node.requests.get(op.request_id, ())) for node in nodes}
    if op.outcome is Outcome.OK:
        bad = [n.name for n in nodes if held[n.name] != [op.version] and (held[n.name] or op.version > n.floor)]
        if bad:
            return [Violation("acknowledged exactly once", f"{op.brief()}: versions by node {held}")]
        return []
    if op.outcome is not Outcome.UNKNOWN:
        if any(held.values()):
            return [Violation("refused means nothing written", f"{op.brief()}: versions by node {held}")]
        return []
    versions = {version for rows in held.values() for version in rows}
    if len(versions) > 1:
        return [Violation("one request, one version", f"{op.brief()}: versions by node {held}")]
    if any(not held[n.name] and version > n.floor for n in nodes for version in versions):
        return [Violation("unknown, but the same everywhere", f"{op.brief()}: versions by node {held}")]
    return []


def check_set(history: Iterable[Operation], present: Collection[str]) -> Verdict:
    """A key per element, never deleted: nothing acknowledged is lost, nothing refused or unasked is there."""
    violations: list[Violation] = []
    writes = {op.key: op for op in history if op.kind is Kind.PUT}
    for key, op in writes.items():
        if op.outcome is Outcome.OK and key not in present:
            violations.append(Violation("set: lost element", op.brief()))
        if not op.may_have_effect and key in present:
            violations.append(Violation("set: refused element", op.brief()))
    violations += [Violation("set: phantom element", key) for key in present if key not in writes]
    return Verdict(tuple(violations))


def check_list(history: Iterable[Operation], key: str, final: Sequence[str]) -> Verdict:
    """A comma-separated list that grows by compare-and-set; each append has its own last element as its mark."""
    violations: list[Violation] = []
    if len(set(final)) != len(final):
        violations.append(Violation("list: element twice", f"{key}: {','.join(final)}"))
    for op in history:
        if op.key != key or (op.kind is Kind.READ and op.level is Level.LOCAL):
            continue
        seen = op.observed if op.kind is Kind.READ else op.value
        if op.outcome is not Outcome.OK or seen is None:
            continue
        elements = seen.split(",")
        if list(final[: len(elements)]) != elements:
            violations.append(Violation("list: no prefix of the final list", f"{op.brief()} of {','.join(final)}"))
    return Verdict(tuple(violations))


def check_counter(history: Iterable[Operation], key: str, final: int) -> Verdict:
    """A counter raised by one through compare-and-set: at least the acknowledged ones, at most the unknown too."""
    writes = [op for op in history if op.key == key and op.kind is Kind.PUT]
    acknowledged = sum(op.outcome is Outcome.OK for op in writes)
    possible = acknowledged + sum(op.outcome is Outcome.UNKNOWN for op in writes)
    if acknowledged <= final <= possible:
        return Verdict()
    detail = f"{key} ends at {final}; {acknowledged} increments acknowledged, {possible} possible"
    return Verdict((Violation("counter", detail),))


def check_sums(history: Iterable[Operation], prefix: str, total: int) -> Verdict:
    """Batches that always write numbers of the same sum to all keys of `prefix`: every scan sees that sum, or none."""
    violations: list[Violation] = []
    for op in history:
        if op.kind is not Kind.SCAN or op.key != prefix or not op.observed:
            continue
        values: dict[str, str] = json.loads(op.observed)
        numbers = [int(value.split(":")[0]) for value in values.values()]
        if numbers and sum(numbers) != total:
            violations.append(Violation("batch is atomic", f"sum {sum(numbers)}, not {total}: {op.observed}"))
    return Verdict(tuple(violations))


def _by_key(history: Iterable[Operation]) -> dict[str, list[Operation]]:
    found: dict[str, list[Operation]] = defaultdict(list)
    for op in history:
        if op.kind is not Kind.SCAN:
            found[op.key].append(op)
    return found
