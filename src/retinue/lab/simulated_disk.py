"""A disk on virtual time: what is durable on one node, with the same interface as the SQLite store.

`commit` is one atomic transaction. Taking time, and losing a transaction in a crash, is the business of the node that
uses the disk: it calls `commit` at the moment from which the transaction is durable.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from retinue.core.messages import (
    Change,
    Compact,
    Entry,
    HardState,
    Image,
    Install,
    Kind,
    Save,
    SaveEntries,
    SaveEpoch,
    SaveState,
    encode_changes,
)

_DEAD_PART = Change(Kind.NOOP, "")


# After so many more deletions a dead entry is gone for good.
DELETIONS_UNCERTAIN = 3


class SimulatedDisk:
    """The durable state of one node. A wiped disk is a new one, with a new node id.

    As with the real store, what was lately declared dead is there again after a crash.
    """

    def __init__(self, node_id: str) -> None:
        self.hard = HardState(node_id)
        self.epochs: dict[int, int] = {}
        self.rows: dict[int, Entry] = {}
        self._uncertain: deque[dict[int, Entry]] = deque(maxlen=DELETIONS_UNCERTAIN)

    def load(self) -> Image:
        """The state to start a replica from."""
        return Image(self.hard, dict(self.epochs), [self.rows[version] for version in sorted(self.rows)])

    def commit(self, saves: Sequence[Save]) -> None:
        """Make all of these durable, in order."""
        for save in saves:
            if isinstance(save, SaveEntries):
                for entry in save.entries:
                    self.rows[entry.version] = entry
                for version in save.removed:
                    self.rows.pop(version, None)
            elif isinstance(save, SaveState):
                self._save_state(save.hard)
            elif isinstance(save, SaveEpoch):
                self.epochs.setdefault(save.epoch, save.start)
            elif isinstance(save, Compact):
                dead = [*save.dead, *save.tombstones]
                self._uncertain.append({version: self.rows[version] for version, _ in dead if version in self.rows})
                for version, part in dead:
                    self._remove(version, part)
            else:
                self._install(save)

    def _save_state(self, hard: HardState) -> None:
        self.hard = hard

    def crash(self) -> None:
        """The process has died; what is durable stays."""
        while self._uncertain:
            self.rows.update(self._uncertain.pop())

    def _remove(self, version: int, part: int) -> None:
        """A batch keeps its other parts, and their numbers."""
        entry = self.rows.get(version)
        if entry is None:
            return
        if entry.kind == Kind.BATCH:
            changes = list(entry.changes())
            changes[part] = _DEAD_PART
            if any(change.kind != Kind.NOOP for change in changes):
                value = encode_changes(tuple(changes))
                self.rows[version] = Entry(
                    version, entry.epoch, Kind.BATCH, entry.key, value, entry.encoding, entry.request_id
                )
                return
        del self.rows[version]

    def _install(self, save: Install) -> None:
        self._uncertain.clear()
        self.rows = {version: entry for version, entry in self.rows.items() if version > save.trusted}
        for entry in save.entries:
            self.rows[entry.version] = entry

    def read_range(self, after: int, upto: int, max_bytes: int) -> list[Entry]:
        """Versions from `after + 1` on, in order and without a gap; at least one if it is here."""
        found: list[Entry] = []
        size = 0
        for version in range(after + 1, upto + 1):
            entry = self.rows.get(version)
            if entry is None or (found and size + len(entry.value) > max_bytes):
                break
            found.append(entry)
            size += len(entry.value)
        return found

    def read_rows(self, upto: int, after: int, limit: int) -> list[Entry]:
        """Kept rows with `after` < version <= `upto`, in order, at most `limit`: a part of a snapshot."""
        versions = sorted(version for version in self.rows if after < version <= upto)
        return [self.rows[version] for version in versions[:limit]]
