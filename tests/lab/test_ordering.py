from __future__ import annotations

import dataclasses

import pytest

from retinue.errors import SettingsError
from retinue.lab.experiments.ordering import Ordering, OrderingSample, OrderingSettings
from retinue.lab.experiments.ordering_summary import ACKNOWLEDGED, INDEPENDENT, LINKS, acknowledged_in_order, measured
from retinue.lab.experiments.registry import load
from retinue.lab.reports.figures import png
from retinue.lab.targets.contract import NetworkConditions, Target
from tests.lab.experimenting import run_simulated
from tests.lab.simulating import on_target

SETTINGS = OrderingSettings(rates=(20, 200), duration_s=4.0)


@pytest.fixture(scope="module")
def samples() -> list[OrderingSample]:
    return run_simulated(Ordering(), SETTINGS)


def write(sent_ms: float, latency_ms: float, version: int = 0) -> OrderingSample:
    return OrderingSample(
        in_order=False, rate_per_s=10.0, sent_ms=sent_ms, latency_ms=latency_ms, version=version, acknowledged=True
    )


def test_all_three_kinds_follow_theory(samples: list[OrderingSample]) -> None:
    table = load("ordering").summary(SETTINGS, samples).tables[0]
    assert [(row[0], row[1]) for row in table.rows] == [
        (kind, rate) for kind in (INDEPENDENT, ACKNOWLEDGED, LINKS) for rate in (20.0, 200.0)
    ]
    for row in table.rows:
        assert row[3] == pytest.approx(row[4], rel=0.12)


def test_order_costs_more_the_more_is_written(samples: list[OrderingSample]) -> None:
    means = {(seen.kind, seen.rate_per_s): seen.mean_ms for seen in measured(samples)}
    assert means[LINKS, 200] > means[ACKNOWLEDGED, 200] > means[INDEPENDENT, 200] + 100
    assert means[LINKS, 200] > means[LINKS, 20] + 50


def test_a_thousand_writes_a_second_are_not_held_back() -> None:
    settings = OrderingSettings(rates=(1000,), duration_s=2.0)
    found = {seen.kind: seen.mean_ms for seen in measured(run_simulated(Ordering(), settings))}
    assert found[INDEPENDENT] == pytest.approx(500, rel=0.1)
    assert found[LINKS] == pytest.approx(963, rel=0.05)


def test_a_write_is_acknowledged_when_all_earlier_ones_are() -> None:
    assert acknowledged_in_order([write(0, 100), write(10, 20), write(150, 5)]) == [100, 90, 5]
    by_version = [write(10, 100, version=1), write(0, 5, version=2)]
    assert acknowledged_in_order(by_version) == [100, 110]


def test_failures_are_left_out_and_told(samples: list[OrderingSample]) -> None:
    failed = OrderingSample(in_order=True, rate_per_s=20.0, sent_ms=0.0, latency_ms=9e9, version=0, acknowledged=False)
    summary = Ordering().summary(SETTINGS, [*samples, failed])
    assert summary.key_figures == Ordering().summary(SETTINGS, samples).key_figures
    assert any("1 writes were not acknowledged" in note for note in summary.tables[0].notes)


def test_the_network_is_as_before_afterwards() -> None:
    before = NetworkConditions(max_ms=7.0)

    async def scenario(target: Target) -> NetworkConditions | None:
        brief = dataclasses.replace(SETTINGS, rates=(1000,), duration_s=0.1, max_delay_ms=10.0)
        events = Ordering().run(target, brief)
        async for event in events:
            if isinstance(event, OrderingSample) and event.in_order:
                break
        await events.aclose()  # type: ignore[attr-defined]
        return target.network

    assert on_target(scenario, before) == before


def test_pictures_of_whole_and_of_broken_runs(samples: list[OrderingSample]) -> None:
    for seen in (samples, samples[:1]):
        [picture] = Ordering().figures(SETTINGS, seen)
        assert png(picture.figure).startswith(b"\x89PNG")


def test_low_rates_last_until_there_are_enough_writes() -> None:
    assert OrderingSettings(duration_s=8.0).writes(10) == 200
    assert OrderingSettings(duration_s=8.0).writes(100) == 800


@pytest.mark.parametrize(
    "wrong", [{"quorum": 0}, {"quorum": 6}, {"rates": ()}, {"rates": (0.0,)}, {"duration_s": 0.0}, {"duration_s": 1e5}]
)
def test_settings_that_cannot_be_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(SettingsError, match=f"--{next(iter(wrong)).replace('_', '-')}="):
        OrderingSettings(**wrong)  # type: ignore[arg-type]
