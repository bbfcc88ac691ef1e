"""`retinue bench` as a user calls it: the grid, its load on real clusters, what it writes, and ends that come early."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.lines import Line2D

from retinue import cli, tokens
from retinue.cluster import Cluster
from retinue.lab.bench_grid import Case
from retinue.lab.bench_pictures import pictures
from retinue.lab.bench_run import Point
from retinue.ports import free_ports

SHORT = ["--memory", "--followers", "1", "--duration", "0.2"]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    settings = {"memory": "true", "min_free_bytes": "0", "write_quorum": "1"}
    with Cluster(tmp_path_factory.mktemp("cluster"), free_ports(2), settings) as cluster:
        yield cluster


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, in which a benchmark keeps its data and writes its results."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def bench(*words: str) -> int:
    return cli.main(["bench", *words])


def only_results(folder: Path) -> Path:
    (found,) = (folder / "results").iterdir()
    return found


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--clients", "0"], "--clients 0 is not allowed: give whole numbers from 1 to 1000."),
        (["--clients", "1,many"], "--clients=1,many is not allowed"),
        (
            ["--quorum", "0..6"],
            "--quorum 0..6 is not allowed: give whole numbers from 0 to 5, the number of followers.",
        ),
        (["--quorum", "2", "--followers", "1"], "from 0 to 1, the number of followers"),
        (["--followers", "1,2"], "--followers 1,2 is not allowed: give one number."),
        (["--value-bytes", "0"], "from 1 to 1048576"),
        (["--operation", "delete"], "--operation delete is not allowed: give write or read, or write,read."),
        (["--door", "smtp"], "--door smtp is not allowed"),
        (["--pipeline", "16"], "--pipeline 16 is for the Redis protocol: add --door resp."),
        (["--storage", "disk", "--memory"], "contradict each other"),
        (["--duration", "nan"], "--duration nan is not allowed: give seconds from 0.1"),
        (["--duration", "soon"], "--duration=soon is not allowed"),
        (["--url", "http://127.0.0.1:8000", "--quorum", "1"], "leave it out, or leave out --url"),
        (["--url", "https://127.0.0.1:8000"], "nodes speak plain http://"),
        (["--url", "http://127.0.0.1:8000/kv"], "--url http://127.0.0.1:8000/kv is not allowed"),
        (["--quick", "--door", "resp"], "leave out --door, or --quick"),
        (["--quick", "--value-bytes", "1,2"], "--quick takes one value for --value-bytes"),
    ],
    ids=" ".join,
)
def test_what_is_not_possible_is_refused_in_a_sentence(
    words: list[str], told: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench(*words) == 2
    assert told in capsys.readouterr().err
    assert list(folder.iterdir()) == []


def test_a_grid_measures_every_combination_that_means_something(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--clients", "2", "--quorum", "0..1", "--door", "http,resp", "--operation", "write,read"]
    assert bench(*SHORT, *words, "--pipeline", "1,4", "--value-bytes", "100,20000") == 0
    saved = json.loads((only_results(folder) / "bench.json").read_text())
    assert saved["complete"] is True
    points = saved["points"]
    cases = {(p["door"], p["operation"], p["quorum"], p["pipeline"]) for p in points}
    writes = {(door, "write", k, n) for door, n in (("http", 1), ("resp", 1), ("resp", 4)) for k in (0, 1)}
    assert cases == writes | {(door, "read", None, n) for door, n in (("http", 1), ("resp", 1), ("resp", 4))}
    assert len(points) == 2 * len(cases)
    for point in points:
        assert point["requests"] > 0, point
        assert point["failures"] == {}, point
        assert 0 < point["p50_ms"] <= point["p95_ms"] <= point["p99_ms"]
    names = {file.name for file in only_results(folder).iterdir()}
    assert "bench.json" in names
    assert any(name.endswith(".png") for name in names)
    printed = capsys.readouterr().out
    assert "in memory" in printed
    assert str(only_results(folder).relative_to(folder) / "bench.json") in printed
    assert [file.name for file in folder.iterdir()] == ["results"]


def test_a_running_cluster_keeps_its_settings_and_decides_what_is_measured(
    running: Cluster, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--url", running.url("leader"), "--duration", "0.2", "--clients", "3", "--door", "resp", "--json"]
    assert bench(*words, "--out", str(folder / "there")) == 0
    told = json.loads(capsys.readouterr().out)
    assert [(p["quorum"], p["storage"], p["clients"]) for p in told["points"]] == [(1, "memory", 3)]
    assert told["files"] == ["bench.json", "writes.png"]
    assert Path(told["folder"]).parent == folder / "there"
    stored = running.request("leader", "GET", "/kv?prefix=key&limit=1").checked().json()["items"]
    assert isinstance(stored, list)
    assert len(stored[0]["value"]) == 100


def test_a_cluster_that_asks_for_tokens_is_given_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    known = tokens.create(tmp_path / "tokens", "write")
    settings = {"memory": "true", "min_free_bytes": "0", "write_quorum": "1", "token_file": str(tmp_path / "tokens")}
    with Cluster(tmp_path / "cluster", free_ports(2), settings) as cluster:
        words = ["--url", cluster.url("leader"), "--duration", "0.2", "--clients", "3", "--json"]
        monkeypatch.setenv("RETINUE_TOKEN", known)
        for more in (["--door", "resp"], ["--door", "http", "--operation", "write,read"], ["--quick"]):
            assert bench(*words, *more) == 0
            told = json.loads(capsys.readouterr().out)
            for point in told if isinstance(told, list) else told["points"]:
                assert not point["failures"]
        for token in ("", "f" * len(known)):
            monkeypatch.setenv("RETINUE_TOKEN", token)
            assert bench(*words, "--door", "resp") == 1
            assert "token" in capsys.readouterr().err


def test_a_token_that_no_header_can_carry_is_refused(
    running: Cluster, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RETINUE_TOKEN", "caf\u00e9")
    assert bench("--url", running.url("leader"), "--duration", "0.2", "--clients", "1") == 2
    assert "correct RETINUE_TOKEN" in capsys.readouterr().err


def test_a_token_that_nobody_asks_for_does_no_harm(
    running: Cluster, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RETINUE_TOKEN", "unasked")
    words = ["--url", running.url("leader"), "--duration", "0.2", "--clients", "2", "--door", "http,resp", "--json"]
    assert bench(*words) == 0
    assert [point["failures"] for point in json.loads(capsys.readouterr().out)["points"]] == [{}, {}]


def test_refusals_are_counted_by_kind_and_no_success_is_a_failure(
    running: Cluster, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for door, kind in (("http", "403"), ("resp", "READONLY")):
        assert bench("--url", running.url("follower1"), "--duration", "0.2", "--clients", "1", "--door", door) == 1
        printed = capsys.readouterr()
        assert kind in printed.out
        assert "No request succeeded" in printed.err


def test_nobody_there_is_said_in_a_sentence(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench("--url", f"http://127.0.0.1:{free_ports(1)[0]}", "--duration", "0.2") == 1
    assert "did not answer as a leader does" in capsys.readouterr().err
    assert list(folder.iterdir()) == []


def test_quick_is_one_client_against_64_and_leaves_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench(*SHORT, "--quick", "--quorum", "1", "--json") == 0
    results = json.loads(capsys.readouterr().out)
    assert [result["clients"] for result in results] == [1, 64]
    assert all(result["writes"] > 0 and result["failures"] == {} for result in results)
    assert list(folder.iterdir()) == []


WITHOUT_THE_LAB = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("matplotlib", "numpy", "scipy"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Missing())
from retinue.cli import main
sys.exit(main(sys.argv[1:]))
"""


def test_only_pictures_need_the_packages_of_the_lab(folder: Path) -> None:
    words = ["bench", *SHORT, "--clients", "1"]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_THE_LAB, *words], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert "No pictures: The laboratory needs the package" in done.stdout
    assert [file.name for file in only_results(folder).iterdir()] == ["bench.json"]


def processes_of(folder: Path) -> list[str]:
    """The nodes whose data lie in this folder: it stands in their environment."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if str(folder).encode() in (process / "environ").read_bytes():
                found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue
    return [line for line in found if "retinue serve" in line]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_grid_keeps_what_was_measured_and_stops_its_cluster(
    number: signal.Signals, folder: Path
) -> None:
    words = ["bench", *SHORT, "--clients", "1..200"]
    process = subprocess.Popen(
        [sys.executable, "-m", "retinue", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        while process.poll() is None and not list(folder.glob("results/*/bench.json")):
            time.sleep(0.05)
        nodes = processes_of(folder)
    finally:
        process.send_signal(number)
        out, err = process.communicate()
    assert process.returncode == 130, err
    assert len(nodes) == 2
    saved: dict[str, Any] = json.loads((only_results(folder) / "bench.json").read_text())
    assert saved["complete"] is False
    assert 1 <= len(saved["points"]) < 200
    assert f"Not complete: {len(saved['points'])} of 200 cases were measured." in out
    assert (only_results(folder) / "writes.png").is_file()
    assert processes_of(folder) == []
    assert [file.name for file in folder.iterdir()] == ["results"]


def point(requests: int = 100, **case: Any) -> Point:
    known: dict[str, Any] = {"storage": "disk", "value_bytes": 100, "door": "http", "operation": "write", "quorum": 3}
    return Point(
        case=Case(**(known | {"pipeline": 1, "clients": 1} | case)),
        duration_s=1.0,
        requests=requests,
        per_second=float(requests),
        p50_ms=1.0,
        p95_ms=2.0,
        p99_ms=3.0,
        generator_cpu=0.1,
        failures={},
    )


def x_of(line: Line2D) -> list[float]:
    return [float(x) for x in np.asarray(line.get_xdata())]


def test_a_picture_has_a_line_for_each_quorum_over_the_clients() -> None:
    points = [point(clients=clients, quorum=quorum) for quorum in (0, 3, 5) for clients in (1, 64, 256)]
    ((name, figure),) = pictures(points, 5)
    throughput, latency = figure.axes
    assert name == "writes"
    assert [len(axes.lines) for axes in (throughput, latency)] == [3, 6]
    assert x_of(throughput.lines[0]) == [1, 64, 256]
    assert {text.get_text() for text in throughput.texts} == {"quorum 0", "quorum 3", "quorum 5"}
    assert len({(line.get_marker(), line.get_color()) for line in throughput.lines}) == 3
    assert (throughput.get_xlabel(), latency.get_ylabel()) == ("clients", "latency of a write (ms)")


def test_what_neither_axis_nor_lines_show_makes_a_picture_of_its_own() -> None:
    points = [
        point(clients=clients, quorum=quorum, value_bytes=value_bytes)
        for value_bytes in (100, 100_000)
        for quorum in (0, 3)
        for clients in (1, 64)
    ]
    assert [name for name, _ in pictures(points, 5)] == ["writes-100-b", "writes-100-kb"]


def test_without_several_numbers_of_clients_the_axis_shows_what_varies() -> None:
    points = [point(clients=64, quorum=quorum) for quorum in range(6)]
    ((_, figure),) = pictures(points, 5)
    assert figure.axes[0].get_xlabel() == "write quorum (followers)"
    assert x_of(figure.axes[0].lines[0]) == list(range(6))


def test_cases_without_any_success_are_not_drawn() -> None:
    assert pictures([point(requests=0)], 5) == []
