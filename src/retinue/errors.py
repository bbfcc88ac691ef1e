"""Every error once: what it means, its HTTP status, its RESP code, its exit code, and whether anything was written.

`outcome` says what a client may conclude about its write: `not_written` is definite (trying again is safe), `unknown`
means that the write may have happened or may still happen, and `None` means that the error is not about a write.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import ClassVar

NOT_WRITTEN = "not_written"
UNKNOWN = "unknown"

EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_NOT_FOUND = 3
EXIT_NOT_WRITTEN = 4
EXIT_UNKNOWN = 6
EXIT_VIOLATION = 7


class RetinueError(Exception):
    """Anything that is told to a user instead of a result.

    `detail` is one plain sentence that names the cure. `fields` are further members of the HTTP answer (`key`,
    `version`, `acks`, `required_quorum`, `leader`, ...). `retry_after_s`, which may be given among them and is none of
    them, is a hint in whole seconds, `None` for none.
    """

    status: ClassVar[int] = 500
    title: ClassVar[str] = "Internal error"
    resp_code: ClassVar[str] = "ERR"
    exit_code: ClassVar[int] = EXIT_FAILED
    outcome: ClassVar[str | None] = None
    default_retry_after_s: ClassVar[int | None] = None

    def __init__(self, detail: str, **fields: object) -> None:
        super().__init__(detail)
        hint = fields.pop("retry_after_s", self.default_retry_after_s)
        self.retry_after_s = hint if isinstance(hint, int) else None
        self.detail = detail
        self.fields = fields

    @classmethod
    def problem_type(cls) -> str:
        """The stable identifier of this kind of error, such as `urn:retinue:no-quorum`."""
        words = re.sub(r"(?<=[a-z])(?=[A-Z])", "-", cls.__name__)
        return f"urn:retinue:{words.lower()}"

    def problem(self) -> dict[str, object]:
        """The members of the `application/problem+json` answer."""
        members: dict[str, object] = {
            "type": self.problem_type(),
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            "error": self.detail,
        }
        if self.outcome is not None:
            members["outcome"] = self.outcome
        return members | self.fields


# --- the request is wrong: nothing was changed ---


class BadRequest(RetinueError):
    """The request cannot be understood: a missing field, invalid JSON, a bad parameter."""

    status = 400
    title = "Bad request"
    exit_code = EXIT_USAGE


class InvalidValue(BadRequest):
    """The request is well-formed, but a value in it is not allowed."""

    status = 422
    title = "Value not allowed"


class Unauthorized(RetinueError):
    """No token, or one that is not known."""

    status = 401
    title = "Token needed"
    resp_code = "NOAUTH"


class Forbidden(RetinueError):
    """The token does not carry the role that this needs, or the request came from a foreign page."""

    status = 403
    title = "Not allowed"
    resp_code = "NOPERM"


class NotLeader(RetinueError):
    """A write, or a read of committed state, on a follower. `fields["leader"]` is the address to use, if known."""

    status = 403
    title = "Not the leader"
    resp_code = "READONLY"
    exit_code = EXIT_NOT_WRITTEN
    outcome = NOT_WRITTEN


class NotFollower(RetinueError):
    """An entry to replicate was sent to the leader."""

    status = 403
    title = "Not a follower"
    outcome = NOT_WRITTEN


class NotFound(RetinueError):
    """Nothing is at this address."""

    status = 404
    title = "Not found"
    exit_code = EXIT_NOT_FOUND


class KeyNotFound(NotFound):
    """The key has no value. For a delete: nothing was written."""

    title = "Key not found"


class MethodNotAllowed(RetinueError):
    """The address exists, the method does not."""

    status = 405
    title = "Method not allowed"
    exit_code = EXIT_USAGE


class Conflict(RetinueError):
    """The request does not fit the state: another change of the same thing is under way."""

    status = 409
    title = "Conflict"
    outcome = NOT_WRITTEN


class WindowExceeded(Conflict):
    """A replicated version lies too far above what this node holds."""

    title = "Version beyond the window"


class SettingsConflict(Conflict):
    """Settings that are each allowed and exclude each other, or what is in force; `outcome` says if any was changed."""

    title = "Settings exclude each other"
    exit_code = EXIT_USAGE


class ConditionFailed(RetinueError):
    """The condition of a write does not hold. `fields["current"]` is the current version, 0 for an absent key."""

    status = 412
    title = "Condition failed"
    outcome = NOT_WRITTEN


class TooLarge(RetinueError):
    """A value, a batch or a body above its limit."""

    status = 413
    title = "Too large"
    exit_code = EXIT_USAGE
    outcome = NOT_WRITTEN


class UnsupportedMediaType(RetinueError):
    """A body of a type that this address does not take."""

    status = 415
    title = "Unsupported media type"
    exit_code = EXIT_USAGE


class Misdirected(RetinueError):
    """The `Host` header does not name this node."""

    status = 421
    title = "Wrong host"


class RequestIdReused(InvalidValue):
    """The idempotency key was used before, for another request."""

    title = "Idempotency key used before"
    outcome = NOT_WRITTEN


class HeadersTooLarge(RetinueError):
    """Headers above their limit."""

    status = 431
    title = "Headers too large"
    exit_code = EXIT_USAGE


# --- the cluster cannot do it now ---


class Overloaded(RetinueError):
    """Too much is waiting already; refused before a version was assigned."""

    status = 429
    title = "Overloaded"
    resp_code = "BUSY"
    outcome = NOT_WRITTEN
    default_retry_after_s = 1


class NotServing(RetinueError):
    """This node cannot answer yet: it starts, recovers, or is in quarantine."""

    status = 503
    title = "Not serving"
    resp_code = "LOADING"
    exit_code = EXIT_NOT_WRITTEN
    outcome = NOT_WRITTEN
    default_retry_after_s = 1


class Unreachable(RetinueError):
    """The node did not take the request, or the answer of a read was lost."""

    status = 503
    title = "Node not reachable"
    exit_code = EXIT_NOT_WRITTEN
    outcome = NOT_WRITTEN
    default_retry_after_s = 1


class NoQuorum(RetinueError):
    """Fewer followers can be reached than a commit needs; no version was assigned."""

    status = 503
    title = "No quorum"
    resp_code = "NOREPLICAS"
    exit_code = EXIT_NOT_WRITTEN
    outcome = NOT_WRITTEN
    default_retry_after_s = 1


class NoLeader(RetinueError):
    """No leader serves at present."""

    status = 503
    title = "No leader"
    resp_code = "MASTERDOWN"
    exit_code = EXIT_NOT_WRITTEN
    outcome = NOT_WRITTEN
    default_retry_after_s = 1


class DiskLowError(RetinueError):
    """The disk is nearly full: writes are refused before a version is assigned, reads go on."""

    status = 503
    title = "Disk nearly full"
    resp_code = "MISCONF"
    exit_code = EXIT_NOT_WRITTEN
    outcome = NOT_WRITTEN
    default_retry_after_s = 5


class QuorumTimeout(RetinueError):
    """No answer by the deadline, or the answer was lost: the write may be there, or may still come."""

    status = 504
    title = "Outcome unknown"
    resp_code = "UNKNOWN"
    exit_code = EXIT_UNKNOWN
    outcome = UNKNOWN


# --- this process or this machine ---


class SettingsError(RetinueError):
    """A setting is wrong. The sentence names the setting, its value and the cure."""

    title = "Setting not allowed"
    exit_code = EXIT_USAGE


class StorageError(RetinueError):
    """The store failed."""

    title = "Storage failed"


class DataDirError(StorageError):
    """The data directory cannot be used: not writable, locked by another process, foreign, or damaged."""

    title = "Data directory not usable"
    exit_code = EXIT_USAGE


class DiskFull(StorageError):
    """A commit found no space and was rolled back; it may be tried again."""

    title = "Disk full"


class SyncFailed(StorageError):
    """The disk did not confirm a sync: what is durable is not known, so the node must stop."""

    title = "Sync failed"


class ClusterError(RetinueError):
    """The local cluster of processes could not be started, stopped or reached."""

    title = "Cluster failed"


def _all_errors(root: type[RetinueError]) -> list[type[RetinueError]]:
    found = [root]
    for child in root.__subclasses__():
        found.extend(_all_errors(child))
    return found


def from_problem(status: int, problem: Mapping[str, object]) -> RetinueError:
    """The error that a node told over HTTP, by its `type`; else the plainest one of that status."""
    kinds = _all_errors(RetinueError)
    named = [kind for kind in kinds if kind.problem_type() == problem.get("type")]
    same_status = [kind for kind in kinds if kind.status == status]
    kind = (named or same_status or [RetinueError])[0]
    detail = problem.get("detail") or problem.get("error") or f"The node answered with HTTP status {status}."
    known = ("type", "title", "status", "detail", "error", "outcome")
    return kind(str(detail), **{name: value for name, value in problem.items() if name not in known})
