"""Which backend serves an array: by the array's type, loaded on first use.

The environment variable FASTSOFTMAX_BACKEND chooses a backend from the start, as `set_backend` would.

Every array type belongs to a device, every backend to one device too: a GPU array never reaches a CPU backend. To add a
backend, add it to `BACKENDS`; to add an array type that a backend reads, to `ARRAY_TYPES` (others: ``adapters``). Types
are told by the name of their module, so that no library is imported to recognise its arrays.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
import os
import threading
import warnings
from collections.abc import Iterator
from contextvars import ContextVar
from types import ModuleType
from typing import Any, NamedTuple

from fastsoftmax import _front


class Backend(NamedTuple):
    """What is known of a backend before it is loaded."""

    device: str
    needs: str  # a module
    remedy: str  # where it is missing


# A device's default is the first that is there.
BACKENDS = {
    "native": Backend("cpu", "fastsoftmax._native", "install fastsoftmax with a C++ compiler at hand"),
    "numba": Backend("cpu", "numba", 'pip install "fastsoftmax[numba]"'),
    "cupy": Backend("gpu", "cupy", 'pip install "fastsoftmax[cuda13]", or [cuda12]'),
    "numba_cuda": Backend("gpu", "numba_cuda", 'pip install "fastsoftmax[numba-cuda]"'),
}

# Top-level module of an array's type -> device. Our own are those that stand for Numba's (``adapters``).
ARRAY_TYPES = {"numpy": "cpu", "cupy": "gpu", "fastsoftmax": "gpu"}

# The choices of the process, by device.
_process: dict[str, str] = {}

# The choices of the use_backend blocks around the current context, by device.
_context: ContextVar[dict[str, str] | None] = ContextVar("fastsoftmax_backend", default=None)

# Open blocks, in any context, that choose another CPU backend than native: while there is one, the fast path of
# _native, which sees no context, stays closed.
_foreign_blocks = 0
_lock = threading.Lock()


def _checked(name: str) -> str:
    if not isinstance(name, str) or name not in BACKENDS:
        raise ValueError(f"backend: expected one of {', '.join(sorted(BACKENDS))}, got {name!r}")
    load(name)
    return name


def _default(device: str) -> str | None:
    return next((name for name, b in BACKENDS.items() if b.device == device and is_there(name)), None)


def chosen(device: str) -> str | None:
    """Name the backend in use for a device; None if there is none for it."""
    return (_context.get() or {}).get(device) or _process.get(device) or _default(device)


def is_there(name: str) -> bool:
    """Whether what a backend needs is installed."""
    return importlib.util.find_spec(BACKENDS[name].needs) is not None


def _begin() -> None:
    """Make the first choice: for the CPU; for another device when there is an array on it."""
    default = _default("cpu")
    if default is not None:
        _process["cpu"] = default
    else:
        remedies = ", or ".join(b.remedy for b in BACKENDS.values() if b.device == "cpu")
        raise ImportError(f"fastsoftmax's compiled extension is missing, and so is Numba: {remedies}")
    asked = os.environ.get("FASTSOFTMAX_BACKEND")
    if asked:
        if asked not in BACKENDS:
            raise ImportError(f"FASTSOFTMAX_BACKEND={asked!r}: expected one of {', '.join(sorted(BACKENDS))}")
        if not is_there(asked):
            raise ImportError(f"FASTSOFTMAX_BACKEND={asked!r} is not installed: {BACKENDS[asked].remedy}")
        _process[BACKENDS[asked].device] = asked
    elif _process["cpu"] != "native":
        warnings.warn(
            f"fastsoftmax's compiled extension is missing: the {_process['cpu']} backend takes its place",
            RuntimeWarning,
            stacklevel=2,
        )
    _update_fast_path()


def _update_fast_path(foreign_blocks: int = 0) -> None:
    global _foreign_blocks
    with _lock:
        _foreign_blocks += foreign_blocks
        _front.set_fast(_process["cpu"] == "native" and _foreign_blocks == 0)


@functools.cache
def load(name: str) -> ModuleType:
    """Import a backend's module."""
    if not is_there(name):
        raise ImportError(f"the {name} backend is not installed: {BACKENDS[name].remedy}")
    return importlib.import_module(f"fastsoftmax.backends.{name}")


def current(device: str = "cpu") -> ModuleType:
    """Give the module of the backend in use for a device."""
    name = chosen(device)
    if name is None:
        raise ImportError(" or ".join(b.remedy for b in BACKENDS.values() if b.device == device))
    return load(name)


def device_of(x: Any) -> str | None:
    """Give the device of an array's type; None if the type is none of ours."""
    return device_of_type(type(x))


@functools.cache
def device_of_type(cls: type) -> str | None:
    """Give the device of the arrays of a type; None if it is none of ours."""
    for base in cls.__mro__:
        device = ARRAY_TYPES.get(str(base.__module__).partition(".")[0])
        if device is not None:
            return device
    return None


def set_backend(name: str) -> None:
    """Choose the backend of the whole process, for the device that the backend computes on.

    Parameters
    ----------
    name : str
        ``"native"``, the compiled core for NumPy arrays; ``"numba"``, kernels for NumPy arrays that Numba compiles
        when they are first called; ``"cupy"``, CUDA kernels for CuPy arrays; or ``"numba_cuda"``, kernels that Numba
        compiles for CuPy arrays. (Numba's own device arrays are always computed by those.)

    Raises
    ------
    ValueError
        If there is no backend of that name.
    ImportError
        If it is not installed; says how to install it.

    See Also
    --------
    use_backend : for a block of code alone.

    Examples
    --------
    >>> import fastsoftmax
    >>> fastsoftmax.set_backend("native")
    """
    _process[BACKENDS[_checked(name)].device] = name
    _update_fast_path()


def get_backend(device: str = "cpu") -> str:
    """Name the backend in use for a device, in the current context.

    Parameters
    ----------
    device : str, optional
        ``"cpu"``, or, if CuPy or numba-cuda is installed, ``"gpu"``.

    Returns
    -------
    str

    Raises
    ------
    ValueError
        If no backend computes on that device.

    Examples
    --------
    >>> import fastsoftmax
    >>> fastsoftmax.get_backend()
    'native'
    """
    name = chosen(device)
    if name is None:
        found = sorted({b.device for n, b in BACKENDS.items() if is_there(n)})
        raise ValueError(f"device: expected one of {', '.join(found)}, got {device!r}")
    return name


@contextlib.contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Choose the backend inside a ``with`` block, for the current thread or asynchronous task alone.

    Parameters
    ----------
    name : str
        As in `set_backend`.

    Raises
    ------
    ValueError, ImportError
        As in `set_backend`.

    Examples
    --------
    >>> import numpy as np
    >>> import fastsoftmax
    >>> with fastsoftmax.use_backend("native"):
    ...     fastsoftmax.logsumexp(np.zeros(2)).round(6)
    np.float64(0.693147)
    """
    device = BACKENDS[_checked(name)].device
    foreign = int(device == "cpu" and name != "native")
    token = _context.set({**(_context.get() or {}), device: name})
    _update_fast_path(foreign)
    try:
        yield
    finally:
        _update_fast_path(-foreign)
        _context.reset(token)


_begin()
