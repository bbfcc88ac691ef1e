"""What `retinue bench` measures: a grid of cases, from what was given on the command line."""

from __future__ import annotations

import argparse
import itertools
import math
from collections.abc import Iterator
from typing import Any

import msgspec

from retinue.errors import SettingsError
from retinue.lab.options import parse
from retinue.values import node_url

DISK, MEMORY = "disk", "memory"
HTTP, RESP = "http", "resp"
WRITE, READ = "write", "read"

CLIENTS = (1, 4, 16, 64, 128, 256)
MAX_CLIENTS = 1000
"""A node takes so many connections at once by default."""
MAX_FOLLOWERS = 16
MAX_PIPELINE = 1000
MAX_VALUE_BYTES = 1 << 20
"""The largest value that a node takes by default."""
MAX_DURATION_S = 3600.0
DEFAULT_QUORUM, DEFAULT_FOLLOWERS, DEFAULT_VALUE_BYTES, DEFAULT_DURATION_S = 3, 5, 100, 5.0

LOCAL_ONLY = ("quorum", "followers", "storage", "memory")


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """One point of the grid.

    `storage`: `disk` (every acknowledged write is synced) or `memory`; `door`: `http` or `resp`; `operation`: `write`
    or `read`; `pipeline`: requests that a client sends at once; `quorum`: `None` for reads, which ask no follower.
    """

    storage: str
    value_bytes: int
    door: str
    operation: str
    quorum: int | None
    pipeline: int
    clients: int


class Grid(msgspec.Struct, frozen=True, kw_only=True):
    """All that is to be measured. `url` is the leader of a running cluster; without it one is started here."""

    storages: tuple[str, ...]
    value_sizes: tuple[int, ...]
    doors: tuple[str, ...]
    operations: tuple[str, ...]
    quorums: tuple[int, ...]
    pipelines: tuple[int, ...]
    clients: tuple[int, ...]
    duration_s: float
    followers: int
    url: str | None = None

    def cases(self) -> Iterator[Case]:
        """Every case, those of one cluster side by side. Only RESP has pipelines, and only writes have a quorum."""
        sizes = itertools.product(self.storages, self.value_sizes, self.doors, self.operations)
        for storage, value_bytes, door, operation in sizes:
            quorums: tuple[int | None, ...] = self.quorums if operation == WRITE else (None,)
            pipelines = self.pipelines if door == RESP else (1,)
            for quorum, pipeline, clients in itertools.product(quorums, pipelines, self.clients):
                yield Case(
                    storage=storage,
                    value_bytes=value_bytes,
                    door=door,
                    operation=operation,
                    quorum=quorum,
                    pipeline=pipeline,
                    clients=clients,
                )


def grid_from(arguments: argparse.Namespace) -> Grid:
    """The grid that was asked for. Raises `SettingsError` for what is not possible."""
    url = url_from(arguments)
    followers = followers_from(arguments)
    doors = _words(arguments, "door", (HTTP,), (HTTP, RESP))
    pipelines = _numbers(arguments, "pipeline", (1,), 1, MAX_PIPELINE)
    if max(pipelines) > 1 and RESP not in doors:
        raise SettingsError(f"--pipeline {arguments.pipeline} is for the Redis protocol: add --door resp.")
    return Grid(
        storages=storages_from(arguments),
        value_sizes=value_sizes_from(arguments),
        doors=doors,
        operations=_words(arguments, "operation", (WRITE,), (WRITE, READ)),
        quorums=quorums_from(arguments, followers),
        pipelines=pipelines,
        clients=clients_from(arguments, CLIENTS),
        duration_s=duration_from(arguments, DEFAULT_DURATION_S),
        followers=followers,
        url=url,
    )


def url_from(arguments: argparse.Namespace) -> str | None:
    """The address of the leader of a running cluster, if there is one, without options that describe a new one."""
    if arguments.url is None:
        return None
    for name in LOCAL_ONLY:
        if getattr(arguments, name):
            raise SettingsError(f"--{name} describes a cluster that is started here: leave it out, or leave out --url.")
    try:
        url = node_url(arguments.url)
    except ValueError as error:
        raise SettingsError(f"--url {arguments.url} is not allowed: {error}.") from None
    if not url.startswith("http://"):
        raise SettingsError(f"--url {arguments.url} is not allowed: nodes speak plain http://.")
    return url


def followers_from(arguments: argparse.Namespace) -> int:
    """The number of followers."""
    return _number(arguments, "followers", DEFAULT_FOLLOWERS, 0, MAX_FOLLOWERS)


def quorums_from(arguments: argparse.Namespace, followers: int) -> tuple[int, ...]:
    """The write quorums."""
    return _numbers(arguments, "quorum", (min(DEFAULT_QUORUM, followers),), 0, followers, "the number of followers")


def value_sizes_from(arguments: argparse.Namespace) -> tuple[int, ...]:
    """The sizes of values, in bytes."""
    return _numbers(arguments, "value_bytes", (DEFAULT_VALUE_BYTES,), 1, MAX_VALUE_BYTES)


def clients_from(arguments: argparse.Namespace, default: tuple[int, ...]) -> tuple[int, ...]:
    """The numbers of clients."""
    return _numbers(arguments, "clients", default, 1, MAX_CLIENTS)


def storages_from(arguments: argparse.Namespace) -> tuple[str, ...]:
    """Where the cluster keeps its state; `--memory` is short for `--storage memory`."""
    if not arguments.memory:
        return _words(arguments, "storage", (DISK,), (DISK, MEMORY))
    if arguments.storage not in (None, MEMORY):
        raise SettingsError(f"--memory and --storage {arguments.storage} contradict each other: leave one out.")
    return (MEMORY,)


def duration_from(arguments: argparse.Namespace, default_s: float) -> float:
    """Seconds of each measurement."""
    if arguments.duration is None:
        return default_s
    duration_s: float = parse("--duration", arguments.duration, float)
    if not (math.isfinite(duration_s) and 0.1 <= duration_s <= MAX_DURATION_S):
        raise SettingsError(
            f"--duration {arguments.duration} is not allowed: give seconds from 0.1 to {MAX_DURATION_S:g}."
        )
    return duration_s


def _numbers(
    arguments: argparse.Namespace, name: str, default: tuple[int, ...], least: int, most: int, because: str = ""
) -> tuple[int, ...]:
    """The different whole numbers of an option, in ascending order."""
    text: str | None = getattr(arguments, name)
    if text is None:
        return default
    option = f"--{name.replace('_', '-')}"
    numbers: tuple[int, ...] = parse(option, text, tuple[int, ...])
    if not numbers or not all(least <= number <= most for number in numbers):
        limit = f"{most}, {because}" if because else f"{most}"
        raise SettingsError(f"{option} {text} is not allowed: give whole numbers from {least} to {limit}.")
    return tuple(sorted(set(numbers)))


def _number(arguments: argparse.Namespace, name: str, default: int, least: int, most: int) -> int:
    """The one whole number of an option."""
    numbers = _numbers(arguments, name, (default,), least, most)
    if len(numbers) > 1:
        raise SettingsError(f"--{name} {getattr(arguments, name)} is not allowed: give one number.")
    return numbers[0]


def _words(
    arguments: argparse.Namespace, name: str, default: tuple[str, ...], allowed: tuple[str, ...]
) -> tuple[str, ...]:
    """The different words of an option, in the order of `allowed`."""
    text: str | None = getattr(arguments, name)
    if text is None:
        return default
    words: tuple[Any, ...] = parse(f"--{name}", text, tuple[str, ...])
    if not words or not set(words) <= set(allowed):
        raise SettingsError(f"--{name} {text} is not allowed: give {' or '.join(allowed)}, or {','.join(allowed)}.")
    return tuple(word for word in allowed if word in words)
