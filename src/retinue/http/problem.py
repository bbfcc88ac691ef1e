"""Errors as `application/problem+json`: one mapping from what went wrong to what the client is told.

The sentence stands twice, as `detail` (RFC 9457) and as `error` (where the labs' clients look for it). The answer to a
write always says whether anything was written: `outcome`, `version`, `acks`, `required_quorum`.
"""

from __future__ import annotations

from retinue.errors import (
    NOT_WRITTEN,
    UNKNOWN,
    BadRequest,
    ConditionFailed,
    MethodNotAllowed,
    Overloaded,
    RetinueError,
    Unauthorized,
)
from retinue.http.answer import PROBLEM, Answer, Headers, encode_json, entity_tag


class RequestTimeout(BadRequest):
    """The client began a request and did not finish sending it in time."""

    status = 408
    title = "Request not finished"


class WriteContext:
    """What is known of the write that failed: its key (`None` where it could not be read) and the quorum in force."""

    __slots__ = ("key", "required_quorum")

    def __init__(self, key: str | None, required_quorum: int) -> None:
        self.key = key
        self.required_quorum = required_quorum


def internal_error() -> RetinueError:
    """What a client is told about a fault of this node; the log has the rest."""
    return RetinueError(
        "This node failed while it answered, its log says why: ask again, writes with an Idempotency-Key."
    )


def problem_answer(error: RetinueError, write: WriteContext | None = None) -> Answer:
    """The answer that tells `error`. `write` is given where the request was a write."""
    members = error.problem()
    if write is not None:
        _add_write_members(members, error, write)
    return Answer(error.status, encode_json(members) + b"\n", PROBLEM, _headers(error))


def _add_write_members(members: dict[str, object], error: RetinueError, write: WriteContext) -> None:
    members.setdefault("outcome", UNKNOWN if error.status == 500 else NOT_WRITTEN)
    if write.key is not None:
        members.setdefault("key", write.key)
    if isinstance(error, ConditionFailed):
        members.setdefault("version", members.get("current"))
    members.setdefault("version", None)
    members.setdefault("acks", 0)
    members.setdefault("required_quorum", write.required_quorum)


def _headers(error: RetinueError) -> Headers:
    headers: Headers = []
    retry_after_s = error.retry_after_s
    if retry_after_s is None and error.status in (Overloaded.status, 503):
        retry_after_s = 1
    if retry_after_s is not None:
        headers.append((b"retry-after", b"%d" % retry_after_s))
    if isinstance(error, Unauthorized):
        headers.append((b"www-authenticate", b'Bearer realm="retinue"'))
    allow = error.fields.get("allow")
    if isinstance(error, MethodNotAllowed) and isinstance(allow, list):
        headers.append((b"allow", ", ".join(allow).encode("ascii")))
    current = error.fields.get("current")
    if isinstance(error, ConditionFailed) and isinstance(current, int) and current > 0:
        headers.append((b"etag", entity_tag(current)))
    return headers
