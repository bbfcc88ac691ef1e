"""Was there one order of all operations on a key that explains every answer? The search of Wing, Gong and Lowe.

An order explains the history when each operation takes effect at one moment between its invocation and its answer, as
if the key lived in one place. Unknown operations may take effect at any time after their invocation, or never.

The search tries the operations that no unfinished one precedes, remembers which configurations (operations done, state
of the key) led nowhere, and gives up as "undecided" after a number of steps: the problem is NP-complete. Versions
only suggest which operation to try first, so that a correct history is explained in one go; they prove nothing here.
Reads that fit the state are taken at once, because they leave it as it is. Writes of unknown fate that nobody has seen
are interchangeable where they do the same: only the earliest of them that is left is tried.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import msgspec

from retinue.lab.history import ABSENT, PRESENT, Kind, Operation, Outcome

STEP_CAP = 200_000
"""States to visit for one key before the answer is "undecided": about a second."""

State = tuple[str | None, int]
"""Value of the key (`None`: absent) and the version that wrote it (or one of the two below)."""

_ANY_VERSION = 0
_NO_KNOWN_VERSION = -1
_UNSEEN_VALUE = "\0unseen"


class Search(msgspec.Struct, frozen=True):
    """What the search found: `linearizable` is `None` when it gave up. `stuck` is the operation nothing explains."""

    linearizable: bool | None
    steps: int
    stuck: Operation | None = None


def search_key(operations: Iterable[Operation], step_cap: int = STEP_CAP) -> Search:
    """Search an order for the operations on one key. Failed operations and scans are ignored."""
    relevant = [
        op for op in operations if op.kind is not Kind.SCAN and op.outcome is not Outcome.FAILED and not _is_void(op)
    ]
    relevant.sort(key=lambda op: op.invoked_ms)
    return _Searcher(relevant, step_cap).run()


def _is_void(op: Operation) -> bool:
    """A read without an answer says nothing."""
    return op.kind is Kind.READ and op.outcome is not Outcome.OK


class _Searcher:
    def __init__(self, operations: Sequence[Operation], step_cap: int) -> None:
        self.operations = operations
        self.step_cap = step_cap
        self.invoked = [op.invoked_ms for op in operations]
        self.ends = [_end_ms(op) for op in operations]
        self.versions = _versions_of_writes(operations)
        self.unseen = _unseen_writes(operations, self.versions)
        self.definite = 0
        for index, end in enumerate(self.ends):
            if end < math.inf:
                self.definite |= 1 << index

    def run(self) -> Search:
        """Depth first, with an explicit stack of (operations done, state)."""
        seen: set[tuple[int, State]] = set()
        stack: list[tuple[int, State]] = [(0, (None, 0))]
        steps = 0
        furthest = 0
        while stack:
            done, state = stack.pop()
            done, writes = self._take_observations(done, state)
            if done & self.definite == self.definite:
                return Search(True, steps)
            if (done, state) in seen:
                continue
            seen.add((done, state))
            steps += 1
            if steps > self.step_cap:
                return Search(None, steps)
            if (done & self.definite).bit_count() > (furthest & self.definite).bit_count():
                furthest = done
            for index in writes:
                following = self._apply(index, state)
                if following is not None:
                    stack.append((done | 1 << index, following))
        return Search(False, steps, self._first_left(furthest))

    def _take_observations(self, done: int, state: State) -> tuple[int, list[int]]:
        """Take every read (and failed condition) that fits now; returns the writes to try, the best guess last."""
        operations = self.operations
        while True:
            writes: list[int] = []
            taken = False
            alike: set[tuple[Kind, int | None]] = set()
            for index in self._candidates(done):
                if index in self.unseen:
                    sort = (operations[index].kind, operations[index].expected)
                    if sort not in alike:
                        alike.add(sort)
                        writes.append(index)
                elif operations[index].may_have_effect:
                    writes.append(index)
                elif _fits(operations[index], state):
                    done |= 1 << index
                    taken = True
            if not taken:
                writes.sort(key=self._rank, reverse=True)
                return done, writes

    def _candidates(self, done: int) -> list[int]:
        """Operations left that no other one left has to precede."""
        bound = math.inf
        found: list[int] = []
        invoked, ends = self.invoked, self.ends
        index = (~done & (done + 1)).bit_length() - 1
        while index < len(invoked) and invoked[index] <= bound:
            if not done >> index & 1:
                found.append(index)
                if ends[index] < bound:
                    bound = ends[index]
            index += 1
        return [index for index in found if invoked[index] <= bound]

    def _rank(self, index: int) -> tuple[float, float]:
        """What to try first: by version where it is known, operations of unknown fate last."""
        version = self.versions[index]
        return (version if version > 0 else math.inf, self.ends[index])

    def _apply(self, index: int, state: State) -> State | None:
        op = self.operations[index]
        if not _condition_may_hold(op, state):
            return None
        if op.kind is Kind.DELETE:
            return (None, self.versions[index])
        return (_UNSEEN_VALUE if index in self.unseen else op.value, self.versions[index])

    def _first_left(self, done: int) -> Operation | None:
        left = [i for i in range(len(self.operations)) if self.definite >> i & 1 and not done >> i & 1]
        return self.operations[min(left, key=lambda i: self.ends[i])] if left else None


def _end_ms(op: Operation) -> float:
    if op.outcome is Outcome.UNKNOWN or op.completed_ms is None:
        return math.inf
    return op.completed_ms


def _versions_of_writes(operations: Sequence[Operation]) -> list[int]:
    """The version of each write: its own answer's, or that of a read which saw its value.

    Where nobody knows it, it may be any version that a client has named, but that no answer has explained.
    """
    by_value: dict[str, int] = {}
    explained: set[int] = set()
    named: set[int] = set()
    for op in operations:
        if op.kind is Kind.READ and op.observed is not None and op.version:
            by_value[op.observed] = op.version
        if op.outcome is Outcome.OK:
            explained.add(op.version)
        named.add(op.version)
        named.add(op.expected or 0)
    unexplained = any(version > 0 for version in named - explained)
    unknown = _ANY_VERSION if unexplained else _NO_KNOWN_VERSION
    versions: list[int] = []
    for op in operations:
        seen = by_value.get(op.value, unknown) if op.value is not None else unknown
        versions.append(op.version if op.outcome is Outcome.OK else seen)
    return versions


def _unseen_writes(operations: Sequence[Operation], versions: Sequence[int]) -> set[int]:
    """Writes of unknown fate whose value nobody has read."""
    seen = {op.observed for op in operations if op.kind is Kind.READ}
    return {
        index
        for index, op in enumerate(operations)
        if op.outcome is Outcome.UNKNOWN
        and versions[index] <= _ANY_VERSION
        and (op.value is None or op.value not in seen)
    }


def _condition_may_hold(op: Operation, state: State) -> bool:
    value, version = state
    if op.expected is None:
        return True
    if op.expected == ABSENT:
        return value is None
    if op.expected == PRESENT:
        return value is not None
    return value is not None and version in (_ANY_VERSION, op.expected)


def _condition_may_fail(op: Operation, state: State) -> bool:
    value, version = state
    if op.expected is None:
        return False
    if op.expected == ABSENT:
        return value is not None
    if op.expected == PRESENT:
        return value is None
    return value is None or version != op.expected


def _fits(op: Operation, state: State) -> bool:
    """Whether a read could return what it did, or a condition could fail, in this state."""
    value, version = state
    if op.kind is Kind.READ:
        if op.observed is None or value is None:
            return op.observed is None and value is None
        return value == op.observed and (version in (_ANY_VERSION, op.version) or op.version == 0)
    if op.version and value is not None and version not in (_ANY_VERSION, op.version):
        return False
    return _condition_may_fail(op, state)
