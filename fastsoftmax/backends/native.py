"""The C++ core, for NumPy arrays of float32, float64, float16 and bfloat16."""

from __future__ import annotations

import numpy as np

from fastsoftmax import _native
from fastsoftmax._layout import is_bfloat16
from fastsoftmax._native import _exp as exp  # this and log1p for the tests
from fastsoftmax._native import _log1p as log1p
from fastsoftmax._native import num_threads, reduced

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


def _known(x: np.ndarray) -> np.ndarray:
    """Give x, its dtype made known to the core: the number of bfloat16 is that of its registration with NumPy."""
    if is_bfloat16(x.dtype):
        _native.set_bfloat16(x.dtype.num)
    return x


def softmax(x: np.ndarray, out: np.ndarray, n_threads: int) -> None:
    """Write the softmax of every slice of x to out, which may be x."""
    _native.run(_native.SOFTMAX, _known(x), out, n_threads=n_threads)


def log_softmax(x: np.ndarray, out: np.ndarray, n_threads: int) -> None:
    """Write the log-softmax of every slice of x to out, which may be x."""
    _native.run(_native.LOG_SOFTMAX, _known(x), out, n_threads=n_threads)


def logsumexp(x: np.ndarray, lse: np.ndarray, n_threads: int) -> None:
    """Write the logsumexp of every slice of x to lse."""
    _native.run(_native.LOGSUMEXP, _known(x), lse=lse, n_threads=n_threads)


def cross_entropy(
    x: np.ndarray,
    loss: np.ndarray | None,
    grad: np.ndarray | None,
    lse: np.ndarray | None,
    *,
    labels: np.ndarray | None,
    ignore_index: int,
    targets: np.ndarray | None,
    label_smoothing: float,
    z_loss: float,
    weight: np.ndarray | None,
    sample_weight: np.ndarray | None,
    given_lse: np.ndarray | None,
    grad_scale: float,
    n_threads: int,
) -> None:
    """Write what is not None: each slice's loss and lse, and grad_scale times the gradient; grad may be x.

    labels is C-contiguous int64, checked; targets, probability labels in their place, is of x's or the computing dtype;
    the weights and given_lse are C-contiguous, of the computing dtype.
    """
    spread = targets is not None or label_smoothing != 0
    if grad is None:
        op = _native.CROSS_ENTROPY_SPREAD if spread else _native.CROSS_ENTROPY
    else:
        op = _native.CROSS_ENTROPY_SPREAD_GRAD if spread else _native.CROSS_ENTROPY_GRAD
    _native.run(
        op,
        _known(x),
        grad,
        lse=lse,
        loss=loss,
        labels=labels,
        ignore_index=ignore_index,
        y=targets,
        weight=weight,
        sample_weight=sample_weight,
        given_lse=given_lse,
        label_smoothing=label_smoothing,
        z_loss=z_loss,
        grad_scale=grad_scale,
        n_threads=n_threads,
    )


def softmax_grad(grad_output: np.ndarray, probs: np.ndarray, out: np.ndarray, n_threads: int) -> None:
    """Write the vector-Jacobian product of softmax to out, which may be either input."""
    _native.run(_native.SOFTMAX_GRAD, _known(grad_output), out, y=probs, n_threads=n_threads)


def log_softmax_grad(grad_output: np.ndarray, log_probs: np.ndarray, out: np.ndarray, n_threads: int) -> None:
    """Write the vector-Jacobian product of log_softmax to out, which may be either input."""
    _native.run(_native.LOG_SOFTMAX_GRAD, _known(grad_output), out, y=log_probs, n_threads=n_threads)


def describe() -> str:
    """Say what this backend runs on, in a line."""
    threads = "OpenMP" if _native.has_openmp() else "built without OpenMP: one thread"
    return f"{_native.isa()} (of {', '.join(_native.supported_isas())}), {threads}"
