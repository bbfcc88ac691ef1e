"""What makes a node stop by itself."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.http.serving import Host, lone_leader, wait_until


def test_a_node_whose_data_was_taken_away_stops(tmp_path: Path) -> None:
    host, directory = Host(), tmp_path / "data"
    served = lone_leader(host, memory=False, data_dir=directory)
    assert served("PUT", "/kv/a", {"value": 1}).status == 200
    shutil.rmtree(directory)
    wait_until(lambda: bool(host.failures))
    (failure,) = host.failures
    assert failure.detail.startswith(f"The data in {directory} is out of reach")
    host.failures.clear()
    host.close()
