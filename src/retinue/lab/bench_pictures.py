"""Pictures of `retinue bench`: throughput and latency, against clients where these vary, one line for each quorum."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator

from retinue.lab.bench_run import Point
from retinue.lab.reports.figures import INK, LineEnd, label_ends, legend, look, new_axes, new_figure, plain_numbers

LINES = ("quorum", "value_bytes", "pipeline", "door", "operation", "storage")
"""What tells lines apart: the first of these that varies and is not on the axis."""
ACROSS = ("clients", "quorum", "value_bytes", "pipeline")
"""What the horizontal axis shows: the first of these that varies."""
NAMES = {
    "clients": "clients",
    "quorum": "write quorum (followers)",
    "value_bytes": "size of a value (bytes)",
    "pipeline": "requests in a pipeline",
}
WIDE = 100.0
"""From this ratio of the largest to the smallest on, throughput has a logarithmic axis."""


def pictures(points: Sequence[Point], followers: int) -> list[tuple[str, Figure]]:
    """Name and figure of each picture: one for each combination of whatever axis and lines do not show."""
    usable = [point for point in points if point.requests]
    made = []
    for operation in dict.fromkeys(point.case.operation for point in usable):
        of_operation = [point for point in usable if point.case.operation == operation]
        across = next((name for name in ACROSS if _varies(of_operation, name)), "clients")
        possible = [name for name in LINES if name != across]
        line = next((name for name in possible if _varies(of_operation, name)), possible[0])
        fixed = [name for name in (*LINES, "clients") if name not in (across, line)]
        key = _values_of(fixed)
        for values, group in itertools.groupby(sorted(of_operation, key=key), key=key):
            telling = [name for name in fixed if _varies(of_operation, name)]
            told = dict(zip(fixed, values, strict=True))
            words = [f"{operation}s", *(_line_name(each, told[each]) for each in telling)]
            made.append(("-".join(words).replace(" ", "-").lower(), _picture(list(group), across, line, followers)))
    return made


def _varies(points: Sequence[Point], name: str) -> bool:
    return len({getattr(point.case, name) for point in points}) > 1


def _values_of(names: Sequence[str]) -> Callable[[Point], tuple[Any, ...]]:
    return lambda point: tuple(getattr(point.case, name) for name in names)


def _picture(points: Sequence[Point], across: str, line: str, followers: int) -> Figure:
    """Throughput at the left, p50 and p99 at the right."""
    figure = new_figure(11.0, 4.9)
    figure.set_layout_engine("constrained", wspace=0.06)
    operation = points[0].case.operation
    throughput = new_axes(figure, NAMES[across], f"throughput ({operation}s per second)", (1, 2, 1))
    latency = new_axes(figure, NAMES[across], f"latency of a {operation} (ms)", (1, 2, 2))
    series: dict[Any, list[Point]] = {}
    for point in sorted(points, key=lambda point: getattr(point.case, across)):
        series.setdefault(getattr(point.case, line), []).append(point)
    ends: tuple[list[LineEnd], list[LineEnd]] = ([], [])
    for number, (value, of_line) in enumerate(series.items()):
        style = look(number)
        x = [getattr(point.case, across) for point in of_line]
        drawing: dict[str, Any] = {"color": style.colour, "marker": style.marker, "zorder": 3, "markersize": 6}
        throughput.plot(x, [point.per_second for point in of_line], **drawing)
        latency.plot(x, [point.p50_ms for point in of_line], **drawing)
        hollow = drawing | {"markerfacecolor": "white", "linestyle": (0, (4, 2)), "linewidth": 1.2}
        latency.plot(x, [point.p99_ms for point in of_line], **hollow)
        text = _line_name(line, value)
        ends[0].append(LineEnd(of_line[-1].per_second, text, style.colour))
        ends[1].append(LineEnd(of_line[-1].p50_ms, text, style.colour))
    figure.suptitle(
        _heading(points[0], across, line, followers), x=0.01, ha="left", color=INK, fontsize=12, weight="bold"
    )
    _scale(throughput, latency, points, across)
    if len(series) > 1:
        last = max(getattr(point.case, across) for point in points)
        label_ends(throughput, last, ends[0])
        label_ends(latency, last, ends[1])
    _explain(latency)
    return figure


def _scale(throughput: Axes, latency: Axes, points: Sequence[Point], across: str) -> None:
    rates = [point.per_second for point in points]
    if max(rates) > WIDE * min(rates):
        throughput.set_yscale("log")
        throughput.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    else:
        throughput.set_ylim(0, max(rates) * 1.08)
    throughput.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    latency.set_yscale("log")
    latency.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    plain_numbers(latency, "y")
    ticks = sorted({getattr(point.case, across) for point in points})
    for axes in (throughput, latency):
        if across != "quorum":
            axes.set_xscale("log", base=2 if across == "clients" else 10)
        axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
        axes.minorticks_off()


def _explain(latency: Axes) -> None:
    """Say which line of a pair is which."""
    handles = [
        Line2D([], [], color=INK, marker="o", label="p50"),
        Line2D([], [], color=INK, marker="o", markerfacecolor="white", linestyle=(0, (4, 2)), label="p99"),
    ]
    legend(latency, handles=handles, loc="upper left")


def _line_name(line: str, value: Any) -> str:
    if line == "quorum":
        return f"quorum {value}"
    if line == "value_bytes":
        return _size(value)
    if line == "pipeline":
        return f"pipeline {value}" if value > 1 else "no pipeline"
    return {"http": "HTTP", "resp": "Redis protocol"}.get(value, str(value))


def _size(value_bytes: int) -> str:
    return f"{value_bytes / 1000:g} kB" if value_bytes >= 1000 else f"{value_bytes} B"


def _heading(point: Point, across: str, line: str, followers: int) -> str:
    """What is the same for all points of a picture."""
    case = point.case
    parts = {
        "door": _line_name("door", case.door),
        "value_bytes": f"values of {_size(case.value_bytes)}",
        "quorum": "" if case.quorum is None else f"quorum {case.quorum} of {followers}",
        "pipeline": f"pipelines of {case.pipeline}" if case.pipeline > 1 else "",
        "storage": {"disk": "synced to disk", "memory": "in memory"}[case.storage],
        "clients": f"{case.clients} clients",
    }
    said = [text for name, text in parts.items() if text and name not in (across, line)]
    return f"{case.operation.capitalize()}s: {', '.join(said)}"
