"""Snapshots on their way to followers: while one is read from the store, nothing in it may be deleted."""

from __future__ import annotations

from collections.abc import Iterator

from retinue.core.messages import Compact, Entry, Save
from retinue.store import Store

ROWS_AT_ONCE = 1000


class SnapshotStreams:
    """Counts the snapshots under way, and holds deletions back until there are none."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._under_way = 0
        self._held_back: list[Save] = []

    def begin(self, upto: int) -> Iterator[list[Entry]]:
        """Every row up to version `upto`, some at a time. Each call wants one `end`."""
        self._under_way += 1
        return self._rows(upto)

    def end(self, peer: str) -> None:
        """The snapshot for `peer` is sent, or given up."""
        self._under_way -= 1

    def without_deletions(self, saves: list[Save]) -> list[Save]:
        """The saves to make now: deletions come later while a snapshot is under way, and afterwards all at once."""
        if self._under_way:
            self._held_back += [save for save in saves if isinstance(save, Compact)]
            return [save for save in saves if not isinstance(save, Compact)]
        held_back, self._held_back = self._held_back, []
        return [*held_back, *saves] if held_back else saves

    def _rows(self, upto: int) -> Iterator[list[Entry]]:
        after = 0
        while rows := self._store.read_rows(upto, after, ROWS_AT_ONCE):
            yield rows
            after = rows[-1].version
