"""Every table of docs/theory.md, computed again: the page cannot say what the code does not."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from retinue.lab.experiments.expected_lag import Burst, ExpectedLag
from retinue.lab.inference import proportion_interval
from retinue.lab.theory import (
    Convergence,
    InOrderAcknowledgement,
    InOrderLinks,
    Law,
    OrderStatistic,
    missed_by_readers,
    stale_probability,
)

PAGE = Path(__file__).parents[2] / "docs" / "theory.md"

N = 5
QUORUMS = range(1, N + 1)
UNIFORM = Law("uniform", 0, 1000)

Rows = list[list[str]]


def tables() -> list[Rows]:
    """The tables of the page in their order: rows of cells, the header first."""
    text = re.sub(r"```math.*?```", "", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    found = re.findall(r"(?:^ *\|.*\|\n)+", text, re.MULTILINE)
    return [
        [
            [cell.strip() for cell in line.strip().strip("|").split("|")]
            for line in table.splitlines()
            if "---" not in line
        ]
        for table in found
    ]


def table(*, holding: str) -> Rows:
    """The rows, without the header, of the one table that has this text in its header or its first column."""
    matching = [rows for rows in tables() if holding in rows[0] or holding in [row[0] for row in rows]]
    assert len(matching) == 1, f"{len(matching)} tables hold {holding!r}"
    return matching[0][1:]


def rows(*cells: list[float], form: str) -> Rows:
    """Rows that begin with k = 1..n."""
    return [[str(k), *(format(cell, form) for cell in line)] for k, line in zip(QUORUMS, cells, strict=True)]


def test_the_page_has_no_other_tables() -> None:
    assert len(tables()) == 8


def test_latency() -> None:
    def line(latency: OrderStatistic) -> list[float]:
        deviation = latency.standard_deviation
        return [latency.mean, deviation, *(latency.quantile(p) for p in (0.5, 0.95, 0.99)), deviation / 10]

    expected = rows(*(line(OrderStatistic(UNIFORM, k, N)) for k in QUORUMS), form=".1f")
    assert table(holding="scatter of the mean of 100 writes") == expected


def test_latency_under_other_laws() -> None:
    laws = [
        Law("uniform", 50, 800),
        Law("uniform", 0.1, 1),
        Law("exponential", 0, 500),
        Law("lognormal", 0, 1000),
        Law("fixed", 0, 500),
    ]
    expected = [[law.describe(), *(f"{OrderStatistic(law, k, N).mean:.2f}" for k in QUORUMS)] for law in laws]
    assert table(holding="law") == expected


def test_staleness() -> None:
    times = (0.0, 100.0, 250.0, 500.0, 750.0, 1000.0)
    expected = rows(*([stale_probability(UNIFORM, k, N, t) for t in times] for k in QUORUMS), form=".3f")
    assert table(holding="1000 ms") == expected


def test_several_readers() -> None:
    expected = rows(*([missed_by_readers(k, N, readers) for readers in QUORUMS] for k in QUORUMS), form=".3f")
    assert table(holding="R = 1") == expected


def test_convergence() -> None:
    def line(convergence: Convergence) -> list[float]:
        return [convergence.mean, *(convergence.quantile(p) for p in (0.5, 0.95, 0.99))]

    found = [rows for rows in tables() if rows[0] == ["k", "mean", "p50", "p95", "p99"]]
    assert [found[0][1:]] == [rows(*(line(Convergence(UNIFORM, k, N)) for k in QUORUMS), form=".1f")]


def test_order() -> None:
    def line(k: int) -> list[float]:
        answers = [InOrderAcknowledgement(UNIFORM, k, N, rate).mean for rate in (10, 100, 1000)]
        links = [InOrderLinks(UNIFORM, k, N, rate).mean for rate in (10, 100, 1000)]
        return [OrderStatistic(UNIFORM, k, N).mean, *answers, *links]

    assert table(holding="independent") == rows(*(line(k) for k in QUORUMS), form=".0f")


def test_overtaking() -> None:
    # A copy arrives more than s after that of a later write: staleness with two followers, of which one is waited for.
    gaps = (0.0, 100.0, 250.0, 500.0, 750.0)
    computed = [stale_probability(UNIFORM, 1, 2, gap) for gap in gaps]
    assert computed == pytest.approx([(1 - gap / 1000) ** 2 / 2 for gap in gaps])
    assert table(holding="overtaken") == [["overtaken", *(f"{share:.3f}" for share in computed)]]


def test_expected_lag() -> None:
    key_by_key = tuple(f"key{write // 10}" for write in range(100))
    in_turns = tuple(f"key{write % 10}" for write in range(100))
    for (name, *cells), keys in zip(table(holding="order of the keys"), (key_by_key, in_turns), strict=True):
        assert name == {key_by_key: "key by key", in_turns: "in turns"}[keys]
        for quorum, cell in zip(QUORUMS, cells, strict=True):
            burst = Burst(keys=keys, concurrency=10, quorum=quorum, followers=N)
            behind = ExpectedLag(UNIFORM, burst, draws=3000).cells_behind([0.0])[0]
            # The count of one burst has a standard deviation below 5.5, so the mean of 3000 has one of 0.1 at most.
            assert behind == pytest.approx(float(cell), abs=0.3)


def test_numbers_in_the_text() -> None:
    text = " ".join(PAGE.read_text(encoding="utf-8").split())
    high = 100 * proportion_interval(0, 10_000).high
    assert f"0 stale reads out of 10,000: at most {high:.2f} %" in text
    # The limit of the test at 1 % over the steepest slope of the distribution function.
    shift_ms = 0.163 / float(OrderStatistic(UNIFORM, 3, N).pdf(np.linspace(1, 999, 999)).max())
    assert f"a shift of some {round(shift_ms, -1):.0f} ms" in text
