"""The shapes of bodies and answers in JSON Schema, for the OpenAPI description."""

from __future__ import annotations

from dataclasses import dataclass

from retinue.http.answer import JSON
from retinue.http.request import VERSION_LIMIT
from retinue.network import DELAY_LIMIT_MS, DISTRIBUTIONS

Schema = dict[str, object]


@dataclass(frozen=True, slots=True)
class Known:
    """What a description can say about the node that serves it; `None` where nobody has told.

    `peers` are the members at the other ends of its links, `batch_limit` the writes that a batch may have.
    """

    peers: tuple[str, ...] | None = None
    batch_limit: int | None = None

    @property
    def count_of_followers(self) -> Schema:
        """A number of followers."""
        return _COUNT if self.peers is None else _COUNT | {"maximum": len(self.peers)}


NOTHING_KNOWN = Known()

_ANY: Schema = {"description": "Any JSON value."}
_TEXT: Schema = {"type": "string"}
_COUNT: Schema = {"type": "integer", "minimum": 0}
_KEY: Schema = {"type": "string", "minLength": 1}
_ENCODING: Schema = {"type": "string", "enum": ["base64"], "description": "There where the value spells bytes."}
_BASE64: Schema = {
    "type": "string",
    "pattern": "^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$",
    "contentEncoding": "base64",
}
_MS: Schema = {"type": "number", "minimum": 0}


def _object(required: dict[str, Schema], optional: dict[str, Schema] | None = None, *, closed: bool = False) -> Schema:
    schema: Schema = {"type": "object", "properties": required | (optional or {})}
    if required:
        schema["required"] = list(required)
    if closed:
        schema["additionalProperties"] = False
    return schema


_ROW = _object({"value": _ANY, "version": _COUNT}, {"encoding": _ENCODING})

SCHEMAS: dict[str, Schema] = {
    "Document": {"type": "object"},
    "Problem": _object(
        {"type": _TEXT, "title": _TEXT, "status": {"type": "integer"}, "detail": _TEXT, "error": _TEXT},
        {
            "outcome": {"type": "string", "enum": ["not_written", "unknown"]},
            "key": _TEXT,
            "version": {"type": ["integer", "null"]},
            "acks": _COUNT,
            "required_quorum": _COUNT,
            "leader": {"type": ["string", "null"]},
        },
    ),
    "Receipt": _object(
        {
            "status": {"type": "string", "enum": ["success", "deleted"]},
            "message": _TEXT,
            "outcome": {"type": "string", "enum": ["committed", "accepted"]},
            "committed": {"type": "boolean"},
            "version": _COUNT,
            "epoch": _COUNT,
            "session": _TEXT,
            "acks": _COUNT,
            "replicated_to": _COUNT,
            "required_quorum": _COUNT,
            "acked_by": {"type": "array", "items": _object({"node": _TEXT, "ms": _MS})},
            "replication_time_ms": _MS,
            "total_time_ms": _MS,
        },
        {
            "key": _KEY,
            "value": _ANY,
            "encoding": _ENCODING,
            "first_version": _COUNT | {"description": "The version that all keys of a batch have."},
            "writes": _COUNT | {"description": "How many keys a batch wrote, each counted once."},
            "delays_ms": {"type": "object", "additionalProperties": _MS},
            "replayed": {"type": "boolean"},
        },
    ),
    "Found": _object(
        {"key": _KEY, "value": _ANY, "version": _COUNT, "node": _TEXT, "role": _TEXT, "committed": {"type": "boolean"}},
        {"encoding": _ENCODING, "status": _TEXT},
    ),
    "Page": _object(
        {
            "items": {
                "type": "array",
                "items": _object({"key": _KEY, "value": _ANY, "version": _COUNT}, {"encoding": _ENCODING}),
            },
            "next": {"type": ["string", "null"]},
            "version": _COUNT,
        }
    ),
    "WriteState": _object(
        {
            "version": _COUNT,
            "state": {"type": "string", "enum": ["committed", "pending", "unknown"]},
            "kind": {"enum": ["put", "delete", "batch", "noop", "config", None]},
            "keys": {"type": "array", "items": _TEXT},
            "idempotency_key": {"type": ["string", "null"]},
            "acks": _COUNT,
            "required_quorum": _COUNT,
            "acked_by": {"type": "array", "items": _TEXT},
        }
    ),
    "State": _object({}, {"status": _TEXT, "role": _TEXT, "node": _TEXT}),
    "Rows": {"type": "object", "additionalProperties": _ROW},
    "RoleAndData": _object({"role": _TEXT, "data": {"type": "object", "additionalProperties": _ROW}}),
}


_DELAY: Schema = {"type": "number", "minimum": 0, "maximum": DELAY_LIMIT_MS}
_SHARE: Schema = {"type": "number", "minimum": 0, "maximum": 1}
_DISTRIBUTION: Schema = {"type": "string", "enum": list(DISTRIBUTIONS)}
_SMALLEST_DELAY = _DELAY | {"description": "Not above the largest delay in force, else 409."}
_LINK = _object(
    {},
    {
        "min_ms": _SMALLEST_DELAY,
        "max_ms": _DELAY,
        "distribution": _DISTRIBUTION,
        "loss": _SHARE,
        "in_order": {"type": "boolean"},
        "cut": {"type": "boolean"},
    },
    closed=True,
) | {"type": ["object", "null"], "description": "`null` makes the link like the others."}


def _links(known: Known) -> Schema:
    links: Schema = {
        "type": "object",
        "description": "Conditions of single links, by the name of the member at the other end.",
        "additionalProperties": _LINK,
    }
    if known.peers is not None:
        links |= {"properties": dict.fromkeys(known.peers, _LINK), "additionalProperties": False}
    return links


def _cut(known: Known) -> Schema:
    cut: Schema = {"type": "array", "items": _TEXT, "description": "The members whose links pass nothing."}
    if known.peers is not None:
        # An enumeration of nothing is no schema for some tools, so a node without links takes an empty list.
        cut |= {"items": {"type": "string", "enum": list(known.peers)}} if known.peers else {"maxItems": 0}
    return cut


def _config_patch(known: Known) -> Schema:
    return _object(
        {},
        {
            "write_quorum": known.count_of_followers | {"description": "At most the number of followers."},
            "min_delay_ms": _SMALLEST_DELAY,
            "max_delay_ms": _DELAY,
            "delay_distribution": _DISTRIBUTION,
            "loss": _SHARE,
            "in_order_delivery": {"type": "boolean"},
            "seed": {"type": ["integer", "null"]},
            "links": _links(known),
            "cut": _cut(known),
        },
        closed=True,
    )


def _value(
    required: dict[str, Schema] | None = None, optional: dict[str, Schema] | None = None, *, closed: bool = False
) -> Schema:
    """A value beside other members: any JSON, or bytes as base64."""
    beside, may_be = required or {}, optional or {}
    any_value = _object(beside | {"value": _ANY}, may_be | {"encoding": {"type": "null"}}, closed=closed)
    return {"anyOf": [any_value, _object(beside | {"value": _BASE64, "encoding": _ENCODING}, may_be, closed=closed)]}


def _batch(known: Known) -> Schema:
    key: dict[str, Schema] = {"key": _KEY}
    put = _value(key, {"delete": {"const": False}}, closed=True)
    delete = _object(key | {"delete": {"const": True}}, closed=True)
    writes: Schema = {
        "type": "array",
        "minItems": 1,
        "description": "Applied in this order: of several writes of one key the last one counts.",
        "items": {"anyOf": [put, delete]},
    }
    if known.batch_limit is not None:
        writes["maxItems"] = known.batch_limit
    return _object({"writes": writes}, closed=True)


def _replicated() -> Schema:
    version: Schema = {"type": "integer", "minimum": 1, "maximum": VERSION_LIMIT}
    epoch = version | {"type": ["integer", "null"]}
    delete = _object({"delete": {"const": True}})
    put = _value(optional={"delete": {"const": False}})
    return _object({"key": _KEY, "version": version}, {"epoch": epoch}) | {"anyOf": [put, delete]}


def bodies(known: Known = NOTHING_KNOWN) -> dict[str, dict[str, Schema]]:
    """The bodies that are taken, by the names in the table of routes: per content type the schema."""
    plain = {
        "Value": _value(closed=True),
        "KeyAndValue": _value({"key": _KEY}),
        "Batch": _batch(known),
        "ReplicatedEntry": _replicated(),
        "ConfigPatch": _config_patch(known),
        "Promotion": _object({}, {"accept_loss": {"type": "boolean"}}, closed=True),
    }
    taken: dict[str, dict[str, Schema]] = {name: {JSON.decode(): {"schema": plain[name]}} for name in plain}
    taken["Value"]["application/octet-stream"] = {"schema": {}}
    return taken
