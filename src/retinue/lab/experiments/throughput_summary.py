"""What the samples of the experiment `throughput` say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from retinue.lab.experiments.contract import Picture, Summary, Table
from retinue.lab.judging.diagnosis import counted
from retinue.lab.reports.figures import INK, QUIET, legend, look, new_axes, new_figure, plain_numbers, title
from retinue.lab.simulated_cluster import COMMIT_MS, LATENCY_MS

if TYPE_CHECKING:
    from retinue.lab.experiments.throughput import LoadSample, ThroughputSettings

BUSY = 0.85
"""From this share of a processor on, the load generator itself may be the limit."""

LATENCIES = ("mean (ms)", "p50 (ms)", "p95 (ms)", "p99 (ms)", "max (ms)", "failures")
GENERATOR_CPU = "generator CPU (%)"

WIDE_RANGE = 20
"""Latencies that differ by more than this factor are drawn on a logarithmic axis."""

ON_GRID: dict[str, Any] = {"frameon": True, "facecolor": "white", "edgecolor": "none", "framealpha": 1.0}
"""A legend that hides the grid behind it."""

SMALL_LOSS = 0.15
"""Two measurements of the same thing differ by so much easily."""


def _closed(samples: Sequence[LoadSample]) -> dict[str, list[LoadSample]]:
    """The samples of the closed loop by series: writes at each quorum, and reads."""
    series: dict[str, list[LoadSample]] = {}
    for sample in sorted(samples, key=lambda sample: (sample.kind == "read", sample.quorum)):
        if sample.mode == "closed":
            name = "reads" if sample.kind == "read" else f"writes, quorum {sample.quorum}"
            series.setdefault(name, []).append(sample)
    return {name: sorted(found, key=lambda sample: sample.clients) for name, found in series.items()}


def _open(samples: Sequence[LoadSample]) -> list[LoadSample]:
    return sorted((sample for sample in samples if sample.mode == "open"), key=lambda sample: sample.rate_per_s)


def capacity(settings: ThroughputSettings, samples: Sequence[LoadSample]) -> float | None:
    """The highest rate of writes of the closed loop at the quorum of the open loop, per second."""
    rates = [s.per_second for s in samples if s.mode == "closed" and s.quorum == settings.open_quorum]
    return max(rates, default=None)


def summarize(settings: ThroughputSettings, samples: Sequence[LoadSample]) -> Summary:
    """Tables and reading."""
    closed, opened = _closed(samples), _open(samples)
    virtual = any(sample.virtual for sample in samples)
    tables = [_closed_table(closed, virtual)]
    if opened:
        tables.append(_open_table(settings, samples, opened))
    best = {name: max(sample.per_second for sample in found) for name, found in closed.items()}
    reading = _virtual_reading(closed, opened, best) if virtual else _reading(closed, opened, best)
    failures = sum(sample.failures for sample in samples)
    if failures:
        reading.append(f"{counted(failures, 'request')} failed and are not in the rates and latencies.")
    return Summary(
        tables=tables,
        reading=reading,
        key_figures={f"highest rate, {name} (1/s)": rate for name, rate in best.items()},
    )


def _columns(virtual: bool) -> list[str]:
    """The columns that both tables have. On virtual time there is nothing to say about processors."""
    return [*LATENCIES] if virtual else [*LATENCIES, GENERATOR_CPU]


def _cells(sample: LoadSample) -> list[float]:
    """What stands under `_columns`."""
    found = [sample.mean_ms, sample.p50_ms, sample.p95_ms, sample.p99_ms, sample.max_ms, sample.failures]
    return found if sample.virtual else [*found, 100 * sample.client_cpu]


def _closed_table(closed: dict[str, list[LoadSample]], virtual: bool) -> Table:
    return Table(
        title="Closed loop: each client sends the next request when the last is answered",
        columns=[
            "requests",
            "clients",
            "per second",
            *_columns(virtual),
        ],
        rows=[
            [
                name,
                sample.clients,
                sample.per_second,
                *_cells(sample),
            ]
            for name, found in closed.items()
            for sample in found
        ],
        notes=["Reads go to all nodes in turn, at the level that is the default of each."]
        + ([] if virtual else ["Generator CPU: what share of one processor the sending program itself used."]),
    )


def _open_table(settings: ThroughputSettings, samples: Sequence[LoadSample], opened: list[LoadSample]) -> Table:
    highest = capacity(settings, samples) or float("nan")
    notes = ["Latency counts from the intended start of a write, so the time that it waited to be sent is in it."]
    virtual = any(sample.virtual for sample in opened)
    if virtual:
        notes.append(
            "Answered: until the last answer is there. So few writes are sent on virtual time that this wait lowers it."
        )
    return Table(
        title=f"Open loop: writes at a fixed rate, quorum {settings.open_quorum}",
        columns=[
            "offered (1/s)",
            "of the highest rate (%)",
            "answered (1/s)",
            *_columns(virtual),
        ],
        rows=[
            [
                sample.rate_per_s,
                100 * sample.rate_per_s / highest,
                sample.per_second,
                *_cells(sample),
            ]
            for sample in opened
        ],
        notes=notes,
    )


def _virtual_reading(
    closed: dict[str, list[LoadSample]], opened: list[LoadSample], best: dict[str, float]
) -> list[str]:
    """What concurrency against delay says, and what it does not."""
    every = [sample for found in closed.values() for sample in found if sample.count]
    # Sent one after another without a pause, so many requests are under way: rate x latency, by measurement.
    gap = max((abs(s.per_second * s.mean_ms / 1000 / s.clients - 1) for s in every), default=0.0)
    most = max((sample.clients for sample in every), default=0)
    rates = ", ".join(f"{rate:,.0f}/s ({name})" for name, rate in best.items())
    reading = [
        (
            "These are not the rates of any machine. On virtual time computing costs nothing; what takes time is the "
            f"way between two nodes or a client and a node ({_span(LATENCY_MS)}), a commit to disk "
            f"({_span(COMMIT_MS)}, one for all writes that wait for it), and the simulated delays. So no processor is "
            "ever busy, and this curve has no end."
        ),
        (
            f"What it shows is concurrency against delay, by Little's law: rate = clients / latency, which holds here "
            f"within {100 * gap:.0f} %. A client waits for its answer, so the rate grows with the number of clients "
            f"and shrinks with the latency of each write; with {counted(most, 'client')} it was {rates}. Latency "
            "grows a little from one client to several, because a write then waits for the commit before it."
        ),
    ]
    writes = [(name, found[-1]) for name, found in closed.items() if found[-1].kind == "write" and found[-1].count]
    if len(writes) > 1:
        told = ", ".join(f"{sample.mean_ms:.2f} ms ({name.removeprefix('writes, ')})" for name, sample in writes)
        reading.append(
            f"A larger quorum waits for a slower follower: with most clients a write took {told}, and as many clients "
            "get fewer writes done in that proportion. More clients make up for it as long as a machine can serve them."
        )
    if opened:
        reading.append(
            f"At a fixed rate the median write took {opened[0].p50_ms:.2f} ms at {opened[0].rate_per_s:,.0f}/s and "
            f"{opened[-1].p50_ms:.2f} ms at {opened[-1].rate_per_s:,.0f}/s: no queue, as nothing is ever busy. Where "
            "a real cluster has its limit, and how long its queues get there, only a run without --simulated can tell."
        )
    return reading


def _span(bounds_ms: tuple[float, float]) -> str:
    return f"{bounds_ms[0]:g} to {bounds_ms[1]:g} ms"


def _reading(closed: dict[str, list[LoadSample]], opened: list[LoadSample], best: dict[str, float]) -> list[str]:
    rates = ", ".join(f"{rate:,.0f}/s ({name})" for name, rate in best.items())
    reading = [
        (
            f"The highest rates of the closed loop were {rates}. One client alone waits for every answer; many share "
            "the work, such as each sync of a disk, so throughput grows with clients until a processor or the disk "
            "is busy. From then on more clients only wait longer: clients = rate x latency (Little's law)."
        ),
        _by_quorum(best),
    ]
    if opened:
        first, last = opened[0], opened[-1]
        reading.append(
            f"At a fixed rate the median write took {first.p50_ms:.2f} ms at {first.rate_per_s:,.0f}/s, and "
            f"{last.p50_ms:.2f} ms at {last.rate_per_s:,.0f}/s, p99 {first.p99_ms:.1f} and {last.p99_ms:.1f} ms. Near "
            "the capacity queues get long, and above it they grow for as long as the load lasts. A closed loop hides "
            "that: its clients send nothing while they wait. Plan for well below the capacity."
        )
    busiest = max((s.client_cpu for found in (*closed.values(), opened) for s in found), default=0.0)
    limit = (
        "so it was probably the limit in the busiest measurements, and the cluster can do more than is shown"
        if busiest >= BUSY
        else "so it was not the limit itself, though it takes time from nodes on the same machine"
    )
    reading.append(
        f"The load generator is written in Python and runs beside the nodes; it used up to {100 * busiest:.0f} % of "
        f"one processor, {limit}. `retinue bench` has a lighter one, for writes only."
    )
    return reading


def _by_quorum(best: dict[str, float]) -> str:
    """What the quorum did to the highest rate of writes, in words."""
    rates = [rate for name, rate in best.items() if name != "reads"]
    if len(rates) < 2 or rates[0] == 0:
        return "Only one write quorum was measured, so nothing is said about its influence."
    change = rates[-1] / rates[0] - 1
    if change > -SMALL_LOSS:
        return (
            f"From the smallest quorum to the largest the highest rate of writes changed by {100 * change:+.0f} %: "
            "every follower is sent everything anyway, so waiting for more of them costs latency rather than "
            "throughput."
        )
    return (
        f"From the smallest quorum to the largest the highest rate of writes changed by {100 * change:+.0f} %. Every "
        "follower is sent everything anyway, but a larger quorum waits for slower ones, so as many clients get fewer "
        "writes done. Where all nodes share one machine they also compete for it, and so does whatever else runs "
        "there: repeat the measurement before you rely on the difference."
    )


def pictures(settings: ThroughputSettings, samples: Sequence[LoadSample]) -> list[Picture]:
    """The pictures of these samples, as far as anything was answered."""
    answered = [sample for sample in samples if sample.count]
    closed, opened = _closed(answered), _open(answered)
    found = [_clients_picture(closed)] if closed else []
    return [*found, *([_rates_picture(settings, answered, opened)] if opened else [])]


def _clients_picture(closed: dict[str, list[LoadSample]]) -> Picture:
    figure = new_figure(10.0, 4.6)
    virtual = any(sample.virtual for found in closed.values() for sample in found)
    # What is proportional to the clients is a straight line where both axes are logarithmic.
    scale = "log" if virtual else "linear"
    left = new_axes(figure, "clients", "requests per second", (1, 2, 1), xscale="log", yscale=scale)
    right = new_axes(figure, "clients", "latency (ms)", (1, 2, 2), xscale="log")
    counts = sorted({sample.clients for found in closed.values() for sample in found})
    for number, (name, found) in enumerate(closed.items()):
        style = look(number)
        clients = [sample.clients for sample in found]
        shared: dict[str, Any] = {
            "color": style.colour,
            "marker": style.marker,
            "markersize": 6,
            "markeredgecolor": "white",
        }
        left.plot(clients, [s.per_second for s in found], linestyle=style.dash, label=name, clip_on=False, **shared)
        right.plot(clients, [s.p50_ms for s in found], linestyle="-", **shared)
        right.plot(clients, [s.p99_ms for s in found], linestyle=(0, (2, 1.5)), **shared)
    for axes in (left, right):
        axes.set_xticks(counts)
        axes.minorticks_off()
        plain_numbers(axes, "x")
    _scale_latency(right, [value for found in closed.values() for s in found for value in (s.p50_ms, s.p99_ms)])
    if not virtual:
        left.set_ylim(bottom=0)
    left.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    legend(left, loc="best", **ON_GRID)
    _name_quantiles(right)
    title(left, "Throughput")
    title(right, "Latency")
    caption = "Throughput and latency of a closed loop by number of clients, on one machine with all nodes."
    if virtual:
        caption = (
            "Throughput and latency of a closed loop by number of clients, on virtual time: nothing is ever busy, so "
            "the rate grows with the clients as long as latency stays."
        )
    return Picture("throughput-over-clients", caption, figure)


def _scale_latency(axes: Axes, latencies_ms: Sequence[float]) -> None:
    """From 0 on, or logarithmic where that would flatten the small ones; with room for a legend above them."""
    lowest, highest = min(latencies_ms), max(latencies_ms)
    if highest > WIDE_RANGE * lowest > 0:
        axes.set_yscale("log")
        axes.set_ylim(top=highest * (highest / lowest) ** 0.25)
        plain_numbers(axes, "y")
    else:
        axes.set_ylim(0, 1.25 * highest)


def _name_quantiles(axes: Axes) -> None:
    handles = [
        Line2D([], [], color=INK, linestyle="-", label="p50"),
        Line2D([], [], color=INK, linestyle=(0, (2, 1.5)), label="p99"),
    ]
    legend(axes, handles=handles, loc="upper left", ncols=2, **ON_GRID)


def _rates_picture(settings: ThroughputSettings, samples: Sequence[LoadSample], opened: list[LoadSample]) -> Picture:
    figure = new_figure(8.0, 4.4)
    axes = new_axes(figure, "offered writes per second", "latency from the intended start (ms)")
    rates = [sample.rate_per_s for sample in opened]
    for number, (name, latencies) in enumerate(
        (
            ("p50", [sample.p50_ms for sample in opened]),
            ("p95", [sample.p95_ms for sample in opened]),
            ("p99", [sample.p99_ms for sample in opened]),
        )
    ):
        style = look(number)
        axes.plot(
            rates,
            latencies,
            color=style.colour,
            marker=style.marker,
            markersize=6.5,
            markeredgecolor="white",
            linestyle=style.dash,
            label=name,
        )
    highest = capacity(settings, samples)
    if highest is not None:
        axes.axvline(highest, color=QUIET, linewidth=1.2, linestyle=(0, (4, 2)))
        axes.annotate(
            "highest rate of\nthe closed loop",
            xy=(highest, 0),
            xycoords=axes.get_xaxis_transform(),
            xytext=(-6, 8),
            textcoords="offset points",
            ha="right",
            va="bottom",
            color=QUIET,
            fontsize=9,
        )
    axes.set_xlim(left=0)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    _scale_latency(axes, [value for s in opened for value in (s.p50_ms, s.p99_ms)])
    legend(axes, loc="upper left", ncols=3, **ON_GRID)
    title(axes, f"Latency at a fixed rate of writes, quorum {settings.open_quorum}")
    caption = "Latency of writes that come at a fixed rate: close to the capacity a queue grows."
    if any(sample.virtual for sample in opened):
        caption = (
            "Latency of writes that come at a fixed rate, on virtual time: nothing is ever busy, so no queue grows."
        )
    return Picture("throughput-over-rate", caption, figure)
