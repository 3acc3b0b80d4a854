"""SciPy's functions over ours: ``from fastsoftmax.compat.scipy import softmax`` in the place of ``scipy.special``.

The signatures are those of ``scipy.special``, whose axis is None (all elements) by default; dtypes and edge cases
follow fastsoftmax's rules where SciPy's differ (unsigned integers, float16 sums, empty input, log_softmax of +inf).
Complex input goes to the NumPy reference.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

import fastsoftmax
from fastsoftmax import reference
from fastsoftmax._arguments import as_array

__all__ = ["log_softmax", "logsumexp", "softmax"]

Axis = int | Sequence[int] | None


def softmax(x: Any, axis: Axis = None) -> Any:
    """Softmax of all elements of x, or along axis; see `fastsoftmax.softmax`."""
    if np.iscomplexobj(x):
        return reference.softmax(as_array(x, "x"), axis)
    return fastsoftmax.softmax(x, axis)


def log_softmax(x: Any, axis: Axis = None) -> Any:
    """Log-softmax of all elements of x, or along axis; see `fastsoftmax.log_softmax`."""
    if np.iscomplexobj(x):
        return reference.log_softmax(as_array(x, "x"), axis)
    return fastsoftmax.log_softmax(x, axis)


def logsumexp(a: Any, axis: Axis = None, b: Any = None, keepdims: bool = False, return_sign: bool = False) -> Any:
    """Logsumexp of all elements of a, or along axis; see `fastsoftmax.logsumexp`."""
    return fastsoftmax.logsumexp(a, axis, b=b, keepdims=keepdims, return_sign=return_sign)
