from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from retinue.errors import SettingsError
from retinue.lab.experiments.contract import Step
from retinue.lab.experiments.registry import load
from retinue.lab.experiments.throughput import LoadSample, Throughput, ThroughputSettings
from retinue.lab.reports.figures import png
from retinue.lab.targets.contract import Unsuitable
from retinue.lab.targets.opening import Where, open_target
from tests.lab.experimenting import run_simulated

SETTINGS = ThroughputSettings()


def measurement(**fields: object) -> LoadSample:
    known = {
        "mode": "closed",
        "kind": "write",
        "quorum": 3,
        "clients": 64,
        "rate_per_s": 0.0,
        "duration_s": 2.0,
        "count": 4000,
        "failures": 0,
        "mean_ms": 10.0,
        "p50_ms": 9.0,
        "p95_ms": 15.0,
        "p99_ms": 20.0,
        "max_ms": 30.0,
        "client_cpu": 0.3,
    }
    return LoadSample(**(known | fields))  # type: ignore[arg-type]


SAMPLES = [
    measurement(quorum=1, clients=1, count=1000),
    measurement(quorum=1),
    measurement(clients=1, count=900),
    measurement(count=3900),
    measurement(quorum=5, count=3800, failures=2),
    measurement(kind="read", quorum=0, count=9000),
    measurement(mode="open", clients=0, rate_per_s=975.0, count=1950),
    measurement(mode="open", clients=0, rate_per_s=2145.0, count=3000, p99_ms=900.0),
]


def test_it_refuses_virtual_time() -> None:
    with pytest.raises(Unsuitable, match="simulator"):
        run_simulated(Throughput(), SETTINGS)


def test_a_real_cluster_is_measured(tmp_path: Path) -> None:
    settings = ThroughputSettings(
        followers=2, memory=True, quorums=(2,), clients=(1, 8), duration_s=0.2, fractions=(0.3,)
    )

    async def main() -> list[LoadSample]:
        found = []
        async with open_target(Where(data_parent=tmp_path), settings) as target:
            async for event in Throughput().run(target, settings):
                if not isinstance(event, Step):
                    assert isinstance(event, LoadSample)
                    found.append(event)
        return found

    samples = asyncio.run(main())
    assert [(s.mode, s.kind, s.quorum, s.clients) for s in samples] == [
        ("closed", "write", 2, 1),
        ("closed", "write", 2, 8),
        ("closed", "read", 0, 1),
        ("closed", "read", 0, 8),
        ("open", "write", 2, 0),
    ]
    assert all(sample.count > 0 and sample.failures == 0 for sample in samples)
    assert all(0 < s.p50_ms <= s.p95_ms <= s.p99_ms <= s.max_ms for s in samples)
    assert samples[-1].rate_per_s == pytest.approx(0.3 * max(s.per_second for s in samples[:2]), rel=0.01)


def test_the_summary_has_the_highest_rates_and_the_queue() -> None:
    summary = load("throughput").summary(SETTINGS, SAMPLES)
    assert summary.key_figures["highest rate, writes, quorum 1 (1/s)"] == 2000
    assert summary.key_figures["highest rate, reads (1/s)"] == 4500
    opened = summary.tables[1]
    assert [row[1] for row in opened.rows] == pytest.approx([50.0, 110.0])
    text = " ".join(summary.reading)
    assert "2 requests failed" in text
    assert "-5 %" in text
    assert "was not the limit" in text


def test_a_busy_load_generator_is_told() -> None:
    summary = Throughput().summary(SETTINGS, [measurement(client_cpu=0.95)])
    assert any("probably the limit" in paragraph for paragraph in summary.reading)
    assert any("Only one write quorum" in paragraph for paragraph in summary.reading)


def test_a_large_loss_is_not_explained_away() -> None:
    summary = Throughput().summary(SETTINGS, [measurement(quorum=1), measurement(quorum=5, count=2000)])
    assert any("-50 %" in paragraph and "repeat the measurement" in paragraph for paragraph in summary.reading)


def test_pictures_of_whole_and_of_broken_runs() -> None:
    names = [picture.name for picture in Throughput().figures(SETTINGS, SAMPLES)]
    assert names == ["throughput-over-clients", "throughput-over-rate"]
    assert Throughput().figures(SETTINGS, [measurement(count=0, p50_ms=0.0, p99_ms=0.0)]) == []
    for samples in (SAMPLES[:1], SAMPLES[-1:]):
        for picture in Throughput().figures(SETTINGS, samples):
            assert png(picture.figure).startswith(b"\x89PNG")


@pytest.mark.parametrize("wrong", [{"clients": ()}, {"clients": (0,)}, {"fractions": (0.0,)}, {"duration_s": 0.0}])
def test_settings_that_cannot_be_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(SettingsError, match=f"--{next(iter(wrong)).replace('_', '-')}="):
        ThroughputSettings(**wrong)  # type: ignore[arg-type]
