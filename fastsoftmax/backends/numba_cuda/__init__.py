"""Kernels that Numba compiles for CUDA when they are first called, for its own device arrays and for CuPy's.

A call launches a kernel, on the stream of the array (a Numba array's own, CuPy's current one), and never waits for the
device; reduced losses take one to four launches more. A kernel is compiled for an operation and a dtype, and serves all
layouts (``kernels``); Numba keeps it on disk.
"""

from __future__ import annotations

import functools
from typing import Any

import numba_cuda
import numpy as np
from numba import cuda

from fastsoftmax.backends.numba_cuda import totals
from fastsoftmax.backends.numba_cuda.arrays import DeviceArray
from fastsoftmax.backends.numba_cuda.kernels import THREADS, Source, element_kernel, loss_kernel
from fastsoftmax.backends.numba_cuda.launches import SIMULATED, array_at, launch, power_of_two

__all__ = [
    "DeviceArray",
    "cross_entropy",
    "describe",
    "log_softmax",
    "log_softmax_grad",
    "logsumexp",
    "mean_divisor",
    "reduced",
    "softmax",
    "softmax_grad",
]

# Columns side by side, at most: a warp of them reads whole lines of memory.
_WARP = 32


def _lanes(n: int, columns: bool) -> int:
    """Give how many threads share a slice; by its length and layout alone, so that it has the same bits anywhere."""
    if columns:
        return 8 if n <= 256 else 32
    return 8 if n <= 64 else 32 if n <= 1024 else THREADS


@functools.cache
def _stream_at(pointer: int) -> Any:
    """Give the Numba stream of a stream of another library; the simulator has but one."""
    return 0 if SIMULATED else cuda.external_stream(pointer)


def _stream_of(x: Any) -> Any:
    if isinstance(x, DeviceArray):
        return x.stream
    import cupy  # x is CuPy's, so it is there

    return _stream_at(cupy.cuda.get_current_stream().ptr)


def _seen(x: Any) -> Any:
    """Give the Numba array of an array's memory."""
    return array_at(x.data.ptr, x.shape, x.strides, x.dtype, x.owner if isinstance(x, DeviceArray) else x)


@functools.cache
def _nothing(dtype: np.dtype) -> Any:
    return array_at(0, (0,), (0,), dtype)


def _flat(x: Any, dtype: Any) -> Any:
    """Give an array of one dimension, empty in the place of None."""
    return _nothing(np.dtype(dtype)) if x is None else _seen(x.reshape(-1))


def _divisor(divisor: Any) -> tuple[Any, float]:
    """Give a divisor as kernels take it: an array, and the number that is in its place if it has the size 0."""
    known = isinstance(divisor, (int, float))
    return _flat(None if known else divisor, np.float64), divisor if known else 1.0


def _traverse(source: Source, x: Any, y: Any, out: Any, *options: Any) -> None:
    """Launch a kernel of ``kernels`` over the slices of x, (outer, n, inner); y and out may be None."""
    outer, n, inner = x.shape
    # One column is read as rows if its elements are neighbours.
    columns = any(a is not None and (a.shape[2] > 1 or (n > 1 and a.strides[1] != a.itemsize)) for a in (x, y, out))
    lanes = _lanes(n, columns)
    slices = outer * inner
    across = min(THREADS // lanes, slices)
    if columns:
        across = min(across, _WARP)
    nothing = array_at(x.data.ptr, (outer, 0, inner), x.strides, x.dtype, x)
    arrays = [nothing if a is None else _seen(a) for a in (x, y, out)]
    blocks = -(-slices // across)
    launch(source, blocks, lanes * across, _stream_of(x), *arrays, lanes, across, columns, *options)


def softmax(x: Any, out: Any, n_threads: int) -> None:
    """Write the softmax of every slice of x to out, which may be x."""
    _traverse(element_kernel("softmax", x.dtype.name), x, None, out)


def log_softmax(x: Any, out: Any, n_threads: int) -> None:
    """Write the log-softmax of every slice of x to out, which may be x."""
    _traverse(element_kernel("log_softmax", x.dtype.name), x, None, out)


def softmax_grad(grad_output: Any, probs: Any, out: Any, n_threads: int) -> None:
    """Write the vector-Jacobian product of softmax to out, which may be either input."""
    _traverse(element_kernel("softmax_grad", probs.dtype.name), grad_output, probs, out)


def log_softmax_grad(grad_output: Any, log_probs: Any, out: Any, n_threads: int) -> None:
    """Write the vector-Jacobian product of log_softmax to out, which may be either input."""
    _traverse(element_kernel("log_softmax_grad", log_probs.dtype.name), grad_output, log_probs, out)


def logsumexp(x: Any, lse: Any, n_threads: int) -> None:
    """Write the logsumexp of every slice of x to lse."""
    cross_entropy(x, None, None, lse, n_threads=n_threads)


def cross_entropy(
    x: Any,
    loss: Any,
    grad: Any,
    lse: Any,
    *,
    labels: Any = None,
    ignore_index: int = 0,
    targets: Any = None,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    weight: Any = None,
    sample_weight: Any = None,
    given_lse: Any = None,
    divisor: Any = 1.0,
    n_threads: int,
) -> None:
    """Write what is not None: each slice's loss and lse, and the gradient over divisor; grad may be x.

    labels are int64, checked by the kernel; divisor is what `mean_divisor` gave, or 1.
    """
    spread = targets is not None or label_smoothing != 0
    dtype = x.dtype.name
    number = np.float64 if dtype == "float64" else np.float32
    _traverse(
        loss_kernel(dtype, dtype if targets is None else targets.dtype.name, spread, grad is not None),
        x,
        targets,
        grad,
        _flat(labels, np.int64),
        ignore_index,
        *(_flat(a, number) for a in (weight, sample_weight, given_lse, loss, lse)),
        *_divisor(divisor),
        1 - label_smoothing,
        label_smoothing / x.shape[1],
        z_loss,
    )


def _total(
    terms: str,
    count: int,
    total: Any,
    *,
    values: Any = None,
    labels: Any = None,
    ignore_index: int = 0,
    weight: Any = None,
    divisor: Any = 1.0,
) -> Any:
    """Add up terms of ``totals``, write their sum over divisor to total, an array (), and give that."""

    def add(terms: str, blocks: int, count: int, sums: Any, values: Any, labels: Any, weight: Any) -> None:
        numbers = next((a.dtype for a in (values, weight) if a is not None), np.dtype(np.float32))
        launch(
            totals.total_kernel(terms, numbers.name, total.dtype.name),
            blocks,
            min(THREADS, power_of_two(-(-count // totals.PER_THREAD))),
            _stream_of(total),
            _flat(values, numbers),
            _flat(labels, np.int64),
            ignore_index,
            _flat(weight, numbers),
            count,
            _flat(sums, np.float64),
            *_divisor(divisor),
            _flat(total, total.dtype),
        )

    blocks = -(-count // totals.PIECE)
    if blocks <= 1:
        add(terms, 1, count, None, values, labels, weight)
    else:
        sums = np.empty(2 * blocks, np.float64, like=total)
        add(terms, blocks, count, sums, values, labels, weight)
        add("pieces", 1, blocks, None, sums, None, None)
    return total


def mean_divisor(labels: Any, ignore_index: int, weight: Any, sample_weight: Any, count: int) -> Any:
    """Give what divides the losses' sum in a mean: a float64 array (), or a number where count alone decides."""
    beside = labels if labels is not None else sample_weight
    if beside is None:
        return float(count)
    given = {"labels": labels, "ignore_index": ignore_index, "weight": weight, "values": sample_weight}
    return _total("shares", count, np.empty((), np.float64, like=beside), **given)


def reduced(losses: Any, divisor: Any) -> Any:
    """Give the sum of C-contiguous losses, in a fixed order, over divisor: an array () of their dtype, 0 for 0."""
    total = np.empty((), losses.dtype, like=losses)
    return _total("losses", losses.size, total, values=losses, divisor=divisor)


def describe() -> str:
    """Say what this backend runs on, in a line."""
    found = f"numba-cuda {numba_cuda.__version__}"
    if not cuda.is_available():
        return f"{found}, no device"
    major, minor = cuda.get_current_device().compute_capability
    return f"{found}, {'the simulator' if SIMULATED else f'compute capability {major}.{minor}'}"
