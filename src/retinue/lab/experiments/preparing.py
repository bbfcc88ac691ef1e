"""What several experiments do before they measure: settings against target, quorum, simulated network."""

from __future__ import annotations

import math
from collections.abc import Sequence

from retinue.errors import SettingsError
from retinue.lab.experiments.contract import Settings
from retinue.lab.targets.contract import NetworkConditions, Target, Unsuitable
from retinue.lab.theory import Law
from retinue.network import LARGEST_DRAW

# Waiting this much longer than the largest delay tells "late" from "never".
MARGIN_MS = 1000.0
# A loaded machine may need longer still: replicas that differ then are looked at once more.
PATIENCE_MS = 5000.0
# What is counted is held in memory: more is a slip of the finger.
LARGEST = 1_000_000


def law_of(settings: Settings) -> Law:
    """The law of the simulated delays of these settings."""
    return Law(settings.distribution, settings.min_delay_ms, settings.max_delay_ms)


def largest_delay_ms(settings: Settings) -> float:
    """The largest delay that is to be expected: of laws without an upper end, one draw in a million lies above."""
    return likely_delay_ms(settings, LARGEST_DRAW)


def settled_ms(settings: Settings) -> float:
    """When, counted from the last acknowledgement, every copy must have arrived."""
    return largest_delay_ms(settings) + MARGIN_MS


def likely_delay_ms(settings: Settings, p: float) -> float:
    """The delay that a fraction `p` of the draws does not exceed, or the largest one of a law that has one."""
    if settings.max_delay_ms == 0:
        return 0.0
    law = law_of(settings)
    end_ms = float(law.quantile(1.0))
    return end_ms if math.isfinite(end_ms) else float(law.quantile(p))


def some_quorums(followers: int) -> tuple[int, ...]:
    """The smallest, the middle and the largest write quorum."""
    return tuple(sorted({1, (followers + 1) // 2, followers}))


def check_quorums(quorums: Sequence[int], option: str, followers: int | None = None) -> None:
    """Raise `SettingsError` unless these are one or more write quorums, of `followers` where that is known."""
    if not quorums or min(quorums) < 1 or len(set(quorums)) != len(quorums):
        given = ",".join(map(str, quorums)) or "nothing"
        raise SettingsError(f"{option}={given} is not allowed: give different write quorums from 1, such as 1,3,5.")
    if followers is not None:
        _check_followers(quorums, option, followers)


def _check_followers(quorums: Sequence[int], option: str, followers: int) -> None:
    if max(quorums) > followers:
        raise SettingsError(f"{option}={max(quorums)} is above the number of followers ({followers}): choose less.")


def check_at_least(settings: Settings, **smallest: float) -> None:
    """Raise `SettingsError` for the first of these settings that is below its smallest value, or above a million."""
    for name, least in smallest.items():
        value = getattr(settings, name)
        if not least <= value <= LARGEST:
            bound = f"at most {LARGEST:,}" if value > LARGEST else f"at least {least:g}"
            shown = f"{value:g}" if isinstance(value, float) else value
            raise SettingsError(f"--{name.replace('_', '-')}={shown} is not allowed: give {bound}.")


def check_target(target: Target, quorums: Sequence[int], option: str) -> None:
    """Raise `Unsuitable` or `SettingsError` when this target cannot be measured at these quorums."""
    if len(target.nodes) < 2:
        raise Unsuitable("No follower of this server is known: give their addresses with --followers.")
    _check_followers(quorums, option, len(target.nodes) - 1)
    if len(quorums) > 1 and not target.abilities.quorum:
        raise Unsuitable(
            "The write quorum of this server cannot be changed from here: set it there, and give it as --write-quorum."
        )


async def choose_quorum(target: Target, quorum: int) -> None:
    """Let the target answer after `quorum` followers; a server that cannot be told is taken to have that one."""
    if target.abilities.quorum:
        await target.set_quorum(quorum)


def conditions_of(settings: Settings, *, in_order: bool = False) -> NetworkConditions:
    """The simulated network of these settings."""
    return NetworkConditions(
        distribution=settings.distribution,
        min_ms=settings.min_delay_ms,
        max_ms=settings.max_delay_ms,
        in_order=in_order,
    )


async def simulate_network(target: Target, settings: Settings) -> None:
    """Let the target simulate the network of the settings; one that cannot is taken to do so already."""
    if target.abilities.network and target.network != conditions_of(settings):
        await target.set_network(conditions_of(settings))
