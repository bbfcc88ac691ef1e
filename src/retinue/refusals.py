"""From the core's reasons to the sentences that clients read: what happened, to which key, and what to do."""

from __future__ import annotations

from retinue.core.messages import Outcome, Reason, Result
from retinue.errors import (
    ConditionFailed,
    Conflict,
    DiskLowError,
    KeyNotFound,
    NoLeader,
    NoQuorum,
    NotFollower,
    NotLeader,
    NotServing,
    Overloaded,
    QuorumTimeout,
    RequestIdReused,
    RetinueError,
    WindowExceeded,
)


def write_error(result: Result, key: str, leader: str | None) -> RetinueError:
    """The error for a write, or a change of the write quorum, that did not end as asked."""
    fields: dict[str, object] = {"acks": result.acks}
    if result.required:
        # Refusals that do not depend on followers come without it; the door adds the quorum in force.
        fields["required_quorum"] = result.required
    if key:
        fields["key"] = key
    if result.outcome is not Outcome.NOT_WRITTEN:
        return _after_assignment(result, fields)
    reason = result.reason
    if reason is Reason.CONDITION_FAILED:
        found = f"its version is {result.current}" if result.current else "it has no value"
        return ConditionFailed(
            f"The condition on key {key!r} does not hold, {found}: read it again and decide.",
            current=result.current,
            **fields,
        )
    if reason is Reason.NOT_FOUND:
        return KeyNotFound(f"Key {key!r} has no value, so nothing was deleted.", **fields)
    if reason is Reason.REQUEST_ID_REUSED:
        return RequestIdReused(
            "This idempotency key was used before for another request: use a new one for a new request.", **fields
        )
    if reason is Reason.NO_QUORUM:
        return NoQuorum(
            f"Fewer followers are reachable than the {result.required} that must acknowledge: nothing was written. "
            "Start the missing followers, or lower the write quorum.",
            **fields,
        )
    if reason is Reason.NOT_LEADER:
        return _not_leader(leader, fields)
    return _plain_refusal(reason, fields)


def _after_assignment(result: Result, fields: dict[str, object]) -> RetinueError:
    """The version was assigned, so the write may be there or still come."""
    fields["version"] = result.version or None
    if not result.version:
        return QuorumTimeout(
            "The write may or may not be committed: this node could not finish it in time. Repeat the request with the "
            "same Idempotency-Key.",
            **fields,
        )
    if result.outcome is Outcome.COMMITTED:
        error: RetinueError = QuorumTimeout(
            f"Version {result.version} is committed, but only {result.acks} of the {result.required} "
            "acknowledgements that the request asked for arrived in time.",
            **fields,
        )
        error.fields["outcome"] = "committed"
        return error
    why = (
        "this node lost the leadership"
        if result.reason is Reason.LEADERSHIP_LOST
        else f"{result.acks} of {result.required} followers acknowledged it in time"
    )
    return QuorumTimeout(
        f"Version {result.version} may or may not be committed: {why}. Ask GET /writes/{result.version} what became of "
        "it and whose it is, or repeat the request with the same Idempotency-Key.",
        **fields,
    )


def _not_leader(leader: str | None, fields: dict[str, object]) -> RetinueError:
    if leader is None:
        return NoLeader(
            "No leader is known here, so nothing was written: start the leader, or promote a follower.", **fields
        )
    return NotLeader(f"This node is a follower and takes no writes: send them to {leader}.", leader=leader, **fields)


def _plain_refusal(reason: Reason, fields: dict[str, object]) -> RetinueError:
    if reason is Reason.OVERLOADED:
        return Overloaded(
            "Too many writes wait for their quorum: nothing was written, try again in a moment.", **fields
        )
    if reason is Reason.DISK_LOW:
        return DiskLowError("The leader's disk is nearly full: nothing was written. Free some space on it.", **fields)
    if reason is Reason.EXPIRED:
        return NoQuorum(
            "An earlier write to this key is still waiting for its quorum, so the condition could not be checked "
            "in time: nothing was written, try again.",
            **fields,
        )
    if reason is Reason.BUSY:
        return Conflict("Another change of the configuration is under way: try again when it is done.", **fields)
    if reason is Reason.TIMEOUT:
        return NoQuorum("Too few followers have caught up to raise the write quorum: nothing was changed.", **fields)
    return NoLeader("The leader is still taking over: nothing was written, try again in a moment.", **fields)


def read_error(reason: Reason, key: str, leader: str | None) -> RetinueError:
    """The error for a read that had to wait and got no answer."""
    if reason in (Reason.NOT_LEADER, Reason.LEADERSHIP_LOST):
        error = _not_leader(leader, {"key": key})
        error.detail = error.detail.replace("takes no writes: send them to", "cannot confirm this read: send it to")
        return error
    if reason is Reason.NO_QUORUM:
        return NotServing(
            "Too few followers are reachable to confirm that this node still leads: try again, or read=committed."
        )
    if reason is Reason.RECOVERING:
        return NotServing("This node is taking over the leadership and cannot show committed values yet: try again.")
    return NotServing("This node could not show a state new enough in time: try again, or ask the leader.")


def replicate_error(result: Result, key: str) -> RetinueError:
    """The error for an entry that came through `/replicate` and was refused."""
    fields = {"key": key, "version": result.version}
    if result.reason is Reason.NOT_FOLLOWER:
        return NotFollower(
            "This node is the leader and takes no replicated entries: write with PUT /kv/{key}.", **fields
        )
    if result.reason is Reason.BEYOND_WINDOW:
        return WindowExceeded(
            f"Version {result.version} lies too far above what this follower holds: send the versions before it first.",
            **fields,
        )
    return Conflict(
        f"This follower listens to epoch {result.epoch} only: leave the epoch out, or give that one.", **fields
    )


def takeover_error(result: Result, name: str) -> RetinueError:
    """The error for a promotion that did not end in leadership."""
    if result.reason is Reason.TOO_FEW_NODES:
        return NoQuorum(
            f"Node {name} was not promoted: {result.required} nodes must take part to be sure that no acknowledged "
            f"write is lost, and {result.acks} answered. Start more nodes, or accept the loss with --accept-loss.",
            acks=result.acks,
            required_quorum=result.required,
        )
    if result.reason is Reason.NOT_VOTER:
        return Conflict(f"Node {name} has not caught up with the cluster yet and must not lead: promote another one.")
    if result.reason is Reason.BUSY:
        return Conflict(f"Node {name} is taking over already: wait for it.")
    if result.reason is Reason.TIMEOUT:
        return QuorumTimeout(
            f"Node {name} has begun to take over and goes on trying, but only {result.acks} of the {result.required} "
            "nodes it needs have promised so far: see GET /status.",
            acks=result.acks,
            required_quorum=result.required,
        )
    return Conflict(f"Node {name} was not promoted: another node took over at the same time. See GET /leader.")
