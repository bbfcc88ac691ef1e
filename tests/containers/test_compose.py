"""The compose file for real: what its users do with it, and what they do to it."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from retinue.call import call
from retinue.ports import free_ports
from tests.containers.compose import SERVICES, Project, until
from tests.containers.conftest import MAX_DELAY_MS, MIN_DELAY_MS

# The first test waits for the engine and the image too, and for another test process that uses them.
pytestmark = pytest.mark.timeout(1500)


def until_all_have(project: Project, key: str, value: str) -> None:
    until(lambda: all(project.has(service, key, value) for service in SERVICES), f"all nodes have {key}")


# --- a cluster as it should be ---


def test_six_nodes_serve_what_was_written(project: Project) -> None:
    receipt = project.put("color", "blue").checked().json()
    assert receipt["outcome"] == "committed"
    assert receipt["required_quorum"] == 3
    until_all_have(project, "color", "blue")
    health = {service: project.ask(service, "/health").json() for service in SERVICES}
    assert {service: shown["node"] for service, shown in health.items()} == {service: service for service in SERVICES}
    assert [shown["role"] for shown in health.values()] == ["leader", *["follower"] * 5]


def test_entries_are_delayed_as_the_shell_says(project: Project) -> None:
    config = project.ask("leader", "/config").json()
    assert (config["min_delay_ms"], config["max_delay_ms"]) == (MIN_DELAY_MS, MAX_DELAY_MS)
    receipts: list[dict[str, Any]] = [project.put(f"delayed{number}", "x").checked().json() for number in range(10)]
    assert all(ack["ms"] >= MIN_DELAY_MS for receipt in receipts for ack in receipt["acked_by"])


def test_a_follower_sends_writers_to_where_they_reach_the_leader(project: Project) -> None:
    refused = project.put("hint", "x", to="follower4")
    assert refused.status == 403
    assert refused.json()["leader"] == project.url("leader")


def test_nodes_answer_to_the_name_of_their_service_and_to_no_other(project: Project) -> None:
    program = "import urllib.request; print(urllib.request.urlopen('http://{}/health', timeout=5).status)"
    assert project.python("leader", program.format("follower3:8003")) == "200"
    assert project.python("follower3", program.format("leader:8000")) == "200"
    assert call(project.url("leader"), "GET", "/health", headers={"Host": "example.org"}).status == 421


def test_containers_have_no_more_rights_than_they_need(project: Project) -> None:
    for service in SERVICES:
        seen = project.inspect(service)
        host = seen["HostConfig"]
        assert seen["Config"]["User"] == "retinue"
        assert host["ReadonlyRootfs"]
        assert not host["Privileged"]
        assert host["CapDrop"] == ["ALL"]
        assert host["CapAdd"] is None
        assert host["SecurityOpt"] == ["no-new-privileges:true"]
        published = [place for places in seen["NetworkSettings"]["Ports"].values() for place in places or ()]
        assert [place["HostIp"] for place in published] == ["127.0.0.1"]
    who = "import os; print(os.getuid(), os.stat('/proc/1').st_uid, oct(os.stat('/data').st_mode & 0o777))"
    assert project.python("follower1", who) == "10001 10001 0o700"


# --- nodes that go and come back ---


def test_writes_go_on_without_two_followers_and_stop_without_three(project: Project) -> None:
    project.run("kill", "follower1", "follower2")
    until(lambda: len(project.followers_in("leader", "live")) == 3, "the leader misses two followers")
    assert project.put("kept", "with three followers").status == 200

    project.run("kill", "follower3")
    until(lambda: len(project.followers_in("leader", "live")) == 2, "the leader misses three followers")
    asked_s = time.monotonic()
    refused = project.put("refused", "with two followers")
    assert time.monotonic() - asked_s < 1
    assert refused.status == 503
    told = refused.json()
    assert (told["outcome"], told["required_quorum"]) == ("not_written", 3)
    assert project.has("leader", "kept", "with three followers")
    assert project.inspect("follower1")["State"]["Status"] == "exited", "a killed node stays down"

    project.run("start", "follower1", "follower2", "follower3")
    until_all_have(project, "kept", "with three followers")
    assert project.put("again", "with all").status == 200
    until_all_have(project, "again", "with all")
    assert all(project.ask(service, "/kv/refused?read=local").status == 404 for service in SERVICES)


def test_writes_to_paused_followers_are_unknown_until_they_go_on(project: Project) -> None:
    paused = ("follower1", "follower2", "follower3")
    project.run("pause", *paused)
    unknown = project.put("paused", "x", timeout_ms=1000)
    assert unknown.status == 504
    told = unknown.json()
    assert told["outcome"] == "unknown"
    project.run("unpause", *paused)
    path = f"/writes/{told['version']}"
    until(lambda: project.ask("leader", path).json()["state"] == "committed", "the write is committed after all")
    until_all_have(project, "paused", "x")


def test_a_follower_that_was_cut_off_catches_up(project: Project) -> None:
    project.disconnect("follower5")
    for number in range(20):
        assert project.put(f"while-cut-off{number}", "x").status == 200
    until(lambda: project.followers_in("leader", "unreachable") == ["follower5"], "the leader misses the follower")
    project.connect("follower5")
    until_all_have(project, "while-cut-off19", "x")


def test_a_promoted_follower_leads_all_others_and_the_old_leader_follows_it(project: Project) -> None:
    project.put("before", "x").checked()
    project.run("kill", "leader")
    project.promote("follower2")
    until(lambda: len(project.followers_in("follower2", "live")) == 4, "four followers have heard of the new leader")
    assert project.put("after", "y", to="follower2").status == 200
    assert project.has("follower2", "before", "x")

    project.run("start", "leader")
    until_all_have(project, "after", "y")
    others = sorted({*SERVICES} - {"follower2"})
    until(lambda: project.followers_in("follower2", "live") == others, "five nodes follow the new leader")
    assert project.ask("leader", "/health").json()["role"] == "follower"
    refused = project.put("hint", "x")
    assert refused.status == 403
    assert refused.json()["leader"] == project.url("follower2")


def test_a_restart_of_everything_keeps_the_data(project: Project) -> None:
    version = project.put("lasting", "x").checked().json()["version"]
    project.run("restart", timeout_s=120)
    project.up()
    until_all_have(project, "lasting", "x")
    assert project.ask("leader", "/kv/lasting").json()["version"] == version
    assert project.put("lasting", "y").status == 200


@pytest.mark.parametrize("service", ["leader", "follower1"])
def test_a_node_ends_quickly_and_cleanly(project: Project, service: str) -> None:
    begun_s = time.monotonic()
    project.run("stop", service)
    assert time.monotonic() - begun_s < 5
    state = project.inspect(service)["State"]
    assert (state["Status"], state["ExitCode"], state["OOMKilled"]) == ("exited", 0, False)


# --- the file itself ---


@pytest.fixture
def unstarted_project(started_project: Project) -> Project:
    name, settings = f"{started_project.name}-unstarted", {"WRITE_QUORUM": "1", "MIN_DELAY": "2.5", "MAX_DELAY": "7"}
    return Project(name, started_project.image, free_ports(len(SERVICES)), **settings)


def test_the_shell_sets_quorum_and_delays(unstarted_project: Project) -> None:
    services = json.loads(unstarted_project.run("config", "--format", "json"))["services"]
    assert sorted(services) == sorted(SERVICES)
    assert [name for name, service in services.items() if "build" in service] == ["leader"]
    for service in services.values():
        environment = service["environment"]
        assert [environment[name] for name in ("WRITE_QUORUM", "MIN_DELAY", "MAX_DELAY")] == ["1", "2.5", "7"]


def test_down_leaves_nothing(unstarted_project: Project) -> None:
    try:
        unstarted_project.run("create")
        assert len(unstarted_project.left_behind()) == 2 * len(SERVICES) + 1
    finally:
        unstarted_project.remove()
    assert unstarted_project.left_behind() == []
