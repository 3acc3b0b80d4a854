"""Kernels for what the checks and conversions of the public functions compute entry by entry.

One kernel does all: it reads from one or two arrays, or one and a number, and writes what a function makes of them, for
arrays of RANK dimensions and any strides.
"""

from __future__ import annotations

import functools

import numpy as np
from numba import cuda, from_dtype, types

from fastsoftmax.backends.numba_cuda.arithmetic import elements, function
from fastsoftmax.backends.numba_cuda.kernels import Source

RANK = 3

# The entries that a thread has, at most, if there are enough blocks.
PER_THREAD = 8


@function
def _copy(a, b, scalar):
    return a


@function
def _fill(a, b, scalar):
    return scalar


@function
def _fill_where(a, b, scalar):
    return scalar if a else b


@function
def _less(a, b, scalar):
    return a < b


@function
def _less_equal(a, b, scalar):
    return a <= b


@function
def _greater(a, b, scalar):
    return a > b


@function
def _greater_equal(a, b, scalar):
    return a >= b


@function
def _equal(a, b, scalar):
    return a == b


@function
def _not_equal(a, b, scalar):
    return a != b


@function
def _subtract(a, b, scalar):
    return a - b


@function
def _multiply(a, b, scalar):
    return a * b


@function
def _and(a, b, scalar):
    return a & b


@function
def _xor(a, b, scalar):
    return a ^ b


@function
def _invert(a, b, scalar):
    return not a


FUNCTIONS = {
    "copy": _copy,
    "fill": _fill,
    "fill_where": _fill_where,
    "lt": _less,
    "le": _less_equal,
    "gt": _greater,
    "ge": _greater_equal,
    "eq": _equal,
    "ne": _not_equal,
    "sub": _subtract,
    "mul": _multiply,
    "and": _and,
    "xor": _xor,
    "invert": _invert,
}


@functools.cache
def map_kernel(name: str, a_dtype: str, b_dtype: str, out_dtype: str) -> Source:
    """Give the kernel of a function of FUNCTIONS; the number beside the arrays is of the dtype of b.

    Where b has the size 0 the number is in its place.
    """
    compute = FUNCTIONS[name]
    a_elements, b_elements, out_elements = elements(a_dtype), elements(b_dtype), elements(out_dtype)
    read_a, read_b, write = a_elements.read, b_elements.read, out_elements.write

    def kernel(a, b, scalar, out):
        _, height, width = out.shape
        i = np.int64(cuda.blockIdx.x) * cuda.blockDim.x + cuda.threadIdx.x
        while i < out.size:
            at = i // width // height, i // width % height, i % width
            beside = read_b(b[at]) if b.size > 0 else scalar
            out[at] = write(compute(read_a(a[at]), beside, scalar))
            i += np.int64(cuda.gridDim.x) * cuda.blockDim.x

    def array(known):
        return types.Array(from_dtype(np.dtype(known.stored)), RANK, "A")

    scalar = from_dtype(np.dtype(b_elements.number))
    signature = array(a_elements), array(b_elements), scalar, array(out_elements)
    return Source(f"map_{name}_{a_dtype}_{b_dtype}_{out_dtype}", kernel, signature)
