"""The log: versions with holes, the newest row of each key, and what is trusted.

Below the trusted prefix the log keeps one row per key (`rows`); above it every entry (`above`). So undoing an entry is
deleting it, and the older value is there again. Superseded rows stay in the store until they are below the floor.

Invariants:

* every version up to `trusted` is committed, and never touched again;
* `above` holds only versions greater than `trusted`;
* `versions_of[key]` lists, in ascending order, the versions in `above` that touch the key, and is never empty;
* a request id maps to one version; one that is trusted stays, until the floor passes it (compaction may have taken a
  part of what the client asked for, so it could no longer be compared).
"""

from __future__ import annotations

from bisect import insort
from collections import deque
from collections.abc import Container, Iterator

import msgspec

from retinue.core.messages import Change, Configuration, Entry, Image, Kind, PartRow, Row
from retinue.core.sorted_keys import SortedKeys

# As plain numbers, for they are compared for every entry.
_PUT, _DELETE = int(Kind.PUT), int(Kind.DELETE)
_SINGLE = (_PUT, _DELETE)
_BATCH = int(Kind.BATCH)

_configuration_decoder = msgspec.json.Decoder(Configuration)


def decode_configuration(entry: Entry) -> Configuration:
    """The configuration in an entry of kind `CONFIG`."""
    return _configuration_decoder.decode(entry.value)


def _part_row(entry: Entry, part: int, change: Change) -> PartRow:
    deleted = change.kind == Kind.DELETE
    return PartRow(entry.version, entry.epoch, change.value, change.encoding, part, deleted, change.expires_ms)


class Log:
    """One node's entries, as an index over what its store holds."""

    def __init__(self, image: Image) -> None:
        hard = image.hard
        self.trusted = 0
        self.floor = hard.floor
        self.chain = 0
        self.last = hard.trusted
        self.configuration = hard.configuration
        self.configuration_version = 0
        self.rows: dict[str, Row] = {}
        self.above: dict[int, Entry] = {}
        self.versions_of: dict[str, list[int]] = {}
        self.requests: dict[str, tuple[int, int]] = {}
        self._request_order: deque[tuple[int, str]] = deque()
        self._garbage: deque[tuple[int, int, int, bool]] = deque()
        self._order = SortedKeys(self.rows)
        self._load(image.entries, hard.trusted, hard.chain)
        self.configuration, self.configuration_version = hard.configuration, hard.configuration_version

    def _load(self, entries: list[Entry], trusted: int, chain: int) -> None:
        for entry in entries:
            if entry.version <= trusted:
                self._settle(entry)
        self.trusted, self.chain = trusted, chain
        for entry in entries:
            if entry.version > trusted:
                self.accept(entry)

    # --- writing ---

    def accept(self, entry: Entry) -> None:
        """Put an entry above the trusted prefix, in place of whatever had its version."""
        version = entry.version
        assert version > self.trusted, "a trusted version is final"
        if version in self.above:
            self.drop(version, entry.request_id)
        self.above[version] = entry
        if version > self.last:
            self.last = version
        versions_of = self.versions_of
        for key in (entry.key,) if entry.kind in _SINGLE else entry.touched():
            versions = versions_of.get(key)
            if versions is None:
                versions_of[key] = [version]
            else:
                insort(versions, version)
        if entry.request_id:
            self._remember(entry)

    def drop(self, version: int, keep_request_id: str = "") -> None:
        """Undo an entry above the trusted prefix."""
        entry = self.above.pop(version)
        for key in entry.touched():
            versions = self.versions_of[key]
            versions.remove(version)
            if not versions:
                del self.versions_of[key]
        known = self.requests.get(entry.request_id)
        if known is not None and known[0] == version and entry.request_id != keep_request_id:
            del self.requests[entry.request_id]
            for other in self.above.values():
                if other.request_id == entry.request_id:
                    self._remember(other)
        if version == self.last:
            self.last = max(self.above, default=self.trusted)

    def _remember(self, entry: Entry) -> None:
        known = self.requests.get(entry.request_id)
        if known is None or known[0] > self.trusted:
            self.requests[entry.request_id] = (entry.version, entry.fingerprint())

    def settle(self) -> Entry:
        """Trust the next version, which must be here and committed."""
        version = self.trusted + 1
        entry = self.above.pop(version)
        self.chain = entry.checksum(self.chain)
        if entry.kind == _PUT and not entry.request_id:
            # The way of nearly all entries on all nodes, in one piece.
            key, rows = entry.key, self.rows
            self._leave(key)
            old = rows.get(key)
            if old is None:
                self._order.add(key)
            else:
                self._garbage.append((version, old.version, old.part, False))
            rows[key] = entry
        else:
            for key in entry.touched():
                self._leave(key)
            self._settle(entry)
        self.trusted = version
        return entry

    def _leave(self, key: str) -> None:
        """The lowest version of `key` above the trusted prefix is not above it any more."""
        versions = self.versions_of[key]
        if len(versions) == 1:
            del self.versions_of[key]
        else:
            del versions[0]

    def _settle(self, entry: Entry) -> None:
        version, kind = entry.version, entry.kind
        if kind in _SINGLE:
            # A row outlives the request ids, which end with the floor.
            row = msgspec.structs.replace(entry, request_id="") if entry.request_id else entry
            self._settle_key(entry.key, row)
        elif kind == _BATCH:
            for part, change in enumerate(entry.changes()):
                if change.kind != Kind.NOOP:
                    self._settle_key(change.key, _part_row(entry, part, change))
        elif kind == Kind.CONFIG:
            self._garbage.append((version, self.configuration_version, 0, False))
            self.configuration, self.configuration_version = decode_configuration(entry), version
        else:
            self._garbage.append((version, version, 0, False))
        if entry.request_id and version > self.floor:
            self.requests[entry.request_id] = (version, entry.fingerprint())
            self._request_order.append((version, entry.request_id))

    def _settle_key(self, key: str, row: Row) -> None:
        version, old = row.version, self.rows.get(key)
        if old is not None:
            self._garbage.append((version, old.version, old.part, False))
        if row.deleted:
            self._garbage.append((version, version, row.part, True))
            if old is not None:
                del self.rows[key]
                self._order.discard(key)
        else:
            self.rows[key] = row
            if old is None:
                self._order.add(key)

    def install(self, trusted: int, floor: int, chain: int, entries: list[Entry]) -> None:
        """Replace everything up to `trusted`; entries above it stay."""
        kept = [entry for version, entry in sorted(self.above.items()) if version > trusted]
        self.rows, self.above, self.versions_of, self.requests = {}, {}, {}, {}
        self._request_order.clear()
        self._garbage.clear()
        self._order = SortedKeys(self.rows)
        self.configuration_version = 0
        self.floor, self.last = floor, trusted
        self._load([*entries, *kept], trusted, chain)

    def compact(self, floor: int, limit: int) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
        """Raise the floor towards `floor`; at most `limit` (version, part) rows that are dead below it, and tombstones.

        In the order of the versions that supersede them; a deletion supersedes itself, and is a tombstone. So a row
        comes before every tombstone of its key that is newer. What superseded the rest of one version may come later:
        after a restart everything that the store still has comes again, however far below the floor.
        """
        dead: list[tuple[int, int]] = []
        tombstones: list[tuple[int, int]] = []
        garbage, floor, by_version = self._garbage, max(self.floor, floor), 0
        for _ in range(limit):
            if not garbage or garbage[0][0] > floor:
                by_version = floor
                break
            by_version, version, part, is_tombstone = garbage.popleft()
            if version:
                (tombstones if is_tombstone else dead).append((version, part))
        self.floor = max(self.floor, by_version)
        while self._request_order and self._request_order[0][0] <= self.floor:
            version, request_id = self._request_order.popleft()
            if self.requests.get(request_id, (0, 0))[0] == version:
                del self.requests[request_id]
        return dead, tombstones

    # --- reading ---

    def newest(self, key: str) -> Row | None:
        """The row of the highest version here, trusted or not; a deletion shows as a row with `deleted`."""
        versions = self.versions_of.get(key)
        return self.row_at(versions[-1], key) if versions else self.rows.get(key)

    def newest_in(self, key: str, committed: Container[int]) -> Row | None:
        """The row of the highest version that is trusted or in `committed`."""
        for version in reversed(self.versions_of.get(key, ())):
            if version in committed:
                return self.row_at(version, key)
        return self.rows.get(key)

    def row_at(self, version: int, key: str) -> Row:
        """What the entry `version` above the trusted prefix makes of `key`."""
        entry = self.above[version]
        if entry.kind != _BATCH:
            return entry
        part, change = [item for item in enumerate(entry.changes()) if item[1].key == key][-1]
        return _part_row(entry, part, change)

    def undecided(self, key: str, committed: Container[int]) -> bool:
        """Whether some version of the key is assigned and not yet committed."""
        versions = self.versions_of.get(key)
        return versions is not None and any(version not in committed for version in versions)

    def keys(self, prefix: str, after: str | None) -> Iterator[str]:
        """Trusted keys with `prefix`, above `after`, in order of their code points."""
        return self._order.among(prefix, after)
