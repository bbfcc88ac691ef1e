"""One follower as the leader sees it, against a set of versions."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from retinue.core.progress import Progress

acks = st.lists(
    st.tuples(st.lists(st.integers(1, 30), max_size=5), st.integers(0, 30), st.integers(0, 10)), max_size=20
)


@given(acks)
def test_acknowledged_versions_are_counted_once_and_never_forgotten(history: list[tuple[list[int], int, int]]) -> None:
    progress, held, reported = Progress("f"), set[int](), set[int]()
    for versions, contiguous, decided in history:
        news = progress.acknowledge(versions, contiguous, decided)
        fresh = {*versions, *range(1, contiguous + 1)} - held
        held |= fresh
        assert news == sorted(version for version in fresh if version > decided)
        assert not reported & set(news)
        reported |= set(news)
        assert {version for version in range(1, 31) if progress.holds(version)} == held
        assert progress.contiguous + 1 not in held
        assert all(version > progress.contiguous for version in progress.acked)
        assert progress.sent >= progress.contiguous


def test_a_lost_acknowledgement_is_made_up_by_the_next_contiguous_point() -> None:
    progress = Progress("f")
    assert progress.acknowledge([3], 0, 0) == [3]
    assert progress.acknowledge([], 4, 0) == [1, 2, 4]
    assert progress.acked == set()


def test_versions_that_nobody_waits_for_are_not_listed_one_by_one() -> None:
    progress = Progress("f")
    assert progress.acknowledge([], 1_000_000_000_000, 999_999_999_998) == [999_999_999_999, 1_000_000_000_000]


def test_a_link_that_comes_up_again_keeps_what_the_same_disk_has_acknowledged() -> None:
    progress = Progress("f")
    progress.restart("disk.1")
    progress.acknowledge([5], 3, 0)
    progress.voter = progress.promised = progress.live = progress.diverged = True
    progress.admit_at = 7
    progress.restart("disk.1")
    assert (progress.contiguous, progress.acked, progress.admit_at, progress.diverged) == (3, {5}, 7, True)
    assert progress.linked
    assert not progress.voter
    assert not progress.promised
    assert not progress.live


def test_another_disk_under_the_same_name_has_acknowledged_nothing() -> None:
    progress = Progress("f")
    progress.restart("disk.1")
    progress.acknowledge([5], 3, 0)
    progress.diverged, progress.admit_at = True, 7
    progress.restart("disk.2")
    assert (progress.contiguous, progress.acked, progress.admit_at, progress.diverged) == (0, set(), None, False)


def test_a_write_may_count_on_linked_voters_that_agree_only() -> None:
    progress = Progress("f")
    progress.linked = progress.voter = True
    assert progress.reachable
    progress.diverged = True
    assert not progress.reachable
    progress.diverged, progress.voter, progress.promised = False, False, True
    assert not progress.reachable
    progress.voter, progress.linked = True, False
    assert not progress.reachable


def test_a_follower_that_has_not_answered_its_seal_yet_is_expected_to_vote() -> None:
    progress = Progress("f")
    progress.restart("disk.1")
    assert progress.reachable
    progress.promised = True
    assert not progress.reachable
