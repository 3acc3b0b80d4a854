"""Which backend serves an array: by the array's type, loaded on first use.

Every array type belongs to a device, every backend to one device too: a GPU array never reaches a CPU backend. To add a
backend, add it to `BACKENDS`; to add an array type, to `ARRAY_TYPES`. Types are told by the name of their module, so
that no library is imported to recognise its arrays.
"""

from __future__ import annotations

import contextlib
import importlib
import threading
from collections.abc import Iterator
from contextvars import ContextVar
from types import ModuleType
from typing import Any

from fastsoftmax import _native

# Name -> device; a device's default is its first.
BACKENDS = {"native": "cpu"}

# Top-level module of an array's type -> device.
ARRAY_TYPES = {"numpy": "cpu"}

_process: dict[str, str] = {}
for _name, _device in BACKENDS.items():
    _process.setdefault(_device, _name)

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


def _update_fast_path(foreign_blocks: int = 0) -> None:
    global _foreign_blocks
    with _lock:
        _foreign_blocks += foreign_blocks
        _native.set_fast(_process["cpu"] == "native" and _foreign_blocks == 0)


def load(name: str) -> ModuleType:
    """Import a backend's module."""
    return importlib.import_module(f"fastsoftmax.backends.{name}")


def current(device: str = "cpu") -> ModuleType:
    """Give the module of the backend in use for a device."""
    return load((_context.get() or {}).get(device) or _process[device])


def device_of(x: Any) -> str | None:
    """Give the device of an array's type; None if the type is none of ours."""
    for cls in type(x).__mro__:
        device = ARRAY_TYPES.get(cls.__module__.partition(".")[0])
        if device is not None:
            return device
    return None


def set_backend(name: str) -> None:
    """Choose the backend of the whole process, for the device that the backend computes on.

    Parameters
    ----------
    name : str
        ``"native"``, the compiled core for NumPy arrays.

    Raises
    ------
    ValueError
        If there is no backend of that name.

    See Also
    --------
    use_backend : for a block of code alone.

    Examples
    --------
    >>> import fastsoftmax
    >>> fastsoftmax.set_backend("native")
    """
    _process[BACKENDS[_checked(name)]] = name
    _update_fast_path()


def get_backend(device: str = "cpu") -> str:
    """Name the backend in use for a device, in the current context.

    Parameters
    ----------
    device : str, optional
        ``"cpu"``.

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
    if device not in _process:
        raise ValueError(f"device: expected one of {', '.join(sorted(_process))}, got {device!r}")
    return (_context.get() or {}).get(device) or _process[device]


@contextlib.contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Choose the backend inside a ``with`` block, for the current thread or asynchronous task alone.

    Parameters
    ----------
    name : str
        As in `set_backend`.

    Raises
    ------
    ValueError
        If there is no backend of that name.

    Examples
    --------
    >>> import numpy as np
    >>> import fastsoftmax
    >>> with fastsoftmax.use_backend("native"):
    ...     fastsoftmax.logsumexp(np.zeros(2)).round(6)
    np.float64(0.693147)
    """
    device = BACKENDS[_checked(name)]
    foreign = int(device == "cpu" and name != "native")
    token = _context.set({**(_context.get() or {}), device: name})
    _update_fast_path(foreign)
    try:
        yield
    finally:
        _update_fast_path(-foreign)
        _context.reset(token)
