"""Settling what the answers to a seal hold above the base: one entry for each version."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from retinue.core.messages import Entry, Kind, Promise


def began_below(epochs: Mapping[int, int], entry: Entry) -> bool:
    """Whether an epoch later than the entry's began at or below its version."""
    return any(epoch > entry.epoch and start <= entry.version for epoch, start in epochs.items())


class Merge:
    """What `P` nodes hold above `base`, settled: one entry for each version up to the highest one seen.

    `requests`: the version of each request id that the candidate knows, once it trusts everything up to `base`.
    """

    def __init__(self, epoch: int, base: int, answers: list[Promise], requests: Mapping[str, tuple[int, int]]) -> None:
        self.epoch = epoch
        self.base = base
        self.answers = answers
        self.requests = requests
        self.epochs: dict[int, int] = {}
        for answer in answers:
            self.epochs.update(answer.epochs)

    def entries(self) -> list[Entry]:
        """The entries to propose again, from `base + 1` on without a hole, each with the new accept epoch.

        Entries of epoch 0 came from no leader and are passed over.
        """
        found: dict[int, list[Entry]] = {}
        for answer in self.answers:
            for entry in answer.entries:
                if entry.version > self.base and entry.epoch > 0:
                    found.setdefault(entry.version, []).append(entry)
        highest = max(found, default=self.base)
        chosen = []
        for version in range(self.base + 1, highest + 1):
            alive = [entry for entry in found.get(version, ()) if not self.is_ghost(entry)]
            chosen.append(self.choose(alive) if alive else self.fill(version))
        return self.renew(self.one_version_per_request(chosen))

    def is_ghost(self, entry: Entry) -> bool:
        """Whether a later epoch began at or below the version, so that no leader ever committed this entry."""
        return began_below(self.epochs, entry)

    def choose(self, candidates: list[Entry]) -> Entry:
        """The copy with the highest accept epoch: the only one that may have been committed."""
        return max(candidates, key=lambda entry: entry.epoch)

    def fill(self, version: int) -> Entry:
        """The entry for a version that nobody holds: no leader committed it."""
        return Entry(version, 0, Kind.NOOP)

    def one_version_per_request(self, entries: list[Entry]) -> list[Entry]:
        """Of two entries with one request id the one with the highest accept epoch stays, the other becomes a noop.

        None stays if the request is trusted already: had a leader committed it above, its version below would have had
        to give way.
        """
        keeper: dict[str, Entry] = {}
        for entry in entries:
            trusted = 0 < self.requests.get(entry.request_id, (0, 0))[0] <= self.base
            if entry.request_id and not trusted:
                rival = keeper.get(entry.request_id)
                if rival is None or entry.epoch > rival.epoch:
                    keeper[entry.request_id] = entry
        return [
            entry if not entry.request_id or keeper.get(entry.request_id) is entry else self.fill(entry.version)
            for entry in entries
        ]

    def renew(self, entries: list[Entry]) -> list[Entry]:
        """The same entries, accepted in the new epoch."""
        return [msgspec.structs.replace(entry, epoch=self.epoch) for entry in entries]
