"""Two runs side by side: their key figures with the ratio, and a picture."""

from __future__ import annotations

import re
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import NamedTuple

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from retinue.errors import SettingsError
from retinue.lab.experiments.contract import Picture, Table
from retinue.lab.reports.figures import INK, THEORY, look, new_axes, new_figure, plain_numbers, png, title
from retinue.lab.reports.folder import Record, write_file
from retinue.lab.reports.html import Drawn, contents, document, figure, table
from retinue.lab.reports.text import Cell

_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_MOST_PANELS = 6
_MOST_RATIOS = 30

Series = dict[str, dict[float, str]]


class Run(NamedTuple):
    """A run to compare: its label ("A" or "B"), its folder, its record."""

    label: str
    folder: Path
    record: Record

    @property
    def figures(self) -> Mapping[str, float]:
        """Its key figures."""
        return self.record.summary.key_figures

    @property
    def shown(self) -> str:
        """Label and folder."""
        return f"{self.label}: {self.folder.name}"


def tables(a: Run, b: Run) -> list[Table]:
    """What differs in how they were measured, and the key figures. Raises `SettingsError` if they share none."""
    shared = [name for name in a.figures if name in b.figures]
    if not shared:
        raise SettingsError(
            f"{a.folder} ({a.record.experiment}) and {b.folder} ({b.record.experiment}) have no key figure in common: "
            "compare two runs of one experiment."
        )
    rows: list[list[Cell]] = [[name, a.figures[name], b.figures[name], _ratio(a, b, name)] for name in shared]
    notes = [
        f"{len(left)} key figures are only in {run.label}." for run in (a, b) if (left := set(run.figures) - {*shared})
    ]
    return [
        Table(title="How they were measured", columns=["", "A", "B"], rows=_differences(a.record, b.record)),
        Table(title="Key figures", columns=["figure", "A", "B", "B / A"], rows=rows, notes=notes),
    ]


def picture(a: Run, b: Run) -> Picture | None:
    """Key figures whose names differ in one number only, such as the quorum, as curves; else ratios.

    `None` for runs of different experiments. At most six families of curves, or thirty ratios, are drawn.
    """
    if a.record.experiment != b.record.experiment:
        return None
    families = _families([name for name in a.figures if name in b.figures])
    if families:
        return Picture("comparison", f"{a.shown}; {b.shown}.", _curves(a, b, families))
    return Picture("comparison", "B divided by A for each key figure: at 1 they are equal.", _ratios(a, b))


def write(folder: Path, a: Run, b: Run, made: list[Table]) -> None:
    """Write the page and the picture of a comparison."""
    name = f"{a.folder.name} beside {b.folder.name}"
    drawn = picture(a, b)
    body = f"<header><h1>Two runs compared</h1><p class='question'>{escape(a.shown)}<br>{escape(b.shown)}</p></header>"
    sections = [("tables", "Tables", "".join(table(one) for one in made))]
    if drawn is not None:
        content = png(drawn.figure)
        write_file(folder, f"{drawn.name}.png", content)
        sections.insert(0, ("picture", "Picture", figure(Drawn(drawn.name, drawn.caption, content))))
    body += contents([(anchor, heading) for anchor, heading, _ in sections])
    body += "".join(
        f'<section><h2 id="{anchor}">{heading}</h2>{inner}</section>' for anchor, heading, inner in sections
    )
    write_file(folder, "report.html", document(name, body).encode())


def _differences(a: Record, b: Record) -> list[list[Cell]]:
    """Where they were measured, and every setting or fact that is not the same."""
    rows: list[list[Cell]] = [
        [name, getattr(a, name) or "-", getattr(b, name) or "-"]
        for name in ("experiment", "preset", "target", "begun", "state")
    ]
    for kind, ours, theirs in (
        ("setting", a.settings, b.settings),
        ("version of", a.versions, b.versions),
        ("host:", a.host, b.host),
    ):
        for name in sorted({*ours, *theirs}):
            one, other = (dict(given).get(name) for given in (ours, theirs))
            if one != other:
                rows.append([f"{kind} {name}", _said(one), _said(other)])
    return rows


def _said(value: object) -> str:
    return "-" if value is None or value == [] else str(value)


def _ratio(a: Run, b: Run, name: str) -> float | None:
    return b.figures[name] / a.figures[name] if a.figures[name] else None


def _families(names: list[str]) -> Series:
    """Figures whose names are equal but for the last number: that number -> name, by the name with "..." for it."""
    families: Series = {}
    for name in names:
        numbers = list(_NUMBER.finditer(name))
        if numbers:
            last = numbers[-1]
            family = f"{name[: last.start()]}...{name[last.end() :]}"
            families.setdefault(family, {})[float(last[0])] = name
    return {family: members for family, members in families.items() if len(members) > 1}


def _curves(a: Run, b: Run, families: Series) -> Figure:
    shown = list(families.items())[:_MOST_PANELS]
    columns = 1 if len(shown) == 1 else 2
    rows = -(-len(shown) // columns)
    made = new_figure(4.6 * columns + 0.4, 3.3 * rows + 0.4)
    for number, (family, members) in enumerate(shown):
        before, _, after = family.partition(" ...")
        axes = new_axes(made, before.rsplit(" ", 1)[-1], after.strip(" ()"), (rows, columns, number + 1))
        title(axes, before.removesuffix(f" at {before.rsplit(' ', 1)[-1]}"))
        places, highest = sorted(members), 0.0
        for order, run in enumerate((a, b)):
            style = look(order)
            values = [run.figures[members[place]] for place in places]
            highest = max(highest, *values)
            axes.plot(places, values, marker=style.marker, color=style.colour, linestyle=style.dash, label=run.label)
        axes.set_ylim(min(0.0, axes.get_ylim()[0]), 1.08 * highest or 1.0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if number == 0:
            axes.legend(frameon=False, fontsize=10, labelcolor=INK)
    return made


def _ratios(a: Run, b: Run) -> Figure:
    known = [(name, ratio) for name in a.figures if name in b.figures and (ratio := _ratio(a, b, name))][:_MOST_RATIOS]
    made = new_figure(8.4, 1.2 + 0.32 * max(len(known), 1))
    axes = new_axes(made, "B / A")
    style = look(0)
    places = list(range(len(known)))[::-1]
    axes.axvline(1.0, color=THEORY, linewidth=1.0)
    axes.plot([ratio for _, ratio in known], places, style.marker, color=style.colour, markersize=7)
    axes.set_yticks(places, [name for name, _ in known])
    if known and all(ratio > 0 for _, ratio in known):
        axes.set_xscale("log")
        plain_numbers(axes, "x")
    title(axes, "Run B in units of run A")
    return made
