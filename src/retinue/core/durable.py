"""What a node must never forget, and how it becomes durable.

A step of the core collects saves; the driver commits them in one transaction before anybody is told what follows from
them. The hard state is written when a promise or the identity changed, and with what replaces or deletes rows. A
trusted prefix that grew is written now and then: after a crash it grows again from what the leader says.

Nothing that is saved or sent shares anything mutable with the node.
"""

from __future__ import annotations

from retinue.core.log import Log
from retinue.core.messages import (
    Compact,
    Configuration,
    Entry,
    HardState,
    Image,
    Install,
    Save,
    SaveEntries,
    SaveEpoch,
    SaveState,
    Snapshot,
)

# One tick declares this share of the versions dead that compaction is behind: 20 ticks a second keep up with any load.
BACKLOG_SHARE = 32


class Durable:
    """The part of a `Replica` that survives a crash: identity, promise, epochs, log."""

    def __init__(self, name: str, members: tuple[str, ...], image: Image, founding_quorum: int) -> None:
        hard = image.hard
        self.name = name
        self.members = members
        self.founding_quorum = founding_quorum
        self.node_id = hard.node_id
        self.cluster_id = hard.cluster_id
        self.promised = hard.promised
        self.voter = hard.voter
        self.founder = hard.founder
        self.births = dict(hard.births)
        self.quarantined = hard.quarantined
        self.epochs = dict(image.epochs)
        self.log = Log(image)
        self._saves: list[Save] = []
        self._unsaved = False
        self._saved_trusted = hard.trusted
        self._saved_ms = 0.0

    # --- who is who ---

    @property
    def nodes(self) -> int:
        """`N`, the number of members."""
        return len(self.members)

    @property
    def index(self) -> int:
        """This node's place among the members."""
        return self.members.index(self.name)

    @property
    def may_vote(self) -> bool:
        """Whether this node's promises and acknowledgements count."""
        return self.voter and not self.quarantined

    def birth_of(self, name: str, node_id: str) -> str:
        """`node_id` if that node may vote from the start, blank or not; else an empty string.

        It may if the founder never saw another one under its name. The first node id is recorded durably before the
        node can vote.
        """
        configuration = self.log.configuration
        if not self.founder or (configuration is not None and name in configuration.members):
            return ""
        if name not in self.births:
            self.births[name] = node_id
            self.save_state()
        return node_id if self.births[name] == node_id else ""

    def found(self, cluster_id: str) -> None:
        """Become the first voter of a new cluster."""
        self.cluster_id = cluster_id
        self.founder = self.voter = True
        self.log.configuration = Configuration(self.founding_quorum)
        self.save_state()

    # --- saving ---

    def take_saves(self, now_ms: float) -> list[Save]:
        """What this step has to make durable."""
        if self._unsaved:
            self._saves.append(SaveState(self.hard_state()))
            self._unsaved = False
            self._saved_trusted, self._saved_ms = self.log.trusted, now_ms
        saves, self._saves = self._saves, []
        return saves

    def hard_state(self) -> HardState:
        """What the store must keep beside entries."""
        log = self.log
        return HardState(
            node_id=self.node_id,
            name=self.name,
            nodes=self.nodes if self.cluster_id else 0,
            cluster_id=self.cluster_id,
            promised=self.promised,
            trusted=log.trusted,
            floor=log.floor,
            chain=log.chain,
            configuration=log.configuration,
            configuration_version=log.configuration_version,
            voter=self.voter,
            founder=self.founder,
            births=dict(self.births),
            quarantined=self.quarantined,
        )

    def save_entries(self, entries: list[Entry], removed: list[int], epoch: int, start: int) -> None:
        """Make entries of `epoch` durable; with its first one, where the epoch began."""
        if entries or removed:
            self._saves.append(SaveEntries(entries, removed))
        if entries and epoch > 0:
            self.note_epoch(epoch, start)

    def note_epoch(self, epoch: int, start: int) -> None:
        """Remember the first version that an epoch owns; an earlier record stays."""
        if epoch not in self.epochs:
            self.epochs[epoch] = start
            self._saves.append(SaveEpoch(epoch, start))

    def save_state(self) -> None:
        """Make the hard state durable in this step."""
        self._unsaved = True

    def save_what_grew(self, before_ms: float) -> None:
        """Save a trusted prefix that has grown, unless the state was saved after `before_ms`."""
        if self.log.trusted > self._saved_trusted and self._saved_ms <= before_ms:
            self.save_state()

    def compact(self, retention: int, limit: int) -> None:
        """Declare superseded rows dead that are more than `retention` versions old: `limit`, or more to keep up."""
        floor = self.log.trusted - retention
        backlog = floor - self.log.floor
        dead, tombstones = self.log.compact(floor, max(limit, backlog // BACKLOG_SHARE))
        if dead or tombstones:
            self._saves.append(Compact(dead, tombstones))
            self.save_state()

    # --- the trusted prefix ---

    def make_snapshot(self, epoch: int, start: int) -> Snapshot:
        """The head of a snapshot of everything that this node trusts."""
        log = self.log
        configuration = log.configuration
        assert configuration is not None, "a node that trusts anything has a configuration"
        return Snapshot(epoch, start, log.trusted, log.floor, log.chain, configuration, log.configuration_version, [])

    def adopt(self, entries: list[Entry], upto: int) -> None:
        """Take over committed entries from a node that trusts them, as far as they follow on without a gap."""
        taken = []
        for entry in entries:
            if entry.version == self.log.trusted + 1 <= upto:
                self.log.accept(entry)
                self.log.settle()
                taken.append(entry)
        if taken:
            self.save_entries(taken, [], 0, 0)
            self.save_state()
        self.trusted_more()

    def install(self, snapshot: Snapshot) -> None:
        """Replace everything up to the snapshot's version by its rows."""
        log = self.log
        log.install(snapshot.trusted, snapshot.floor, snapshot.chain, snapshot.entries)
        log.configuration, log.configuration_version = snapshot.configuration, snapshot.configuration_version
        self._saves.append(Install(snapshot.trusted, snapshot.entries))
        self.save_state()
        self.trusted_more()

    def trusted_more(self) -> None:
        """The trusted prefix grew: a configuration in it may say who speaks for this member."""
        configuration = self.log.configuration
        if configuration is not None and self.name in configuration.members:
            voter = configuration.members[self.name] == self.node_id
            if voter != self.voter:
                self.voter = voter
                self.save_state()
