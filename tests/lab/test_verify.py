from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from retinue.cli import main
from retinue.cluster import Cluster
from retinue.errors import EXIT_DONE, EXIT_FAILED, EXIT_NOT_WRITTEN, EXIT_USAGE, EXIT_VIOLATION
from retinue.lab.experiments.contract import Attachment
from retinue.lab.experiments.faults import Faults
from retinue.lab.experiments.faults_sample import FaultSample, FaultsSettings
from retinue.lab.history import Kind, Operation, save_history
from retinue.lab.judging.comparison import Difference, State
from retinue.lab.judging.settling import Settled
from retinue.lab.targets.contract import Cell
from retinue.lab.targets.opening import Where, open_target
from retinue.lab.verify import differences_table
from retinue.ports import free_ports


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    settings = {"memory": "true", "min_free_bytes": "0", "write_quorum": "1", "min_delay_ms": "1", "max_delay_ms": "40"}
    made = Cluster(tmp_path_factory.mktemp("verify"), free_ports(3), settings)
    try:
        made.start()
        yield made
    finally:
        made.stop()


def put(key: str, value: str, begun_ms: float) -> Operation:
    return Operation(client="c", kind=Kind.PUT, key=key, value=value, invoked_ms=begun_ms, completed_ms=begun_ms + 1)


def test_a_running_cluster_that_nobody_may_break_passes_every_probe(cluster: Cluster, tmp_path: Path) -> None:
    settings = FaultsSettings(duration_s=0.5, clients=4, probe_keys=20)
    samples: list[FaultSample] = []
    attachments: list[Attachment] = []

    async def run() -> None:
        async with open_target(Where(url=cluster.url("leader")), settings) as target:
            async for item in Faults().run(target, settings):
                if isinstance(item, FaultSample):
                    samples.append(item)
                elif isinstance(item, Attachment):
                    attachments.append(item)

    asyncio.run(run())
    assert Faults().summary(settings, samples).violations == []
    [attachment] = attachments
    (tmp_path / attachment.name).write_bytes(attachment.content)
    assert main(["verify", "--url", cluster.url("leader"), "--history", str(tmp_path / attachment.name)]) == EXIT_DONE


def test_nodes_that_agree_are_counted(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    cluster.request("leader", "PUT", "/kv/color", {"value": "blue"}).checked()
    assert main(["verify", "--url", cluster.url("leader"), "--json"]) == EXIT_DONE
    told = json.loads(capsys.readouterr().out)
    assert (told["equal"], told["differences"], told["violations"], told["silent"]) == (True, [], [], {})
    assert told["keys"] >= 1


def test_a_history_with_writes_that_are_not_there_is_a_violation(
    cluster: Cluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_history(tmp_path / "history.jsonl", [put("never-written", "gone", 10)])
    words = ["verify", "--url", cluster.url("leader"), "--history", str(tmp_path / "history.jsonl")]
    assert main(words) == EXIT_VIOLATION
    shown = capsys.readouterr().out
    assert (
        "Violation: acknowledged writes lost: 1 acknowledged write is gone, such as: 'gone' was acknowledged" in shown
    )


def test_a_node_that_does_not_answer_is_no_agreement(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    cluster.kill("follower2")
    try:
        assert main(["verify", "--url", cluster.url("leader"), "--quiet", "0.3"]) in (EXIT_FAILED, EXIT_NOT_WRITTEN)
    finally:
        cluster.start(["follower2"])
    captured = capsys.readouterr()
    assert "Not all nodes could be compared: " in captured.err
    assert "agree" not in captured.out


@pytest.mark.parametrize("content", [b"no json\n", b'{"client": 1}\n', b"\xff\xfe\n"])
def test_a_file_that_is_no_history_is_refused(
    content: bytes, cluster: Cluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "history").write_bytes(content)
    words = ["verify", "--url", cluster.url("leader"), "--history"]
    assert main([*words, str(tmp_path / "history")]) == EXIT_USAGE
    assert main([*words, str(tmp_path / "nothing")]) == EXIT_USAGE
    assert "is no recorded history" in capsys.readouterr().err


def test_an_address_without_a_server_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "--url", f"http://127.0.0.1:{free_ports(1)[0]}"]) == EXIT_NOT_WRITTEN
    assert "No server answers at" in capsys.readouterr().err


def test_the_table_shows_both_sides_and_says_how_many_there_are() -> None:
    differences = [
        Difference("a", State.OLDER, Cell("new", 7), Cell("old", 3)),
        Difference("b", State.MISSING, Cell("x" * 100, 8), None),
        *(Difference(f"c{number}", State.EXTRA, None, Cell("1", 1)) for number in range(30)),
    ]
    table = differences_table(Settled(leader="leader", dumps={}, differences={"follower1": differences}, waited_ms=0))
    assert table.title == "Differences from leader (32)"
    assert table.rows[0] == ["follower1", "a", "older", "new", 7, "old", 3]
    assert table.rows[1] == ["follower1", "b", "missing", "x" * 37 + "...", 8, None, None]
    assert table.notes == ["The first 20 of 32."]
