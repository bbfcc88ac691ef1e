"""schemathesis against real nodes: what is described is what is served. All its checks run as they are by default.

Two probes are left out, each where it answers 503 by design: `GET /replica` on a leader, `GET /leader` on a follower.
Whatever waits for another node has, in a cluster, values that can be waited for: a deadline, a session, or a lag that
the nodes cannot keep is a 503 or 504 by design, too. A lone leader waits for nobody, so there they are as they come.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.http.serving import Cluster, Served

WITHOUT = """
[[operations]]
include-name = "{probe}"
enabled = false
"""
IN_A_CLUSTER = """
hooks = "{hooks}"

[parameters]
"query.timeout_ms" = 60000
"query.min_version" = "{session}"
"query.max_lag_ms" = 60000
"""
HOOKS = Path(__file__).with_name("schemathesis_hooks.py")
SHORT = ("--max-examples=8", "--seed=1")
LONG = [
    pytest.param(("--max-examples=200", f"--seed={seed}"), marks=(pytest.mark.long, pytest.mark.timeout(900)))
    for seed in (2, 3)
]

how_long = pytest.mark.parametrize("effort", [SHORT, *LONG], ids=" ".join)


def find(served: Served, config: str, directory: Path, effort: tuple[str, ...], leader: str = "") -> None:
    """Run schemathesis against a node; fails with what it tells if it finds anything."""
    path = directory / "schemathesis.toml"
    path.write_text(config)
    command = [str(Path(sys.executable).with_name("st")), f"--config-file={path}", "run", "--checks=all", "--no-color"]
    found = subprocess.run(
        [*command, *effort, f"{served.door.url}/openapi.json"],
        cwd=directory,
        env=os.environ | {"RETINUE_TEST_LEADER": leader},
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stdout + found.stderr
    assert served("GET", "/health").status == 200


def find_in(cluster: Cluster, served: Served, probe: str, directory: Path, effort: tuple[str, ...]) -> None:
    """The same in a cluster, which afterwards takes a write that all its nodes have."""
    session = cluster.leader("PUT", "/kv/first?w=all", {"value": 1}).json()["session"]
    config = IN_A_CLUSTER.format(hooks=HOOKS, session=session) + WITHOUT.format(probe=probe)
    find(served, config, directory, effort, cluster.leader.door.url)
    last = cluster.leader("PUT", "/kv/last?w=all", {"value": 2}).json()["session"]
    shown = [node("GET", f"/kv/last?min_version={last}").json() for node in (cluster.leader, *cluster.followers)]
    assert [found["value"] for found in shown] == [2, 2, 2]


@how_long
def test_nothing_is_found_at_a_lone_leader(
    start_leader: Callable[..., Served], tmp_path: Path, effort: tuple[str, ...]
) -> None:
    find(start_leader(), WITHOUT.format(probe="GET /replica"), tmp_path, effort)


@how_long
def test_nothing_is_found_at_the_leader_of_a_cluster(
    own_cluster: Cluster, tmp_path: Path, effort: tuple[str, ...]
) -> None:
    find_in(own_cluster, own_cluster.leader, "GET /replica", tmp_path, effort)


@how_long
def test_nothing_is_found_at_a_follower(own_cluster: Cluster, tmp_path: Path, effort: tuple[str, ...]) -> None:
    find_in(own_cluster, own_cluster.followers[0], "GET /leader", tmp_path, effort)
