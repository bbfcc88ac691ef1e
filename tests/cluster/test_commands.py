"""The verbs of the command against a real cluster."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from retinue import cli
from retinue.cluster import Cluster

Capture = pytest.CaptureFixture[str]


def run(cluster: Cluster, capfd: Capture, *arguments: str, node: str = "leader") -> tuple[int, str]:
    code = cli.main([*arguments, "--url", cluster.url(node)])
    return code, capfd.readouterr().out


def test_put_get_delete_through_any_node(cluster: Cluster, capfd: Capture, tmp_path: Path) -> None:
    key = "a/b c \u00e9 ..\U0001f600"
    code, said = run(cluster, capfd, "put", key, "blue", "--json", node="follower2")
    assert code == 0
    receipt = json.loads(said)
    assert (receipt["outcome"], receipt["key"], receipt["acks"] >= 3) == ("committed", key, True)
    newer = ("--min-version", receipt["session"])
    assert run(cluster, capfd, "get", key, *newer, node="follower4") == (0, "blue")
    assert run(cluster, capfd, "put", key, "red", "--if-absent")[0] == 1
    assert run(cluster, capfd, "put", key, "red", "--if-version", str(receipt["version"]), "--w", "all")[0] == 0
    assert run(cluster, capfd, "get", key, "--read", "strong") == (0, "red")
    assert run(cluster, capfd, "delete", key, node="follower1")[0] == 0
    assert run(cluster, capfd, "delete", key)[0] == 3
    assert run(cluster, capfd, "get", key)[0] == 3
    content = bytes(range(256))
    (tmp_path / "value").write_bytes(content)
    assert run(cluster, capfd, "put", "bytes", "--file", str(tmp_path / "value"))[0] == 0
    found = json.loads(run(cluster, capfd, "get", "bytes", "--json")[1])
    assert found["encoding"] == "base64"


def test_a_retry_with_the_same_id_is_written_once(cluster: Cluster, capfd: Capture) -> None:
    first = json.loads(run(cluster, capfd, "put", "once", "1", "--id", "request-1", "--json")[1])
    again = json.loads(run(cluster, capfd, "put", "once", "1", "--id", "request-1", "--json")[1])
    assert first["version"] == again["version"]
    assert run(cluster, capfd, "put", "once", "2", "--id", "request-1")[0] == 2


def test_scan_finds_every_key_in_order(cluster: Cluster, capfd: Capture) -> None:
    writes = [{"key": f"scan/{number:04}", "value": number} for number in range(900)]
    for _ in range(2):
        cluster.request("leader", "POST", "/batch", {"writes": writes}, timeout_s=10).checked()
        writes = [{"key": f"scan/{number:04}", "value": number} for number in range(900, 1500)]
    code, said = run(cluster, capfd, "scan", "scan/")
    assert code == 0
    assert said.splitlines() == [f"scan/{number:04}\t{number}" for number in range(1500)]
    page = json.loads(run(cluster, capfd, "scan", "scan/", "--after", "scan/0100", "--limit", "2", "--json")[1])
    assert [item["key"] for item in page["items"]] == ["scan/0101", "scan/0102"]


def test_status_and_config(cluster: Cluster, capfd: Capture) -> None:
    code, said = run(cluster, capfd, "status")
    assert code == 0
    assert "follower5" in said
    assert json.loads(run(cluster, capfd, "status", "--json", node="follower1")[1])["role"] == "follower"
    assert run(cluster, capfd, "config", "write_quorum=2")[0] == 0
    assert json.loads(run(cluster, capfd, "config", "--json")[1])["write_quorum"] == 2
    assert run(cluster, capfd, "config", "write_quorum=3")[0] == 0
    assert run(cluster, capfd, "config", "write_quorum=9")[0] == 2
    assert run(cluster, capfd, "config", "colour=red")[0] == 2


def test_no_quorum_and_unknown_outcome_have_their_exit_codes(cluster: Cluster, capfd: Capture) -> None:
    followers = cluster.names[1:]
    for name in followers[:3]:
        cluster.pause(name)
    try:
        assert run(cluster, capfd, "put", "k", "v", "--timeout-ms", "300")[0] == 6
    finally:
        for name in followers[:3]:
            cluster.resume(name)
    cluster.stop(followers[:3])
    assert run(cluster, capfd, "put", "k", "v", "--timeout-ms", "3000")[0] in (4, 6)
    assert run(cluster, capfd, "put", "k", "v")[0] == 4
    cluster.start()


def test_promotion_moves_the_leader(cluster: Cluster, capfd: Capture) -> None:
    assert run(cluster, capfd, "put", "moved", "1")[0] == 0
    for name in ("follower3", "leader"):
        assert run(cluster, capfd, "promote", node=name)[0] == 0
        assert cluster.leader() == name
        assert run(cluster, capfd, "get", "moved", node=name) == (0, "1")
    cluster.wait_healthy()


def test_many_commands_at_once(cluster: Cluster) -> None:
    codes: list[int] = []
    url = cluster.url("leader")
    threads = [
        threading.Thread(target=lambda n=number: codes.append(cli.main(["put", f"many/{n}", str(n), "--url", url])))
        for number in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert codes == [0] * 8
