"""Keys in order, for lists and scans.

New keys are only noted when they are written; they are put in their places when somebody wants an order. The order is
kept in chunks, so that this costs little among a million others. Keys that are gone stay until most are.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Container, Iterable, Iterator, Sized
from typing import Protocol

CHUNK = 512


class Keys(Container[str], Sized, Iterable[str], Protocol):
    """The keys that exist."""


class SortedKeys:
    """The keys of a table, in order of their code points; `keys` is the table, which others change.

    `_chunks` hold the keys in order, none of them empty; `_lasts` the last key of each.
    """

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self._new: set[str] = set()
        self._chunks: list[list[str]] = []
        self._lasts: list[str] = []
        self._count = 0

    def add(self, key: str) -> None:
        """A key is new, or back."""
        self._new.add(key)

    def discard(self, key: str) -> None:
        """A key is gone."""
        self._new.discard(key)

    def among(self, prefix: str, after: str | None) -> Iterator[str]:
        """The keys that exist with `prefix`, above `after`."""
        self._settle()
        start = prefix if after is None else max(prefix, after + "\0")
        first = bisect_left(self._lasts, start)
        for number in range(first, len(self._chunks)):
            chunk = self._chunks[number]
            for index in range(bisect_left(chunk, start) if number == first else 0, len(chunk)):
                if not chunk[index].startswith(prefix):
                    return
                if chunk[index] in self._keys:
                    yield chunk[index]

    def _settle(self) -> None:
        """Put new keys in their places, or all of them anew where that is cheaper or most are gone."""
        if not self._new:
            return
        if 4 * len(self._new) > self._count or self._count > 2 * len(self._keys) + CHUNK:
            ordered = sorted(self._keys)
            self._chunks = [ordered[start : start + CHUNK] for start in range(0, len(ordered), CHUNK)]
            self._lasts = [chunk[-1] for chunk in self._chunks]
            self._count = len(ordered)
        else:
            for key in self._new:
                self._insert(key)
        self._new.clear()

    def _insert(self, key: str) -> None:
        number = min(bisect_left(self._lasts, key), len(self._lasts) - 1)
        chunk = self._chunks[number]
        index = bisect_left(chunk, key)
        if chunk[index : index + 1] == [key]:
            return
        chunk.insert(index, key)
        self._count += 1
        if len(chunk) > 2 * CHUNK:
            self._chunks[number : number + 1] = [chunk[:CHUNK], chunk[CHUNK:]]
            self._lasts[number : number + 1] = [chunk[CHUNK - 1], chunk[-1]]
        else:
            self._lasts[number] = chunk[-1]
