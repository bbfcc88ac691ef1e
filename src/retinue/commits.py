"""Group commit: one transaction at a time, and what follows from it only when it is durable.

Where a sync is quick the transaction is committed right in the event loop, for a thread would cost more than the wait;
else in a thread, while the loop goes on. One that finds the disk full is tried again until there is space: the core
has already taken its step, so it can neither be dropped nor overtaken.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from retinue.core.messages import Save
from retinue.errors import DiskFull, NotServing, RetinueError, StorageError
from retinue.scheduling import CoreSharing
from retinue.store import Store

log = logging.getLogger("retinue.driver")

SLOW_SYNC_MS = 0.5
DISK_RETRY_S = 0.2
STOP_PATIENCE_S = 5.0


class GroupCommit:
    """The way of saves into the store. `on_failure` is told once when the store cannot go on.

    `disk_full`: the transaction under way waits for space.
    """

    def __init__(self, store: Store, on_failure: Callable[[RetinueError], None], cores: CoreSharing) -> None:
        self.disk_full = False
        self._cores = cores
        self._store = store
        self._on_failure = on_failure
        self._under_way: asyncio.Future[None] | None = None
        self._executor: ThreadPoolExecutor | None = None
        self._stopped = False

    @property
    def busy(self) -> bool:
        """Whether a transaction is under way; another must not begin."""
        return self._under_way is not None

    def start(self) -> None:
        """Choose between loop and thread by what a sync costs here. Called in the event loop, before any `commit`."""
        self._loop = asyncio.get_running_loop()
        if self._store.sync_cost_ms() > SLOW_SYNC_MS:
            self._executor = ThreadPoolExecutor(1, "commit")

    def share_cores(self, *, leads: bool) -> None:
        """Let the threads of this node give way to the leader's, unless it leads itself or wants to."""
        choose = self._cores.compete if leads else self._cores.give_way
        choose()
        if self._executor is not None:
            self._executor.submit(choose)

    async def stop(self) -> None:
        """Finish the transaction under way, as far as the disk lets it."""
        self._stopped = True
        if self._under_way is not None:
            await asyncio.wait([self._under_way], timeout=STOP_PATIENCE_S)
        if self._executor is not None:
            self._executor.shutdown()

    async def finished(self) -> None:
        """Wait for the transaction under way. Raises `NotServing` while the disk is full."""
        if self.disk_full:
            raise NotServing("The disk is full, so the last writes are not durable yet: free some space.")
        if self._under_way is not None:
            await asyncio.shield(self._under_way)

    def commit(self, saves: Sequence[Save], then: Callable[[], None]) -> None:
        """Make these durable in one transaction, then call `then`: at once, or when the thread is done."""
        if self._executor is None:
            self._commit_here(saves, then)
            return
        self._under_way = self._loop.create_future()
        work = self._loop.run_in_executor(self._executor, self._store.commit, saves)
        work.add_done_callback(lambda done: self._ended(done.exception(), saves, then))

    def _commit_here(self, saves: Sequence[Save], then: Callable[[], None]) -> None:
        error: BaseException | None = None
        try:
            self._store.commit(saves)
        except Exception as failed:
            error = failed
        self._ended(error, saves, then)

    def _ended(self, error: BaseException | None, saves: Sequence[Save], then: Callable[[], None]) -> None:
        if isinstance(error, DiskFull):
            self._wait_for_space(error, saves, then)
            return
        self._settle()
        if error is None:
            self.disk_full = False
            then()
        else:
            self._on_failure(
                error if isinstance(error, RetinueError) else StorageError(f"The store failed: {error!r}.")
            )

    def _wait_for_space(self, error: DiskFull, saves: Sequence[Save], then: Callable[[], None]) -> None:
        if not self.disk_full:
            log.error("%s", error.detail)
        self.disk_full = True
        self._settle()
        self._under_way = self._loop.create_future()
        self._loop.call_later(DISK_RETRY_S, self._try_again, saves, then)

    def _try_again(self, saves: Sequence[Save], then: Callable[[], None]) -> None:
        if self._stopped:
            self._settle()
        else:
            self._commit_here(saves, then)

    def _settle(self) -> None:
        ended, self._under_way = self._under_way, None
        if ended is not None:
            ended.set_result(None)
