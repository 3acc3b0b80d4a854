"""Ways through an array in compiled code, and where results go."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba.core import types

from fastsoftmax.backends.numba.compiled import by_types, helper
from fastsoftmax.backends.numba.kernels import View, entropy, normalize
from fastsoftmax.backends.numba.markers import COLUMNS, ROWS
from fastsoftmax.backends.numba.memory import PANEL, address, lanes, pointer
from fastsoftmax.backends.numba.panels import rows_width


@by_types
def geometry(x, axis):
    """(number of slices, distance between them, their length, distance along them), distances in elements."""
    if x == types.none:
        return lambda x, axis: (0, 0, 0, 0)
    if x.ndim == 1:
        return lambda x, axis: (1, 0, x.shape[0], x.strides[0] // x.itemsize)
    return lambda x, axis: (
        x.shape[1 - axis],
        x.strides[1 - axis] // x.itemsize,
        x.shape[axis],
        x.strides[axis] // x.itemsize,
    )


def way_of(x: types.Array, axis: int) -> Any:
    """Give the way through an array that its type tells: rows, columns, or None."""
    if x.ndim == 1:
        return ROWS if x.layout in "CF" else None
    if x.layout == "A":
        return None
    return ROWS if (axis == 1) == (x.layout == "C") else COLUMNS


@by_types
def _kernel(op, traversal, x, out, loss, view, width, begin, end):
    """The kernel for a loss, or for no loss."""
    if loss == types.none:
        return lambda op, traversal, x, out, loss, view, width, begin, end: normalize(
            op, traversal, x, out, view, width, begin, end
        )
    return lambda op, traversal, x, out, loss, view, width, begin, end: entropy(
        op, traversal, x, out, None, loss, view, width, begin, end
    )


@helper
def _in_rows(op, x, out, loss, shape, out_shape, first, last):
    slices, distance, n, _ = shape
    width = rows_width(n, lanes(x))
    view = View(slices, n, 1, distance, 1, out_shape[1], 1, 0, 0)
    _kernel(op, ROWS, x, out, loss, view, width, first // width, (last + width - 1) // width)


@helper
def _in_columns(op, x, out, loss, shape, out_shape, first, last):
    slices, _, n, step = shape
    view = View(1, n, slices, 0, step, 0, out_shape[3], 0, 0)
    _kernel(op, COLUMNS, x, out, loss, view, PANEL, first // PANEL, (last + PANEL - 1) // PANEL)


@helper
def _one_by_one(op, x, out, loss, shape, out_shape, first, last):
    # Columns of one lane: what is neither rows nor columns.
    slices, distance, n, step = shape
    view = View(slices, n, 1, distance, step, out_shape[1], out_shape[3], 0, 0)
    _kernel(op, COLUMNS, x, out, loss, view, 1, first, last)


@by_types
def run(way, op, x, out, loss, shape, out_shape, first, last):
    """Run an operation over slices first..last, first standing at the begin of a panel."""
    if way == ROWS.type:
        return lambda way, op, x, out, loss, shape, out_shape, first, last: _in_rows(
            op, x, out, loss, shape, out_shape, first, last
        )
    if way == COLUMNS.type:
        return lambda way, op, x, out, loss, shape, out_shape, first, last: _in_columns(
            op, x, out, loss, shape, out_shape, first, last
        )

    def any_way(way, op, x, out, loss, shape, out_shape, first, last):
        if shape[3] == 1 or shape[2] == 1:
            _in_rows(op, x, out, loss, shape, out_shape, first, last)
        elif shape[1] == 1:
            _in_columns(op, x, out, loss, shape, out_shape, first, last)
        else:
            _one_by_one(op, x, out, loss, shape, out_shape, first, last)

    return any_way


@by_types
def panel_size(way, p, shape):
    """How many slices stand side by side in a panel as `run` makes them; or are read one by one at a time."""
    if way == ROWS.type:
        return lambda way, p, shape: rows_width(shape[2], lanes(p))
    if way == COLUMNS.type:
        return lambda way, p, shape: PANEL
    return lambda way, p, shape: rows_width(shape[2], lanes(p)) if shape[3] == 1 or shape[2] == 1 else PANEL


def _same_way(x: types.Array, target: types.Array) -> bool:
    """Whether a kernel goes through both in one way."""
    return x.layout != "A" and (x.ndim == 1 or x.layout == target.layout)


@by_types
def target_for(x, out):
    """Where the result goes: out, or a new array in the order of x."""
    if isinstance(out, types.Array):
        same_way = _same_way(x, out)

        def given(x, out):
            if out.shape != x.shape:
                raise ValueError("out: expected the shape of the input")
            apart = address(pointer(out)) - address(pointer(x))
            if same_way and apart != 0 and -out.nbytes < apart < out.nbytes:
                raise ValueError("out: expected the input itself or no part of it")
            return out

        return given
    if x.ndim == 2 and x.layout == "F":
        return lambda x, out: np.empty((x.shape[1], x.shape[0]), x.dtype).T
    return lambda x, out: np.empty(x.shape, x.dtype)


@by_types
def source_of(x, target):
    """What is read: x, or the target, into which x was copied where a kernel would not go through both in one way."""
    if target == types.none or _same_way(x, target):
        return lambda x, target: x

    # Element by element: with the assignment of a whole array Numba compiles the text of an error, for eight seconds.
    def copied_vector(x, target):
        for i in range(x.size):
            target[i] = x[i]
        return target

    def copied(x, target):
        for i in range(x.shape[0]):
            for j in range(x.shape[1]):
                target[i, j] = x[i, j]
        return target

    return copied_vector if x.ndim == 1 else copied
