"""The samples at the end of a schedule: what every node has, what the history says, and the verdict."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from retinue.lab.experiments.faults_sample import BROKEN, LOSS, VERDICT, FaultSample, Scribe
from retinue.lab.history import Level, Operation, Outcome
from retinue.lab.judging.diagnosis import NodeFacts
from retinue.lab.judging.replica_facts import few_copies, known_from, plain_facts
from retinue.lab.judging.settling import Settled
from retinue.lab.judging.verdicts import judge
from retinue.lab.targets.contract import Target

MOST_SENTENCES = 20
"""Losses and violations that become samples of their own; the numbers count all."""


def closing_samples(
    scribe: Scribe,
    history: Sequence[Operation],
    settled: Settled,
    levels: Collection[Level],
    target: Target,
    facts: Sequence[NodeFacts] | None = None,
) -> Iterator[FaultSample]:
    """Judge the history against the final state. `facts`: what is known of the nodes beyond their differences."""
    judgement = judge(history, settled.dumps.get(settled.leader), target.now_ms(), levels)
    known = known_from(history, settled, scribe.quorum)
    for each in plain_facts(settled, known) if facts is None else facts:
        yield scribe.node(each)
    for loss in judgement.lost[:MOST_SENTENCES]:
        yield scribe.sentence(LOSS, str(loss))
    for sentence in judgement.broken[:MOST_SENTENCES]:
        yield scribe.sentence(BROKEN, sentence)
    for node, why in settled.silent.items() if target.abilities.faults else ():
        yield scribe.sentence(BROKEN, f"{node} does not answer when everything should be whole: {why.rstrip('.')}")
    writes = [op for op in history if op.is_write]
    yield FaultSample(
        sort=VERDICT,
        schedule=scribe.schedule,
        quorum=scribe.quorum,
        ms=settled.waited_ms,
        quiet_s=settled.quiet_ms / 1000,
        committed=sum(op.outcome is Outcome.OK for op in writes),
        refused=sum(op.outcome in (Outcome.FAILED, Outcome.CONDITION_FAILED) for op in writes),
        unknown=sum(op.outcome is Outcome.UNKNOWN for op in writes),
        operations=len(history),
        once=len(known.once),
        undecided=judgement.undecided,
        few_copies=few_copies(history, settled, scribe.quorum) if scribe.quorum else 0,
        linearizable={True: "yes", False: "no", None: "undecided"}[judgement.linearizable],
        versions=target.abilities.versions,
        equal=settled.equal,
    )
