"""One request as the routes see it: method, address, headers, query, and the key percent-decoded exactly once.

Nothing here trusts the client: headers that must be unique are checked, percent-encoding and UTF-8 are strict, and what
cannot be understood raises `BadRequest` with a sentence that says what to send instead.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes

from retinue.core.messages import Condition
from retinue.errors import BadRequest, InvalidValue

if TYPE_CHECKING:
    from retinue.http.answer import Receive, Scope
    from retinue.http.body import BodyBudget

KEY_LIMIT_BYTES = 1024
TIMEOUT_LEAST_MS = 1.0
TIMEOUT_LIMIT_MS = 60_000.0
VERSION_LIMIT = 2**63 - 1

_BAD_PERCENT = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_DECIMAL = re.compile(r"[0-9]{1,400}(\.[0-9]{1,400})?([eE][+-]?[0-9]{1,3})?")
_VERSION = re.compile(r"[0-9]{1,19}")
_TOKEN = re.compile(r"(?:([0-9]{1,19})\.)?([0-9]{1,19})")
_ENTITY_TAG = re.compile(rb'"([0-9]{1,19})"|([0-9]{1,19})')
_REQUEST_ID = re.compile(rb"[\x21-\x7e]{1,255}")

# A second copy of one of these could make a proxy and this node understand different things.
_SINGLE_HEADERS = frozenset(
    (
        b"host",
        b"origin",
        b"authorization",
        b"content-type",
        b"content-length",
        b"content-encoding",
        b"idempotency-key",
        b"if-match",
        b"sec-fetch-site",
    )
)


class Request:
    """A request whose headers have been read and whose body has not."""

    __slots__ = (
        "_receive",
        "body_bytes",
        "body_complete",
        "budget",
        "headers",
        "key_text",
        "method",
        "path",
        "query_string",
        "scope",
        "tail",
    )

    def __init__(self, scope: Scope, receive: Receive, budget: BodyBudget) -> None:
        self.scope = scope
        self._receive = receive
        self.budget = budget
        self.method: str = scope["method"]
        self.path: bytes = scope["raw_path"]
        self.query_string: bytes = scope["query_string"]
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self.tail = b""
        self.key_text: str | None = None
        self.body_bytes = 0
        self.body_complete = False

    def check_headers(self) -> None:
        """Refuse a second copy of a header that must be unique."""
        pairs = self.scope["headers"]
        if len(self.headers) == len(pairs):
            return
        seen: set[bytes] = set()
        for name, _ in pairs:
            if name in seen and name in _SINGLE_HEADERS:
                raise BadRequest(f"The header {name.decode('latin-1')} is there twice: send it once.")
            seen.add(name)

    def header(self, name: bytes) -> bytes | None:
        """The value of a header, by its name in lower case."""
        return self.headers.get(name)

    async def receive_chunk(self) -> tuple[bytes, bool]:
        """The next piece of the body, and whether more follows."""
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise BadRequest("The connection ended before the whole body had arrived: send it again.")
        chunk: bytes = message.get("body", b"")
        self.budget.take(len(chunk))
        self.body_bytes += len(chunk)
        more: bool = message.get("more_body", False)
        self.body_complete = not more
        return chunk, more

    def release(self) -> None:
        """The request has been answered: its body counts no longer."""
        self.budget.give_back(self.body_bytes)
        self.body_bytes = 0

    def key(self) -> str:
        """The key that the address names: everything after the route, percent-decoded once."""
        raw = self.tail
        if b"%" in raw:
            raw = percent_decoded(raw)
        self.key_text = checked_key(_utf8(raw, "key"))
        return self.key_text

    def query(self, *known: str) -> dict[str, str]:
        """The parameters among `known`; others are ignored. A plus sign means a space, as forms write it."""
        if not self.query_string:
            return {}
        found: dict[str, str] = {}
        for part in self.query_string.split(b"&"):
            raw_name, _, raw_value = part.partition(b"=")
            name = _form_decoded(raw_name)
            if name not in known:
                continue
            if name in found:
                raise BadRequest(f"The parameter {name} is there twice: give it once.")
            found[name] = _form_decoded(raw_value)
        return found


def percent_decoded(raw: bytes) -> bytes:
    """`raw` percent-decoded once; a percent sign without two hexadecimal digits is refused."""
    if _BAD_PERCENT.search(raw):
        raise BadRequest("The address has a percent sign without two hexadecimal digits: write %25 for a percent sign.")
    return unquote_to_bytes(raw)


def _form_decoded(raw: bytes) -> str:
    return _utf8(percent_decoded(raw.replace(b"+", b" ")), "query")


def _utf8(raw: bytes, what: str) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise BadRequest(f"The {what} is not valid UTF-8: percent-encode UTF-8 bytes.") from None


def checked_key(key: object) -> str:
    """`key` if it may be a key: a string of 1 to 1024 bytes of UTF-8, otherwise opaque."""
    if not isinstance(key, str):
        raise BadRequest("The key must be a string.")
    try:
        size_bytes = len(key.encode())
    except UnicodeEncodeError:
        raise InvalidValue("The key has half of a surrogate pair: send whole characters.") from None
    if size_bytes == 0:
        raise BadRequest("The key is empty: name one of 1 to 1024 bytes.")
    if size_bytes > KEY_LIMIT_BYTES:
        raise BadRequest(f"The key is longer than {KEY_LIMIT_BYTES} bytes: use a shorter one.")
    return key


def timeout_ms(text: str | None) -> float | None:
    """The deadline that a request asks for, in milliseconds; `None` for the node's own."""
    if text is None:
        return None
    value = float(text) if _DECIMAL.fullmatch(text) else 0.0
    if not TIMEOUT_LEAST_MS <= value <= TIMEOUT_LIMIT_MS:
        raise BadRequest(f"timeout_ms must be a number from {TIMEOUT_LEAST_MS:g} to {TIMEOUT_LIMIT_MS:g}.")
    return value


def whole_number(name: str, text: str | None, low: int, high: int) -> int | None:
    """The parameter `name` as a whole number from `low` to `high`; `None` where it is absent."""
    if text is None:
        return None
    if not _VERSION.fullmatch(text) or not low <= int(text) <= high:
        raise BadRequest(f"{name} must be a whole number from {low} to {high}.")
    return int(text)


def milliseconds(name: str, text: str | None) -> float | None:
    """The parameter `name` as a number of milliseconds, 0 or more; `None` where it is absent."""
    if text is None:
        return None
    value = float(text) if _DECIMAL.fullmatch(text) else math.inf
    if math.isinf(value):
        raise BadRequest(f"{name} must be a number of milliseconds, 0 or more.")
    return value


def acknowledgements(text: str | None, followers: int) -> int | None:
    """How many followers must have a write before it is answered; `None` for the cluster's quorum.

    `majority` is a majority of all nodes: the leader counts as one of them, so it takes half of the nodes besides.
    """
    if text is None:
        return None
    if text == "all":
        return followers
    if text == "majority":
        return (followers + 1) // 2
    if not _VERSION.fullmatch(text) or int(text) > followers:
        raise BadRequest(f"w must be a number from 0 to {followers} (the followers), majority or all.")
    return int(text)


def session_token(text: str | None, current_epoch: int) -> tuple[int, int] | None:
    """Epoch and version of a `min_version`: `epoch.version`, or a bare version, which means the current epoch."""
    if text is None:
        return None
    match = _TOKEN.fullmatch(text)
    if match is None:
        raise BadRequest("min_version must be the session of a receipt, such as 1.42, or a bare version.")
    epoch = current_epoch if match[1] is None else int(match[1])
    if max(epoch, int(match[2])) > VERSION_LIMIT:
        raise BadRequest("min_version is beyond any version: use the session of a receipt, such as 1.42.")
    return epoch, int(match[2])


def write_condition(request: Request) -> Condition | None:
    """What `If-Match` and `If-None-Match` ask of the key before a write."""
    must_match = request.header(b"if-match")
    must_not_match = request.header(b"if-none-match")
    if must_match is None and must_not_match is None:
        return None
    if must_match is not None and must_not_match is not None:
        raise BadRequest("If-Match and If-None-Match exclude each other: send one of them.")
    if must_not_match is not None:
        if must_not_match.strip() != b"*":
            raise BadRequest("On a write, If-None-Match may only be * (the key must not exist).")
        return Condition(absent=True)
    assert must_match is not None
    if must_match.strip() == b"*":
        return Condition(present=True)
    match = _ENTITY_TAG.fullmatch(must_match.strip())
    if match is None or not 1 <= int(match[1] or match[2]) <= VERSION_LIMIT:
        raise BadRequest('If-Match must be one version in quotes, such as "42", or *.')
    return Condition(version=int(match[1] or match[2]))


def is_known_version(request: Request, version: int) -> bool:
    """Whether `If-None-Match` says that the client has this version already."""
    header = request.header(b"if-none-match")
    if header is None:
        return False
    tags = [tag.strip().removeprefix(b"W/") for tag in header.split(b",")]
    return b"*" in tags or b'"%d"' % version in tags


def request_id(request: Request) -> str:
    """The `Idempotency-Key`, empty where there is none."""
    header = request.header(b"idempotency-key")
    if header is None:
        return ""
    if not _REQUEST_ID.fullmatch(header):
        raise BadRequest("Idempotency-Key must be 1 to 255 visible ASCII characters, without spaces.")
    return header.decode("ascii")


def prefers(request: Request, media_type: bytes) -> bool:
    """Whether the `Accept` header prefers `media_type` over JSON.

    It must be named with a weight above that of JSON, or with the same weight and JSON not named before it.
    """
    accept = request.header(b"accept")
    if accept is None or media_type not in accept:
        return False
    weights: dict[bytes, float] = {}
    for item in accept.split(b","):
        name, *parameters = (part.strip().lower() for part in item.split(b";"))
        weight = 1.0
        for parameter in parameters:
            if parameter.startswith(b"q="):
                weight = _weight(parameter[2:])
        weights.setdefault(name, weight)
    json_weight = weights.get(b"application/json", 0.0)
    own_weight = weights.get(media_type, 0.0)
    return own_weight > json_weight or (own_weight == json_weight > 0 and _first(weights, media_type))


def _weight(raw: bytes) -> float:
    text = raw.decode("latin-1")
    return min(float(text), 1.0) if _DECIMAL.fullmatch(text) else 0.0


def _first(weights: dict[bytes, float], media_type: bytes) -> bool:
    names = list(weights)
    return names.index(media_type) < names.index(b"application/json")
