"""Whom the scheduler prefers."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from unittest.mock import patch

import pytest

from retinue.commits import GroupCommit
from retinue.errors import RetinueError
from retinue.scheduling import CoreSharing
from retinue.store import Store

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="scheduling policies are Linux's")


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    policy = os.sched_getscheduler(0)
    yield
    os.sched_setscheduler(0, policy, os.sched_param(0))


def policy_in_a_thread(chosen: int, host: str) -> list[int]:
    """The policies of a thread that begins with `chosen`: when it gives way, and when it does not any more."""
    seen: list[int] = []

    def look() -> None:
        os.sched_setscheduler(0, chosen, os.sched_param(0))
        cores = CoreSharing(host)
        cores.give_way()
        seen.append(os.sched_getscheduler(0))
        cores.compete()
        seen.append(os.sched_getscheduler(0))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    return seen


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_a_follower_gives_way_on_a_machine_that_it_shares(host: str) -> None:
    assert policy_in_a_thread(os.SCHED_OTHER, host) == [os.SCHED_BATCH, os.SCHED_OTHER]


def test_a_node_that_others_reach_from_elsewhere_stays_as_it_is() -> None:
    assert policy_in_a_thread(os.SCHED_OTHER, "0.0.0.0") == [os.SCHED_OTHER, os.SCHED_OTHER]


@pytest.mark.parametrize("chosen", [os.SCHED_BATCH, os.SCHED_IDLE])
def test_a_policy_that_somebody_chose_stays(chosen: int) -> None:
    assert policy_in_a_thread(chosen, "127.0.0.1") == [chosen, chosen]


def test_a_system_that_does_not_allow_it_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError

    before = os.sched_getscheduler(0)
    monkeypatch.setattr(os, "sched_setscheduler", refuse)
    CoreSharing("127.0.0.1").give_way()
    assert os.sched_getscheduler(0) == before


def test_the_thread_of_transactions_goes_along(tmp_path: Path) -> None:
    """Where a sync is slow, every write of the leader waits for that thread."""

    def unexpected(error: RetinueError) -> None:
        raise error

    async def policies_of_both_threads() -> list[tuple[int, int]]:
        commits = GroupCommit(store, unexpected, CoreSharing("127.0.0.1"))
        commits.start()
        seen = []
        for leads in (False, True, False):
            commits.share_cores(leads=leads)
            in_thread = asyncio.get_running_loop().run_in_executor(commits._executor, os.sched_getscheduler, 0)
            seen.append((os.sched_getscheduler(0), await in_thread))
        await commits.stop()
        return seen

    with closing(Store(tmp_path)) as store, patch("retinue.commits.SLOW_SYNC_MS", -1.0):
        batch, other = (os.SCHED_BATCH, os.SCHED_BATCH), (os.SCHED_OTHER, os.SCHED_OTHER)
        assert asyncio.run(policies_of_both_threads()) == [batch, other, batch]
