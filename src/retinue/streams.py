"""Snapshots on their way to followers: while one is read from the store, nothing in it may be deleted or replaced."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from retinue.core.messages import Entry, Install, Save
from retinue.errors import StorageError
from retinue.store import Store

ROWS_AT_ONCE = 1000


class SnapshotStreams:
    """Counts the snapshots under way: as long as there are any, nothing is compacted.

    A node that is given a snapshot itself has other rows from then on, and what it was sending breaks off.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._under_way = 0
        self._installed = 0

    def __bool__(self) -> bool:
        """Whether a snapshot is under way."""
        return self._under_way > 0

    def begin(self, upto: int) -> Iterator[list[Entry]]:
        """Every row up to version `upto`, some at a time. Each call wants one `end`."""
        self._under_way += 1
        return self._rows(upto, self._installed)

    def end(self, peer: str) -> None:
        """The snapshot for `peer` is sent, or given up."""
        self._under_way -= 1

    def about_to_save(self, saves: Sequence[Save]) -> None:
        """Break off what is under way if these saves replace the rows."""
        if self._under_way and any(type(save) is Install for save in saves):
            self._installed += 1

    def _rows(self, upto: int, installed: int) -> Iterator[list[Entry]]:
        """Raises `StorageError` if the rows have been replaced meanwhile."""
        after = 0
        while True:
            rows = self._store.read_rows(upto, after, ROWS_AT_ONCE)
            if installed != self._installed:
                raise StorageError("The rows of this snapshot were replaced while it was sent.")
            if not rows:
                return
            yield rows
            after = rows[-1].version
