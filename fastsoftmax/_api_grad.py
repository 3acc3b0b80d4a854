"""Vector-Jacobian products of softmax and log_softmax in general, as ``_api`` does it for the functions themselves."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastsoftmax import _front, _threads, reference
from fastsoftmax._api import Axis
from fastsoftmax._arguments import as_real, backend_for, check_out, check_where, on_device_of, plain, result
from fastsoftmax._layout import (
    arrange,
    arrange_beside,
    hidden_by,
    hide,
    is_native,
    normalize_axes,
    output_like,
    plain_output,
    plain_slices,
)
from fastsoftmax.adapters import adapted, adapter_of


def _vjp(
    function: str,
    saved: str,
    hidden: float,
    grad_output: Any,
    y: Any,
    axis: Axis,
    where: Any,
    out: np.ndarray | None,
    n_threads: int | None,
) -> Any:
    """Either product; a hidden entry's saved output counts as `hidden`, its upstream gradient as 0."""
    slices = plain_slices(y, axis) if where is None else None
    if slices and plain_slices(grad_output, axis) == slices and grad_output.dtype == y.dtype:
        target = plain_output(out, y) if grad_output.shape == y.shape else None
        if target is not None and (out is None or plain_output(out, grad_output) is not None):
            arrays = (a.reshape(slices) for a in (grad_output, y, target))
            getattr(backend_for(y), function)(*arrays, _threads.requested(n_threads))
            return target
    y = as_real(y, saved)
    g = as_real(grad_output, "grad_output", y)
    dtype = y.dtype.newbyteorder("=")
    if g.shape != y.shape:
        raise ValueError(f"grad_output: expected the shape of {saved}, {y.shape}, got {g.shape}")
    if g.dtype.newbyteorder("=") != dtype:
        raise TypeError(f"grad_output: expected the dtype of {saved}, {dtype}, got {g.dtype}")
    axes = normalize_axes(axis, y.ndim)
    where = check_where(where, y, out)
    check_out(out, y, y.shape, dtype)
    n_threads = _threads.requested(n_threads)
    if not is_native(dtype):
        values = getattr(reference, function)(np.atleast_1d(g), np.atleast_1d(y), axes, where=where)
        return result(np.asarray(values).reshape(y.shape), out)
    if y.size == 0:
        return result(np.empty_like(y, dtype), out)
    source, order = arrange(np.atleast_1d(hidden_by(where, g, 0)), axes)
    beside = arrange_beside(np.atleast_1d(hidden_by(where, y, hidden)), order)
    plain_out = None if out is None else np.atleast_1d(plain(out))
    target = output_like(source, order, plain_out, [source, beside])
    getattr(backend_for(y), function)(order.view(source), order.view(beside), order.view(target), n_threads)
    if where is not None:
        hide(target, np.atleast_1d(where), 0)
    return result(target if y.ndim else target.reshape(()), out)


@_front.register
def softmax_grad(
    grad_output: Any,
    probs: Any,
    axis: Axis = -1,
    *,
    where: Any = None,
    out: np.ndarray | None = None,
    n_threads: int | None = None,
) -> Any:
    r"""Gradient with respect to the input of `softmax`, from its saved output.

    Parameters
    ----------
    grad_output : array_like
        Gradient of a scalar with respect to the probabilities, of the shape and dtype of probs.
    probs : array_like
        What `softmax` returned, of any shape and any real dtype as there.
    axis : int, tuple of int or None, optional
        The axis of that call.
    where : array_like of bool, optional
        The mask of that call. Entries that are False get 0, and their grad_output is ignored.
    out : ndarray, optional
        Array of the result's shape and dtype to write to; it may be either input itself.
    n_threads : int, optional
        At most so many threads; by default as `set_num_threads` and OpenMP say.

    Returns
    -------
    ndarray or scalar
        Vector-Jacobian product, of the shape of probs.

    Raises
    ------
    TypeError
        For two different dtypes, and as in `softmax`.
    ValueError
        For two different shapes, and as in `softmax`.
    numpy.exceptions.AxisError
        For an axis out of range.

    See Also
    --------
    log_softmax_grad, cross_entropy_grad

    Notes
    -----
    .. math:: p_i \Bigl(g_i - \sum_j g_j p_j\Bigr)

    for :math:`g` the upstream gradient. The sum is kept wider than its terms, so that what the difference leaves has
    its digits.

    Examples
    --------
    >>> import numpy as np
    >>> from fastsoftmax import softmax, softmax_grad
    >>> probs = softmax(np.log([1.0, 2.0, 5.0]))
    >>> softmax_grad(np.array([1.0, 0.0, 0.0]), probs)
    array([ 0.109375, -0.03125 , -0.078125])
    """
    if adapter_of(grad_output) is not None:
        return adapted("softmax_grad", locals())
    with on_device_of(grad_output):
        return _vjp("softmax_grad", "probs", 0, grad_output, probs, axis, where, out, n_threads)


@_front.register
def log_softmax_grad(
    grad_output: Any,
    log_probs: Any,
    axis: Axis = -1,
    *,
    where: Any = None,
    out: np.ndarray | None = None,
    n_threads: int | None = None,
) -> Any:
    r"""Gradient with respect to the input of `log_softmax`, from its saved output.

    Parameters
    ----------
    grad_output : array_like
        Gradient of a scalar with respect to the log-probabilities, of the shape and dtype of log_probs.
    log_probs : array_like
        What `log_softmax` returned, in nats, of any shape and any real dtype as there.
    axis : int, tuple of int or None, optional
        The axis of that call.
    where : array_like of bool, optional
        The mask of that call. Entries that are False get 0, and their grad_output is ignored.
    out : ndarray, optional
        Array of the result's shape and dtype to write to; it may be either input itself.
    n_threads : int, optional
        At most so many threads; by default as `set_num_threads` and OpenMP say.

    Returns
    -------
    ndarray or scalar
        Vector-Jacobian product, of the shape of log_probs.

    Raises
    ------
    TypeError, ValueError, numpy.exceptions.AxisError
        As in `softmax_grad`.

    See Also
    --------
    softmax_grad, cross_entropy_grad

    Notes
    -----
    .. math:: g_i - e^{\ell_i} \sum_j g_j

    for :math:`g` the upstream gradient and :math:`\ell` the log-probabilities.

    Examples
    --------
    >>> import numpy as np
    >>> from fastsoftmax import log_softmax, log_softmax_grad
    >>> log_probs = log_softmax(np.log([1.0, 2.0, 5.0]))
    >>> log_softmax_grad(np.array([0.0, 0.0, 1.0]), log_probs).round(6)
    array([-0.125, -0.25 ,  0.375])
    """
    if adapter_of(grad_output) is not None:
        return adapted("log_softmax_grad", locals())
    with on_device_of(grad_output):
        return _vjp("log_softmax_grad", "log_probs", -np.inf, grad_output, log_probs, axis, where, out, n_threads)
