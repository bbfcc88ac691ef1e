"""The file of client tokens: one line for each, its role and its SHA-256. The tokens themselves are stored nowhere."""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import secrets
import stat
import time
from dataclasses import dataclass
from pathlib import Path

from retinue.errors import SettingsError

log = logging.getLogger("retinue.tokens")

RECHECK_INTERVAL_S = 1.0

ROLES = ("read", "write", "admin")
"""Each role may do what the ones before it may."""

TOKEN_BYTES = 32


def from_environment() -> str:
    """The token that a client presents, in `RETINUE_TOKEN`; empty without. Raises `SettingsError` as `checked` does."""
    return checked(os.environ.get("RETINUE_TOKEN", ""))


def checked(token: str) -> str:
    """The same token. Raises `SettingsError` if no header can carry it."""
    if not token.isascii() or not token.isprintable():
        raise SettingsError("The token has characters that HTTP does not allow: correct RETINUE_TOKEN.")
    return token


@dataclass(frozen=True)
class TokenHash:
    """One line of the file."""

    role: str
    sha256: bytes


def create(file: Path, role: str) -> str:
    """Make a new token, append its hash to `file` (made with mode 0600) and return the token, which is shown only now.

    Raises `SettingsError` for a file that cannot be written or that others may read.
    """
    token = secrets.token_urlsafe(TOKEN_BYTES)
    line = f"{role} {hashlib.sha256(token.encode()).hexdigest()}\n"
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "a", encoding="ascii") as lines:
            _refuse_open_file(file, lines.fileno())
            lines.write(line)
    except OSError as error:
        raise SettingsError(f"The token file {file} cannot be written: {error.strerror}.") from None
    return token


def load(file: Path) -> tuple[TokenHash, ...]:
    """The tokens of a file; empty lines and lines that start with `#` are left out.

    Raises `SettingsError` for a file that cannot be read, that others may read, or that has another content.
    """
    try:
        with file.open(encoding="ascii") as opened:
            _refuse_open_file(file, opened.fileno())
            lines = opened.read().splitlines()
    except OSError as error:
        raise SettingsError(f"The token file {file} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise SettingsError(f"{file} is not a token file: make one with `retinue token create`.") from None
    return tuple(_parsed(file, number, line) for number, line in enumerate(lines, 1) if line and line[0] != "#")


def role_of(tokens: tuple[TokenHash, ...], token: str) -> str | None:
    """The role of a token that a client shows; `None` if it is not known. Takes the same time for every token."""
    shown = hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
    role = None
    for known in tokens:
        if hmac.compare_digest(known.sha256, shown):
            role = known.role
    return role


def _parsed(file: Path, number: int, line: str) -> TokenHash:
    role, _, digest = line.partition(" ")
    try:
        sha256 = bytes.fromhex(digest)
    except ValueError:
        sha256 = b""
    if role not in ROLES or len(sha256) != hashlib.sha256().digest_size:
        raise SettingsError(f"Line {number} of {file} is not a role and a hash: make it with `retinue token create`.")
    return TokenHash(role, sha256)


def _refuse_open_file(file: Path, descriptor: int) -> None:
    if stat.S_IMODE(os.fstat(descriptor).st_mode) & 0o077:
        raise SettingsError(f"The token file {file} is open to other users: run `chmod 600 {file}`.")


class TokenFile:
    """The tokens that clients may show, read again when their file changes.

    A file that cannot be used at the start raises `SettingsError`; later the tokens known so far stay in force.
    """

    def __init__(self, path: Path, recheck_interval_s: float = RECHECK_INTERVAL_S) -> None:
        self._path = path
        self._recheck_interval_s = recheck_interval_s
        self._checked_at_s = time.monotonic()
        self._stamp = _stamp(path)
        self._tokens = load(path)

    def role_of(self, token: bytes) -> str | None:
        """The role of `token`, or `None` for a token that is not in the file."""
        self._reload_if_changed()
        return role_of(self._tokens, token.decode("utf-8", "surrogateescape"))

    def _reload_if_changed(self) -> None:
        now_s = time.monotonic()
        if now_s - self._checked_at_s < self._recheck_interval_s:
            return
        self._checked_at_s = now_s
        stamp = _stamp(self._path)
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._tokens = load(self._path)
            log.info("The token file was read again and has %d tokens.", len(self._tokens))
        except SettingsError as error:
            log.warning("The tokens read before stay in force: %s", error.detail)


def _stamp(path: Path) -> tuple[int, int, int]:
    """What changes when the file does; zeros for a file that is not there."""
    try:
        status = path.stat()
    except OSError:
        return 0, 0, 0
    return status.st_mtime_ns, status.st_size, status.st_ino
