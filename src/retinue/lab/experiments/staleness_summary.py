"""What the samples of the experiment `staleness` say, beside theory."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from statistics import fmean
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from retinue.lab.delay_law import Array, Law
from retinue.lab.experiments.contract import Picture, Summary, Table
from retinue.lab.experiments.preparing import law_of
from retinue.lab.inference import Interval, proportion_interval
from retinue.lab.reports.figures import INK, legend, look, new_axes, new_figure, title
from retinue.lab.theory import missed_by_readers, stale_probability

if TYPE_CHECKING:
    from retinue.lab.experiments.staleness import ReadSample, StalenessSettings

ENOUGH_SESSION_READS = 10_000

INTERPOLATION_POINTS = 301

# A difference from theory is put down to chance up to so many standard errors, one report in a thousand goes beyond;
# and one below a percentage point to what the servers themselves need, which theory leaves out.
CHANCE = 3.3
SMALL = 0.01


class Bin(NamedTuple):
    """The reads that were due at one moment: how many were stale, when they really were, and what theory expects."""

    due_ms: float
    mean_ms: float
    reads: int
    stale: int
    expected: float

    @property
    def fraction(self) -> float:
        """The measured probability of a stale read."""
        return self.stale / self.reads

    @property
    def interval(self) -> Interval:
        """Its 95 % interval."""
        return proportion_interval(self.stale, self.reads)

    @property
    def agrees(self) -> bool:
        """Whether the interval holds what theory expects."""
        low, high = self.interval
        return low - 1e-9 <= self.expected <= high + 1e-9


class AtQuorum:
    """The reads at one write quorum."""

    def __init__(self, law: Law, quorum: int, samples: Sequence[ReadSample]) -> None:
        self.quorum = quorum
        self.followers = len({sample.node for sample in samples})
        self._law = law
        self.local = [sample for sample in samples if not sample.session and sample.answered]
        self.session = [sample for sample in samples if sample.session]
        self.unanswered = sum(not sample.answered for sample in samples)

    def theory(self, t_ms: float) -> float:
        """The probability that a read at a random follower, `t_ms` after the acknowledgement, is stale."""
        if self._law.max_ms == 0 or self.quorum >= self.followers:
            return 0.0
        return float(stale_probability(self._law, self.quorum, self.followers, t_ms))

    def bins(self) -> list[Bin]:
        """The reads without session token by the moment when they were due."""
        grouped: dict[float, list[ReadSample]] = defaultdict(list)
        for sample in self.local:
            grouped[sample.due_ms].append(sample)
        return [self._bin(due_ms, grouped[due_ms]) for due_ms in sorted(grouped)]

    def missed(self, readers: int) -> tuple[float, int] | None:
        """How likely reading `readers` random followers at +0 ms finds no copy, and from how many writes that is known.

        Each write counts with the fraction of all sets of followers that miss it.
        """
        stale: dict[int, list[bool]] = defaultdict(list)
        for sample in self.local:
            if sample.due_ms == 0:
                stale[sample.write].append(sample.stale)
        known = [sum(found) for found in stale.values() if len(found) == self.followers]
        if not known:
            return None
        sets = math.comb(self.followers, readers)
        return fmean(math.comb(count, readers) / sets for count in known), len(known)

    @property
    def excess(self) -> tuple[float, float]:
        """How much higher the probability of a stale read is than theory says, over all reads, and its standard error.

        The reads of one write depend on each other, so writes are what is counted.
        """
        stale = np.array([sample.stale for sample in self.local], dtype=float)
        _, writes = np.unique([sample.write for sample in self.local], return_inverse=True)
        sums = np.bincount(writes, weights=stale - self._expected(_moments(self.local)))
        return float(sums.sum() / stale.size), float(np.sqrt(sums.size) * sums.std() / stale.size)

    def _expected(self, times_ms: Array) -> Array:
        """What theory says of each of these moments; interpolated, for they are many."""
        nodes = np.linspace(float(times_ms.min()), float(times_ms.max()), INTERPOLATION_POINTS)
        return np.interp(times_ms, nodes, [self.theory(float(node)) for node in nodes])

    def _bin(self, due_ms: float, samples: Sequence[ReadSample]) -> Bin:
        times = _moments(samples)
        stale = sum(sample.stale for sample in samples)
        return Bin(due_ms, float(times.mean()), len(samples), stale, float(self._expected(times).mean()))


def _moments(samples: Sequence[ReadSample]) -> Array:
    """When each read was served, in ms after the acknowledgement: its beginning and its answer enclose it."""
    return np.array([max(0.0, (sample.begun_ms + sample.ended_ms) / 2) for sample in samples])


def at_quorums(settings: StalenessSettings, samples: Sequence[ReadSample]) -> list[AtQuorum]:
    """The samples by write quorum."""
    grouped: dict[int, list[ReadSample]] = defaultdict(list)
    for sample in samples:
        grouped[sample.quorum].append(sample)
    return [AtQuorum(law_of(settings), quorum, grouped[quorum]) for quorum in sorted(grouped)]


def summarize(settings: StalenessSettings, samples: Sequence[ReadSample]) -> Summary:
    """Tables, reading and verdict."""
    quorums = at_quorums(settings, samples)
    tables = [_time_table(quorums), _readers_table(quorums)]
    stale = sum(sample.stale for seen in quorums for sample in seen.session)
    if any(seen.session for seen in quorums):
        tables.append(_session_table(quorums))
    figures = {
        f"stale at +0 ms, quorum {seen.quorum} (%)": b.fraction * 100 for seen in quorums for b in seen.bins()[:1]
    }
    return Summary(
        tables=tables,
        reading=[*_reading(settings, quorums), _session_reading(quorums)],
        key_figures=figures | {"stale reads with session token": float(stale)},
        violations=[sentence for seen in quorums for sentence in _violations(seen)],
    )


def _time_table(quorums: list[AtQuorum]) -> Table:
    columns = ["t (ms)"]
    cells: dict[float, list[str | int | float | None]] = {}
    for seen in quorums:
        columns += [f"quorum {seen.quorum}: stale (%)", "95 % interval", "theory (%)"]
        bins = {found.due_ms: found for found in seen.bins()}
        for due_ms in sorted({b.due_ms for other in quorums for b in other.bins()}):
            row = cells.setdefault(due_ms, [due_ms])
            found = bins.get(due_ms)
            if found is None:
                row += [None, None, None]
            else:
                low, high = found.interval
                row += [100 * found.fraction, f"{100 * low:.1f} to {100 * high:.1f}", 100 * found.expected]
    return Table(
        title="Stale reads at a random follower, t ms after the acknowledgement",
        columns=columns,
        rows=[cells[due_ms] for due_ms in sorted(cells)],
        notes=[
            "Theory is taken at the moments when the reads really were, halfway between request and answer.",
            "Intervals are Wilson's.",
        ],
    )


def _readers_table(quorums: list[AtQuorum]) -> Table:
    columns = ["followers read"]
    for seen in quorums:
        columns += [f"quorum {seen.quorum}: missed (%)", "theory (%)"]
    rows: list[list[str | int | float | None]] = []
    for readers in range(1, max((seen.followers for seen in quorums), default=0) + 1):
        row: list[str | int | float | None] = [readers]
        for seen in quorums:
            found = seen.missed(readers)
            theory = missed_by_readers(seen.quorum, seen.followers, readers) if readers <= seen.followers else None
            row += [None if found is None else 100 * found[0], None if theory is None else 100 * theory]
        rows.append(row)
    return Table(
        title="Reading several random followers at +0 ms: how often none of them has the write",
        columns=columns,
        rows=rows,
        notes=["Theory: C(n-k, R) / C(n, R) for R of n followers at quorum k (Bailis et al. 2012)."],
    )


def _session_table(quorums: list[AtQuorum]) -> Table:
    rows: list[list[str | int | float | None]] = []
    for seen in quorums:
        answered = [sample for sample in seen.session if sample.answered]
        waits = [sample.ended_ms - sample.begun_ms for sample in answered] or [math.nan]
        unanswered = len(seen.session) - len(answered)
        stale = sum(sample.stale for sample in answered)
        rows.append([seen.quorum, len(answered), stale, unanswered, fmean(waits), float(np.quantile(waits, 0.95))])
    return Table(
        title="Reads with the session token of the write",
        columns=["write quorum", "reads", "stale", "unanswered", "mean wait (ms)", "p95 wait (ms)"],
        rows=rows,
        notes=["Such a read waits at the follower until that has everything up to the write of the token."],
    )


def _violations(seen: AtQuorum) -> list[str]:
    stale = [sample for sample in seen.session if sample.stale]
    if not stale:
        return []
    first = stale[0]
    return [
        (
            f"{len(stale)} of {len(seen.session)} reads with a session token were stale at quorum {seen.quorum}, the "
            f"first at {first.node}, {first.begun_ms:.0f} ms after the acknowledgement."
        )
    ]


def _reading(settings: StalenessSettings, quorums: list[AtQuorum]) -> list[str]:
    bins = [found for seen in quorums for found in seen.bins()]
    agreeing = sum(found.agrees for found in bins)
    first = ", ".join(f"{100 * b.fraction:.0f} % at quorum {seen.quorum}" for seen in quorums for b in seen.bins()[:1])
    verdicts = [_verdict(seen) for seen in quorums if seen.local]
    unanswered = sum(seen.unanswered for seen in quorums)
    return [
        (
            f"Right after the acknowledgement a random follower missed the write in {first} of the reads: the quorum "
            "has it, the others have not yet. The probability falls with time, and is 0 when the largest delay has "
            "passed."
        ),
        f"Theory for {law_of(settings).describe()} lies within the 95 % interval at {agreeing} of {len(bins)} points; "
        f"chance leaves about 19 of 20. {' '.join(verdicts)}"
        + (f" {unanswered} reads had no answer and are not counted." if unanswered else ""),
        (
            "A quorum of all followers makes every read at a follower fresh, and every write as slow as the slowest of "
            "them. With less, read at the leader, wait, read several followers, or send the session token."
        ),
    ]


def _verdict(seen: AtQuorum) -> str:
    excess, error = seen.excess
    off = f"{100 * excess:+.2f} percentage points off, standard error {100 * error:.2f}"
    if abs(excess) <= max(CHANCE * error, SMALL):
        return f"Over all reads at quorum {seen.quorum} theory is right ({off})."
    return (
        f"Over all reads at quorum {seen.quorum} theory is wrong ({off}): the simulated delays are not all that keeps "
        "the followers behind, or they are not drawn as assumed."
    )


def _session_reading(quorums: list[AtQuorum]) -> str:
    answered = [sample for seen in quorums for sample in seen.session if sample.answered]
    if not answered:
        return "Nothing was read with a session token: this server has none, or none was asked for."
    stale = sum(sample.stale for sample in answered)
    if stale:
        return (
            f"Of {len(answered)} reads with the session token {stale} were stale: the promise of the token is broken."
        )
    enough = "" if len(answered) >= ENOUGH_SESSION_READS else f" (too few to say much: ask for {ENOUGH_SESSION_READS})"
    return (
        f"Of {len(answered)} reads with the session token of the write none was stale{enough}. The price is the wait, "
        "for this follower to have everything up to that write."
    )


def pictures(settings: StalenessSettings, samples: Sequence[ReadSample]) -> list[Picture]:
    """The pictures of these samples."""
    quorums = at_quorums(settings, samples)
    return [_over_time(settings, quorums), _over_readers(quorums)]


def _over_time(settings: StalenessSettings, quorums: list[AtQuorum]) -> Picture:
    figure = new_figure(8.0, 4.8)
    axes = new_axes(figure, "time of the read after the acknowledgement (ms)", "stale reads (%)")
    times = np.linspace(0, max(*settings.at_ms, 1.0), 200)
    for number, seen in enumerate(quorums):
        style, bins = look(number), seen.bins()
        curve = [100 * seen.theory(float(t_ms)) for t_ms in times]
        axes.plot(times, curve, color=style.colour, linestyle=style.dash, linewidth=1.4, clip_on=False)
        heights = [100 * found.fraction for found in bins]
        below = [height - 100 * found.interval.low for height, found in zip(heights, bins, strict=True)]
        above = [100 * found.interval.high - height for height, found in zip(heights, bins, strict=True)]
        axes.errorbar(
            [found.mean_ms for found in bins],
            heights,
            yerr=np.maximum([below, above], 0),
            color=style.colour,
            marker=style.marker,
            markersize=6.5,
            markeredgecolor="white",
            linestyle="none",
            elinewidth=1.2,
            capsize=2.5,
            clip_on=False,
            label=f"quorum {seen.quorum}",
        )
    axes.set_xlim(0, float(times[-1]))
    axes.set_ylim(0, 100)
    legend(axes, title="points measured with 95 % interval, lines theory", alignment="left")
    title(axes, f"Stale reads at a random follower, {law_of(settings).describe()}")
    caption = "The probability that a read at a random follower misses an acknowledged write, by the time since then."
    return Picture("staleness-over-time", caption, figure)


def _over_readers(quorums: list[AtQuorum]) -> Picture:
    figure = new_figure(8.0, 4.2)
    axes = new_axes(figure, "followers that are read at +0 ms", "reads that find no copy (%)")
    most = max(seen.followers for seen in quorums)
    for number, seen in enumerate(quorums):
        style, counts = look(number), range(1, seen.followers + 1)
        theory = [100 * missed_by_readers(seen.quorum, seen.followers, count) for count in counts]
        axes.plot(counts, theory, color=style.colour, linestyle=style.dash, linewidth=1.4, clip_on=False)
        known = [(count, 100 * found[0]) for count in counts if (found := seen.missed(count)) is not None]
        axes.plot(
            [count for count, _ in known],
            [percent for _, percent in known],
            color=style.colour,
            marker=style.marker,
            markersize=7,
            markeredgecolor="white",
            linestyle="none",
            clip_on=False,
            label=f"quorum {seen.quorum}",
        )
    axes.set_xticks(range(1, most + 1))
    axes.set_xlim(0.9, most + 0.1)
    axes.set_ylim(0, 100)
    axes.tick_params(axis="x", labelcolor=INK)
    legend(axes, title="points measured, lines theory", alignment="left")
    title(axes, "Reading several followers at once, right after the acknowledgement")
    caption = "How often none of R followers, read right after the acknowledgement, has the write."
    return Picture("staleness-over-readers", caption, figure)
