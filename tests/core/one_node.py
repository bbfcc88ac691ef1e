"""One node, and a test that speaks for all the others."""

from __future__ import annotations

import msgspec

from retinue.core.messages import (
    Ack,
    Append,
    Configuration,
    Effect,
    Entry,
    Heartbeat,
    Image,
    LinkUp,
    Message,
    Outcome,
    Promise,
    PromoteRequested,
    Reason,
    Received,
    Result,
    Started,
    Tick,
)
from retinue.core.replica import Limits, Replica
from tests.core.parts import (
    F2,
    L,
    member_image,
    replica,
    replies,
    sent,
)

# Epochs: of the founder, and when it resumes; of follower1 after a promotion; of a candidate in these tests.
OWN, RESUMED, PROMOTED, EPOCH = 1, 7, 8, 9


def follower(*entries: Entry, promised: int = OWN, trusted: int = 0, limits: Limits | None = None) -> Replica:
    epochs = {OWN: 1} if entries else {}
    return replica(F2, member_image("f2.1", *entries, promised=promised, trusted=trusted, epochs=epochs), limits=limits)


def hear(node: Replica, message: Message, sender: str = L) -> list[Effect]:
    return node.step(Received(sender, message), 10.0)


def append(*entries: Entry, epoch: int = OWN, start: int = 1, commit: int = 0) -> Append:
    return Append(epoch, start, commit, [*entries])


def acks(effects: list[Effect]) -> list[Ack]:
    return [message for _, message in sent(effects, Ack)]


def beat(commit: int, *, chain: int, epoch: int = OWN) -> Heartbeat:
    return Heartbeat(epoch, 1, commit, chain)


def chain_of(*entries: Entry) -> int:
    node = follower()
    hear(node, append(*entries, commit=len(entries)))
    assert node.log.trusted == len(entries)
    return node.log.chain


def answer(
    *entries: Entry,
    trusted: int = 0,
    epochs: dict[int, int] | None = None,
    voter: bool = True,
    node_id: str = "",
    configuration: Configuration | None = None,
    epoch: int = EPOCH,
    floor: int = 0,
    chain: int = 0,
) -> Promise:
    own = epochs if epochs is not None else {entry.epoch: 1 for entry in entries if entry.epoch}
    known = configuration or Configuration(3)
    return Promise(epoch, node_id, voter, trusted, chain, floor, trusted, own, known, [*entries])


class Candidate:
    """A node on its way to leadership; the test speaks for all others."""

    def __init__(self, name: str, image: Image, *, limits: Limits | None = None) -> None:
        self.node: Replica = replica(name, image, limits=limits)
        self.now = 0.0

    def step(self, event: msgspec.Struct) -> list[Effect]:
        return self.node.step(event, self.now)  # type: ignore[arg-type]

    def start(self, lead: bool = True) -> list[Effect]:
        return self.step(Started(lead, "c"))

    def promote(self, *, accept_loss: bool = False, deadline: float = 5000.0) -> list[Effect]:
        return self.step(PromoteRequested(7, accept_loss, deadline))

    def link(self, *peers: str, promised: int = 1, cluster_id: str = "c", life: int = 1) -> list[Effect]:
        return [e for peer in peers for e in self.step(LinkUp(peer, f"{peer}.{life}", cluster_id, promised))]

    def tick(self, at: float) -> list[Effect]:
        self.now = at
        return self.step(Tick())

    def hear(self, sender: str, message: Message) -> list[Effect]:
        return self.step(Received(sender, message))

    def answer(self, sender: str, *entries: Entry, life: int = 1, **rest: object) -> list[Effect]:
        takeover = self.node.takeover
        assert takeover is not None
        told = answer(*entries, node_id=f"{sender}.{life}", epoch=takeover.epoch, **rest)  # type: ignore[arg-type]
        return self.hear(sender, told)

    @property
    def role(self) -> str:
        return self.node.role


def outcome(effects: list[Effect]) -> tuple[Outcome, Reason]:
    result = replies(effects)[7]
    assert isinstance(result, Result)
    return result.outcome, result.reason
