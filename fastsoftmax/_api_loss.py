"""The cross-entropy family in general, as ``_api`` does it for softmax."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.exceptions import AxisError

from fastsoftmax import _front, _threads, reference
from fastsoftmax._arguments import as_real, backend_for, check_index, check_out, on_device_of, on_gpu, plain, result
from fastsoftmax._layout import (
    arrange,
    arrange_beside,
    is_native,
    loss_dtype,
    normalize_axes,
    output_like,
    plain_output,
    plain_slices,
)
from fastsoftmax._loss_arguments import (
    check_labels,
    check_number,
    check_numbers,
    check_reduction,
    mean_divisor,
)
from fastsoftmax.adapters import adapted, adapter_of


def _entropy(
    logits: Any,
    labels: Any,
    axis: int,
    *,
    weight: Any,
    sample_weight: Any,
    ignore_index: int,
    label_smoothing: float,
    z_loss: float,
    reduction: str,
    n_threads: int | None,
    validate: bool | None,
    out: np.ndarray | None = None,
    given_lse: Any = None,
    grad_output: Any = None,
    loss: bool,
    grad: bool,
    lse: bool,
) -> Any:
    """Compute what is asked for of loss, gradient and lse: one alone, or a tuple of them."""
    logits = as_real(logits, "logits")
    axis = check_index(axis, "axis")
    if logits.ndim == 0:  # no axis to hold classes, where softmax takes -1 and 0
        raise AxisError(axis, 0)
    (axis,) = normalize_axes(axis, logits.ndim)
    dtype = logits.dtype.newbyteorder("=")
    by_kernels = is_native(dtype) or logits.size == 0
    computing = loss_dtype(dtype) if is_native(dtype) else dtype
    batch = logits.shape[:axis] + logits.shape[axis + 1 :]
    gpu = on_gpu(logits)
    indices, targets, ignore_index = check_labels(labels, logits, axis, ignore_index, not gpu or bool(validate))
    check_reduction(reduction)
    label_smoothing = check_number(label_smoothing, "label_smoothing", 0, 1)
    z_loss = check_number(z_loss, "z_loss")
    weight = check_numbers(weight, "weight", logits.shape[axis : axis + 1], computing, logits)
    sample_weight = check_numbers(sample_weight, "sample_weight", batch, computing, logits)
    given_lse = check_numbers(given_lse, "lse", batch, computing, logits)
    if grad_output is not None:
        per_slice = reduction == "none" and np.ndim(grad_output) > 0
        grad_output = check_numbers(grad_output, "grad_output", batch if per_slice else (), computing, logits)
    slices = plain_slices(logits, axis) if targets is None else None
    target = plain_output(out, logits) if slices and grad else None
    if target is None:
        check_out(out, logits, logits.shape, dtype)
    n_threads = _threads.requested(n_threads)
    backend = backend_for(logits)
    options = {"label_smoothing": label_smoothing, "z_loss": z_loss, "weight": weight}

    if not by_kernels:
        options |= {"sample_weight": sample_weight, "ignore_index": ignore_index, "reduction": reduction}
        arguments = logits, targets if indices is None else indices, axis
        if loss:
            values = list(reference.cross_entropy_with_grad(*arguments, return_lse=True, **options))
        else:
            values = [None, None, None]
            values[1] = reference.cross_entropy_grad(*arguments, lse=given_lse, grad_output=grad_output, **options)
        if grad:
            values[1] = result(values[1], out)
    else:
        divisor = 1.0
        if reduction == "mean" and logits.size:
            count = math.prod(batch)
            if gpu:  # where it stays: the kernels divide
                divisor = backend.mean_divisor(indices, ignore_index, weight, sample_weight, count)
            else:
                terms = mean_divisor(indices, weight, sample_weight, count)
                divisor = float(terms if np.ndim(terms) == 0 else backend.reduced(terms.reshape(-1), 1))
        # The chain rule's factors beside the losses' own.
        scales = {"divisor": divisor} if gpu else {"grad_scale": 1 / divisor if divisor else 0.0}
        if grad_output is not None and grad_output.ndim == 0 and not gpu:
            scales["grad_scale"] *= float(grad_output)
        elif grad_output is not None:
            factors = grad_output if sample_weight is None else sample_weight * grad_output
            sample_weight = np.broadcast_to(factors, batch)
        source, order = arrange(logits, (axis,))

        def in_order(numbers: np.ndarray | None) -> np.ndarray | None:
            if numbers is None:
                return None
            flat = order.slices(numbers).reshape(-1)
            return flat if flat.flags.c_contiguous else flat.copy()  # (a broadcast one has no strides)

        def in_slices(a: np.ndarray) -> np.ndarray:
            return a.reshape(slices) if slices else order.view(a)

        if targets is not None:
            if targets.dtype.newbyteorder("=") != dtype:
                targets = targets.astype(computing, copy=False)
            targets = arrange_beside(targets, order)
        count = order.batch_size(source)
        losses = np.empty(count, computing, like=source) if loss else None
        lses = np.empty(count, computing, like=source) if lse else None
        if grad and target is None:
            target = output_like(source, order, None if out is None else plain(out), [source], apart=targets)
        if logits.size == 0:
            if losses is not None:
                losses[...] = 0
            if lses is not None:
                lses[...] = -np.inf
        else:
            backend.cross_entropy(
                in_slices(source),
                losses,
                None if target is None else in_slices(target),
                lses,
                labels=in_order(indices),
                ignore_index=ignore_index,
                targets=None if targets is None else order.view(targets),
                sample_weight=in_order(sample_weight),
                given_lse=in_order(given_lse),
                n_threads=n_threads,
                **scales,
                **options,
            )
        if target is not None and not gpu and divisor == 0:
            target[...] = 0  # of nothing that counts, whatever it holds
        if losses is None:
            loss_value = None
        elif reduction == "none":
            loss_value = order.restore(losses, source.shape)[()]
        elif logits.size:
            loss_value = backend.reduced(losses, divisor)
        else:
            loss_value = np.zeros((), computing, like=source)[()]
        values = [
            loss_value,
            None if target is None else result(target, out),
            None if lses is None else order.restore(lses, source.shape)[()],
        ]
    chosen = [value for value, wanted in zip(values, (loss, grad, lse), strict=True) if wanted]
    return chosen[0] if len(chosen) == 1 else tuple(chosen)


@_front.register
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
    r"""Cross-entropy of logits and labels.

    Parameters
    ----------
    logits : array_like
        Of any shape, K classes along axis, and any real dtype as in `softmax`.
    labels : array_like
        Class indices 0..K-1 or ignore_index, of any integer dtype, in the shape of logits less its axis; or
        probabilities of the classes, of any real dtype, in the shape of logits.
    axis : int, optional
        Axis of the classes.
    weight : array_like, optional
        Weights of the K classes, by default 1.
    sample_weight : array_like, optional
        Weights of the slices, in the shape of logits less its axis, by default 1.
    ignore_index : int, optional
        A slice with this index for a label has loss 0, whatever it holds, and is not counted in the mean.
    label_smoothing : float, optional
        Share of the target, from 0 to 1, that is spread evenly over the classes.
    z_loss : float, optional
        Factor of the square of the logsumexp that is added to the loss, so that the logits do not drift.
    reduction : {"mean", "sum", "none"}, optional
        The mean, the sum, or each slice's own loss. The mean is over the weights of the labels that are not ignored,
        or of the slices for probabilities; 0 if they add up to 0.
    return_lse : bool, optional
        Return the logsumexp of each slice too.
    n_threads : int, optional
        At most so many threads; by default as `set_num_threads` and OpenMP say.
    validate : bool, optional
        Whether labels are checked. On the CPU they always are; on a GPU, where that means to wait for the device, only
        if this is True: else the loss and the gradient of a slice with a wrong label are NaN.

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
        For a dtype that is not real, indices that are no integers, or arrays of another library.
    ValueError
        For labels or weights of a wrong shape, an option out of range, an unknown reduction, or n_threads below 1.
    numpy.exceptions.AxisError
        For an axis out of range.

    See Also
    --------
    cross_entropy_with_grad : loss and gradient in one pass.

    Notes
    -----
    With the target :math:`q = (1 - \epsilon) t + \epsilon / K` (t is one-hot for an index), the class weights w, the
    slice's weight s and :math:`v = w_y` (1 for probabilities), a slice's loss is

    .. math:: s \Bigl(\sum_c w_c q_c (\ell - x_c) + v z \ell^2\Bigr), \qquad
        \ell - x_c = (m - x_c) + \operatorname{log1p}(r)

    with r as in `logsumexp` and :math:`\ell` that logsumexp. A term of factor 0 is 0 even where the logit is -inf.
    This is the definition of ``torch.nn.functional.cross_entropy``, in any combination, but for the mean of nothing: 0
    rather than NaN. The last term is that of PaLM [1]_.

    References
    ----------
    .. [1] A. Chowdhery et al., "PaLM: scaling language modeling with pathways", JMLR 24 (2023), section 5.

    Examples
    --------
    >>> import numpy as np
    >>> from fastsoftmax import cross_entropy
    >>> logits = np.array([[2.0, 0.0], [0.0, 0.0], [5.0, 5.0]])
    >>> cross_entropy(logits, [0, 1, -100], reduction="none").round(6)
    array([0.126928, 0.693147, 0.      ])
    >>> cross_entropy(logits, [0, 1, -100]).round(6)
    np.float64(0.410038)
    >>> cross_entropy(logits, [0, 1, -100], weight=[1.0, 3.0], label_smoothing=0.1).round(6)
    np.float64(0.612437)
    """
    if adapter_of(logits) is not None:
        return adapted("cross_entropy", locals())
    with on_device_of(logits):
        return _entropy(
            logits,
            labels,
            axis,
            weight=weight,
            sample_weight=sample_weight,
            ignore_index=ignore_index,
            label_smoothing=label_smoothing,
            z_loss=z_loss,
            reduction=reduction,
            n_threads=n_threads,
            validate=validate,
            loss=True,
            grad=False,
            lse=return_lse,
        )


@_front.register
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
    lse : array_like, optional
        The logsumexps, in the shape of logits less its axis, saved from `cross_entropy`: no reduction is done then.
        Their rounding shows in the gradient, most of all at a label of probability near 1. (A number below a slice's
        largest logit is no logsumexp: the slice's gradient has no meaning then.)
    grad_output : array_like, optional
        Factor of the gradient, a number or (reduction="none") one per slice: the gradient with respect to the loss.
    out : ndarray, optional
        Array of the gradient's shape and dtype to write to; it may be logits itself.

    Returns
    -------
    ndarray
        Of the shape and dtype of logits.

    Raises
    ------
    IndexError, TypeError, ValueError, numpy.exceptions.AxisError
        As in `cross_entropy`, and for an unfit out as in `softmax`.

    See Also
    --------
    cross_entropy_with_grad : loss and gradient in one pass.

    Notes
    -----
    Without options

    .. math:: p_i - [i = y], \qquad \text{at the label} \quad -\sum_{j \ne y} p_j,

    where the second form keeps the digits of 1 - p near p = 1; in general, in the terms of `cross_entropy`,

    .. math:: s \Bigl(\Bigl(\sum_c w_c q_c + 2 v z \ell\Bigr) p_i - w_i q_i\Bigr);

    with reduction="mean" over what the losses' sum is divided by.

    Examples
    --------
    >>> import numpy as np
    >>> from fastsoftmax import cross_entropy_grad
    >>> cross_entropy_grad(np.array([[2.0, 0.0], [0.0, 0.0]]), [0, 1]).round(6)
    array([[-0.059601,  0.059601],
           [ 0.25    , -0.25    ]])
    """
    if adapter_of(logits) is not None:
        return adapted("cross_entropy_grad", locals())
    with on_device_of(logits):
        return _entropy(
            logits,
            labels,
            axis,
            weight=weight,
            sample_weight=sample_weight,
            ignore_index=ignore_index,
            label_smoothing=label_smoothing,
            z_loss=z_loss,
            reduction=reduction,
            n_threads=n_threads,
            validate=validate,
            out=out,
            given_lse=lse,
            grad_output=grad_output,
            loss=False,
            grad=True,
            lse=False,
        )


@_front.register
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
    IndexError, TypeError, ValueError, numpy.exceptions.AxisError
        As in `cross_entropy`, and for an unfit out as in `softmax`.

    Notes
    -----
    The formulas are those of `cross_entropy` and `cross_entropy_grad`; for NumPy arrays so are the bits of the results.

    Examples
    --------
    >>> import numpy as np
    >>> from fastsoftmax import cross_entropy_with_grad
    >>> logits = np.array([[2.0, 0.0], [0.0, 0.0]])
    >>> loss, grad = cross_entropy_with_grad(logits, [0, 1], out=logits)
    >>> loss.round(6), grad is logits
    (np.float64(0.410038), True)
    """
    if adapter_of(logits) is not None:
        return adapted("cross_entropy_with_grad", locals())
    with on_device_of(logits):
        return _entropy(
            logits,
            labels,
            axis,
            weight=weight,
            sample_weight=sample_weight,
            ignore_index=ignore_index,
            label_smoothing=label_smoothing,
            z_loss=z_loss,
            reduction=reduction,
            n_threads=n_threads,
            validate=validate,
            out=out,
            loss=True,
            grad=True,
            lse=return_lse,
        )
