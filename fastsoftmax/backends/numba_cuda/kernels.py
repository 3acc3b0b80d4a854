"""The traversal: which thread of a launch belongs to which slice, and the kernels that run an operation so.

A block's threads are `across` teams of `lanes` threads, a slice for each. Of rows (inner is 1) the threads of a team
are neighbours, as are a slice's elements; of columns the teams' threads of the same number are, as are neighbouring
slices: either way neighbours read neighbours. One kernel does both, for arrays of any stride.

Threads beyond the last slice come along, for the sake of the barriers, as if theirs had no elements.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numba import cuda, from_dtype, types

from fastsoftmax.backends.numba_cuda import slices
from fastsoftmax.backends.numba_cuda.arithmetic import elements
from fastsoftmax.backends.numba_cuda.cross_entropy import cross_entropy
from fastsoftmax.backends.numba_cuda.teams import rooms_for

# The most threads of a block.
THREADS = 256

_NORMALIZE = {
    "softmax": slices.softmax,
    "log_softmax": slices.log_softmax,
    "softmax_grad": slices.softmax_grad,
    "log_softmax_grad": slices.log_softmax_grad,
}


class Source(NamedTuple):
    """A kernel before it is compiled: a name that no other has, a Python function and the types of its arguments."""

    name: str
    function: Callable
    signature: tuple


@cuda.jit(device=True)
def _slice_of_thread(outer, inner, lanes, across, columns):
    """Give where the thread's slice is, whether there is one, and the thread's team."""
    thread = np.uint64(cuda.threadIdx.x)
    lanes, across = np.uint64(lanes), np.uint64(across)
    if columns:
        first, t, step = thread % across, thread // across, across
        of_block = first
    else:
        of_block, t, step = thread // lanes, thread % lanes, np.uint64(1)
        first = of_block * lanes
    slice = np.uint64(cuda.blockIdx.x) * across + of_block
    exists = slice < np.uint64(outer) * np.uint64(inner)
    if not exists:
        slice = np.uint64(0)
    return slice, slice // np.uint64(inner), slice % np.uint64(inner), exists, (t, lanes, first, step)


def _elements_type(dtype: str) -> types.Type:
    """Give the type of an array of any strides, so that one kernel serves them all."""
    return types.Array(from_dtype(np.dtype(elements(dtype).stored)), 3, "A")


@functools.cache
def element_kernel(operation: str, dtype: str) -> Source:
    """Give the kernel of an operation that writes elements and nothing else."""
    run = _NORMALIZE[operation](dtype)
    rooms = rooms_for(elements(dtype).number, THREADS)

    def kernel(x, y, out, lanes, across, columns):
        outer, n, inner = x.shape
        _, row, column, exists, team = _slice_of_thread(outer, inner, lanes, across, columns)
        n = n if exists else 0
        run(x[row, :n, column], y[row, :n, column], out[row, :n, column], team, rooms())

    array = _elements_type(dtype)
    signature = array, array, array, types.int64, types.int64, types.boolean
    return Source(f"{operation}_{dtype}", kernel, signature)


@functools.cache
def loss_kernel(dtype: str, beside: str, spread: bool, gradient: bool) -> Source:
    """Give the kernel of the losses, for logits of a dtype and targets of another."""
    run = cross_entropy(dtype, beside, spread, gradient)
    rooms = rooms_for(elements(dtype).number, THREADS)

    def kernel(
        x,
        y,
        out,
        lanes,
        across,
        columns,
        labels,
        ignore_index,
        weight,
        sample_weight,
        given_lse,
        losses,
        lses,
        divisor,
        known_divisor,
        kept,
        evenly,
        z_loss,
    ):
        outer, n, inner = x.shape
        slice, row, column, exists, team = _slice_of_thread(outer, inner, lanes, across, columns)
        count = n if exists else 0
        run(
            x[row, :count, column],
            y[row, :count, column],
            out[row, :count, column],
            team,
            rooms(),
            slice,
            exists,
            labels,
            ignore_index,
            weight,
            sample_weight,
            given_lse,
            losses,
            lses,
            divisor,
            known_divisor,
            kept,
            evenly,
            z_loss,
        )

    array = _elements_type(dtype)
    scalar = from_dtype(np.dtype(elements(dtype).number))
    numbers = types.Array(scalar, 1, "C")
    traversal = array, _elements_type(beside), array, types.int64, types.int64, types.boolean
    labels = types.Array(types.int64, 1, "C"), types.int64
    rest = *[numbers] * 5, types.Array(types.float64, 1, "C"), *[scalar] * 4
    name = f"cross_entropy{'_spread' * spread}{'_grad' * gradient}_{dtype}_{beside}"
    return Source(name, kernel, (*traversal, *labels, *rest))
