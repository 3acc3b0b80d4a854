"""The cross-entropy family in general, as ``_api`` does it for softmax."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastsoftmax import _front
from fastsoftmax._arguments import on_device_of
from fastsoftmax._entropy import entropy
from fastsoftmax.adapters import adapted, adapter_of


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
        return entropy(
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
        return entropy(
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
        return entropy(
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
