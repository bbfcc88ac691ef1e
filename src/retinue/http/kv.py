"""The routes of keys: write, read, delete, list, batch, and asking again what became of a version.

`write_one` and `read_one` are also what the lab dialects are made of; there is no second way to a key.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING

import msgspec

from retinue.core.messages import Change, Encoding, Kind
from retinue.errors import BadRequest, ConditionFailed, Conflict, InvalidValue, KeyNotFound, UnsupportedMediaType
from retinue.http.answer import BYTES, LINES, Answer, Headers, encode_json, entity_tag, json_answer
from retinue.http.body import (
    JsonValue,
    check_unescaped_size,
    check_value_size,
    json_from_stored,
    json_limit_bytes,
    parse_json,
    read_body,
    read_json_object,
    row_as_json,
    stored_from_json,
)
from retinue.http.request import (
    VERSION_LIMIT,
    Request,
    acknowledgements,
    checked_key,
    is_known_version,
    prefers,
    request_id,
    session_token,
    timeout_ms,
    whole_number,
    write_condition,
)

if TYPE_CHECKING:
    from retinue.http.door import Door
    from retinue.told import Found, Page, Receipt

READ_LEVELS = ("committed", "strong", "local")

# A list is a state that existed, which is never the promise of a strong read: nothing newer.
LIST_LEVELS = ("committed", "local")
PAGE_LIMIT = 1000
PAGE_DEFAULT = 100

# A receipt repeats the value where that is cheap; whoever stores more knows what was sent.
ECHO_LIMIT_BYTES = 4096

_UNSET = msgspec.UNSET
_PUT_MEMBERS = frozenset(("value", "encoding"))
_BATCH_MEMBERS = frozenset(("writes",))
_BATCH_ITEM_MEMBERS = frozenset(("key", "value", "encoding", "delete"))


class AckedBy(msgspec.Struct, frozen=True):
    """Who acknowledged, and how long after the version was assigned."""

    node: str
    ms: float


class ReceiptBody(msgspec.Struct, frozen=True):
    """The answer to a write, as interfaces and clients know it."""

    status: str
    message: str
    outcome: str
    committed: bool
    version: int
    epoch: int
    session: str
    acks: int
    replicated_to: int
    required_quorum: int
    acked_by: list[AckedBy]
    replication_time_ms: float
    total_time_ms: float
    key: str | msgspec.UnsetType = _UNSET
    value: JsonValue | msgspec.UnsetType = _UNSET
    encoding: str | msgspec.UnsetType = _UNSET
    first_version: int | msgspec.UnsetType = _UNSET
    writes: int | msgspec.UnsetType = _UNSET
    delays_ms: dict[str, float] | msgspec.UnsetType = _UNSET
    replayed: bool | msgspec.UnsetType = _UNSET


async def put_key(door: Door, request: Request) -> Answer:
    """`PUT /kv/{key}`: store a value."""
    key = request.key()
    value, encoding = await _value_of_put(door, request)
    return await write_one(door, request, Change(Kind.PUT, key, value, encoding))


async def delete_key(door: Door, request: Request) -> Answer:
    """`DELETE /kv/{key}`: remove a key that is there."""
    return await write_one(door, request, Change(Kind.DELETE, request.key()))


async def get_key(door: Door, request: Request) -> Answer:
    """`GET /kv/{key}` and `HEAD`: the value, as JSON or as its bytes."""
    found = await read_one(door, request, request.key())
    headers: Headers = [(b"etag", entity_tag(found.row.version))]
    if is_known_version(request, found.row.version):
        return Answer(304, b"", headers=headers)
    if prefers(request, BYTES):
        return Answer(200, found.row.value, BYTES, headers)
    return found_answer(found)


def found_answer(found: Found) -> Answer:
    """The answer to a read, as JSON."""
    return json_answer(found_as_json(found), headers=[(b"etag", entity_tag(found.row.version))])


async def write_one(door: Door, request: Request, change: Change, *, deleted_status: str = "success") -> Answer:
    """Write one change and answer with its receipt. `deleted_status` is the `status` of a delete."""
    check_value_size(change.value, door.settings.value_limit_bytes)
    acks, deadline_ms = _write_query(door, request)
    condition = write_condition(request)
    if condition is not None and condition.absent and change.kind == Kind.DELETE:
        raise BadRequest("A delete needs a value to remove: leave out If-None-Match.")
    try:
        receipt = await door.node.write(
            (change,),
            condition=condition,
            request_id=request_id(request),
            acks=acks,
            timeout_ms=deadline_ms,
        )
    except KeyNotFound as error:
        if change.kind == Kind.DELETE:
            raise
        # `If-Match: *` is a condition like any other; only a delete of an absent key is a matter of the address.
        raise ConditionFailed(
            "The key has no value, so If-Match: * does not hold.", current=0, **error.fields
        ) from None
    return receipt_answer(receipt, change, deleted_status)


def receipt_answer(receipt: Receipt, change: Change, deleted_status: str = "success") -> Answer:
    """The answer to a write of one change."""
    deleted = change.kind == Kind.DELETE
    value: JsonValue | msgspec.UnsetType = _UNSET
    encoding: str | None = None
    if not deleted and len(change.value) <= ECHO_LIMIT_BYTES:
        value, encoding = json_from_stored(change.value, change.encoding)
    status, what = (deleted_status, "Delete") if deleted else ("success", "Write")
    shown_encoding = _UNSET if encoding is None else encoding
    body = _receipt_body(receipt, status, _message(receipt, what), change.key, value, shown_encoding)
    return json_answer(body, headers=_receipt_headers(receipt))


def _write_query(door: Door, request: Request) -> tuple[int | None, float | None]:
    """The acknowledgements and the deadline that a write asks for."""
    if not request.query_string:
        return None, None
    query = request.query("w", "timeout_ms")
    return acknowledgements(query.get("w"), door.follower_count), timeout_ms(query.get("timeout_ms"))


async def read_one(door: Door, request: Request, key: str) -> Found:
    """The key at the read level and session that the query asks for; raises `KeyNotFound` and `NotLeader`."""
    if not request.query_string:
        return await door.node.read(key, None)
    query = request.query("read", "min_version", "timeout_ms")
    level = _read_level(query.get("read"), READ_LEVELS)
    session = session_token(query.get("min_version"), door.node.replica.epoch)
    deadline_ms = timeout_ms(query.get("timeout_ms"))
    if session is not None:
        _refuse_unassigned(door, session[1])
    return await door.node.read(key, level, session=session, timeout_ms=deadline_ms)


def _refuse_unassigned(door: Door, version: int) -> None:
    """Spare the wait for a version that the leader, who assigns them all, has not assigned."""
    replica = door.node.replica
    if replica.serving and version > replica.log.last:
        raise Conflict(
            f"There is no version {version}, the last one is {replica.log.last}: the session is of another cluster."
        )


def found_as_json(found: Found) -> dict[str, object]:
    """The answer to a read."""
    shown: dict[str, object] = {"key": found.key, **row_as_json(found.row)}
    shown["node"] = found.node
    shown["role"] = found.role
    shown["committed"] = found.committed
    return shown


async def list_keys(door: Door, request: Request) -> Answer:
    """`GET /kv`: a page of keys and values in the order of their keys, or all of them as lines of JSON."""
    query = request.query("prefix", "after", "limit", "read")
    prefix = query.get("prefix", "")
    after = query.get("after")
    limit = whole_number("limit", query.get("limit"), 1, PAGE_LIMIT)
    level = _read_level(query.get("read"), LIST_LEVELS)
    if prefers(request, LINES):
        # The first page is read here: once a stream has begun, it is too late to refuse the request.
        first = door.node.scan(prefix, after, limit or PAGE_LIMIT, level)
        return Answer(200, _lines(door, first, prefix, limit, level), LINES)
    page = door.node.scan(prefix, after, limit or PAGE_DEFAULT, level)
    items = [{"key": key, **row_as_json(row)} for key, row in page.items]
    return json_answer({"items": items, "next": page.next, "version": page.version})


async def _lines(
    door: Door, page: Page, prefix: str, limit: int | None, level: str | None
) -> AsyncGenerator[bytes, None]:
    """One item a line, `page` and what follows. Each page is a state that existed; writes may come between two."""
    while True:
        if page.items:
            yield b"\n".join(encode_json({"key": key, **row_as_json(row)}) for key, row in page.items) + b"\n"
        # A limit is never above that of a page, so the first page has all of it.
        if page.next is None or limit is not None:
            return
        # A client that takes every piece at once must not keep the node from its other work.
        await asyncio.sleep(0)
        page = door.node.scan(prefix, page.next, PAGE_LIMIT, level)


async def batch(door: Door, request: Request) -> Answer:
    """`POST /batch`: several keys put or deleted as one, all or nothing."""
    if write_condition(request) is not None:
        raise BadRequest("A batch takes no condition: leave out If-Match and If-None-Match, or write the keys singly.")
    acks, deadline_ms = _write_query(door, request)
    document = await read_json_object(request, door.settings.batch_limit_bytes)
    changes = _changes_of_batch(document, door.settings.batch_limit, door.settings.value_limit_bytes)
    receipt = await door.node.write(
        changes,
        batch=True,
        request_id=request_id(request),
        acks=acks,
        timeout_ms=deadline_ms,
    )
    body = _receipt_body(
        receipt, "success", _message(receipt, "Batch"), first_version=receipt.version, writes=len(changes)
    )
    return json_answer(body, headers=_receipt_headers(receipt))


async def write_state(door: Door, request: Request) -> Answer:
    """`GET /writes/{version}`: what became of a version, to ask again after an unknown outcome."""
    version = whole_number("version", request.tail.decode("latin-1"), 1, VERSION_LIMIT)
    assert version is not None
    return json_answer(door.node.write_state(version))


async def _value_of_put(door: Door, request: Request) -> tuple[bytes, Encoding]:
    """The value of a `PUT`: the member `value` of a JSON body, or the bytes of a body of any other type."""
    limit_bytes = door.settings.value_limit_bytes
    if not is_json(request):
        raw = await read_body(request, limit_bytes)
        if not raw and request.header(b"content-type") is None:
            raise BadRequest("There is no body: send the value, an empty one with a Content-Type.")
        return raw, Encoding.RAW
    raw = await read_body(request, json_limit_bytes(limit_bytes))
    check_unescaped_size(raw, limit_bytes)
    document = parse_json(raw)
    if not isinstance(document, dict) or "value" not in document:
        raise InvalidValue('The body must be a JSON object with the member value, such as {"value": "blue"}.')
    _refuse_unknown(document, _PUT_MEMBERS)
    return stored_from_json(document["value"], document.get("encoding"))


def is_json(request: Request) -> bool:
    """Whether the body is declared as JSON; raises `UnsupportedMediaType` for JSON in another charset than UTF-8."""
    content_type = request.header(b"content-type")
    if content_type is None:
        return False
    if content_type == b"application/json":
        return True
    media_type, _, parameters = content_type.lower().partition(b";")
    media_type = media_type.strip()
    if media_type != b"application/json" and not (
        media_type.startswith(b"application/") and media_type.endswith(b"+json")
    ):
        return False
    for parameter in parameters.split(b";"):
        name, _, charset = parameter.strip().partition(b"=")
        if name == b"charset" and charset.strip(b'"') not in (b"utf-8", b"utf8", b"us-ascii"):
            raise UnsupportedMediaType("JSON is taken in UTF-8 only: send it as UTF-8.")
    return True


def _changes_of_batch(document: dict[str, object], most: int, value_limit_bytes: int) -> tuple[Change, ...]:
    _refuse_unknown(document, _BATCH_MEMBERS)
    writes = document.get("writes")
    if not isinstance(writes, list) or not 1 <= len(writes) <= most:
        raise InvalidValue(f"A batch must have the member writes, a list of 1 to {most} writes.")
    changes = [_change_of_item(item, value_limit_bytes) for item in writes]
    # Of several writes of one key the last one counts, and only that one is written.
    return tuple({change.key: change for change in changes}.values())


def _change_of_item(item: object, value_limit_bytes: int) -> Change:
    if not isinstance(item, dict) or "key" not in item:
        raise InvalidValue(
            'Each write of a batch must be an object with a key, such as {"key": "color", "value": "blue"}.'
        )
    _refuse_unknown(item, _BATCH_ITEM_MEMBERS)
    key = checked_key(item["key"])
    delete = item.get("delete", False)
    if not isinstance(delete, bool) or delete == ("value" in item):
        raise InvalidValue('Each write of a batch must have either a value or "delete": true.')
    if delete:
        return Change(Kind.DELETE, key)
    value, encoding = stored_from_json(item["value"], item.get("encoding"))
    check_value_size(value, value_limit_bytes)
    return Change(Kind.PUT, key, value, encoding)


def _refuse_unknown(document: dict[str, object], known: frozenset[str]) -> None:
    unknown = document.keys() - known
    if unknown:
        name = encode_json(min(unknown).encode("utf-8", "replace").decode()[:64]).decode()
        raise InvalidValue(f"The member {name} is not known here: use {', '.join(sorted(known))}.")


def _read_level(text: str | None, levels: tuple[str, ...]) -> str | None:
    if text is not None and text not in levels:
        raise BadRequest(f"read must be one of {', '.join(levels)} here.")
    return text


def _message(receipt: Receipt, what: str) -> str:
    return f"{what} successful" if receipt.outcome == "committed" else f"{what} accepted, not committed yet"


def _receipt_body(
    receipt: Receipt,
    status: str,
    message: str,
    key: str | msgspec.UnsetType = _UNSET,
    value: JsonValue | msgspec.UnsetType = _UNSET,
    encoding: str | msgspec.UnsetType = _UNSET,
    first_version: int | msgspec.UnsetType = _UNSET,
    writes: int | msgspec.UnsetType = _UNSET,
) -> ReceiptBody:
    # By position, for twenty keywords take as long as all the rest.
    return ReceiptBody(
        status,
        message,
        receipt.outcome,
        receipt.outcome == "committed",
        receipt.version,
        receipt.epoch,
        f"{receipt.epoch}.{receipt.version}",
        receipt.acks,
        receipt.acks,
        receipt.required_quorum,
        [AckedBy(node, _to_microsecond(ms)) for node, ms in receipt.acked_by],
        _to_microsecond(receipt.replication_time_ms),
        _to_microsecond(receipt.total_time_ms),
        key,
        value,
        encoding,
        first_version,
        writes,
        _UNSET if receipt.delays_ms is None else receipt.delays_ms,
        True if receipt.replayed else _UNSET,
    )


def _to_microsecond(ms: float) -> float:
    """A duration as it is shown. `round` goes by the decimal digits, and takes four times as long."""
    return int(ms * 1000 + 0.5) / 1000


def _receipt_headers(receipt: Receipt) -> Headers:
    timing = b"replication;dur=%.3f, total;dur=%.3f" % (receipt.replication_time_ms, receipt.total_time_ms)
    return [(b"etag", entity_tag(receipt.version)), (b"server-timing", timing)]
