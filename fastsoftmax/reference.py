"""The softmax family in plain NumPy: the definition, the oracle of the tests, the baseline of the benchmarks.

The functions are what a careful user would write by hand: the maximum is subtracted, the axis honoured, every option
spelled out. They compute in the dtype that they are given (float16 and bfloat16 in float32, integers in float64) and
make the temporaries that NumPy makes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

Axis = int | Sequence[int] | None


def _computable(x: Any) -> tuple[np.ndarray, np.dtype]:
    """X in the dtype that it is computed in, and the dtype of the result."""
    x = np.asarray(x)
    x = x.astype(x.dtype.newbyteorder("="), copy=False)
    if x.dtype.name in ("float16", "bfloat16"):
        return x.astype(np.float32), x.dtype
    if x.dtype.kind in "biu":
        x = x.astype(np.float64)
    return x, x.dtype


def _axes(axis: Axis) -> int | tuple[int, ...] | None:
    return axis if axis is None or not isinstance(axis, Sequence) else tuple(axis)


def _shown(x: np.ndarray, where: Any) -> tuple[np.ndarray, np.ndarray | None]:
    """X with -inf in the place of hidden entries, and `where` in the shape of x."""
    if where is None:
        return x, None
    where = np.broadcast_to(where, x.shape)
    return np.where(where, x, x.dtype.type(-np.inf)), where


def softmax(x: Any, axis: Axis = -1, *, where: Any = None) -> Any:
    """exp(x - m) / sum exp(x - m), m the maximum along axis."""
    x, dtype = _computable(x)
    x, where = _shown(x, where)
    with np.errstate(all="ignore"):
        e = np.exp(x - np.max(x, axis=_axes(axis), keepdims=True, initial=-np.inf))
        result = e / np.sum(e, axis=_axes(axis), keepdims=True)
        if where is not None:
            result = np.where(where, result, 0)
        return result.astype(dtype)[()]


def log_softmax(x: Any, axis: Axis = -1, *, where: Any = None) -> Any:
    """(x - m) - log sum exp(x - m), m the maximum along axis."""
    x, dtype = _computable(x)
    x, where = _shown(x, where)
    with np.errstate(all="ignore"):
        d = x - np.max(x, axis=_axes(axis), keepdims=True, initial=-np.inf)
        result = d - np.log(np.sum(np.exp(d), axis=_axes(axis), keepdims=True))
        if where is not None:
            result = np.where(where, result, -np.inf)
        return result.astype(dtype)[()]


def logsumexp(
    x: Any,
    axis: Axis = -1,
    *,
    b: Any = None,
    keepdims: bool = False,
    return_sign: bool = False,
    where: Any = None,
) -> Any:
    """M + log sum b exp(x - m), m the maximum of the real parts along axis; log|sum| and its sign with return_sign."""
    x, dtype = _computable(x)
    if b is not None:
        weights, weights_dtype = _computable(b)
        # Numbers and integers take the dtype of x, as they do in NumPy's own arithmetic with scalars.
        if not isinstance(b, (bool, int, float)) and np.asarray(b).dtype.kind not in "biu" and weights_dtype != dtype:
            dtype = np.result_type(dtype, weights_dtype)
        wide = np.result_type(dtype, np.float32)
        x, weights = np.broadcast_arrays(x.astype(wide, copy=False), weights.astype(wide, copy=False))
        hidden = weights == 0  # a term of weight 0 is 0, whatever its x
        where = ~hidden if where is None else ~hidden & where
    x, where = _shown(x, where)
    axes = _axes(axis)
    with np.errstate(all="ignore"):
        m = np.max(x.real, axis=axes, keepdims=True, initial=-np.inf)
        m = np.where(np.isfinite(m), m, 0)
        terms = np.exp(x - m)
        if b is not None:
            terms = np.where(where, weights * terms, 0)
        total = np.sum(terms, axis=axes, keepdims=True)
        if np.iscomplexobj(total) and return_sign:
            sign = np.where(total == 0, 0, total / np.abs(total))
            total = np.abs(total)
        else:
            sign = np.sign(total)
            if return_sign:
                total = np.abs(total)
        result = np.log(total) + m
    if not keepdims:
        result, sign = (np.squeeze(a, axis=tuple(range(a.ndim)) if axes is None else axes) for a in (result, sign))
    result_dtype = np.result_type(dtype, result.dtype) if np.iscomplexobj(result) else dtype
    if not return_sign:
        return result.astype(result_dtype)[()]
    return result.real.astype(dtype if dtype.kind != "c" else result.real.dtype)[()], sign[()]


def _cross_entropy(
    logits: Any, labels: Any, axis: int, ignore_index: int, reduction: str, return_lse: bool = False
) -> tuple[Any, np.ndarray, Any]:
    x, dtype = _computable(logits)
    x = np.moveaxis(x, axis, -1)
    labels = np.asarray(labels)
    rows, index = x.reshape(labels.size, x.shape[-1]), labels.reshape(-1)
    ignored = index == ignore_index
    index = np.where(ignored, 0, index).astype(np.intp)
    each = np.arange(index.size)
    with np.errstate(all="ignore"):
        d = rows - np.max(rows, axis=-1, keepdims=True, initial=-np.inf)
        grad = np.exp(d)
        total = np.sum(grad, axis=-1, keepdims=True)
        loss = np.log(total[:, 0]) - d[each, index]
        grad /= total
        grad[each, index] -= 1
    loss[ignored] = 0
    grad[ignored] = 0
    if reduction == "mean":
        count = max(index.size - np.count_nonzero(ignored), 1)
        loss, grad = np.sum(loss) / count, grad / count
    elif reduction == "sum":
        loss = np.sum(loss)
    else:
        loss = loss.reshape(labels.shape)
    grad = np.moveaxis(grad.reshape(x.shape).astype(dtype, copy=False), -1, axis)
    return loss.astype(x.dtype, copy=False)[()], grad, logsumexp(x, -1) if return_lse else None


def cross_entropy(
    logits: Any,
    labels: Any,
    axis: int = -1,
    *,
    ignore_index: int = -100,
    reduction: str = "mean",
    return_lse: bool = False,
) -> Any:
    """Logsumexp of the logits less the label's logit, of index labels."""
    loss, _, lse = _cross_entropy(logits, labels, axis, ignore_index, reduction, return_lse)
    return (loss, lse) if return_lse else loss


def cross_entropy_grad(
    logits: Any, labels: Any, axis: int = -1, *, ignore_index: int = -100, reduction: str = "mean"
) -> np.ndarray:
    """Softmax less the one-hot label, over the number of labels if the losses are averaged."""
    return _cross_entropy(logits, labels, axis, ignore_index, reduction)[1]


def cross_entropy_with_grad(
    logits: Any,
    labels: Any,
    axis: int = -1,
    *,
    ignore_index: int = -100,
    reduction: str = "mean",
    return_lse: bool = False,
) -> tuple[Any, ...]:
    """Loss and gradient."""
    loss, grad, lse = _cross_entropy(logits, labels, axis, ignore_index, reduction, return_lse)
    return (loss, grad, lse) if return_lse else (loss, grad)
