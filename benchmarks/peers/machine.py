"""Describe the machine and the build that figures were measured on."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path

from fastsoftmax import _native
from libraries import cores


def cpu() -> str:
    """Name the CPU."""
    try:
        found = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    return found[1] if found else platform.processor() or platform.machine()


def caches() -> dict[str, str]:
    """Size of each cache that the first core uses."""
    sizes = {}
    for cache in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        level, kind, size = ((cache / name).read_text().strip() for name in ("level", "type", "size"))
        sizes[f"L{level}" + {"Data": "d", "Instruction": "i"}.get(kind, "")] = size
    return sizes


def system() -> str:
    """Name the operating system."""
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except OSError:
        return f"{platform.system()} {platform.release()}"


def compiler() -> str | None:
    """What compiled the extension, if its file says so."""
    content = Path(_native.__file__).read_bytes()
    found = re.search(rb"clang version [\w.]+", content) or re.search(rb"GCC: \([^)]*\) [\d.]+", content)
    return found[0].decode() if found else None


def describe() -> dict[str, object]:
    """Everything that a reader may need to compare another machine's figures."""
    return {
        "cpu": cpu(),
        "cores": cores(),
        "caches": caches(),
        "architecture": platform.machine(),
        "system": system(),
        "load": round(os.getloadavg()[0], 2),  # of the last minute before the measurement
        "python": platform.python_version(),
        "compiler": compiler(),
        "isa": _native.isa(),
        "openmp": _native.has_openmp(),
    }
