"""Where the runs are, and which of their entries are known to be dead: in memory, found again after a restart.

It follows what a transaction of the database does, and goes back with it when the transaction is undone.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable

STALE_MAX = 64
"""Firsts of runs that are gone stay in the sorted list until they are more than this, and than the runs."""

_BELOW_ALL = (-1 << 63) - 1


class Run:
    """A run in the database: its first version, its places, and how many of them hold an entry."""

    __slots__ = ("alive", "count", "dead", "first", "kept")

    def __init__(self, first: int, count: int, kept: int) -> None:
        self.first, self.count, self.kept = first, count, kept
        self.alive = kept
        """How many of the kept entries are not known to be dead."""
        self.dead = 0
        """A bit for each place whose entry is dead, or was and is not kept any more."""

    def is_mostly_dead(self) -> bool:
        """Whether more than three quarters of what is kept is dead."""
        return 4 * self.alive < self.kept


_NO_RUN = Run(0, 0, 0)


class RunIndex:
    """All runs, given as (first, count, kept). Nothing is known to be dead at first."""

    def __init__(self, runs: Iterable[tuple[int, int, int]] = ()) -> None:
        self.runs = {first: Run(first, count, kept) for first, count, kept in runs}
        # For `undo`: the run that each of these places had, what was buried, and what runs kept before.
        self._replaced: dict[int, Run | None] = {}
        self._buried: list[tuple[Run, int]] = []
        self._rewritten: list[tuple[Run, int]] = []
        self._count()

    def _count(self) -> None:
        runs = self.runs.values()
        self.kept = sum(run.kept for run in runs)
        self.alive = sum(run.alive for run in runs)
        self.mostly_dead = {run.first for run in runs if run.is_mostly_dead()}
        self.all_dead = {run.first for run in runs if not run.alive}
        self._sort()

    def _sort(self) -> None:
        self._firsts = [_BELOW_ALL, *sorted(self.runs)]
        self._sorted = True

    def _in_order(self) -> list[int]:
        if not self._sorted:
            self._sort()
        return self._firsts

    # --- finding ---

    def run_at(self, version: int) -> Run | None:
        """The run that has a place for this version."""
        firsts = self._in_order()
        run = self.runs.get(firsts[bisect_right(firsts, version) - 1], _NO_RUN)
        return run if version < run.first + run.count else None

    def dead(self, first: int) -> int:
        """A bit for each place of this run that reads leave out."""
        return self.runs.get(first, _NO_RUN).dead

    def last_version(self) -> int:
        """The last version that any run has a place for; 0 if there are none."""
        return max((run.first + run.count - 1 for run in self.runs.values()), default=0)

    def with_dead(self) -> list[int]:
        """The runs that keep dead entries, in order."""
        return sorted(run.first for run in self.runs.values() if run.alive < run.kept)

    # --- following the database ---

    def add(self, first: int, count: int) -> None:
        """A run is written where there was none."""
        self._replaced.setdefault(first, None)
        self.runs[first] = Run(first, count, count)
        self.kept += count
        self.alive += count
        if first > self._firsts[-1]:
            self._firsts.append(first)
        else:
            self._sorted = False

    def remove(self, first: int) -> None:
        """A run is deleted."""
        run = self.runs.pop(first)
        self._replaced.setdefault(first, run)
        self.kept -= run.kept
        self.alive -= run.alive
        self.mostly_dead.discard(first)
        self.all_dead.discard(first)
        if len(self._firsts) > STALE_MAX + 2 * len(self.runs):
            self._sort()

    def remove_upto(self, version: int) -> None:
        """All runs that begin at or below this version are deleted."""
        for first in [first for first in self.runs if first <= version]:
            self.remove(first)

    def rewrite(self, first: int) -> None:
        """A run is written again without its dead entries."""
        run = self.runs[first]
        self._rewritten.append((run, run.kept))
        self.kept -= run.kept - run.alive
        run.kept = run.alive
        self.mostly_dead.discard(first)

    def bury(self, entries: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
        """These (version, part) are dead; returns those that are in no run."""
        elsewhere = []
        firsts, runs, buried = self._in_order(), self.runs, self._buried
        before = len(buried)
        for entry in entries:
            version, part = entry
            run = runs.get(firsts[bisect_right(firsts, version) - 1], _NO_RUN)
            place = version - run.first
            if part or place >= run.count:
                elsewhere.append(entry)
                continue
            bit = 1 << place
            if run.dead & bit:
                continue
            run.dead |= bit
            run.alive = alive = run.alive - 1
            buried.append((run, bit))
            if 4 * alive < run.kept:
                (self.mostly_dead if alive else self.all_dead).add(run.first)
        self.alive -= len(buried) - before
        return elsewhere

    # --- transactions ---

    def keep(self) -> None:
        """What was done is committed."""
        self._replaced.clear()
        self._buried.clear()
        self._rewritten.clear()

    def undo(self) -> None:
        """What was done since the last `keep` is not: all is as it was then."""
        for first, run in self._replaced.items():
            self.runs.pop(first, None)
            if run is not None:
                self.runs[first] = run
        for run, bit in self._buried:
            run.dead &= ~bit
            run.alive += 1
        for run, kept in reversed(self._rewritten):
            run.kept = kept
        self.keep()
        self._count()
