"""Sums over the slices: of their losses, and of the weights that a mean divides them by.

In a fixed order, in two numbers of float64, without the host: blocks add PIECE terms each, and a second launch of one
block their sums. Arrays that are not given have the size 0.
"""

from __future__ import annotations

import functools

import numpy as np
from numba import cuda, from_dtype, types

from fastsoftmax.backends.numba_cuda.arithmetic import arithmetic, function
from fastsoftmax.backends.numba_cuda.kernels import THREADS, Source
from fastsoftmax.backends.numba_cuda.teams import meet_sums, rooms_for

# Terms of a block; of a thread, where not all threads of a block are needed.
PIECE, PER_THREAD = 8192, 8

_ZERO, _ONE = np.float64(0), np.float64(1)


@function
def _loss(values, labels, ignore_index, weight, i):
    return np.float64(values[i]), _ZERO


@function
def _share(values, labels, ignore_index, weight, i):
    """Give s w[label] of a slice that is not ignored; a label out of range counts with weight 1."""
    share = _ONE
    if labels.size > 0:
        label = labels[i]
        if label == ignore_index:
            return _ZERO, _ZERO
        if label >= 0 and label < weight.size:
            share = np.float64(weight[label])
    return share * np.float64(values[i]) if values.size > 0 else share, _ZERO


@function
def _piece(values, labels, ignore_index, weight, i):
    return values[2 * i], values[2 * i + 1]


_TERMS = {"losses": _loss, "shares": _share, "pieces": _piece}


@functools.cache
def total_kernel(terms: str, number: str, result: str) -> Source:
    """Give the kernel that adds up terms made of numbers of a dtype.

    Each block writes its sum to sums; where that has the size 0, the one block that there is writes it to total,
    divided, in the dtype of the result.
    """
    term = _TERMS[terms]
    add, value = arithmetic(np.float64).add, arithmetic(np.float64).value
    meet, rooms = meet_sums(np.float64), rooms_for(np.float64, THREADS)
    rounded = np.dtype(result).type

    def kernel(values, labels, ignore_index, weight, count, sums, divisor, known_divisor, total):
        highs, lows, _ = rooms()
        block = np.int64(cuda.blockIdx.x)
        lanes = np.int64(cuda.blockDim.x)
        end = min(count, (block + 1) * PIECE) if sums.size > 0 else count
        high, low = _ZERO, _ZERO
        i = block * PIECE + cuda.threadIdx.x
        while i < end:
            more, rest = term(values, labels, ignore_index, weight, i)
            high, low = add(high, low + rest, more)
            i += lanes
        team = np.uint64(cuda.threadIdx.x), np.uint64(lanes), np.uint64(0), np.uint64(1)
        high, low = meet(high, low, team, highs, lows)
        if cuda.threadIdx.x == 0:
            if sums.size > 0:
                sums[2 * block], sums[2 * block + 1] = high, low
            else:
                over = divisor[0] if divisor.size > 0 else known_divisor
                total[0] = rounded(value(high, low) / over if over != _ZERO else _ZERO)

    numbers, doubles = (types.Array(from_dtype(np.dtype(name)), 1, "C") for name in (number, "float64"))
    labels = types.Array(types.int64, 1, "C"), types.int64
    out = types.Array(from_dtype(np.dtype(result)), 1, "C")
    return Source(
        f"total_{terms}_{number}_{result}",
        kernel,
        (numbers, *labels, numbers, types.int64, doubles, doubles, types.float64, out),
    )
