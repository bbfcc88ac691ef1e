from __future__ import annotations

import pytest

from retinue.errors import SettingsError
from retinue.lab.experiments.registry import load
from retinue.lab.experiments.staleness import ReadSample, Staleness, StalenessSettings
from retinue.lab.reports.figures import png
from tests.lab.experimenting import run_simulated

SETTINGS = StalenessSettings(writes=200, writes_per_s=100.0, session_reads=3, at_ms=(0, 200, 500, 1000))


@pytest.fixture(scope="module")
def samples() -> list[ReadSample]:
    return run_simulated(Staleness(), SETTINGS)


def fraction(samples: list[ReadSample], quorum: int, due_ms: float) -> float:
    chosen = [s for s in samples if not s.session and (s.quorum, s.due_ms) == (quorum, due_ms)]
    return sum(sample.stale for sample in chosen) / len(chosen)


def read(
    *, quorum: int = 1, write: int = 1, stale: bool = False, session: bool = False, **fields: object
) -> ReadSample:
    known = {"node": "follower1", "due_ms": 0.0, "begun_ms": 1.0, "ended_ms": 3.0, "answered": True} | fields
    return ReadSample(quorum=quorum, write=write, stale=stale, session=session, **known)  # type: ignore[arg-type]


def test_the_probability_of_a_stale_read_follows_theory(samples: list[ReadSample]) -> None:
    assert fraction(samples, 1, 0) == pytest.approx(0.8, abs=0.01)
    assert fraction(samples, 3, 0) == pytest.approx(0.4, abs=0.01)
    assert fraction(samples, 1, 500) == pytest.approx(0.306, abs=0.11)
    assert fraction(samples, 3, 500) == pytest.approx(0.044, abs=0.05)
    assert fraction(samples, 1, 1000) == 0
    assert not any(sample.stale for sample in samples if sample.quorum == 5)


def test_the_report_agrees_with_theory(samples: list[ReadSample]) -> None:
    summary = load("staleness").summary(SETTINGS, samples)
    text = " ".join(summary.reading)
    assert text.count("theory is right") == 3
    assert "theory is wrong" not in text
    assert summary.violations == []


def test_no_session_read_is_stale(samples: list[ReadSample]) -> None:
    reads = [sample for sample in samples if sample.session]
    assert len(reads) == 3 * SETTINGS.writes * SETTINGS.session_reads
    assert all(sample.answered and not sample.stale for sample in reads)


def test_several_followers_miss_a_write_less_often(samples: list[ReadSample]) -> None:
    table = Staleness().summary(SETTINGS, samples).tables[1]
    assert [row[0] for row in table.rows] == [1, 2, 3, 4, 5]
    for row in table.rows:
        measured, theory = row[1::2], row[2::2]
        assert measured == pytest.approx(theory, abs=1.5)


def test_a_stale_session_read_is_a_violation() -> None:
    seen = [read(session=True), read(session=True, write=2, stale=True, node="follower4"), read()]
    summary = Staleness().summary(SETTINGS, seen)
    [violation] = summary.violations
    assert violation.startswith("1 of 2 reads")
    assert "follower4" in violation
    assert any("broken" in paragraph for paragraph in summary.reading)


def test_a_server_that_is_further_behind_than_its_delays_is_noticed() -> None:
    late = [
        read(write=number, stale=number % 10 != 0, due_ms=900.0, begun_ms=900.0, ended_ms=901.0)
        for number in range(500)
    ]
    summary = Staleness().summary(SETTINGS, [*late, *(read(write=n, node=f"follower{n}") for n in range(1, 6))])
    assert any("theory is wrong" in paragraph for paragraph in summary.reading)


def test_reads_without_an_answer_are_counted_apart() -> None:
    summary = Staleness().summary(SETTINGS, [read(), read(answered=False, write=2)])
    assert any("1 reads had no answer" in paragraph for paragraph in summary.reading)
    assert summary.tables[0].rows[0][1] == 0.0


def test_a_server_without_sessions_is_measured_all_the_same() -> None:
    summary = Staleness().summary(SETTINGS, [read(stale=True), read(node="follower2")])
    assert len(summary.tables) == 2
    assert any("Nothing was read with a session token" in paragraph for paragraph in summary.reading)


def test_nothing_but_session_reads_is_summarized_too() -> None:
    summary = Staleness().summary(SETTINGS, [read(session=True)])
    assert summary.violations == []
    assert all(png(picture.figure) for picture in Staleness().figures(SETTINGS, [read(session=True)]))


def test_pictures(samples: list[ReadSample]) -> None:
    pictures = Staleness().figures(SETTINGS, samples)
    assert [picture.name for picture in pictures] == ["staleness-over-time", "staleness-over-readers"]
    assert all(png(picture.figure).startswith(b"\x89PNG") for picture in pictures)


def test_the_usual_session_reads_are_enough() -> None:
    usual = StalenessSettings()
    assert usual.writes * usual.session_reads * len(usual.chosen_quorums) >= 10_000
    assert usual.chosen_quorums == (1, 3, 5)
    assert StalenessSettings(followers=3).chosen_quorums == (1, 2, 3)


@pytest.mark.parametrize("wrong", [{"writes": 0}, {"at_ms": ()}, {"at_ms": (-1.0,)}, {"quorums": (9,)}])
def test_settings_that_cannot_be_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(SettingsError, match=f"--{next(iter(wrong)).replace('_', '-')}="):
        StalenessSettings(**wrong)  # type: ignore[arg-type]
