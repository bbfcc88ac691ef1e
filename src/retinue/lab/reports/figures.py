"""The style of all figures: light, labelled with units, told apart by colour, marker and dash, so grey is enough.

Figures are made without `pyplot`, which keeps state of its own, and drawn by Agg, which needs no screen.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

DPI = 160

INK = "#222222"
QUIET = "#6b6b6b"
GRID = "#e4e4e4"
THEORY = "#000000"
BAND = "#d9d9d9"

# The colours of Okabe and Ito (2008), ordered so that neighbours also differ in grey; the yellow is left out: it
# cannot be seen on white.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES: tuple[Any, ...] = ("-", (0, (6, 2)), (0, (2, 1.5)), (0, (6, 2, 1.5, 2)), (0, (1, 1)), (0, (9, 3)), (0, (4, 1)))


# Amber, sky blue and pink are too light for text on white.
_AS_TEXT = {"#E69F00": "#946600", "#56B4E9": "#1B74A6", "#CC79A7": "#A0457A"}


class Look(NamedTuple):
    """How one of several series looks."""

    colour: str
    marker: str
    dash: Any


class LineEnd(NamedTuple):
    """A label for the end of a line, at height `y` in the units of the axis."""

    y: float
    text: str
    colour: str


def look(number: int) -> Look:
    """The look of series `number` (from 0); looks repeat after seven."""
    return Look(COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)], DASHES[number % len(DASHES)])


def new_figure(width: float = 8.0, height: float = 4.8) -> Figure:
    """An empty figure; sizes in inches at 160 dots per inch."""
    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def new_axes(
    figure: Figure, x_label: str = "", y_label: str = "", position: tuple[int, int, int] = (1, 1, 1), **options: Any
) -> Axes:
    """Axes in the style of the house. `position` is (rows, columns, number from 1); `options` are matplotlib's."""
    axes: Axes = figure.add_subplot(*position, **options)
    axes.set_xlabel(x_label, color=INK, fontsize=11)
    axes.set_ylabel(y_label, color=INK, fontsize=11)
    axes.set_axisbelow(True)
    axes.grid(visible=True, axis="y", color=GRID, linewidth=0.8)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color("#9a9a9a")
    axes.tick_params(colors=INK, labelsize=10, length=3, color="#9a9a9a")
    return axes


def title(axes: Axes, text: str) -> None:
    """What the axes show, at their upper left."""
    axes.set_title(text, loc="left", color=INK, fontsize=12, fontweight="bold", pad=10)


def theory_line(axes: Axes, x: Any, y: Any, **options: Any) -> None:
    """A curve that theory predicts: thin, black, dashed unless `options` say otherwise."""
    style: dict[str, Any] = {"color": THEORY, "linewidth": 1.2, "linestyle": (0, (4, 2)), "zorder": 2}
    axes.plot(x, y, **(style | options))


def theory_band(axes: Axes, x: Any, low: Any, high: Any, label: str = "") -> None:
    """The range that theory predicts, grey behind everything else."""
    axes.fill_between(x, low, high, color=BAND, linewidth=0, zorder=1, label=label or None)


def label_ends(axes: Axes, x: float, ends: Sequence[LineEnd], *, size: float = 10.0) -> None:
    """Name lines where they end instead of in a legend; labels that would overlap are moved apart.

    To be called when the limits of the axes are final. `x` is where the lines end, in the units of the axis.
    """
    if not ends:
        return
    transform = axes.transData
    ordered = sorted(ends, key=lambda end: end.y)
    needed = size * 1.35 / 72 * axes.figure.dpi
    heights = [float(transform.transform((x, end.y))[1]) for end in ordered]
    placed = _apart(heights, needed)
    for end, height, wanted in zip(ordered, placed, heights, strict=True):
        axes.annotate(
            end.text,
            xy=(x, end.y),
            xytext=(10, (height - wanted) * 72 / axes.figure.dpi),
            textcoords="offset points",
            va="center",
            color=_AS_TEXT.get(end.colour, end.colour),
            fontsize=size,
            annotation_clip=False,
        )


def plain_numbers(axes: Axes, axis: str) -> None:
    """Write the ticks of a logarithmic axis ("x" or "y") as plain numbers."""
    chosen = axes.xaxis if axis == "x" else axes.yaxis
    chosen.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    chosen.set_minor_formatter(NullFormatter())


def legend(axes: Axes, **options: Any) -> None:
    """A legend without a frame, for where direct labels do not fit."""
    axes.legend(**({"frameon": False, "fontsize": 9.5, "labelcolor": INK, "handlelength": 2.6} | options))


def png(figure: Figure) -> bytes:
    """The figure as a PNG. It carries no time and no version, so equal samples give equal files."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    return buffer.getvalue()


def _apart(heights: Sequence[float], needed: float) -> list[float]:
    """The ascending `heights` moved as little as a few rounds achieve until all are `needed` apart."""
    placed = list(heights)
    for _ in range(50):
        moved = False
        for lower in range(len(placed) - 1):
            missing = needed - (placed[lower + 1] - placed[lower])
            if missing > 1e-6:
                placed[lower] -= missing / 2
                placed[lower + 1] += missing / 2
                moved = True
        if not moved:
            break
    return placed
