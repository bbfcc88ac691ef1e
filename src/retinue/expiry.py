"""Values that end by themselves: what counts as absent by the wall clock, and the leader's deletes of it.

An expiry is part of the value: a moment on the wall clock, in milliseconds since 1970. Every node treats a value whose
moment has passed on its own clock as absent, so nobody sees it any longer than clocks differ. It is removed by the
leader, which writes a delete of that very version: whoever wrote the key in between keeps what was written.
"""

from __future__ import annotations

import asyncio
import heapq
import time
from collections.abc import Iterator
from functools import partial
from itertools import islice

from retinue.core.messages import Change, Condition, Kind, Outcome, Reason, Result, Row, Write
from retinue.driver import Driver
from retinue.waiting import Answer

INTERVAL_S = 0.1
DELETES_AT_ONCE = 1000
KEYS_PER_LOOK = 20_000
AGAIN_MS = 1000
SPARE_ENTRIES = 10_000


def now_ms() -> int:
    """The wall clock, in milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def is_over(row: Row) -> bool:
    """Whether the row counts as absent now."""
    return row.expires_ms != 0 and row.expires_ms <= time.time_ns() // 1_000_000


def alive(row: Row | None) -> Row | None:
    """The row, or `None` if it counts as absent now."""
    return None if row is None or (row.expires_ms and is_over(row)) else row


class Expiry:
    """Deletes what is over, as long as this node leads.

    `_due` has, for each key that somebody gave an expiry, the moment at which to look at it; `_heap` orders them. An
    entry of the heap that disagrees with `_due` counts for nothing. `deleted` counts.
    """

    def __init__(self, driver: Driver) -> None:
        self.deleted = 0
        self._driver = driver
        self._due: dict[str, int] = {}
        self._heap: list[tuple[int, str]] = []
        self._under_way = 0
        self._epoch = 0
        self._unseen: Iterator[str] = iter(())
        self._prune_at = SPARE_ENTRIES
        self._handle: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._due)

    def start(self) -> None:
        """Begin to look at what is due. Called in the event loop."""
        self._handle = asyncio.get_running_loop().call_later(INTERVAL_S, self.start)
        self._look()

    def stop(self) -> None:
        """Delete nothing any more."""
        if self._handle is not None:
            self._handle.cancel()

    def watch(self, key: str, due_ms: int) -> None:
        """Look at this key at `due_ms`, or before: a value that may end then was written."""
        known = self._due.get(key)
        if known is None or due_ms < known:
            self._due[key] = due_ms
            heapq.heappush(self._heap, (due_ms, key))
            if len(self._heap) > 2 * len(self._due) + SPARE_ENTRIES:
                self._heap = [(due, each) for each, due in self._due.items()]
                heapq.heapify(self._heap)

    def remove_if_over(self, key: str) -> None:
        """Delete the committed value of a key if it is over: so a condition that comes next finds the key absent."""
        replica = self._driver.replica
        if replica.serving and (row := replica.read_committed(key)) is not None and is_over(row):
            self._delete(key, row)

    # --- looking ---

    def _look(self) -> None:
        replica = self._driver.replica
        if not replica.serving:
            self._due.clear()
            self._heap.clear()
            self._epoch = 0
            return
        if self._epoch != replica.epoch:
            self._epoch = replica.epoch
            self._unseen = iter(list(replica.log.rows))
        for key in islice(self._unseen, KEYS_PER_LOOK):
            row = replica.log.rows.get(key)
            if row is not None and row.expires_ms:
                self.watch(key, row.expires_ms)
        self._delete_due()
        if len(self._due) > self._prune_at:
            self._prune()

    def _delete_due(self) -> None:
        now = now_ms()
        while self._heap and self._heap[0][0] <= now and self._under_way < DELETES_AT_ONCE:
            due, key = heapq.heappop(self._heap)
            if self._due.get(key) == due:
                del self._due[key]
                self._see_to(key, now)

    def _see_to(self, key: str, now: int) -> None:
        leadership = self._driver.replica.leadership
        assert leadership is not None, "only a leader looks"
        row = self._driver.replica.read_committed(key)
        if leadership.undecided(key):
            self.watch(key, now + AGAIN_MS)
        elif row is not None and row.expires_ms:
            if row.expires_ms <= now:
                self._delete(key, row)
            else:
                self.watch(key, row.expires_ms)

    def _prune(self) -> None:
        """Forget keys that have been deleted or overwritten since: their moment may be years away."""
        replica, leadership = self._driver.replica, self._driver.replica.leadership
        assert leadership is not None, "only a leader looks"

        def may_end(key: str) -> bool:
            row = replica.read_committed(key)
            return (row is not None and row.expires_ms != 0) or leadership.undecided(key)

        self._due = {key: due for key, due in self._due.items() if may_end(key)}
        self._heap = [(due, key) for key, due in self._due.items()]
        heapq.heapify(self._heap)
        self._prune_at = 2 * len(self._due) + SPARE_ENTRIES

    # --- deleting ---

    def _delete(self, key: str, row: Row) -> None:
        driver = self._driver
        deadline = driver.now_ms + driver.settings.write_timeout_ms
        token = driver.waiting.enter(partial(self._deleted, key), deadline)
        self._under_way += 1
        driver.propose(Write(token, (Change(Kind.DELETE, key),), deadline, condition=Condition(version=row.version)))

    def _deleted(self, key: str, answer: Answer) -> None:
        assert isinstance(answer, Result)
        self._under_way -= 1
        if answer.outcome is Outcome.COMMITTED:
            self.deleted += 1
        elif answer.reason is not Reason.CONDITION_FAILED:
            self.watch(key, now_ms() + AGAIN_MS)
