"""The public functions inside compiled code: ``fastsoftmax.softmax(x, axis=1)`` in a function under ``@numba.njit``.

Numba finds `init` by its entry point ``numba_extensions`` and calls it before it compiles anything; nothing is to be
imported but fastsoftmax itself. What runs are the kernels of the Numba backend, on the thread that calls: in the body
of a ``prange`` too.

Arrays are 1-D or 2-D, float32 or float64, of any strides; axis is a literal. Nothing is allocated but what is returned:
an array that is contiguous in no order is copied to the result and computed there, or, where only numbers come out,
read slice by slice.
"""

from __future__ import annotations

from fastsoftmax.integrations.numba import losses, normalizers

__all__ = ["init", "losses", "normalizers"]


def init() -> None:
    """Do nothing: that this module is imported, and those that it imports, is all."""
