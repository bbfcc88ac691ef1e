"""What is left out unless it is asked for: campaigns of minutes, and tests that need a Docker engine."""

from __future__ import annotations

import os

import pytest

collect_ignore = [] if os.environ.get("RETINUE_CONTAINERS") else ["containers"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if os.environ.get("RETINUE_LONG"):
        return
    skipped = pytest.mark.skip(reason="takes minutes: ./run.sh test --long")
    for item in items:
        if item.get_closest_marker("long"):
            item.add_marker(skipped)
