"""The experiment `quorum` on the simulated target, and what it says of given samples."""

from __future__ import annotations

import dataclasses
import itertools
import struct
from collections.abc import Sequence
from contextlib import aclosing
from typing import Any

import msgspec
import numpy as np
import pytest

from retinue.errors import SettingsError
from retinue.lab.experiments.contract import Settings, Step
from retinue.lab.experiments.quorum import Quorum, QuorumSettings
from retinue.lab.experiments.quorum_sample import AT_ONCE, READ, REPLICA, SETTLED, WRITE, QuorumSample
from retinue.lab.experiments.quorum_statistics import by_quorum
from retinue.lab.presets import PRESETS
from retinue.lab.reports.figures import png
from retinue.lab.targets.opening import Where, open_target
from retinue.lab.targets.simulated import run_virtually

CLASSIC = QuorumSettings(**PRESETS["classic"].settings)


def measure(settings: QuorumSettings) -> tuple[list[Step], list[QuorumSample]]:
    steps: list[Step] = []
    samples: list[QuorumSample] = []

    async def run() -> None:
        async with open_target(Where(simulated=True), settings) as target:
            events: Any = Quorum().run(target, settings)
            async with aclosing(events):
                async for event in events:
                    (steps if isinstance(event, Step) else samples).append(event)

    run_virtually(run())
    return steps, samples


@pytest.fixture(scope="module")
def classic() -> tuple[list[Step], list[QuorumSample]]:
    return measure(CLASSIC)


def of_kind(samples: Sequence[QuorumSample], kind: str) -> list[QuorumSample]:
    return [sample for sample in samples if sample.kind == kind]


def write(quorum: int, latency_ms: float, **more: Any) -> QuorumSample:
    return QuorumSample(
        kind=WRITE, quorum=quorum, begun_ms=0.0, latency_ms=latency_ms, **({"outcome": "committed"} | more)
    )


def replica(quorum: int, moment: str, **more: Any) -> QuorumSample:
    return QuorumSample(
        kind=REPLICA, quorum=quorum, begun_ms=0.0, latency_ms=0.0, node="follower1", moment=moment, cells=10, **more
    )


def test_the_classic_preset_follows_the_law_and_ends_with_equal_replicas(
    classic: tuple[list[Step], list[QuorumSample]],
) -> None:
    _, samples = classic
    rows = by_quorum(CLASSIC, samples)
    assert [at.quorum for at in rows] == [1, 2, 3, 4, 5]
    for at in rows:
        assert len(at.writes) == 100
        assert at.theory is not None
        assert at.overheads_ms is not None
        assert np.all(at.overheads_ms > 0)
        assert np.median(at.overheads_ms) < 5
        assert abs(at.mean_ms - at.theory.mean) < 4 * at.theory.standard_deviation / 10
        assert at.fit is not None
        assert at.fit.p_value > 0.001
        assert len(at.settled) == 5
        assert all(sample.differing == 0 and sample.cells == 10 for sample in at.settled)
    behind = [sum(sample.differing for sample in at.at_once) for at in rows]
    assert behind[0] > behind[-1] == 0
    summary = Quorum().summary(CLASSIC, samples)
    assert summary.violations == []
    assert summary.key_figures["cells different after settling"] == 0
    latencies, cells = summary.tables[-2:]
    assert (latencies.rows[0][3], cells.rows[0][3]) == (209.5, 40)
    assert [row[1] for row in cells.rows] == behind
    assert "no divergence" in " ".join(summary.reading)


def test_acknowledgements_come_from_as_many_followers_as_the_quorum(
    classic: tuple[list[Step], list[QuorumSample]],
) -> None:
    for sample in of_kind(classic[1], WRITE):
        assert len(set(sample.acked_by)) == len(sample.acked_ms) >= sample.quorum
        assert sample.drawn_ms is not None
        assert sample.drawn_ms < sample.latency_ms


def test_progress_never_goes_back_and_ends_at_its_total(classic: tuple[list[Step], list[QuorumSample]]) -> None:
    steps = classic[0]
    assert all(before.done <= after.done for before, after in itertools.pairwise(steps))
    assert steps[-1].done == steps[-1].total
    assert {step.total for step in steps} == {steps[0].total}


def test_the_same_seed_gives_the_same_samples() -> None:
    settings = QuorumSettings(writes=20, quorums=(2,), seed=7)
    assert measure(settings) == measure(settings)
    assert measure(settings)[1] != measure(dataclasses.replace(settings, seed=8))[1]


def test_readers_read_at_every_node_while_the_others_write() -> None:
    settings = QuorumSettings(writes=40, quorums=(3,), readers=2, max_delay_ms=0.0, order="by-key")
    samples = measure(settings)[1]
    reads = of_kind(samples, READ)
    assert {read.node for read in reads} == {"leader", *(f"follower{number}" for number in range(1, 6))}
    assert all(read.outcome == "answered" for read in reads)
    last_write_ms = max(sample.begun_ms + sample.latency_ms for sample in of_kind(samples, WRITE))
    assert all(read.begun_ms <= last_write_ms for read in reads)
    summary = Quorum().summary(settings, samples)
    table = next(table for table in summary.tables if table.title == "Read latency")
    assert table.rows[0][1] == len(reads)
    assert "No delay was simulated" in summary.reading[0]
    assert [picture.name for picture in Quorum().figures(settings, samples)] == ["latency", "densities", "cumulative"]


def test_by_key_writes_all_of_one_key_before_the_next() -> None:
    puts = QuorumSettings(writes=6, keys=3, order="by-key", warm_up=2, value_bytes=50).puts()
    assert [put.key for put in puts] == ["key0"] * 4 + ["key1"] * 2 + ["key2"] * 2
    assert len({put.value for put in puts}) == 8
    assert {len(put.value) for put in puts} == {50}


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"quorums": (1, 6)}, "--quorums=1,6"),
        ({"quorums": (0,)}, "--quorums=0"),
        ({"quorums": (2, 2)}, "--quorums=2,2"),
        ({"writes": 0}, "--writes=0"),
        ({"concurrency": 0}, "--concurrency=0"),
        ({"order": "random"}, "--order=random"),
        ({"followers": 0}, "--followers=0"),
        ({"followers": 100}, "--followers=100"),
        ({"distribution": "cauchy"}, "--distribution=cauchy"),
        ({"min_delay_ms": 5.0, "max_delay_ms": 1.0}, "--min-delay-ms=5"),
    ],
)
def test_settings_that_cannot_be_are_refused_with_their_name(changes: dict[str, Any], part: str) -> None:
    with pytest.raises(SettingsError, match=part):
        QuorumSettings(**changes)


def test_a_quorum_above_the_followers_of_the_target_is_refused_before_anything_is_written() -> None:
    async def run() -> None:
        async with open_target(Where(simulated=True), Settings(followers=3)) as target:
            events: Any = Quorum().run(target, QuorumSettings(quorums=(5,)))
            with pytest.raises(SettingsError, match="--quorums=5"):
                await anext(events)
            assert await target.dump("leader") == {}

    run_virtually(run())


def test_replicas_that_stay_different_are_a_violation() -> None:
    settings = QuorumSettings(quorums=(1,))
    samples = [write(1, 100.0), replica(1, AT_ONCE, older=3)]
    diverged = [*samples, replica(1, SETTLED, other=2)]
    summary = Quorum().summary(settings, diverged)
    assert len(summary.violations) == 1
    assert "2 of them at follower1" in summary.violations[0]
    assert "divergence" in " ".join(summary.reading)
    assert summary.key_figures["cells different after settling"] == 2
    assert "had settled" in " ".join(Quorum().summary(settings, samples).reading)


def test_without_lag_and_with_equal_latencies_the_reading_says_so() -> None:
    settings = QuorumSettings(quorums=(1, 5), max_delay_ms=0.0)
    same = [sample for k in (1, 5) for sample in (write(k, 5.0), replica(k, AT_ONCE), replica(k, SETTLED))]
    reading = " ".join(Quorum().summary(settings, same).reading)
    assert "at 5: about as long." in reading
    assert "No cell of the followers was behind after the last acknowledgement, for quorum 1, 5." in reading


def test_failures_are_counted_by_outcome_and_do_not_count_as_latency() -> None:
    settings = QuorumSettings(quorums=(2,), max_delay_ms=100.0)
    samples = [write(2, 10.0), write(2, 30.0), write(2, 5000.0, outcome="unknown", detail="No answer in time.")]
    summary = Quorum().summary(settings, samples)
    assert summary.key_figures["mean latency at quorum 2 (ms)"] == 20
    assert summary.key_figures["success at quorum 2 (%)"] == pytest.approx(200 / 3)
    table = next(table for table in summary.tables if "not acknowledged" in table.title)
    assert table.rows == [[2, "unknown", 1, "No answer in time."]]


def test_published_means_are_those_of_the_quorums_that_were_measured() -> None:
    settings = dataclasses.replace(CLASSIC, quorums=(1, 5))
    summary = Quorum().summary(settings, [write(1, 170.0), write(5, 840.0)])
    assert "209.5 / 838.7 ms" in " ".join(summary.reading)


def test_nothing_but_failures_is_told_as_such() -> None:
    settings = QuorumSettings(quorums=(2,))
    samples = [write(2, 10.0, outcome="refused", detail="No quorum.")]
    summary = Quorum().summary(settings, samples)
    assert "No write was acknowledged" in summary.reading[0]
    assert summary.tables[-1].rows == [[2, "refused", 1, "No quorum."]]
    assert Quorum().figures(settings, samples) == []


def test_without_told_delays_the_overhead_is_taken_from_theory() -> None:
    settings = QuorumSettings(quorums=(3,), writes=20)
    samples = [write(3, 450.0 + 10 * number) for number in range(20)]
    summary = Quorum().summary(settings, samples)
    assert summary.key_figures["mean overhead at quorum 3 (ms)"] == pytest.approx(45)
    assert "cannot be separated" in " ".join(summary.reading)
    assert not any("published" in table.title for table in summary.tables)


def test_latency_that_delays_cannot_explain_is_told_with_its_likely_cause() -> None:
    settings = QuorumSettings(quorums=(1,), writes=20)
    slow = [write(1, 1240.0 + number) for number in range(20)]
    assert "threads of a pool" in " ".join(Quorum().summary(settings, slow).reading)
    told = [msgspec.structs.replace(sample, drawn_ms=170.0) for sample in slow]
    assert "threads of a pool" not in " ".join(Quorum().summary(settings, told).reading)


def test_where_the_load_outweighs_the_delays_the_test_of_the_law_says_so() -> None:
    settings = QuorumSettings(quorums=(1,), max_delay_ms=1.0)
    samples = [write(1, 8.0 + number / 10, drawn_ms=number / 20) for number in range(20)]
    [fits] = [table for table in Quorum().summary(settings, samples).tables if "law" in table.title]
    assert "says nothing about the delays" in fits.notes[-1]
    spread = QuorumSettings(quorums=(1,), max_delay_ms=1000.0)
    [fits] = [table for table in Quorum().summary(spread, samples).tables if "law" in table.title]
    assert len(fits.notes) == 1


def test_pictures_are_sharp_pngs_also_of_a_run_that_ended_early(classic: tuple[list[Step], list[QuorumSample]]) -> None:
    for samples in (classic[1], classic[1][:3]):
        pictures = Quorum().figures(CLASSIC, samples)
        assert [picture.name for picture in pictures] == ["latency", "densities", "cumulative", "overhead"]
        for picture in pictures:
            content = png(picture.figure)
            assert content.startswith(b"\x89PNG")
            assert struct.unpack(">I", content[16:20])[0] >= 1200
            assert picture.caption.endswith(".")


def test_samples_survive_json(classic: tuple[list[Step], list[QuorumSample]]) -> None:
    samples = classic[1]
    assert msgspec.json.decode(msgspec.json.encode(samples), type=list[QuorumSample]) == samples
