"""The public functions in general: every dtype, layout and option.

The checks come first, so that nothing is written when an argument is wrong. Then the array is brought before a kernel
(``_layout``), and the backend in use (``_registry``) computes. The compiled functions of ``_native`` take the plain calls
ahead of these; they register the functions here for the rest, and show their docstrings.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.exceptions import AxisError

from fastsoftmax import _native, _registry, reference
from fastsoftmax._arguments import (
    MAX_INDEX,
    as_array,
    as_real,
    check_index,
    check_labels,
    check_out,
    check_where,
)
from fastsoftmax._layout import arrange, is_native, loss_dtype, normalize_axes, output_like

Axis = int | Sequence[int] | None


def _result(values: np.ndarray, out: np.ndarray | None) -> Any:
    """Give out, filled, if there is one; else the values, a scalar if they are 0-d."""
    if out is None:
        return values[()]
    if values is not out:
        out[...] = values
    return out


def _hide(x: np.ndarray, where: np.ndarray | None) -> np.ndarray:
    """Give x with -inf, whose exponential is 0, in the place of hidden entries."""
    if where is None:
        return x
    shown = x.astype(x.dtype.newbyteorder("="), order="K", copy=True)
    shown[~where] = -np.inf
    return shown


def _normalized(
    function: str, hidden: float, x: Any, axis: Axis, where: Any, out: np.ndarray | None, n_threads: int | None
) -> Any:
    """Softmax and log_softmax, which differ in the kernel and in what a hidden entry gets."""
    x = as_real(x, "x")
    axes = normalize_axes(axis, x.ndim)
    where = check_where(where, x.shape)
    dtype = x.dtype.newbyteorder("=")
    check_out(out, x.shape, dtype)
    n_threads = _native.threads_from(n_threads)
    if not is_native(dtype):
        return _result(getattr(reference, function)(np.atleast_1d(x), axes, where=where).reshape(x.shape), out)
    if x.size == 0:
        return _result(np.empty(x.shape, dtype), out)
    source, order = arrange(np.atleast_1d(_hide(x, where)), axes)
    target = output_like(source, order, None if out is None else np.atleast_1d(out), [source])
    getattr(_registry.current(), function)(order.view(source), order.view(target), n_threads)
    if where is not None:
        np.copyto(target, hidden, where=~np.atleast_1d(where))
    return _result(target if x.ndim else target.reshape(()), out)


def softmax(
    x: Any, axis: Axis = -1, *, where: Any = None, out: np.ndarray | None = None, n_threads: int | None = None
) -> Any:
    r"""Probabilities proportional to the exponentials of x along an axis.

    Parameters
    ----------
    x : array_like
        Logits, of any shape and any real dtype. float32, float64, float16 and bfloat16 (ml_dtypes) keep their
        dtype, the two halves being computed in float32 and rounded once; integers and bool are converted to float64.
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
    return _normalized("softmax", 0, x, axis, where, out, n_threads)


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
    return _normalized("log_softmax", -np.inf, x, axis, where, out, n_threads)


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
        Broadcasts with x: factors of the exponentials, which may be negative or 0. Computed by NumPy.
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
    An empty sum, or one of -inf alone, gives -inf; NaN gives NaN, and +inf without NaN gives +inf.

    Examples
    --------
    >>> import numpy as np
    >>> from fastsoftmax import logsumexp
    >>> logsumexp(np.array([1000.0, 1000.0]))
    np.float64(1000.6931471805599)
    >>> logsumexp(np.log([[1.0, 2.0], [3.0, 5.0]]), axis=0).round(6)
    array([1.386294, 1.94591 ])
    """
    x = as_array(x, "x")
    if x.dtype.kind != "c":
        x = as_real(x, "x")
    axes = normalize_axes(axis, x.ndim)
    n_threads = _native.threads_from(n_threads)
    if b is not None:
        b = as_array(b, "b")
        if b.dtype.kind != "c":
            b = as_real(b, "b")
        shape = np.broadcast_shapes(x.shape, b.shape)
        if len(shape) > x.ndim:
            axes = normalize_axes(axis, len(shape))
        x = np.broadcast_to(x, shape)
    where = check_where(where, x.shape)
    dtype = x.dtype.newbyteorder("=")
    shape = tuple(1 if d in axes else size for d, size in enumerate(x.shape) if keepdims or d not in axes)
    sign = None
    if b is not None or not is_native(dtype):
        values = reference.logsumexp(
            np.atleast_1d(x), axes, b=b, keepdims=keepdims and x.ndim > 0, return_sign=return_sign, where=where
        )
        values, sign = values if return_sign else (values, None)
        values = np.asarray(values)
        check_out(out, shape, values.dtype)
    else:
        check_out(out, shape, dtype)
        source, order = arrange(np.atleast_1d(_hide(x, where)), axes)
        lse = np.full(order.batch_size(source), -np.inf, loss_dtype(dtype))
        if x.size:
            _registry.current().logsumexp(order.view(source), lse, n_threads)
        values = order.restore(lse, source.shape).astype(dtype, copy=False).reshape(shape)
        if return_sign:
            sign = np.where(np.isneginf(values), 0, np.where(np.isnan(values), values, 1)).astype(dtype)
    values = _result(values, out)
    return (values, sign[()]) if return_sign else values


def _not_yet(**options: Any) -> None:
    for name, value in options.items():
        if value is not None and not (isinstance(value, (int, float)) and value == 0):
            raise NotImplementedError(f"{name} comes with a later release")


def _entropy(
    logits: Any,
    labels: Any,
    axis: int,
    ignore_index: int,
    reduction: str,
    out: np.ndarray | None,
    n_threads: int | None,
    *,
    loss: bool,
    grad: bool,
    lse: bool,
) -> Any:
    """Compute what is asked for of loss, gradient and lse: one alone, or a tuple of them."""
    logits = as_real(logits, "logits")
    if logits.ndim == 0:
        raise AxisError(0, 0, "logits: expected at least one dimension, got a 0-d array")
    (axis,) = normalize_axes(check_index(axis, "axis"), logits.ndim)
    dtype = logits.dtype.newbyteorder("=")
    labels = check_labels(labels, logits, axis)
    ignore_index = check_index(ignore_index, "ignore_index")
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"reduction: expected 'mean', 'sum' or 'none', got {reduction!r}")
    check_out(out, logits.shape, dtype)
    n_threads = _native.threads_from(n_threads)
    backend = _registry.current()
    # Labels of uint64 beyond int64 are no classes, whatever they are clipped to.
    signed = np.minimum(labels, MAX_INDEX) if labels.dtype == np.uint64 else labels
    signed = np.array(signed, np.int64, order="C", copy=True)
    valid = backend.check_labels(signed, logits.shape[axis], ignore_index)
    divisor = valid if reduction == "mean" else 1

    if not is_native(dtype):
        results = reference.cross_entropy_with_grad(
            logits, signed, axis, ignore_index=ignore_index, reduction=reduction, return_lse=True
        )
        losses, grads, lses = results
        values = [losses, _result(grads, out) if grad else None, lses]
    else:
        source, order = arrange(logits, (axis,))
        count = order.batch_size(source)
        losses, lses = (np.zeros(count, loss_dtype(dtype)) if wanted else None for wanted in (loss, lse))
        target = output_like(source, order, out, [source]) if grad else None
        backend.cross_entropy(
            order.view(source),
            np.ascontiguousarray(order.slices(signed)),
            ignore_index,
            1.0 / divisor if divisor else 0.0,
            losses,
            None if target is None else order.view(target),
            lses,
            n_threads,
        )
        if losses is not None:
            reduced = reduction != "none"
            losses = backend.reduced(losses, divisor) if reduced else order.restore(losses, source.shape)[()]
        values = [
            losses,
            None if target is None else _result(target, out),
            None if lses is None else order.restore(lses, source.shape)[()],
        ]
    chosen = [value for value, wanted in zip(values, (loss, grad, lse), strict=True) if wanted]
    return chosen[0] if len(chosen) == 1 else tuple(chosen)


def cross_entropy(
    logits: Any,
    labels: Any,
    axis: int = -1,
    *,
    weight: Any = None,
    sample_weight: Any = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    reduction: str = "mean",
    return_lse: bool = False,
    n_threads: int | None = None,
    validate: bool | None = None,
) -> Any:
    r"""Cross-entropy of logits and class indices.

    Parameters
    ----------
    logits : array_like
        Of any shape, K classes along axis, and any real dtype as in `softmax`.
    labels : array_like of int
        Class indices 0..K-1 or ignore_index, of any integer dtype, in the shape of logits less its axis.
    axis : int, optional
        Axis of the classes.
    weight, sample_weight : None
        Weights of the classes and of the slices come with a later release.
    ignore_index : int, optional
        A slice with this label has loss 0, whatever it holds, and is not counted in the mean.
    label_smoothing, z_loss : float, optional
        Other values than 0 come with a later release.
    reduction : {"mean", "sum", "none"}, optional
        The mean over the labels that are not ignored (0 if all are), the sum, or each slice's own loss.
    return_lse : bool, optional
        Return the logsumexp of each slice too.
    n_threads : int, optional
        At most so many threads; by default as `set_num_threads` and OpenMP say.
    validate : bool, optional
        On the CPU labels are always checked.

    Returns
    -------
    scalar or ndarray
        The loss in nats: float64 for float64 logits, else float32 (logits converted to float64 count as such). With
        reduction="none" of the shape of labels. With return_lse a tuple of it and the logsumexps.

    Raises
    ------
    IndexError
        For a label that is neither a class nor ignore_index: names the first, its position and K.
    TypeError
        For a dtype that is not real, labels that are no integers, or arrays of another library.
    ValueError
        For labels of a wrong shape, an unknown reduction, or n_threads below 1.
    numpy.exceptions.AxisError
        For an axis out of range.
    NotImplementedError
        For the options above that come with a later release, and for labels of as many dimensions as the logits.

    See Also
    --------
    cross_entropy_with_grad : loss and gradient in one pass.

    Notes
    -----
    .. math:: \operatorname{logsumexp}(x) - x_y = (m - x_y) + \operatorname{log1p}(r)

    with r as in `logsumexp`: the definition of ``torch.nn.functional.cross_entropy``, but 0 rather than NaN for the mean
    of nothing.

    Examples
    --------
    >>> import numpy as np
    >>> from fastsoftmax import cross_entropy
    >>> logits = np.array([[2.0, 0.0], [0.0, 0.0], [5.0, 5.0]])
    >>> cross_entropy(logits, [0, 1, -100], reduction="none").round(6)
    array([0.126928, 0.693147, 0.      ])
    >>> cross_entropy(logits, [0, 1, -100]).round(6)
    np.float64(0.410038)
    """
    _not_yet(weight=weight, sample_weight=sample_weight, label_smoothing=label_smoothing, z_loss=z_loss)
    return _entropy(
        logits, labels, axis, ignore_index, reduction, None, n_threads, loss=True, grad=False, lse=return_lse
    )


def cross_entropy_grad(
    logits: Any,
    labels: Any,
    axis: int = -1,
    *,
    weight: Any = None,
    sample_weight: Any = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    reduction: str = "mean",
    n_threads: int | None = None,
    validate: bool | None = None,
    lse: Any = None,
    grad_output: Any = None,
    out: np.ndarray | None = None,
) -> Any:
    r"""Gradient of `cross_entropy` with respect to the logits.

    Parameters
    ----------
    logits, labels, axis, weight, sample_weight, ignore_index, label_smoothing, z_loss, reduction, n_threads, validate
        As in `cross_entropy`. With reduction="none" the gradient is each slice's own.
    lse, grad_output : None
        A saved logsumexp and an upstream gradient come with a later release.
    out : ndarray, optional
        Array of the gradient's shape and dtype to write to; it may be logits itself.

    Returns
    -------
    ndarray
        Of the shape and dtype of logits.

    Raises
    ------
    IndexError, TypeError, ValueError, numpy.exceptions.AxisError, NotImplementedError
        As in `cross_entropy`, and for an unfit out as in `softmax`.

    See Also
    --------
    cross_entropy_with_grad : loss and gradient in one pass.

    Notes
    -----
    .. math:: p_i - [i = y], \qquad \text{at the label} \quad -\sum_{j \ne y} p_j

    over the number of labels that count with reduction="mean". The second form keeps the digits of 1 - p near p = 1.

    Examples
    --------
    >>> import numpy as np
    >>> from fastsoftmax import cross_entropy_grad
    >>> cross_entropy_grad(np.array([[2.0, 0.0], [0.0, 0.0]]), [0, 1]).round(6)
    array([[-0.059601,  0.059601],
           [ 0.25    , -0.25    ]])
    """
    _not_yet(weight=weight, sample_weight=sample_weight, label_smoothing=label_smoothing, z_loss=z_loss)
    _not_yet(lse=lse, grad_output=grad_output)
    return _entropy(logits, labels, axis, ignore_index, reduction, out, n_threads, loss=False, grad=True, lse=False)


def cross_entropy_with_grad(
    logits: Any,
    labels: Any,
    axis: int = -1,
    *,
    weight: Any = None,
    sample_weight: Any = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    reduction: str = "mean",
    return_lse: bool = False,
    n_threads: int | None = None,
    validate: bool | None = None,
    out: np.ndarray | None = None,
) -> Any:
    """Cross-entropy and its gradient with respect to the logits, in one pass over them.

    Parameters
    ----------
    logits, labels, axis, weight, sample_weight, ignore_index, label_smoothing, z_loss, reduction, return_lse
        As in `cross_entropy`. With reduction="none" the gradient is each slice's own.
    n_threads, validate
        As in `cross_entropy`.
    out : ndarray, optional
        Array of the gradient's shape and dtype to write to; with logits itself the gradient takes their place.

    Returns
    -------
    tuple
        (loss, gradient), or (loss, gradient, logsumexps) with return_lse.

    Raises
    ------
    IndexError, TypeError, ValueError, numpy.exceptions.AxisError, NotImplementedError
        As in `cross_entropy`, and for an unfit out as in `softmax`.

    Notes
    -----
    The formulas are those of `cross_entropy` and `cross_entropy_grad`, and so are the bits of the results.

    Examples
    --------
    >>> import numpy as np
    >>> from fastsoftmax import cross_entropy_with_grad
    >>> logits = np.array([[2.0, 0.0], [0.0, 0.0]])
    >>> loss, grad = cross_entropy_with_grad(logits, [0, 1], out=logits)
    >>> loss.round(6), grad is logits
    (np.float64(0.410038), True)
    """
    _not_yet(weight=weight, sample_weight=sample_weight, label_smoothing=label_smoothing, z_loss=z_loss)
    return _entropy(logits, labels, axis, ignore_index, reduction, out, n_threads, loss=True, grad=True, lse=return_lse)


def set_num_threads(n_threads: int | None) -> None:
    """Set how many threads a call uses that names no number itself.

    Parameters
    ----------
    n_threads : int or None
        At most so many, and never more than the machine has; None for OpenMP's own number (OMP_NUM_THREADS,
        threadpoolctl), which is the default.

    Raises
    ------
    ValueError
        If n_threads is below 1.
    TypeError
        If it is no int.

    Examples
    --------
    >>> import fastsoftmax
    >>> fastsoftmax.set_num_threads(1)
    >>> fastsoftmax.get_num_threads()
    1
    >>> fastsoftmax.set_num_threads(None)
    """
    _registry.current().set_num_threads(n_threads)


def get_num_threads() -> int:
    """Say how many threads a call may use that names no number itself.

    Returns
    -------
    int

    Examples
    --------
    >>> import fastsoftmax
    >>> fastsoftmax.get_num_threads() >= 1
    True
    """
    return _registry.current().get_num_threads()


def show_config() -> None:
    """Print the version, the backends found with what they run on, and the number of threads.

    Examples
    --------
    >>> import fastsoftmax
    >>> fastsoftmax.show_config()  # doctest: +ELLIPSIS
    fastsoftmax ...
    """
    from fastsoftmax import __version__

    print(f"fastsoftmax {__version__}, NumPy {np.__version__}")
    for name, device in _registry.BACKENDS.items():
        chosen = " (in use)" if _registry.get_backend(device) == name else ""
        print(f"  {device} backend {name}{chosen}: {_registry.load(name).describe()}")
    print(f"  threads: {get_num_threads()}")


for _function in (
    softmax,
    log_softmax,
    logsumexp,
    cross_entropy,
    cross_entropy_grad,
    cross_entropy_with_grad,
):
    _native.register(_function)
