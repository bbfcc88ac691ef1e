"""What a server's answer means, whatever shape it has: members that are there are used, others are not missed.

Times are taken from members whose names have a unit; a bare `latency` may be seconds or milliseconds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from retinue.errors import NOT_WRITTEN, UNKNOWN
from retinue.lab.connection import Reply
from retinue.lab.targets.contract import Acknowledgement, Cell, Outcome, Seen, Written

MS = 1000.0

_SERVER_TIMES = ("total_time_ms", "replication_time_ms", "latency_ms", "duration_ms", "elapsed_ms", "time_ms")
_FAILURES = ("error", "failed", "failure", "fail")
_WRAPPERS = ("data", "store", "items", "entries", "kv", "dump", "all", "values", "result", "state")
_DELETED = ("deleted", "tombstone")
_HTML = "text/html"


def sentence_of(reply: Reply) -> str:
    """What a failure says, else its status."""
    told = reply.told
    said = next((told[name] for name in ("detail", "error", "message") if isinstance(told.get(name), str)), "")
    return said or f"The server answered with HTTP status {reply.status}."


def written_from(reply: Reply, begun_ms: float, *, deleting: bool = False, wanted_acks: int | None = None) -> Written:
    """The answer to a write. `wanted_acks`: how many acknowledgements this write asked for, where it did."""
    told = reply.told
    ended_ms = reply.ended_s * MS
    if deleting and reply.status == 404:
        return Written(outcome=Outcome.COMMITTED, begun_ms=begun_ms, ended_ms=ended_ms)
    outcome, detail = _outcome(reply, told, wanted_acks)
    delays = told.get("delays_ms")
    return Written(
        outcome=outcome,
        begun_ms=begun_ms,
        ended_ms=ended_ms,
        version=_version_of(told),
        acked_by=tuple(_acknowledgements(told.get("acked_by"))),
        delays_ms=delays if isinstance(delays, dict) else None,
        server_ms=next((float(told[name]) for name in _SERVER_TIMES if _is_number(told.get(name))), None),
        session=told["session"] if isinstance(told.get("session"), str) else "",
        detail=detail,
    )


def _outcome(reply: Reply, told: Mapping[str, Any], wanted_acks: int | None) -> tuple[Outcome, str]:
    status, said = reply.status, told.get("outcome")
    if status >= 500:
        return (Outcome.REFUSED if said == NOT_WRITTEN else Outcome.UNKNOWN), sentence_of(reply)
    if status >= 400:
        return (Outcome.UNKNOWN if said == UNKNOWN else Outcome.REFUSED), sentence_of(reply)
    if not 200 <= status < 300 or told.get("success") is False or told.get("status") in _FAILURES:
        return Outcome.FAILED, sentence_of(reply)
    if said == "accepted" and (wanted_acks is None or _count(told.get("acks")) < wanted_acks):
        return Outcome.UNKNOWN, "The write was accepted and is not committed yet."
    return Outcome.COMMITTED, ""


def seen_from(reply: Reply, begun_ms: float, key: str) -> Seen:
    """The answer to a read of `key`."""
    ended_ms = reply.ended_s * MS
    if reply.status == 404:
        return Seen(begun_ms=begun_ms, ended_ms=ended_ms, answered=True)
    if not 200 <= reply.status < 300:
        return Seen(begun_ms=begun_ms, ended_ms=ended_ms, answered=False, detail=sentence_of(reply))
    try:
        cell = _found(_decoded(reply), key)
    except ValueError as error:
        return Seen(begun_ms=begun_ms, ended_ms=ended_ms, answered=False, detail=str(error))
    return Seen(begun_ms=begun_ms, ended_ms=ended_ms, answered=True, cell=cell)


def cells_from(reply: Reply) -> dict[str, Cell]:
    """The answer to a dump. Raises `ValueError` with one sentence for what is none."""
    if not 200 <= reply.status < 300:
        raise ValueError(sentence_of(reply))
    try:
        told = reply.json()
    except ValueError:
        raise ValueError("What it answered is not JSON.") from None
    cells = {key: _cell(raw) for key, raw in _rows(told).items()}
    return {key: cell for key, cell in cells.items() if cell is not None}


def _decoded(reply: Reply) -> Any:
    """The body as JSON; text that is none is the value itself."""
    try:
        return reply.json()
    except ValueError:
        if _HTML in reply.headers.get("content-type", ""):
            raise ValueError("What it answered is a page, not a value.") from None
        return reply.body.decode("utf-8", "replace")


def _found(told: Any, key: str) -> Cell | None:
    """The cell in the answer to a read."""
    if not isinstance(told, dict):
        return _cell(told)
    if "value" in told:
        inner = told["value"]
        return _cell(inner if isinstance(inner, dict) and "value" in inner else told)
    if key in told:
        return _cell(told[key])
    for wrapper in ("data", "result"):
        if wrapper in told:
            return _found(told[wrapper], key)
    if told.get("found") is False or told.get("exists") is False:
        return None
    raise ValueError("What it answered has no value.")


def _rows(told: Any) -> Mapping[str, Any]:
    """Key -> whatever stands there, out of the shapes that dumps have."""
    if isinstance(told, list):
        if not all(isinstance(row, dict) and isinstance(row.get("key"), str) for row in told):
            raise ValueError("What it answered is a list of something else than keys and values.")
        return {row["key"]: row for row in told}
    if not isinstance(told, dict):
        raise ValueError("What it answered is not an object of keys and values.")
    if all(_has_value(row) for row in told.values()):
        return told
    for wrapper in _WRAPPERS:
        inner = told.get(wrapper)
        if isinstance(inner, dict | list) and not _has_value(inner):
            return _with_versions(_rows(inner), told.get("versions"))
    return told


def _with_versions(rows: Mapping[str, Any], versions: Any) -> Mapping[str, Any]:
    """These rows, with the versions that stand beside them in an object of their own."""
    if not isinstance(versions, dict):
        return rows
    return {key: row if _has_value(row) else {"value": row, "version": versions.get(key)} for key, row in rows.items()}


def _has_value(row: Any) -> bool:
    return isinstance(row, dict) and "value" in row


def _cell(raw: Any) -> Cell | None:
    """A cell out of `{"value", "version"}`, `[value, version]` or a plain value; `None` for a deleted or absent one."""
    value, version = raw, 0
    if _has_value(raw):
        if any(raw.get(name) is True for name in _DELETED):
            return None
        value, version = raw["value"], _version_of(raw)
    elif isinstance(raw, list) and len(raw) == 2 and isinstance(raw[1], int):
        value, version = raw[0], _count(raw[1])
    if value is None and not version:
        return None
    return Cell(value if isinstance(value, str) else msgspec.json.encode(value).decode(), version)


def _version_of(told: Mapping[str, Any]) -> int:
    inner = told.get("data")
    return _count(told.get("version")) or (_count(inner.get("version")) if isinstance(inner, dict) else 0)


def _count(number: object) -> int:
    return number if isinstance(number, int) and not isinstance(number, bool) and number > 0 else 0


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _acknowledgements(told: object) -> Iterator[Acknowledgement]:
    for item in told if isinstance(told, list) else ():
        if isinstance(item, dict) and isinstance(item.get("node"), str) and _is_number(item.get("ms")):
            yield Acknowledgement(item["node"], float(item["ms"]))
