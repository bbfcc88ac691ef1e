"""What the command prints. Whatever came from elsewhere is shown without control characters on a terminal."""

from __future__ import annotations

import json
import sys
import unicodedata
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from retinue.errors import RetinueError

if TYPE_CHECKING:
    from rich.table import Table

_ESCAPED = ("Cc", "Cf", "Cs", "Zl", "Zp")
"""Unicode categories that a terminal might obey: controls, formats, surrogates, line and paragraph separators."""

_JOINER = "\u200d"
"""A format character that joins emoji and changes nothing else."""


UNBROKEN_WIDTH = 400
"""Columns of a table that goes into a file or a pipe, where a broken line would be of no use to `grep`."""


def prepare() -> None:
    """Let no character stop the output, whatever the encoding of the terminal is."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def safe(text: object, keep: str = "") -> str:
    """Text with control characters written as escapes, except those in `keep`."""
    return "".join(char if char in keep or not _is_control(char) else _escape(char) for char in str(text))


def safe_json(value: object, indent: int | None = 2) -> str:
    """JSON that any terminal may show: non-ASCII letters stay, control characters are escaped."""
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    return "".join(char if char == "\n" or not _is_control(char) else json.dumps(char)[1:-1] for char in text)


def show_json(value: object) -> None:
    """Print JSON on standard output."""
    print(safe_json(value))


def show_value(content: bytes) -> None:
    """Print a value: its exact bytes into a file or a pipe, readable text on a terminal."""
    if not sys.stdout.isatty():
        sys.stdout.buffer.write(content)
        sys.stdout.flush()
        return
    print(safe(content.decode("utf-8", "backslashreplace"), keep="\n\t"))


def say(text: str) -> None:
    """Print one line for a person."""
    print(safe(text, keep="\n\t"))


def note(sentence: str) -> None:
    """Print one line on standard error that is no failure, so that standard output holds the result alone."""
    print(safe(sentence), file=sys.stderr)


def complain(sentence: str) -> None:
    """Print one sentence on standard error."""
    print(f"retinue: {safe(sentence)}", file=sys.stderr)


def tell_error(error: RetinueError, *, as_json: bool) -> None:
    """Tell a failure: the sentence on standard error, with `as_json` all its members on standard output too."""
    complain(error.detail)
    if as_json:
        show_json(error.problem())


def show_mapping(document: Mapping[str, object], indent: str = "") -> None:
    """Print a JSON object for a person: one line a member, tables for lists of objects."""
    width = max((len(name) for name in document), default=0)
    for name, value in document.items():
        if isinstance(value, dict):
            say(f"{indent}{name}")
            show_mapping(value, indent + "  ")
        elif isinstance(value, list) and value and all(isinstance(row, dict) for row in value):
            say(f"{indent}{name}")
            show_rows(value)
        else:
            say(f"{indent}{name:<{width}}  {plain(value)}")


def show_rows(rows: Sequence[Mapping[str, object]]) -> None:
    """Print objects as a table; the first one says which columns there are, and nested objects are left out."""
    columns = [name for name, value in rows[0].items() if not isinstance(value, dict | list)]
    show_table(columns, [[plain(row.get(name)) for name in columns] for row in rows])


def show_table(columns: Sequence[str], body: Sequence[Sequence[str]]) -> None:
    """Print a table, as wide as it must be where it does not go to a terminal."""
    from rich.console import Console

    width = None if sys.stdout.isatty() else UNBROKEN_WIDTH
    Console(highlight=False, width=width).print(table(columns, body))


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """A table for `rich`, with every cell made safe."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    made = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in columns:
        made.add_column(name, overflow="fold")
    for row in rows:
        made.add_row(*(Text(safe(cell)) for cell in row))
    return made


def plain(value: object) -> str:
    """A JSON value as a person writes it; nothing for null."""
    if value is None:
        return "-"
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "yes" if value else "no"
    return json.dumps(value, ensure_ascii=False)


def _is_control(char: str) -> bool:
    return char != _JOINER and unicodedata.category(char) in _ESCAPED


def _escape(char: str) -> str:
    return char.encode("unicode_escape", "backslashreplace").decode("ascii")
