"""How a node shares the cores of its machine with the other nodes there.

All writes go through the leader, so on a machine with fewer cores than nodes everything waits for it. A follower that
wakes up would push it off its core, as often as once for each write; as a batch process it waits until a core is free
or the slice of whoever runs is over, and finds more to do at a time.

Only a node that listens on loopback does so: nobody else can reach it, so all nodes share its machine. A scheduling
policy that somebody chose for the process stays as it is. All this is of effect on Linux only.
"""

from __future__ import annotations

import contextlib
import os
import sys

from retinue.values import is_loopback


class CoreSharing:
    """The scheduling policy of a node that listens on `host`; each call sets that of the calling thread."""

    def __init__(self, host: str) -> None:
        self._applies = sys.platform == "linux" and is_loopback(host) and os.sched_getscheduler(0) == os.SCHED_OTHER

    def give_way(self) -> None:
        """Leave the cores to whoever wakes up: this node follows."""
        if self._applies:
            _choose(os.SCHED_BATCH)

    def compete(self) -> None:
        """Take a core when woken: this node leads, or wants to."""
        if self._applies:
            _choose(os.SCHED_OTHER)


def _choose(policy: int) -> None:
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, policy, os.sched_param(0))
