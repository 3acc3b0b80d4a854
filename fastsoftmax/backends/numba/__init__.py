"""Kernels that Numba compiles when they are first called, for NumPy arrays of float32, float64, float16 and bfloat16.

The way of a call: the array becomes panels (``panels``) of as many slices as stay in a cache; an entry point
(``entries``), compiled for the operation, the dtype and the way through memory and kept on disk, goes through them, on
several threads where there is enough to do.

Threads are Numba's own, by whichever layer it has chosen. Not every layer bears two calls at a time (``workqueue``
aborts the process), and none is better than one thread each when two calls would share the processors: a call that
comes while another one has the threads runs alone. So does every call in a forked child, where its parent's threads, of
whichever library, are not any more.
"""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from numba.core import types
from numba.core.compiler_lock import global_compiler_lock

from fastsoftmax._layout import is_bfloat16
from fastsoftmax.backends.numba import entries
from fastsoftmax.backends.numba.markers import (
    COLUMNS,
    CROSS_ENTROPY,
    CROSS_ENTROPY_GRAD,
    CROSS_ENTROPY_SPREAD,
    CROSS_ENTROPY_SPREAD_GRAD,
    EXP,
    LOG1P,
    LOG_SOFTMAX,
    LOG_SOFTMAX_GRAD,
    ROWS,
    SOFTMAX,
    SOFTMAX_GRAD,
    Marker,
)
from fastsoftmax.backends.numba.memory import PANEL
from fastsoftmax.backends.numba.panels import rows_width
from fastsoftmax.backends.numba.vectors import VECTOR_BYTES

__all__ = [
    "cross_entropy",
    "describe",
    "exp",
    "log1p",
    "log_softmax",
    "log_softmax_grad",
    "logsumexp",
    "num_threads",
    "reduced",
    "softmax",
    "softmax_grad",
]

if numba.config.DISABLE_JIT:
    raise ImportError("the numba backend needs Numba's compiler, which NUMBA_DISABLE_JIT turns off")

# Fewer elements than this (ten microseconds or so) are not worth the threads' attention.
ALONE = 1 << 15

# After so many elements, some 20 ms, Python looks for signals.
UNINTERRUPTED = 1 << 24

_team = threading.Lock()
_forked = False


def _after_fork_in_child() -> None:
    global _forked, _team
    _team = threading.Lock()  # whoever held it is not here
    _forked = True
    global_compiler_lock.release()


# A child of a process that was compiling in another thread would wait for that thread for ever: so the fork waits.
os.register_at_fork(
    before=global_compiler_lock.acquire,
    after_in_parent=global_compiler_lock.release,
    after_in_child=_after_fork_in_child,
)


def num_threads(n_threads: int) -> int:
    """Give the threads that a call for so many may use; 0: for Numba's own number."""
    limit = numba.get_num_threads()
    return min(n_threads or limit, limit)


def _bits(x: np.ndarray | None) -> np.ndarray | None:
    """Give halves as the integers of their bits (``memory``)."""
    if x is None or x.dtype.char in "fd":
        return x
    return x.view(np.int16 if is_bfloat16(x.dtype) else np.uint16)


def _strided(dtype: np.dtype | None, written: bool = False) -> types.Type:
    """Give the type of an array of any strides, so that one kernel serves them all; of None for None."""
    return types.none if dtype is None else types.Array(numba.from_dtype(dtype), 3, "A", readonly=not written)


def _arguments(loss: bool, x: np.dtype, out: np.dtype | None, beside: np.dtype | None) -> list[types.Type]:
    """Give the types of an entry point's arguments between the operation and the panels, for arrays of these dtypes."""
    given = [_strided(x), _strided(out, written=True), _strided(beside)]
    if loss:
        numbers = types.Array(types.float64 if x == np.float64 else types.float32, 1, "C")
        given += [types.Array(types.int64, 1, "C"), *[numbers] * 5, types.int64, *[types.float64] * 3]
    return [*given, types.int64]


@functools.cache
def _compiled(entry: Any, op: Marker, traversal: Marker, *given: Any) -> tuple[Callable, int]:
    """Compile an entry point for such arguments, or fetch it from the disk: a function, and its address.

    The function converts its arguments without looking at their types: Numba's own dispatch would look, which takes
    longer than a small array, and compile anew for every kind of strides.
    """
    signature = op.type, traversal.type, *_arguments(*given), types.int64, types.int64
    entry.compile(signature)
    compiled = entry.overloads[signature]
    return compiled.entry_point, compiled.library.get_pointer_to_function(compiled.fndesc.llvm_cfunc_wrapper_name)


@functools.cache
def _shared(*given: Any) -> Callable:
    """Compile what lets threads share a kernel, or fetch it from the disk."""
    signature = types.int64, types.Tuple(_arguments(*given)), types.int64, types.int64, types.int64
    entries.by_threads.compile(signature)
    return entries.by_threads.overloads[signature].entry_point


def _run(
    entry: Any,
    op: Marker,
    x: np.ndarray,
    out: np.ndarray | None,
    beside: np.ndarray | None,
    rest: tuple,
    n_threads: int,
) -> None:
    """Run an operation over x, (outer, n, inner); `rest` are the arguments between the arrays and the panels' width."""
    x, out, beside = _bits(x), _bits(out), _bits(beside)
    outer, n, inner = x.shape
    rows = inner == 1 and (n == 1 or all(a is None or a.strides[1] == a.itemsize for a in (x, out, beside)))
    traversal = ROWS if rows else COLUMNS
    alone = n_threads == 1 or x.size < ALONE or _forked
    threads = 1 if alone else num_threads(n_threads)
    lanes = VECTOR_BYTES // max(x.itemsize, 4)
    if rows:
        width = rows_width(n, lanes)
        units = -(-outer // width)
    else:
        share = -(-inner // max(threads // outer, 1))  # so that there is something for every thread
        width = min(PANEL, -(-share // lanes) * lanes)
        units = outer * -(-inner // width)
    given = bool(rest), *(None if a is None else a.dtype for a in (x, out, beside))
    arguments = x, out, beside, *rest, width
    kernel, address = _compiled(entry, op, traversal, *given)
    step = max(UNINTERRUPTED // (n * width), 1) * threads
    for begin in range(0, units, step):
        end = min(begin + step, units)
        shares = min(threads, end - begin)
        if shares > 1 and _team.acquire(blocking=False):
            try:
                _shared(*given)(address, arguments, begin, end, shares)
            finally:
                _team.release()
        else:
            kernel(op, traversal, *arguments, begin, end)


@functools.cache
def _total(dtype: np.dtype) -> Callable:
    """Compile the sum of numbers of a dtype."""
    signature = CROSS_ENTROPY.type, types.Array(numba.from_dtype(dtype), 1, "C")
    entries.total.compile(signature)
    return entries.total.overloads[signature].entry_point


# What stands for a missing array of a dtype.
_NOTHING = {"f": np.empty(0, np.float32), "d": np.empty(0, np.float64), "l": np.empty(0, np.int64)}


def softmax(x: np.ndarray, out: np.ndarray, n_threads: int) -> None:
    """Write the softmax of every slice of x to out, which may be x."""
    _run(entries.normalize, SOFTMAX, x, out, None, (), n_threads)


def log_softmax(x: np.ndarray, out: np.ndarray, n_threads: int) -> None:
    """Write the log-softmax of every slice of x to out, which may be x."""
    _run(entries.normalize, LOG_SOFTMAX, x, out, None, (), n_threads)


def softmax_grad(grad_output: np.ndarray, probs: np.ndarray, out: np.ndarray, n_threads: int) -> None:
    """Write the vector-Jacobian product of softmax to out, which may be either input."""
    _run(entries.differentiate, SOFTMAX_GRAD, grad_output, out, probs, (), n_threads)


def log_softmax_grad(grad_output: np.ndarray, log_probs: np.ndarray, out: np.ndarray, n_threads: int) -> None:
    """Write the vector-Jacobian product of log_softmax to out, which may be either input."""
    _run(entries.differentiate, LOG_SOFTMAX_GRAD, grad_output, out, log_probs, (), n_threads)


def logsumexp(x: np.ndarray, lse: np.ndarray, n_threads: int) -> None:
    """Write the logsumexp of every slice of x to lse."""
    cross_entropy(x, None, None, lse, n_threads=n_threads)


def cross_entropy(
    x: np.ndarray,
    loss: np.ndarray | None,
    grad: np.ndarray | None,
    lse: np.ndarray | None,
    *,
    labels: np.ndarray | None = None,
    ignore_index: int = 0,
    targets: np.ndarray | None = None,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    weight: np.ndarray | None = None,
    sample_weight: np.ndarray | None = None,
    given_lse: np.ndarray | None = None,
    grad_scale: float = 1.0,
    n_threads: int,
) -> None:
    """Write what is not None: each slice's loss and lse, and grad_scale times the gradient; grad may be x."""
    if targets is not None or label_smoothing != 0:
        op = CROSS_ENTROPY_SPREAD if grad is None else CROSS_ENTROPY_SPREAD_GRAD
        beside = x if targets is None else targets  # (something of the kind: nobody reads it where there are labels)
    else:
        op = CROSS_ENTROPY if grad is None else CROSS_ENTROPY_GRAD
        beside = None
    nothing = _NOTHING["d" if x.dtype.char == "d" else "f"]
    numbers = (nothing if a is None else a.reshape(-1) for a in (weight, sample_weight, given_lse, loss, lse))
    flat_labels = _NOTHING["l"] if labels is None else labels.reshape(-1)
    rest = flat_labels, *numbers, ignore_index, float(label_smoothing), float(z_loss), float(grad_scale)
    _run(entries.entropy, op, x, grad, beside, rest, n_threads)


def reduced(losses: np.ndarray, divisor: float) -> np.floating:
    """Give the sum of C-contiguous losses, in a fixed order, over divisor: a scalar of their dtype, 0 for divisor 0."""
    numbers = losses.reshape(-1)
    value = _total(losses.dtype)(CROSS_ENTROPY, numbers)
    with np.errstate(over="ignore"):
        return losses.dtype.type(value / divisor if divisor else 0.0)


def exp(x: np.ndarray) -> np.ndarray:
    """Compute the kernels' exponential of a C-contiguous float32 or float64 array: for the tests."""
    out = np.empty_like(x)
    entries.elementwise(EXP, x.reshape(-1), out.reshape(-1))
    return out


def log1p(x: np.ndarray) -> np.ndarray:
    """Compute the kernels' log1p of a C-contiguous float32 or float64 array of numbers >= 0: for the tests."""
    out = np.empty_like(x)
    entries.elementwise(LOG1P, x.reshape(-1), out.reshape(-1))
    return out


def describe() -> str:
    """Say what this backend runs on, in a line."""
    return f"Numba {numba.__version__}, vectors of {VECTOR_BYTES} bytes"
