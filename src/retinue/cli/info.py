"""The verbs that need no node: the list of settings, tokens, the version."""

from __future__ import annotations

import argparse
import platform
from pathlib import Path

from retinue import __version__, tokens
from retinue.cli import output
from retinue.cli.options import Verbs, add_verb
from retinue.errors import EXIT_DONE
from retinue.settings import DEFINITIONS, Setting

_INTRODUCTION = """\
# Settings

A value comes from a flag of `retinue serve`, else from the environment, else from a TOML file (`--config FILE`, one
`name = value` a line), else the default holds. All environment names of one setting mean the same; two that
contradict each other stop the start. An empty variable counts as not set.
"""

_CLUSTER = """\
A local cluster (`./run.sh start`, `retinue start`, `retinue up`) takes the same names for what all its nodes share, and
gives each node the rest. `PORT` is the leader's port there and followers count up; `DATA_DIR` (default `.retinue`) gets
a folder for each node; `FOLLOWER_COUNT` (default 5, at most 99) says how many followers there are.
"""


def register(verbs: Verbs[argparse.ArgumentParser]) -> None:
    """Add these verbs."""
    settings = add_verb(verbs, "settings", _settings, "list every setting")
    settings.add_argument("--markdown", action="store_true", help="as the page of the documentation")
    token = add_verb(verbs, "token", lambda parsed: _token_help(token), "manage client tokens", with_json=False)
    create = add_verb(
        token.add_subparsers(title="verbs", metavar="VERB"), "create", _create_token, "make a token, shown only now"
    )
    create.add_argument(
        "--role", choices=tokens.ROLES, required=True, help="what it allows; each allows the ones before"
    )
    create.add_argument("--file", type=Path, required=True, help="append its hash to this file, see token_file")
    add_verb(verbs, "version", _version, "print the version")


def settings_page() -> str:
    """The documentation of all settings, as Markdown."""
    head = "| setting | environment | default | meaning |\n|---|---|---|---|"
    rows = [_row(definition) for definition in DEFINITIONS]
    return "\n".join([_INTRODUCTION, head, *rows, "", _CLUSTER])


def _row(definition: Setting) -> str:
    names = ", ".join(f"`{name}`" for name in _shown_names(definition))
    unit = f" ({definition.unit})" if definition.unit else ""
    return f"| `{definition.name}` | {names} | {_default(definition)} | {definition.help}{unit} |"


def _shown_names(definition: Setting) -> tuple[str, ...]:
    """The canonical name and the aliases as they are; aliases with the prefix work too, but nobody needs to know."""
    return (definition.environment[0], *definition.aliases)


def _default(definition: Setting) -> str:
    if definition.default_text:
        return definition.default_text
    value = definition.default
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _settings(parsed: argparse.Namespace) -> int:
    if parsed.markdown:
        print(settings_page(), end="")
        return EXIT_DONE
    rows = [
        {"setting": d.name, "environment": ", ".join(_shown_names(d)), "default": _default(d).replace("`", "")}
        | {"unit": d.unit, "meaning": d.help.replace("`", "")}
        for d in DEFINITIONS
    ]
    if parsed.json:
        output.show_json({"settings": rows})
    else:
        output.show_rows(rows)
    return EXIT_DONE


def _create_token(parsed: argparse.Namespace) -> int:
    token = tokens.create(parsed.file, parsed.role)
    if parsed.json:
        output.show_json({"token": token, "role": parsed.role, "file": str(parsed.file)})
    else:
        print(token)
        output.note(f"This is the only time that the token is shown; {parsed.file} has its hash.")
    return EXIT_DONE


def _token_help(parser: argparse.ArgumentParser) -> int:
    parser.error("say what to do: retinue token create --role ROLE --file FILE")


def _version(parsed: argparse.Namespace) -> int:
    if parsed.json:
        output.show_json({"version": __version__, "python": platform.python_version()})
    else:
        print(f"retinue {__version__}")
    return EXIT_DONE
