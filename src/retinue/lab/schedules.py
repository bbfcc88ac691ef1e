"""Schedules of faults: what goes wrong when, decided before a run from a name or a seed alone.

A schedule breaks nodes, mends all of them by three quarters of its time, and leaves the last quarter for recovery under
load. It expects that every promotion succeeds; whoever performs it must look who leads at the end.
"""

from __future__ import annotations

import enum
import random
from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec

HEALED_AT = 0.75
"""The share of a schedule after which every node is whole again."""


class Action(enum.Enum):
    """What is done to a node. Each value is the word for it in tables and pictures."""

    KILL = "kill"
    START = "start"
    PAUSE = "pause"
    RESUME = "resume"
    CUT_OFF = "cut off"
    HEAL = "heal"
    PROMOTE = "promote"

    @property
    def breaks(self) -> bool:
        """Whether it takes a node away."""
        return self in REPAIRS

    @property
    def mends(self) -> bool:
        """Whether it gives a node back."""
        return self in REPAIRS.values()


REPAIRS = {Action.KILL: Action.START, Action.PAUSE: Action.RESUME, Action.CUT_OFF: Action.HEAL}
"""What mends each fault."""


class Event(NamedTuple):
    """One action on one node, `at_ms` after the schedule began."""

    at_ms: float
    action: Action
    node: str

    def __str__(self) -> str:
        return f"{self.action.value} {self.node}"


class Schedule(msgspec.Struct, frozen=True):
    """Events in the order of time, at a write quorum of `quorum`."""

    name: str
    quorum: int
    duration_ms: float
    events: tuple[Event, ...]

    @property
    def keeps_the_leader(self) -> bool:
        """Whether no other node takes the leadership, so that reads at level `committed` are linearizable."""
        return all(event.action is not Action.PROMOTE for event in self.events)


class Draft:
    """A schedule in the making: it knows which nodes are broken, and who leads if all goes well."""

    def __init__(self, nodes: Sequence[str], quorum: int, duration_ms: float) -> None:
        self.nodes = tuple(nodes)
        self.quorum = quorum
        self.duration_ms = duration_ms
        self.leader = nodes[0]
        self.broken: dict[str, Action] = {}
        self.events: list[Event] = []

    @property
    def followers(self) -> tuple[str, ...]:
        """All but the first leader."""
        return self.nodes[1:]

    @property
    def whole(self) -> list[str]:
        """Nodes that work."""
        return [node for node in self.nodes if node not in self.broken]

    @property
    def too_many(self) -> int:
        """How many followers must be away for writes to stop."""
        return len(self.followers) - self.quorum + 1

    def do(self, share: float, action: Action, node: str) -> None:
        """Add an event at this share of the duration."""
        if action.breaks:
            self.broken[node] = action
        elif action.mends:
            del self.broken[node]
        else:
            self.leader = node
        self.events.append(Event(round(share * self.duration_ms, 1), action, node))

    def mend(self, share: float, node: str) -> None:
        """Undo what was done to a node."""
        self.do(share, REPAIRS[self.broken[node]], node)

    def heirs(self) -> list[str]:
        """Nodes that could take over now and commit writes afterwards; none when too few nodes are whole.

        A take-over needs N - k nodes (docs/guarantees.md), and the new leader needs k followers.
        """
        whole = [node for node in self.whole if node != self.leader]
        enough = len(self.whole) >= max(len(self.nodes) - self.quorum, self.quorum + 1)
        return whole if enough else []

    def finished(self, name: str) -> Schedule:
        """The schedule. Nothing may be broken any more."""
        assert not self.broken, f"{name} leaves {self.broken}"
        return Schedule(name, self.quorum, self.duration_ms, tuple(self.events))


# --- by name ---


def _one_follower(draft: Draft) -> None:
    """One follower is killed, and started again on its data."""
    draft.do(0.2, Action.KILL, draft.followers[0])
    draft.mend(0.5, draft.followers[0])


def _quorum_lost(draft: Draft) -> None:
    """So many followers are killed that no write can commit; then they are started again."""
    for node in draft.followers[-draft.too_many :]:
        draft.do(0.2, Action.KILL, node)
    for node in draft.followers[-draft.too_many :]:
        draft.mend(0.5, node)


def _paused(draft: Draft) -> None:
    """So many followers are paused that writes wait: nobody can tell a paused node from a slow one."""
    for node in draft.followers[-draft.too_many :]:
        draft.do(0.2, Action.PAUSE, node)
    for node in draft.followers[-draft.too_many :]:
        draft.mend(0.5, node)


def _leader_killed(draft: Draft) -> None:
    """The leader is killed and started again; it goes on leading."""
    draft.do(0.2, Action.KILL, draft.leader)
    draft.mend(0.4, draft.leader)


def _leader_replaced(draft: Draft) -> None:
    """The leader is killed, a follower is promoted, and the old leader comes back as a follower."""
    draft.do(0.2, Action.KILL, draft.nodes[0])
    draft.do(0.3, Action.PROMOTE, draft.followers[0])
    draft.mend(0.6, draft.nodes[0])


def _leader_paused(draft: Draft) -> None:
    """The leader sleeps, a follower is promoted, and the old leader wakes up believing that it leads."""
    draft.do(0.2, Action.PAUSE, draft.nodes[0])
    draft.do(0.3, Action.PROMOTE, draft.followers[0])
    draft.mend(0.6, draft.nodes[0])


def _partition(draft: Draft) -> None:
    """The leader is cut off from all followers while clients still reach it, and a follower is promoted."""
    draft.do(0.2, Action.CUT_OFF, draft.nodes[0])
    draft.do(0.3, Action.PROMOTE, draft.followers[0])
    draft.mend(0.6, draft.nodes[0])


def _followers_cut_off(draft: Draft) -> None:
    """So many followers are cut off that no write can commit."""
    for node in draft.followers[-draft.too_many :]:
        draft.do(0.2, Action.CUT_OFF, node)
    for node in draft.followers[-draft.too_many :]:
        draft.mend(0.5, node)


def _rolling(draft: Draft) -> None:
    """Every node is killed and started again, one after another, the leader last."""
    step = HEALED_AT / (len(draft.nodes) + 1)
    for number, node in enumerate((*draft.followers, draft.leader), 1):
        draft.do(number * step, Action.KILL, node)
        draft.mend((number + 0.5) * step, node)


NAMED: dict[str, Callable[[Draft], None]] = {
    "one-follower": _one_follower,
    "quorum-lost": _quorum_lost,
    "paused": _paused,
    "followers-cut-off": _followers_cut_off,
    "leader-killed": _leader_killed,
    "leader-replaced": _leader_replaced,
    "leader-paused": _leader_paused,
    "partition": _partition,
    "rolling": _rolling,
}
"""The schedules that have a name; the docstring of each says what it does."""


def named_schedule(name: str, nodes: Sequence[str], quorum: int, duration_ms: float) -> Schedule:
    """A schedule by name, for these nodes (the leader first). Raises KeyError for an unknown name."""
    draft = Draft(nodes, quorum, duration_ms)
    NAMED[name](draft)
    return draft.finished(name)


# --- by seed ---


def draw_quorum(seed: int, followers: int) -> int:
    """The write quorum of a seed: any from 1 to `followers`, those in the middle more often."""
    dice = random.Random(f"quorum {seed}")
    choices: list[int] = [*range(1, followers + 1), *range(2, followers), (followers + 1) // 2]
    return dice.choice(choices)


def draw_schedule(seed: int, nodes: Sequence[str], quorum: int, duration_ms: float) -> Schedule:
    """A schedule by seed: up to so many nodes broken at once as the seed says, one to all of them, often the leader."""
    dice = random.Random(f"schedule {seed}")
    draft = Draft(nodes, quorum, duration_ms)
    most = dice.randint(1, len(nodes) - 1)
    mending = dice.uniform(0.1, 0.45)
    share = dice.uniform(0.05, 0.15)
    while share < HEALED_AT - 0.1:
        _strike(draft, dice, share, most, mending)
        share += dice.uniform(0.02, 0.1)
    broken = list(draft.broken)
    dice.shuffle(broken)
    for node in broken:
        draft.mend(HEALED_AT, node)
    return draft.finished(f"seed {seed}")


def _strike(draft: Draft, dice: random.Random, share: float, most: int, mending: float) -> None:
    """One more fault, one fewer, or another leader."""
    heirs = draft.heirs()
    if draft.leader in draft.broken:
        # Either way is tried: restart the leader (or let it come back), or replace it.
        if heirs and dice.random() < 0.5:
            draft.do(share, Action.PROMOTE, dice.choice(heirs))
            return
        if dice.random() < 0.5:
            draft.mend(share, draft.leader)
            return
    if draft.broken and (len(draft.broken) >= most or dice.random() < mending):
        draft.mend(share, dice.choice(sorted(draft.broken)))
    elif heirs and dice.random() < 0.08:
        draft.do(share, Action.PROMOTE, dice.choice(heirs))
    else:
        hit_the_leader = draft.leader in draft.whole and dice.random() < 0.3
        node = draft.leader if hit_the_leader else dice.choice(draft.whole)
        draft.do(share, dice.choice((Action.KILL, Action.KILL, Action.PAUSE, Action.CUT_OFF)), node)
