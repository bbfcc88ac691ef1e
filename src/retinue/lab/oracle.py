"""What must hold at every moment of a simulated run, checked by somebody who sees all disks at once.

* a node never takes back a promise, nor its trusted prefix (as long as it keeps its disk);
* what is trusted, acknowledged or read as committed has once been durable on `W` nodes in one epoch;
* no version ever holds two different entries in that sense, wherever and whenever it is looked at;
* a version is acknowledged for one request only, and a request for one version only;
* every conditional write in the decided history met its condition.

Violations are collected, not raised, so that a run goes on and the checkers of the history get their say. Only a broken
assertion of the core ends a run.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

from retinue.core.messages import Entry, HardState, Install, Kind, Outcome, Result, Row, Save, SaveEntries
from retinue.core.quorum import copies_needed
from retinue.core.replica import Replica
from retinue.lab.checker import Violation
from retinue.lab.history import PRESENT, Operation
from retinue.lab.simulated_disk import SimulatedDisk

_MOST_VIOLATIONS = 20


class BrokenPromise(Exception):
    """A run that cannot go on: an assertion of the core failed."""

    def __init__(self, check: str, detail: str) -> None:
        super().__init__(f"{check}: {detail}")
        self.violation = Violation(check, detail)


class Oracle:
    """The all-seeing observer of one run.

    `write_quorum` is the smallest one in force at any time of the run. `ambiguous`: it is not the only one, or disks
    are replaced, and a copy counts here although its disk was lost before the version had enough.
    """

    def __init__(self, members: Sequence[str], write_quorum: int, ambiguous: bool) -> None:
        self.ambiguous = ambiguous
        self.bits = {name: 1 << index for index, name in enumerate(members)}
        self.copies = copies_needed(write_quorum)
        self.violations: list[Violation] = []
        self.decided: dict[int, Entry] = {}
        self.acknowledged: dict[int, str] = {}
        self.version_of: dict[str, int] = {}
        self.take_overs = 0
        self._accepts: dict[int, dict[int, tuple[int, Entry]]] = defaultdict(dict)
        self._hard: dict[str, HardState] = {}
        self._leaders: dict[int, str] = {}

    def report(self, check: str, detail: str) -> None:
        """Note a violation."""
        if len(self.violations) < _MOST_VIOLATIONS:
            self.violations.append(Violation(check, detail))

    # --- what nodes do ---

    def started(self, name: str, hard: HardState) -> None:
        """A node starts from this hard state."""
        self._compare_hard(name, hard)

    def stepped(self, name: str, replica: Replica) -> None:
        """A node has taken a step."""
        if replica.role == "leader":
            epoch = replica.epoch
            if epoch not in self._leaders:
                self._leaders[epoch] = name
                self.take_overs += 1
            elif self._leaders[epoch] != name:
                self.report("one leader per epoch", f"{name} and {self._leaders[epoch]} in epoch {epoch}")

    def committed(self, name: str, saves: Sequence[Save], disk: SimulatedDisk) -> None:
        """A transaction of a node has become durable."""
        bit = self.bits[name]
        for save in saves:
            if isinstance(save, SaveEntries):
                for entry in save.entries:
                    accepts = self._accepts[entry.version]
                    held, _ = accepts.get(entry.epoch, (0, entry))
                    accepts[entry.epoch] = (held | bit, entry)
            elif isinstance(save, Install):
                for entry in save.entries:
                    self._compare(entry, f"{name} installs")
        before = self._hard[name]
        if disk.hard is not before:
            self._compare_hard(name, disk.hard)
            for version in range(before.trusted + 1, disk.hard.trusted + 1):
                row = disk.rows.get(version)
                if row is None:
                    continue
                if version > disk.hard.floor and self._decide(version, f"{name} trusts", _same_as(row)):
                    self._compare(row, f"{name} trusts")

    def _compare_hard(self, name: str, hard: HardState) -> None:
        before = self._hard.get(name)
        if before is not None and before.node_id == hard.node_id:
            if hard.promised < before.promised:
                self.report("a promise is kept", f"{name} went from epoch {before.promised} to {hard.promised}")
            if hard.trusted < before.trusted:
                self.report("trust is final", f"{name} went from version {before.trusted} to {hard.trusted}")
        self._hard[name] = hard

    # --- what is decided ---

    def _decide(self, version: int, who: str, fits: Callable[[Entry], bool]) -> Entry | None:
        """The entry of a version that somebody takes for committed; remembered for good.

        It must have been on enough nodes in one epoch. Where more than one entry may seem to have been, the one is
        taken that fits what was said first.
        """
        decided = self.decided.get(version)
        if decided is not None:
            return decided
        enough = [entry for held, entry in self._accepts[version].values() if held.bit_count() >= self.copies]
        if self.ambiguous and len(enough) > 1:
            enough = [entry for entry in enough if fits(entry)] or enough
        if not enough:
            self.report("enough copies", f"{who} version {version}, never on {self.copies} nodes in one epoch")
            return None
        self.decided[version] = enough[0]
        for other in enough[1:]:
            self._compare(other, "another epoch committed")
        return enough[0]

    def _compare(self, entry: Entry, who: str) -> None:
        decided = self.decided.get(entry.version)
        if decided is None or decided is entry or _same_content(decided, entry):
            return
        self.report("one entry per version", f"{who} {entry}, decided was {decided}")

    # --- what clients are told ---

    def answered(self, name: str, request_id: str, result: Result) -> None:
        """A node answered a write."""
        if len(dict(result.acked_by)) < len(result.acked_by):
            self.report("each follower counts once", f"{name}: {request_id} by {result.acked_by}")
        if result.outcome is not Outcome.COMMITTED:
            return
        version = result.version
        decided = self._decide(version, f"{name} acknowledges", lambda entry: entry.request_id == request_id)
        if decided is None:
            return
        if decided.request_id != request_id:
            self.report("acknowledged what is decided", f"{name}: {request_id} at {version}, which is {decided}")
        if self.acknowledged.setdefault(version, request_id) != request_id:
            self.report("one request per version", f"{version}: {self.acknowledged[version]} and {request_id}")
        if self.version_of.setdefault(request_id, version) != version:
            self.report("one version per request", f"{request_id}: {self.version_of[request_id]} and {version}")

    def shown(self, name: str, key: str, row: Row | None, level: str) -> None:
        """A node showed a row as committed."""
        if row is None:
            return
        decided = self._decide(row.version, f"{name} shows by a {level} read", lambda entry: _shows(entry, key, row))
        if decided is not None and not _shows(decided, key, row):
            self.report(
                "reads show what is decided", f"{name}: {level} read of {key} gave {row}, decided was {decided}"
            )

    def replay(self, history: Iterable[Operation]) -> None:
        """At the end: every conditional write that is decided met its condition in the state before it.

        Nothing is said unless the entries of all versions are known.
        """
        asked = {op.request_id: op for op in history if op.is_write and op.expected is not None}
        state: dict[str, int] = {}
        for version in range(1, max(self.decided, default=0) + 1):
            entry = self.decided.get(version)
            if entry is None:
                return
            op = asked.get(entry.request_id)
            current = 0 if op is None else state.get(op.key, 0)
            if op is not None and op.expected != (PRESENT if op.expected == PRESENT and current else current):
                self.report("conditions hold", f"version {version} on version {current} of the key: {op.brief()}")
            for change in entry.changes():
                state[change.key] = version if change.kind == Kind.PUT else 0


def _shows(entry: Entry, key: str, row: Row) -> bool:
    return any(change.key == key and (row.deleted or change.value == row.value) for change in entry.changes())


def _same_as(row: Entry) -> Callable[[Entry], bool]:
    return lambda entry: _same_content(entry, row)


def _same_content(one: Entry, other: Entry) -> bool:
    if (one.kind, one.key, one.request_id) != (other.kind, other.key, other.request_id):
        return False
    return one.kind == Kind.BATCH or (one.value, one.encoding) == (other.value, other.encoding)
