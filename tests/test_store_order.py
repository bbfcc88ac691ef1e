"""Entries that come to the store in another order than their versions."""

from __future__ import annotations

import random
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from retinue.core.messages import Entry, Install, Save, SaveEntries
from retinue.store import Store
from retinue.store_files import Connection
from retinue.store_log import RUN_ENTRIES_MIN
from tests.store_samples import put, puts


def test_what_overtook_others_and_what_comes_after_take_one_statement_each() -> None:
    statements: list[str] = []

    def connect(path: str) -> Connection:
        db = sqlite3.connect(path, isolation_level=None)
        db.set_trace_callback(statements.append)
        return db

    with closing(Store(None, connect=connect)) as store:
        store.load()
        statements.clear()
        store.commit([SaveEntries([put(7, "g"), put(5, "e")])])
        store.commit([SaveEntries([put(2, "b")]), SaveEntries([put(8, "h")])])
        store.commit([SaveEntries([put(4, "d")])])
        store.commit([SaveEntries(puts(9, RUN_ENTRIES_MIN))])
        store.commit([SaveEntries(puts(31, 5)), SaveEntries(puts(21, 5))])
        assert [statement.split()[0] for statement in statements] == ["INSERT"] * 5
        versions = [2, 4, 5, 7, 8, *range(9, 9 + RUN_ENTRIES_MIN), *range(21, 26), *range(31, 36)]
        assert [entry.version for entry in store.load().entries] == versions
        replaced = [put(4, "other", epoch=2), put(3, "c", epoch=2)]
        store.commit([SaveEntries(replaced)])
        assert store.read_rows(4, 2, 10) == replaced[::-1]


@pytest.mark.parametrize("place", ["file", "memory"])
def test_any_order_of_writes_replacements_and_snapshots_leaves_what_was_written_last(
    place: str, tmp_path: Path
) -> None:
    draw = random.Random(1)
    there: dict[int, Entry] = {}
    history: list[list[Save]] = []
    trusted = 0
    for number in range(400):
        newest = max(there, default=trusted)
        above = [draw.randrange(trusted + 1, newest + 12) for _ in range(draw.choice([1, 1, 1, 2, 3, 12]))]
        saves: list[Save] = [SaveEntries([put(version, f"key{version}", b"%d" % number)]) for version in above]
        if draw.random() < 0.05:
            saves = [SaveEntries(puts(newest + draw.randrange(1, 4), draw.randrange(1, 30), b"%d" % number))]
        elif draw.random() < 0.05:
            trusted = draw.randrange(trusted, newest + 3)
            there = {version: entry for version, entry in there.items() if version > trusted}
            saves = [Install(trusted, [put(trusted, "snapshot")] if trusted else [])]
        elif there and draw.random() < 0.05:
            removed = draw.choice(sorted(there))
            saves.append(SaveEntries([], removed=[removed]))
        for save in saves:
            assert isinstance(save, SaveEntries | Install)
            there |= {entry.version: entry for entry in save.entries}
            for version in save.removed if isinstance(save, SaveEntries) else ():
                there.pop(version, None)
        history.append(saves)
    with closing(Store(tmp_path if place == "file" else None, synchronous="OFF")) as store:
        store.load()
        for saves in history:
            store.commit(saves)
        assert store.load().entries == [entry for _, entry in sorted(there.items())]


@pytest.mark.parametrize("last", [11, 12, 13])
def test_the_last_version_of_a_run_that_was_overtaken_by_one_more_is_replaced(last: int) -> None:
    with closing(Store(None)) as store:
        store.load()
        store.commit([SaveEntries(puts(1, RUN_ENTRIES_MIN))])
        store.commit([SaveEntries([put(last, "later")])])
        store.commit([SaveEntries([put(RUN_ENTRIES_MIN, "other", epoch=2)])])
        expected = [*puts(1, RUN_ENTRIES_MIN - 1), put(RUN_ENTRIES_MIN, "other", epoch=2), put(last, "later")]
        assert store.load().entries == expected


def test_after_a_snapshot_what_comes_above_it_is_new() -> None:
    with closing(Store(None)) as store:
        store.load()
        store.commit([Install(60_000, [put(5, "old")])])
        store.commit([SaveEntries([put(60_002, "b")])])
        store.commit([SaveEntries([put(60_001, "a")])])
        assert store.load().entries == [put(5, "old"), put(60_001, "a"), put(60_002, "b")]
