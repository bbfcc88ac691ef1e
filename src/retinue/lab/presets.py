"""Set-ups with names: those of five university laboratories, so that their numbers can be measured again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from retinue.errors import SettingsError


class Preset(msgspec.Struct, frozen=True):
    """A set-up of one experiment: the settings that differ from the usual, and what it is, one sentence."""

    experiment: str
    settings: Mapping[str, Any]
    says: str


PRESETS = {
    "classic": Preset(
        "quorum",
        {"writes": 100, "keys": 10, "order": "by-key", "concurrency": 10, "min_delay_ms": 0.0, "max_delay_ms": 1000.0},
        "100 writes on 10 keys, key by key, 10 at a time, delays U[0, 1000] ms: the set-up most often published.",
    ),
    "band": Preset(
        "quorum",
        {"writes": 100, "keys": 10, "concurrency": 10, "min_delay_ms": 50.0, "max_delay_ms": 800.0},
        "100 writes on 10 keys, 10 at a time, delays U[50, 800] ms: no copy arrives at once.",
    ),
    "bulk": Preset(
        "quorum",
        {"writes": 10_000, "keys": 100, "concurrency": 20, "min_delay_ms": 0.1, "max_delay_ms": 1.0, "warm_up": 200},
        "10,000 writes on 100 keys, 20 at a time, delays U[0.1, 1] ms: overhead shows, for the delays are small.",
    ),
    "sqlite": Preset(
        "quorum",
        {
            "writes": 1000,
            "keys": 100,
            "concurrency": 100,
            "max_delay_ms": 0.0,
            "readers": 4,
            "memory": False,
            "warm_up": 100,
        },
        "1,000 writes, 100 at a time, synced to SQLite files, no delay, while 4 clients read: what the disk costs.",
    ),
    "tail": Preset(
        "quorum",
        {"writes": 1000, "keys": 10, "concurrency": 100, "max_delay_ms": 1000.0, "warm_up": 100},
        "1,000 writes, 100 at a time, delays U[0, 1000] ms: enough of them for p95 and p99 to mean something.",
    ),
}


def preset(name: str, experiment: str) -> Preset:
    """The preset of this name. Raises `SettingsError` if there is none, or it is of another experiment."""
    found = PRESETS.get(name)
    if found is None:
        raise SettingsError(f"There is no preset {name}: choose one of {', '.join(PRESETS)}.")
    if found.experiment != experiment:
        raise SettingsError(
            f"The preset {name} is one of {found.experiment}: call `retinue lab {found.experiment} --preset {name}`."
        )
    return found
