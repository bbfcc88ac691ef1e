"""Everything that a folder of a run holds, from a record and its samples."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from retinue.lab.experiments.contract import Attachment, Experiment, Settings
from retinue.lab.reports.figures import png
from retinue.lab.reports.folder import Record, write_file, write_record
from retinue.lab.reports.html import Drawn, page

REPORT = "report.html"


def write_report(
    folder: Path,
    record: Record,
    experiment: Experiment[Any, Any],
    settings: Settings,
    samples: Sequence[msgspec.Struct],
    attachments: Iterable[Attachment] = (),
) -> None:
    """Write the samples first, so that no fault in a picture can lose them; then pictures and page."""
    write_record(folder, record, attachments)
    drawn = [Drawn(made.name, made.caption, png(made.figure)) for made in experiment.figures(settings, samples)]
    for picture in drawn:
        write_file(folder, f"{picture.name}.png", picture.content)
    write_file(folder, REPORT, page(record, drawn).encode())
