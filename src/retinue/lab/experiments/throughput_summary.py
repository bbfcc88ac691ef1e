"""What the samples of the experiment `throughput` say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from retinue.lab.experiments.contract import Picture, Summary, Table
from retinue.lab.reports.figures import INK, QUIET, legend, look, new_axes, new_figure, plain_numbers, title

if TYPE_CHECKING:
    from retinue.lab.experiments.throughput import LoadSample, ThroughputSettings

BUSY = 0.85
"""From this share of a processor on, the load generator itself may be the limit."""

COLUMNS = ("mean (ms)", "p50 (ms)", "p95 (ms)", "p99 (ms)", "max (ms)", "failures", "generator CPU (%)")

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
    tables = [_closed_table(closed)]
    if opened:
        tables.append(_open_table(settings, samples, opened))
    best = {name: max(sample.per_second for sample in found) for name, found in closed.items()}
    return Summary(
        tables=tables,
        reading=_reading(settings, closed, opened, best),
        key_figures={f"highest rate, {name} (1/s)": rate for name, rate in best.items()},
    )


def _columns(sample: LoadSample) -> list[float]:
    """What stands under `COLUMNS`."""
    latencies_ms = [sample.mean_ms, sample.p50_ms, sample.p95_ms, sample.p99_ms, sample.max_ms]
    return [*latencies_ms, sample.failures, 100 * sample.client_cpu]


def _closed_table(closed: dict[str, list[LoadSample]]) -> Table:
    return Table(
        title="Closed loop: each client sends the next request when the last is answered",
        columns=[
            "requests",
            "clients",
            "per second",
            *COLUMNS,
        ],
        rows=[
            [
                name,
                sample.clients,
                sample.per_second,
                *_columns(sample),
            ]
            for name, found in closed.items()
            for sample in found
        ],
        notes=[
            "Reads go to all nodes in turn, at the level that is the default of each.",
            "Generator CPU: what share of one processor the program that sends the requests used itself.",
        ],
    )


def _open_table(settings: ThroughputSettings, samples: Sequence[LoadSample], opened: list[LoadSample]) -> Table:
    highest = capacity(settings, samples) or float("nan")
    return Table(
        title=f"Open loop: writes at a fixed rate, quorum {settings.open_quorum}",
        columns=[
            "offered (1/s)",
            "of the capacity (%)",
            "answered (1/s)",
            *COLUMNS,
        ],
        rows=[
            [
                sample.rate_per_s,
                100 * sample.rate_per_s / highest,
                sample.per_second,
                *_columns(sample),
            ]
            for sample in opened
        ],
        notes=["Latency counts from the intended start of a write, so the time that it waited to be sent is in it."],
    )


def _reading(
    settings: ThroughputSettings,
    closed: dict[str, list[LoadSample]],
    opened: list[LoadSample],
    best: dict[str, float],
) -> list[str]:
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
    failures = sum(sample.failures for found in (*closed.values(), opened) for sample in found)
    if failures:
        reading.append(f"{failures} requests failed and are not in the rates and latencies.")
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
    left = new_axes(figure, "clients", "requests per second", (1, 2, 1), xscale="log")
    right = new_axes(figure, "clients", "latency (ms)", (1, 2, 2), xscale="log", yscale="log")
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
    plain_numbers(right, "y")
    left.set_ylim(bottom=0)
    left.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    legend(left, loc="upper left")
    _name_quantiles(right)
    title(left, "Throughput")
    title(right, "Latency")
    caption = "Throughput and latency of a closed loop by number of clients, on one machine with all nodes."
    return Picture("throughput-over-clients", caption, figure)


def _name_quantiles(axes: Axes) -> None:
    handles = [
        Line2D([], [], color=INK, linestyle="-", label="p50"),
        Line2D([], [], color=INK, linestyle=(0, (2, 1.5)), label="p99"),
    ]
    legend(axes, handles=handles, loc="upper left")


def _rates_picture(settings: ThroughputSettings, samples: Sequence[LoadSample], opened: list[LoadSample]) -> Picture:
    figure = new_figure(8.0, 4.4)
    axes = new_axes(figure, "offered writes per second", "latency from the intended start (ms)", yscale="log")
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
            "capacity of\nthe closed loop",
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
    plain_numbers(axes, "y")
    legend(axes, loc="upper left")
    title(axes, f"Latency at a fixed rate of writes, quorum {settings.open_quorum}")
    caption = "Latency of writes that come at a fixed rate: close to the capacity a queue grows."
    return Picture("throughput-over-rate", caption, figure)
