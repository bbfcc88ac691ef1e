"""The shapes of bodies and answers in JSON Schema, for the OpenAPI description."""

from __future__ import annotations

from retinue.http.answer import JSON
from retinue.http.request import VERSION_LIMIT
from retinue.network import DELAY_LIMIT_MS, DISTRIBUTIONS

Schema = dict[str, object]

_ANY: Schema = {"description": "Any JSON value."}
_TEXT: Schema = {"type": "string"}
_COUNT: Schema = {"type": "integer", "minimum": 0}
_KEY: Schema = {"type": "string", "minLength": 1}
_ENCODING: Schema = {"type": "string", "enum": ["base64"], "description": "There where the value spells bytes."}
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
            "first_version": _COUNT,
            "writes": _COUNT,
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


_DISTRIBUTION: Schema = {"type": "string", "enum": list(DISTRIBUTIONS)}
_DELAY: Schema = {"type": "number", "minimum": 0, "maximum": DELAY_LIMIT_MS}
_SHARE: Schema = {"type": "number", "minimum": 0, "maximum": 1}
_CONFIG: dict[str, Schema] = {
    "write_quorum": {"type": "integer", "minimum": 0, "description": "At most the number of followers."},
    "min_delay_ms": _DELAY,
    "max_delay_ms": _DELAY | {"description": "At least `min_delay_ms`."},
    "delay_distribution": _DISTRIBUTION,
    "loss": _SHARE,
    "in_order_delivery": {"type": "boolean"},
    "seed": {"type": ["integer", "null"]},
    "links": {
        "type": "object",
        "description": "Conditions of single links, by the name of the member at the other end.",
        "additionalProperties": _object(
            {},
            {
                "min_ms": _DELAY,
                "max_ms": _DELAY,
                "distribution": _DISTRIBUTION,
                "loss": _SHARE,
                "in_order": {"type": "boolean"},
                "cut": {"type": "boolean"},
            },
            closed=True,
        ),
    },
    "cut": {"type": "array", "items": _TEXT, "description": "The members whose links pass nothing."},
}

_PLAIN = {
    "Value": _object({"value": _ANY}, closed=True),
    "KeyAndValue": _object({"key": _KEY, "value": _ANY}),
    "Batch": _object(
        {
            "writes": {
                "type": "array",
                "minItems": 1,
                "maxItems": 1000,
                "description": "Each key at most once.",
                "items": {
                    "oneOf": [
                        _object({"key": _KEY, "value": _ANY}, closed=True),
                        _object({"key": _KEY, "delete": {"const": True}}, closed=True),
                    ]
                },
            }
        },
        closed=True,
    ),
    "ReplicatedEntry": _object(
        {"key": _KEY, "value": _ANY, "version": {"type": "integer", "minimum": 1, "maximum": VERSION_LIMIT}},
        {
            "delete": {"type": "boolean"},
            "epoch": {"type": ["integer", "null"], "minimum": 1, "maximum": VERSION_LIMIT},
        },
    ),
    "ConfigPatch": _object({}, _CONFIG, closed=True),
    "Promotion": _object({}, {"accept_loss": {"type": "boolean"}}, closed=True),
}

BODIES: dict[str, dict[str, Schema]] = {name: {JSON.decode(): {"schema": schema}} for name, schema in _PLAIN.items()}
BODIES["Value"]["application/octet-stream"] = {"schema": {}}
