"""The experiments by name. They are loaded when they are asked for: they need numpy, scipy and matplotlib."""

from __future__ import annotations

import importlib
from typing import Any, NamedTuple

from retinue.errors import EXIT_USAGE, RetinueError, SettingsError
from retinue.lab.experiments.contract import Experiment

PACKAGES = ("contourpy", "matplotlib", "numpy", "scipy")
"""The packages of the optional requirements `lab`."""


class PackagesMissing(RetinueError):
    """The packages that the laboratory needs beyond those of a node are not installed."""

    title = "Laboratory not installed"
    exit_code = EXIT_USAGE


class Entry(NamedTuple):
    """Where an experiment is, as "module:Class", and what it shows, a few words."""

    place: str
    shows: str


EXPERIMENTS = {
    "quorum": Entry("retinue.lab.experiments.quorum:Quorum", "write latency against write quorum"),
    "consistency": Entry("retinue.lab.experiments.consistency:Consistency", "replicas compared after the last write"),
    "staleness": Entry("retinue.lab.experiments.staleness:Staleness", "stale reads at followers, by time and quorum"),
    "throughput": Entry("retinue.lab.experiments.throughput:Throughput", "requests a second by number of clients"),
    "faults": Entry("retinue.lab.experiments.faults:Faults", "writes while nodes are killed, paused and cut off"),
    "ordering": Entry("retinue.lab.experiments.ordering:Ordering", "independent delays against links in order"),
}


def load(name: str) -> Experiment[Any, Any]:
    """The experiment of this name. Raises `SettingsError` for an unknown one, and `PackagesMissing`."""
    entry = EXPERIMENTS.get(name)
    if entry is None:
        raise SettingsError(f"There is no experiment {name}: choose one of {', '.join(EXPERIMENTS)}.")
    module_name, class_name = entry.place.split(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise packages_missing(error) from None
    experiment = getattr(module, class_name)()
    assert isinstance(experiment, Experiment)
    return experiment


def packages_missing(error: ModuleNotFoundError) -> Exception:
    """What to raise instead of `error`: one sentence where a package of the laboratory is not installed."""
    package = (error.name or "").split(".")[0]
    if package not in PACKAGES:
        return error
    return PackagesMissing(
        f"The laboratory needs the package {package}: call it as ./run.sh retinue lab, "
        'or install it with pip install "retinue[lab]".'
    )
