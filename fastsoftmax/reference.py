"""The softmax family in plain NumPy: the definition, the oracle of the tests, the baseline of the benchmarks.

The functions are what a careful user would write by hand: the maximum is subtracted, the axis honoured, every option
spelled out. They compute in the dtype that they are given (float16 and bfloat16 in float32, integers in float64) and
make the temporaries that NumPy makes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

Axis = int | Sequence[int] | None


def _computable(x: Any) -> tuple[np.ndarray, np.dtype]:
    """X in the dtype that it is computed in, and the dtype of the result."""
    if not hasattr(x, "__array_function__"):  # (of another library NumPy's functions call that library's)
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
        b = b if hasattr(b, "dtype") or isinstance(b, (bool, int, float)) else np.asarray(b)
        weights, weights_dtype = _computable(b)
        # Numbers and integers take the dtype of x, as they do in NumPy's own arithmetic with scalars.
        if not isinstance(b, (bool, int, float)) and b.dtype.kind not in "biu" and weights_dtype != dtype:
            dtype = np.result_type(dtype, weights_dtype)
        wide = np.result_type(dtype, np.float32)
        x, weights = np.broadcast_arrays(x.astype(wide, copy=False), weights.astype(wide, copy=False))
        hidden = weights == 0  # a term of weight 0 is 0, whatever its x
        where = ~hidden if where is None else ~hidden & where
    x, where = _shown(x, where)
    axes = _axes(axis)
    with np.errstate(all="ignore"):
        # (Nothing has no maximum, and needs none; its sum is 0 in the same shape.)
        m = (np.max if x.size else np.sum)(x.real, axis=axes, keepdims=True)
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


class _Target(NamedTuple):
    """What the labels ask of every slice: (1 - e) w at the label's class, `spread` (the other parts of w q) at all."""

    at: tuple[np.ndarray, np.ndarray] | None  # the labels' entries; None for probability labels
    hot: Any
    spread: np.ndarray | None  # (K,) or (slices, K)
    v: np.ndarray
    ignored: np.ndarray


def _target(
    labels: np.ndarray, axis: int, rows: np.ndarray, weight: Any, ignore_index: int, smoothing: float, by_index: bool
) -> _Target:
    number, classes = rows.dtype.type, rows.shape[-1]
    kept = number(np.longdouble(1) - smoothing)  # 1 - e in full, rounded once
    v = np.ones(len(rows), number)
    w = None if weight is None else np.asarray(weight, number)
    if not by_index:
        q = kept * np.moveaxis(labels, axis, -1).reshape(rows.shape).astype(number)
        if smoothing:
            q += number(smoothing / classes)
        return _Target(None, 0, q if w is None else w * q, v, np.zeros(len(rows), bool))
    index = labels.reshape(-1)
    ignored = index == ignore_index
    index = np.where(ignored, 0, index).astype(np.intp)
    if w is not None:
        v = w[index]
    spread = None
    if smoothing:
        spread = np.full(classes, smoothing / classes, number)
        spread = spread if w is None else w * spread
    return _Target((np.arange(len(rows)), index), kept * v, spread, v, ignored)


def _entropy(
    logits: Any,
    labels: Any,
    axis: int,
    *,
    weight: Any = None,
    sample_weight: Any = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    reduction: str = "mean",
    saved_lse: Any = None,
    grad_output: Any = None,
    with_loss: bool = True,
    with_grad: bool = True,
) -> tuple[Any, Any, Any]:
    """Loss and gradient, None where not asked for, and lse."""
    x, dtype = _computable(logits)
    x = np.moveaxis(x, axis, -1)
    batch, number = x.shape[:-1], x.dtype.type
    rows = x.reshape(math.prod(batch), x.shape[-1])
    labels = np.asarray(labels)
    by_index = labels.ndim < x.ndim
    at, hot, spread, v, ignored = _target(labels, axis, rows, weight, ignore_index, label_smoothing, by_index)
    s = np.ones(len(rows), number) if sample_weight is None else np.asarray(sample_weight, number).reshape(-1)
    divisor = np.sum((s * v)[~ignored]) if reduction == "mean" else number(1)
    loss = grad = None

    with np.errstate(all="ignore"):
        # A saved lse in the place of the maximum makes the total 1.
        shift = np.max(rows, axis=-1, initial=-np.inf) if saved_lse is None else np.asarray(saved_lse, number).ravel()
        d = rows - shift[:, np.newaxis]
        e = np.exp(d)
        if at is not None:
            # The label's exponential stays out of the sum, so that 1 - p keeps its digits where p is near 1.
            true, e[at] = e[at], 0
            others = np.sum(e, axis=-1) if saved_lse is None else -np.expm1(d[at])
        if saved_lse is not None:
            total, lse = np.where(np.isfinite(shift), number(1), number(np.nan)), shift
        else:
            total = np.sum(e, axis=-1) if at is None else others + true
            # One of the exponentials is 1; where it is the label's, 1 + others would round.
            log_total = np.log(total) if at is None else np.log1p(np.where(true < 1, (others - 1) + true, others))
            lse = np.where(np.isfinite(shift), shift + log_total, shift)

        if with_loss:
            loss = np.zeros(len(rows), number)
            # A term without weight is 0 where the logit is -inf too.
            if at is not None:
                loss += np.where(s * hot != 0, hot * (log_total - d[at]), 0)
            if spread is not None:
                terms = spread * (log_total[:, np.newaxis] - d)
                loss += np.sum(np.where(s[:, np.newaxis] * spread != 0, terms, 0), axis=-1)
            if z_loss:
                loss += v * number(z_loss) * lse**2
            loss = np.where(np.isnan(total), number(np.nan), s * loss)
            loss[ignored] = 0
            if reduction == "none":
                loss = loss.reshape(batch)[()]
            elif divisor:
                loss = np.sum(loss) / divisor
            else:
                loss = number(0)

        if with_grad:
            scale = s / divisor if grad_output is None else s / divisor * np.asarray(grad_output, number).reshape(-1)
            # What every p is multiplied by, beside `hot`.
            rest = np.zeros(len(rows), number) if spread is None else np.sum(spread, axis=-1)
            if z_loss:
                rest = rest + 2 * v * number(z_loss) * lse
            grad = e
            grad *= (scale * (hot + rest) / total)[:, np.newaxis]
            if at is not None:
                grad[at] = scale * (true * rest - hot * others) / total
            if spread is not None:
                grad -= scale[:, np.newaxis] * spread
            grad[ignored if divisor else ...] = 0
            grad = np.moveaxis(grad.reshape(x.shape).astype(dtype, copy=False), -1, axis)
    return loss, grad, lse.reshape(batch)[()]


def cross_entropy(logits: Any, labels: Any, axis: int = -1, *, return_lse: bool = False, **options: Any) -> Any:
    """S (sum_c w_c q_c (lse - x_c) + v z lse^2), q = (1 - e) t + e / K: the loss of every slice, reduced."""
    loss, _, lse = _entropy(logits, labels, axis, **options, with_grad=False)
    return (loss, lse) if return_lse else loss


def cross_entropy_grad(logits: Any, labels: Any, axis: int = -1, *, lse: Any = None, **options: Any) -> np.ndarray:
    """S (p_i (sum_c w_c q_c + 2 v z lse) - w_i q_i), over the mean's divisor and times grad_output."""
    return _entropy(logits, labels, axis, saved_lse=lse, **options, with_loss=False)[1]


def cross_entropy_with_grad(
    logits: Any, labels: Any, axis: int = -1, *, return_lse: bool = False, **options: Any
) -> tuple[Any, ...]:
    """Loss and gradient."""
    loss, grad, lse = _entropy(logits, labels, axis, **options)
    return (loss, grad, lse) if return_lse else (loss, grad)


def _shown_pair(grad_output: Any, values: Any, where: Any, hidden: float) -> tuple[np.ndarray, np.ndarray, np.dtype]:
    """Give grad_output with 0, and the saved output with `hidden`, in the place of hidden entries."""
    g, dtype = _computable(grad_output)
    y, _ = _computable(values)
    if where is not None:
        g, y = np.where(where, g, g.dtype.type(0)), np.where(where, y, y.dtype.type(hidden))
    return g, y, dtype


def softmax_grad(grad_output: Any, probs: Any, axis: Axis = -1, *, where: Any = None) -> Any:
    """P (g - sum g p), of softmax's output p."""
    g, p, dtype = _shown_pair(grad_output, probs, where, 0)
    with np.errstate(all="ignore"):
        return (p * (g - np.sum(g * p, axis=_axes(axis), keepdims=True))).astype(dtype)[()]


def log_softmax_grad(grad_output: Any, log_probs: Any, axis: Axis = -1, *, where: Any = None) -> Any:
    """G - exp(l) sum g, of log_softmax's output l."""
    g, y, dtype = _shown_pair(grad_output, log_probs, where, -np.inf)
    with np.errstate(all="ignore"):
        return (g - np.exp(y) * np.sum(g, axis=_axes(axis), keepdims=True)).astype(dtype)[()]
