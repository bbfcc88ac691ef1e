"""What the samples of the experiment `ordering` say, beside theory."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from statistics import fmean
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from matplotlib.axes import Axes

from retinue.lab.experiments.contract import Picture, Summary, Table
from retinue.lab.experiments.preparing import law_of
from retinue.lab.reports.figures import legend, look, new_axes, new_figure, plain_numbers, title
from retinue.lab.theory import InOrderAcknowledgement, InOrderLinks, OrderStatistic

if TYPE_CHECKING:
    from retinue.lab.experiments.ordering import OrderingSample, OrderingSettings

INDEPENDENT = "independent delays"
ACKNOWLEDGED = "acknowledged in order"
LINKS = "links in order"

POINTS_OF_CURVES = 25


class Latencies(NamedTuple):
    """The latencies of one kind at one rate, in ms."""

    kind: str
    rate_per_s: float
    latencies_ms: list[float]

    @property
    def mean_ms(self) -> float:
        """The mean."""
        return fmean(self.latencies_ms)

    @property
    def p95_ms(self) -> float:
        """The latency that 95 % did not exceed."""
        return float(np.quantile(self.latencies_ms, 0.95))


def measured(samples: Sequence[OrderingSample]) -> list[Latencies]:
    """The latencies of each kind, by kind and rate; only of what was measured."""
    found = []
    for kind, in_order, of_run in (
        (INDEPENDENT, False, _as_they_are),
        (ACKNOWLEDGED, False, acknowledged_in_order),
        (LINKS, True, _as_they_are),
    ):
        for rate_per_s in sorted({sample.rate_per_s for sample in samples}):
            run = [s for s in samples if s.in_order == in_order and s.rate_per_s == rate_per_s and s.acknowledged]
            if run:
                found.append(Latencies(kind, rate_per_s, of_run(run)))
    return found


def _as_they_are(samples: Sequence[OrderingSample]) -> list[float]:
    return [sample.latency_ms for sample in samples]


def acknowledged_in_order(samples: Sequence[OrderingSample]) -> list[float]:
    """The latencies if each write were answered only when all before it are answered, too, in ms."""
    ordered = sorted(samples, key=lambda sample: (sample.version, sample.sent_ms))
    answered = itertools.accumulate((sample.sent_ms + sample.latency_ms for sample in ordered), max)
    return [answered_ms - sample.sent_ms for sample, answered_ms in zip(ordered, answered, strict=True)]


Theory = OrderStatistic | InOrderAcknowledgement | InOrderLinks


def theory(settings: OrderingSettings, kind: str, rate_per_s: float) -> Theory:
    """What theory says of one kind; Poisson writes at this rate."""
    law, quorum, followers = law_of(settings), settings.quorum, settings.followers
    if kind == INDEPENDENT:
        return OrderStatistic(law, quorum, followers)
    if kind == ACKNOWLEDGED:
        return InOrderAcknowledgement(law, quorum, followers, rate_per_s)
    return InOrderLinks(law, quorum, followers, rate_per_s)


def summarize(settings: OrderingSettings, samples: Sequence[OrderingSample]) -> Summary:
    """Table and reading."""
    found = measured(samples)
    rows: list[list[str | int | float | None]] = []
    for seen in found:
        expected = theory(settings, seen.kind, seen.rate_per_s)
        rows.append(
            [
                seen.kind,
                seen.rate_per_s,
                len(seen.latencies_ms),
                seen.mean_ms,
                expected.mean,
                seen.p95_ms,
                float(expected.quantile(0.95)),
            ]
        )
    failures = sum(not sample.acknowledged for sample in samples)
    notes = [
        (
            f"Writes arrive as a Poisson process; quorum {settings.quorum}, {law_of(settings).describe()}; latency "
            "counts from the intended start."
        ),
        (
            "Acknowledged in order is computed from the run with independent delays: a write counts as answered when "
            "all writes before it are."
        ),
    ]
    if failures:
        notes.append(f"{failures} writes were not acknowledged and are left out.")
    return Summary(
        tables=[
            Table(
                title="Latency by order and rate",
                columns=["order", "writes/s", "writes", "mean (ms)", "theory (ms)", "p95 (ms)", "theory p95 (ms)"],
                rows=rows,
                notes=notes,
            )
        ],
        reading=_reading(settings, found),
        key_figures={f"mean at {seen.rate_per_s:g}/s, {seen.kind} (ms)": seen.mean_ms for seen in found},
    )


def _reading(settings: OrderingSettings, found: list[Latencies]) -> list[str]:
    return [
        _seen(found),
        (
            "Where entries overtake each other, a write waits for its own copies only, so its latency does not depend "
            "on the rate. Where a link delivers in order, as one TCP connection does, one late entry holds up all that "
            "were sent after it: head-of-line blocking. The more writes are under way, the more often somebody is "
            "late, and in the end every write takes nearly the largest delay, whatever the quorum. Acknowledging in "
            "order has the same effect one step later: the slowest of the earlier writes decides, though the copies "
            "have long arrived."
        ),
        _difference(settings, found),
        (
            "So let messages of different writes overtake each other, on several connections or on one without order, "
            "put them in order by version where they arrive, and acknowledge each write by itself."
        ),
    ]


def _seen(found: list[Latencies]) -> str:
    parts = []
    for kind in (INDEPENDENT, ACKNOWLEDGED, LINKS):
        of_kind = [seen for seen in found if seen.kind == kind]
        if of_kind:
            means = ", ".join(f"{seen.mean_ms:.0f} ms at {seen.rate_per_s:g}/s" for seen in of_kind)
            parts.append(f"{kind} {means}")
    return f"Mean latency was: {'; '.join(parts)}." if parts else "No write was acknowledged."


def _difference(settings: OrderingSettings, found: list[Latencies]) -> str:
    """Where the measured means leave theory, in words."""
    differences = [(seen, seen.mean_ms - theory(settings, seen.kind, seen.rate_per_s).mean) for seen in found]
    if not differences:
        return "There is nothing to compare with theory."
    worst, by_ms = max(differences, key=lambda pair: abs(pair[1]))
    return (
        f"The largest difference between a measured mean and theory is {by_ms:+.1f} ms ({worst.kind} at "
        f"{worst.rate_per_s:g}/s). Chance explains some of it where writes are few; the rest is what the system itself "
        "needs, or at high rates a machine that cannot keep up, which theory leaves out."
    )


def pictures(settings: OrderingSettings, samples: Sequence[OrderingSample]) -> list[Picture]:
    """Latency over rate: mean and 95 % quantile."""
    found = measured(samples)
    figure = new_figure(9.0, 4.6)
    rates = [seen.rate_per_s for seen in found]
    curve = np.geomspace(min(rates) / 1.5, max(rates) * 1.5, POINTS_OF_CURVES) if rates else np.ones(1)
    statistics: list[tuple[str, Callable[[Latencies], float], Callable[[Theory], float]]] = [
        ("mean", lambda seen: seen.mean_ms, lambda expected: expected.mean),
        ("95 % quantile", lambda seen: seen.p95_ms, lambda expected: float(expected.quantile(0.95))),
    ]
    first: Axes | None = None
    highest_ms = 0.0
    for column, (name, of_samples, of_theory) in enumerate(statistics, 1):
        axes = new_axes(
            figure, "writes per second", f"latency, {name} (ms)", (1, 2, column), xscale="log", sharey=first
        )
        for number, kind in enumerate((INDEPENDENT, ACKNOWLEDGED, LINKS)):
            style = look(number)
            of_kind = [seen for seen in found if seen.kind == kind]
            heights = [of_theory(theory(settings, kind, float(rate))) for rate in curve]
            axes.plot(curve, heights, color=style.colour, linestyle=style.dash, linewidth=1.4)
            axes.plot(
                [seen.rate_per_s for seen in of_kind],
                [of_samples(seen) for seen in of_kind],
                color=style.colour,
                marker=style.marker,
                markersize=7,
                markeredgecolor="white",
                linestyle="none",
                label=kind,
            )
        first = axes
        plain_numbers(axes, "x")
        highest_ms = max(highest_ms, *heights, *(of_samples(seen) for seen in found))
        axes.set_ylim(0, highest_ms * 1.08)
        if column == 1:
            legend(axes, title="points measured, lines theory", loc="lower right", alignment="left")
            title(axes, f"Quorum {settings.quorum}, {law_of(settings).describe()}")
    caption = (
        "Latency of Poisson writes by rate: with independent delays it does not depend on the rate, in order it rises "
        "towards the largest delay."
    )
    return [Picture("ordering-latency-over-rate", caption, figure)]
