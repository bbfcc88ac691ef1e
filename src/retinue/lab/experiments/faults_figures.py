"""The pictures of the experiment `faults`: when writes went through, and how long recovery took."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import TYPE_CHECKING

from matplotlib.colors import LinearSegmentedColormap
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from retinue.lab.availability import BIN_MS
from retinue.lab.experiments.contract import Picture
from retinue.lab.experiments.faults_sample import BIN, CATCH_UP, EVENT, NODE, OUTAGE, FaultSample
from retinue.lab.experiments.faults_summary import Course, courses
from retinue.lab.reports.figures import COLOURS, INK, QUIET, new_axes, new_figure, plain_numbers, title
from retinue.lab.schedules import REPAIRS, Action

if TYPE_CHECKING:
    from matplotlib.axes import Axes

OUTCOMES = (
    ("committed", COLOURS[0], ""),
    ("refused", COLOURS[1], "///"),
    ("unknown", COLOURS[3], "xxx"),
    ("failed", COLOURS[5], "..."),
    ("waiting", "#d9d9d9", ""),
)
"""Outcomes from the bottom up, with colour and hatch."""

MARKS = {
    Action.KILL: ("v", INK),
    Action.PAUSE: ("s", INK),
    Action.CUT_OFF: ("X", INK),
    Action.START: ("^", "white"),
    Action.RESUME: ("s", "white"),
    Action.HEAL: ("X", "white"),
    Action.PROMOTE: ("*", COLOURS[1]),
}
"""How events look: faults are filled, repairs are hollow."""

DIFFERENCES = (
    ("missing", "missing: it never came", COLOURS[3], "white"),
    ("outdated", "another value than the leader's", COLOURS[1], INK),
    ("undeleted", "deleted at the leader, still there", COLOURS[0], "white"),
)
"""How a replica can differ, with the colour of the bar and of the number in it; neighbours also differ in grey."""

SMALLEST_WITH_NUMBER = 0.04
"""A part of a bar that is narrower than this share of the longest one has no room for its number."""

AVAILABLE = LinearSegmentedColormap.from_list("available", ["#7a2b00", COLOURS[3], "#f4d9c6", "#eef4f9"])
"""From nothing committed (dark) to everything (nearly white): the darker, the worse, also in grey."""

BIN_S = BIN_MS / 1000


def draw(samples: Sequence[FaultSample]) -> list[Picture]:
    """All pictures that these samples are enough for."""
    by_schedule = {name: course for name, course in courses(samples).items() if course.of(BIN)}
    if not by_schedule:
        return []
    pictures = []
    if len(by_schedule) > 1:
        pictures.append(_overview(by_schedule))
    eventful = max(by_schedule, key=lambda name: (by_schedule[name].longest_outage_ms, name))
    pictures.append(_outcomes(eventful, by_schedule[eventful], alone=len(by_schedule) == 1))
    if any(sample.sort in (CATCH_UP, OUTAGE) for sample in samples):
        pictures.append(_times(samples))
    if any(sample.sort == NODE and (sample.missing or sample.outdated or sample.undeleted) for sample in samples):
        pictures.append(_differences(samples))
    return pictures


def _overview(by_schedule: dict[str, Course]) -> Picture:
    figure = new_figure(9.5, 1.6 + 0.24 * len(by_schedule))
    axes = new_axes(figure, "time since the schedule began (s)")
    for row, course in enumerate(by_schedule.values()):
        for sample in course.of(BIN):
            share = sample.as_bin().available
            if share is not None:
                axes.barh(row, BIN_S, left=sample.at_ms / 1000, height=0.82, color=AVAILABLE(share), linewidth=0)
        for event in course.of(EVENT):
            _mark(axes, event, row)
    axes.set_yticks(range(len(by_schedule)))
    axes.set_yticklabels(
        [f"{name}, quorum {course[0].quorum}" for name, course in by_schedule.items()], fontsize=8.5, color=INK
    )
    axes.set_ylim(len(by_schedule) - 0.4, -0.6)
    axes.set_xlim(0, max(sample.at_ms for course in by_schedule.values() for sample in course.of(BIN)) / 1000 + BIN_S)
    axes.grid(visible=False)
    title(axes, "Share of writes committed, by schedule")
    shades = [
        Patch(facecolor=AVAILABLE(share), edgecolor=QUIET, linewidth=0.4, label=label)
        for share, label in ((1.0, "all committed"), (0.5, "half"), (0.0, "none"))
    ]
    seen = {sample.what for course in by_schedule.values() for sample in course.of(EVENT)}
    figure.legend(
        handles=[*shades, *_mark_handles(seen)], loc="outside lower center", ncols=10, frameon=False, fontsize=8.5
    )
    return Picture(
        "availability",
        "Each row is a schedule; the darker, the fewer of the writes of 200 ms were committed. Filled marks take a "
        "node away, hollow ones give it back, a star makes another node the leader.",
        figure,
    )


def _mark(axes: Axes, event: FaultSample, y: float, size: float = 5.0) -> None:
    shape, face = MARKS[Action(event.what)]
    axes.plot(
        event.at_ms / 1000,
        y,
        marker=shape,
        markersize=size * (1.6 if shape == "*" else 1.25 if face == INK else 1),
        markerfacecolor=face,
        # A rim of the other shade, so that a mark can be seen on light and on dark.
        markeredgecolor="white" if face == INK else INK,
        markeredgewidth=0.7,
        linestyle="",
        zorder=4,
    )


def _mark_handles(seen: set[str]) -> list[Line2D]:
    return [
        Line2D(
            [],
            [],
            marker=shape,
            markerfacecolor=face,
            markeredgecolor=INK,
            markersize=6,
            linestyle="",
            label=action.value,
        )
        for action, (shape, face) in MARKS.items()
        if action.value in seen
    ]


def _outcomes(name: str, course: Course, *, alone: bool) -> Picture:
    events, bins = course.of(EVENT), course.of(BIN)
    figure = new_figure(9.5, 4.4 + 0.16 * len(events))
    axes = new_axes(figure, "time since the schedule began (s)", f"writes per {BIN_MS:.0f} ms")
    top = _stack(axes, bins)
    step = 0.062 * top
    for number, event in enumerate(events):
        _flag(axes, event, top * 1.04 + step * (len(events) - number))
    axes.set_xlim(0, bins[-1].at_ms / 1000 + BIN_S)
    axes.set_ylim(0, top * 1.08 + step * (len(events) + 0.5))
    axes.set_yticks([tick for tick in axes.get_yticks() if 0 <= tick <= top * 1.05])
    quorum = f", quorum {course[0].quorum}" if course[0].quorum else ""
    title(axes, f"Writes by outcome: {name}{quorum}")
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=max(1, len(labels)), frameon=False, fontsize=9.5)
    which = "" if alone else " It is the schedule with the longest outage."
    lines = "; dashed lines are the events" if events else ""
    return Picture(
        "outcomes",
        "Attempts to write by outcome, counted when they end, and those that wait through the whole of a bar, longer "
        f"than usual{lines}.{which}",
        figure,
    )


def _stack(axes: Axes, bins: Sequence[FaultSample]) -> float:
    """Bars of all outcomes, one upon another; the height of the highest."""
    starts = [sample.at_ms / 1000 for sample in bins]
    below = [0.0] * len(bins)
    for outcome, colour, hatch in OUTCOMES:
        heights = [float(getattr(sample, outcome)) for sample in bins]
        if any(heights):
            axes.bar(
                starts,
                heights,
                BIN_S,
                bottom=below,
                align="edge",
                color=colour,
                hatch=hatch,
                edgecolor="white",
                linewidth=0.3,
                label="waited through" if outcome == "waiting" else outcome,
            )
        below = [one + other for one, other in zip(below, heights, strict=True)]
    return max(below) or 1.0


def _flag(axes: Axes, event: FaultSample, height: float) -> None:
    """A line at the time of an event, with its mark and its words at the upper end."""
    at_s = event.at_ms / 1000
    axes.vlines(at_s, 0, height, color=INK, linewidth=0.6, linestyle=(0, (2, 2)), zorder=3)
    _mark(axes, event, height, 5.5)
    axes.annotate(
        f"{event.what} {event.node}{' (failed)' if event.detail else ''}",
        (at_s, height),
        xytext=(6, 0),
        textcoords="offset points",
        va="center",
        fontsize=8.5,
        color=INK,
    )


def _times(samples: Sequence[FaultSample]) -> Picture:
    rows: list[tuple[str, list[float]]] = []
    for word in (*(repair.value for repair in REPAIRS.values()), Action.PROMOTE.value):
        caught = [sample.ms for sample in samples if sample.sort == CATCH_UP and sample.what == word]
        again = [
            sample.recovery_ms
            for sample in samples
            if sample.sort == OUTAGE and sample.recovery_ms is not None and sample.what.startswith(f"{word} ")
        ]
        rows += [(f"{word}: node has everything", caught)] if caught else []
        rows += [(f"{word}: writes commit again", again)] if again else []
    figure = new_figure(9.0, 1.5 + 0.42 * max(1, len(rows)))
    axes = new_axes(figure, "time since the repair (ms)")
    for row, (_, times) in enumerate(rows):
        spread = [row + 0.22 * ((number * 7 % 11) / 10 - 0.5) for number in range(len(times))]
        axes.plot(
            [max(ms, 1.0) for ms in times], spread, "o", color=COLOURS[0], alpha=0.55, markersize=5, markeredgewidth=0
        )
        axes.plot([max(median(times), 1.0)] * 2, [row - 0.3, row + 0.3], color=INK, linewidth=2)
    axes.set_xscale("log")
    plain_numbers(axes, "x")
    axes.set_yticks(range(len(rows)))
    axes.set_yticklabels([name for name, _ in rows], color=INK, fontsize=9.5)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.grid(visible=True, axis="x", color="#e4e4e4")
    axes.grid(visible=False, axis="y")
    title(axes, "How long it takes after a repair")
    return Picture(
        "recovery",
        "Each dot is one repair, drawn at 1 ms where it took less; the bar is the median. A started node first has to "
        "load its data and be linked; a node that was cut off has to be dialled again.",
        figure,
    )


def _differences(samples: Sequence[FaultSample]) -> Picture:
    seen = [sample for sample in samples if sample.sort == NODE]
    nodes = sorted({sample.node for sample in seen})
    counts = {
        kind: [sum(getattr(sample, kind) for sample in seen if sample.node == node) for node in nodes]
        for kind, *_ in DIFFERENCES
    }
    totals = [sum(row) for row in zip(*counts.values(), strict=True)]
    figure = new_figure(9.0, 1.9 + 0.48 * len(nodes))
    axes = new_axes(figure, "keys")
    left = [0] * len(nodes)
    for kind, label, colour, text_colour in DIFFERENCES:
        if not any(counts[kind]):
            continue
        axes.barh(nodes, counts[kind], 0.68, left=left, color=colour, edgecolor="white", linewidth=1.5, label=label)
        for row, count in enumerate(counts[kind]):
            if count > SMALLEST_WITH_NUMBER * max(totals):
                middle = left[row] + count / 2
                axes.text(middle, row, f"{count:,}", ha="center", va="center", color=text_colour, fontsize=10.5)
        left = [one + other for one, other in zip(left, counts[kind], strict=True)]
    for row, total in enumerate(totals):
        axes.annotate(
            f"{total:,}", (total, row), (6, 0), textcoords="offset points", va="center", color=INK, fontweight="bold"
        )
    axes.invert_yaxis()
    axes.set_xlim(0, 1.06 * max(totals))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    axes.grid(visible=True, axis="x", color="#e4e4e4")
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
    title(axes, "Keys on which followers differ from the leader for good")
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=10, labelcolor=INK)
    return Picture(
        "differences",
        "Keys on which a follower does not agree with the leader when nothing changes any more. In a correct system "
        "there are none.",
        figure,
    )
