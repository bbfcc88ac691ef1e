"""The place of a benchmark: a folder for data on the disk of the checkout, the generator, an end that cleans up."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from bench.generator import build
from bench.systems.contract import Tools
from retinue.errors import EXIT_FAILED, ClusterError, RetinueError

CHECKOUT = Path(__file__).resolve().parents[1]
PLACE = CHECKOUT / ".bench"
_NEEDED_BYTES = 4 << 30
_WIDTH = 150


def console() -> Console:
    """Standard output; wide enough for the tables also where it is no terminal."""
    found = Console()
    return found if found.is_terminal else Console(width=max(found.width, _WIDTH))


@contextmanager
def prepared() -> Iterator[Tools]:
    """Build the generator and make a folder for data, which goes at the end. Raises `ClusterError`."""
    packages = PLACE / "packages"
    packages.mkdir(parents=True, exist_ok=True)
    if shutil.disk_usage(PLACE).free < _NEEDED_BYTES:
        raise ClusterError(f"{PLACE} has less than {_NEEDED_BYTES >> 30} GiB of free space: make room there.")
    generator = build(packages)
    # The nodes shall be those of this checkout, whatever is installed.
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(CHECKOUT / "src"), os.environ.get("PYTHONPATH"))))
    with tempfile.TemporaryDirectory(prefix="run-", dir=PLACE, ignore_cleanup_errors=True) as folder:
        data = Path(folder)
        data.chmod(0o711)  # PostgreSQL may run as another user and has to get to its folder
        yield Tools(generator, packages, data)


@contextmanager
def _interruptible() -> Iterator[None]:
    """Let SIGTERM end this program as Ctrl-C does, so that whatever was started is stopped."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def at_least(least: int | float) -> Callable[[str], int | float]:
    """A type for argparse: numbers from `least` on, whole ones if `least` is whole."""
    wanted = type(least)

    def parse(text: str) -> int | float:
        try:
            number = wanted(text)
        except ValueError:
            number = wanted(-1)
        if not least <= number < float("inf"):
            kind = "a whole number" if wanted is int else "a number"
            raise argparse.ArgumentTypeError(f"{text} is not allowed: give {kind} from {least:g} on")
        return number

    return parse


def write_picture(what: str, measured: object, file: Path) -> None:
    """Draw what `bench.pictures` has under this name and write it as PNG; without matplotlib, say so and go on."""
    try:
        from bench import pictures
    except ModuleNotFoundError as error:
        console().print(f"No picture: {error.name} is not installed (it is in the lab extra).", markup=False)
        return
    pictures.write(getattr(pictures, what)(measured), file)
    console().print(f"picture: {file}", markup=False)


def run_command(body: Callable[[Tools], int]) -> int:
    """Do this with everything prepared, and end everything whatever happens; errors are told in a sentence."""
    try:
        with _interruptible(), prepared() as tools:
            return body(tools)
    except RetinueError as error:
        Console(stderr=True).print(error.detail, markup=False)
        return error.exit_code
    except KeyboardInterrupt:
        Console(stderr=True).print("Stopped; nothing runs any more.")
        return EXIT_FAILED
