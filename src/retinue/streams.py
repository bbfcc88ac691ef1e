"""Snapshots on their way to followers: while one is read from the store, nothing in it may be deleted or replaced."""

from __future__ import annotations

from collections.abc import Iterator

from retinue.core.messages import Compact, Entry, Install, Save
from retinue.errors import StorageError
from retinue.store import Store

ROWS_AT_ONCE = 1000


class SnapshotStreams:
    """Counts the snapshots under way, and holds deletions back until there are none.

    A node that is given a snapshot itself has other rows from then on: what it was sending breaks off, and deletions
    that were held back are void, for they were about the rows before.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._under_way = 0
        self._held_back: list[Save] = []
        self._installed = 0

    def begin(self, upto: int) -> Iterator[list[Entry]]:
        """Every row up to version `upto`, some at a time. Each call wants one `end`."""
        self._under_way += 1
        return self._rows(upto, self._installed)

    def end(self, peer: str) -> None:
        """The snapshot for `peer` is sent, or given up."""
        self._under_way -= 1

    def without_deletions(self, saves: list[Save]) -> list[Save]:
        """The saves to make now: deletions come later while a snapshot is under way, and afterwards all at once."""
        if any(isinstance(save, Install) for save in saves):
            self._installed += 1
            self._held_back.clear()
        elif self._under_way:
            self._held_back += [save for save in saves if isinstance(save, Compact)]
            return [save for save in saves if not isinstance(save, Compact)]
        held_back, self._held_back = self._held_back, []
        return [*held_back, *saves] if held_back else saves

    def _rows(self, upto: int, installed: int) -> Iterator[list[Entry]]:
        """Raises `StorageError` if the rows have been replaced meanwhile."""
        after = 0
        while rows := self._store.read_rows(upto, after, ROWS_AT_ONCE):
            if installed != self._installed:
                raise StorageError("The rows of this snapshot were replaced while it was sent.")
            yield rows
            after = rows[-1].version
