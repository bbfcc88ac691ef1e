"""Data directories: wiped, foreign, swapped; and settings that do not fit the data."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from retinue.cluster import Cluster
from retinue.errors import ClusterError, Unreachable
from retinue.ports import free_ports
from tests.cluster.conftest import StartCluster
from tests.cluster.verification import agree, dump, status, wait_for_agreement
from tests.cluster.workload import wait_until


def put(cluster: Cluster, key: str, value: object, node: str = "leader") -> int:
    receipt = cluster.request(node, "PUT", f"/kv/{key}", {"value": value}, timeout_s=10).checked().json()
    assert receipt["outcome"] == "committed"
    return int(str(receipt["version"]))


def seen_by_leader(cluster: Cluster, name: str) -> dict[str, object]:
    found: dict[str, object] = next(each for each in status(cluster, "leader")["followers"] if each["name"] == name)
    return found


def reason_of(cluster: Cluster, name: str) -> str:
    answer = cluster.request(name, "GET", "/health")
    return str(answer.json()["detail"]) if answer.status == 503 else ""


def wipe(cluster: Cluster, name: str) -> None:
    shutil.rmtree(cluster.node_dir(name))


def test_a_wiped_follower_comes_back_as_a_learner_and_is_admitted(start_cluster: StartCluster) -> None:
    cluster = start_cluster(write_quorum=3)
    for number in range(50):
        put(cluster, f"key{number}", number)
    before = status(cluster, "follower2")["node_id"]
    cluster.kill("follower2")
    wipe(cluster, "follower2")
    cluster.start(["follower2"])
    wait_until(lambda: seen_by_leader(cluster, "follower2")["voter"], "it is admitted")
    wait_until(lambda: status(cluster, "follower2")["voter"], "it knows that it may vote")
    assert status(cluster, "follower2")["node_id"] != before
    wait_for_agreement(cluster)
    cluster.kill("follower1")
    put(cluster, "color", "blue")
    cluster.kill("leader")
    told = cluster.request("follower2", "POST", "/promote", {}, timeout_s=15)
    assert told.status == 200, told.body
    assert cluster.request("follower2", "GET", "/kv/color?read=committed").json()["value"] == "blue"
    cluster.start()
    wait_for_agreement(cluster)


def test_followers_are_wiped_one_after_another(start_cluster: StartCluster) -> None:
    cluster = start_cluster(write_quorum=5)
    put(cluster, "color", "blue")
    for name in cluster.names[1:]:
        cluster.kill(name)
        wipe(cluster, name)
        cluster.start([name])
        wait_until(lambda name=name: status(cluster, name)["voter"], f"{name} is admitted")  # type: ignore[misc]
        put(cluster, "last", name)
    wait_for_agreement(cluster)


def test_a_wiped_leader_founds_nothing_over_its_followers_and_says_why(start_cluster: StartCluster) -> None:
    cluster = start_cluster(write_quorum=3)
    put(cluster, "color", "blue")
    wait_for_agreement(cluster)
    followers = cluster.names[1:]
    state, epoch = dump(cluster, "follower1"), status(cluster, "follower1")["epoch"]
    cluster.kill("leader")
    wipe(cluster, "leader")
    cluster.launch(["leader"])
    wait_until(lambda: answers(cluster, "leader"), "the leader answers")
    wait_until(lambda: reason_of(cluster, "leader"), "the leader says why it does not serve")
    print(reason_of(cluster, "leader"))
    refused = cluster.request("leader", "PUT", "/kv/color", {"value": "red"}, timeout_s=10)
    assert (refused.status, refused.json()["outcome"]) == (503, "not_written")
    assert [dump(cluster, name) for name in followers] == [state] * 5
    assert [status(cluster, name)["epoch"] for name in followers] == [epoch] * 5
    assert cluster.request("follower1", "POST", "/promote", {}, timeout_s=15).status == 200
    wait_until(lambda: agree(cluster), "the wiped node follows and has caught up")
    put(cluster, "color", "green", "follower1")
    wait_until(lambda: status(cluster, "leader")["voter"], "it is admitted")
    assert reason_of(cluster, "leader") == ""


def answers(cluster: Cluster, name: str) -> bool:
    try:
        return cluster.request(name, "GET", "/health").status in (200, 503)
    except Unreachable:
        return False


def test_the_directory_of_another_member_is_refused(start_cluster: StartCluster) -> None:
    cluster = start_cluster(followers=2)
    put(cluster, "color", "blue")
    wait_for_agreement(cluster)
    cluster.stop()
    one, two = cluster.node_dir("follower1"), cluster.node_dir("follower2")
    kept = one.with_name("kept")
    one.rename(kept)
    shutil.copytree(two, one)
    with pytest.raises(ClusterError, match=r"follower1 has ended: .*belongs to the member follower2"):
        cluster.start()
    shutil.rmtree(one)
    kept.rename(one)
    cluster.start()
    assert put(cluster, "color", "red") > 1


def test_the_directory_of_another_cluster_is_refused(start_cluster: StartCluster) -> None:
    cluster, other = start_cluster(followers=3, write_quorum=2), start_cluster(followers=3, write_quorum=2)
    put(cluster, "color", "blue")
    for number in range(5):
        put(other, f"foreign{number}", number)
    wait_for_agreement(other)
    other.stop()
    cluster.stop(["follower1"])
    wipe(cluster, "follower1")
    shutil.copytree(other.node_dir("follower1"), cluster.node_dir("follower1"))
    cluster.launch(["follower1"])
    wait_until(lambda: "refused" in str(seen_by_leader(cluster, "follower1")["link"]), "the leader knows the link")
    wait_until(lambda: dict_of(seen_by_leader(cluster, "follower1")["link"])["refused"], "the link is refused")
    print(dict_of(seen_by_leader(cluster, "follower1")["link"])["refused"])
    put(cluster, "color", "green")
    assert b"color" not in dump(cluster, "follower1")
    assert b"foreign" not in dump(cluster, "leader")


def dict_of(shown: object) -> dict[str, object]:
    assert isinstance(shown, dict)
    return shown


def restarted_with(cluster: Cluster, ports: list[int] | None = None, **settings: object) -> Cluster:
    """The same cluster, stopped and started with other settings."""
    cluster.stop()
    texts = {name: str(value) for name, value in settings.items()}
    again = Cluster(cluster.data_dir, ports or cluster.ports, texts, sources={name: name.upper() for name in texts})
    again.start()
    return again


def test_another_write_quorum_takes_effect_at_a_restart(start_cluster: StartCluster) -> None:
    cluster = start_cluster(write_quorum=3)
    put(cluster, "color", "blue")
    for quorum in (5, 1):
        again = restarted_with(cluster, write_quorum=quorum)
        wait_until(lambda: status(again, "leader")["write_quorum"] == quorum, f"{quorum} is in force")  # noqa: B023
        wait_until(lambda: status(again, "follower5")["write_quorum"] == quorum, "followers know it")  # noqa: B023
        receipt = again.request("leader", "PUT", "/kv/color", {"value": quorum}).checked().json()
        assert receipt["required_quorum"] == quorum
        assert receipt["acks"] >= quorum  # type: ignore[operator]
    again.stop()


def test_another_number_of_followers_is_refused(start_cluster: StartCluster) -> None:
    cluster = start_cluster(followers=3, write_quorum=2)
    put(cluster, "color", "blue")
    wait_for_agreement(cluster)
    with pytest.raises(ClusterError, match=r"leader has ended: .*belongs to a cluster with 3"):
        restarted_with(cluster, [*cluster.ports, *free_ports(1)], write_quorum=2)
    with pytest.raises(ClusterError, match=r"leader has ended: .*belongs to a cluster with 3"):
        restarted_with(cluster, list(cluster.ports[:3]), write_quorum=2)
    shutil.rmtree(cluster.data_dir / "follower4")
    Path(cluster.data_dir / "cluster.json").unlink()
    cluster.start()
    assert put(cluster, "color", "red") > 1
