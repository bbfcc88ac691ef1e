"""What a node tells its doors: the receipt of a write, a value found, a page of a list."""

from __future__ import annotations

import msgspec

from retinue.core.messages import Row


class Receipt(msgspec.Struct, frozen=True):
    """The answer to a write. `outcome` is `committed`, or `accepted` when fewer acknowledgements were asked for.

    `acked_by` has (node, ms since the version was assigned). `delays_ms` is the simulated delay drawn for each follower
    that the entry was sent to at once; `None` when none is simulated.
    """

    outcome: str
    version: int
    epoch: int
    acks: int
    required_quorum: int
    acked_by: tuple[tuple[str, float], ...]
    replication_time_ms: float
    total_time_ms: float
    delays_ms: dict[str, float] | None
    replayed: bool


class Found(msgspec.Struct, frozen=True):
    """The answer to a read: the row of `key`, who answered in which role, and whether the row is committed."""

    key: str
    row: Row
    node: str
    role: str
    committed: bool


class Page(msgspec.Struct, frozen=True):
    """A page of a list: the trusted state at `version`. `next` is the last key if there are more, else `None`."""

    items: list[tuple[str, Row]]
    next: str | None
    version: int
