"""run.sh as a user calls it: from anywhere, with nothing but the environment."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from retinue.ports import free_ports

ROOT = Path(__file__).parents[1]
COPIED = ("run.sh", "requirements.txt", "requirements-lab.txt", "requirements-dev.txt", "pyproject.toml", "src")


def ports_in_a_row(count: int) -> int:
    """The first of so many free ports in a row."""
    for _ in range(100):
        ports = free_ports(count)
        if ports == list(range(ports[0], ports[0] + count)):
            return ports[0]
    raise AssertionError("no free ports in a row")


class Shell:
    """Calls run.sh with an environment that holds no setting but those given."""

    def __init__(self, script: Path, directory: Path, **settings: object) -> None:
        self.script = script
        self.directory = directory
        self.environment = {"HOME": os.environ["HOME"], "PATH": os.environ["PATH"]}
        self.environment |= {name: str(value) for name, value in settings.items()}

    def __call__(self, *arguments: str, **settings: object) -> subprocess.CompletedProcess[str]:
        environment = self.environment | {name: str(value) for name, value in settings.items()}
        command = [str(self.script), *arguments]
        return subprocess.run(
            command, env=environment, cwd=self.directory, text=True, capture_output=True, timeout=110, check=False
        )

    def nodes(self) -> dict[str, dict[str, object]]:
        document = json.loads(self("status", "--json").stdout)
        assert list(document) == ["nodes"]
        return {node["name"]: node for node in document["nodes"]}


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    made = Shell(ROOT / "run.sh", tmp_path, PORT=ports_in_a_row(6), DATA_DIR=tmp_path / "data")
    yield made
    assert made("stop").returncode == 0


def ask(url: object, path: str, body: bytes | None = None) -> dict[str, object]:
    request = urllib.request.Request(
        f"{url}{path}", body, {"Content-Type": "application/json"}, method="PUT" if body else "GET"
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        document = json.load(answer)
    assert isinstance(document, dict)
    return document


def alive(pid: object) -> bool:
    return Path(f"/proc/{pid}").exists()


def test_the_whole_life_of_the_default_cluster(shell: Shell) -> None:
    port = int(shell.environment["PORT"])
    started = shell("start")
    assert started.returncode == 0, started.stderr
    assert f"curl -X PUT http://127.0.0.1:{port}/kv/color" in started.stdout
    nodes = shell.nodes()
    assert list(nodes) == ["leader", "follower1", "follower2", "follower3", "follower4", "follower5"]
    for number, (name, node) in enumerate(nodes.items()):
        assert list(node) == ["name", "role", "url", "pid", "data_dir", "healthy"]
        assert node["url"] == f"http://127.0.0.1:{port + number}"
        assert node["data_dir"] == f"{shell.environment['DATA_DIR']}/{name}"
        assert (node["healthy"], node["role"]) == (True, "leader" if name == "leader" else "follower")
    assert "All nodes were running already." in shell("start").stdout
    assert "follower5" in shell("status").stdout
    stopped = shell("stop")
    assert "Stopped leader" in stopped.stdout
    assert not any(alive(node["pid"]) for node in nodes.values())
    assert "Nothing was running." in shell("stop").stdout


def test_killed_nodes_stay_down_until_start_and_restart_keeps_data_and_settings(shell: Shell) -> None:
    assert shell("start", FOLLOWER_COUNT=3, WRITE_QUORUM=2, MAX_DELAY=1.5).returncode == 0
    nodes = shell.nodes()
    url = nodes["leader"]["url"]
    ask(url, "/kv/color", b'{"value": "blue"}')
    os.kill(int(str(nodes["follower1"]["pid"])), signal.SIGKILL)
    down = shell.nodes()["follower1"]
    assert (down["pid"], down["healthy"]) == (None, False)
    assert "Started follower1." in shell("start").stdout
    assert "Stopped follower2." in shell("stop", "follower2").stdout
    assert shell.nodes()["follower2"]["pid"] is None
    assert "Started follower2." in shell("start", "follower2").stdout
    refused = shell("start", WRITE_QUORUM=3)
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert "restart" in refused.stderr
    assert shell("restart").returncode == 0
    again = shell.nodes()
    assert all(node["healthy"] for node in again.values())
    assert len(again) == 4
    config = ask(url, "/config")
    assert (config["write_quorum"], config["max_delay_ms"]) == (2, 1.5)
    assert ask(url, "/kv/color")["value"] == "blue"
    assert shell("restart", MAX_DELAY=0).returncode == 0
    assert ask(url, "/config")["max_delay_ms"] == 0
    assert "follower3: " in shell("logs").stdout
    assert "follower1" in shell("logs", "follower1").stdout


@pytest.mark.parametrize(
    ("settings", "parts"),
    [
        ({"WRITE_QUORUM": 6}, ("WRITE_QUORUM=6", "use 0 to 5")),
        ({"MIN_DELAY": 5, "MAX_DELAY": 1}, ("MIN_DELAY=5", "MAX_DELAY=1")),
        ({"FOLLOWER_COUNT": "many"}, ("FOLLOWER_COUNT=many", "use a whole number")),
        ({"WRITE_QUORUM": 1, "QUORUM_SIZE": 2}, ("WRITE_QUORUM=1", "QUORUM_SIZE=2")),
        ({"DATA_DIR": "/dev/null/x"}, ("DATA_DIR=/dev/null/x",)),
    ],
)
def test_wrong_settings_are_one_sentence_and_exit_code_2(
    shell: Shell, settings: dict[str, object], parts: tuple[str, ...]
) -> None:
    refused = shell("start", **settings)
    assert (refused.returncode, refused.stdout, refused.stderr.count("\n")) == (2, "", 1)
    for part in parts:
        assert part in refused.stderr


def test_a_taken_port_is_one_sentence_and_exit_code_2(shell: Shell, tmp_path: Path) -> None:
    assert shell("start", FOLLOWER_COUNT=0).returncode == 0
    refused = shell("start", FOLLOWER_COUNT=0, DATA_DIR=tmp_path / "other")
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert f"PORT={shell.environment['PORT']}" in refused.stderr
    assert shell("status", "--json", DATA_DIR=tmp_path / "other").stdout == '{\n  "nodes": []\n}\n'


def test_help_and_unknown_verbs(shell: Shell) -> None:
    assert "restart [NODE]" in shell("help").stdout
    assert shell().stdout == shell("help").stdout
    assert shell("fly").returncode == 2
    assert shell("retinue", "version").stdout.startswith("retinue ")
    assert shell("start", "nobody").returncode == 1


def test_perf_is_the_first_preset_and_takes_further_options(shell: Shell, tmp_path: Path) -> None:
    for verb in ("perf", "analyze"):
        done = shell(verb, "--simulated", "--quorums", "1,5", "--out", str(tmp_path / verb))
        assert done.returncode == 0, done.stderr
        folder = next((tmp_path / verb).iterdir())
        assert folder.name.endswith("-quorum-classic")
        assert done.stdout.splitlines()[-1] == f"Report: {folder / 'report.html'}"
        assert (folder / "latency.png").is_file()
    assert "bench --quick" in shell("help").stdout


def tools_without_python(directory: Path) -> Path:
    """A directory with what run.sh calls, for a PATH without any Python."""
    for tool in ("bash", "cat", "cksum", "dirname", "readlink", "rm"):
        (directory / tool).symlink_to(shutil.which(tool) or "/nonexistent")
    return directory


def test_a_missing_or_old_python_is_told_plainly(tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("run.sh", "requirements.txt"):
        shutil.copy(ROOT / name, copy)
    (tmp_path / "bin").mkdir()
    tools = tools_without_python(tmp_path / "bin")
    shell = Shell(copy / "run.sh", tmp_path)
    refused = shell("status", PATH=tools)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr == "run.sh: Python 3.11 or newer is needed: install it, or set PYTHON to its path.\n"
    without_venv = tools / "python3"
    without_venv.write_text("#!/bin/bash\n[[ $2 != *venv* ]]\n")
    without_venv.chmod(0o755)
    refused = shell("status", PATH=tools)
    assert refused.returncode == 2
    assert refused.stderr == "run.sh: python3 has no venv module: install it (on Debian: apt install python3-venv).\n"
    assert not (copy / ".venv").exists()


@pytest.mark.long
def test_a_fresh_copy_sets_itself_up_even_when_called_twice_at_once(tmp_path: Path) -> None:
    copy = tmp_path / "a copy"
    copy.mkdir()
    for name in COPIED:
        source = ROOT / name
        shutil.copytree(source, copy / name) if source.is_dir() else shutil.copy(source, copy)
    environment = {"HOME": os.environ["HOME"], "PATH": os.environ["PATH"]}
    command = [str(copy / "run.sh"), "retinue", "version"]
    calls = [
        subprocess.Popen(command, env=environment, cwd="/", text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    outputs = [call.communicate(timeout=110) for call in calls]
    assert [call.returncode for call in calls] == [0, 0], outputs
    assert sum("Setting up" in said for _, said in outputs) == 1
    moved = tmp_path / "moved"
    copy.rename(moved)
    again = Shell(moved / "run.sh", tmp_path)("retinue", "version")
    assert again.stdout.startswith("retinue ")
    assert "Setting up" in again.stderr
    assert Shell(moved / "run.sh", tmp_path)("retinue", "version").stderr == ""
