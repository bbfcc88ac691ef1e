"""What compaction does next: which runs are written again without their dead entries, and which tombstones may go.

Dead entries of runs are only known to be dead, in memory (`store_index`): after a restart the log is played back from
all that the database has, and finds every superseded entry again. A run all of which is dead is deleted, unread. While
runs keep more than two entries for each that is alive, those that are more than three quarters dead are written again.
So they never keep much more than four for each that is alive, and about two as a rule.

Deletions are another matter. A trusted deletion (a tombstone) is dead itself, but were it gone while an older put of
its key is still in a run, a restart would bring the key back. So tombstones wait, alive, for a pass: that takes down
which runs keep dead entries, and writes these again in order of their versions. The log hands out what is dead in the
order of the entries that supersede it, and so for each key in the order of its own entries, alone or parts of batches
(expiry plays no part: an expired put is superseded as any other). So when a tombstone is handed out, all older entries
of its key were before it: they are gone, or they are dead in runs that a pass takes down which begins later. When the
pass has come past all of its runs that begin at or below the tombstone, no older put of its key is in the database, and
the tombstone is as dead as any other entry. All this is forgotten in a restart, and found again like everything else.
Noops and superseded configurations touch no key and do not wait.

What it costs: one transaction writes again no more places of runs than `PLACES_PER_DEAD` for each entry that it
declares dead, and one run more. A run of 8 entries, the shortest, is written again when 7 of them are dead: 16 places
with what is added for each run, or 2 for each entry. One of 128 is written again up to three times, 3.2 places for each
entry. To be rid of tombstones takes `PLACES_PER_TOMBSTONE` for each, and where they are more than a quarter of the
entries, runs are hardly ever mostly dead before. So about a third of the budget or more is left for what a pass writes
again, and it is over before about as many entries have died as its runs have places.
"""

from __future__ import annotations

from retinue.store_index import Run, RunIndex

DEAD_SHARE = 2
"""Runs are written again while they keep more than so many entries for each that is alive."""

PLACES_PER_DEAD = 6
"""How many places of runs may be written again for each entry that dies."""

PLACES_PER_RUN = 8
"""What any run costs beside its places: where it is found, and its row (measured)."""

PLACES_PER_TOMBSTONE = 4
"""What it costs that a tombstone is dead: in memory, and its row or its share of a run (measured)."""

TOMBSTONES_MIN = 64
"""So many tombstones at least wait when a pass begins,"""

TOMBSTONES_SHARE = 8
"""and one for so many other entries that are alive in runs."""

_END = 1 << 63


class Compaction:
    """What waits to be removed from the database with these runs. Its methods are parts of a transaction."""

    def __init__(self, index: RunIndex) -> None:
        self._index = index
        self.forget()
        self.keep()

    def wait(self, tombstones: list[tuple[int, int]]) -> None:
        """These (version, part), in order, are deletions and superseded, and everything that they delete is buried."""
        self._tombstones += tombstones

    def forget(self) -> None:
        """There is nothing that waits."""
        self._tombstones: list[tuple[int, int]] = []
        self._freed = 0  # So many of them are not tombstones any more,
        self._covered = 0  # and so many of them will not be when the pass is over.
        self._runs: list[int] = []  # What the pass has taken down,
        self._next = 0  # and which of it is the next.

    def due(self, budget: int) -> tuple[list[int], list[int], list[tuple[int, int]]]:
        """Runs to delete, runs to write again, and (version, part) to delete that are in no run.

        `budget` is in places of runs; whatever it is, something of what waits is done.
        """
        index = self._index
        again: set[int] = set()
        while budget > 0 and index.mostly_dead and index.kept > DEAD_SHARE * index.alive:
            first = index.mostly_dead.pop()
            again.add(first)
            budget -= PLACES_PER_RUN + index.runs[first].count
        if self._freed == self._covered:
            self._begin_pass()
        rows: list[tuple[int, int]] = []
        while budget > 0 and self._freed < self._covered:
            run = self._next_run()
            freed = self._free(budget // PLACES_PER_TOMBSTONE)
            budget -= 1 + PLACES_PER_TOMBSTONE * len(freed)
            rows += index.bury(freed)
            if run is not None and run.alive and run.first not in again:
                again.add(run.first)
                budget -= PLACES_PER_RUN + run.count
        all_dead = sorted(index.all_dead)
        return all_dead, sorted(again.difference(all_dead)), rows

    def _begin_pass(self) -> None:
        waiting = len(self._tombstones) - self._freed
        if waiting >= max(TOMBSTONES_MIN, (self._index.alive - waiting) // TOMBSTONES_SHARE):
            self._covered = len(self._tombstones)
            self._runs, self._next = self._index.with_dead(), 0

    def _next_run(self) -> Run | None:
        """The next run of the pass, if there is one that keeps anything dead."""
        if self._next == len(self._runs):
            return None
        run = self._index.runs.get(self._runs[self._next])
        self._next += 1
        return run if run is not None and run.alive < run.kept else None

    def _free(self, limit: int) -> list[tuple[int, int]]:
        """Tombstones below the next run of the pass, at most `limit` and one at least if there is any."""
        below = self._runs[self._next] if self._next < len(self._runs) else _END
        start = end = self._freed
        stop = min(self._covered, start + max(limit, 1))
        while end < stop and self._tombstones[end][0] < below:
            end += 1
        self._freed = end
        return self._tombstones[start:end]

    # --- transactions ---

    def keep(self) -> None:
        """What was done is committed."""
        if self._freed > len(self._tombstones) // 2:
            del self._tombstones[: self._freed]
            self._covered -= self._freed
            self._freed = 0
        self._before = self._tombstones, len(self._tombstones), self._freed, self._covered, self._runs, self._next

    def undo(self) -> None:
        """What was done since the last `keep` is not."""
        self._tombstones, waiting, self._freed, self._covered, self._runs, self._next = self._before
        del self._tombstones[waiting:]
