"""The pictures of the experiment `consistency`: the grid of cells, and cells behind over time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from retinue.lab.experiments.consistency_summary import EQUAL, Observed, expected, observed
from retinue.lab.experiments.contract import Picture
from retinue.lab.experiments.preparing import law_of
from retinue.lab.reports.figures import INK, QUIET, legend, look, new_axes, new_figure, title

if TYPE_CHECKING:
    from retinue.lab.experiments.consistency import CellSample, ConsistencySettings

MAX_KEYS_SHOWN = 24


class _Cell(NamedTuple):
    """How a cell of the grid looks: the fill, the mark on it, and the colour of the mark."""

    fill: str
    mark: str
    ink: str


_LOOKS = {
    EQUAL: _Cell("#f3f3f3", "", INK),
    "missing": _Cell("#0072B2", "x", "white"),
    "older": _Cell("#E69F00", "_", INK),
    "newer": _Cell("#009E73", "+", INK),
    "different": _Cell("#D55E00", "D", "white"),
    "extra": _Cell("#CC79A7", "*", INK),
}


def pictures(settings: ConsistencySettings, samples: Sequence[CellSample]) -> list[Picture]:
    """The pictures of these samples."""
    quorums = observed(settings, samples)
    return [_grid(quorums), *([_over_time(settings, quorums)] if len(settings.moments_ms) > 2 else [])]


def _grid(quorums: list[Observed]) -> Picture:
    keys = _keys_shown(quorums)
    nodes = max((seen.nodes for seen in quorums), key=len)
    height = len(quorums) * (0.19 * len(nodes) + 0.35) + 1.0
    halfway_ms = _halfway_ms(quorums)
    figure = new_figure(max(8.0, 3 * (0.22 * len(keys)) + 2.2), height)
    states: set[str] = set()
    for row, seen in enumerate(quorums):
        shown = _burst_shown(seen)
        for column, (moment_ms, when) in enumerate(_moments(seen, shown, halfway_ms)):
            axes = figure.add_subplot(len(quorums), 3, row * 3 + column + 1)
            cells = seen.cells(moment_ms, shown)
            states |= {cell.state for cell in cells}
            _draw_cells(axes, cells, keys, nodes)
            differing = len(seen.unequal(moment_ms, shown))
            axes.set_title(f"{differing} of {len(cells)} differ", fontsize=9, color=INK, pad=3)
            if row == 0:
                axes.annotate(
                    when, (0.5, 1), (0, 18), "axes fraction", "offset points", ha="center", fontweight="bold", color=INK
                )
            axes.tick_params(length=0, labelsize=7.5, labelcolor=QUIET, labelleft=column == 0)
            if column == 0:
                axes.set_ylabel(f"quorum {seen.quorum}", fontsize=10.5, color=INK, fontweight="bold")
            if row == len(quorums) - 1:
                axes.set_xlabel("keys", fontsize=9.5, color=INK)
    legend_states = [EQUAL, *(state for state in _LOOKS if state in states - {EQUAL})]
    figure.legend(
        handles=[_handle(state) for state in legend_states],
        loc="outside lower center",
        ncols=len(legend_states),
        frameon=False,
    )
    return Picture(
        "consistency-grid",
        "Every key at every follower compared with the leader, in one burst of each quorum: right after the last "
        "acknowledgement, when half of the differences had "
        "healed (or should have), and after settling.",
        figure,
    )


def _keys_shown(quorums: list[Observed]) -> list[str]:
    """All keys, or those that differed most often where they are too many to be drawn."""
    keys = list(quorums[0].keys)
    unequal = [cell.key for seen in quorums for cell in seen.unequal(0.0, _burst_shown(seen))]
    often = sorted(keys, key=unequal.count, reverse=True)[:MAX_KEYS_SHOWN]
    return [key for key in keys if key in often]


def _halfway_ms(quorums: list[Observed]) -> float:
    """The first moment at which no more than half as many cells differ as at first; without one, the middle one."""
    at_first = sum(seen.behind(0.0) for seen in quorums)
    moments = [ms for ms in quorums[0].moments_ms if ms > 0]
    return next(
        (ms for ms in moments if sum(seen.behind(ms) for seen in quorums) <= at_first / 2),
        moments[len(moments) // 2 - 1],
    )


def _burst_shown(seen: Observed) -> int:
    """The burst with the most that did not heal; the first one where all is well."""
    return max(seen.rounds, key=lambda number: len(seen.unequal(seen.last_ms(number), number)))


def _moments(seen: Observed, number: int, halfway_ms: float) -> list[tuple[float, str]]:
    chosen = {0.0: "+0 s, last acknowledgement", halfway_ms: f"+{halfway_ms / 1000:g} s, halfway"}
    return list((chosen | {seen.last_ms(number): "after settling"}).items())


def _draw_cells(axes: Axes, cells: Sequence[CellSample], keys: list[str], nodes: Sequence[str]) -> None:
    marks: dict[str, list[tuple[int, int]]] = {}
    for cell in cells:
        if cell.key not in keys:
            continue
        x, y = keys.index(cell.key), nodes.index(cell.node)
        axes.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor=_LOOKS[cell.state].fill, edgecolor="white"))
        marks.setdefault(cell.state, []).append((x, y))
    for state, places in marks.items():
        style = _LOOKS[state]
        if style.mark:
            across, down = zip(*places, strict=True)
            axes.scatter(across, down, marker=style.mark, s=22, color=style.ink, linewidths=1.4)
    axes.set_xlim(-0.5, len(keys) - 0.5)
    axes.set_ylim(len(nodes) - 0.5, -0.5)
    axes.set_xticks([])
    axes.set_yticks(range(len(nodes)), nodes)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _handle(state: str) -> Line2D:
    style = _LOOKS[state]
    return Line2D(
        [],
        [],
        linestyle="none",
        marker="s",
        markersize=11,
        markerfacecolor=style.fill,
        markeredgecolor="#bbbbbb",
        label=f"{state} ({_MARK_NAMES[state]})" if state in _MARK_NAMES else state,
    )


_MARK_NAMES = {"missing": "x", "older": "-", "newer": "+", "different": "diamond", "extra": "star"}


def _over_time(settings: ConsistencySettings, quorums: list[Observed]) -> Picture:
    figure = new_figure(8.0, 4.8)
    axes = new_axes(figure, "time after the last acknowledgement (ms)", "cells behind, mean per burst")
    end_ms = settings.moments_ms[-2]
    times = np.linspace(0, end_ms, 200)
    for number, seen in enumerate(quorums):
        style = look(number)
        moments = [ms for ms in seen.moments_ms if ms <= end_ms]
        axes.plot(
            times, expected(settings, seen).cells_behind(times), color=style.colour, linestyle=style.dash, linewidth=1.4
        )
        axes.plot(
            moments,
            [seen.behind(ms) for ms in moments],
            color=style.colour,
            marker=style.marker,
            markersize=6.5,
            markeredgecolor="white",
            linestyle="none",
            clip_on=False,
        )
    handles = [
        Line2D([], [], color=style.colour, marker=style.marker, linestyle=style.dash, label=f"quorum {seen.quorum}")
        for seen, style in ((seen, look(number)) for number, seen in enumerate(quorums))
    ]
    legend(axes, handles=handles, title="points measured, lines expected", alignment="left")
    axes.set_xlim(0, end_ms)
    axes.set_ylim(bottom=0)
    title(axes, f"How fast the followers catch up, {law_of(settings).describe()}")
    bursts = settings.rounds
    return Picture(
        "consistency-over-time",
        f"Cells (key x follower) that differ from the leader after the last acknowledgement, mean of {bursts} "
        f"burst{'s' if bursts > 1 else ''} per quorum, and what simulating such bursts predicts. "
        "With few bursts the points scatter.",
        figure,
    )
