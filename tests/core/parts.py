"""What tests of the core are made of: names, entries, disks of single nodes, and what a step asked for."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

import msgspec

from retinue.core.messages import (
    Change,
    Condition,
    Configuration,
    Effect,
    Entry,
    HardState,
    Image,
    Kind,
    ReadResult,
    Reply,
    Result,
    Send,
    Write,
    encode_changes,
)
from retinue.core.replica import Limits, Replica

FOREVER = float("inf")

T = TypeVar("T")


def names(followers: int) -> tuple[str, ...]:
    return ("leader", *(f"follower{index}" for index in range(1, followers + 1)))


NAMES = names(5)
L, F1, F2, F3, F4, F5 = NAMES


def put(version: int, epoch: int, key: str = "k", value: bytes = b"v", request_id: str = "") -> Entry:
    return Entry(version, epoch, Kind.PUT, key, value, request_id=request_id)


def delete(version: int, epoch: int, key: str = "k") -> Entry:
    return Entry(version, epoch, Kind.DELETE, key)


def noop(version: int, epoch: int) -> Entry:
    return Entry(version, epoch, Kind.NOOP)


def batch(version: int, epoch: int, *changes: Change, request_id: str = "") -> Entry:
    return Entry(version, epoch, Kind.BATCH, "", encode_changes(changes), request_id=request_id)


def config(version: int, epoch: int, write_quorum: int, members: dict[str, str] | None = None) -> Entry:
    value = msgspec.json.encode(Configuration(write_quorum, members or {}))
    return Entry(version, epoch, Kind.CONFIG, "", value)


def write(
    token: int,
    key: str = "k",
    value: bytes = b"v",
    *,
    deadline: float = FOREVER,
    condition: Condition | None = None,
    request_id: str = "",
    acks: int | None = None,
    kind: Kind = Kind.PUT,
) -> Write:
    change = Change(kind, key, b"" if kind == Kind.DELETE else value)
    return Write(token, (change,), deadline, condition=condition, request_id=request_id, acks=acks)


def member_image(
    node_id: str,
    *entries: Entry,
    promised: int = 1,
    trusted: int = 0,
    write_quorum: int = 3,
    epochs: dict[int, int] | None = None,
    configuration: Configuration | None = None,
    configuration_version: int = 0,
    voter: bool = True,
    founder: bool = False,
    floor: int = 0,
    quarantined: bool = False,
    births: dict[str, str] | None = None,
) -> Image:
    """The disk of a node that belongs to the cluster `c`."""
    hard = HardState(
        node_id,
        nodes=len(NAMES),
        cluster_id="c",
        promised=promised,
        trusted=trusted,
        floor=floor,
        configuration=configuration or Configuration(write_quorum),
        configuration_version=configuration_version,
        voter=voter,
        founder=founder,
        births=births or {},
        quarantined=quarantined,
    )
    return Image(hard, epochs or {}, list(entries))


def replica(name: str, image: Image, *, members: tuple[str, ...] = NAMES, limits: Limits | None = None) -> Replica:
    return Replica(name, members, image, write_quorum=3, limits=limits)


def only(effects: Iterable[Effect], kind: type[T]) -> list[T]:
    """The effects of one kind."""
    return [effect for effect in effects if isinstance(effect, kind)]


def sent(effects: Iterable[Effect], kind: type[T]) -> list[tuple[str, T]]:
    """The messages of one kind that were sent, with their receivers."""
    return [(e.to, e.message) for e in effects if isinstance(e, Send) and isinstance(e.message, kind)]


def replies(effects: Iterable[Effect]) -> dict[int, Result | ReadResult]:
    return {effect.token: effect.result for effect in only(effects, Reply)}
