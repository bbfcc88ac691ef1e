"""Tables and reading of the experiment `quorum`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from retinue.lab.experiments.contract import Summary, Table
from retinue.lab.experiments.preparing import law_of
from retinue.lab.experiments.quorum_sample import QuorumSample
from retinue.lab.experiments.quorum_statistics import AtQuorum, by_quorum
from retinue.lab.judging.diagnosis import slower_than_all
from retinue.lab.theory import OrderStatistic

if TYPE_CHECKING:
    from retinue.lab.experiments.quorum import QuorumSettings

PUBLISHED_MEANS_MS = (209.5, 367.0, 520.0, 657.9, 838.7)
PUBLISHED_DIFFERING = (40, 29, 20, 10, 0)
"""What a university laboratory published for the preset `classic`: mean latency, and cells of 50 that were missing or
stale after the last write, for write quorum 1 to 5."""

Rows = Sequence[AtQuorum]


def summarize(settings: QuorumSettings, samples: Sequence[QuorumSample]) -> Summary:
    """Everything the samples say; quorums without an acknowledged write appear among the failures only."""
    rows = by_quorum(settings, samples)
    everything = [AtQuorum(settings, quorum, samples) for quorum in sorted({sample.quorum for sample in samples})]
    tables = [_latency(rows), _cost(everything)] if rows else [_cost(everything)]
    further = (_fits(rows), _replicas(everything), _reads(everything), _failures(everything))
    tables += [table for table in further if table.rows]
    if rows and is_published(settings):
        tables += _published(rows)
    return Summary(
        tables=tables,
        reading=_reading(settings, rows, everything),
        key_figures=_key_figures(rows, everything),
        violations=_violations(everything),
    )


def is_published(settings: QuorumSettings) -> bool:
    """Whether this is the set-up that the published numbers are of."""
    same = (settings.writes, settings.keys, settings.concurrency, settings.followers) == (100, 10, 10, 5)
    return same and (settings.distribution, settings.min_delay_ms, settings.max_delay_ms) == ("uniform", 0.0, 1000.0)


def _latency(rows: Rows) -> Table:
    columns = ["quorum", "mean ms", "95 % ± ms", "theory mean ms"]
    for name in ("p50", "p95", "p99"):
        columns += [f"{name} ms", f"theory {name} ms"]
    cells: list[list[str | int | float | None]] = []
    for at in rows:
        row: list[str | int | float | None] = [at.quorum, at.mean_ms, at.half_width_ms]
        row.append(at.theory.mean if at.theory else None)
        for p in (0.5, 0.95, 0.99):
            row += [at.quantile_ms(p), at.theory.quantile(p) if at.theory else None]
        cells.append([*row, float(at.latencies_ms.max())])
    notes = ["Latency is what the client waited for acknowledged writes."]
    if rows[0].theory:
        notes.append("Theory counts the simulated delays alone.")
    if any(len(at.latencies_ms) <= 100 for at in rows):
        notes.append("Of 100 writes, the p99 is the slowest or the one before: expect it to scatter.")
    return _without_empty_columns(Table(title="Write latency", columns=[*columns, "max ms"], rows=cells, notes=notes))


def _without_empty_columns(table: Table) -> Table:
    """The table without columns that hold nothing, such as theory where no delay is simulated."""
    kept = [number for number in range(len(table.columns)) if any(row[number] is not None for row in table.rows)]
    columns = [table.columns[number] for number in kept]
    rows = [[row[number] for number in kept] for row in table.rows]
    return Table(title=table.title, columns=columns, rows=rows, notes=table.notes)


def _cost(everything: Rows) -> Table:
    told = any(at.overheads_ms is not None for at in everything)
    columns = ["quorum", "writes", "failed", "success %", "writes/s"]
    columns += ["overhead mean ms", "overhead p50 ms"]
    cells: list[list[str | int | float | None]] = []
    for at in everything:
        if not at.writes:
            continue
        failed = len(at.writes) - len(at.acknowledged)
        row: list[str | int | float | None] = [at.quorum, len(at.writes), failed, at.success_percent, at.per_second]
        row.append(at.overhead_ms if at.acknowledged else None)
        overheads = at.overheads_ms if at.acknowledged else None
        cells.append([*row, None if overheads is None else float(np.median(overheads))])
    if not any(at.theory for at in everything):
        return _without_empty_columns(Table(title="Outcomes", columns=columns, rows=cells))
    note = (
        "Overhead is the latency minus the k-th smallest of the delays drawn for the same write: what is left is ours."
        if told
        else "The server does not tell its delays, so overhead is the mean above theory's, with its sampling error."
    )
    title = "Outcomes, and what a write costs besides the delays"
    return _without_empty_columns(Table(title=title, columns=columns, rows=cells, notes=[note]))


def _fits(rows: Rows) -> Table:
    cells: list[list[str | int | float | None]] = [
        [at.quorum, len(at.latencies_ms), at.fit.sentence] for at in rows if at.fit is not None
    ]
    notes = ["Tested is the latency minus the median overhead, against the law of the k-th smallest delay."]
    if any(at.is_load_bound for at in rows):
        notes.append("Where the overhead is larger than the spread of the delays, this says nothing about the delays.")
    columns = ["quorum", "writes", "Kolmogorov-Smirnov test"]
    return Table(title="Do the latencies follow the law?", columns=columns, rows=cells, notes=notes)


def _replicas(everything: Rows) -> Table:
    columns = ["quorum", "cells", "at once: missing", "older", "other", "% differing", "after settling"]
    cells: list[list[str | int | float | None]] = []
    for at in everything:
        if not at.at_once:
            continue
        total = sum(sample.cells for sample in at.at_once)
        counts = [sum(getattr(sample, name) for sample in at.at_once) for name in ("missing", "older", "other")]
        settled = sum(sample.differing for sample in at.settled) if at.settled else None
        cells.append([at.quorum, total, *counts, 100 * sum(counts) / max(total, 1), settled])
    notes = [
        "A cell is one key at one follower, compared with the leader.",
        "At once is after the last acknowledgement, settled is the largest delay and a second later.",
    ]
    return Table(title="Replicas behind the leader", columns=columns, rows=cells, notes=notes)


def _reads(everything: Rows) -> Table:
    columns = ["quorum", "reads", "failed", "reads/s", "mean ms", "p50 ms", "p95 ms", "p99 ms"]
    cells: list[list[str | int | float | None]] = []
    for at in everything:
        latencies = [read.latency_ms for read in at.reads if read.outcome == "answered"]
        if not latencies:
            continue
        span_ms = max(read.begun_ms + read.latency_ms for read in at.reads) - min(read.begun_ms for read in at.reads)
        quantiles = [float(np.quantile(latencies, p)) for p in (0.5, 0.95, 0.99)]
        failed = len(at.reads) - len(latencies)
        per_second = len(latencies) / max(span_ms, 1e-3) * 1000
        cells.append([at.quorum, len(at.reads), failed, per_second, float(np.mean(latencies)), *quantiles])
    notes = ["Reads at all nodes in turn, while the writes ran."]
    return Table(title="Read latency", columns=columns, rows=cells, notes=notes)


def _failures(everything: Rows) -> Table:
    cells: list[list[str | int | float | None]] = []
    for at in everything:
        for outcome, failed in at.failures.items():
            cells.append([at.quorum, outcome, len(failed), failed[0].detail])
    return Table(
        title="Writes that were not acknowledged", columns=["quorum", "outcome", "writes", "first"], rows=cells
    )


def _published(rows: Rows) -> list[Table]:
    latencies: list[list[str | int | float | None]] = []
    cells: list[list[str | int | float | None]] = []
    for at in rows:
        there_ms, theory_ms = PUBLISHED_MEANS_MS[at.quorum - 1], at.theory.mean if at.theory else 0.0
        above = [at.mean_ms - theory_ms, there_ms - theory_ms]
        latencies.append([at.quorum, theory_ms, at.mean_ms, there_ms, *above])
        once = sum(sample.differing for sample in at.at_once) if at.at_once else None
        settled = sum(sample.differing for sample in at.settled) if at.settled else None
        cells.append([at.quorum, once, settled, PUBLISHED_DIFFERING[at.quorum - 1]])
    return [
        Table(
            title="Mean latency beside published numbers",
            columns=["quorum", "theory ms", "here ms", "there ms", "here above theory ms", "there above theory ms"],
            rows=latencies,
            notes=["There: a university laboratory with 100 writes on 10 keys, 10 at a time, U[0, 1000] ms."],
        ),
        Table(
            title="Differing cells beside published numbers",
            columns=["quorum", "here at once", "here settled", "there"],
            rows=cells,
            notes=[
                "The cells there are no lag: they are nearly 10 keys x (5 - quorum), and they stay.",
                "That system drops the sends that are left when the quorum is met.",
            ],
        ),
    ]


def _key_figures(rows: Rows, everything: Rows) -> dict[str, float]:
    figures: dict[str, float] = {}
    for at in rows:
        place = f"at quorum {at.quorum}"
        figures[f"mean latency {place} (ms)"] = at.mean_ms
        for p, name in ((0.5, "p50"), (0.95, "p95"), (0.99, "p99")):
            figures[f"{name} latency {place} (ms)"] = at.quantile_ms(p)
        if at.overhead_ms is not None:
            figures[f"mean overhead {place} (ms)"] = at.overhead_ms
        figures[f"throughput {place} (writes/s)"] = at.per_second
        figures[f"success {place} (%)"] = at.success_percent
        if at.at_once:
            figures[f"cells behind at once {place}"] = float(sum(sample.differing for sample in at.at_once))
    settled = [sample for at in everything for sample in at.settled]
    if settled:
        figures["cells different after settling"] = float(sum(sample.differing for sample in settled))
    return figures


def _violations(everything: Rows) -> list[str]:
    found = []
    for at in everything:
        worst = max(at.settled, key=lambda sample: sample.differing, default=None)
        if worst is not None and worst.differing:
            total = sum(sample.differing for sample in at.settled)
            found.append(
                f"After settling at write quorum {at.quorum} {total} cells differed from the leader's, "
                f"{worst.differing} of them at {worst.node}: replicas must end up equal."
            )
    return found


def _reading(settings: QuorumSettings, rows: Rows, everything: Rows) -> list[str]:
    if not rows:
        return ["No write was acknowledged, so there is nothing to read: the table of failures says why."]
    paragraphs = [_what_is_seen(settings, rows)]
    if rows[0].theory is not None:
        paragraphs += [_what_theory_says(settings, rows), _why_they_differ(rows)]
    paragraphs += [text for text in (_why_so_slow(settings, rows), _what_replicas_say(everything)) if text]
    if is_published(settings):
        paragraphs.append(
            "A university laboratory published this set-up with means of "
            + " / ".join(f"{PUBLISHED_MEANS_MS[at.quorum - 1]:g}" for at in rows)
            + " ms: the same shape, for the delays make it, on top of the overhead of that system. The last "
            "tables set both side by side."
        )
    return [*paragraphs, _what_to_choose(settings)]


def _what_is_seen(settings: QuorumSettings, rows: Rows) -> str:
    first, last = rows[0], rows[-1]
    text = f"A write took {_ms(first.mean_ms)} on average (p95 {_ms(first.quantile_ms(0.95))}) "
    text += f"at write quorum {first.quorum}"
    if last is not first:
        ratio = f"{last.mean_ms / first.mean_ms:.1f}"
        text += (
            f", and {_ms(last.mean_ms)} (p95 {_ms(last.quantile_ms(0.95))}) at {last.quorum}: "
            f"{'about as long' if ratio == '1.0' else f'{ratio} times as long'}. "
            "The leader sends to all followers at once and answers when the k-th of them has confirmed, so a larger "
            "quorum does not send more; it waits for a slower one."
        )
    else:
        text += "."
    if settings.max_delay_ms == 0:
        text += " No delay was simulated, so this is what the program, the network and the disk take."
    return text


def _what_theory_says(settings: QuorumSettings, rows: Rows) -> str:
    law = law_of(settings)
    means = " / ".join(_ms(at.theory.mean, unit=False) for at in rows if at.theory)
    quorums = ", ".join(str(at.quorum) for at in rows)
    text = (
        f"Each copy takes a random delay, {law.describe()}, of its own; the answer waits for the k-th smallest of "
        f"{settings.followers}. Theory gives a mean of {means} ms for quorum {quorums}. "
    )
    told = [at for at in rows if at.agrees is not None]
    if told:
        agreeing = sum(bool(at.agrees) for at in told)
        text += (
            f"With the overhead added, {agreeing} of {len(told)} measured means lie within their sampling error of it "
            "(95 % confidence, so one in twenty may miss by chance)."
        )
    else:
        text += "The picture shows how far the measured means lie above."
    return text


def _why_they_differ(rows: Rows) -> str:
    scatter = [at.half_width_ms for at in rows if at.half_width_ms is not None]
    text = "Two things part measurement and theory. "
    if scatter:
        least, most = f"{min(scatter):.2g}", f"{max(scatter):.2g}"
        known_to = least if least == most else f"{least} to {most}"
        text += f"One is chance: with so many writes a mean is known to ± {known_to} ms. "
    known = [at for at in rows if at.overheads_ms is not None]
    if known:
        medians = [float(np.median(at.overheads_ms)) for at in known if at.overheads_ms is not None]
        text += (
            "The other is overhead: HTTP, the leader, the links, the disk. It is measured without chance, for the "
            f"server tells the delays that it drew: the median write took {min(medians):.2f} to {max(medians):.2f} ms "
            "more than they did."
        )
        if any(at.is_load_bound for at in known):
            text += (
                " That is more than the spread of the delays, so the load makes the shape of these latencies, not the "
                "law; with fewer writes at a time (--concurrency) less waits in queues."
            )
    else:
        text += "The other is overhead; this server does not tell its delays, so the two cannot be separated here."
    return text


def _why_so_slow(settings: QuorumSettings, rows: Rows) -> str:
    """The likely cause where a server that does not tell its delays is slower than they can make it; else empty."""
    everybody = OrderStatistic(law_of(settings), settings.followers, settings.followers)
    for at in rows:
        if at.theory is not None and at.overheads_ms is None and at.interval is not None:
            fault = slower_than_all(at.quorum, at.interval.low, everybody.mean)
            if fault is not None:
                return f"{fault.name.capitalize()}: {fault.seen}. Likely {fault.cause}. Cure: {fault.cure}."
    return ""


def _what_replicas_say(everything: Rows) -> str:
    compared = [at for at in everything if at.at_once]
    if not compared:
        return ""
    counts = " / ".join(str(sum(sample.differing for sample in at.at_once)) for at in compared)
    quorums = ", ".join(str(at.quorum) for at in compared)
    final = sum(sample.differing for at in compared for sample in at.settled)
    if final == 0 and not any(sample.differing for at in compared for sample in at.at_once):
        return f"No cell of the followers was behind after the last acknowledgement, for quorum {quorums}."
    text = f"Right after the last acknowledgement {counts} cells of the followers were behind, for quorum {quorums}. "
    if not any(at.settled for at in compared):
        return text + "The run ended before the replicas had settled."
    if final == 0:
        return text + "After settling none was: that was lag, the other price of a small quorum, and no divergence."
    return text + f"After settling {final} still differed: that is divergence, and no delay explains it."


def _what_to_choose(settings: QuorumSettings) -> str:
    majority = settings.followers // 2 + 1
    return (
        "What to choose: quorum 1 is fastest, and an acknowledged write then survives the loss of one disk; each "
        "further follower adds one disk, less lag, and the wait shown here. "
        f"Quorum {settings.followers} leaves no follower behind, but one that is down stops all writes. "
        f"{majority} of {settings.followers} is the usual middle: it goes on with {settings.followers - majority} "
        "followers down, and the slowest do not set the pace."
    )


def _ms(value: float, *, unit: bool = True) -> str:
    digits = 0 if value >= 100 else 1 if value >= 10 else 2
    return f"{value:.{digits}f}" + (" ms" if unit else "")
