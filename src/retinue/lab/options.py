"""Command-line options made from the settings of an experiment, and settings made from what was given.

An option that was not given is `None`, so that a preset can tell what was said from what was left open.
"""

from __future__ import annotations

import argparse
import dataclasses
import re
import typing
from typing import Any

from retinue.errors import SettingsError
from retinue.lab.experiments.contract import Settings

_RANGE = re.compile(r"(\d+)\.\.(\d+)")
_LONGEST_RANGE = 1000
_TUPLES = {tuple[int, ...]: int, tuple[float, ...]: float, tuple[str, ...]: str}
_WANTED = {int: "a whole number", float: "a number", str: "text"}


def option_name(field: str) -> str:
    """The option of a field of the settings, such as `--max-delay-ms`."""
    return f"--{field.replace('_', '-')}"


def add_options(parser: argparse.ArgumentParser, settings_type: type[Settings]) -> None:
    """Add an option for each field, except `followers`, which has a meaning of its own."""
    group = parser.add_argument_group("settings of the experiment")
    types = typing.get_type_hints(settings_type)
    defaults = settings_type()
    for field in dataclasses.fields(settings_type):
        if field.name == "followers":
            continue
        help_text = _help(field, getattr(defaults, field.name))
        if types[field.name] is bool:
            group.add_argument(
                option_name(field.name), action=argparse.BooleanOptionalAction, default=None, help=help_text
            )
        else:
            metavar = str(field.metadata.get("unit") or _metavar(types[field.name])).upper()
            group.add_argument(option_name(field.name), default=None, metavar=metavar, help=help_text)


def given_options(parsed: argparse.Namespace, settings_type: type[Settings]) -> dict[str, Any]:
    """The settings that were given as options. Raises `SettingsError` for one that is not of its type."""
    types = typing.get_type_hints(settings_type)
    given = {}
    for field in dataclasses.fields(settings_type):
        text = getattr(parsed, field.name, None)
        if text is not None and field.name != "followers":
            given[field.name] = (
                text if isinstance(text, bool) else parse(option_name(field.name), text, types[field.name])
            )
    return given


def parse(option: str, text: str, wanted: Any) -> Any:
    """A value of the type `wanted` from text: int, float, str, or a tuple of those ("1,2,3"; of int also "1..5")."""
    element = _TUPLES.get(wanted)
    if element is None:
        return _parse_one(option, text, text, wanted)
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if element is not int:
        return tuple(_parse_one(option, text, part, element) for part in parts)
    numbers: list[int] = []
    for part in parts:
        ends = _RANGE.fullmatch(part)
        if ends is None:
            numbers.append(_parse_one(option, text, part, int))
        elif 0 <= int(ends[2]) - int(ends[1]) <= _LONGEST_RANGE:
            numbers.extend(range(int(ends[1]), int(ends[2]) + 1))
        else:
            raise SettingsError(f"{option}={text} is not allowed: give a range such as 1..5.")
    return tuple(numbers)


def _parse_one(option: str, text: str, part: str, wanted: Any) -> Any:
    try:
        return wanted(part)
    except ValueError:
        example = ", such as 1,2,3 or 1..5" if part != text or "," in text else ""
        raise SettingsError(f"{option}={text} is not allowed: use {_WANTED[wanted]}{example}.") from None


def _help(field: dataclasses.Field[Any], default: Any) -> str:
    text = str(field.metadata["help"]).replace("%", "%%")
    unit = f" {field.metadata['unit']}" if field.metadata.get("unit") else ""
    if "default" in text or default == () or default == "":
        return text
    shown = ",".join(map(str, default)) if isinstance(default, tuple) else default
    if isinstance(default, bool):
        shown = "yes" if default else "no"
    return f"{text} (default {shown:g}{unit})" if isinstance(shown, float) else f"{text} (default {shown}{unit})"


def _metavar(wanted: Any) -> str:
    if wanted in _TUPLES:
        return "N,N,..." if _TUPLES[wanted] in (int, float) else "NAME,..."
    return "N" if wanted in (int, float) else "NAME"
