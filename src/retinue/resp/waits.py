"""Clients in WAIT and WAITAOF: until enough followers have what they wrote, or their time is over."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, NamedTuple

from retinue.resp.replies import array, error, integer

if TYPE_CHECKING:
    from retinue.node import Node
    from retinue.resp.slots import Slot

LOOK_INTERVAL_S = 0.001
UNBLOCKED = "UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)"


class _Waiting(NamedTuple):
    slot: Slot
    version: int
    needed: int
    deadline_ms: float
    with_local: int | None


class Waits:
    """Those who wait; looked at every millisecond while there are any."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._waiting: list[_Waiting] = []
        self._handle: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._waiting)

    def enter(self, slot: Slot, version: int, needed: int, timeout_ms: int, with_local: int | None) -> None:
        """Fill the slot when `needed` followers have everything up to `version`, or after `timeout_ms` (0: never)."""
        deadline_ms = self._node.driver.now_ms + timeout_ms if timeout_ms else math.inf
        self._waiting.append(_Waiting(slot, version, needed, deadline_ms, with_local))
        self._look()

    def stop(self) -> None:
        """Look no more."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _look(self) -> None:
        self.stop()
        now_ms = self._node.driver.now_ms
        waiting, self._waiting = self._waiting, []
        self._waiting = [each for each in waiting if not self._settle(each, now_ms)]
        if self._waiting:
            self._handle = asyncio.get_running_loop().call_later(LOOK_INTERVAL_S, self._look)

    def _settle(self, waiting: _Waiting, now_ms: float) -> bool:
        """Answer one that need not wait any longer; false for one that must."""
        if waiting.slot.connection.closed:
            return True
        leadership = self._node.replica.leadership
        if leadership is None:
            waiting.slot.fill(error(UNBLOCKED))
            return True
        holding = sum(
            [
                progress.voter and not progress.diverged and progress.contiguous >= waiting.version
                for progress in leadership.progress.values()
            ]
        )
        if holding < waiting.needed and now_ms < waiting.deadline_ms:
            return False
        if waiting.with_local is None:
            waiting.slot.fill(integer(holding))
        else:
            local = 0 if self._node.settings.memory else 1
            waiting.slot.fill(array([integer(local), integer(holding)]))
        return True
