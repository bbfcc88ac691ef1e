"""Taking over: how a node becomes the leader without losing a committed write.

The same procedure serves a restarted leader, a manual promotion and the founding of a cluster:

1. *linking*: open links until enough nodes can be asked; nothing has changed yet, so giving up is free;
2. *sealing*: promise a new epoch, ask the others to promise it, collect what they hold until `P` voters have answered;
3. *fetching*: get what is missing up to `base`, the highest trusted prefix among the answers;
4. *merging*: settle each version above `base` (`Merge`), and re-propose all of them in the new epoch.

Why nothing is lost: a committed version is on `W` nodes, `P + W > N`, so one of the answers has it, no epoch that could
make it a ghost began below it, and no other entry of its version has a higher accept epoch.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import TYPE_CHECKING

from retinue.core.log import decode_configuration
from retinue.core.merge import Merge, began_below
from retinue.core.messages import (
    Configuration,
    Entry,
    Fetch,
    Fetched,
    Kind,
    LinkUp,
    OpenLinks,
    Outcome,
    Promise,
    Reason,
    Reply,
    Result,
    Seal,
    Send,
    Snapshot,
)
from retinue.core.quorum import next_epoch, owner_of

if TYPE_CHECKING:
    from retinue.core.replica import Replica


class Mode(enum.Enum):
    """Why a node takes over: it led last, it founds a cluster, or somebody promotes it."""

    RESUME = "resume"
    FOUND = "found"
    PROMOTE = "promote"


class Stage(enum.Enum):
    """How far a take-over is."""

    LINKING = "linking"
    SEALING = "sealing"
    FETCHING = "fetching"


class Takeover:
    """A candidate on its way to leadership."""

    merge_class = Merge

    def __init__(self, replica: Replica, mode: Mode, cluster_id: str = "") -> None:
        self.replica = replica
        self.mode = mode
        self.cluster_id = cluster_id
        self.stage = Stage.LINKING
        self.begun_ms = replica.now
        self.token: int | None = None
        self.deadline = float("inf")
        self.accept_loss = False
        self.links: dict[str, LinkUp] = {}
        self.answers: dict[str, Promise] = {}
        self.epoch = 0
        self.base = 0
        self.donor = ""
        self.asked_ms = replica.now
        replica.out.append(OpenLinks())

    # --- linking ---

    @property
    def needed(self) -> int:
        """Nodes that must take part, as far as this node knows yet."""
        configuration = self.replica.log.configuration
        quorum = self.replica.founding_quorum if configuration is None else configuration.write_quorum
        return self.replica.promises_needed(quorum)

    def request(self, token: int, deadline: float, accept_loss: bool) -> None:
        """Somebody waits for the outcome. A node that wanted to resume is now told to lead."""
        self.mode = Mode.PROMOTE
        self.token, self.deadline, self.accept_loss = token, deadline, accept_loss

    def link_up(self, link: LinkUp) -> None:
        """Another member can be asked."""
        self.links[link.peer] = link
        if self.stage is not Stage.LINKING:
            self._seal(link.peer)
        elif self._superseded(link):
            self.replica.step_down(Reason.NOT_LEADER)
        else:
            self._begin_if_enough()

    def link_down(self, peer: str) -> None:
        """A member is out of reach; what it has answered stays valid."""
        self.links.pop(peer, None)

    def _superseded(self, link: LinkUp) -> bool:
        """Whether the member knows of a leadership, or a cluster, that this node has slept through."""
        replica = self.replica
        if self.mode is Mode.FOUND:
            return link.cluster_id != ""
        later = link.promised > replica.promised and owner_of(link.promised, replica.nodes) != replica.index
        return self.mode is Mode.RESUME and later

    def _begin_if_enough(self) -> None:
        replica, present = self.replica, len(self.links) + 1
        patient = self.mode is Mode.FOUND and replica.now < self.begun_ms + replica.limits.founding_wait_ms
        if present == replica.nodes or (present >= self.needed and not patient):
            self._begin_sealing()

    # --- sealing ---

    def _begin_sealing(self) -> None:
        replica = self.replica
        if self.mode is Mode.FOUND:
            replica.found(self.cluster_id)
        if not replica.may_vote:
            replica.step_down(Reason.NOT_VOTER)  # it has heard, while it waited, that another disk speaks for it
            return
        seen = max([replica.promised, *(link.promised for link in self.links.values())])
        self.epoch = next_epoch(seen, replica.index, replica.nodes)
        self.stage = Stage.SEALING
        replica.promise(self.epoch)
        self.answers[replica.name] = replica.make_promise(self.epoch, tail=True)
        for peer in sorted(self.links):
            self._seal(peer)
        self._conclude_if_enough()

    def _seal(self, peer: str) -> None:
        replica = self.replica
        self.asked_ms = replica.now
        birth = replica.birth_of(peer, self.links[peer].node_id)
        message = Seal(self.epoch, replica.cluster_id, birth, True, self._founding_quorum())
        replica.out.append(Send(peer, message))

    def _founding_quorum(self) -> int:
        configuration = self.replica.log.configuration
        return self.replica.founding_quorum if configuration is None else configuration.write_quorum

    def promised(self, peer: str, message: Promise) -> None:
        """A member has promised the epoch and says what it holds."""
        if self.stage is Stage.SEALING and message.epoch == self.epoch:
            self.answers[peer] = message
            self._conclude_if_enough()

    def _configurations(self) -> list[Configuration]:
        """The configuration in force at the highest trusted prefix, and every one that may have followed it.

        Only voters are believed: the history of a node in quarantine may be another one.
        """
        voters = {name: answer for name, answer in self.answers.items() if answer.voter}
        best = max(voters.values(), key=lambda answer: answer.trusted)
        later = [
            decode_configuration(entry)
            for answer in voters.values()
            for entry in answer.entries
            if entry.kind == Kind.CONFIG and entry.version > best.trusted and entry.epoch > 0
            if not self._is_dead(entry, voters)
        ]
        return [best.configuration or Configuration(self.replica.founding_quorum), *later]

    def _is_dead(self, entry: Entry, voters: Mapping[str, Promise]) -> bool:
        """Whether a later leader did not find a config entry: then it was not committed, and is not in force.

        Otherwise one that a node kept which no leader has reached since would stop every take-over for good. A disk
        that the entry replaces is no witness: it would get its vote back by what it says itself.
        """
        members = decode_configuration(entry).members
        witnesses = [answer for name, answer in voters.items() if members.get(name, answer.node_id) == answer.node_id]
        return any(
            began_below(witness.epochs, entry)
            or any(other.version == entry.version and other.epoch > entry.epoch for other in witness.entries)
            for witness in witnesses
        )

    def votes(self) -> list[Promise]:
        """The answers that count: of voters, and of the node that the configuration knows under that name."""
        configurations = self._configurations()
        return [
            answer
            for name, answer in sorted(self.answers.items())
            if answer.voter and all(c.members.get(name, answer.node_id) == answer.node_id for c in configurations)
        ]

    def _promises_needed(self) -> int:
        """The largest `P` that may still be in force."""
        return max(self.replica.promises_needed(c.write_quorum) for c in self._configurations())

    def _conclude_if_enough(self, forced: bool = False) -> None:
        votes = self.votes()
        if not forced and len(votes) < self._promises_needed():
            return
        if not any(vote is self.answers[self.replica.name] for vote in votes):
            self.replica.step_down(Reason.NOT_VOTER)  # its copy would not count in a later take-over
            return
        self.base = max(vote.trusted for vote in votes)
        self.stage = Stage.FETCHING
        self._fetch_or_merge()

    # --- fetching and merging ---

    def _fetch_or_merge(self) -> None:
        """Lead if nothing is missing; else ask a voter that has it, another one each time.

        Others may have trusted more than `base`, or a history that differs: so may a disk that has replaced one that
        answered.
        """
        replica = self.replica
        if replica.log.trusted == self.base:
            merge = self.merge_class(self.epoch, self.base, self.votes(), replica.log.requests)
            replica.lead(self, merge.entries())
            return
        holders = self._holders()
        able = sorted(name for name in holders if self._is_here(name))
        if able:
            later = [name for name in able if name > self.donor]
            self.donor = (later or able)[0]
            self._ask()
        else:
            self._do_without(holders)

    def _holders(self) -> list[str]:
        """Those whose answers count and say that they have everything up to the base."""
        votes = self.votes()
        return [name for name, answer in self.answers.items() if answer.trusted == self.base and answer in votes]

    def _is_here(self, name: str) -> bool:
        """Whether the node that has answered under this name can be asked, and not one that has replaced it."""
        link = self.links.get(name)
        return link is not None and link.node_id == self.answers[name].node_id

    def _do_without(self, holders: list[str]) -> None:
        """All that have what is missing are out of reach: go back and wait for other answers, any `P` will do."""
        replica = self.replica
        if not replica.may_vote:
            replica.step_down(Reason.NOT_VOTER)  # what it has fetched says that another disk speaks for it
            return
        for name in holders:
            del self.answers[name]
        self.answers[replica.name] = replica.make_promise(self.epoch, tail=True)
        self.stage = Stage.SEALING
        self._seal_the_silent()
        self._conclude_if_enough()

    def _ask(self) -> None:
        replica = self.replica
        self.asked_ms = replica.now
        replica.out.append(Send(self.donor, Fetch(self.epoch, replica.log.trusted)))

    def fetched(self, sender: str, message: Fetched) -> None:
        """Committed entries from the donor."""
        replica = self.replica
        if not self._is_fetching_from(sender) or message.epoch != self.epoch or message.after > replica.log.trusted:
            return
        before = replica.log.trusted
        replica.adopt(message.entries, self.base)
        if replica.log.trusted > before:
            self._continue()

    def received_snapshot(self, sender: str, message: Snapshot) -> None:
        """The donor has compacted what was asked for and sends all its rows instead."""
        if self._is_fetching_from(sender) and message.trusted > self.replica.log.trusted:
            self.replica.install(message)
            self._continue()

    def _is_fetching_from(self, sender: str) -> bool:
        """Whether the sender has what is missing; it may have been asked a while ago."""
        return self.stage is Stage.FETCHING and sender in self._holders() and self._is_here(sender)

    def _continue(self) -> None:
        if self.replica.log.trusted == self.base:
            self._fetch_or_merge()
        else:
            self._ask()

    def tick(self) -> None:
        """Ask again those that have not answered; see to the deadline."""
        replica = self.replica
        overdue = replica.now >= self.asked_ms + replica.limits.seal_retry_ms
        if replica.now >= self.deadline:
            self._give_up_waiting()
        elif self.stage is Stage.LINKING:
            self._begin_if_enough()
        elif self.stage is Stage.FETCHING:
            if self._has_waited_enough():
                self._fetch_or_merge()
        elif overdue:
            self._seal_the_silent()

    def _has_waited_enough(self) -> bool:
        """Whether the donor is gone or has had its time: a snapshot takes longer, and asking again would end it."""
        replica, limits = self.replica, self.replica.limits
        is_snapshot = replica.log.trusted < self.answers[self.donor].floor
        patience_ms = limits.snapshot_retry_ms if is_snapshot else limits.seal_retry_ms
        return not self._is_here(self.donor) or replica.now >= self.asked_ms + patience_ms

    def _seal_the_silent(self) -> None:
        for peer in sorted(self.links):
            if peer not in self.answers:
                self._seal(peer)

    def _give_up_waiting(self) -> None:
        """At the deadline of a promotion: go on with too few nodes if that was asked for, else say how many answered.

        A promotion that has already sealed nodes goes on trying: they would refuse their old leader anyway.
        """
        self.deadline = float("inf")
        if self.accept_loss and self.stage is not Stage.FETCHING:
            self.deadline = self.replica.now + self.replica.limits.seal_retry_ms
            if self.stage is Stage.LINKING:
                self._begin_sealing()
            else:
                self._conclude_if_enough(forced=True)
        elif self.stage is Stage.LINKING:
            self._refuse(Reason.TOO_FEW_NODES, len(self.links) + 1)
            self.replica.step_down(Reason.TOO_FEW_NODES)
        else:
            self._refuse(Reason.TIMEOUT, len(self.votes()))

    def _refuse(self, reason: Reason, answered: int) -> None:
        if self.token is not None:
            outcome = Outcome.UNKNOWN if reason is Reason.TIMEOUT else Outcome.NOT_WRITTEN
            result = Result(outcome, reason, epoch=self.epoch, acks=answered, required=self.needed)
            self.replica.out.append(Reply(self.token, result))
            self.token = None

    def end(self, reason: Reason) -> None:
        """The take-over is over without leadership."""
        self._refuse(reason, len(self.answers) or len(self.links) + 1)
