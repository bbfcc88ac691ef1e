from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from retinue.errors import SettingsError
from retinue.lab.delay_law import Law
from retinue.lab.experiments.consistency import CellSample, Consistency, ConsistencySettings
from retinue.lab.experiments.expected_lag import Burst, ExpectedLag
from retinue.lab.experiments.registry import load
from retinue.lab.reports.figures import png
from retinue.lab.theory import Convergence
from tests.lab.experimenting import run_simulated

SMALL = ConsistencySettings(rounds=1, moments=4, keys=4, writes_per_key=3, max_delay_ms=200.0)
LAW = Law("uniform", 0.0, 1000.0)


@pytest.fixture(scope="module")
def samples() -> list[CellSample]:
    return run_simulated(Consistency(), SMALL)


def classic(quorum: int) -> Burst:
    return ConsistencySettings(max_delay_ms=1000.0).burst(quorum, 5)


def changed(sample: CellSample, **fields: Any) -> CellSample:
    return CellSample(**{name: getattr(sample, name) for name in CellSample.__struct_fields__} | fields)


def diverging(samples: list[CellSample], state: str, *, versioned: bool = True) -> list[CellSample]:
    """The same run, with one cell of quorum 2 that never heals."""
    return [
        changed(sample, state=state, versioned=versioned)
        if (sample.quorum, sample.node, sample.key) == (2, "follower3", "key2")
        else sample
        for sample in samples
    ]


def test_the_lag_of_the_classic_set_up_is_what_is_published_for_it() -> None:
    lags = [ExpectedLag(LAW, classic(quorum)).cells_behind([0.0])[0] for quorum in range(1, 6)]
    assert lags == pytest.approx([7.6, 3.05, 1.55, 0.77, 0.0], abs=0.35)


def test_a_single_write_converges_as_the_formula_says() -> None:
    for quorum in (1, 3):
        lag = ExpectedLag(LAW, Burst(keys=("k",), concurrency=1, quorum=quorum, followers=5), draws=20_000)
        assert lag.equal_ms == pytest.approx(Convergence(LAW, quorum, 5).mean, rel=0.02)
        assert lag.cells_behind([0.0, 1000.0]) == pytest.approx([5 - quorum, 0.0])


def test_deletes_begin_when_everything_else_is_answered() -> None:
    burst = Burst(keys=("a", "b", "a", "b"), concurrency=1, quorum=1, followers=2, deletes=2)
    fixed = ExpectedLag(Law("fixed", 0.0, 10.0), burst)
    assert fixed.equal_ms == pytest.approx(0.0)
    spread = ExpectedLag(LAW, burst, draws=20_000)
    assert 1.0 < spread.cells_behind([0.0])[0] < 2.0


def test_everything_sent_arrives_and_nothing_diverges(samples: list[CellSample]) -> None:
    summary = load("consistency").summary(SMALL, samples)
    assert summary.violations == []
    assert [summary.key_figures[f"cells unequal after settling, quorum {k}"] for k in range(1, 6)] == [0.0] * 5
    assert len(samples) == 5 * 5 * 4 * len(SMALL.moments_ms)
    assert any("lag" in paragraph and "not divergence" in paragraph for paragraph in summary.reading)


def test_a_quorum_of_all_followers_leaves_nothing_behind(samples: list[CellSample]) -> None:
    assert {sample.state for sample in samples if sample.quorum == 5} == {"equal"}
    assert {"missing", "older"} & {sample.state for sample in samples if sample.quorum == 1}


def test_every_follower_catches_up_step_by_step(samples: list[CellSample]) -> None:
    behind = [
        sum(sample.state != "equal" for sample in samples if sample.moment_ms == moment_ms)
        for moment_ms in SMALL.moments_ms
    ]
    assert behind == sorted(behind, reverse=True)
    assert behind[0] > behind[-1] == 0


@pytest.mark.parametrize(
    ("state", "cause"),
    [
        ("missing", "lost remaining sends"),
        ("extra", "resurrected deletes"),
        ("newer", "last arrival wins"),
        ("different", "last arrival"),
    ],
)
def test_what_does_not_heal_is_divergence_and_named(samples: list[CellSample], state: str, cause: str) -> None:
    summary = Consistency().summary(SMALL, diverging(samples, state))
    [violation] = summary.violations
    assert "quorum 2" in violation
    assert f"key2 at follower3 is {state}" in violation
    assert cause in violation
    assert any("divergence, not lag" in paragraph for paragraph in summary.reading)


def test_without_versions_the_table_says_what_cannot_be_told_apart(samples: list[CellSample]) -> None:
    summary = Consistency().summary(SMALL, diverging(samples, "different", versioned=False))
    assert any("tells no versions" in note for note in summary.tables[0].notes)


def test_a_run_that_was_stopped_while_settling_is_not_called_divergent(samples: list[CellSample]) -> None:
    early = [sample for sample in diverging(samples, "missing") if sample.moment_ms < 200 and sample.quorum <= 2]
    summary = Consistency().summary(SMALL, early)
    assert summary.violations == []
    assert any("no verdict" in paragraph for paragraph in summary.reading)
    assert summary.tables[0].rows[0][-2] is None


def test_deletes_are_followed_too() -> None:
    settings = dataclasses.replace(SMALL, deletes=2, quorums=(1,), order="mixed")
    found = run_simulated(Consistency(), settings)
    deleted = {sample.key for sample in found if sample.moment_ms == settings.settled_ms and sample.leader_version == 0}
    assert deleted == {"key3", "key4"}
    assert "extra" in {sample.state for sample in found if sample.moment_ms == 0}
    assert Consistency().summary(settings, found).violations == []


def test_pictures_of_whole_and_of_broken_runs(samples: list[CellSample]) -> None:
    whole = Consistency().figures(SMALL, samples)
    assert [picture.name for picture in whole] == ["consistency-grid", "consistency-over-time"]
    broken = Consistency().figures(SMALL, diverging(samples, "extra")[:30])
    assert all(png(picture.figure).startswith(b"\x89PNG") for picture in (*whole, *broken))


def test_without_delays_there_are_two_looks() -> None:
    settings = ConsistencySettings(max_delay_ms=0.0, quorums=(2,), rounds=1)
    assert settings.moments_ms == (0.0, settings.settled_ms)
    assert Consistency().summary(settings, run_simulated(Consistency(), settings)).violations == []


@pytest.mark.parametrize(
    "wrong",
    [{"quorums": (0,)}, {"quorums": (1, 1)}, {"quorums": (6,)}, {"keys": 0}, {"order": "random"}, {"deletes": 11}],
)
def test_settings_that_cannot_be_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(SettingsError, match=f"--{next(iter(wrong))}="):
        ConsistencySettings(**wrong)  # type: ignore[arg-type]
