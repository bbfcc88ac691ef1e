"""Tables and numbers as text, for the terminal and for the page."""

from __future__ import annotations

import sys

from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from retinue.lab.experiments.contract import Table

Cell = str | int | float | None

UNBROKEN_WIDTH = 400
"""Columns of a table that goes into a file or a pipe, where a broken line would be of no use to `grep`."""


def shown(table: Table) -> list[list[str]]:
    """The cells as a person reads them: groups of thousands, a dash for nothing.

    Numbers have two decimals where any number of the column has a fraction.
    """
    with_fraction = [
        any(isinstance(row[column], float) and not float(row[column] or 0).is_integer() for row in table.rows)
        for column in range(len(table.columns))
    ]
    return [[_shown(cell, fraction) for cell, fraction in zip(row, with_fraction, strict=True)] for row in table.rows]


def _shown(cell: Cell, fraction: bool) -> str:
    if cell is None:
        return "-"
    if isinstance(cell, str):
        return safe(cell)
    return f"{cell:,.2f}" if fraction and isinstance(cell, float) else f"{cell:,.0f}"


def safe(text: str) -> str:
    """Text without control characters, which a server's answer may hold and a terminal would obey."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text)


def numeric(table: Table) -> list[bool]:
    """For each column, whether it holds numbers, which stand to the right."""
    columns = range(len(table.columns))
    return [
        all(not isinstance(row[column], str) for row in table.rows)
        and any(row[column] is not None for row in table.rows)
        for column in columns
    ]


def print_table(table: Table) -> None:
    """Print a table on standard output, with its title above and its notes below."""
    console = Console(highlight=False, width=None if sys.stdout.isatty() else UNBROKEN_WIDTH)
    made = RichTable(box=box.SIMPLE_HEAD, pad_edge=False)
    for name, right in zip(table.columns, numeric(table), strict=True):
        made.add_column(Text(safe(name)), justify="right" if right else "left", overflow="fold")
    for row in shown(table):
        made.add_row(*(Text(cell) for cell in row))
    console.print(Text(safe(table.title), style="bold"))
    console.print(made)
    for note in table.notes:
        console.print(Text(safe(note), style="dim"))
    if table.notes:
        console.print()


def print_lines(*lines: str) -> None:
    """Print paragraphs on standard output, broken at words on a terminal."""
    console = Console(highlight=False, width=None if sys.stdout.isatty() else UNBROKEN_WIDTH)
    for line in lines:
        console.print(Text(safe(line)), soft_wrap=not sys.stdout.isatty())
