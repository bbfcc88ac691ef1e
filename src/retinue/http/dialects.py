"""The addresses of the five lab systems, as a table over the canonical operations.

Each row of `routes.py` says where the key and the value stand in a request, and how the answer is shaped; reading and
writing itself is `kv.read_one` and `kv.write_one`. Beyond its own shape every answer carries the canonical members.
Unlike the canonical routes these ignore members that they do not know, and a missing key or value is 400.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import TYPE_CHECKING

from retinue.core.messages import Change, Encoding, Kind
from retinue.errors import BadRequest, InvalidValue
from retinue.http.answer import JSON, Answer, encode_json, entity_tag, json_answer
from retinue.http.body import (
    check_unescaped_size,
    check_value_size,
    json_limit_bytes,
    parse_json,
    read_body,
    row_as_json,
    stored_from_json,
    without_fraction,
)
from retinue.http.kv import found_as_json, read_one, write_one
from retinue.http.request import VERSION_LIMIT, Request, checked_key

if TYPE_CHECKING:
    from retinue.core.messages import Row
    from retinue.http.door import Door

ROWS_PER_PIECE = 500

KeyFrom = Callable[[Request], str]


async def _document(door: Door, request: Request) -> dict[str, object]:
    """The JSON object of the body, whatever type it is declared as: the labs' clients often declare none."""
    limit_bytes = door.settings.value_limit_bytes
    raw = await read_body(request, json_limit_bytes(limit_bytes))
    check_unescaped_size(raw, limit_bytes)
    document = parse_json(raw)
    if not isinstance(document, dict):
        raise BadRequest('The body must be a JSON object, such as {"key": "color", "value": "blue"}.')
    return document


def _member(document: dict[str, object], name: str) -> object:
    if name not in document:
        raise BadRequest(f"The member {name} is missing: send it in the JSON body.")
    return document[name]


def key_from_path(request: Request) -> str:
    """The key that the address ends with."""
    return request.key()


def key_from_query(request: Request) -> str:
    """The key in the parameter `key`."""
    key = request.query("key").get("key")
    if key is None:
        raise BadRequest("The parameter key is missing: name the key, as in ?key=color.")
    request.key_text = checked_key(key)
    return request.key_text


async def write_from_body(door: Door, request: Request) -> Answer:
    """Write `{"key", "value"}`."""
    document = await _document(door, request)
    request.key_text = key = checked_key(_member(document, "key"))
    value, encoding = stored_from_json(_member(document, "value"), document.get("encoding"))
    return await write_one(door, request, Change(Kind.PUT, key, value, encoding))


async def delete_from_path(door: Door, request: Request) -> Answer:
    """Delete the key that the address ends with."""
    return await write_one(door, request, Change(Kind.DELETE, request.key()), deleted_status="deleted")


def reader(key_from: KeyFrom) -> Callable[[Door, Request], Awaitable[Answer]]:
    """A route that reads the key which `key_from` finds."""

    async def read(door: Door, request: Request) -> Answer:
        found = await read_one(door, request, key_from(request))
        return json_answer(
            {"status": "success", **found_as_json(found)}, headers=[(b"etag", entity_tag(found.row.version))]
        )

    return read


def dumper(opening: Callable[[Door], bytes], closing: bytes) -> Callable[[Door, Request], Awaitable[Answer]]:
    """A route that shows all keys with value and version, between `opening` and `closing`."""

    async def dump(door: Door, request: Request) -> Answer:
        rows = door.node.dump()
        if len(rows) > ROWS_PER_PIECE:
            return Answer(200, _pieces(opening(door), rows, closing), JSON)
        return Answer(200, opening(door) + _members(rows) + closing)

    return dump


async def _pieces(opening: bytes, rows: list[tuple[str, Row]], closing: bytes) -> AsyncGenerator[bytes, None]:
    """All rows as they were when the answer began, encoded as they are sent."""
    yield opening
    for start in range(0, len(rows), ROWS_PER_PIECE):
        yield (b"," if start else b"") + _members(rows[start : start + ROWS_PER_PIECE])
        # A client that takes every piece at once must not keep the node from its other work.
        await asyncio.sleep(0)
    yield closing


def _members(rows: list[tuple[str, Row]]) -> bytes:
    """The inside of a JSON object: key, colon, value and version."""
    return encode_json({key: row_as_json(row) for key, row in rows})[1:-1]


def _role_and_data(door: Door) -> bytes:
    return b'{"role":' + encode_json(door.node.role) + b',"data":{'


def _bare(door: Door) -> bytes:
    return b"{"


show_all = dumper(_role_and_data, b"}}")
show_dump = dumper(_bare, b"}")
read_from_path = reader(key_from_path)
read_from_query = reader(key_from_query)


async def replicate(door: Door, request: Request) -> Answer:
    """`POST /replicate`: one replicated entry as JSON, under the same rules as the links between nodes."""
    document = await _document(door, request)
    request.key_text = key = checked_key(_member(document, "key"))
    version = _positive("version", _member(document, "version"))
    epoch = None if document.get("epoch") is None else _positive("epoch", document["epoch"])
    delete = document.get("delete", False)
    if not isinstance(delete, bool):
        raise InvalidValue("The member delete must be true or false.")
    value, encoding = b"", Encoding.RAW
    if not delete:
        value, encoding = stored_from_json(_member(document, "value"), document.get("encoding"))
        check_value_size(value, door.settings.value_limit_bytes)
    told = await door.node.replicate(key, value, encoding, version, delete=delete, epoch=epoch)
    return json_answer(told)


def _positive(name: str, number: object) -> int:
    number = without_fraction(number)
    if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number <= VERSION_LIMIT:
        raise InvalidValue(f"The member {name} must be a whole number from 1 on.")
    return number
