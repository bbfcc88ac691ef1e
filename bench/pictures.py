"""The pictures of `bench/`: goals against what was measured, lateness of simulated delays, and what growth costs."""

from __future__ import annotations

import re
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from bench.rounds import MET, NOT_MET, Outcome
from retinue.lab.reports.figures import (
    GRID,
    INK,
    QUIET,
    legend,
    look,
    new_axes,
    new_figure,
    plain_numbers,
    png,
    theory_line,
    title,
)

if TYPE_CHECKING:
    from bench.delays import Measured
    from bench.scaling import Curve

SMALLEST_MS = 0.01


def write(figure: Figure, file: Path) -> None:
    """Write a picture as PNG, and make its folder."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(png(figure))


# --- goals ---


def goals(outcomes: Sequence[Outcome]) -> Figure:
    """One row a goal: how much of what is wanted was reached, 1 being exactly that; more is better in every row.

    For a goal of the kind "at least" this is the ratio divided by the wanted one, for "at most" the other way round.
    The point is the median of the rounds and the line reaches from the worst to the best.
    """
    figure = new_figure(11.5, 1.6 + 0.27 * len(outcomes))
    axes = new_axes(figure, "share of the goal that was reached (1: just met; right is better)")
    reached = [_reached(outcome) for outcome in outcomes]
    for place, (outcome, shares) in enumerate(zip(outcomes, reached, strict=True)):
        _goal(axes, place, outcome, shares)
    axes.axvline(1.0, color=INK, linewidth=1.2, zorder=2)
    axes.set_xscale("log")
    known = [share for shares in reached for share in shares] or [1.0]
    axes.set_xlim(min(0.5, min(known) / 1.3), max(2.0, max(known) * 1.3))
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    plain_numbers(axes, "x")
    axes.minorticks_off()
    axes.grid(visible=True, axis="x", color=GRID)
    axes.set_yticks(range(len(outcomes)), [f"{outcome.what}   {outcome.number:>2}" for outcome in outcomes], fontsize=9)
    axes.set_ylim(len(outcomes) - 0.4, -0.6)
    for verdict in (MET, NOT_MET):
        style = _style(verdict)
        axes.plot([], [], "o", color=style, markerfacecolor=style if verdict == MET else "white", label=verdict)
    legend(axes, loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=2)
    return figure


def _goal(axes: Axes, place: int, outcome: Outcome, shares: list[float]) -> None:
    beside: dict[str, Any] = {"transform": axes.get_yaxis_transform(), "va": "center", "fontsize": 9}
    if not shares:
        axes.text(1.01, place, f"{outcome.verdict}: wanted {outcome.goal}", color=QUIET, **beside)
        return
    colour = _style(outcome.verdict)
    axes.plot([min(shares), max(shares)], [place, place], color=colour, linewidth=1.6, zorder=3)
    inside = colour if outcome.verdict == MET else "white"
    axes.plot(statistics.median(shares), place, "o", color=colour, markerfacecolor=inside, markersize=7, zorder=4)
    measured = f"{statistics.median(outcome.ratios):.2f}x" if outcome.ratios else outcome.ours
    axes.text(1.01, place, f"{measured}, wanted {outcome.goal}", color=INK, **beside)


def _style(verdict: str) -> str:
    return look(0).colour if verdict == MET else look(3).colour


def _reached(outcome: Outcome) -> list[float]:
    """What was reached of the goal, round by round; nothing where nothing was measured."""
    if outcome.verdict not in (MET, NOT_MET):
        return []
    wanted = _first_number(outcome.goal)
    figures = outcome.ratios or [_first_number(outcome.ours)]
    return [figure / wanted if outcome.goal.startswith(">=") else wanted / figure for figure in figures]


def _first_number(text: str) -> float:
    found = re.search(r"\d[\d,]*\.?\d*", text)
    assert found is not None, text
    return float(found[0].replace(",", ""))


# --- delays ---


def delays(results: Sequence[Measured]) -> Figure:
    """Distributions of how late things were, one panel a case; a mark on each curve is the mean, which is judged."""
    figure = new_figure(12.0, 4.6)
    first: Axes | None = None
    for number, result in enumerate(results):
        y_label = "share that was no later (%)" if number == 0 else ""
        axes = new_axes(figure, "later than drawn by (ms)", y_label, (1, len(results), number + 1), sharex=first)
        first = first or axes
        rows = (
            ("delivery (timer alone)", result.delivery_ms),
            ("each acknowledgement", result.acknowledgements_ms),
            ("third acknowledgement (whole excess)", result.excess_ms),
        )
        for kind, (name, values_ms) in enumerate(rows):
            _late(axes, kind, name, values_ms)
        axes.axvline(result.case.bound_ms, color=INK, linewidth=1.2, zorder=2, label="goal for the mean (the mark)")
        axes.set_xscale("log")
        axes.set_xlim(left=SMALLEST_MS)
        plain_numbers(axes, "x")
        axes.set_ylim(0, 102)
        title(axes, result.case.name)
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False, fontsize=10)
    return figure


def _late(axes: Axes, kind: int, name: str, values_ms: Sequence[float]) -> None:
    style = look(kind)
    ordered = np.maximum(np.sort(values_ms), SMALLEST_MS)
    shares = 100 * np.arange(1, len(ordered) + 1) / len(ordered)
    axes.plot(ordered, shares, color=style.colour, linestyle=style.dash, linewidth=1.8, zorder=3)
    mean_ms = max(float(np.mean(values_ms)), SMALLEST_MS)
    at = 100 * float(np.searchsorted(ordered, mean_ms)) / len(ordered)
    axes.plot(mean_ms, at, style.marker, color=style.colour, markersize=8, markeredgecolor="white", zorder=4)
    axes.plot([], [], color=style.colour, linestyle=style.dash, marker=style.marker, label=name)


# --- growth ---


def scaling(curves: Sequence[Curve]) -> Figure:
    """What a write costs as things grow, one panel each, with the nearest straight line (dashed)."""
    figure = new_figure(4.0 * len(curves), 4.2)
    for number, curve in enumerate(curves):
        y_label = "CPU of all nodes (µs per write)" if number == 0 else ""
        axes = new_axes(figure, curve.label, y_label, (1, len(curves), number + 1))
        sizes = [point.size for point in curve.points]
        style = look(number)
        slope_us, intercept_us = curve.line()
        grid = np.geomspace(sizes[0], sizes[-1], 200)
        theory_line(axes, grid, intercept_us + slope_us * grid)
        axes.plot(sizes, [point.cpu_us for point in curve.points], style.marker, color=style.colour, markersize=8)
        if sizes[-1] >= 10 * sizes[0]:
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        else:
            axes.set_xticks(sizes)
        highest = max(point.cpu_us for point in curve.points)
        if highest > 10 * min(point.cpu_us for point in curve.points):
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        else:
            axes.set_ylim(0, highest * 1.15)
        axes.minorticks_off()
        said = f"{curve.described()}, within {curve.furthest:.0%}"
        axes.set_title(said, loc="left", color=INK, fontsize=10.5, pad=10)
    return figure
