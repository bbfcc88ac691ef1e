"""The state of a node as gauges, read when the metrics are rendered."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from retinue.metrics import Reading

if TYPE_CHECKING:
    from retinue.node import Node

_OWN = {
    "epoch": "Epoch that this node has promised",
    "trusted": "Highest version up to which everything here is committed",
    "last_version": "Highest version here",
    "commit": "Highest committed version that this node knows of",
    "floor": "Version up to which superseded history may be gone",
    "keys": "Keys here",
    "pending_writes": "Writes that wait for their quorum",
    "write_quorum": "Followers that must acknowledge a write",
    "serving": "1 on the node that takes writes",
    "quarantined": "1 on a node whose history differs from the leader's",
    "disk_low": "1 while writes are refused because the disk is nearly full",
}
_FOLLOWER = {
    "contiguous": "Version up to which a follower holds everything, as the leader knows it",
    "lag_versions": "Versions that a follower lags",
    "lag_ms": "Milliseconds that a follower lags",
    "ack_ms": "Milliseconds that a follower takes to acknowledge, a running mean",
}


def node_readings(node: Node) -> Iterator[Reading]:
    """The gauges of `node`."""
    status = node.status()
    for name, help_text in _OWN.items():
        yield from _reading(f"retinue_{name}", help_text, status.get(name), ())
    for name, value in node.lag().items():
        yield Reading(f"retinue_lag_{name}", f"How far this node is behind the leader, in {name}", value)
    followers = status.get("followers")
    assert isinstance(followers, list)
    for follower in followers:
        label = (("follower", str(follower["name"])),)
        for name, help_text in _FOLLOWER.items():
            yield from _reading(f"retinue_follower_{name}", help_text, follower.get(name), label)
        state = (*label, ("state", str(follower.get("state"))))
        yield Reading("retinue_follower_state", "The state of a follower as the leader sees it, always 1", 1, state)


def _reading(name: str, help_text: str, value: object, labels: tuple[tuple[str, str], ...]) -> Iterator[Reading]:
    if isinstance(value, int | float):
        yield Reading(name, help_text, float(value), labels)
