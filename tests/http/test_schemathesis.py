"""schemathesis against a leader over a real socket: what is described is what is served."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tests.http.serving import Served

# What a description cannot say: who leads now, which members there are and how many, that a batch names each key once.
CONFIG = """
[parameters]
"query.w" = "all"

[[operations]]
include-name = "GET /replica"
checks.not_a_server_error.expected-statuses = ["2xx", "4xx", 503]

[[operations]]
include-name = "PATCH /config"
checks.positive_data_acceptance.expected-statuses = ["2xx", 422]

[[operations]]
include-name = "POST /batch"
checks.positive_data_acceptance.expected-statuses = ["2xx", 422]
"""


def test_nothing_is_found(start_leader: Callable[..., Served], tmp_path: Path) -> None:
    served = start_leader()
    config = tmp_path / "schemathesis.toml"
    config.write_text(CONFIG)
    command = [str(Path(sys.executable).with_name("st")), f"--config-file={config}", "run"]
    options = [
        f"{served.door.url}/openapi.json",
        "--checks=all",
        "--phases=examples,coverage,fuzzing",
        "--max-examples=8",
        "--no-color",
        "--seed=1",
    ]
    found = subprocess.run([*command, *options], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout + found.stderr
    assert served("GET", "/health").status == 200
