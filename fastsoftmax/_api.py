"""softmax, log_softmax and logsumexp in general: every dtype, layout and option.

The checks come first, so that nothing is written when an argument is wrong. Then the array is brought before a kernel
(``_layout``), and the backend in use (``_registry``) computes. The compiled functions of ``_native`` take the plain
calls ahead of these: `register` leaves the compiled function in the place of the one that it decorates.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fastsoftmax import _front, _threads, reference
from fastsoftmax._arguments import as_array, as_real, backend_for, check_out, check_where, on_device_of, plain, result
from fastsoftmax._layout import (
    arrange,
    hidden_by,
    hide,
    is_native,
    loss_dtype,
    normalize_axes,
    output_like,
    plain_output,
    plain_slices,
)
from fastsoftmax.adapters import adapted, adapter_of

Axis = int | Sequence[int] | None


def _normalized(
    function: str, hidden: float, x: Any, axis: Axis, where: Any, out: np.ndarray | None, n_threads: int | None
) -> Any:
    """Softmax and log_softmax, which differ in the kernel and in what a hidden entry gets."""
    slices = plain_slices(x, axis) if where is None else None
    target = plain_output(out, x) if slices else None
    if target is not None:
        getattr(backend_for(x), function)(x.reshape(slices), target.reshape(slices), _threads.requested(n_threads))
        return target
    given, x = x, as_real(x, "x")
    if x is not given and where is None:
        return _front.public(function)(x, axis, out=out, n_threads=n_threads)  # now it may be a plain call
    axes = normalize_axes(axis, x.ndim)
    where = check_where(where, x, out)
    dtype = x.dtype.newbyteorder("=")
    check_out(out, x, x.shape, dtype)
    n_threads = _threads.requested(n_threads)
    if not is_native(dtype):
        return result(getattr(reference, function)(np.atleast_1d(x), axes, where=where).reshape(x.shape), out)
    if x.size == 0:
        return result(np.empty_like(x, dtype), out)
    source, order = arrange(np.atleast_1d(hidden_by(where, x, -np.inf)), axes)
    plain_out = None if out is None else np.atleast_1d(plain(out))
    target = output_like(source, order, plain_out, [source])
    getattr(backend_for(x), function)(order.view(source), order.view(target), n_threads)
    if where is not None:
        hide(target, np.atleast_1d(where), hidden)
    return result(target if x.ndim else target.reshape(()), out)


@_front.register
def softmax(
    x: Any, axis: Axis = -1, *, where: Any = None, out: np.ndarray | None = None, n_threads: int | None = None
) -> Any:
    r"""Probabilities proportional to the exponentials of x along an axis.

    Parameters
    ----------
    x : array_like
        Logits, of any shape and any real dtype. float32, float64, float16 and bfloat16 (ml_dtypes) keep their
        dtype, the two halves being computed in float32 and rounded once; integers and bool are converted to float64.
        longdouble is computed by NumPy.
    axis : int, tuple of int or None, optional
        Axis or axes that sum to 1; None for all of them.
    where : array_like of bool, optional
        Broadcasts to x. Entries that are False are left out, whatever they hold, and get probability 0.
    out : ndarray, optional
        Array of the result's shape and dtype to write to; it may be x itself.
    n_threads : int, optional
        At most so many threads; by default as `set_num_threads` and OpenMP say.

    Returns
    -------
    ndarray or scalar
        Of the shape of x.

    Raises
    ------
    TypeError
        For a dtype that is not real, a masked array, an array of another library, or a wrong dtype of out or where.
    ValueError
        For a wrong shape of out or where, an out that is read-only or overlaps itself, duplicate axes, or n_threads
        below 1.
    numpy.exceptions.AxisError
        For an axis out of range.

    See Also
    --------
    log_softmax, logsumexp

    Notes
    -----
    .. math:: p_i = e^{x_i - m} / \sum_j e^{x_j - m}, \qquad m = \max_j x_j

    The result is within 4 ulp of the exact one in float32 and float64 [1]_, and has the same bits whatever the batch
    around it and the number of threads. A slice that holds NaN or +inf, or -inf alone, gives NaN over that slice; a
    slice that is hidden whole gives 0.

    References
    ----------
    .. [1] P. Blanchard, D. J. Higham, N. J. Higham, "Accurately computing the log-sum-exp and softmax functions",
       IMA J. Numer. Anal. 41 (2021), gives the error analysis that this one improves on.

    Examples
    --------
    >>> import numpy as np
    >>> from fastsoftmax import softmax
    >>> softmax(np.array([3.0, 1.0, 0.2])).round(3)
    array([0.836, 0.113, 0.051])
    >>> softmax([[1, 2, 3], [1001, 1002, 1003]], axis=1).round(3)
    array([[0.09 , 0.245, 0.665],
           [0.09 , 0.245, 0.665]])
    >>> softmax(np.zeros(4), where=[True, True, False, False])
    array([0.5, 0.5, 0. , 0. ])
    """
    if adapter_of(x) is not None:
        return adapted("softmax", locals())
    with on_device_of(x):
        return _normalized("softmax", 0, x, axis, where, out, n_threads)


@_front.register
def log_softmax(
    x: Any, axis: Axis = -1, *, where: Any = None, out: np.ndarray | None = None, n_threads: int | None = None
) -> Any:
    r"""Logarithms of the probabilities that `softmax` gives, without the loss of digits of log(softmax(x)).

    Parameters
    ----------
    x : array_like
        Logits, of any shape and any real dtype, as in `softmax`.
    axis : int, tuple of int or None, optional
        Axis or axes whose exponentials sum to 1; None for all of them.
    where : array_like of bool, optional
        Broadcasts to x. Entries that are False are left out, whatever they hold, and get -inf.
    out : ndarray, optional
        Array of the result's shape and dtype to write to; it may be x itself.
    n_threads : int, optional
        At most so many threads; by default as `set_num_threads` and OpenMP say.

    Returns
    -------
    ndarray or scalar
        Of the shape of x, in nats.

    Raises
    ------
    TypeError, ValueError, numpy.exceptions.AxisError
        As in `softmax`.

    See Also
    --------
    softmax, logsumexp

    Notes
    -----
    .. math:: \log p_i = -\bigl((m - x_i) + \operatorname{log1p}(r)\bigr), \qquad r = \sum_{j \ne k} e^{x_j - m}

    with :math:`k` the first index of the maximum :math:`m`. Neither term is negative, so nothing cancels, and r is
    summed without the maximum: a dominant logit keeps its digits. The error is at most 4 ulp in float32 and float64.

    Examples
    --------
    >>> import numpy as np
    >>> from fastsoftmax import log_softmax
    >>> log_softmax(np.array([0.0, 0.0]))
    array([-0.69314718, -0.69314718])
    >>> log_softmax(np.array([50.0, 0.0]))
    array([-1.92874985e-22, -5.00000000e+01])
    """
    if adapter_of(x) is not None:
        return adapted("log_softmax", locals())
    with on_device_of(x):
        return _normalized("log_softmax", -np.inf, x, axis, where, out, n_threads)


@_front.register
def logsumexp(
    x: Any,
    axis: Axis = -1,
    *,
    b: Any = None,
    keepdims: bool = False,
    return_sign: bool = False,
    where: Any = None,
    out: np.ndarray | None = None,
    n_threads: int | None = None,
) -> Any:
    r"""Logarithm of the sum of the exponentials of x along an axis.

    Parameters
    ----------
    x : array_like
        Of any shape and any real dtype, as in `softmax`, or complex.
    axis : int, tuple of int or None, optional
        Axis or axes to sum over; None for all of them.
    b : array_like, optional
        Broadcasts with x: factors of the exponentials, which may be negative or 0.
    keepdims : bool, optional
        Leave the axes in the result with size 1.
    return_sign : bool, optional
        Return the sign of the sum too, and the logarithm of its magnitude.
    where : array_like of bool, optional
        Broadcasts to x. Entries that are False are left out, whatever they hold.
    out : ndarray, optional
        Array of the result's shape and dtype to write the logarithm to.
    n_threads : int, optional
        At most so many threads; by default as `set_num_threads` and OpenMP say.

    Returns
    -------
    ndarray or scalar
        Of the shape of x less the axes. With return_sign a tuple of it and the signs (0 for an empty sum).

    Raises
    ------
    TypeError, ValueError, numpy.exceptions.AxisError
        As in `softmax`.

    See Also
    --------
    softmax, log_softmax

    Notes
    -----
    .. math:: m + \operatorname{log1p}(r), \qquad r = \sum_{j \ne k} e^{x_j - m}

    with :math:`k` the first index of the maximum :math:`m`, within 4 eps (\|m\| + log1p(r)) in float32 and float64.
    An empty sum, or one of -inf alone, gives -inf; NaN gives NaN, and +inf without NaN gives +inf. With b, and for
    longdouble and complex numbers, NumPy computes log(sum b exp(x - m)) + m, without that bound.

    Examples
    --------
    >>> import numpy as np
    >>> from fastsoftmax import logsumexp
    >>> logsumexp(np.array([1000.0, 1000.0]))
    np.float64(1000.6931471805599)
    >>> logsumexp(np.log([[1.0, 2.0], [3.0, 5.0]]), axis=0).round(6)
    array([1.386294, 1.94591 ])
    """
    if adapter_of(x) is not None:
        return adapted("logsumexp", locals())
    with on_device_of(x):
        return _logsumexp(x, axis, b, keepdims, return_sign, where, out, n_threads)


def _logsumexp(
    x: Any, axis: Axis, b: Any, keepdims: bool, return_sign: bool, where: Any, out: Any, n_threads: int | None
) -> Any:
    slices = plain_slices(x, axis)
    if slices and b is None and not (keepdims or return_sign) and where is None and out is None:
        lse = np.empty(x.shape[:axis] + x.shape[axis:][1:], loss_dtype(x.dtype))
        backend_for(x).logsumexp(x.reshape(slices), lse.reshape(-1), _threads.requested(n_threads))
        return _narrowed(lse, x.dtype)[()]
    x = as_array(x, "x")
    if x.dtype.kind != "c":
        x = as_real(x, "x")
    if b is not None:
        factors = as_array(b, "b", x)
        if factors.dtype.kind != "c":
            as_real(factors, "b")  # for its TypeError
        try:
            x = np.broadcast_to(x, np.broadcast_shapes(x.shape, factors.shape))
        except ValueError:
            raise ValueError(f"b: expected a shape that broadcasts with {x.shape}, got {factors.shape}") from None
    axes = normalize_axes(axis, x.ndim)
    n_threads = _threads.requested(n_threads)
    where = check_where(where, x)
    dtype = x.dtype.newbyteorder("=")
    shape = tuple(1 if d in axes else size for d, size in enumerate(x.shape) if keepdims or d not in axes)
    sign = None
    if b is not None or not is_native(dtype):
        values = reference.logsumexp(
            np.atleast_1d(x), axes, b=b, keepdims=keepdims and x.ndim > 0, return_sign=return_sign, where=where
        )
        values, sign = values if return_sign else (values, None)
        values = as_array(values, "x")
        check_out(out, x, shape, values.dtype)
    else:
        check_out(out, x, shape, dtype)
        source, order = arrange(np.atleast_1d(hidden_by(where, x, -np.inf)), axes)
        lse = np.empty(order.batch_size(source), loss_dtype(dtype), like=source)
        if x.size == 0:
            lse[...] = -np.inf
        else:
            backend_for(x).logsumexp(order.view(source), lse, n_threads)
        if return_sign:
            sign = (lse > -np.inf).astype(dtype)
            sign[lse != lse] = np.nan
            sign = order.restore(sign, source.shape).reshape(shape)
        lse = order.restore(lse, source.shape).reshape(shape)
        values = _narrowed(lse, dtype)
    values = result(values, out)
    return (values, sign[()]) if return_sign else values


def _narrowed(lse: Any, dtype: np.dtype) -> Any:
    if lse.dtype == dtype:
        return lse
    with np.errstate(over="ignore"):  # inf is what a float16 beyond its range is
        return lse.astype(dtype)
