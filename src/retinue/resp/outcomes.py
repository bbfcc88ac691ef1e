"""From the outcome of a write to the reply, in the words that Redis has for it."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from retinue.core.messages import Outcome, Reason, Result
from retinue.refusals import write_error
from retinue.resp.replies import error

if TYPE_CHECKING:
    from retinue.node import Node

LOADING = "LOADING This node is taking over the leadership: try again in a moment."
NO_REPLICAS = "NOREPLICAS Not enough good replicas to write."
UNKNOWN = "UNKNOWN The write quorum did not answer in time; the write may still take effect."
LOST = "UNKNOWN This node has lost the leadership; the write may still take effect."
CONTENDED = "BUSY Other writes of the key were in the way until the deadline: nothing was written, try again."
OVERLOADED = "BUSY Too many writes wait for their quorum: nothing was written, try again in a moment."


def leader_address(node: Node) -> tuple[str, int] | None:
    """Where the leader's Redis port should be: as far from its HTTP port as this node's is. `None`: no leader known."""
    url = node.leader_url()
    if url is None:
        return None
    parts = urlsplit(url)
    own = node.resp_port or node.settings.resp_port
    return parts.hostname or "", (parts.port or 0) + own - node.settings.port


def read_only(node: Node) -> str:
    """The error for a write on a follower."""
    address = leader_address(node)
    where = "No leader is known here." if address is None else f"The leader is {address[0]}:{address[1]}"
    return f"READONLY You can't write against a read only replica. {where}"


def refusal(node: Node, result: Result) -> bytes:
    """The error for a write that did not commit, or is not known to have."""
    reason = result.reason
    if result.outcome is Outcome.UNKNOWN:
        return error(LOST if reason is Reason.LEADERSHIP_LOST else UNKNOWN)
    if reason is Reason.NOT_LEADER:
        return error(read_only(node))
    if reason is Reason.NO_QUORUM:
        return error(NO_REPLICAS)
    if reason is Reason.RECOVERING:
        return error(LOADING)
    if reason is Reason.EXPIRED:
        return error(CONTENDED)
    told = write_error(result, "", None)
    return error(f"{told.resp_code} {told.detail}")
