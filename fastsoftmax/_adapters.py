"""Arrays that public functions take for another array of the same memory while they compute.

Numba's device arrays (of its simulator too) know little of what NumPy's do. So a public function sees them as those of
``backends/numba_cuda/arrays.py``, and gives its results back as Numba's.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np


def _is_numba_array(x: Any) -> bool:
    module = type(x).__module__
    return module.startswith("numba.cuda.") and hasattr(x, "copy_to_host") and not isinstance(x, np.ndarray)


def adapted(function: Callable) -> Callable:
    """Make a public function take and give Numba's device arrays beside those that it knows."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if not any(map(_is_numba_array, (*args, *kwargs.values()))):
            return function(*args, **kwargs)
        from fastsoftmax.backends.numba_cuda.arrays import DeviceArray

        given = {}

        def inside(x: Any) -> Any:
            if not _is_numba_array(x):
                return x
            if id(x) not in given:
                given[id(x)] = x, DeviceArray.of(x)
            return given[id(x)][1]

        def outside(x: Any) -> Any:
            if isinstance(x, tuple):
                return tuple(map(outside, x))
            same = next((numba for numba, array in given.values() if array is x), None)
            return x.numba if same is None and isinstance(x, DeviceArray) else x if same is None else same

        return outside(function(*map(inside, args), **{name: inside(x) for name, x in kwargs.items()}))

    return call
