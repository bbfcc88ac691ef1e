"""What a measurement ran on: without it, numbers of two runs cannot be compared."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path

_PACKAGES = ("retinue", "httptools", "matplotlib", "msgspec", "numpy", "scipy", "uvloop")


def describe_host() -> dict[str, str | int | None]:
    """The machine: cores that this process may use, model of the CPU, memory and kernel; `None` for what is unknown."""
    return {
        "cores": len(os.sched_getaffinity(0)),
        "cpu": _field(Path("/proc/cpuinfo"), "model name") or platform.machine(),
        "memory_mib": _memory_mib(),
        "kernel": f"{platform.system()} {platform.release()}",
    }


def describe_versions() -> dict[str, str]:
    """Versions of Python and of the packages that measure or compute."""
    from retinue import __version__

    versions = {"python": platform.python_version(), "retinue": __version__}
    for package in _PACKAGES:
        try:
            versions.setdefault(package, importlib.metadata.version(package))
        except importlib.metadata.PackageNotFoundError:
            versions.setdefault(package, "not installed")
    return versions


def _memory_mib() -> int | None:
    total = _field(Path("/proc/meminfo"), "MemTotal").removesuffix("kB").strip()
    return int(total) // 1024 if total.isdigit() else None


def _field(file: Path, name: str) -> str:
    """The value of the first line "name : value" of a file below /proc; empty if there is none."""
    try:
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(name)), "")
