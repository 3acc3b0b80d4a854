"""Which arrays the kernels can read, and how any other becomes one.

A kernel sees (outer, n, inner): slices along n whose elements are neighbours (rows: inner is 1), or neighbouring slices
side by side (columns: the last axis is contiguous). `arrange` finds such a view of an array for a set of axes by
reordering and merging its dimensions, and copies only where there is none.
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.exceptions import AxisError

NATIVE_DTYPES = (np.dtype(np.float32), np.dtype(np.float64), np.dtype(np.float16))


def is_bfloat16(dtype: np.dtype) -> bool:
    """Whether dtype is the bfloat16 of ml_dtypes, which is never imported for that."""
    return dtype.name == "bfloat16" and dtype.itemsize == 2


def is_native(dtype: np.dtype) -> bool:
    """Whether the kernels compute arrays of dtype as they are."""
    return dtype in NATIVE_DTYPES or is_bfloat16(dtype)


def loss_dtype(dtype: np.dtype) -> np.dtype:
    """Give the dtype of losses and of what the kernels return per slice, for logits of dtype."""
    return np.dtype(np.float64) if dtype == np.float64 else np.dtype(np.float32)


def normalize_axes(axis: int | Sequence[int] | None, ndim: int) -> tuple[int, ...]:
    """Turn an int, a tuple of ints or None (all) into sorted axes 0..ndim-1; 0-d arrays have the axes -1 and 0."""
    dims = max(ndim, 1)
    if axis is None:
        return tuple(range(dims))
    axes = axis if isinstance(axis, (tuple, list)) else (axis,)
    result = []
    for a in axes:
        try:
            index = operator.index(a)
        except TypeError:
            raise TypeError(
                f"axis: expected an int, a tuple of ints or None, got {a!r} of type {type(a).__name__}"
            ) from None
        if not -dims <= index < dims:
            raise AxisError(index, ndim)
        result.append(index % dims)
    if len(set(result)) < len(result):
        raise ValueError(f"axis: expected distinct axes, got duplicates in {axis!r} for an array of {ndim} dimensions")
    return tuple(sorted(result))


class Order(NamedTuple):
    """An order of an array's dimensions that makes three groups of them: outer, along the slice, inner."""

    outer: tuple[int, ...]
    along: tuple[int, ...]
    inner: tuple[int, ...]

    def view(self, x: np.ndarray) -> np.ndarray:
        """Give x as (outer, n, inner); only for an x of which `readable` is true does this copy nothing."""
        sizes = [math.prod(x.shape[d] for d in group) for group in self]
        return x.transpose(self.outer + self.along + self.inner).reshape(sizes)

    def batch_size(self, x: np.ndarray) -> int:
        """Count the slices of x."""
        return math.prod(x.shape[d] for d in self.outer + self.inner)

    def slices(self, values: np.ndarray) -> np.ndarray:
        """Bring an array of the batch's shape (the logits' without `along`) into the order of the view's slices."""
        batch = sorted(self.outer + self.inner)
        return values.transpose([batch.index(d) for d in self.outer + self.inner])

    def restore(self, values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """Undo `slices`: numbers in the order of the view's slices, in the batch's shape of logits of that shape."""
        batch = sorted(self.outer + self.inner)
        ordered = values.reshape([shape[d] for d in self.outer + self.inner])
        return ordered.transpose([(self.outer + self.inner).index(d) for d in batch])


def merged_stride(x: np.ndarray, dims: Sequence[int]) -> int | None:
    """Stride of dims taken as one dimension, the last varying fastest; None if they do not merge, 0 for size 1."""
    stride = inner = 0
    for d in reversed(dims):
        if x.shape[d] == 1:
            continue
        if inner and x.strides[d] != inner:
            return None
        stride = stride or x.strides[d]
        inner = x.strides[d] * x.shape[d]
        if inner == 0:
            return None  # a broadcast dimension is read by no stride
    return stride


def readable(x: np.ndarray, order: Order) -> bool:
    """Whether a kernel reads x in this order without a copy."""
    outer, along, inner = (merged_stride(x, group) for group in order)
    if outer is None or along is None or inner is None:
        return False
    if any(stride % x.itemsize for stride in (outer, along, inner)):
        return False
    if not order.inner:
        return along in (0, x.itemsize)
    # The stride of a last dimension of size 1 counts too: one column of a table goes the way of two, to the same bits.
    return inner in (0, x.itemsize) and x.strides[order.inner[-1]] == x.itemsize


@functools.cache
def _order_along(axis: int, ndim: int) -> Order:
    return Order(tuple(range(axis)), (axis,), tuple(range(axis + 1, ndim)))


def _plain_order(x: np.ndarray, axes: tuple[int, ...]) -> Order | None:
    """Give what find_order would find, where that is plain: it takes longer than a small array."""
    if len(axes) == 1 and x.flags.c_contiguous and _is_ordered_plainly(x.shape, axes[0]):
        return _order_along(axes[0], x.ndim)
    return None


def _is_ordered_plainly(shape: tuple[int, ...], axis: int) -> bool:
    """Whether find_order takes the dimensions of a C-contiguous array as they stand: those of size 1 it may move."""
    return axis == len(shape) - 1 or shape[-1] > 1


def find_order(x: np.ndarray, axes: tuple[int, ...]) -> Order | None:
    """Find an order in which a kernel reads x, rows before columns."""
    batch = [d for d in range(x.ndim) if d not in axes]
    # Fortran order and transposed arrays: the slower a dimension varies in memory, the farther out.
    batch.sort(key=lambda d: -abs(x.strides[d]))
    # Rows first, then as much side by side as there is.
    for split in (len(batch), *range(len(batch))):
        order = Order(tuple(batch[:split]), axes, tuple(batch[split:]))
        if readable(x, order):
            return order
    return None


def arrange(x: np.ndarray, axes: tuple[int, ...]) -> tuple[np.ndarray, Order]:
    """Find an array equal to x (x itself if possible) and the order in which a kernel reads it."""
    if not (_is_aligned(x) and x.dtype.isnative):
        x = x.astype(x.dtype.newbyteorder("="), order="K", copy=True)
    order = _plain_order(x, axes) or find_order(x, axes)
    if order is not None:
        return x, order
    dims = tuple(d for d in range(x.ndim) if d not in axes) + axes
    copy = x.transpose(dims).copy(order="C")
    return copy.transpose([dims.index(d) for d in range(x.ndim)]), Order(dims[: x.ndim - len(axes)], axes, ())


def hide(values: np.ndarray, where: np.ndarray, hidden: float) -> None:
    """Write `hidden` in the place of the entries where `where` is False.

    By operations on bits: np.where, np.copyto and boolean indices branch at each entry, which takes 4 ns where the
    branches follow no pattern, against .2.
    """
    bits = values.view(f"i{values.itemsize}")
    instead = np.array(hidden, values.dtype).view(bits.dtype)[()]
    # (The byte of a True may hold any number but 0; after ~ it is 0 or 1.)
    shown = (~where).view(np.int8) - np.int8(1)  # every bit, or none
    bits ^= instead
    bits &= shown
    bits ^= instead


def hidden_by(where: np.ndarray | None, x: np.ndarray, hidden: float) -> np.ndarray:
    """Give x, or a copy of it with `hidden` in the place of the entries where `where` is False."""
    if where is None:
        return x
    copy = x.astype(x.dtype.newbyteorder("="), order="K", copy=True)
    hide(copy, where, hidden)
    return copy


def same_elements(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two arrays of one shape and dtype are views of the same memory, element by element."""
    return _address(a) == _address(b) and a.strides == b.strides


def _address(x: np.ndarray) -> int:
    # (ctypes.data of NumPy's takes ten times as long.)
    return x.__array_interface__["data"][0] if isinstance(x, np.ndarray) else x.data.ptr


def _is_aligned(x: np.ndarray) -> bool:
    return x.flags.aligned if isinstance(x, np.ndarray) else x.data.ptr % x.itemsize == 0


def plain_slices(x: Any, axis: Any) -> tuple[int, int, int] | None:
    """Give the sizes (outer, n, inner) of a plain array's slices: of one that `arrange` would leave as it is.

    None for any other array or axis, which the general way reads or refuses; that takes longer than a small array.
    """
    if type(x) is not np.ndarray or type(axis) is not int:
        return None
    shape, ndim, flags = x.shape, x.ndim, x.flags
    if not (-ndim <= axis < ndim and flags.c_contiguous and flags.aligned and x.size and is_native(x.dtype)):
        return None
    axis %= ndim
    if not _is_ordered_plainly(shape, axis):
        return None
    return math.prod(shape[:axis]), shape[axis], math.prod(shape[axis + 1 :])


def plain_output(out: Any, x: np.ndarray) -> np.ndarray | None:
    """Give out if it is as plain as x, and is x or apart from it; a fresh array for None; else None."""
    if out is None:
        return np.empty(x.shape, x.dtype)
    if type(out) is not np.ndarray or out.dtype != x.dtype or out.shape != x.shape or not out.flags.carray:
        return None
    return None if out is not x and np.may_share_memory(out, x) else out


def output_like(
    x: np.ndarray,
    order: Order,
    out: np.ndarray | None,
    over: Sequence[np.ndarray],
    apart: np.ndarray | None = None,
) -> np.ndarray:
    """Give an array for a kernel's output: out itself where a kernel can write it there, else a fresh one.

    out may be any of the inputs in `over` itself; an overlap of any other kind with an input, `apart` being one more,
    asks for a fresh array too.
    """
    if out is not None and _is_aligned(out) and readable(out, order):
        others = [a for a in over if not same_elements(out, a)] + ([] if apart is None else [apart])
        if not any(np.may_share_memory(out, a) for a in others):
            return out
    fresh = np.empty_like(x)
    if readable(fresh, order):
        return fresh
    # x has gaps or is broadcast, and empty_like chose another order for it.
    return _empty_in(order, x)


def _empty_in(order: Order, like: np.ndarray) -> np.ndarray:
    dims = order.outer + order.along + order.inner
    shape = [like.shape[d] for d in dims]
    return np.empty(shape, like.dtype.newbyteorder("="), like=like).transpose([dims.index(d) for d in range(like.ndim)])


def arrange_beside(y: np.ndarray, order: Order) -> np.ndarray:
    """Give an array equal to y, y itself if possible, that a kernel reads in the order of another array."""
    if _is_aligned(y) and y.dtype.isnative and readable(y, order):
        return y
    copy = _empty_in(order, y)
    copy[...] = y
    return copy
