"""The write quorum that a person has just set, until the cluster has it."""

from __future__ import annotations

from retinue.settings import Settings
from retinue.store import Store

_KEY = "write_quorum"


class WantedQuorum:
    """`value` is the write quorum of the settings if it differs from the one at the last start, else `None`.

    One that stayed the same gives way to what the cluster has agreed on since, by `PATCH /config` or elsewhere.
    """

    def __init__(self, settings: Settings, store: Store) -> None:
        self._store = store
        self._set = str(settings.write_quorum) if "write_quorum" in settings.explicit else ""
        known = store.get_meta(_KEY)
        if known is None:
            store.set_meta(_KEY, self._set)
        self.value = settings.write_quorum if self._set and known not in (None, self._set) else None

    def forget(self) -> None:
        """It is in force, or another was set since: from now on the cluster's counts. Raises `StorageError`."""
        if self.value is not None:
            self.value = None
            self._store.set_meta(_KEY, self._set)
