"""The store of a node that keeps everything in memory: the same tables, written many entries at a time.

Such a node has nothing to lose when it stops that it would not lose anyway, so entries may wait outside the database.
They are written when there are many, and before anything that reads or changes what is there.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from operator import attrgetter
from typing import cast

from retinue.core.messages import Entry, Image, Save, SaveEntries
from retinue.store import Store

# What is written together: more would hold up the event loop for longer than a group commit does.
HELD_ENTRIES_MAX = 256
HELD_BYTES_MAX = 1 << 20


class MemoryStore(Store):
    """A `Store` without a directory. What a commit has saved is there for every reader, and gone with the process."""

    def __init__(self) -> None:
        super().__init__(None)
        self._holding = threading.Lock()
        self._held: list[Entry] = []
        self._held_bytes = 0

    def commit(self, saves: Sequence[Save]) -> None:
        """Keep all saves; entries alone wait until there are many, or until they are needed.

        What cannot be written is refused when it is, at a later call.
        """
        with self._holding:
            if any(type(save) is not SaveEntries or save.removed for save in saves):
                self._write(saves)
                return
            for save in cast(Sequence[SaveEntries], saves):
                self._held += save.entries
                self._held_bytes += sum([len(entry.value) for entry in save.entries])
            if len(self._held) >= HELD_ENTRIES_MAX or self._held_bytes >= HELD_BYTES_MAX:
                self._write()

    def load(self) -> Image:
        """See `Store.load`."""
        with self._holding:
            self._write()
        return super().load()

    def read_range(self, after: int, upto: int, max_bytes: int) -> list[Entry]:
        """See `Store.read_range`."""
        with self._holding:
            self._write()
        return super().read_range(after, upto, max_bytes)

    def read_rows(self, upto: int, after: int, limit: int) -> list[Entry]:
        """See `Store.read_rows`."""
        with self._holding:
            self._write()
        return super().read_rows(upto, after, limit)

    def _write(self, saves: Sequence[Save] = ()) -> None:
        """Write what was held, in order of versions, for most of it is then a run; and then these."""
        if self._held:
            saves = [SaveEntries(sorted(self._held, key=attrgetter("version"))), *saves]
        if saves:
            super().commit(saves)
            self._held, self._held_bytes = [], 0
