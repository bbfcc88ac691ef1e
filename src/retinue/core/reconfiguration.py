"""Changing the configuration: the write quorum, and which node id speaks for a replaced member.

A configuration is an entry of the log, so a take-over finds a pending one as it finds any write, and reckons with the
largest `P` that may be in force. The leader demands the largest `W` until the entry is trusted:

* raise: first demand the larger `W`, also for everything assigned before, then publish the smaller `P`;
* lower: first publish the larger `P`, then relax `W`.

A learner, a node without a vote because its disk is new, is admitted by an entry that names its node id, once it holds
everything up to the end of the log as it was when it promised. Until that entry is trusted neither disk counts, the old
one or the new. One change is on its way at a time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from retinue.core.log import decode_configuration
from retinue.core.messages import (
    Configuration,
    ConfigureRequested,
    Entry,
    Kind,
    Outcome,
    Reason,
    Result,
)
from retinue.core.progress import Progress

if TYPE_CHECKING:
    from retinue.core.leader import Leadership


class Transition(msgspec.Struct):
    """A change of the configuration on its way. `version` is 0 until its entry is assigned.

    `cover`: what enough followers must hold before a smaller `P` may be published.
    """

    configuration: Configuration
    token: int | None
    deadline: float
    cover: int = 0
    version: int = 0


class Reconfiguration:
    """The configuration as one leadership changes it. `quorum` is the write quorum that it demands now."""

    def __init__(self, leadership: Leadership, pending: list[Entry]) -> None:
        self.leadership = leadership
        self.change: Transition | None = None
        self.quorum = 0
        self._reconsider(pending)

    @property
    def trusted(self) -> Configuration:
        """The configuration at the trusted prefix."""
        configuration = self.leadership.log.configuration
        assert configuration is not None, "a node without a configuration cannot have been sealed"
        return configuration

    def _reconsider(self, pending: list[Entry]) -> None:
        """Demand the largest write quorum of the trusted configuration, the pending ones, and the one on its way."""
        quorums = [self.trusted.write_quorum]
        quorums += [decode_configuration(entry).write_quorum for entry in pending if entry.kind == Kind.CONFIG]
        if self.change is not None:
            quorums.append(self.change.configuration.write_quorum)
        self.quorum = max(quorums)

    def configure(self, request: ConfigureRequested) -> None:
        """Change the write quorum."""
        leadership, trusted = self.leadership, self.trusted
        if not leadership.recovered or self.change is not None:
            reason = Reason.BUSY if leadership.recovered else Reason.RECOVERING
            leadership.reply(request.token, Result(Outcome.NOT_WRITTEN, reason, required=self.quorum))
        elif request.write_quorum == trusted.write_quorum:
            self._done(request.token, leadership.log.configuration_version)
        else:
            wanted = msgspec.structs.replace(trusted, write_quorum=request.write_quorum)
            raised = request.write_quorum > trusted.write_quorum
            cover = leadership.log.last if raised else 0
            self._begin(Transition(wanted, request.token, request.deadline, cover))

    def _done(self, token: int, version: int) -> None:
        leadership = self.leadership
        acks = len(leadership.holders(version)) if version else 0
        done = Result(Outcome.COMMITTED, Reason.OK, version, leadership.epoch, acks, self.quorum)
        leadership.reply(token, done)

    def _begin(self, change: Transition) -> None:
        self.change = change
        self._reconsider([])
        self.advance()

    def advance(self) -> None:
        """Assign the configuration entry when that is safe; admit learners that have caught up."""
        leadership = self.leadership
        learners = self._caught_up()
        for progress in learners:
            # Whatever else changes: it may be the one whose acknowledgement the change on its way still needs.
            if self._is_admitted(progress):
                leadership.admit(progress)
        change = self.change
        if change is None:
            self._admit_first(learners)
        elif not change.version and self._covered(change):
            value = msgspec.json.encode(change.configuration)
            change.version = leadership.log.last + 1
            leadership.append(Entry(change.version, leadership.epoch, Kind.CONFIG, "", value))

    def _covered(self, change: Transition) -> bool:
        holders = sum(
            progress.voter and not progress.diverged and progress.contiguous >= change.cover
            for progress in self.leadership.progress.values()
        )
        return change.cover == 0 or holders >= change.configuration.write_quorum

    def _caught_up(self) -> list[Progress]:
        """Learners that hold all that was assigned when they promised, and can be reached."""
        return [
            progress
            for progress in self.leadership.progress.values()
            if progress.admit_at is not None
            and progress.contiguous >= progress.admit_at
            and progress.linked
            and progress.promised
            and not progress.diverged
        ]

    def _is_admitted(self, progress: Progress) -> bool:
        """Whether an entry has admitted the learner, which had not heard of it yet."""
        name, node_id = progress.name, progress.node_id
        return self.trusted.members.get(name) == node_id and self.known_as(name, node_id)

    def _admit_first(self, learners: list[Progress]) -> None:
        """Let a learner vote, by an entry that names its node id."""
        if not self.leadership.recovered:
            return
        for progress in learners:
            if progress.admit_at is not None:  # It may have been admitted just now.
                members = {**self.trusted.members, progress.name: progress.node_id}
                self._begin(Transition(Configuration(self.trusted.write_quorum, members), None, float("inf")))
                return

    def in_force(self, entry: Entry) -> list[Progress]:
        """A configuration entry is trusted; the followers that it admits."""
        change = self.change
        ours = change if change is not None and change.version == entry.version else None
        if ours is not None:
            self.change = None
        self._reconsider(list(self.leadership.log.above.values()))
        if ours is not None and ours.token is not None:
            self._done(ours.token, entry.version)
        admitted = []
        for name, node_id in decode_configuration(entry).members.items():
            progress = self.leadership.progress.get(name)
            if progress is None or progress.admit_at is None or progress.node_id != node_id:
                continue
            if self.known_as(name, node_id):
                admitted.append(progress)
        return admitted

    def known_as(self, name: str, node_id: str) -> bool:
        """Whether this node id speaks for the member: no other has been seen under its name.

        By the trusted configuration and by all that may follow it, as in the votes of a take-over.
        """
        known = self.trusted.members.get(name) or self.leadership.replica.births.get(name)
        above = self.leadership.log.above.values()
        later = (decode_configuration(entry) for entry in above if entry.kind == Kind.CONFIG)
        return known in (None, node_id) and all(c.members.get(name, node_id) == node_id for c in later)

    def give_up(self) -> bool:
        """At its deadline nobody waits for a change any more. Whether it had no version yet, and is given up."""
        change, leadership = self.change, self.leadership
        if change is None or change.token is None or change.deadline > leadership.replica.now:
            return False
        outcome = Outcome.UNKNOWN if change.version else Outcome.NOT_WRITTEN
        result = Result(outcome, Reason.TIMEOUT, change.version, leadership.epoch, 0, self.quorum)
        leadership.reply(change.token, result)
        change.token = None
        if change.version:
            return False
        self.change = None
        self._reconsider(list(leadership.log.above.values()))
        return True

    def end(self, reason: Reason) -> None:
        """The leadership is over: another leader finds the change, or not."""
        if self.change is not None and self.change.token is not None:
            leadership = self.leadership
            leadership.reply(self.change.token, Result(Outcome.UNKNOWN, reason, epoch=leadership.epoch))
