"""The `retinue` command. Each verb is a function from parsed arguments to an exit code, in the module of its group.

What goes wrong is told in one sentence on standard error, with `--json` also as JSON on standard output; the exit code
says what kind of failure it was (see `retinue.errors`). A traceback never reaches a user.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import traceback
from collections.abc import Collection, Sequence

from retinue import __version__
from retinue.cli import completion, info, keys, local, output, up
from retinue.errors import EXIT_DONE, EXIT_FAILED, RetinueError

EXIT_INTERRUPTED = 130

LABORATORY = {
    "simulate": ("retinue.lab.simulate_command", "run whole clusters on virtual time and check every promise"),
    "verify": ("retinue.lab.verify", "compare every node of a running cluster with its leader"),
    "lab": ("retinue.lab.commands", "experiments: what a write quorum costs, and what it saves"),
    "bench": ("retinue.lab.bench", "measure latency and throughput of a local cluster"),
}
"""The verbs of the laboratory: their modules have `add_arguments(parser)` and `run(parsed) -> int`."""


def build_parser(laboratory: Collection[str] = ()) -> argparse.ArgumentParser:
    """All verbs; those of the laboratory with their options only if they are in `laboratory`: loading takes time."""
    parser = argparse.ArgumentParser(
        prog="retinue",
        description="A replicated key-value store with a write quorum you choose.",
        epilog="Exit codes: 0 done, 1 failed, 2 bad usage or settings, 3 not found, 4 no leader or no quorum (nothing "
        "written), 6 outcome unknown, 7 a check found a violation.",
    )
    parser.add_argument("--version", action="version", version=f"retinue {__version__}")
    parser.add_argument("--completion", choices=completion.SHELLS, help="print the completion script of a shell")
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", dest="verb")
    for group in (local, up, keys, info):
        group.register(verbs)
    for verb, (module_name, help_text) in LABORATORY.items():
        laboratory_verb = verbs.add_parser(verb, help=help_text, description=help_text)
        if verb in laboratory:
            module = importlib.import_module(module_name)
            module.add_arguments(laboratory_verb)
            laboratory_verb.set_defaults(run=module.run)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code. Wrong usage ends the program with `SystemExit`, as argparse does it."""
    output.prepare()
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        code = _run(words)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    return code


def _run(words: list[str]) -> int:
    parsed = argparse.Namespace()
    try:
        parser = build_parser(laboratory=words)
        parsed = parser.parse_args(words)
        if parsed.completion:
            print(completion.script(parsed.completion, build_parser(laboratory=LABORATORY)))
            return EXIT_DONE
        if parsed.verb is None:
            parser.print_help()
            return EXIT_DONE
        return int(parsed.run(parsed))
    except RetinueError as error:
        output.tell_error(error, as_json=bool(getattr(parsed, "json", False)))
        return error.exit_code
    except KeyboardInterrupt:
        output.complain("Interrupted.")
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        raise
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        output.complain(f"This is a bug in {place.filename}, line {place.lineno}: {error!r}. Please report it.")
        return EXIT_FAILED
