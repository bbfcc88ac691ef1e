"""Supplying followers: live, by range, by snapshot, again, and heartbeats."""

from __future__ import annotations

from retinue.core.messages import (
    Ack,
    Append,
    Diverged,
    Heartbeat,
    LinkFull,
    Paced,
    Received,
    Replicate,
    Seal,
    SendRange,
    SendSnapshot,
    Snapshot,
    Tick,
)
from retinue.core.progress import Progress
from retinue.core.replica import Limits
from tests.core.cluster import Cluster
from tests.core.parts import (
    F1,
    F2,
    F3,
    F4,
    F5,
    L,
    only,
    put,
    sent,
    write,
)


def progress_of(cluster: Cluster, name: str) -> Progress:
    leadership = cluster.leading()
    return leadership.progress[name]


def fill(cluster: Cluster, many: int, *, keys: int = 1000) -> None:
    first = cluster[L].log.last + 1
    for version in range(first, first + many):
        cluster.propose(write(version, f"k{version % keys}"))


def ranges(cluster: Cluster, to: str) -> list[tuple[int, int]]:
    """The ranges of versions that the leader has sent to a follower."""
    effects = [effect for name, effect in cluster.effects if name == L]
    return [(e.after, e.upto) for e in only(effects, SendRange) if e.to == to]


def test_a_live_follower_gets_each_new_entry_at_once_and_no_other_way() -> None:
    cluster = Cluster()
    fill(cluster, 5)
    cluster.advance(100)
    assert ranges(cluster, F1) == []
    assert progress_of(cluster, F1).live
    cluster.assert_converged()


def test_a_follower_that_was_away_catches_up_in_ranges_and_becomes_live() -> None:
    cluster = Cluster(limits=Limits(catch_up_batch=4))
    fill(cluster, 1)
    cluster.stop(F5)
    fill(cluster, 10)
    cluster.start(F5)
    cluster.run()
    assert ranges(cluster, F5) == [(1, 5), (5, 9), (9, 11)]
    assert progress_of(cluster, F5).live
    cluster.advance(100)
    cluster.assert_converged()


def test_the_next_range_waits_for_the_acknowledgement_of_the_one_before() -> None:
    cluster = Cluster(limits=Limits(catch_up_batch=4))
    cluster.stop(F5)
    fill(cluster, 10)
    cluster.hold_appends(F5)
    cluster.start(F5)
    cluster.run()
    fill(cluster, 1)
    assert ranges(cluster, F5) == [(0, 4)]
    assert not progress_of(cluster, F5).live
    cluster.release()
    assert ranges(cluster, F5)[1:] == [(4, 8), (8, 11)]


def test_a_follower_beyond_the_window_leaves_live_mode_and_the_others_do_not_notice() -> None:
    cluster = Cluster(limits=Limits(window=3))
    cluster.hold_appends(F5)
    fill(cluster, 5)
    assert not progress_of(cluster, F5).live
    assert all(progress_of(cluster, name).live for name in (F1, F2, F3, F4))
    assert all(cluster.result(token) for token in range(1, 6))
    cluster.release()
    cluster.advance(2000)
    cluster.advance(100)
    assert progress_of(cluster, F5).live
    cluster.assert_converged()


def test_a_lost_entry_is_sent_again_after_a_while() -> None:
    cluster = Cluster()
    cluster.hold_appends(F5)
    fill(cluster, 3)
    cluster.lose()
    cluster.advance(999)
    assert ranges(cluster, F5) == []
    cluster.advance(1)
    assert ranges(cluster, F5) == [(0, 3)]
    cluster.advance(100)
    cluster.assert_converged()


def test_the_clock_of_a_follower_that_had_everything_starts_when_it_is_sent_something() -> None:
    """Otherwise the first write after a pause would be sent again at once, and without its simulated delay."""
    cluster = Cluster()
    fill(cluster, 1)
    cluster.advance(5000)
    cluster.hold_appends(F5)
    fill(cluster, 1)
    cluster.advance(20)
    assert ranges(cluster, F5) == []
    cluster.advance(980)
    assert ranges(cluster, F5) == [(1, 2)]


def test_the_clock_goes_on_while_something_is_under_way() -> None:
    cluster = Cluster()
    cluster.hold_appends(F5)
    fill(cluster, 1)
    cluster.advance(600)
    fill(cluster, 1)
    cluster.advance(400)
    assert ranges(cluster, F5) == [(0, 2)]


def test_progress_below_resets_the_clock() -> None:
    cluster = Cluster()
    cluster.hold_appends(F5)
    fill(cluster, 2)
    cluster.advance(600)
    cluster.step(L, Received(F5, Ack(1, [1], 1, 0)))
    cluster.advance(600)
    assert ranges(cluster, F5) == []
    cluster.advance(400)
    assert ranges(cluster, F5) == [(1, 2)]


def test_a_slow_simulated_network_makes_the_leader_wait_longer() -> None:
    cluster = Cluster()
    cluster.step(L, Paced(3000.0))
    cluster.hold_appends(F5)
    fill(cluster, 1)
    cluster.advance(2999)
    assert ranges(cluster, F5) == []
    cluster.advance(1)
    assert ranges(cluster, F5) == [(0, 1)]


def test_what_is_sent_again_is_one_batch_at_a_time() -> None:
    cluster = Cluster(limits=Limits(catch_up_batch=2))
    cluster.hold_appends(F5)
    fill(cluster, 5)
    cluster.lose()
    cluster.hold_appends(F5)
    cluster.advance(1000)
    cluster.advance(1000)
    assert ranges(cluster, F5) == [(0, 2), (0, 2)]
    cluster.release()
    for _ in range(3):
        cluster.advance(1000)
    cluster.assert_converged()


def test_a_lost_range_is_sent_again() -> None:
    cluster = Cluster()
    cluster.stop(F5)
    fill(cluster, 3)
    cluster.hold_appends(F5)
    cluster.start(F5)
    cluster.run()
    cluster.lose()
    cluster.advance(1000)
    assert ranges(cluster, F5) == [(0, 3), (0, 3)]
    cluster.advance(100)
    cluster.assert_converged()


def test_a_queue_that_was_dropped_is_made_up_from_what_is_acknowledged() -> None:
    cluster = Cluster()
    cluster.hold_appends(F5)
    fill(cluster, 3)
    cluster.lose()
    cluster.step(L, LinkFull(F5))
    assert not progress_of(cluster, F5).live
    fill(cluster, 1)
    cluster.advance(1000)
    assert ranges(cluster, F5) == [(0, 4)]
    cluster.advance(100)
    cluster.assert_converged()


def test_a_full_link_means_nothing_to_a_follower() -> None:
    assert Cluster().step(F1, LinkFull(L)) == []


# --- snapshots ---


def compacting() -> Cluster:
    """The leader keeps no history below its trusted prefix."""
    return Cluster(limits=Limits(retention=2, compact_batch=3))


def test_a_follower_that_lacks_what_is_compacted_gets_a_snapshot_and_then_the_rest() -> None:
    cluster = compacting()
    cluster.stop(F5)
    fill(cluster, 12, keys=2)
    for _ in range(6):
        cluster.advance(1)
    assert cluster[L].log.floor == 10
    cluster.hold(lambda sender, to, message: isinstance(message, Snapshot))
    cluster.start(F5)
    cluster.run()
    assert progress_of(cluster, F5).snapshot
    fill(cluster, 2, keys=2)
    cluster.advance(2000)
    assert len([e for _, e in cluster.effects if isinstance(e, SendSnapshot)]) == 1, "it is given time"
    cluster.release()
    cluster.advance(100)
    assert not progress_of(cluster, F5).snapshot
    assert progress_of(cluster, F5).live
    assert ranges(cluster, F5) == [(12, 14)]
    cluster.assert_converged()
    assert dict(cluster[F5].scan()).keys() == {"k0", "k1"}


def test_a_lost_snapshot_is_sent_again() -> None:
    cluster = compacting()
    cluster.stop(F5)
    fill(cluster, 12, keys=2)
    for _ in range(6):
        cluster.advance(1)
    cluster.hold(lambda sender, to, message: isinstance(message, Snapshot))
    cluster.start(F5)
    cluster.run()
    cluster.lose()
    cluster.advance(59_999)
    assert cluster[F5].log.trusted == 0
    cluster.advance(1)
    cluster.advance(100)
    cluster.assert_converged()


def test_a_live_follower_that_fell_below_the_floor_gets_a_snapshot() -> None:
    cluster = compacting()
    cluster.hold_appends(F5)
    fill(cluster, 12, keys=2)
    cluster.lose()
    for _ in range(6):
        cluster.advance(1)
    assert progress_of(cluster, F5).live
    cluster.advance(1000)
    cluster.advance(100)
    cluster.assert_converged()
    assert ranges(cluster, F5) == []


def test_a_range_is_never_asked_of_what_the_same_tick_compacts() -> None:
    cluster = compacting()
    cluster.hold_appends(F5)
    fill(cluster, 12, keys=2)
    cluster.lose()
    cluster.advance(1000)
    assert ranges(cluster, F5) == []
    assert progress_of(cluster, F5).snapshot or cluster[F5].log.trusted == 12


def test_a_snapshot_brings_the_request_ids_above_the_floor() -> None:
    cluster = compacting()
    cluster.stop(F5)
    fill(cluster, 10, keys=2)
    cluster.propose(write(90, "k0", request_id="x"), write(91, "k0"))
    for _ in range(6):
        cluster.advance(1)
    cluster.start(F5)
    cluster.run()
    assert cluster[F5].log.trusted == 12
    assert cluster[F5].log.requests == cluster[L].log.requests
    assert cluster[F5].log.requests["x"][0] == 11


# --- seals and heartbeats ---


def test_a_promise_that_does_not_come_is_asked_for_again() -> None:
    cluster = Cluster()
    cluster.hold(lambda sender, to, message: isinstance(message, Seal))
    cluster.relink(L, F5)
    cluster.lose()
    cluster.advance(499)
    assert not progress_of(cluster, F5).promised
    cluster.advance(1)
    assert progress_of(cluster, F5).promised


def test_an_idle_follower_hears_a_heartbeat_from_time_to_time_with_commit_point_and_chain() -> None:
    cluster = Cluster()
    fill(cluster, 1)
    cluster.advance(100)
    chain = cluster[L].log.chain
    assert chain == cluster[F1].log.chain != 0
    cluster.now += 99
    assert cluster.step(L, Tick()) == []
    cluster.now += 1
    beats = sent(cluster.step(L, Tick()), Heartbeat)
    assert beats == [(follower, Heartbeat(1, 1, 1, chain)) for follower in (F1, F2, F3, F4, F5)]


def test_a_new_commit_point_is_told_at_the_next_tick() -> None:
    cluster = Cluster()
    cluster.advance(100)
    fill(cluster, 1)
    cluster.now += 1
    assert len(sent(cluster.step(L, Tick()), Heartbeat)) == 5


def test_whoever_cannot_be_reached_is_sent_nothing() -> None:
    cluster = Cluster()
    fill(cluster, 1)
    cluster.stop(F5)
    fill(cluster, 1)
    cluster.now += 5000
    effects = cluster.step(L, Tick())
    assert F5 not in [to for to, _ in sent(effects, Heartbeat)]
    live = [
        to
        for _, e in cluster.effects
        if isinstance(e, Replicate) and put(2, 1, "k2") in e.message.entries
        for to in e.to
    ]
    assert live == [F1, F2, F3, F4]


def test_a_follower_in_quarantine_hears_heartbeats_but_is_sent_no_entries() -> None:
    cluster = Cluster()
    cluster.step(L, Received(F5, Diverged(1, 0)))
    progress_of(cluster, F5).live = False
    cluster.hold(lambda sender, to, message: isinstance(message, Append) and to == F5)
    fill(cluster, 1)
    progress_of(cluster, F5).sent = 1
    cluster.advance(5000)
    assert cluster.held == []
    assert ranges(cluster, F5) == []
