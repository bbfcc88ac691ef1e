"""A run of an experiment: measures with a progress bar, keeps what was measured however it ends, writes its folder."""

from __future__ import annotations

import asyncio
import dataclasses
import resource
import signal
import sys
from collections.abc import AsyncGenerator, Collection, Iterator
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import Any

import msgspec
import uvloop
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from retinue.errors import RetinueError
from retinue.lab.experiments.contract import Attachment, Experiment, Settings, Step
from retinue.lab.reports import folder as folders
from retinue.lab.reports.folder import Record
from retinue.lab.reports.host import describe_host, describe_versions
from retinue.lab.reports.writing import write_report
from retinue.lab.targets.contract import Target
from retinue.lab.targets.opening import Where, open_target

OPEN_FILES = 8192

NETWORK_FIELDS = ("distribution", "min_delay_ms", "max_delay_ms")


class Plan(msgspec.Struct, kw_only=True):
    """What to measure, where, and where to write it. `given` are the settings that the user chose, by name."""

    experiment: Experiment[Any, Any]
    settings: Settings
    where: Where
    given: Collection[str]
    preset: str
    command: str
    out: Path
    quiet: bool = False


class Measured(msgspec.Struct):
    """A finished run. `stopped_by` is what ended it early, to be raised once its results are shown."""

    folder: Path
    record: Record
    stopped_by: BaseException | None


class _Kept:
    """What a run has given so far; it outlives the run."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.target = ""
        self.samples: list[msgspec.Struct] = []
        self.attachments: list[Attachment] = []
        self.step = Step(0, 1, "starting")


def measure(plan: Plan) -> Measured:
    """Run the experiment and write its folder.

    An error or Ctrl-C before the first sample is raised, and leaves no folder; after it, what was measured is written,
    whatever the error was.
    """
    name = "-".join(part for part in (plan.experiment.name, plan.preset) if part)
    folder = folders.create(plan.out, name)
    kept, begun = _Kept(plan.settings), folders.utc_now()
    stopped_by: BaseException | None = None
    try:
        with _Bar(quiet=plan.quiet) as bar:
            _run(plan, kept, bar)
    except asyncio.CancelledError:
        stopped_by = KeyboardInterrupt()
    except (Exception, KeyboardInterrupt) as error:
        stopped_by = error
    finally:
        if not kept.samples:
            folder.rmdir()
    if stopped_by is not None and not kept.samples:
        raise stopped_by
    with _undisturbed():
        record = _record(plan, kept, begun, stopped_by)
        write_report(folder, record, plan.experiment, kept.settings, kept.samples, kept.attachments)
    return Measured(folder, record, stopped_by)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Ignore Ctrl-C while results are written, which takes seconds: a second one must not undo what the first kept."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _run(plan: Plan, kept: _Kept, bar: _Bar) -> None:
    if plan.where.simulated:
        from retinue.lab.targets.simulated import run_virtually

        run_virtually(_collect(plan, kept, bar))
        return
    allow_connections()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_collect_until_told(plan, kept, bar))


def allow_connections() -> None:
    """Raise the limit of open files, for nodes that are started too: each request under way has a connection."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


async def _collect_until_told(plan: Plan, kept: _Kept, bar: _Bar) -> None:
    """Collect; end as on Ctrl-C when the process is told to end or its terminal is closed, so that no node is left."""
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    await _collect(plan, kept, bar)


async def _collect(plan: Plan, kept: _Kept, bar: _Bar) -> None:
    async with open_target(plan.where, plan.settings) as target:
        kept.target = target.description
        kept.settings = as_found(plan, target)
        events = plan.experiment.run(target, kept.settings)
        assert isinstance(events, AsyncGenerator), "experiments are asynchronous generators"
        async with aclosing(events):
            async for event in events:
                if isinstance(event, Step):
                    kept.step = event
                    bar.show(event)
                elif isinstance(event, Attachment):
                    kept.attachments.append(event)
                else:
                    kept.samples.append(event)


def as_found(plan: Plan, target: Target) -> Settings:
    """The settings with what a running cluster decides itself: its number of followers, its simulated network.

    Its network is taken over unless the user chose one that it can be told. Raises `SettingsError` where that does not
    fit the other settings.
    """
    if plan.where.url is None:
        return plan.settings
    changes: dict[str, Any] = {}
    if len(target.nodes) > 1:
        changes["followers"] = len(target.nodes) - 1
    chosen = any(name in plan.given for name in NETWORK_FIELDS)
    network = target.network
    if network is not None and not (chosen and target.abilities.network):
        changes |= dict(zip(NETWORK_FIELDS, (network.distribution, network.min_ms, network.max_ms), strict=True))
    elif network is None and not chosen:
        changes |= {"min_delay_ms": 0.0, "max_delay_ms": 0.0}
    return dataclasses.replace(plan.settings, **changes)


def _record(plan: Plan, kept: _Kept, begun: str, stopped_by: BaseException | None) -> Record:
    state = folders.COMPLETE
    note = ""
    if stopped_by is not None:
        state = folders.INTERRUPTED if isinstance(stopped_by, KeyboardInterrupt) else folders.FAILED
        share = kept.step.done / kept.step.total if kept.step.total else 0.0
        note = f"{state} after {share:.0%} of the run ({kept.step.what}), with {len(kept.samples):,} samples."
        if isinstance(stopped_by, RetinueError):
            note += f" {stopped_by.detail}"
    experiment = plan.experiment
    return Record(
        experiment=experiment.name,
        title=experiment.title,
        question=experiment.question,
        preset=plan.preset,
        command=plan.command,
        settings=msgspec.to_builtins(kept.settings),
        seed=kept.settings.seed,
        target=kept.target,
        begun=begun,
        ended=folders.utc_now(),
        state=state,
        note=note,
        samples=folders.as_table(experiment.sample_type, kept.samples),
        summary=experiment.summary(kept.settings, kept.samples),
        versions=describe_versions(),
        host=describe_host(),
        attachments=[attachment.name for attachment in kept.attachments],
    )


class _Bar:
    """A progress bar on standard error with the time left; where that is no terminal, a line for each stage."""

    def __init__(self, *, quiet: bool) -> None:
        self._terminal = sys.stderr.isatty() and not quiet
        self._quiet = quiet
        self._what = ""
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeRemainingColumn(),
            console=Console(file=sys.stderr),
            transient=True,
            disable=not self._terminal,
        )
        self._task = self._progress.add_task("starting", total=None)

    def __enter__(self) -> _Bar:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def show(self, step: Step) -> None:
        """Say how far the run is."""
        if self._terminal:
            self._progress.update(self._task, completed=step.done, total=step.total, description=step.what)
        elif step.what != self._what and not self._quiet:
            self._what = step.what
            print(f"{step.done / step.total if step.total else 0:4.0%}  {step.what}", file=sys.stderr, flush=True)
