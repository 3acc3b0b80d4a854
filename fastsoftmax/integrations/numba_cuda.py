"""Device functions for kernels of your own: ``softmax_row`` and ``logsumexp_row``, of a row by a block of threads.

They are made of what the Numba-CUDA backend's kernels are made of (``backends/numba_cuda``), with the same accuracy;
the row's length and the number of threads alone decide its bits. In a kernel each of the two takes 16 KiB of static
shared memory, 24 for float64, for each type of row that it is called with.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import config, cuda, types
from numba.core.errors import TypingError

from fastsoftmax.backends.numba_cuda import slices
from fastsoftmax.backends.numba_cuda.arithmetic import arithmetic, elements
from fastsoftmax.backends.numba_cuda.teams import rooms_for

__all__ = ["logsumexp_row", "softmax_row"]

# The most threads of a block.
_THREADS = 1024

_DTYPES = ("float16", "float32", "float64")


def softmax_row(x: Any, out: Any) -> None:
    """Write the softmax of a row; for kernels alone.

    Parameters
    ----------
    x : device array
        Logits, 1-D, of any stride, in global or shared memory; float16, float32 or float64.
    out : device array
        Of the same length and dtype; it may be x itself.

    Notes
    -----
    All threads of a one-dimensional block, of up to 1024, call it together with the same row, as they would
    ``cuda.syncthreads``; when it returns, each may read all of out. What the block itself has written to x needs a
    ``cuda.syncthreads`` before the call.

    Examples
    --------
    >>> from numba import cuda
    >>> from fastsoftmax.integrations.numba_cuda import softmax_row
    >>> @cuda.jit
    ... def attend(scores, probs):
    ...     softmax_row(scores[cuda.blockIdx.x], probs[cuda.blockIdx.x])
    >>> attend[scores.shape[0], 128](scores, probs)  # doctest: +SKIP
    """
    _softmax(x.dtype.name)(x, out)


def logsumexp_row(x: Any) -> Any:
    """Give every thread the logsumexp of a row; for kernels alone.

    Parameters
    ----------
    x : device array
        As in `softmax_row`.

    Returns
    -------
    float
        Of the dtype of x, but float32 for float16.

    Notes
    -----
    All threads of a one-dimensional block, of up to 1024, call it together with the same row.
    """
    return _logsumexp(x.dtype.name)(x)


@cuda.jit(device=True)
def _team():
    """Give the block as a team (``backends/numba_cuda/teams.py``)."""
    return np.uint64(cuda.threadIdx.x), np.uint64(cuda.blockDim.x), np.uint64(0), np.uint64(1)


@functools.cache
def _softmax(dtype: str) -> Callable:
    run, rooms = slices.softmax(dtype), rooms_for(elements(dtype).number, _THREADS)

    @cuda.jit(device=True)
    def softmax(x, out):
        run(x, x, out, _team(), rooms())
        cuda.syncthreads()

    return softmax


@functools.cache
def _logsumexp(dtype: str) -> Callable:
    number = elements(dtype).number
    log1p, rooms_here = arithmetic(number).log1p, rooms_for(number, _THREADS)
    maximum, rest = slices.peaks(dtype)

    @cuda.jit(device=True)
    def logsumexp(x):
        team, rooms = _team(), rooms_here()
        m, count = maximum(x, team, rooms)
        return m + log1p(rest(x, m, count, team, rooms))

    return logsumexp


def _check(name: str, row: types.Type) -> None:
    if not (isinstance(row, types.Array) and row.ndim == 1 and row.dtype.name in _DTYPES):
        raise TypingError(f"{name}: expected an array of one dimension and dtype {', '.join(_DTYPES)}, got {row}")


if config.ENABLE_CUDASIM:  # the functions above run as they stand, but make nothing while a kernel runs
    for _dtype in _DTYPES:
        _softmax(_dtype), _logsumexp(_dtype)
else:
    from numba.cuda.extending import overload

    @overload(softmax_row)
    def _softmax_row(x, out):
        _check("x", x)
        _check("out", out)
        if out.dtype != x.dtype:
            raise TypingError(f"out: expected dtype {x.dtype}, got {out.dtype}")
        softmax = _softmax(x.dtype.name)
        return lambda x, out: softmax(x, out)

    @overload(logsumexp_row)
    def _logsumexp_row(x):
        _check("x", x)
        logsumexp = _logsumexp(x.dtype.name)
        return lambda x: logsumexp(x)
