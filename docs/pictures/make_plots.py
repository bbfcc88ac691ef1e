"""Make the plots of docs/lab.md and README.md: docs/pictures/lab-*.png.

./run.sh retinue lab presets once, then: .venv/bin/python docs/pictures/make_plots.py [FOLDER OF A RUN ...]

Experiments run in the simulator, so the same program draws the same pictures. With folders of runs, their pictures are
taken instead of simulated ones.
"""

from __future__ import annotations

import io
import sys
import tempfile
from pathlib import Path

from PIL import Image

from retinue import cli
from retinue.lab.reports.folder import read_record

PICTURES = Path(__file__).parent
COLOURS = 96

COMMANDS = {
    "quorum": ["--preset", "tail"],
    "consistency": ["--rounds", "20"],
    "staleness": [],
    "faults": ["--schedule", "leader-killed"],
    "ordering": [],
    "throughput": [],
}
"""The experiments and their options."""

TAKEN = {
    "quorum": ("latency", "cumulative"),
    "consistency": ("consistency-grid", "consistency-over-time"),
    "staleness": ("staleness-over-time",),
    "faults": ("outcomes",),
    "ordering": ("ordering-latency-over-rate",),
    "throughput": ("throughput-over-clients",),
}
"""The pictures that are shown, by experiment."""


def main(folders: list[Path]) -> int:
    """Make all pictures, or those of the given runs."""
    with tempfile.TemporaryDirectory() as temporary:
        for name, options in {} if folders else COMMANDS.items():
            out = Path(temporary) / name
            code = cli.main(["lab", name, "--simulated", *options, "--out", str(out)])
            if code:
                return code
            folders.append(next(out.iterdir()))
        for folder in folders:
            experiment = read_record(folder).experiment
            for picture in TAKEN[experiment]:
                name = picture.removeprefix(f"{experiment}-")
                _take(folder / f"{picture}.png", PICTURES / f"lab-{experiment}-{name}.png")
    return 0


def _take(source: Path, destination: Path) -> None:
    """Copy a picture with fewer colours, which is enough for lines and text, and a quarter of the size."""
    buffer = io.BytesIO()
    Image.open(source).convert("RGB").quantize(COLOURS).save(buffer, format="PNG", optimize=True)
    destination.write_bytes(buffer.getvalue())
    print(f"{destination}: {len(buffer.getvalue()) // 1024} KiB")


if __name__ == "__main__":
    sys.exit(main([Path(argument) for argument in sys.argv[1:]]))
