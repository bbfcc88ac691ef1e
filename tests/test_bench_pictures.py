"""What the measurements of `bench/` make of figures: the nearest line, and the pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bench import pictures, scaling, table
from bench.delays import CASES, Measured
from bench.rounds import FAILED, MET, NOT_MET, SKIPPED, Outcome
from bench.scaling import Curve, Point


def curve(costs_us: dict[int, float]) -> Curve:
    return Curve("values", "byte", "size of a value (bytes)", [Point(*each, 1.0) for each in costs_us.items()])


def test_the_nearest_line_of_points_on_a_line_is_that_line() -> None:
    measured = curve({size: 120 + 0.05 * size for size in (100, 1_000, 10_000, 100_000)})
    assert measured.line() == pytest.approx((0.05, 120))
    assert measured.residuals() == pytest.approx([0, 0, 0, 0], abs=1e-9)
    assert measured.furthest == pytest.approx(0, abs=1e-9)
    assert measured.described() == "120 µs and 50 ns a byte"


def test_a_residual_is_the_share_of_its_cost_by_which_a_point_lies_above_the_line() -> None:
    measured = curve({1: 100.0, 2: 100.0, 3: 200.0, 4: 100.0, 5: 100.0})
    slope, intercept = measured.line()
    assert measured.residuals()[2] == pytest.approx((200 - (intercept + slope * 3)) / 200)
    assert measured.residuals()[2] > 0 > measured.residuals()[3]
    assert measured.furthest == pytest.approx(measured.residuals()[2])


def test_the_sizes_cover_what_the_goal_names() -> None:
    sizes = scaling.Sizes()
    assert [(each[0], each[-1]) for each in (sizes.keys, sizes.followers, sizes.value_bytes)] == [
        (1_000, 1_000_000),
        (1, 9),
        (100, 100_000),
    ]


OUTCOMES = [
    Outcome(number=1, what="writes", goal=">= 1.2x", verdict=NOT_MET, ratios=[0.6, 0.3, 0.9]),
    Outcome(number=9, what="p50", goal="<= 1.3x", verdict=MET, ratios=[0.65]),
    Outcome(number=10, what="excess", goal="<= 0.15 ms", verdict=NOT_MET, ours="0.300 ms"),
    Outcome(number=13, what="keys", goal="flat (<= 1.25x)", verdict=MET, ours="1.00x"),
    Outcome(number=3, what="Valkey", goal=">= 1.2x", verdict=SKIPPED, note="not to be had"),
    Outcome(number=5, what="PostgreSQL", goal=">= 1.3x", verdict=FAILED, ratios=[]),
]


def test_the_picture_of_goals_shows_the_share_of_each_that_was_reached() -> None:
    (axes,) = pictures.goals(OUTCOMES).axes
    points = {}
    for line in axes.lines:
        x, y = np.asarray(line.get_xdata(), dtype=float), np.asarray(line.get_ydata(), dtype=float)
        if line.get_marker() == "o" and len(x) == 1:
            points[OUTCOMES[int(y[0])].what] = (float(x[0]), line.get_markerfacecolor() != "white")
    assert points == {
        "writes": (pytest.approx(0.5), False),
        "p50": (pytest.approx(2.0), True),
        "excess": (pytest.approx(0.5), False),
        "keys": (pytest.approx(1.25), True),
    }
    assert axes.get_xscale() == "log"
    told = {text.get_text() for text in axes.texts}
    assert {"0.60x, wanted >= 1.2x", "skipped: wanted >= 1.2x", "failed: wanted >= 1.3x"} <= told


def test_pictures_are_written_where_they_are_wanted(tmp_path: Path) -> None:
    curves = [curve({1: 100.0, 5: 120.0, 9: 150.0}), curve({100: 100.0, 10_000: 500.0, 100_000: 5_000.0})]
    measured = [Measured(case, [0.02, 0.05, 0.3], [0.5, 0.0, 2.0], [0.6, 1.0, 4.0], 10.0) for case in CASES]
    for figure in (pictures.scaling(curves), pictures.delays(measured), pictures.goals(OUTCOMES)):
        file = tmp_path / "made" / "picture.png"
        pictures.write(figure, file)
        assert file.read_bytes().startswith(b"\x89PNG")
        assert all(axes.get_xlabel() for axes in figure.axes)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (table.main, ["--rounds", "0"]),
        (table.main, ["--seconds", "soon"]),
        (table.main, ["--goals", "14"]),
        (scaling.main, ["--keys", "10"]),
        (scaling.main, ["--seconds", "inf"]),
    ],
)
def test_what_is_not_possible_is_refused(command: object, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert callable(command)
    with pytest.raises(SystemExit) as ended:
        command(words)
    assert ended.value.code == 2
    assert words[0] in capsys.readouterr().err
