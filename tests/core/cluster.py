"""A cluster in memory for tests of the core: disks are dicts, messages wait in one queue until a test lets them go.

Nothing happens by chance and nothing by itself: `run` delivers all that is under way in the order in which it was sent,
`advance` moves the clock and ticks every node. A test holds messages back, loses them, cuts nodes off, stops and wipes
them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import msgspec

from retinue.core.leader import Leadership
from retinue.core.messages import (
    Ack,
    Append,
    Change,
    CloseLinks,
    Compact,
    Effect,
    Entry,
    Event,
    Fetched,
    HardState,
    Image,
    Install,
    Kind,
    LinkDown,
    LinkUp,
    Message,
    OpenLinks,
    Outcome,
    PromoteRequested,
    Proposed,
    ReadResult,
    Reason,
    Received,
    Replicate,
    Reply,
    Result,
    Save,
    SaveEntries,
    SaveEpoch,
    SaveState,
    Send,
    SendRange,
    SendSnapshot,
    Started,
    Tick,
    Write,
    encode_changes,
)
from retinue.core.replica import Limits, Replica
from tests.core.parts import (
    F1,
    F2,
    F3,
    F4,
    F5,
    L,
    names,
    write,
)

SAVES = (SaveEntries, SaveEpoch, SaveState, Compact, Install)

Sent = tuple[str, str, Message | LinkUp]
Match = Callable[[str, str, Message | LinkUp], bool]


class Disk:
    """What one node has made durable."""

    def __init__(self, node_id: str) -> None:
        self.hard = HardState(node_id)
        self.epochs: dict[int, int] = {}
        self.rows: dict[int, Entry] = {}

    def image(self) -> Image:
        return Image(self.hard, dict(self.epochs), [self.rows[version] for version in sorted(self.rows)])

    def commit(self, save: Save) -> None:
        if isinstance(save, SaveEntries):
            self.rows.update((entry.version, entry) for entry in save.entries)
            for version in save.removed:
                self.rows.pop(version, None)
        elif isinstance(save, SaveEpoch):
            self.epochs.setdefault(save.epoch, save.start)
        elif isinstance(save, SaveState):
            self.hard = save.hard
        elif isinstance(save, Install):
            kept = {version: row for version, row in self.rows.items() if version > save.trusted}
            self.rows = kept | {entry.version: entry for entry in save.entries}
        else:
            for version, part in (*save.dead, *save.tombstones):
                self._remove(version, part)

    def _remove(self, version: int, part: int) -> None:
        row = self.rows[version]
        if row.kind == Kind.BATCH:
            changes = [*row.changes()]
            changes[part] = Change(Kind.NOOP, "")
            self.rows[version] = msgspec.structs.replace(row, value=encode_changes(tuple(changes)))
            if any(change.kind != Kind.NOOP for change in changes):
                return
        del self.rows[version]

    def read_range(self, after: int, upto: int) -> list[Entry]:
        return [self.rows[version] for version in range(after + 1, upto + 1)]


class Cluster:
    """Nodes, their disks, and the messages between them.

    `under_way`: messages not yet delivered. `held`: those that a `hold` keeps back. `replies`: answers by token.
    """

    def __init__(
        self, followers: int = 5, write_quorum: int = 3, limits: Limits | None = None, *, founded: bool = True
    ) -> None:
        self.names = names(followers)
        self.write_quorum = write_quorum
        self.limits = limits
        self.now = 0.0
        self.lives = dict.fromkeys(self.names, 1)
        self.disks = {name: Disk(f"{name}.1") for name in self.names}
        self.nodes: dict[str, Replica] = {}
        self.under_way: deque[Sent] = deque()
        self.held: list[Sent] = []
        self.delivered: list[Sent] = []
        self.effects: list[tuple[str, Effect]] = []
        self.replies: dict[int, Result | ReadResult] = {}
        self._holds: list[Match] = []
        self._cut: set[str] = set()
        self._dialers: set[str] = set()
        if founded:
            for name in reversed(self.names):
                self.start(name, lead=name == L)
            self.run()
            assert self.nodes[L].serving

    # --- nodes ---

    def start(self, name: str, *, lead: bool = False) -> None:
        """Start a node on what its disk holds; whoever dials it reaches it."""
        self.nodes[name] = Replica(
            name, self.names, self.disks[name].image(), write_quorum=self.write_quorum, limits=self.limits
        )
        self.step(name, Started(lead, "c"))
        for dialer in sorted(self._dialers - {name}):
            self._link(dialer, name)

    def stop(self, *stopped: str) -> None:
        """Kill nodes: what is not on their disks is gone, and so is what they were sent."""
        for name in stopped:
            del self.nodes[name]
            self._dialers.discard(name)
            self.under_way = deque(item for item in self.under_way if name not in item[:2])
            for dialer in sorted(self._dialers):
                self.step(dialer, LinkDown(name))

    def restart(self, name: str, *, lead: bool = False) -> None:
        self.stop(name)
        self.start(name, lead=lead)
        self.run()

    def wipe(self, name: str) -> None:
        """Give a stopped node an empty disk, with a new node id."""
        self.lives[name] += 1
        self.disks[name] = Disk(f"{name}.{self.lives[name]}")

    def __getitem__(self, name: str) -> Replica:
        return self.nodes[name]

    # --- the network ---

    def cut(self, *cut: str) -> None:
        """Whatever these nodes send or are sent is lost, without anybody noticing."""
        self._cut.update(cut)

    def heal(self) -> None:
        self._cut.clear()

    def hold(self, match: Match) -> None:
        """Keep back messages for which `match(sender, to, message)` is true, until `release`."""
        self._holds.append(match)

    def hold_appends(self, *to: str) -> None:
        self.hold(lambda sender, receiver, message: isinstance(message, Append) and receiver in to)

    def release(self) -> None:
        """Deliver what was held back, and hold no more."""
        self._holds.clear()
        held, self.held = self.held, []
        self.under_way.extend(held)
        self.run()

    def lose(self) -> None:
        """Lose what was held back, and hold no more."""
        self._holds.clear()
        self.held.clear()

    def send(self, sender: str, to: str, message: Message) -> None:
        self.under_way.append((sender, to, message))

    def _link(self, dialer: str, peer: str) -> None:
        if peer in self.nodes and not {dialer, peer} & self._cut:
            hard = self.disks[peer].hard
            link = LinkUp(peer, hard.node_id, hard.cluster_id, hard.promised)
            self.under_way.append((peer, dialer, link))

    def relink(self, dialer: str, peer: str) -> None:
        """The link breaks and comes up again."""
        self.step(dialer, LinkDown(peer))
        self._link(dialer, peer)
        self.run()

    # --- going on ---

    def step(self, name: str, event: Event) -> list[Effect]:
        """One event into one node; saves are durable before anything else is performed."""
        effects = self.nodes[name].step(event, self.now)
        kinds = [isinstance(effect, SAVES) for effect in effects]
        assert kinds == sorted(kinds, reverse=True), "saves come first"
        for effect in effects:
            self.effects.append((name, effect))
            if isinstance(effect, SAVES):
                self.disks[name].commit(effect)
        for effect in effects:
            self._perform(name, effect)
        return effects

    def _perform(self, name: str, effect: Effect) -> None:
        if isinstance(effect, Send):
            self.send(name, effect.to, effect.message)
        elif isinstance(effect, Replicate):
            for to in effect.to:
                self.send(name, to, effect.message)
        elif isinstance(effect, SendRange):
            entries = self.disks[name].read_range(effect.after, effect.upto)
            append = Append(effect.epoch, effect.start, effect.commit, entries)
            fetched = Fetched(effect.epoch, effect.after, entries)
            self.send(name, effect.to, fetched if effect.fetched else append)
        elif isinstance(effect, SendSnapshot):
            rows = [row for version, row in sorted(self.disks[name].rows.items()) if version <= effect.head.trusted]
            self.send(name, effect.to, msgspec.structs.replace(effect.head, entries=rows))
        elif isinstance(effect, Reply):
            assert effect.token not in self.replies, "every request is answered once"
            self.replies[effect.token] = effect.result
        elif isinstance(effect, OpenLinks):
            self._dialers.add(name)
            for peer in self.names:
                if peer != name:
                    self._link(name, peer)
        elif isinstance(effect, CloseLinks):
            self._dialers.discard(name)

    def run(self) -> None:
        """Deliver everything that is under way, and what follows from it."""
        while self.under_way:
            sender, to, message = self.under_way.popleft()
            if any(match(sender, to, message) for match in self._holds):
                self.held.append((sender, to, message))
            elif to in self.nodes and sender in self.nodes and not {sender, to} & self._cut:
                self.delivered.append((sender, to, message))
                self.step(to, message if isinstance(message, LinkUp) else Received(sender, message))

    def advance(self, ms: float) -> None:
        """Let time pass: every node ticks once, at the end of it."""
        self.now += ms
        for name in sorted(self.nodes):
            self.step(name, Tick())
        self.run()

    # --- what tests ask often ---

    def propose(self, *writes: Write, to: str = L) -> None:
        self.step(to, Proposed([*writes]))
        self.run()

    def leading(self, name: str = L) -> Leadership:
        leadership = self.nodes[name].leadership
        assert leadership is not None
        return leadership

    def result(self, token: int) -> Result:
        result = self.replies[token]
        assert isinstance(result, Result)
        return result

    def read(self, token: int) -> ReadResult:
        result = self.replies[token]
        assert isinstance(result, ReadResult)
        return result

    def ack(self, sender: str, *versions: int, contiguous: int = 0, to: str = L) -> None:
        """An acknowledgement, made up."""
        self.step(to, Received(sender, Ack(self[to].promised, [*versions], contiguous, 0)))

    def assert_refused(self, token: int, reason: Reason) -> None:
        """The write was refused for certain, before it had a version."""
        result = self.result(token)
        assert (result.outcome, result.reason, result.version) == (Outcome.NOT_WRITTEN, reason, 0)

    def assert_converged(self) -> None:
        """All nodes that run trust the same history and have nothing above it."""
        states = {(node.log.trusted, node.log.chain) for node in self.nodes.values()}
        assert len(states) == 1, {name: node.log.trusted for name, node in self.nodes.items()}
        assert not any(node.log.above for node in self.nodes.values())


def silent(followers: int = 5, write_quorum: int = 3, limits: Limits | None = None) -> Cluster:
    """A cluster whose followers accept nothing until the test releases it."""
    cluster = Cluster(followers, write_quorum, limits)
    cluster.hold_appends(*cluster.names)
    return cluster


def recovering() -> Cluster:
    """F2 has taken over with one version to recover, and its followers accept nothing yet."""
    cluster = Cluster()
    cluster.hold_appends(F1, F3, F4, F5)
    cluster.propose(write(1, value=b"tail", request_id="x"))
    cluster.lose()
    cluster.stop(L)
    cluster.hold_appends(F1, F3, F4, F5)
    cluster.step(F2, PromoteRequested(70, False, 1e9))
    cluster.run()
    assert cluster[F2].role == "leader"
    return cluster
