"""Pictures of the experiment `quorum`: latency by quorum, densities, and cumulative distributions, with theory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes

from retinue.lab.experiments.contract import Picture
from retinue.lab.experiments.preparing import law_of
from retinue.lab.experiments.quorum_sample import QuorumSample
from retinue.lab.experiments.quorum_statistics import AtQuorum, by_quorum
from retinue.lab.reports.figures import (
    INK,
    QUIET,
    THEORY,
    LineEnd,
    label_ends,
    legend,
    look,
    new_axes,
    new_figure,
    theory_band,
    theory_line,
    title,
)

if TYPE_CHECKING:
    from retinue.lab.experiments.quorum import QuorumSettings

BAND = (0.05, 0.95)
QUANTILES = ((0.99, "p99", 3), (0.95, "p95", 2), (0.5, "p50", 1))
# The p50 stands beside the mean, which is often at the same height.
DODGE = 0.08

Rows = Sequence[AtQuorum]


def pictures(settings: QuorumSettings, samples: Sequence[QuorumSample]) -> list[Picture]:
    """All pictures of these samples; none without an acknowledged write."""
    rows = by_quorum(settings, samples)
    if not rows:
        return []
    made = [_latency(settings, rows), _densities(settings, rows), _cumulative(settings, rows)]
    if rows[0].theory is not None and any(at.overheads_ms is not None for at in rows):
        made.append(_overheads(rows))
    return made


def _latency(settings: QuorumSettings, rows: Rows) -> Picture:
    figure = new_figure(8.4, 5.2)
    axes = new_axes(figure, f"write quorum (of {settings.followers} followers)", "write latency (ms)")
    quorums = [at.quorum for at in rows]
    theories = [at.theory for at in rows if at.theory is not None]
    if theories:
        low, high = ([theory.quantile(p) for theory in theories] for p in BAND)
        theory_line(axes, quorums, [theory.mean for theory in theories], label="theory: mean")
        for p, name, _ in QUANTILES:
            label = "theory: p50, p95, p99" if name == "p50" else None
            values = [theory.quantile(p) for theory in theories]
            theory_line(axes, quorums, values, linewidth=0.9, linestyle=":", label=label)
        theory_band(axes, quorums, low, high, "theory: 90 % of all writes")
        legend(axes, loc="upper left")
    ends = []
    for p, name, number in QUANTILES:
        style = look(number)
        values = [at.quantile_ms(p) for at in rows]
        beside = [quorum - DODGE if name == "p50" else quorum for quorum in quorums]
        axes.plot(beside, values, style.marker, color=style.colour, markersize=7, zorder=3)
        ends.append(LineEnd(values[-1], name, style.colour))
    style = look(0)
    errors = [at.half_width_ms or 0.0 for at in rows]
    means = [at.mean_ms for at in rows]
    axes.errorbar(quorums, means, errors, fmt=style.marker, color=style.colour, markersize=8, capsize=4, zorder=4)
    ends.append(LineEnd(means[-1], "mean, with 95 % interval", style.colour))
    _whole_quorums(axes, quorums)
    axes.set_ylim(bottom=0)
    title(axes, _heading("Write latency by write quorum", settings))
    label_ends(axes, quorums[-1], ends)
    caption = "Write latency by write quorum: what clients waited. "
    if theories:
        caption += (
            "Lines are theory for the simulated delays alone (dashed: mean; dotted: p50, p95, p99), by which 90 % of "
            "all writes fall into the grey band. Marks above the lines by the same amount everywhere are overhead."
        )
    else:
        caption += "No delay is simulated, so there is no theory to compare with."
    return Picture("latency", caption, figure)


def _densities(settings: QuorumSettings, rows: Rows) -> Picture:
    figure = new_figure(8.4, 1.1 + 1.15 * len(rows))
    top_ms = _shown_upto_ms(rows)
    bins = np.linspace(0, top_ms, 41)
    grid_ms = np.linspace(0, top_ms, 600)[1:-1]
    first: Axes | None = None
    for number, at in enumerate(rows):
        axes = new_axes(figure, position=(len(rows), 1, number + 1), sharex=first)
        first = first or axes
        style = look(0)
        axes.hist(at.latencies_ms, bins=list(bins), density=True, color=style.colour, alpha=0.55, zorder=2)
        if at.theory is not None and at.law.certain_ms is None:
            theory_line(axes, grid_ms, at.theory.pdf(grid_ms), linestyle="-", zorder=3)
        axes.axvline(at.mean_ms, color=style.colour, linewidth=1.6, zorder=4)
        axes.set_yticks([])
        axes.grid(visible=False)
        axes.spines["left"].set_visible(False)
        axes.set_xlim(0, top_ms)
        beside: dict[str, Any] = {"transform": axes.transAxes, "ha": "right"}
        axes.text(-0.015, 0.55, f"quorum {at.quorum}", color=INK, fontsize=10.5, **beside)
        axes.text(-0.015, 0.25, f"mean {at.mean_ms:.3g} ms", color=QUIET, fontsize=9.5, **beside)
        if number < len(rows) - 1:
            axes.tick_params(labelbottom=False)
        else:
            axes.set_xlabel("write latency (ms)", color=INK, fontsize=11)
        if number == 0:
            title(axes, _heading("How latencies are spread", settings))
    caption = (
        "How write latencies are spread at each quorum, as densities of equal area; the upright line is the mean. "
    )
    if rows[0].theory is not None:
        caption += "The black curve is theory for the simulated delays alone."
    return Picture("densities", caption, figure)


def _cumulative(settings: QuorumSettings, rows: Rows) -> Picture:
    figure = new_figure(8.4, 5.2)
    axes = new_axes(figure, "write latency (ms)", "share of writes answered by then (%)")
    top_ms = _shown_upto_ms(rows)
    grid_ms = np.linspace(0, top_ms, 600)
    for number, at in enumerate(rows):
        style = look(number)
        ordered = np.sort(at.latencies_ms)
        shares = 100 * np.arange(1, len(ordered) + 1) / len(ordered)
        axes.step(
            [0.0, *ordered, max(top_ms, ordered[-1])],
            [0.0, *shares, 100.0],
            where="post",
            color=style.colour,
            linewidth=2.0,
            zorder=3,
            label="measured, with the quorum" if number == 0 else None,
        )
        badge = {"boxstyle": "circle,pad=0.25", "facecolor": "white", "edgecolor": style.colour, "linewidth": 1.5}
        share = 0.8 - 0.6 * number / max(len(rows) - 1, 1)
        place = (at.quantile_ms(share), 100 * share)
        axes.text(*place, str(at.quorum), ha="center", va="center", fontsize=9, color=INK, bbox=badge, zorder=5)
        if at.theory is not None:
            theory_line(axes, grid_ms, 100 * at.theory.cdf(grid_ms), linestyle="-", linewidth=0.9, zorder=4)
    if rows[0].theory is not None:
        theory_line(axes, [], [], linestyle="-", linewidth=0.9, label="theory, delays alone")
    axes.set_xlim(0, top_ms)
    axes.set_ylim(0, 100)
    legend(axes, loc="upper right", bbox_to_anchor=(1.0, -0.12), ncols=2)
    title(axes, _heading("How soon a write is answered", settings))
    caption = "The share of writes that were answered within a time, at each quorum, measured in steps. "
    if rows[0].theory is not None:
        caption += "Thin black curves are theory: close steps are a good fit, a shift to the right is overhead."
    return Picture("cumulative", caption, figure)


def _overheads(rows: Rows) -> Picture:
    figure = new_figure(8.4, 4.2)
    axes = new_axes(figure, "write quorum", "latency beyond the drawn delays (ms)")
    known = [(at.quorum, at.overheads_ms) for at in rows if at.overheads_ms is not None]
    style = look(0)
    rng = np.random.default_rng(0)
    for quorum, overheads in known:
        shown = rng.choice(overheads, size=min(len(overheads), 600), replace=False)
        spread = quorum + rng.uniform(-0.16, 0.16, len(shown))
        axes.plot(spread, shown, ".", color=style.colour, alpha=0.35, markersize=4, zorder=2)
        middle = float(np.median(overheads))
        axes.plot([quorum - 0.28, quorum + 0.28], [middle, middle], color=THEORY, linewidth=1.8, zorder=3)
        axes.annotate(
            f"{middle:.2g}", (quorum + 0.3, middle), va="center", color=INK, fontsize=9.5, annotation_clip=False
        )
    highest = max(float(np.quantile(overheads, 0.99)) for _, overheads in known)
    lowest = min(float(overheads.min()) for _, overheads in known)
    axes.set_ylim(min(0.0, lowest * 1.1), max(highest * 1.15, 0.1))
    _whole_quorums(axes, [quorum for quorum, _ in known])
    title(axes, "What a write costs besides the simulated delays")
    caption = (
        "Overhead of each write: its latency minus the k-th smallest of the delays drawn for it. Bars are medians. "
        "The slowest hundredth may lie above the picture."
    )
    return Picture("overhead", caption, figure)


def _heading(what: str, settings: QuorumSettings) -> str:
    law = law_of(settings).describe() if settings.max_delay_ms > 0 else "no simulated delay"
    return f"{what}, {law}"


def _shown_upto_ms(rows: Rows) -> float:
    """Where the axis of latencies ends: beyond all but the slowest of 200, and all that theory shows."""
    theory_ms = [at.theory.quantile(0.995) for at in rows if at.theory is not None]
    return 1.05 * max([at.quantile_ms(0.995) for at in rows] + theory_ms)


def _whole_quorums(axes: Axes, quorums: Sequence[int]) -> None:
    axes.set_xticks(list(quorums))
    axes.set_xlim(min(quorums) - 0.5, max(quorums) + 0.5)
