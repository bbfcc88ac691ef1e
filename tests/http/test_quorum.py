"""What clients are told when followers are missing, slow, or away."""

from __future__ import annotations

import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from tests.http.serving import Client, Cluster, Reply, wait_until


def test_receipts_count_acknowledgements(cluster: Cluster) -> None:
    receipt = cluster.leader("PUT", "/kv/counted", {"value": 1}).json()
    assert (receipt["acks"], receipt["replicated_to"], receipt["required_quorum"]) == (2, 2, 2)
    assert {acked["node"] for acked in receipt["acked_by"]} == {"follower1", "follower2"}
    assert all(0 <= acked["ms"] < 10_000 for acked in receipt["acked_by"])
    assert receipt["total_time_ms"] >= receipt["replication_time_ms"] > 0
    assert "delays_ms" not in receipt


def test_fewer_acknowledgements_than_the_quorum(own_cluster: Cluster) -> None:
    leader = own_cluster.leader
    assert leader("PATCH", "/config", {"min_delay_ms": 300, "max_delay_ms": 300}).status == 200
    receipt = leader("PUT", "/kv/early?w=0", {"value": 1}).json()
    assert (receipt["outcome"], receipt["committed"], receipt["acks"]) == ("accepted", False, 0)
    assert receipt["message"] == "Write accepted, not committed yet"
    version = receipt["version"]
    assert leader("GET", f"/writes/{version}").json()["state"] == "pending"
    wait_until(lambda: leader("GET", f"/writes/{version}").json()["state"] == "committed")


def test_too_few_followers_are_known_at_once(own_cluster: Cluster) -> None:
    leader = own_cluster.leader
    own_cluster.host.stop(own_cluster.followers[0])
    wait_until(lambda: leader("PUT", "/kv/a?timeout_ms=1000", {"value": 1}).status == 503)
    before = leader.last_version
    started_s = time.monotonic()
    answer = leader("PUT", "/kv/a", {"value": 1})
    assert time.monotonic() - started_s < 1
    assert answer.status == 503
    problem = answer.json()
    assert (problem["outcome"], problem["required_quorum"], problem["key"]) == ("not_written", 2, "a")
    assert answer.headers["Retry-After"] == "1"
    assert leader.last_version == before
    assert leader("GET", "/health").status == 200


def test_refusals_name_the_quorum_in_force(cluster: Cluster) -> None:
    leader, follower = cluster.leader, cluster.followers[0]
    leader("PUT", "/kv/refused", {"value": 1})
    answers = [
        follower("PUT", "/kv/refused", {"value": 2}),
        leader("DELETE", "/kv/never-there"),
        leader("PUT", "/kv/refused", {"value": 2}, {"If-None-Match": "*"}),
    ]
    assert [answer.status for answer in answers] == [403, 404, 412]
    assert [(answer.json()["acks"], answer.json()["required_quorum"]) for answer in answers] == [(0, 2)] * 3


def test_a_stream_that_a_follower_cannot_serve_is_refused(cluster: Cluster) -> None:
    answer = cluster.followers[0]("GET", "/kv?read=committed", headers={"Accept": "application/x-ndjson"})
    assert (answer.status, answer.json()["leader"]) == (403, cluster.leader.node.leader_url())


def test_a_deadline_that_passes_leaves_the_outcome_unknown(own_cluster: Cluster) -> None:
    leader = own_cluster.leader
    assert leader("PATCH", "/config", {"min_delay_ms": 400, "max_delay_ms": 400}).status == 200
    answer = leader("PUT", "/kv/late?timeout_ms=50", {"value": 1})
    assert answer.status == 504
    problem = answer.json()
    assert (problem["outcome"], problem["required_quorum"]) == ("unknown", 2)
    version = problem["version"]
    wait_until(lambda: leader("GET", f"/writes/{version}").json()["state"] == "committed")
    assert leader("GET", "/kv/late").json()["version"] == version


def test_a_write_goes_on_when_its_client_leaves(own_cluster: Cluster) -> None:
    leader = own_cluster.leader
    assert leader("PATCH", "/config", {"min_delay_ms": 200, "max_delay_ms": 200}).status == 200
    before = leader.last_version
    head = b"PUT /kv/left HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 11\r\n\r\n"
    with socket.create_connection(("127.0.0.1", leader.door.port)) as raw:
        raw.sendall(head + b'{"value":1}')
        wait_until(lambda: leader.last_version > before)
    wait_until(lambda: leader("GET", "/kv/left").status == 200)


def test_a_stop_lets_writes_under_way_finish(own_cluster: Cluster) -> None:
    leader = own_cluster.leader
    assert leader("PATCH", "/config", {"min_delay_ms": 300, "max_delay_ms": 300}).status == 200
    before = leader.last_version
    answers: list[Reply] = []
    client = Client(leader.door.port)
    writing = threading.Thread(target=lambda: answers.append(client("PUT", "/kv/stop", {"value": 1})))
    writing.start()
    wait_until(lambda: leader.last_version > before)
    own_cluster.host.run(leader.door.stop())
    writing.join()
    assert [answer.status for answer in answers] == [200]
    assert answers[0].headers["Connection"] == "close"
    client.close()


def test_a_change_that_another_one_has_made_impossible_says_what_is_in_force(own_cluster: Cluster) -> None:
    leader = own_cluster.leader
    followers = [served.node.name for served in own_cluster.followers]
    assert leader("PATCH", "/config", {"max_delay_ms": 100, "cut": followers}).status == 200
    other_client = Client(leader.door.port)
    with ThreadPoolExecutor() as pool:
        # Two followers must have the entry that lowers the quorum, so it waits for the links.
        slow = pool.submit(other_client, "PATCH", "/config", {"write_quorum": 1, "min_delay_ms": 50})
        leadership = leader.node.replica.leadership
        assert leadership is not None
        wait_until(lambda: leadership.change is not None)
        assert leader("PATCH", "/config", {"max_delay_ms": 20, "cut": []}).status == 200
        reply = slow.result()
    other_client.close()
    assert reply.status == 409
    assert "the write quorum is in force" in reply.json()["detail"]
    assert reply.json()["outcome"] == "committed"
    in_force = leader("GET", "/config").json()
    assert (in_force["write_quorum"], in_force["min_delay_ms"], in_force["max_delay_ms"]) == (1, 0, 20)
