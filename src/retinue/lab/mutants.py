"""Tests of the tests: the protocol with one safety rule taken away, by name.

Each mutant replaces one rule of the core, of the disk, of the driver or of the client. A simulation with a mutant must
end with a violation for some seed (or some scenario); otherwise the checks are worth nothing.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import msgspec

from retinue.core.acceptor import Acceptor
from retinue.core.leader import Leadership
from retinue.core.merge import Merge
from retinue.core.messages import Entry, Kind, Message, Promise, ReadResult, Reason, Reply, Row, StrongRead, Write
from retinue.core.replica import Replica
from retinue.core.takeover import Takeover
from retinue.lab.plan import Plan, draw_deserted, draw_impatient, draw_plan, draw_replaced, draw_scattered
from retinue.lab.simulated_disk import SimulatedDisk
from retinue.lab.simulator import Simulation, Variant
from retinue.lab.workload import Client


class Mutant(msgspec.Struct, frozen=True):
    """A variant of the simulation, the rule that it breaks, and the kind of plan under which it shows best."""

    breaks: str
    variant: Variant
    draw: Callable[[random.Random], Plan] = draw_plan

    def simulation(self, seed: int, tracing: bool = False) -> Simulation:
        """The simulation of one seed with this mutant."""
        return Simulation(seed, variant=self.variant, tracing=tracing, plan=self.draw(random.Random(f"plan {seed}")))


def _with_merge(merge: type[Merge]) -> Variant:
    return _with_takeover(type("MutantTakeover", (Takeover,), {"merge_class": merge}))


def _with_takeover(takeover: type[Takeover]) -> Variant:
    return Variant(replica=type("MutantReplica", (Replica,), {"takeover_class": takeover}))


def _with_leadership(leadership: type[Leadership]) -> Variant:
    return Variant(replica=type("MutantReplica", (Replica,), {"leadership_class": leadership}))


def _with_acceptor(acceptor: type[Acceptor]) -> Variant:
    return Variant(replica=type("MutantReplica", (Replica,), {"acceptor_class": acceptor}))


# --- counting ---


class _OnePromiseTooFew(Replica):
    def promises_needed(self, write_quorum: int) -> int:
        return max(1, super().promises_needed(write_quorum) - 1)


class _OneAcknowledgementTooFew(Leadership):
    @property
    def acks_needed(self) -> int:
        return self.quorum - 1


class _LearnersCount(Leadership):
    @property
    def _nobody_to_spare(self) -> bool:
        return True


class _WipedNodesVote(Replica):
    @property
    def may_vote(self) -> bool:
        return not self.quarantined


class _AnyDiskVotes(Takeover):
    def votes(self) -> list[Promise]:
        return [answer for _, answer in sorted(self.answers.items()) if answer.voter]


# --- epochs and trust ---


class _NoEpochCheck(Acceptor):
    """Listens to any leader, and answers each in the epoch that it speaks of."""

    def is_stale(self, epoch: int) -> bool:
        return False

    def _answer(self, sender: str, message: Message) -> None:
        replica = self.replica
        promised, replica.promised = replica.promised, message.epoch
        super()._answer(sender, message)  # type: ignore[arg-type]
        replica.promised = promised


class _TrustsAnyPrefix(Acceptor):
    def may_trust(self, entry: Entry) -> bool:
        return True


class _KeepsOldEpochs(Acceptor):
    def as_accepted(self, entry: Entry, epoch: int) -> Entry:
        return entry


# --- merging ---


class _LowestEpochWins(Merge):
    def choose(self, candidates: list[Entry]) -> Entry:
        return min(candidates, key=lambda entry: entry.epoch)


class _RenewsNothing(Merge):
    def renew(self, entries: list[Entry]) -> list[Entry]:
        return entries


class _LeavesHoles(Merge):
    def entries(self) -> list[Entry]:
        return [entry for entry in super().entries() if entry.kind != Kind.NOOP]


class _KeepsGhosts(Merge):
    def is_ghost(self, entry: Entry) -> bool:
        return entry.epoch == 0


class _KeepsTwins(Merge):
    def one_version_per_request(self, entries: list[Entry]) -> list[Entry]:
        return entries


# --- what a leader shows and believes ---


class _UnconfirmedReads(Leadership):
    def strong_read(self, read: StrongRead) -> None:
        reason = Reason.OK if self.recovered else Reason.RECOVERING
        row = self.committed_row(read.key) if self.recovered else None
        self.replica.out.append(Reply(read.token, ReadResult(reason, row)))


class _ReadsBeforeRecovery(Leadership):
    def strong_read(self, read: StrongRead) -> None:
        recovered, self.recovered = self.recovered, True
        super().strong_read(read)
        self.recovered = recovered


class _NoRecoveryBarrier(Leadership):
    def _pass_barrier(self) -> None:
        if not self.recovered:
            self.recovered = True
            self._count_all()


class _DirtyReads(Leadership):
    def committed_row(self, key: str) -> Row | None:
        return self.log.newest(key)

    def row_for_condition(self, key: str) -> Row | None:
        return super().committed_row(key)


class _DirtyLocalState(Replica):
    leadership_class = _DirtyReads

    def read_committed(self, key: str) -> Row | None:
        return self.read_local(key)


class _ConditionsOnPending(Leadership):
    def undecided(self, key: str) -> bool:
        return False

    def row_for_condition(self, key: str) -> Row | None:
        return self.log.newest(key)


class _NoRequestIds(Leadership):
    def _replayed(self, write: Write) -> bool:
        return False


# --- durability ---


class _ForgetfulDisk(SimulatedDisk):
    """A crash takes back promises: to the highest epoch that an entry was accepted from."""

    def crash(self) -> None:
        super().crash()
        accepted = max(self.epochs, default=0)
        if accepted < self.hard.promised:
            self.hard = msgspec.structs.replace(self.hard, promised=accepted)


# --- clients ---


class _TimeoutIsFailure(Client):
    def unanswered_is_unknown(self) -> bool:
        return False


class _RefusalIsDefinite(Client):
    def refusal_is_definite(self, uncertain: bool) -> bool:
        return True


MUTANTS: dict[str, Mutant] = {
    "one-promise-too-few": Mutant("a take-over needs P promises", Variant(replica=_OnePromiseTooFew)),
    "one-acknowledgement-too-few": Mutant(
        "a write is committed on W nodes", _with_leadership(_OneAcknowledgementTooFew)
    ),
    "learners-count": Mutant(
        "acknowledgements of a node that may not vote count only where a write needs every follower",
        _with_leadership(_LearnersCount),
        draw_replaced,
    ),
    "wiped-nodes-vote": Mutant(
        "a node on a new disk votes only once it was admitted", Variant(replica=_WipedNodesVote), draw_replaced
    ),
    "any-disk-votes": Mutant(
        "one disk of a member votes, the one that the configuration names",
        _with_takeover(_AnyDiskVotes),
        draw_replaced,
    ),
    "no-epoch-check": Mutant("a message of a lower epoch is rejected", _with_acceptor(_NoEpochCheck)),
    "merge-takes-lowest-epoch": Mutant(
        "of the copies the highest accept epoch wins", _with_merge(_LowestEpochWins), draw_scattered
    ),
    "reproposals-keep-old-epoch": Mutant(
        "what is proposed again is accepted in the new epoch",
        Variant(
            replica=type(
                "MutantReplica",
                (Replica,),
                {
                    "takeover_class": type("MutantTakeover", (Takeover,), {"merge_class": _RenewsNothing}),
                    "acceptor_class": _KeepsOldEpochs,
                },
            )
        ),
    ),
    "holes-left-open": Mutant("a version that nobody holds becomes a noop", _with_merge(_LeavesHoles), draw_scattered),
    "no-ghost-rule": Mutant("an entry that a later epoch began below is dead", _with_merge(_KeepsGhosts)),
    "two-copies-of-one-request": Mutant("a merge keeps one version per request id", _with_merge(_KeepsTwins)),
    "trusts-any-prefix": Mutant(
        "only entries accepted from the current leader are trusted", _with_acceptor(_TrustsAnyPrefix)
    ),
    "unconfirmed-reads": Mutant(
        "a strong read confirms the leadership", _with_leadership(_UnconfirmedReads), draw_deserted
    ),
    "reads-before-recovery": Mutant(
        "nothing is shown before the recovery barrier", _with_leadership(_ReadsBeforeRecovery), draw_deserted
    ),
    "no-recovery-barrier": Mutant(
        "nothing commits before what the take-over found", _with_leadership(_NoRecoveryBarrier)
    ),
    "dirty-reads": Mutant("a pending write is invisible", Variant(replica=_DirtyLocalState)),
    "conditions-on-pending": Mutant(
        "conditions are evaluated against committed state", _with_leadership(_ConditionsOnPending)
    ),
    "no-request-id-check": Mutant("a retry gets the first answer", _with_leadership(_NoRequestIds)),
    "promise-not-durable": Mutant("a promise survives a crash", Variant(disk=_ForgetfulDisk)),
    "acknowledges-before-durable": Mutant("nothing is said before it is durable", Variant(performs_early=True)),
    "timeout-is-failure": Mutant("an unanswered write may take effect", Variant(client=_TimeoutIsFailure)),
    "refused-retry-is-definite": Mutant(
        "a refused retry says nothing of the first attempt", Variant(client=_RefusalIsDefinite), draw_impatient
    ),
}
"""Every mutant by its name on the command line."""
