"""`retinue lab`: run experiments, list and compare runs, make reports again.

The options of an experiment are made from its settings when its name is met on the command line, so that `retinue
--help` and `retinue lab list` load none of the packages that only measuring needs.
"""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retinue.errors import EXIT_DONE, EXIT_VIOLATION, RetinueError, SettingsError
from retinue.lab.experiments.registry import EXPERIMENTS, load, packages_missing
from retinue.lab.options import add_options, given_options, parse
from retinue.lab.presets import PRESETS, preset

if TYPE_CHECKING:
    from retinue.lab.measuring import Measured, Plan

    SubParsers = argparse._SubParsersAction[argparse.ArgumentParser]
else:
    SubParsers = argparse._SubParsersAction

RESULTS = Path("results")


class _Verbs(SubParsers):
    """The verbs of `retinue lab`: an experiment gets its options when it is chosen. Notes the words after the verb."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        """Add the options of the verb, then parse the rest with it."""
        verb, *words = list(values or ())
        if verb in EXPERIMENTS:
            _add_options(verb, self.choices[verb])
        namespace.words = words
        super().__call__(parser, namespace, values, option_string)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verbs of `retinue lab`."""
    verbs = parser.add_subparsers(
        title="experiments and verbs", metavar="NAME", dest="lab_verb", required=True, action=_Verbs
    )
    for name, entry in EXPERIMENTS.items():
        verbs.add_parser(name, help=entry.shows).set_defaults(lab_run=_experiment)
    verb = verbs.add_parser("presets", help="list the set-ups that have names")
    verb.set_defaults(lab_run=_presets)
    verb = verbs.add_parser("list", help="list the runs in a folder")
    verb.add_argument("--out", type=Path, default=RESULTS, metavar="DIR", help="folder of the runs (default results)")
    verb.set_defaults(lab_run=_list)
    verb = verbs.add_parser("compare", help="two runs side by side")
    verb.add_argument("a", type=Path, metavar="A", help="folder of a run")
    verb.add_argument("b", type=Path, metavar="B", help="folder of another run")
    verb.add_argument("--out", type=Path, default=RESULTS, metavar="DIR", help="where to write it (default results)")
    verb.set_defaults(lab_run=_compare)
    verb = verbs.add_parser("report", help="make a report again from results.json")
    verb.add_argument("folder", type=Path, metavar="DIR", help="folder of the run")
    verb.set_defaults(lab_run=_report)
    for verb in verbs.choices.values():
        verb.add_argument("--json", action="store_true", help="print JSON on standard output")


def run(arguments: argparse.Namespace) -> int:
    """Run the verb; returns the exit code."""
    try:
        return int(arguments.lab_run(arguments))
    except ModuleNotFoundError as error:
        raise packages_missing(error) from None


def _add_options(name: str, parser: argparse.ArgumentParser) -> None:
    experiment = load(name)
    parser.description = experiment.question
    _add_common(parser)
    add_options(parser, experiment.settings_type)


def _add_common(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("what to measure, and where")
    group.add_argument("--preset", metavar="NAME", help="a set-up by name; see `retinue lab presets`")
    group.add_argument("--url", help="leader of a running cluster or server, instead of starting a cluster here")
    group.add_argument(
        "--followers",
        metavar="N|URL,...",
        help="how many followers the cluster has (default 5); or, with --url, their addresses, where the leader does "
        "not tell them",
    )
    group.add_argument("--dialect", metavar="NAME", help="what the server at --url speaks (default: found out)")
    group.add_argument(
        "--write-quorum", metavar="K", help="the write quorum that a server at --url was set up with and cannot change"
    )
    group.add_argument("--simulated", action="store_true", help="run in the simulator, on virtual time: takes seconds")
    group.add_argument("--out", type=Path, default=RESULTS, metavar="DIR", help="where to write it (default results)")


def _experiment(arguments: argparse.Namespace) -> int:
    from retinue.lab.measuring import measure
    from retinue.lab.reports.text import print_lines, print_table

    measured = measure(_plan(arguments))
    summary, stopped_by = measured.record.summary, measured.stopped_by
    if arguments.json:
        _print_json(measured)
    else:
        for table in summary.tables:
            print_table(table)
        print_lines(*(f"Violation: {sentence}" for sentence in summary.violations))
        if measured.record.note:
            print_lines(f"Not complete: {measured.record.note}")
        print_lines(f"Report: {measured.folder / 'report.html'}")
    if stopped_by is not None:
        raise stopped_by
    return EXIT_VIOLATION if summary.violations else EXIT_DONE


def _print_json(measured: Measured) -> None:
    """Print the summary; an error that ended the run carries it instead, so that there is one JSON text only."""
    import msgspec

    record = measured.record
    shown: dict[str, Any] = {"folder": str(measured.folder), "state": record.state, "note": record.note}
    shown |= {"experiment": record.experiment, "preset": record.preset, "settings": record.settings}
    shown["summary"] = msgspec.to_builtins(record.summary)
    if isinstance(measured.stopped_by, RetinueError):
        measured.stopped_by.fields |= shown
    else:
        print(msgspec.json.encode(shown).decode())


def _plan(arguments: argparse.Namespace) -> Plan:
    from retinue.lab.measuring import Plan
    from retinue.lab.targets.opening import Where

    experiment = load(arguments.lab_verb)
    values: dict[str, Any] = {}
    if arguments.preset is not None:
        values |= preset(arguments.preset, experiment.name).settings
    values |= given_options(arguments, experiment.settings_type)
    count, urls = _followers(arguments.followers)
    if count is not None:
        values["followers"] = count
    write_quorum = None if arguments.write_quorum is None else parse("--write-quorum", arguments.write_quorum, int)
    _check_places(arguments, urls)
    if write_quorum is not None:
        if write_quorum < 1:
            raise SettingsError(f"--write-quorum={write_quorum} is not allowed: give at least 1.")
        names = experiment.settings_type.__dataclass_fields__
        values |= {
            name: value for name, value in (("quorums", (write_quorum,)), ("quorum", write_quorum)) if name in names
        }
    return Plan(
        experiment=experiment,
        settings=experiment.settings_type(**values),
        where=Where(
            url=arguments.url,
            followers=urls,
            dialect=arguments.dialect,
            simulated=arguments.simulated,
            write_quorum=write_quorum,
            data_parent=arguments.out,
        ),
        given=frozenset(values),
        preset=arguments.preset or "",
        command=shlex.join(["retinue", "lab", arguments.lab_verb, *arguments.words]),
        out=arguments.out,
        quiet=arguments.json,
    )


def _followers(text: str | None) -> tuple[int | None, tuple[str, ...]]:
    """What `--followers` says: how many there are, and their addresses, if addresses were given."""
    if text is None:
        return None, ()
    parts = tuple(part.strip() for part in text.split(",") if part.strip())
    if len(parts) == 1 and parts[0].isdecimal():
        return int(parts[0]), ()
    if parts and all("://" in part for part in parts):
        return len(parts), parts
    raise SettingsError(
        f"--followers={text} is not allowed: give a number, or addresses such as http://127.0.0.1:8001,http://127.0.0.1:8002."
    )


def _check_places(arguments: argparse.Namespace, urls: tuple[str, ...]) -> None:
    """Raise `SettingsError` for options that contradict each other."""
    if arguments.simulated and arguments.url:
        raise SettingsError("--simulated and --url contradict each other: leave one out.")
    if arguments.url is None:
        alone = {"--dialect": arguments.dialect, "--write-quorum": arguments.write_quorum, "--followers": urls}
        for name, value in alone.items():
            if value:
                raise SettingsError(f"{name} describes a running server: give its address with --url.")


def _presets(arguments: argparse.Namespace) -> int:
    from retinue.lab.experiments.contract import Table

    rows: list[list[Any]] = [[name, found.experiment, found.says] for name, found in PRESETS.items()]
    table = Table(title="Presets", columns=["preset", "experiment", "what it is"], rows=rows)
    return _show(arguments, table, "presets")


def _list(arguments: argparse.Namespace) -> int:
    from retinue.lab.experiments.contract import Table
    from retinue.lab.judging.diagnosis import counted
    from retinue.lab.reports.folder import RESULTS as RESULTS_FILE
    from retinue.lab.reports.folder import read_record
    from retinue.lab.reports.text import print_lines

    rows: list[list[Any]] = []
    for file in sorted(arguments.out.glob(f"*/{RESULTS_FILE}")):
        try:
            record = read_record(file.parent)
        except SettingsError as error:
            rows.append([file.parent.name, "-", "-", "cannot be read", None, error.detail])
            continue
        violations = record.summary.violations
        state = counted(len(violations), "violation") if violations else record.state
        preset_name = record.preset or "-"
        rows.append([file.parent.name, record.experiment, preset_name, state, len(record.samples.rows), record.target])
    columns = ["folder", "experiment", "preset", "state", "samples", "target"]
    if not rows and not arguments.json:
        print_lines(f"There are no runs in {arguments.out}: measure something, or name another folder with --out.")
        return EXIT_DONE
    return _show(arguments, Table(title=f"Runs in {arguments.out}", columns=columns, rows=rows), "runs")


def _show(arguments: argparse.Namespace, table: Any, name: str) -> int:
    import msgspec

    from retinue.lab.reports.text import print_table

    if arguments.json:
        rows = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
        print(msgspec.json.encode({name: rows}).decode())
    else:
        print_table(table)
    return EXIT_DONE


def _compare(arguments: argparse.Namespace) -> int:
    import msgspec

    from retinue.lab.reports import compare
    from retinue.lab.reports.folder import create, read_record
    from retinue.lab.reports.text import print_lines, print_table

    a, b = (
        compare.Run(label, Path(given), read_record(given))
        for label, given in (("A", arguments.a.resolve()), ("B", arguments.b.resolve()))
    )
    tables = compare.tables(a, b)
    folder = create(arguments.out, "compare")
    compare.write(folder, a, b, tables)
    if arguments.json:
        print(msgspec.json.encode({"folder": str(folder), "tables": tables}).decode())
        return EXIT_DONE
    for table in tables:
        print_table(table)
    print_lines(f"Report: {folder / 'report.html'}")
    return EXIT_DONE


def _report(arguments: argparse.Namespace) -> int:
    import msgspec

    from retinue.lab.reports.folder import from_table, read_record, settings_from
    from retinue.lab.reports.text import print_lines
    from retinue.lab.reports.writing import REPORT, write_report

    record = read_record(arguments.folder)
    experiment = load(record.experiment)
    settings = settings_from(experiment.settings_type, record.settings)
    samples = from_table(experiment.sample_type, record.samples)
    if not samples:
        raise SettingsError(f"{arguments.folder} holds no samples: measure again.")
    record.summary = experiment.summary(settings, samples)
    write_report(arguments.folder, record, experiment, settings, samples)
    if arguments.json:
        print(msgspec.json.encode({"folder": str(arguments.folder), "summary": record.summary}).decode())
    else:
        print_lines(f"Report: {arguments.folder / REPORT}")
    return EXIT_VIOLATION if record.summary.violations else EXIT_DONE
