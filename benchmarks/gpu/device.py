"""The device: whether there is one, what it is, and its clocks.

    python benchmarks/gpu/device.py  # names it, or says why there is none and ends with status 2

Clocks are read, never set: a figure is a fraction of what the same device does in the same minute.
"""

from __future__ import annotations

import datetime
import platform
import re
import subprocess
import sys

NO_DEVICE = 2  # exit status
CLOCKS = ("driver_version", "clocks.sm", "clocks.max.sm", "clocks.mem", "clocks.max.mem", "temperature.gpu")


class NoDeviceError(Exception):
    """There is nothing to measure on; the message says what is missing."""


def require() -> None:
    """Return if CuPy has a device."""
    try:
        import cupy
    except ImportError as error:
        reason = str(error).strip().partition("\n")[0]
        raise NoDeviceError(f'CuPy cannot be imported ({reason}); pip install "cupy-cuda13x[ctk]"') from None
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        raise NoDeviceError(f"no CUDA device: {error}") from None
    if count == 0:
        raise NoDeviceError("no CUDA device is visible")


def name() -> str:
    """Name the current device, as NVIDIA does."""
    import cupy

    return cupy.cuda.runtime.getDeviceProperties(cupy.cuda.Device().id)["name"].decode()


def slug() -> str:
    """Name it as a file can be named."""
    return re.sub(r"[^a-z0-9]+", "-", name().lower()).strip("-")


def compute_capability() -> tuple[int, int]:
    """Give (9, 0) for Hopper."""
    import cupy

    major_minor = cupy.cuda.Device().compute_capability
    return int(major_minor[:-1]), int(major_minor[-1])


def l2_bytes() -> int:
    """Size of the cache that the arrays must outgrow."""
    import cupy

    return cupy.cuda.Device().attributes["L2CacheSize"]


def clocks() -> dict[str, str] | None:
    """Ask nvidia-smi for clocks (MHz) and temperature; None where it does not answer."""
    import cupy

    query = ["nvidia-smi", f"--id={cupy.cuda.Device().pci_bus_id}", f"--query-gpu={','.join(CLOCKS)}"]
    try:
        done = subprocess.run(
            [*query, "--format=csv,noheader,nounits"], capture_output=True, text=True, timeout=20, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return dict(zip(CLOCKS, (value.strip() for value in done.stdout.split(",")), strict=False))


def describe() -> dict[str, object]:
    """Everything that a reader may need to compare another device's figures."""
    import cupy

    attributes = cupy.cuda.Device().attributes
    clock, width = (attributes.get(key) for key in ("MemoryClockRate", "GlobalMemoryBusWidth"))  # kHz, bits
    return {
        "gpu": name(),
        "compute capability": ".".join(map(str, compute_capability())),
        "multiprocessors": attributes["MultiProcessorCount"],
        "memory, GB": round(cupy.cuda.runtime.memGetInfo()[1] / 1e9, 1),
        "L2, MB": round(l2_bytes() / 2**20, 1),
        "peak, GB/s": round(2e3 * clock * width / 8 / 1e9) if clock and width else None,
        "CUDA": {"driver": cupy.cuda.runtime.driverGetVersion(), "runtime": cupy.cuda.runtime.runtimeGetVersion()},
        "system": platform.platform(),
        "python": platform.python_version(),
        "date": datetime.date.today().isoformat(),
    }


if __name__ == "__main__":
    try:
        require()
    except NoDeviceError as error:
        print(error, file=sys.stderr)
        sys.exit(NO_DEVICE)
    print(f"{name()}, compute capability {'.'.join(map(str, compute_capability()))}")
