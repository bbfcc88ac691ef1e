"""Who a client is, and what it may do: the same tokens and roles as over HTTP."""

from __future__ import annotations

from typing import TYPE_CHECKING

from retinue.resp.replies import CommandError
from retinue.tokens import ROLES, TokenFile

if TYPE_CHECKING:
    from retinue.settings import Settings

NOBODY = 0
READ, WRITE, ADMIN = range(1, 4)
RANKS = dict(zip(ROLES, (READ, WRITE, ADMIN), strict=True))

WRONG_PASSWORD = "WRONGPASS invalid username-password pair or user is disabled."  # noqa: S105
NO_PASSWORD_SET = (
    "ERR AUTH <password> called without any password configured for the default user. Are you sure your configuration "  # noqa: S105
    "is correct?"
)
NEEDED = "NOAUTH Authentication required."
FORBIDDEN = "NOPERM this user has no permissions to run the '{}' command"


class Accounts:
    """The tokens of a node. Raises `SettingsError` for a token file that cannot be used."""

    def __init__(self, settings: Settings) -> None:
        self._tokens = TokenFile(settings.token_file) if settings.token_file is not None else None

    @property
    def default_rank(self) -> int:
        """What somebody without a token may do."""
        return ADMIN if self._tokens is None else NOBODY

    def rank_of(self, user: bytes | None, token: bytes) -> int:
        """What the owner of this token may do. `user` is `None` where none was named; any name will do with a token.

        Raises `CommandError`.
        """
        if self._tokens is None:
            if user is None:
                raise CommandError(NO_PASSWORD_SET)
            if user != b"default":
                raise CommandError(WRONG_PASSWORD)
            return ADMIN
        role = self._tokens.role_of(token)
        if role is None:
            raise CommandError(WRONG_PASSWORD)
        return RANKS[role]
