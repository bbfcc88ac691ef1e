"""Bodies: reading them within their limits, strict JSON, and values between JSON and the bytes that are stored.

What is refused, always before anything changes: bodies above their limit (by `Content-Length` before reading, while
reading otherwise), content codings, text that is not UTF-8, JSON that two parsers might read differently (a key twice
in one object, NaN, numbers beyond a double, lone surrogates, a byte order mark), nesting deeper than `DEPTH_LIMIT`.
"""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, NoReturn

import msgspec

from retinue.core.messages import Encoding
from retinue.errors import BadRequest, InvalidValue, Overloaded, TooLarge, UnsupportedMediaType

if TYPE_CHECKING:
    from retinue.core.messages import Row
    from retinue.http.request import Request

DEPTH_LIMIT = 32

# JSON may spell one byte of a value with six characters (\\u0041), and a body carries a key and names beside it.
ESCAPE_FACTOR = 6
ENVELOPE_BYTES = 8192

JsonValue = str | int | float | bool | dict[str, object] | list[object] | msgspec.Raw | None


class BodyBudget:
    """How many bytes of bodies may be in memory at once, over all connections of this node."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.held_bytes = 0

    def take(self, count: int) -> None:
        """Hold `count` bytes more; raises `Overloaded` where that is too much."""
        if self.held_bytes + count > self.limit_bytes:
            raise Overloaded("This node holds as many request bodies as it may: try again in a moment.")
        self.held_bytes += count

    def give_back(self, count: int) -> None:
        """`count` bytes are no longer held."""
        self.held_bytes -= count


async def read_body(request: Request, limit_bytes: int) -> bytes:
    """The whole body, at most `limit_bytes` long.

    The bytes stay accounted to the request's budget until the request ends. Raises `TooLarge`, `Overloaded`,
    `UnsupportedMediaType` for a content coding, and `BadRequest` for a body that the client broke off.
    """
    coding = request.header(b"content-encoding")
    if coding is not None and coding.lower() not in (b"identity", b""):
        raise UnsupportedMediaType("Compressed bodies are not taken: send the body without Content-Encoding.")
    transfer = request.header(b"transfer-encoding")
    if transfer is not None and transfer.strip().lower() != b"chunked":
        raise UnsupportedMediaType("The body may be chunked and nothing else: send it without other transfer codings.")
    declared = request.header(b"content-length")
    # Python refuses to read a number of thousands of digits, be they zeros.
    if declared is not None and int(declared.lstrip(b"0")[:20] or b"0") > limit_bytes:
        raise _too_large(limit_bytes)
    chunks: list[bytes] = []
    size = 0
    more = True
    while more:
        chunk, more = await request.receive_chunk()
        size += len(chunk)
        if size > limit_bytes:
            raise _too_large(limit_bytes)
        chunks.append(chunk)
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _too_large(limit_bytes: int) -> TooLarge:
    return TooLarge(f"The body is larger than {limit_bytes} bytes, the limit here: send less.")


async def read_json_object(request: Request, limit_bytes: int) -> dict[str, object]:
    """The body as one JSON object; raises `BadRequest` or `InvalidValue` for anything else."""
    document = parse_json(await read_body(request, limit_bytes))
    if not isinstance(document, dict):
        raise InvalidValue("The body must be a JSON object, such as {}.")
    return document


def json_limit_bytes(value_limit_bytes: int) -> int:
    """How long a JSON body with one value may be: escapes may make a value longer than what it stands for."""
    return value_limit_bytes * ESCAPE_FACTOR + ENVELOPE_BYTES


def check_unescaped_size(body: bytes, value_limit_bytes: int) -> None:
    """Refuse a JSON body that is too long even if each backslash in it starts the longest escape.

    This spares parsing megabytes of JSON that would be refused anyway.
    """
    least_bytes = len(body) - (ESCAPE_FACTOR - 1) * body.count(b"\\")
    if least_bytes > value_limit_bytes + ENVELOPE_BYTES:
        raise TooLarge(
            f"The value is larger than {value_limit_bytes} bytes, the limit of this node: store less in one key."
        )


def parse_json(body: bytes) -> object:
    """The document, read strictly; raises `BadRequest` for what is not JSON, `InvalidValue` for what is not unique."""
    try:
        text = body.decode()
    except UnicodeDecodeError:
        raise BadRequest("The body is not valid UTF-8: send JSON in UTF-8.") from None
    if text.startswith("\ufeff"):
        raise BadRequest("The body starts with a byte order mark: send JSON without one.")
    try:
        return _decoder.decode(text)
    except json.JSONDecodeError as error:
        raise BadRequest(f"The body is not valid JSON ({error.msg} at character {error.pos}): correct it.") from None
    except RecursionError:
        raise _too_deep() from None
    except ValueError:
        raise InvalidValue("The body has a number with too many digits: use fewer, or send it as a string.") from None


def _refuse_constant(name: str) -> NoReturn:
    raise BadRequest(f"The body is not valid JSON: {name} is not a JSON number; use a finite number, a string or null.")


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise InvalidValue("A JSON object in the body has a key twice: use each key once.")
    return members


_decoder = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_refuse_constant)
_encoder = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"), check_circular=False)


def _too_deep() -> InvalidValue:
    return InvalidValue(
        f"The JSON is nested deeper than {DEPTH_LIMIT} levels: make it flatter, or send it as a string."
    )


def _check_depth(value: object, levels_left: int) -> None:
    if isinstance(value, dict):
        children = list(value.values())
    elif isinstance(value, list):
        children = value
    else:
        return
    if levels_left == 0:
        raise _too_deep()
    for child in children:
        if isinstance(child, dict | list):
            _check_depth(child, levels_left - 1)


def stored_from_json(value: object, encoding_name: object = None) -> tuple[bytes, Encoding]:
    """What is stored for a JSON value: a string's UTF-8 bytes, or the compact text of anything else.

    `encoding_name` is the member `encoding` beside the value: absent, or `base64` for a string that spells bytes.
    Raises `InvalidValue`.
    """
    if encoding_name is not None:
        return _bytes_from_base64(value, encoding_name), Encoding.RAW
    try:
        if isinstance(value, str):
            return value.encode(), Encoding.RAW
        _check_depth(value, DEPTH_LIMIT)
        return _encoder.encode(value).encode(), Encoding.JSON
    except UnicodeEncodeError:
        raise InvalidValue("A string in the value has half of a surrogate pair: send whole characters.") from None
    except ValueError:
        raise InvalidValue("The value has a number beyond what a double can hold: send it as a string.") from None


def _bytes_from_base64(value: object, encoding_name: object) -> bytes:
    if encoding_name != "base64" or not isinstance(value, str):
        raise InvalidValue('The member "encoding" may only be "base64", beside a value that is a base64 string.')
    try:
        # The decoder passes over more padding than four characters can need.
        if len(value) % 4 or value.endswith("==="):
            raise ValueError
        return base64.b64decode(value, validate=True)
    except ValueError:
        raise InvalidValue("The value is not valid base64: correct it, or leave out the member encoding.") from None


def json_from_stored(value: bytes, encoding: int) -> tuple[JsonValue, str | None]:
    """A stored value as it appears in JSON, and the name of its encoding where it is not itself (`base64`)."""
    if encoding == Encoding.JSON:
        return msgspec.Raw(value), None
    try:
        return value.decode(), None
    except UnicodeDecodeError:
        return base64.b64encode(value).decode(), "base64"


def row_as_json(row: Row) -> dict[str, object]:
    """Value and version of a row, as lists of keys show them."""
    value, encoding = json_from_stored(row.value, row.encoding)
    shown: dict[str, object] = {"value": value, "version": row.version}
    if encoding is not None:
        shown["encoding"] = encoding
    return shown


def without_fraction(number: object) -> object:
    """`number`, as an integer where it is whole: JSON has no integers of its own, so 5.0 is the number 5."""
    return int(number) if isinstance(number, float) and number.is_integer() else number


def check_value_size(value: bytes, limit_bytes: int) -> None:
    """Refuse a value above the limit."""
    if len(value) > limit_bytes:
        raise TooLarge(f"The value is larger than {limit_bytes} bytes, the limit of this node: store less in one key.")
