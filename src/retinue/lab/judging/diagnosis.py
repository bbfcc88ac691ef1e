"""From what was observed on a cluster to the fault behind it, in plain words: what is wrong, why, and what cures it.

Every function is pure: facts in, named faults out. The causes are the usual ones of single-leader stores with a write
quorum; an observation proves that something is wrong, and its pattern suggests why.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

LOST_SENDS = "lost remaining sends"
LAST_ARRIVAL = "last arrival wins"
RESURRECTED = "resurrected deletes"
LOST_DELETES = "lost deletes"
LOST_WRITES = "acknowledged writes lost"
STALE_FOR_GOOD = "older values for good"
TOO_FEW_COPIES = "fewer copies than acknowledged"
MORE_THAN_WAITING = "writes that wait for more than acknowledgements"

CLEARLY_SLOWER = 1.15
"""A mean above theory's by more than this factor is not explained by chance or by a usual overhead."""

SHOWN_NAMES = 4


class NamedFault(msgspec.Struct, frozen=True):
    """A fault by its name: what was seen, the likely cause, and the cure, one sentence each, without the full stop."""

    name: str
    seen: str
    cause: str
    cure: str

    @property
    def sentence(self) -> str:
        """What is wrong and why, as one sentence for a list of violations."""
        return f"{self.name}: {self.seen}: {self.cause}."


class NodeFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What one follower lacked or had against the leader once nothing changed any more: numbers of keys.

    `missing`: the leader has the key, and nothing suggests that the follower ever had it. `missing_once`: of those,
    written only once. `outdated`: it has another value than the leader, or none any more. `went_back`: of those, known
    to have had the newer value before the older one. `undeleted`: the leader deleted the key, the follower has it.
    `came_back`: of those, known to have been without the key before. The last three name a few of those keys.
    """

    node: str
    missing: int = 0
    missing_once: int = 0
    outdated: int = 0
    went_back: int = 0
    undeleted: int = 0
    came_back: int = 0
    missing_keys: str = ""
    outdated_keys: str = ""
    undeleted_keys: str = ""


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What was observed on a cluster after everything was healed and nothing changed any more.

    `settled_s`: for how long nothing had changed. `versions`: whether the server tells versions. `quorum`: the write
    quorum, 0 where it is not known. `once`: how many keys were written exactly once. `lost`: sentences on
    acknowledged writes that the leader itself no longer has. `few_copies`: keys whose last acknowledged write fewer
    followers have than the quorum says.
    """

    nodes: tuple[NodeFacts, ...]
    settled_s: float
    once: int = 0
    quorum: int = 0
    versions: bool = False
    lost: tuple[str, ...] = ()
    few_copies: int = 0


def diagnose(facts: Facts) -> list[NamedFault]:
    """All faults that these facts show, the worst first; empty for a correct cluster."""
    found = [
        _lost_writes(facts),
        _few_copies(facts),
        _missing(facts),
        _undeleted(facts),
        _outdated(facts),
    ]
    return [fault for fault in found if fault is not None]


def _lost_writes(facts: Facts) -> NamedFault | None:
    if not facts.lost:
        return None
    return NamedFault(
        LOST_WRITES,
        f"{counted(len(facts.lost), 'acknowledged write')} {_is(len(facts.lost))} gone, such as: {facts.lost[0]}",
        "a write was answered before enough nodes had it durably, or a later step overwrote it",
        "answer only after the quorum has stored the write, and let a new leader ask enough nodes to meet one of them",
    )


def _few_copies(facts: Facts) -> NamedFault | None:
    if not facts.few_copies or not facts.quorum:
        return None
    return NamedFault(
        TOO_FEW_COPIES,
        f"the last acknowledged write of {counted(facts.few_copies, 'key')} is on fewer than the {facts.quorum} "
        "followers that had confirmed it",
        "followers that had the write gave it up again for an older one, so the death of the leader would lose it",
        "let a follower keep the entry with the highest version of each key",
    )


def _missing(facts: Facts) -> NamedFault | None:
    by_node = {node.node: node.missing for node in facts.nodes if node.missing}
    if not by_node:
        return None
    worst = max(by_node, key=lambda name: by_node[name])
    each = ""
    if facts.once:
        mean = sum(node.missing_once for node in facts.nodes) / facts.once
        each = f"; a key that is written once never comes to {mean:.1f} of {len(facts.nodes)} followers"
        if not facts.quorum:
            each += f", as if the quorum were {len(facts.nodes) - mean:.0f}"
    return NamedFault(
        LOST_SENDS,
        f"{facts.settled_s:.0f} s after the last change {worst} still lacks {counted(by_node[worst], 'key')} "
        f"({_listed(by_node)}){_such_as(facts, 'missing_keys')}{each}",
        "the server stops sending once the quorum is met, so the other followers never get the write",
        "go on sending to every follower until it has confirmed, also after the client was answered",
    )


def _undeleted(facts: Facts) -> NamedFault | None:
    by_node = {node.node: node.undeleted for node in facts.nodes if node.undeleted}
    if not by_node:
        return None
    came_back = sum(node.came_back for node in facts.nodes)
    copies = counted(sum(by_node.values()), "copy of a deleted key", "copies of deleted keys")
    if came_back:
        return NamedFault(
            RESURRECTED,
            f"followers hold {copies} ({_listed(by_node)}){_such_as(facts, 'undeleted_keys')}; {came_back} of "
            "them had gone before, and came back",
            "a put that was slower than the delete after it was applied last, because nothing puts them in order",
            "give every write a version, keep the version of a delete too, and ignore what is older",
        )
    return NamedFault(
        LOST_DELETES,
        f"followers hold {copies} ({_listed(by_node)}){_such_as(facts, 'undeleted_keys')}",
        "the delete never arrived there, or a slower put was applied after it",
        "send deletes like writes until every follower has confirmed, with a version that outlives the key",
    )


def _outdated(facts: Facts) -> NamedFault | None:
    by_node = {node.node: node.outdated for node in facts.nodes if node.outdated}
    if not by_node:
        return None
    went_back = sum(node.went_back for node in facts.nodes)
    copies = counted(sum(by_node.values()), "copy", "copies")
    differ = "differs" if copies.startswith("1 ") else "differ"
    such_as = _such_as(facts, "outdated_keys")
    seen = f"{copies} on followers {differ} from the leader for good ({_listed(by_node)}){such_as}"
    if went_back:
        return NamedFault(
            LAST_ARRIVAL,
            f"{seen}; {went_back} of them had the newer value before, and went back to an older one",
            "each follower keeps what arrives last, and simulated delays change the order",
            "give every write a version at the leader, and let a follower ignore what is older than what it has",
        )
    if facts.versions:
        return NamedFault(
            STALE_FOR_GOOD,
            seen,
            "the newer write never arrived there",
            "go on sending to every follower until it has confirmed",
        )
    return NamedFault(
        STALE_FOR_GOOD,
        seen,
        "the newer write never arrived there, or an older one arrived after it and won",
        "go on sending until every follower has confirmed, and ignore what is older than what is there",
    )


def slower_than_all(quorum: int, mean_ms: float, all_ms: float) -> NamedFault | None:
    """Whether writes take longer than waiting for every follower would: `all_ms` in the mean, by theory."""
    if mean_ms <= CLEARLY_SLOWER * all_ms:
        return None
    return NamedFault(
        MORE_THAN_WAITING,
        f"writes at quorum {quorum} take at least {mean_ms:.0f} ms in the mean, and to wait for every follower would "
        f"take {all_ms:.0f} ms",
        "the sends go out one after another, or the simulated delays sleep in the threads of a pool and a write waits "
        "for a free thread, or a request costs the server that much",
        "send to all followers at once, let delays wait on a timer instead of a thread, and measure with --concurrency "
        "1, where no write waits for another",
    )


def counted(number: int, noun: str, plural: str = "") -> str:
    """A number with its noun, such as "1 key" or "12 keys"."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def _is(number: int) -> str:
    return "is" if number == 1 else "are"


def _listed(by_node: Mapping[str, int]) -> str:
    """Nodes with their numbers, the worst first, at most a few."""
    ordered = sorted(by_node, key=lambda name: (-by_node[name], name))
    shown = [f"{name}: {by_node[name]}" for name in ordered[:SHOWN_NAMES]]
    left = len(ordered) - len(shown)
    return ", ".join(shown) + (f" and {counted(left, 'other node')}" if left else "")


def _such_as(facts: Facts, field: str) -> str:
    """A few keys, and the node that they are about, where they are known."""
    named = next((node for node in facts.nodes if getattr(node, field)), None)
    return f", such as {getattr(named, field)} at {named.node}" if named else ""


def summed(nodes: Iterable[NodeFacts]) -> tuple[NodeFacts, ...]:
    """Facts of several rounds as one row a node."""
    found: dict[str, NodeFacts] = {}
    for facts in nodes:
        before = found.get(facts.node)
        found[facts.node] = facts if before is None else _sum(before, facts)
    return tuple(found.values())


def _sum(one: NodeFacts, other: NodeFacts) -> NodeFacts:
    """Numbers are added; of examples the first stay."""
    both: dict[str, Any] = msgspec.structs.asdict(one)
    for name, found in msgspec.structs.asdict(other).items():
        both[name] = both[name] or found if isinstance(found, str) else both[name] + found
    return NodeFacts(**both)
