"""What the samples of the experiment `consistency` say: lag and its cost, and whether anything diverged."""

from __future__ import annotations

import functools
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from statistics import fmean
from typing import TYPE_CHECKING

from retinue.lab.delay_law import Law
from retinue.lab.experiments.contract import Summary, Table
from retinue.lab.experiments.expected_lag import Burst, ExpectedLag
from retinue.lab.experiments.preparing import law_of
from retinue.lab.judging.comparison import State
from retinue.lab.judging.diagnosis import LAST_ARRIVAL, LOST_DELETES, LOST_SENDS, RESURRECTED

if TYPE_CHECKING:
    from retinue.lab.experiments.consistency import CellSample, ConsistencySettings

EQUAL = "equal"

PUBLISHED = (40, 29, 20, 10, 0)
"""Stale or missing cells at quorum 1 to 5 in the report of a university lab: 10 keys x 10 writes, 5 followers."""

EXAMPLES_OF_DIVERGENCE = 3


class Observed:
    """The bursts at one write quorum: cells by round, moment and follower."""

    def __init__(self, settings: ConsistencySettings, samples: Sequence[CellSample]) -> None:
        self.quorum = samples[0].quorum
        self.nodes = tuple(dict.fromkeys(sample.node for sample in samples))
        self.keys = tuple(dict.fromkeys(sample.key for sample in samples))
        self._settled_ms = settings.settled_ms
        self._by_moment: dict[int, dict[float, list[CellSample]]] = defaultdict(dict)
        for sample in samples:
            self._by_moment[sample.round].setdefault(sample.moment_ms, []).append(sample)

    @property
    def rounds(self) -> tuple[int, ...]:
        """The bursts that were looked at, at least once."""
        return tuple(self._by_moment)

    @property
    def moments_ms(self) -> list[float]:
        """All moments, in order."""
        return sorted({moment_ms for moments in self._by_moment.values() for moment_ms in moments})

    def cells(self, moment_ms: float, number: int | None = None) -> list[CellSample]:
        """The cells at a moment, of one burst or of all."""
        chosen = self.rounds if number is None else (number,)
        return [sample for burst in chosen for sample in self._by_moment[burst].get(moment_ms, ())]

    def unequal(self, moment_ms: float, number: int | None = None) -> list[CellSample]:
        """The cells at a moment that differ from the leader's."""
        return [sample for sample in self.cells(moment_ms, number) if sample.state != EQUAL]

    def behind(self, moment_ms: float) -> float:
        """Unequal cells at a moment, the mean over the bursts that were looked at then."""
        seen = [number for number in self.rounds if moment_ms in self._by_moment[number]]
        return len(self.unequal(moment_ms)) / len(seen) if seen else float("nan")

    def equal_from_ms(self, number: int) -> float | None:
        """The first moment of a burst from which on all replicas were equal; `None` if that was not seen."""
        found = None
        for moment_ms in sorted(self._by_moment[number], reverse=True):
            if self.unequal(moment_ms, number):
                return found
            found = moment_ms
        return found

    def last_ms(self, number: int) -> float:
        """When a burst was looked at for the last time."""
        return max(self._by_moment[number])

    def left_over(self) -> list[CellSample]:
        """The cells that differ at the last look, of bursts that had time to settle."""
        return [
            sample
            for number in self.rounds
            if self.last_ms(number) >= self._settled_ms
            for sample in self.unequal(self.last_ms(number), number)
        ]

    @property
    def settled_bursts(self) -> int:
        """Bursts that were looked at after settling."""
        return sum(self.last_ms(number) >= self._settled_ms for number in self.rounds)

    @property
    def unacknowledged(self) -> int:
        """Writes of all bursts that were not acknowledged."""
        return sum(next(iter(moments.values()))[0].unacknowledged for moments in self._by_moment.values())


def observed(settings: ConsistencySettings, samples: Sequence[CellSample]) -> list[Observed]:
    """The samples by write quorum."""
    by_quorum: dict[int, list[CellSample]] = defaultdict(list)
    for sample in samples:
        by_quorum[sample.quorum].append(sample)
    return [Observed(settings, by_quorum[quorum]) for quorum in sorted(by_quorum)]


def expected(settings: ConsistencySettings, seen: Observed) -> ExpectedLag:
    """The lag that is to be expected where these samples were taken."""
    return _expected(law_of(settings), settings.burst(seen.quorum, len(seen.nodes)), settings.seed)


@functools.lru_cache(maxsize=16)
def _expected(law: Law, burst: Burst, seed: int) -> ExpectedLag:
    """The same lag is wanted for tables and pictures, and takes a while."""
    return ExpectedLag(law, burst, seed=seed)


def may_be_lag(sample: CellSample) -> bool:
    """Whether copies that are still on the way can explain this state."""
    return State(sample.state).may_be_lag or (sample.state == State.DIFFERENT.value and not sample.versioned)


def summarize(settings: ConsistencySettings, samples: Sequence[CellSample]) -> Summary:
    """Tables, reading and verdict."""
    quorums = observed(settings, samples)
    theory = {seen.quorum: expected(settings, seen) for seen in quorums}
    violations = [sentence for seen in quorums for sentence in _violations(seen)]
    return Summary(
        tables=[_main_table(settings, quorums, theory), _followers_table(quorums)],
        reading=_reading(settings, quorums, theory, bool(violations)),
        key_figures={f"cells behind at +0 s, quorum {seen.quorum}": seen.behind(0.0) for seen in quorums}
        | {f"cells unequal after settling, quorum {seen.quorum}": float(len(seen.left_over())) for seen in quorums},
        violations=violations,
    )


def _main_table(settings: ConsistencySettings, quorums: list[Observed], theory: dict[int, ExpectedLag]) -> Table:
    rows: list[list[str | int | float | None]] = []
    for seen in quorums:
        lag = theory[seen.quorum]
        low, high = lag.cells_behind_interval(0.0, len(seen.rounds))
        states = Counter(sample.state for sample in seen.unequal(0.0))
        times = [seen.equal_from_ms(number) for number in seen.rounds]
        known = [time_ms for time_ms in times if time_ms is not None]
        settled = len(seen.left_over()) if seen.settled_bursts else None
        rows.append(
            [
                seen.quorum,
                len(seen.keys) * len(seen.nodes),
                seen.behind(0.0),
                float(lag.cells_behind([0.0])[0]),
                f"{low:.1f} to {high:.1f}",
                states["missing"],
                states["older"],
                sum(states.values()) - states["missing"] - states["older"],
                fmean(known) if known else None,
                lag.equal_ms,
                settled,
                len(seen.keys) * (len(seen.nodes) - seen.quorum),
            ]
        )
    return Table(
        title="Cells (key x follower) that differ from the leader",
        columns=[
            "write quorum",
            "cells",
            "behind at +0 s",
            "expected",
            "95 % of means",
            "missing",
            "older",
            "other",
            "all equal by (ms)",
            "expected (ms)",
            "after settling",
            "if sends were dropped",
        ],
        rows=rows,
        notes=_notes(settings, quorums),
    )


def _notes(settings: ConsistencySettings, quorums: list[Observed]) -> list[str]:
    bursts = f"{settings.rounds} burst{'s' if settings.rounds > 1 else ''}"
    step_ms = settings.moments_ms[1]
    notes = [
        (
            f"Behind and expected are means per burst ({bursts} at each quorum); missing, older and other add up over "
            "the bursts, at +0 s."
        ),
        f"All equal by: the first look, one every {step_ms:g} ms, from which on nothing differed.",
        f"After settling: {settings.settled_ms / 1000:g} s after the last acknowledgement, all bursts together.",
        (
            "If sends were dropped: what a system is left with for good that forgets the remaining followers once the "
            "quorum is met, keys x (followers - quorum)."
        ),
    ]
    unacknowledged = sum(seen.unacknowledged for seen in quorums)
    if unacknowledged:
        notes.append(f"{unacknowledged} writes were not acknowledged; what they left behind is compared like the rest.")
    if any(not sample.versioned for seen in quorums for sample in seen.cells(0.0)):
        notes.append(
            "This server tells no versions, so only values are compared: an older value cannot be told from a "
            "different one, and both stand under other."
        )
    return notes


def _followers_table(quorums: list[Observed]) -> Table:
    nodes = list(dict.fromkeys(node for seen in quorums for node in seen.nodes))
    rows: list[list[str | int | float | None]] = []
    for seen in quorums:
        found = seen.unequal(0.0)
        rows.append([seen.quorum, *(_counted(s.state for s in found if s.node == node) for node in nodes)])
    return Table(title="The same at +0 s by follower, all bursts", columns=["write quorum", *nodes], rows=rows)


def _counted(states: Iterable[str]) -> str:
    counts = Counter(states)
    return ", ".join(f"{counts[state.value]} {state.value}" for state in State if counts[state.value]) or "none"


def _violations(seen: Observed) -> list[str]:
    left = seen.left_over()
    if not left:
        return []
    examples = ", ".join(f"{sample.key} at {sample.node} is {sample.state}" for sample in left[:EXAMPLES_OF_DIVERGENCE])
    more = f" and {len(left) - EXAMPLES_OF_DIVERGENCE} more" if len(left) > EXAMPLES_OF_DIVERGENCE else ""
    sentence = f"Divergence at quorum {seen.quorum}: after settling {examples}{more}."
    causes = []
    if any(sample.state in ("missing", "older") for sample in left):
        causes.append(f"{LOST_SENDS}, copies that are not delivered once the quorum is met")
    if any(sample.state == "extra" for sample in left):
        causes.append(f"{RESURRECTED} or {LOST_DELETES}, as when a late write overtakes its delete")
    if any(sample.state in ("newer", "different") for sample in left):
        known = all(sample.versioned for sample in left)
        causes.append(f"{LAST_ARRIVAL}, not the newest version" + ("" if known else f", or {LOST_SENDS}"))
    return [f"{sentence[:-1]}; this looks like {'; and like '.join(causes)}."]


def _reading(
    settings: ConsistencySettings, quorums: list[Observed], theory: dict[int, ExpectedLag], diverged: bool
) -> list[str]:
    measured = ", ".join(f"{seen.behind(0.0):.1f}" for seen in quorums)
    predicted = ", ".join(f"{theory[seen.quorum].cells_behind([0.0])[0]:.1f}" for seen in quorums)
    names = ", ".join(str(seen.quorum) for seen in quorums)
    cells = len(quorums[0].keys) * len(quorums[0].nodes) if quorums else 0
    reading = [
        (
            f"Right after the last acknowledgement {measured} of {cells} cells differed from the leader at quorum "
            f"{names}; simulating such bursts with {law_of(settings).describe()} gives {predicted}. A write is "
            "acknowledged when the quorum has it, so the other followers may still wait for their copies: a larger "
            "quorum makes writes slower and leaves less behind, and at a quorum of all followers nothing can be behind."
        ),
    ]
    settled = [seen for seen in quorums if seen.settled_bursts]
    if not settled:
        reading.append("No burst was watched until it had settled, so there is no verdict about divergence.")
    elif diverged:
        reading.append(
            "Some of it did not heal. That is divergence, not lag: nothing was on the way any more, and the replicas "
            "will stay as they are until somebody writes these keys again. No choice of quorum mends it, the server "
            "must."
        )
    else:
        early = sum(not may_be_lag(sample) for seen in quorums for m in seen.moments_ms for sample in seen.unequal(m))
        reading.append(
            "All of it healed: when everything sent had arrived, every follower was equal to the leader. So what was "
            "seen was lag, copies on their way, and not divergence, replicas that disagree for good."
            + (f" On the way {early} cells were newer than the leader or had another value." if early else "")
        )
    reading.append(
        f"A report of a university lab gives {', '.join(map(str, PUBLISHED))} stale or missing cells for quorum 1 to "
        "5, with 10 keys x 10 writes on 5 followers. That is not lag either: it is close to keys x (followers - "
        "quorum), because that system drops the remaining sends when the quorum is met, and the cells never heal."
    )
    return reading
