from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path

import pytest

from retinue.cli import main
from retinue.errors import EXIT_DONE, SettingsError
from retinue.lab.experiments.contract import Step
from retinue.lab.experiments.registry import load
from retinue.lab.experiments.throughput import MAX_VIRTUAL_REQUESTS, LoadSample, Throughput, ThroughputSettings
from retinue.lab.reports.figures import png
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


def small(**more: object) -> ThroughputSettings:
    chosen = {"quorums": (1, 5), "clients": (1, 16), "duration_s": 0.1, "fractions": (0.5, 1.1)}
    return ThroughputSettings(**(chosen | more))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def simulated() -> list[LoadSample]:
    return run_simulated(Throughput(), small())


def test_on_virtual_time_concurrency_meets_delay(simulated: list[LoadSample]) -> None:
    samples = simulated
    assert [(s.mode, s.kind, s.quorum, s.clients) for s in samples] == [
        ("closed", "write", 1, 1),
        ("closed", "write", 1, 16),
        ("closed", "write", 5, 1),
        ("closed", "write", 5, 16),
        ("closed", "read", 0, 1),
        ("closed", "read", 0, 16),
        ("open", "write", 1, 0),
        ("open", "write", 1, 0),
    ]
    assert all(s.virtual and s.failures == 0 and 0 < s.count <= MAX_VIRTUAL_REQUESTS for s in samples)
    assert samples[1].count == MAX_VIRTUAL_REQUESTS, "fewer than the duration would allow"
    for sample in samples[:6]:
        in_flight = sample.per_second * sample.mean_ms / 1000
        assert in_flight == pytest.approx(sample.clients, rel=0.1), "Little's law"
    assert samples[3].mean_ms > samples[1].mean_ms, "a larger quorum waits longer"
    assert samples[7].p99_ms < 2 * samples[6].p99_ms, "nothing is ever busy, so there is no queue"


def test_on_virtual_time_the_same_seed_gives_the_same_samples() -> None:
    settings = small(quorums=(2,), clients=(2,), fractions=())
    first, again = run_simulated(Throughput(), settings), run_simulated(Throughput(), settings)
    assert first == again
    assert run_simulated(Throughput(), dataclasses.replace(settings, seed=2)) != first


def test_on_virtual_time_delays_count_and_the_duration_is_a_bound() -> None:
    settings = small(
        quorums=(5,), clients=(10,), duration_s=1.0, fractions=(), distribution="fixed", max_delay_ms=100.0
    )
    [writes, reads] = run_simulated(Throughput(), settings)
    assert writes.mean_ms == pytest.approx(101, abs=2)
    assert writes.per_second == pytest.approx(10 / 0.101, rel=0.05)
    assert 1.0 <= writes.duration_s < 1.2
    assert reads.mean_ms < 1


def test_the_reading_of_virtual_time_says_what_it_cannot_say(simulated: list[LoadSample]) -> None:
    summary = Throughput().summary(small(), simulated)
    text = " ".join(summary.reading)
    assert "not the rates of any machine" in text
    assert "Little's law: rate = clients / latency" in text
    assert "0.1 to 0.3 ms" in text
    assert "only a run without --simulated can tell" in text
    assert "load generator" not in text
    assert not any("CPU" in column for table in summary.tables for column in table.columns)
    assert all(len(row) == len(table.columns) for table in summary.tables for row in table.rows)
    for picture in Throughput().figures(small(), simulated):
        assert png(picture.figure).startswith(b"\x89PNG")
        assert "virtual time" in picture.caption


def test_the_command_runs_on_virtual_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    quick = ["--quorums=1", "--clients=1,4", "--duration-s=0.1", "--fractions=0.5", f"--out={tmp_path}"]
    assert main(["lab", "throughput", "--simulated", *quick]) == EXIT_DONE
    progress = capsys.readouterr().err
    assert "writes, 1 client, quorum 1\n" in progress
    assert "writes, 4 clients, quorum 1\n" in progress


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
