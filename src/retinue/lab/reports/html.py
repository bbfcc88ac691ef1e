"""`report.html`: one file that opens from disk, on a phone and on paper, without network and without scripts."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

from retinue.lab.experiments.contract import Table
from retinue.lab.reports.folder import COMPLETE, Record
from retinue.lab.reports.text import numeric, shown

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"

STYLE = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem 1.2rem 4rem; max-width: 60rem; background: #fff; color: #222;
  font: 1.02rem/1.55 system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
h1 { margin: 0 0 .2rem; font-size: 1.75rem; line-height: 1.2; }
h2 { margin: 2.4rem 0 .6rem; padding-top: .6rem; border-top: 1px solid #ddd; font-size: 1.3rem; }
h3 { margin: 1.6rem 0 .4rem; font-size: 1.05rem; }
p { margin: .6rem 0; max-width: 46rem; }
a { color: #00558a; }
.question { margin-top: 0; color: #555; font-size: 1.1rem; }
.facts { color: #555; font-size: .92rem; }
.verdict { margin: 1.2rem 0; padding: .7rem 1rem; border-left: 5px solid #007a5a; background: #f1f7f4; }
.verdict.broken { border-color: #b83a00; background: #fdf1ea; }
.verdict.partial { border-color: #a87400; background: #fdf7e8; }
.verdict p { margin: .2rem 0; }
nav ul { margin: .4rem 0; padding-left: 1.2rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .92rem; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .55rem; border-bottom: 1px solid #e2e2e2; text-align: left; vertical-align: top; }
th { font-weight: 600; }
thead th { border-bottom: 2px solid #999; vertical-align: bottom; }
.number { text-align: right; }
td.number { white-space: nowrap; }
.note { color: #555; font-size: .88rem; margin: .3rem 0; }
figure { margin: 1.2rem 0 2rem; }
figure img { display: block; width: 100%; height: auto; }
figcaption { color: #444; font-size: .95rem; max-width: 46rem; }
pre { padding: .7rem 1rem; overflow-x: auto; background: #f5f5f5; font-size: .9rem; }
@media (max-width: 40rem) { body { padding: 1rem .8rem 3rem; font-size: 1rem; } h1 { font-size: 1.4rem; } }
@media print {
  body { max-width: none; padding: 0; font-size: 10pt; }
  nav { display: none; } figure, tr, .verdict { break-inside: avoid; } h2, h3 { break-after: avoid; }
  .wide { overflow: visible; } table { font-size: 7.5pt; } th, td { padding: .15rem .3rem; }
}
"""


class Drawn(NamedTuple):
    """A picture as it is stored: file name without extension, the sentence under it, PNG bytes."""

    name: str
    caption: str
    content: bytes


def page(record: Record, pictures: Sequence[Drawn]) -> str:
    """The report of a run."""
    parts = [_head(record), _verdict(record)]
    sections = [
        ("reading", "What the numbers say", "".join(f"<p>{escape(text)}</p>" for text in record.summary.reading)),
        ("pictures", "Pictures", "".join(figure(picture) for picture in pictures)),
        ("tables", "Tables", "".join(table(made) for made in record.summary.tables)),
        ("settings", "Settings", _mapping({name: _plain(value) for name, value in record.settings.items()})),
        ("machine", "Where it was measured", _machine(record)),
        ("again", "How to do it again", _again(record)),
    ]
    sections = [section for section in sections if section[2]]
    parts.append(contents([(anchor, heading) for anchor, heading, _ in sections]))
    parts += [
        f'<section><h2 id="{anchor}">{escape(heading)}</h2>{body}</section>' for anchor, heading, body in sections
    ]
    return document(record.title, "".join(parts))


def document(name: str, body: str) -> str:
    """A page around `body`, which is HTML already."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<title>{escape(name)}</title><link rel="icon" href="data:,"><style>{STYLE}</style></head>\n'
        f"<body>{body}</body></html>\n"
    )


def contents(sections: Sequence[tuple[str, str]]) -> str:
    """The table of contents: pairs of anchor and heading."""
    links = "".join(f'<li><a href="#{anchor}">{escape(heading)}</a></li>' for anchor, heading in sections)
    return f'<nav aria-label="Contents"><ul>{links}</ul></nav>'


def table(made: Table) -> str:
    """A table with its title and notes."""
    right = [' class="number"' if is_number else "" for is_number in numeric(made)]
    head = "".join(f"<th{align}>{escape(name)}</th>" for name, align in zip(made.columns, right, strict=True))
    rows = "".join(
        "<tr>" + "".join(f"<td{align}>{escape(cell)}</td>" for cell, align in zip(row, right, strict=True)) + "</tr>"
        for row in shown(made)
    )
    notes = "".join(f'<p class="note">{escape(note)}</p>' for note in made.notes)
    body = f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
    return f'<h3>{escape(made.title)}</h3><div class="wide">{body}</div>{notes}'


def figure(picture: Drawn) -> str:
    """A picture with its caption, as part of the page."""
    data = base64.b64encode(picture.content).decode("ascii")
    caption = escape(picture.caption)
    image = f'<img alt="{escape(picture.name)}: {caption}" src="data:image/png;base64,{data}">'
    return f"<figure>{image}<figcaption>{caption}</figcaption></figure>"


def _head(record: Record) -> str:
    preset = f", preset {record.preset}" if record.preset else ""
    facts = f"Measured {record.begun} on {record.target}{preset}; {len(record.samples.rows):,} samples."
    return (
        f'<header><h1>{escape(record.title)}</h1><p class="question">{escape(record.question)}</p>'
        f'<p class="facts">{escape(facts)}</p></header>'
    )


def _verdict(record: Record) -> str:
    violations = record.summary.violations
    blocks = []
    if record.state != COMPLETE:
        blocks.append(("partial", [f"Not complete: {record.note}"]))
    if violations:
        blocks.append(("broken", [f"Broken promises: {len(violations)}", *violations]))
    elif record.state == COMPLETE:
        blocks.append(("", ["No broken promise was found."]))
    return "".join(
        f'<div class="verdict {kind}">' + "".join(f"<p>{escape(line)}</p>" for line in lines) + "</div>"
        for kind, lines in blocks
    )


def _machine(record: Record) -> str:
    known = {"target": record.target, "begun": record.begun, "ended": record.ended}
    known |= {name.replace("_mib", " (MiB)"): _plain(value) for name, value in record.host.items()}
    known |= {f"version of {name}": version for name, version in record.versions.items()}
    return _mapping(known)


def _again(record: Record) -> str:
    files = ["results.json (everything)", "results.csv (the samples)", *record.attachments]
    return (
        "<p>The same measurement:</p>"
        f"<pre>{escape(record.command)}</pre>"
        "<p>This page again, from the samples, in the folder that holds this file:</p>"
        "<pre>retinue lab report .</pre>"
        f"<p>Beside this page: {escape(', '.join(files))}, and the pictures as PNG.</p>"
    )


def _mapping(entries: dict[str, str]) -> str:
    rows = "".join(f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in entries.items())
    return f'<div class="wide"><table><tbody>{rows}</tbody></table></div>'


def _plain(value: object) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(str(part) for part in value) or "all"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "unknown" if value is None else str(value)
