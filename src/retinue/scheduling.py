"""How a node shares the cores of its machine with the other nodes there.

All writes go through the leader, so on a machine with fewer cores than nodes everything waits for it. A follower that
wakes up would push it off its core, as often as once for each write; as a batch process it waits until a core is free
or the slice of whoever runs is over, and finds more to do at a time. On a machine of its own it never has to wait.
"""

from __future__ import annotations

import contextlib
import os
import sys

from retinue.values import is_loopback


def share_cores(host: str, *, leads: bool) -> None:
    """Let a follower that listens on the loopback `host` give way to the leader; of effect on Linux only.

    It is the scheduling policy of the calling thread, and of threads that it starts from then on.
    """
    if sys.platform == "linux" and is_loopback(host):
        with contextlib.suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_OTHER if leads else os.SCHED_BATCH, os.sched_param(0))
