"""Whom the scheduler prefers."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import pytest

from retinue.scheduling import share_cores

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="scheduling policies are Linux's")


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    policy = os.sched_getscheduler(0)
    yield
    os.sched_setscheduler(0, policy, os.sched_param(0))


def test_a_follower_gives_way_on_a_machine_that_it_shares() -> None:
    share_cores("127.0.0.1", leads=False)
    assert os.sched_getscheduler(0) == os.SCHED_BATCH
    share_cores("localhost", leads=True)
    assert os.sched_getscheduler(0) == os.SCHED_OTHER


def test_a_node_that_others_reach_from_elsewhere_stays_as_it_is() -> None:
    before = os.sched_getscheduler(0)
    share_cores("0.0.0.0", leads=False)
    assert os.sched_getscheduler(0) == before


def test_a_system_that_does_not_allow_it_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "sched_setscheduler", refuse)
    share_cores("127.0.0.1", leads=False)
