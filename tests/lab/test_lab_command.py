"""`retinue lab` as a user calls it: options, presets, folders, errors, and runs that end early."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from retinue import cli
from retinue.cluster import Cluster
from retinue.errors import SettingsError
from retinue.lab import measuring
from retinue.lab.experiments.registry import EXPERIMENTS
from retinue.lab.options import parse
from retinue.lab.presets import PRESETS
from retinue.ports import free_ports

ROOT = Path(__file__).parents[2]
QUICK = ["lab", "quorum", "--simulated", "--writes", "30"]


def only_folder(out: Path) -> Path:
    (found,) = out.iterdir()
    return found


def saved(folder: Path) -> Any:
    return json.loads((folder / "results.json").read_text())


def test_a_run_ends_with_its_table_and_the_path_of_its_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([*QUICK, "--quorums", "1..2", "--out", str(tmp_path)]) == 0
    folder = only_folder(tmp_path)
    printed = capsys.readouterr()
    assert printed.out.splitlines()[-1] == f"Report: {folder / 'report.html'}"
    assert "theory p95 ms" in printed.out
    assert "write quorum 2" in printed.err
    assert {"results.json", "results.csv", "report.html", "latency.png"} <= {file.name for file in folder.iterdir()}
    record = saved(folder)
    assert record["command"] == f"retinue lab quorum --simulated --writes 30 --quorums 1..2 --out {tmp_path}"
    assert (record["settings"]["writes"], record["settings"]["quorums"]) == (30, [1, 2])
    assert record["state"] == "complete"
    assert record["host"]["cores"] >= 1
    assert {"python", "retinue", "numpy"} <= set(record["versions"])
    assert record["command"] in (folder / "report.html").read_text()


def test_json_is_one_document_on_standard_output(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*QUICK, "--quorums", "3", "--out", str(tmp_path), "--json"]) == 0
    printed = capsys.readouterr()
    document = json.loads(printed.out)
    assert printed.err == ""
    assert document["folder"] == str(only_folder(tmp_path))
    assert document["summary"]["key_figures"]["success at quorum 3 (%)"] == 100
    assert document["summary"]["violations"] == []


def test_options_go_before_the_preset(tmp_path: Path) -> None:
    arguments = [
        "--preset",
        "band",
        "--simulated",
        "--writes",
        "5",
        "--quorums",
        "4",
        "--memory",
        "--out",
        str(tmp_path),
    ]
    assert cli.main(["lab", "quorum", *arguments]) == 0
    folder = only_folder(tmp_path)
    settings = saved(folder)["settings"]
    assert folder.name.endswith("-quorum-band")
    assert (settings["min_delay_ms"], settings["max_delay_ms"], settings["writes"]) == (50, 800, 5)
    assert settings["memory"] is True


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--preset", "nope"], "There is no preset nope: choose one of classic"),
        (["--quorums", "1,6"], "--quorums=1,6 is above the number of followers (5)"),
        (["--followers", "2", "--quorums", "3"], "--quorums=3 is above the number of followers (2)"),
        (["--followers", "some"], "--followers=some"),
        (["--followers", "http://127.0.0.1:1"], "--url"),
        (["--write-quorum", "3"], "--url"),
        (["--writes", "1000000000"], "--writes=1000000000 is not allowed: give at most 1,000,000"),
        (["--writes", "9" * 400], "give at most 1,000,000"),
        (["--url", "http://127.0.0.1:1"], "--simulated and --url"),
        (["--writes", "many"], "--writes=many is not allowed: use a whole number"),
        (["--quorums", "3..1"], "--quorums=3..1"),
        (["--out", "/dev/null/x"], "--out=/dev/null/x"),
    ],
)
def test_wrong_usage_is_one_sentence_and_exit_code_2(
    arguments: list[str], part: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([*QUICK, "--out", str(tmp_path), *arguments]) == 2
    printed = capsys.readouterr()
    assert (printed.out, printed.err.count("\n")) == ("", 1)
    assert part in printed.err
    assert list(tmp_path.iterdir()) == []


def test_a_preset_of_another_experiment_says_where_it_belongs(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["lab", "staleness", "--simulated", "--preset", "classic"]) == 2
    assert "retinue lab quorum --preset classic" in capsys.readouterr().err


def test_an_address_where_nobody_answers_leaves_no_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (port,) = free_ports(1)
    arguments = ["lab", "quorum", "--url", f"http://127.0.0.1:{port}", "--out", str(tmp_path), "--json"]
    assert cli.main(arguments) == 4
    printed = capsys.readouterr()
    assert printed.err.count("\n") == 1
    assert str(port) in json.loads(printed.out)["detail"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "wanted", "value"),
    [
        ("1,3,5", tuple[int, ...], (1, 3, 5)),
        ("1..3,7", tuple[int, ...], (1, 2, 3, 7)),
        ("0.5,2", tuple[float, ...], (0.5, 2.0)),
        ("a, b", tuple[str, ...], ("a", "b")),
        ("7", int, 7),
        ("1e3", float, 1000.0),
    ],
)
def test_options_have_the_types_of_the_settings(text: str, wanted: Any, value: object) -> None:
    assert parse("--some", text, wanted) == value


@pytest.mark.parametrize(("text", "wanted"), [("1,x", tuple[int, ...]), ("x", float), ("1..99999", tuple[int, ...])])
def test_options_of_another_type_are_named(text: str, wanted: Any) -> None:
    with pytest.raises(SettingsError, match=f"--some={text}"):
        parse("--some", text, wanted)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_explains_its_options(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        cli.main(["lab", name, "--help"])
    shown = capsys.readouterr().out
    assert "--preset" in shown
    assert "--seed" in shown


def test_presets_are_listed_and_fit_their_experiments(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["lab", "presets", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)["presets"]
    assert [entry["preset"] for entry in listed] == list(PRESETS) == ["classic", "band", "bulk", "sqlite", "tail"]
    assert cli.main(["lab", "presets"]) == 0
    assert "U[50, 800] ms" in capsys.readouterr().out


def test_a_folder_without_runs_is_said_to_have_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["lab", "list", "--out", str(tmp_path)]) == 0
    assert f"There are no runs in {tmp_path}" in capsys.readouterr().out
    assert cli.main(["lab", "list", "--out", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"runs": []}


def test_a_write_quorum_of_nobody_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["lab", "quorum", "--url", "http://127.0.0.1:1", "--write-quorum", "0"]) == 2
    assert "--write-quorum=0 is not allowed: give at least 1." in capsys.readouterr().err


def test_runs_are_listed_compared_and_reported_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "results")
    for seed in ("1", "2"):
        assert cli.main([*QUICK, "--quorums", "1,5", "--seed", seed, "--out", out]) == 0
    runs = sorted((tmp_path / "results").iterdir())
    (tmp_path / "results" / "broken").mkdir()
    (tmp_path / "results" / "broken" / "results.json").write_text("{")
    capsys.readouterr()
    assert cli.main(["lab", "list", "--out", out, "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)["runs"]
    assert [(entry["folder"], entry["state"]) for entry in listed] == [
        *((run.name, "complete") for run in runs),
        ("broken", "cannot be read"),
    ]
    assert cli.main(["lab", "compare", str(runs[0]), str(runs[1]), "--out", str(tmp_path / "compared")]) == 0
    printed = capsys.readouterr().out
    assert "mean latency at quorum 5 (ms)" in printed
    assert "setting seed" in printed
    assert (only_folder(tmp_path / "compared") / "comparison.png").is_file()
    before = (runs[0] / "report.html").read_text()
    (runs[0] / "report.html").unlink()
    assert cli.main(["lab", "report", str(runs[0])]) == 0
    assert (runs[0] / "report.html").read_text() == before


def test_a_broken_promise_is_exit_code_7(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*QUICK, "--quorums", "2", "--out", str(tmp_path)]) == 0
    folder = only_folder(tmp_path)
    record = saved(folder)
    other, moment = (record["samples"]["columns"].index(name) for name in ("other", "moment"))
    for row in record["samples"]["rows"]:
        row[other] = 1 if row[moment] == "settled" else 0
    (folder / "results.json").write_text(json.dumps(record))
    assert cli.main(["lab", "report", str(folder)]) == 7
    assert "5 cells differed" in (folder / "report.html").read_text()
    assert cli.main(["lab", "list", "--out", str(tmp_path)]) == 0
    assert "1 violation" in capsys.readouterr().out


def test_without_its_packages_the_laboratory_says_how_to_get_them(tmp_path: Path) -> None:
    program = "import sys; sys.modules['scipy'] = None; from retinue import cli; sys.exit(cli.main(sys.argv[1:]))"

    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", program, *arguments]
        return subprocess.run(command, cwd=tmp_path, text=True, capture_output=True, timeout=60, check=False)

    assert call("lab", "presets").returncode == 0
    assert call("lab", "list").returncode == 0
    refused = call("lab", "quorum", "--simulated")
    assert (refused.returncode, refused.stdout, refused.stderr.count("\n")) == (2, "", 1)
    assert 'pip install "retinue[lab]"' in refused.stderr


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    settings = {"write_quorum": "1", "memory": "true", "min_free_bytes": "0"}
    with Cluster(tmp_path / "nodes", free_ports(3), settings) as running:
        yield running


class Endless:
    """A measurement on a running cluster that would take minutes, once its first writes are answered."""

    def __init__(self, cluster: Cluster, out: Path) -> None:
        url = cluster.url("leader")
        arguments = [
            "--url",
            url,
            "--writes",
            "200000",
            "--warm-up",
            "0",
            "--quorums",
            "2",
            "--out",
            str(out),
            "--json",
        ]
        command = [sys.executable, "-m", "retinue", "lab", "quorum", *arguments]
        self.process = subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        while not self._is_written(f"{url}/kv/key0"):
            assert self.process.poll() is None, self.process.communicate()
            time.sleep(0.05)
        time.sleep(0.3)

    def end(self) -> tuple[Any, str, int]:
        out, err = self.process.communicate(timeout=60)
        return json.loads(out), err, self.process.returncode

    def _is_written(self, url: str) -> bool:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return True
        except urllib.error.HTTPError:
            return False


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_and_kill_keep_what_was_measured(number: signal.Signals, cluster: Cluster, tmp_path: Path) -> None:
    run = Endless(cluster, tmp_path / "out")
    os.kill(run.process.pid, number)
    document, err, code = run.end()
    assert (code, err) == (130, "retinue: Interrupted.\n")
    record = saved(only_folder(tmp_path / "out"))
    assert record["state"] == document["state"] == "interrupted"
    assert record["note"].startswith("interrupted after ")
    assert len(record["samples"]["rows"]) > 0
    assert record["settings"]["followers"] == 2
    assert "interrupted after" in (only_folder(tmp_path / "out") / "report.html").read_text()


def test_a_cluster_that_dies_half_way_leaves_partial_results(cluster: Cluster, tmp_path: Path) -> None:
    run = Endless(cluster, tmp_path / "out")
    for node in ("leader", "follower1", "follower2"):
        cluster.kill(node)
    document, err, code = run.end()
    assert code in (1, 4)
    assert err.count("\n") == 1
    assert "stopped answering" in document["detail"]
    folder = only_folder(tmp_path / "out")
    record = saved(folder)
    assert record["state"] == "failed"
    assert document["folder"] == str(folder)
    outcome = record["samples"]["columns"].index("outcome")
    assert "committed" in {row[outcome] for row in record["samples"]["rows"]}


def test_a_low_limit_of_open_files_is_raised_as_far_as_allowed() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
    try:
        measuring.allow_connections()
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == min(measuring.OPEN_FILES, before[1])
        measuring.allow_connections()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
