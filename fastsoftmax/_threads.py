"""How many threads a call asks for."""

from __future__ import annotations

from typing import Any

from fastsoftmax import _front

MOST = 2**31 - 1  # of a C int

# Threads of a call that names no number; 0: the backend's own number.
_default = 0


def requested(n_threads: Any) -> int:
    """Give the number of threads that a call asks for, 0 for the backend's own; each backend has a limit besides."""
    if n_threads is None:
        return _default
    if not hasattr(n_threads, "__index__"):
        raise TypeError(f"n_threads: expected an int or None, got {type(n_threads).__name__}")
    threads = n_threads.__index__()
    if threads < 1:
        raise ValueError(f"n_threads: expected at least 1, got {threads}")
    return min(threads, MOST)


def set_default(n_threads: Any) -> None:
    """Set the number for calls that name none; None for the backend's own."""
    global _default
    _default = 0 if n_threads is None else requested(n_threads)
    _front.set_default_threads(_default)
