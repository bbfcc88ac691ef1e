"""Settings and samples of the experiment "faults"."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import msgspec

from retinue.errors import SettingsError
from retinue.lab.availability import Bin, Outage
from retinue.lab.clients import Attempt
from retinue.lab.experiments.contract import Settings, option
from retinue.lab.experiments.preparing import check_at_least
from retinue.lab.judging.diagnosis import NodeFacts
from retinue.lab.schedules import NAMED
from retinue.lab.targets.contract import Outcome

_VERSION = re.compile(r"(?<=Version )\d+|(?<=/writes/)\d+")

BIN = "bin"
EVENT = "event"
OUTAGE = "outage"
CATCH_UP = "catch-up"
NODE = "node"
ANSWER = "answer"
LOSS = "loss"
BROKEN = "broken"
VERDICT = "verdict"


@dataclass(frozen=True, kw_only=True)
class FaultsSettings(Settings):
    """What can be told to the experiment "faults"."""

    schedules: int = option(30, "schedules of faults, drawn from --seed and the seeds after it")
    schedule: str = option("", f"one schedule by name instead of drawn ones: {', '.join(NAMED)}")
    quorum: int = option(0, "write quorum; 0: each seed draws its own, a named schedule takes a majority")
    duration_s: float = option(4.0, "length of each schedule; its last quarter is without faults", "s")
    clients: int = option(8, "clients that read and write at the same time")
    keys: int = option(6, "keys that they share")
    write_timeout_ms: float = option(1000.0, "patience of a client with a write", "ms")
    settle_s: float = option(60.0, "longest time to wait at the end until all replicas are equal", "s")
    quiet_s: float = option(
        3.0, "without faults: replicas that do not change for so long have settled; more than the largest delay", "s"
    )
    probe_keys: int = option(40, "without faults: keys that are written once, overwritten, or deleted at once")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(
            self, schedules=1, quorum=0, duration_s=0.5, clients=1, keys=1, write_timeout_ms=1, settle_s=1, quiet_s=0.1
        )
        check_at_least(self, probe_keys=1)
        if self.schedule and self.schedule not in NAMED:
            raise SettingsError(f"--schedule={self.schedule} is not known: choose one of {', '.join(NAMED)}.")
        if self.memory:
            raise SettingsError(
                "--memory is not possible with faults: a killed node would lose what it has acknowledged; leave it out."
            )


class FaultSample(msgspec.Struct, frozen=True, kw_only=True):
    """One observation; `sort` says which fields have a meaning. Times are in ms since the schedule began.

    `bin`: attempts to write by outcome, from `at_ms` on. `event`: `what` was done to `node`, with what went wrong as
    `detail`. `outage`: no committed write for `ms` from `at_ms` on; `what` is the last repair in it, and
    `recovery_ms` how long after it writes went through again. `catch-up`: after the repair `what`, `node` had
    everything after `ms`. `node`: keys on which it differed at the end (see `diagnosis.NodeFacts`). `loss`, `broken`:
    an acknowledged write that is gone, another broken promise, as a sentence in `detail`. `answer`: how many attempts
    that were not committed (`count`) were told `detail`. `verdict`: the schedule as a
    whole; `ms` is the time until all replicas were equal, `quiet_s` for how long nothing had changed then,
    `linearizable` is "yes", "no" or "undecided".
    """

    sort: str
    schedule: str
    quorum: int
    at_ms: float = 0.0
    ms: float = 0.0
    recovery_ms: float | None = None
    node: str = ""
    what: str = ""
    detail: str = ""
    committed: int = 0
    refused: int = 0
    unknown: int = 0
    failed: int = 0
    waiting: int = 0
    operations: int = 0
    count: int = 0
    once: int = 0
    undecided: int = 0
    few_copies: int = 0
    missing: int = 0
    missing_once: int = 0
    outdated: int = 0
    went_back: int = 0
    undeleted: int = 0
    came_back: int = 0
    missing_keys: str = ""
    outdated_keys: str = ""
    undeleted_keys: str = ""
    linearizable: str = ""
    versions: bool = False
    equal: bool = False
    quiet_s: float = 0.0

    @property
    def available(self) -> float:
        """Of a bin: the share of writes that was committed; NaN when nobody wanted to write."""
        share = self.as_bin().available
        return math.nan if share is None else share

    def as_bin(self) -> Bin:
        """The numbers of a bin."""
        return Bin(self.at_ms, self.committed, self.refused, self.unknown, self.failed, self.waiting)


class Scribe:
    """Makes the samples of one schedule."""

    def __init__(self, schedule: str, quorum: int) -> None:
        self.schedule = schedule
        self.quorum = quorum

    def bin(self, found: Bin) -> FaultSample:
        """A bin of the availability."""
        return FaultSample(sort=BIN, schedule=self.schedule, quorum=self.quorum, **found._asdict())

    def event(self, at_ms: float, what: str, node: str, detail: str) -> FaultSample:
        """Something that was done."""
        return FaultSample(
            sort=EVENT, schedule=self.schedule, quorum=self.quorum, at_ms=at_ms, what=what, node=node, detail=detail
        )

    def outage(self, outage: Outage, repair: FaultSample | None) -> FaultSample:
        """A time without a committed write, and the last repair in it."""
        return FaultSample(
            sort=OUTAGE,
            schedule=self.schedule,
            quorum=self.quorum,
            at_ms=outage.begun_ms,
            ms=outage.ms,
            what=f"{repair.what} {repair.node}" if repair else "",
            recovery_ms=outage.ended_ms - repair.at_ms if repair else None,
        )

    def catch_up(self, at_ms: float, ms: float, what: str, node: str) -> FaultSample:
        """A node that has everything again."""
        return FaultSample(
            sort=CATCH_UP, schedule=self.schedule, quorum=self.quorum, at_ms=at_ms, ms=ms, what=what, node=node
        )

    def node(self, facts: NodeFacts) -> FaultSample:
        """A node at the end."""
        return FaultSample(sort=NODE, schedule=self.schedule, quorum=self.quorum, **msgspec.structs.asdict(facts))

    def answers(self, attempts: Iterable[Attempt]) -> Iterator[FaultSample]:
        """What attempts that were not committed were told, the most frequent first; versions become "N"."""
        told = Counter(
            (attempt.outcome.value, _VERSION.sub("N", attempt.detail))
            for attempt in attempts
            if attempt.outcome is not Outcome.COMMITTED
        )
        for (outcome, detail), count in told.most_common():
            yield FaultSample(
                sort=ANSWER, schedule=self.schedule, quorum=self.quorum, what=outcome, detail=detail, count=count
            )

    def sentence(self, sort: str, detail: str) -> FaultSample:
        """A loss, or another broken promise."""
        return FaultSample(sort=sort, schedule=self.schedule, quorum=self.quorum, detail=detail)
