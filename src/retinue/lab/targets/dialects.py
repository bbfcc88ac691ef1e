"""The addresses under which replicated key-value stores of the labs are asked, as a table.

A dialect is known by its way to write; for everything else there are alternatives, and a server may have any of them.
`Spoken` is what one server has. `answers.py` reads what comes back.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from retinue.call import quoted
from retinue.errors import SettingsError


class Form(NamedTuple):
    """One way to ask: `{key}` in the path stands for the key, and `members` are those of the JSON body."""

    method: str
    path: str
    members: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.method} {self.path}"

    @property
    def route(self) -> str:
        """The path without its query."""
        return self.path.partition("?")[0]

    def address(self, key: str) -> str:
        """The path for a key. Raises `BadRequest` for a key that is not UTF-8."""
        return self.path.replace("{key}", quoted(key))

    def body(self, key: str, value: str) -> dict[str, str] | None:
        """What is sent, `None` for nothing."""
        given = {"key": key, "value": value}
        return {member: given[member] for member in self.members} or None


@dataclass(frozen=True)
class Dialect:
    """One dialect; the alternatives in the order in which they are preferred.

    `own_dump`: the dump by which it is known when nothing else tells. `deletes`: it is taken to have its first way to
    delete even where nothing shows it.
    """

    name: str
    write: Form
    reads: tuple[Form, ...]
    delete_forms: tuple[Form, ...]
    dumps: tuple[Form, ...]
    own_dump: str
    deletes: bool


@dataclass(frozen=True)
class Spoken:
    """How one server is asked; `None` for what it does not offer."""

    name: str
    write: Form
    read: Form
    delete: Form | None
    dump: Form | None

    def __str__(self) -> str:
        forms = (self.write, self.read, self.delete, self.dump)
        return f"{self.name} ({', '.join(str(form) for form in forms if form is not None)})"


_DUMPS = tuple(Form("GET", path) for path in ("/dump", "/all", "/data", "/store"))
_DELETES = (Form("DELETE", "/delete/{key}"), Form("DELETE", "/delete?key={key}"), Form("POST", "/delete", ("key",)))


def _dumps_from(first: str) -> tuple[Form, ...]:
    return tuple(sorted(_DUMPS, key=lambda form: form.path != first))


DIALECTS: tuple[Dialect, ...] = (
    Dialect(
        "canonical",
        write=Form("PUT", "/kv/{key}", ("value",)),
        reads=(Form("GET", "/kv/{key}"),),
        delete_forms=(Form("DELETE", "/kv/{key}"),),
        dumps=(*_dumps_from("/dump"), Form("GET", "/kv")),
        own_dump="/kv",
        deletes=True,
    ),
    Dialect(
        "set",
        write=Form("POST", "/set", ("key", "value")),
        reads=(Form("GET", "/get/{key}"), Form("GET", "/get?key={key}")),
        delete_forms=_DELETES,
        dumps=_dumps_from("/all"),
        own_dump="/all",
        deletes=True,
    ),
    Dialect(
        "write",
        write=Form("POST", "/write", ("key", "value")),
        reads=(Form("GET", "/read?key={key}"), Form("GET", "/read/{key}")),
        delete_forms=_DELETES,
        dumps=_dumps_from("/dump"),
        own_dump="/dump",
        deletes=False,
    ),
)

NAMES = tuple(dialect.name for dialect in DIALECTS)


def candidates(wanted: str | None) -> tuple[Dialect, ...]:
    """The dialect of this name; all of them for none. Raises `SettingsError` for a name that does not exist."""
    if wanted is None:
        return DIALECTS
    found = tuple(dialect for dialect in DIALECTS if dialect.name == wanted)
    if not found:
        raise SettingsError(f"--dialect={wanted} is not known: use one of {', '.join(NAMES)}.")
    return found


def spoken_in(description: Mapping[str, object], dialects: Iterable[Dialect]) -> Spoken | None:
    """The first of these dialects that an OpenAPI description has, `None` where it has none of them."""
    paths = description.get("paths")
    offered = {
        (method.upper(), re.sub(r"\{[^}]*\}", "{key}", path))
        for path, methods in (paths.items() if isinstance(paths, dict) else ())
        if isinstance(methods, dict)
        for method in methods
    }

    def is_offered(form: Form) -> bool:
        return (form.method, form.route) in offered

    for dialect in dialects:
        read = _first(dialect.reads, is_offered)
        if is_offered(dialect.write) and read is not None:
            delete, dump = _first(dialect.delete_forms, is_offered), _first(dialect.dumps, is_offered)
            return Spoken(dialect.name, dialect.write, read, delete, dump)
    return None


def _first(forms: tuple[Form, ...], holds: Callable[[Form], bool]) -> Form | None:
    return next((form for form in forms if holds(form)), None)
