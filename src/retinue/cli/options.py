"""Options that several verbs share."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Container

from retinue.settings import DEFINITIONS, PREFIX

Verbs = argparse._SubParsersAction
Run = Callable[[argparse.Namespace], int]

DEFAULT_URL = "http://127.0.0.1:8000"


def add_verb(
    verbs: Verbs[argparse.ArgumentParser], name: str, run: Run, help_text: str, *, with_json: bool = True
) -> argparse.ArgumentParser:
    """Add a verb and what every verb has."""
    parser = verbs.add_parser(name, help=help_text, description=f"{help_text[0].upper()}{help_text[1:]}.")
    parser.set_defaults(run=run)
    if with_json:
        parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


def add_url_option(parser: argparse.ArgumentParser) -> None:
    """Add the address of the node to talk to."""
    parser.add_argument(
        "--url",
        default=os.environ.get(f"{PREFIX}URL") or DEFAULT_URL,
        help=f"address of a node (default: RETINUE_URL, else {DEFAULT_URL}); a token is taken from RETINUE_TOKEN",
    )


def add_setting_options(parser: argparse.ArgumentParser, leave_out: Container[str] = ()) -> None:
    """Add an option for each setting; one that is not given is `None`."""
    group = parser.add_argument_group("settings", "each may also come from the environment; see `retinue settings`")
    for definition in DEFINITIONS:
        if definition.name in leave_out:
            continue
        help_text = definition.help.replace("%", "%%")
        if definition.is_switch:
            group.add_argument(definition.flag, action=argparse.BooleanOptionalAction, default=None, help=help_text)
        else:
            metavar = definition.unit.upper() or "VALUE"
            group.add_argument(definition.flag, default=None, metavar=metavar, help=help_text)


def given_settings(parsed: argparse.Namespace) -> dict[str, object]:
    """The settings that were given as options, by name."""
    names = (definition.name for definition in DEFINITIONS)
    return {name: value for name in names if (value := getattr(parsed, name, None)) is not None}
