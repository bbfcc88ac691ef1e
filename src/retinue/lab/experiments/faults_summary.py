"""What the samples of the experiment `faults` say: losses, order, equality, and what the faults cost."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from statistics import median

from retinue.lab.experiments.contract import Summary, Table
from retinue.lab.experiments.faults_probes import NAME as NO_FAULTS
from retinue.lab.experiments.faults_sample import (
    ANSWER,
    BIN,
    BROKEN,
    CATCH_UP,
    EVENT,
    LOSS,
    NODE,
    OUTAGE,
    VERDICT,
    FaultSample,
)
from retinue.lab.judging.diagnosis import Facts, NamedFault, NodeFacts, counted, diagnose, summed
from retinue.lab.schedules import REPAIRS, Action

MOST_ANSWERS = 8

COLUMNS = (
    ("schedule", False),
    ("quorum", False),
    ("faults", True),
    ("take-overs", True),
    ("committed", False),
    ("refused", False),
    ("unknown", False),
    ("available %", True),
    ("longest outage ms", True),
    ("recovery ms", True),
    ("lost", False),
    ("linearizable", False),
    ("replicas equal", False),
)
"""Columns of the main table, and whether they are only about faults."""

FAULT_NOTES = [
    "Available: the share of attempts that committed, per 200 ms, the mean over the schedule.",
    "Recovery: from the last repair in an outage until a write was committed again, the longest of a schedule.",
]


class Course(list[FaultSample]):
    """The samples of one schedule."""

    def of(self, sort: str) -> list[FaultSample]:
        """Those of one sort."""
        return [sample for sample in self if sample.sort == sort]

    @property
    def verdict(self) -> FaultSample | None:
        """The schedule as a whole; `None` when it was broken off."""
        return next(iter(self.of(VERDICT)), None)

    @property
    def faults(self) -> int:
        """How often a node was taken away."""
        return sum(Action(sample.what).breaks for sample in self.of(EVENT))

    @property
    def promotions(self) -> int:
        """How often another node was made leader, and was."""
        return sum(sample.what == Action.PROMOTE.value and not sample.detail for sample in self.of(EVENT))

    @property
    def available(self) -> float | None:
        """The mean share of committed writes over all bins in which somebody wanted to write."""
        shares = [share for sample in self.of(BIN) if (share := sample.as_bin().available) is not None]
        return sum(shares) / len(shares) if shares else None

    @property
    def longest_outage_ms(self) -> float:
        """The longest time without a committed write; 0 without any outage."""
        return max((sample.ms for sample in self.of(OUTAGE)), default=0.0)

    @property
    def recoveries_ms(self) -> list[float]:
        """Of each outage, how long after the last repair in it writes went through again."""
        return [sample.recovery_ms for sample in self.of(OUTAGE) if sample.recovery_ms is not None]


def courses(samples: Sequence[FaultSample]) -> dict[str, Course]:
    """The samples by schedule, in the order in which they ran."""
    found: dict[str, Course] = defaultdict(Course)
    for sample in samples:
        found[sample.schedule].append(sample)
    return dict(found)


def named_faults(samples: Sequence[FaultSample]) -> list[NamedFault]:
    """What the differences and losses of all schedules together point to."""
    verdicts = [sample for sample in samples if sample.sort == VERDICT]
    nodes = [
        NodeFacts(**{name: getattr(sample, name) for name in NodeFacts.__struct_fields__})
        for sample in samples
        if sample.sort == NODE
    ]
    quorums = {sample.quorum for sample in verdicts}
    return diagnose(
        Facts(
            nodes=summed(nodes),
            settled_s=min((sample.quiet_s for sample in verdicts), default=0.0),
            once=sum(sample.once for sample in verdicts),
            quorum=quorums.pop() if len(quorums) == 1 else 0,
            versions=any(sample.versions for sample in verdicts),
            lost=tuple(sample.detail for sample in samples if sample.sort == LOSS),
            few_copies=sum(sample.few_copies for sample in verdicts),
        )
    )


def summarize(samples: Sequence[FaultSample]) -> Summary:
    """Tables, reading and verdict."""
    by_schedule = courses(samples)
    faults = named_faults(samples)
    broken = [f"{sample.schedule}: {sample.detail}." for sample in samples if sample.sort == BROKEN]
    tables = [_schedules_table(by_schedule), _times_table(samples), _answers_table(samples), _faults_table(faults)]
    violations = [fault.sentence for fault in faults] + broken
    return Summary(
        tables=[table for table in tables if table.rows],
        reading=_reading(by_schedule, samples, faults, bool(violations)),
        key_figures=_key_figures(by_schedule, samples, violations),
        violations=violations,
    )


def _schedules_table(by_schedule: dict[str, Course]) -> Table:
    finished = [(name, course, course.verdict) for name, course in by_schedule.items() if course.verdict is not None]
    rows: list[list[str | int | float | None]] = [
        [
            name,
            verdict.quorum or None,
            course.faults,
            course.promotions,
            verdict.committed,
            verdict.refused,
            verdict.unknown,
            None if course.available is None else round(100 * course.available),
            round(course.longest_outage_ms),
            round(max(course.recoveries_ms)) if course.recoveries_ms else None,
            len(course.of(LOSS)),
            verdict.linearizable,
            f"after {verdict.ms / 1000:.1f} s" if verdict.equal else "no",
        ]
        for name, course, verdict in finished
    ]
    shown = [
        number for number, (_, only_faults) in enumerate(COLUMNS) if not only_faults or NO_FAULTS not in by_schedule
    ]
    return Table(
        title="Schedules",
        columns=[COLUMNS[number][0] for number in shown],
        rows=[[row[number] for number in shown] for row in rows],
        notes=[
            "Refused writes had no effect, for sure; deletes of absent keys are among them. Unknown ones may have one."
        ]
        + (FAULT_NOTES if NO_FAULTS not in by_schedule else []),
    )


def _times_table(samples: Sequence[FaultSample]) -> Table:
    rows: list[list[str | int | float | None]] = []
    for fault, repair in REPAIRS.items():
        times = [sample.ms for sample in samples if sample.sort == CATCH_UP and sample.what == repair.value]
        if times:
            rows.append([f"{repair.value} after {fault.value}", len(times), round(median(times)), round(max(times))])
    for word in (*(repair.value for repair in REPAIRS.values()), Action.PROMOTE.value):
        found = [
            sample.recovery_ms
            for sample in samples
            if sample.sort == OUTAGE and sample.recovery_ms is not None and sample.what.startswith(f"{word} ")
        ]
        if found:
            rows.append([f"writes again after {word}", len(found), round(median(found)), round(max(found))])
    return Table(
        title="Times",
        columns=["from repair to", "times", "median ms", "longest ms"],
        rows=rows,
        notes=["The first rows: until the node has all that had been acknowledged when it was repaired."],
    )


def _answers_table(samples: Sequence[FaultSample]) -> Table:
    told: Counter[tuple[str, str]] = Counter()
    for sample in samples:
        if sample.sort == ANSWER:
            told[sample.what, sample.detail] += sample.count
    return Table(
        title="What clients were told when a write did not commit",
        columns=["times", "outcome", "answer"],
        rows=[[count, outcome, detail or None] for (outcome, detail), count in told.most_common(MOST_ANSWERS)],
        notes=[f"The {MOST_ANSWERS} most frequent of {len(told)} answers."] if len(told) > MOST_ANSWERS else [],
    )


def _faults_table(faults: Sequence[NamedFault]) -> Table:
    return Table(
        title="Faults found",
        columns=["fault", "seen"],
        rows=[[fault.name, fault.seen] for fault in faults],
    )


def _key_figures(
    by_schedule: dict[str, Course], samples: Sequence[FaultSample], violations: Sequence[str]
) -> dict[str, float]:
    verdicts = [sample for sample in samples if sample.sort == VERDICT]
    figures = {
        "acknowledged writes lost": float(sum(sample.sort == LOSS for sample in samples)),
        "violations": float(len(violations)),
        "keys undecided": float(sum(sample.undecided for sample in verdicts)),
        "writes committed": float(sum(sample.committed for sample in verdicts)),
    }
    shares = [course.available for course in by_schedule.values() if course.available is not None]
    recoveries = [ms for course in by_schedule.values() for ms in course.recoveries_ms]
    catch_ups = [sample.ms for sample in samples if sample.sort == CATCH_UP]
    if shares:
        figures["available, mean (%)"] = 100 * sum(shares) / len(shares)
    if recoveries:
        figures["recovery, median (ms)"] = median(recoveries)
    if catch_ups:
        figures["catch-up, median (ms)"] = median(catch_ups)
    return figures


def _reading(
    by_schedule: dict[str, Course], samples: Sequence[FaultSample], faults: Sequence[NamedFault], violated: bool
) -> list[str]:
    verdicts = [sample for sample in samples if sample.sort == VERDICT]
    committed = sum(sample.committed for sample in verdicts)
    unknown = sum(sample.unknown for sample in verdicts)
    if NO_FAULTS in by_schedule:
        begun = (
            f"Nobody may break the nodes of this cluster, so it was only written to: {committed} acknowledged writes, "
            "some of them overwritten or deleted at once. "
        )
    else:
        struck = sum(course.faults for course in by_schedule.values())
        promoted = sum(course.promotions for course in by_schedule.values())
        begun = (
            f"{counted(struck, 'fault')} hit the nodes in {counted(len(verdicts), 'schedule')}, and the leadership "
            f"moved {counted(promoted, 'time')}; clients had {counted(committed, 'write')} acknowledged. "
        )
    paragraphs = [begun + _verdict(samples, violated)]
    if unknown:
        paragraphs.append(
            f"{counted(unknown, 'write')} ended as unknown: the client was not told whether they took effect. "
            "Each is either there or not, the same everywhere; a retry with the same request id settles it."
        )
    paragraphs += [f"{fault.name[0].upper()}{fault.name[1:]}: {fault.cause}. Cure: {fault.cure}." for fault in faults]
    if NO_FAULTS not in by_schedule:
        paragraphs.append(_cost(by_schedule))
    undecided = sum(sample.undecided for sample in verdicts)
    if undecided:
        paragraphs.append(
            f"For {counted(undecided, 'key')} the search of an order gave up; they count neither as good nor as bad."
        )
    return paragraphs


def _verdict(samples: Sequence[FaultSample], violated: bool) -> str:
    lost = sum(sample.sort == LOSS for sample in samples)
    if not violated:
        return (
            "None of them was lost, one order explains what every client saw, and all replicas were equal at the end."
        )
    losses = "None of them was lost at the leader" if not lost else f"{counted(lost, 'key')} lost an acknowledged write"
    return f"{losses}, but promises were broken: see the violations."


def _cost(by_schedule: dict[str, Course]) -> str:
    """What to choose, by what the quorums of these schedules saw."""
    by_quorum: dict[int, list[float]] = defaultdict(list)
    for course in by_schedule.values():
        if course.verdict is not None and course.available is not None:
            by_quorum[course.verdict.quorum].append(100 * course.available)
    shown = ", ".join(
        f"{sum(shares) / len(shares):.0f} % of the time at quorum {quorum}"
        for quorum, shares in sorted(by_quorum.items())
    )
    return (
        f"Writes were available {shown}, with recovery. A small quorum keeps writes going with "
        "more followers away, but needs more of them to take over when the leader has died; a large one the reverse. "
        "With five followers, 3 survives two lost nodes in either role."
    )
