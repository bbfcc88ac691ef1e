"""The contract of an experiment: settings in, samples out, and what to make of them.

An experiment is one module with one class. `run` yields progress and samples while it measures; `summary` and
`figures` are functions of settings and samples alone, so a report can be made again from `results.json`. No experiment
knows how its cluster was started, and none writes files.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

import msgspec

from retinue.errors import SettingsError
from retinue.lab.targets.contract import Target
from retinue.network import Conditions

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_FOLLOWERS = 99


def option(default: Any, help_text: str, unit: str = "") -> Any:
    """A field of the settings of an experiment: it becomes a command-line option of the same name."""
    metadata = {"help": help_text, "unit": unit}
    if isinstance(default, tuple):
        return field(default_factory=lambda: default, metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What every experiment can be told. Field names are option names (`min_delay_ms` is `--min-delay-ms`).

    `__post_init__` of each class calls that of its base, checks its own values, and raises `SettingsError` with
    setting, value and cure.
    """

    followers: int = option(5, "followers of the cluster that is started for the experiment")
    distribution: str = option("uniform", "law of the simulated delay: uniform, fixed, exponential or lognormal")
    min_delay_ms: float = option(0.0, "smallest simulated delay of an entry", "ms")
    max_delay_ms: float = option(0.0, "largest simulated delay of an entry; docs/settings.md has the other laws", "ms")
    memory: bool = option(False, "keep everything in memory: nothing is synced to disk")
    seed: int = option(1, "choice of keys, and draws of the simulated delays")

    def __post_init__(self) -> None:
        if not 1 <= self.followers <= MAX_FOLLOWERS:
            raise SettingsError(f"--followers={self.followers} is not allowed: use 1 to {MAX_FOLLOWERS}.")
        try:
            Conditions(self.distribution, self.min_delay_ms, self.max_delay_ms)
        except ValueError as error:
            given = f"--distribution={self.distribution} --min-delay-ms={self.min_delay_ms:g}"
            raise SettingsError(f"{given} --max-delay-ms={self.max_delay_ms:g} is not allowed: {error}") from None


class Step(msgspec.Struct, frozen=True):
    """How far a run has come. `total` may grow; `what` is what happens now, a few words."""

    done: float
    total: float
    what: str


class Attachment(msgspec.Struct, frozen=True):
    """A further file for the folder of the run, such as a recorded history."""

    name: str
    content: bytes


class Table(msgspec.Struct, frozen=True, kw_only=True):
    """A table of the summary: cells are text, numbers (shown with two decimals unless whole) or `None` (a dash).

    Column titles carry units. `notes` explain, one sentence each.
    """

    title: str
    columns: list[str]
    rows: list[list[str | int | float | None]]
    notes: list[str] = []


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """What a run says.

    `reading`: paragraphs in plain language: what was seen, what theory predicts, why they differ, what to choose.
    `key_figures`: name with unit -> number, for comparing two runs. `violations`: broken promises, one sentence each;
    any of them ends the command with exit code 7.
    """

    tables: list[Table]
    reading: list[str]
    key_figures: dict[str, float] = {}
    violations: list[str] = []


class Picture(msgspec.Struct, frozen=True):
    """A figure with the sentence that stands under it. `name` is its file name without extension."""

    name: str
    caption: str
    figure: Figure


SettingsT = TypeVar("SettingsT", bound=Settings)
SampleT = TypeVar("SampleT", bound=msgspec.Struct)


class Experiment(ABC, Generic[SettingsT, SampleT]):
    """One experiment. Samples are flat structs (numbers, texts, short lists): each is a row of `results.csv`."""

    name: ClassVar[str]
    title: ClassVar[str]
    question: ClassVar[str]
    settings_type: type[SettingsT]
    sample_type: type[SampleT]

    @abstractmethod
    def run(self, target: Target, settings: SettingsT) -> AsyncIterator[Step | SampleT | Attachment]:
        """Measure. Raises `Unsuitable` before anything is written, and what the target raises."""

    @abstractmethod
    def summary(self, settings: SettingsT, samples: Sequence[SampleT]) -> Summary:
        """Tables, reading and verdicts of these samples, complete or not; there is at least one."""

    @abstractmethod
    def figures(self, settings: SettingsT, samples: Sequence[SampleT]) -> list[Picture]:
        """The pictures of these samples."""
