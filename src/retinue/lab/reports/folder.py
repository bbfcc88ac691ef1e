"""The folder of a run: `results.json`, `results.csv`, pictures and `report.html`, made from samples.

`results.json` holds everything, so the rest can be made again from it. Files appear whole or not at all, and no run
writes into the folder of another.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from retinue.errors import SettingsError
from retinue.lab.experiments.contract import Attachment, Settings, Summary

RESULTS = "results.json"
FORMAT = 1

COMPLETE = "complete"
INTERRUPTED = "interrupted"
FAILED = "failed"


class Samples(msgspec.Struct):
    """The samples as a table, which is a third of the size of objects."""

    columns: list[str]
    rows: list[list[Any]]


class Record(msgspec.Struct, kw_only=True):
    """What `results.json` holds.

    `command`: the words that make the same run again. `state`: `complete`, `interrupted` or `failed`; `note` says how
    far the run came and why it ended. Times are UTC, ISO 8601. `settings` are those in force. `summary` is what the
    program that measured made of the samples.
    """

    experiment: str
    title: str
    question: str
    command: str
    settings: dict[str, Any]
    seed: int
    target: str
    begun: str
    ended: str
    state: str
    samples: Samples
    summary: Summary
    versions: dict[str, str]
    host: dict[str, str | int | None]
    preset: str = ""
    note: str = ""
    attachments: list[str] = []
    format: int = FORMAT


def utc_now() -> str:
    """This moment as ISO 8601, whole seconds."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def create(parent: Path, name: str) -> Path:
    """A new folder `parent/<time>-<name>`. Raises `SettingsError` where none can be made.

    It is made before anything is measured, so that a run is not lost for want of a permission.
    """
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    for attempt in range(1, 1000):
        folder = parent / (f"{stamp}-{name}" if attempt == 1 else f"{stamp}-{name}-{attempt}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            if parent.is_dir():
                continue
            raise SettingsError(f"--out={parent} is a file: name a folder.") from None
        except OSError as error:
            raise not_writable(parent, error) from None
        return folder
    raise SettingsError(f"--out={parent} has too many folders of this second: name another folder.")


def not_writable(place: Path, error: OSError) -> SettingsError:
    """The sentence for a folder that results cannot be written to."""
    return SettingsError(f"--out={place} cannot be written to ({error.strerror}): name another folder, or free it.")


def write_file(folder: Path, name: str, content: bytes) -> None:
    """Write a file that appears whole or not at all. Raises `SettingsError`."""
    temporary = folder / f".{name}.part"
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(folder / name)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise not_writable(folder, error) from None


def write_record(folder: Path, record: Record, attachments: Iterable[Attachment] = ()) -> None:
    """Write `results.json`, `results.csv` and further files."""
    write_file(folder, RESULTS, msgspec.json.encode(record) + b"\n")
    write_file(folder, "results.csv", as_csv(record.samples))
    for attachment in attachments:
        write_file(folder, Path(attachment.name).name, attachment.content)


def read_record(folder: Path) -> Record:
    """The record in a folder of a run. Raises `SettingsError` if there is none, or none that can be read."""
    try:
        content = (folder / RESULTS).read_bytes()
    except OSError as error:
        raise SettingsError(
            f"{folder} holds no {RESULTS} ({error.strerror}): name the folder of a run; `retinue lab list` shows them."
        ) from None
    try:
        record = msgspec.json.decode(content, type=Record)
    except msgspec.DecodeError as error:
        raise SettingsError(f"{folder / RESULTS} is not the result of a run ({error}): measure again.") from None
    if record.format != FORMAT:
        raise SettingsError(
            f"{folder / RESULTS} has format {record.format}, not {FORMAT}: read it with the version that wrote it."
        )
    return record


def as_table(sample_type: type[msgspec.Struct], samples: Sequence[msgspec.Struct]) -> Samples:
    """Samples of one type as columns and rows."""
    columns = list(sample_type.__struct_fields__)
    return Samples(columns, [[getattr(sample, name) for name in columns] for sample in samples])


def from_table(sample_type: type[Any], table: Samples) -> list[Any]:
    """The samples again. Raises `SettingsError` if they are not of this type."""
    plain = [dict(zip(table.columns, row, strict=False)) for row in table.rows]
    try:
        return [msgspec.convert(sample, sample_type) for sample in plain]
    except msgspec.ValidationError as error:
        raise _of_another_version("samples", error) from None


def settings_from(settings_type: type[Settings], document: dict[str, Any]) -> Settings:
    """The settings of a record again. Raises `SettingsError` if they are of another version of the experiment."""
    try:
        return msgspec.convert(document, settings_type)
    except msgspec.ValidationError as error:
        raise _of_another_version("settings", error) from None


def _of_another_version(what: str, error: msgspec.ValidationError) -> SettingsError:
    return SettingsError(f"The {what} are of another version of the experiment ({error}): measure again.")


def as_csv(samples: Samples) -> bytes:
    """The samples as RFC 4180 text: lists are joined by spaces, nothing is an empty field."""
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow(samples.columns)
    for row in samples.rows:
        writer.writerow([_field(value) for value in row])
    return buffer.getvalue().encode()


def _field(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return " ".join(str(part) for part in value)
    return "" if value is None else value
