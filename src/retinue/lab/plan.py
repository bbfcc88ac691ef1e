"""What one seed stands for: the size of the cluster's troubles, drawn once before a run begins.

No single mixture finds everything: gentle faults hide what frequent take-overs show, and the other way round. So the
intensity of every kind of fault is drawn for each seed.
"""

from __future__ import annotations

import random

import msgspec

from retinue.core.replica import Limits
from retinue.lab.simulated_network import Weather
from retinue.lab.workload import Habits

FOLLOWERS = 5
TICK_MS = 10.0


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """All that is decided before a run. Times in virtual milliseconds; counts are over the whole run.

    `fixed_leader`: nobody but the configured leader ever leads, so reads at level `committed` must be linearizable.
    `supervised`: somebody promotes a node whenever nobody serves, as a coordinator would.
    `promotions`, `crashes`, `partitions`, ... are the number of such faults. Promotions come in bursts of `burst`, at
    most `burst_gap_ms` apart, because what one take-over leaves half done is where the next one can go wrong.
    `wipes`: replaced disks, some of which are put back later. `ambush`: the share of both with which a node comes back
    where no leader reaches it, just before somebody there takes over.
    """

    write_quorum: int
    fixed_leader: bool
    supervised: bool
    duration_ms: float
    clients: int
    habits: Habits
    limits: Limits
    weather: Weather
    commit_ms: tuple[float, float]
    client_loss: float
    client_lateness: float
    promotions: int
    burst: int
    burst_gap_ms: float
    crashes: int
    partitions: int
    pauses: int
    slow_disks: int
    full_disks: int
    wipes: int
    ambush: float
    reconfigurations: int


def draw_plan(source: random.Random) -> Plan:
    """The plan of one seed: mostly a mixture, sometimes one of the extremes below."""
    profile = source.random()
    if profile < 0.15:
        return draw_scattered(source)
    if profile < 0.25:
        return draw_deserted(source)
    if profile < 0.35:
        return draw_impatient(source)
    return draw_replaced(source) if profile < 0.45 else draw_mixed(source)


def draw_scattered(source: random.Random) -> Plan:
    """Entries that arrive in any order, or not at all, under one take-over after another: holes and rival copies."""
    plan = draw_mixed(source)
    return msgspec.structs.replace(
        plan,
        write_quorum=source.choice((2, 3)),
        fixed_leader=False,
        supervised=True,
        clients=7,
        habits=Habits(("r0", "r1"), mix=(10, 60, 10, 4, 4, 0, 0), think_ms=4.0, timeout_ms=120.0, attempts=6),
        limits=msgspec.structs.replace(plan.limits, retention=100_000, window=65_536, catch_up_batch=3),
        weather=Weather(straggler=0.1, delay_ms=(0.0, 300.0), loss=0.1, duplication=0.02, silence_ms=60.0),
        commit_ms=(0.05, 0.2),
        client_lateness=0.02,
        promotions=40,
        burst=2,
        burst_gap_ms=60.0,
        crashes=8,
        partitions=14,
        pauses=0,
        wipes=0,
        reconfigurations=0,
    )


def draw_deserted(source: random.Random) -> Plan:
    """Leaders that are cut off and deposed without noticing, and clients that keep reading from them."""
    plan = draw_mixed(source)
    return msgspec.structs.replace(
        plan,
        write_quorum=source.choice((2, 3)),
        fixed_leader=False,
        supervised=True,
        clients=7,
        habits=Habits(
            ("r0",),
            mix=(60, 40, 0, 0, 0, 0, 0),
            think_ms=4.0,
            timeout_ms=60.0,
            attempts=min(2, plan.habits.attempts),
            local_share=0.0,
        ),
        weather=Weather(latency_ms=(0.2, 3.0), silence_ms=400.0),
        commit_ms=(0.05, 0.2),
        promotions=24,
        burst=1,
        crashes=4,
        partitions=20,
        wipes=0,
        reconfigurations=0,
    )


def draw_impatient(source: random.Random) -> Plan:
    """Clients that soon ask again, while what they asked for first is still on its way."""
    plan = draw_mixed(source)
    return msgspec.structs.replace(
        plan,
        habits=Habits(("r0", "r1", "r2"), mix=(10, 30, 40, 4, 4, 0, 0), think_ms=4.0, timeout_ms=60.0, attempts=6),
        limits=msgspec.structs.replace(plan.limits, retention=100_000),
        client_lateness=0.3,
    )


def draw_replaced(source: random.Random) -> Plan:
    """Disks that are replaced, and old ones that come back, while entries are on their way and others take over."""
    plan = draw_mixed(source)
    return msgspec.structs.replace(
        plan,
        write_quorum=source.choice((1, 2, 2, 3)),
        fixed_leader=False,
        supervised=True,
        clients=7,
        habits=Habits(("r0", "r1"), mix=(10, 60, 10, 4, 4, 0, 0), think_ms=4.0, timeout_ms=300.0, attempts=1),
        weather=Weather(
            straggler=0.1,
            delay_ms=(0.0, source.choice((40.0, 200.0))),
            loss=source.choice((0.0, 0.0, 0.02)),
            silence_ms=60.0,
        ),
        client_lateness=0.0,
        promotions=source.choice((4, 16)),
        crashes=source.choice((0, 4)),
        partitions=source.choice((0, 4)),
        pauses=0,
        wipes=source.choice((4, 8, 12)),
        ambush=0.7,
        reconfigurations=source.choice((0, 0, 4)),
    )


def draw_mixed(source: random.Random) -> Plan:
    """Every kind of fault in its own intensity."""
    write_quorum = source.choice((3, 3, 3, 3, 2, 4, 1, 5))
    fixed_leader = source.random() < 0.12
    stormy = source.random() < 0.5
    compacting = source.random() < 0.25
    promotions = 0 if fixed_leader else source.randint(14, 30) if stormy else source.randint(4, 10)
    reconfigurations = source.choice((0, 0, 0, 0, 2, 4))
    return Plan(
        write_quorum=write_quorum,
        fixed_leader=fixed_leader,
        supervised=not fixed_leader,
        duration_ms=source.uniform(2500, 4500),
        clients=source.randint(3, 7),
        habits=_draw_habits(source, compacting),
        limits=_draw_limits(source, compacting),
        weather=_draw_weather(source),
        commit_ms=source.choice(((0.05, 0.2), (0.2, 2.0), (1.0, 8.0))),
        client_loss=source.choice((0.0, 0.0, 0.02)),
        client_lateness=0.0 if compacting else source.choice((0.0, 0.05, 0.2)),
        promotions=promotions,
        burst=source.choice((1, 2, 4)),
        burst_gap_ms=source.choice((20.0, 60.0)),
        crashes=source.choice((0, 2, 5, 10)),
        partitions=source.choice((0, 2, 5, 9)),
        pauses=source.choice((0, 0, 2, 5)),
        slow_disks=source.choice((0, 0, 1, 3)),
        full_disks=source.choice((0, 0, 0, 1)),
        wipes=0 if reconfigurations else source.choice((0, 0, 0, 1, 3)),
        ambush=0.0,
        reconfigurations=reconfigurations,
    )


def _draw_habits(source: random.Random, compacting: bool) -> Habits:
    """Without retries where request ids are soon forgotten, as a client has to do that waits longer than they last."""
    return Habits(
        registers=tuple(f"r{number}" for number in range(source.choice((1, 2, 3)))),
        mix=source.choice(((30, 30, 8, 5, 5, 4, 6), (45, 20, 5, 4, 4, 2, 4), (15, 40, 12, 8, 8, 4, 6))),
        think_ms=source.choice((4.0, 15.0, 50.0)),
        timeout_ms=source.choice((120.0, 300.0, 600.0)),
        attempts=1 if compacting else source.choice((1, 3, 6)),
    )


def _draw_limits(source: random.Random, compacting: bool) -> Limits:
    return Limits(
        window=source.choice((65_536, 65_536, 64, 12)),
        retention=source.choice((8, 40)) if compacting else 100_000,
        compact_batch=source.choice((4, 512)),
        catch_up_batch=source.choice((3, 20, 512)),
        heartbeat_ms=40.0,
        retransmit_ms=source.choice((40.0, 150.0)),
        seal_retry_ms=40.0,
        snapshot_retry_ms=200.0,
        founding_wait_ms=200.0,
        state_save_ms=source.choice((20.0, 200.0, 5000.0)),
    )


def _draw_weather(source: random.Random) -> Weather:
    longest_ms = source.choice((0.0, 10.0, 40.0, 200.0))
    return Weather(
        latency_ms=source.choice(((0.1, 0.5), (0.2, 3.0), (1.0, 15.0))),
        straggler=source.choice((0.0, 0.02, 0.1)),
        delay_ms=(longest_ms * source.choice((0.0, 0.5)), longest_ms),
        loss=source.choice((0.0, 0.0, 0.01, 0.08)),
        duplication=source.choice((0.0, 0.02, 0.1)),
        silence_ms=source.choice((60.0, 400.0)),
    )
