"""What a node shows to readers: committed state on the leader, whatever is here elsewhere; nothing that is over."""

from __future__ import annotations

import itertools
import secrets
from collections import OrderedDict
from collections.abc import Iterator
from typing import TYPE_CHECKING

from retinue.core.messages import Row
from retinue.expiry import alive
from retinue.resp.arguments import key_of
from retinue.resp.outcomes import LOADING
from retinue.resp.replies import CommandError

if TYPE_CHECKING:
    from retinue.node import Node

CURSORS_MAX = 10_000


class View:
    """Reads of one node. Each raises `CommandError` on a leader that cannot show committed state yet."""

    def __init__(self, node: Node) -> None:
        self._replica = node.replica
        self._cursors: OrderedDict[int, str] = OrderedDict()
        self._next_cursor = itertools.count(secrets.randbelow(1 << 32) + 1)

    def row(self, raw_key: bytes) -> Row | None:
        """What a key holds."""
        replica, key = self._replica, key_of(raw_key)
        if replica.leadership is None:
            return alive(replica.read_local(key))
        if not replica.serving:
            raise CommandError(LOADING)
        return alive(replica.read_committed(key))

    def _row(self, key: str) -> Row | None:
        replica = self._replica
        return replica.read_local(key) if replica.leadership is None else replica.read_committed(key)

    def _untrusted(self) -> list[str]:
        """Keys with versions above the trusted prefix."""
        if self._replica.leadership is not None and not self._replica.serving:
            raise CommandError(LOADING)
        return list(self._replica.log.versions_of)

    def count(self) -> int:
        """How many keys there are; one whose value is over counts until it is removed, as in Redis."""
        rows = self._replica.log.rows
        changed = sum([(self._row(key) is not None) - (key in rows) for key in self._untrusted()])
        return len(rows) + changed

    def keys(self, prefix: str) -> Iterator[str]:
        """All keys with `prefix`."""
        log = self._replica.log
        recent = {key for key in self._untrusted() if key.startswith(prefix)}
        for key in log.keys(prefix, None):
            if key not in recent and alive(log.rows[key]) is not None:
                yield key
        for key in recent:
            if alive(self._row(key)) is not None:
                yield key

    def some_key(self) -> str | None:
        """A key that exists, at random as far as that is cheap."""
        rows = self._replica.log.rows
        start = secrets.randbelow(len(rows)) if rows else 0
        found = (key for key in itertools.islice(rows, start, None) if alive(self._row(key)) is not None)
        return next(found, None) or next(self.keys(""), None)

    def page(self, cursor: int, prefix: str, count: int) -> tuple[int, list[str]]:
        """The keys after a cursor, `count` of them looked at, and the cursor to go on from; 0 at the end.

        The last page has all keys that are not in the trusted prefix yet, so a key that is there during the whole scan
        is in it, some keys twice.
        """
        after = None
        if cursor:
            after = self._cursors.get(cursor)
            if after is None:
                raise CommandError("ERR invalid cursor")
        rows = self._replica.log.rows
        recent = self._untrusted()
        seen = list(itertools.islice(self._replica.log.keys(prefix, after), count + 1))
        shown = [key for key in seen[:count] if alive(rows[key]) is not None]
        if len(seen) > count:
            return self._remember(seen[count - 1]), shown
        return 0, shown + [key for key in recent if key.startswith(prefix) and alive(self._row(key)) is not None]

    def _remember(self, key: str) -> int:
        """A cursor for what comes after `key`; the oldest ones are forgotten."""
        cursor = next(self._next_cursor)
        self._cursors[cursor] = key
        if len(self._cursors) > CURSORS_MAX:
            self._cursors.popitem(last=False)
        return cursor
