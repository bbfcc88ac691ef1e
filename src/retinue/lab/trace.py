"""Events and effects in one short line each, for `retinue simulate --trace`."""

from __future__ import annotations

import enum

import msgspec

from retinue.core.messages import Entry, HardState, Kind, Received, Send

_SHOWN_ENTRIES = 6


def describe(thing: object) -> str:
    """Any event, effect or message, with entries as `version@epoch kind key=value`."""
    if isinstance(thing, Received):
        return f"from {thing.sender}: {describe(thing.message)}"
    if isinstance(thing, Send):
        return f"Send to {thing.to}: {describe(thing.message)}"
    if isinstance(thing, Entry):
        return _entry(thing)
    if isinstance(thing, HardState):
        return (
            f"promised={thing.promised} T={thing.trusted} floor={thing.floor} voter={thing.voter} "
            f"config={describe(thing.configuration)}@{thing.configuration_version}"
        )
    if isinstance(thing, enum.Enum):
        return str(thing.value)
    if isinstance(thing, list | tuple):
        shown = " ".join(describe(item) for item in thing[:_SHOWN_ENTRIES])
        more = f" ...{len(thing)} in all" if len(thing) > _SHOWN_ENTRIES else ""
        return f"[{shown}{more}]"
    if isinstance(thing, msgspec.Struct):
        fields = (f"{name}={describe(getattr(thing, name))}" for name in thing.__struct_fields__)
        return f"{type(thing).__name__}({', '.join(fields)})"
    if isinstance(thing, bytes):
        return thing.decode("utf-8", "backslashreplace")
    return str(thing)


def _entry(entry: Entry) -> str:
    kind = Kind(entry.kind).name.lower()
    content = " ".join(f"{change.key}={describe(change.value)}" for change in entry.changes())
    request = f" <{entry.request_id}>" if entry.request_id else ""
    return f"{entry.version}@{entry.epoch} {kind} {content}{request}".rstrip() + ";"
