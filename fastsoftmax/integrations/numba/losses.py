"""logsumexp, cross_entropy and cross_entropy_with_grad in compiled code."""

from __future__ import annotations

from math import inf
from typing import Any

import numpy as np
from numba.core import types
from numba.core.errors import TypingError
from numba.extending import overload

from fastsoftmax import _front
from fastsoftmax.backends.numba.compiled import by_types, helper
from fastsoftmax.backends.numba.entries import pointer_or_none
from fastsoftmax.backends.numba.loss import Loss
from fastsoftmax.backends.numba.markers import (
    CROSS_ENTROPY,
    CROSS_ENTROPY_GRAD,
    CROSS_ENTROPY_SPREAD,
    CROSS_ENTROPY_SPREAD_GRAD,
)
from fastsoftmax.backends.numba.memory import (
    as_label,
    get,
    label_at,
    panel_integers,
    panel_numbers,
    pointer,
    put,
    shifted,
)
from fastsoftmax.backends.numba.sums import rest_of, two_sum
from fastsoftmax.integrations.numba.arrays import geometry, panel_size, run, source_of, target_for, way_of
from fastsoftmax.integrations.numba.checks import check_array, check_axis, check_out, refuse, target_type, value_of


@helper
def _loss(labels, has_labels, ignore_index, weight, has_weight, numbers, lse_alone, smoothing, z_loss, scale):
    """Make a Loss of what compiled code may ask for: losses, or logsumexps alone."""
    return Loss(
        labels,
        has_labels,
        ignore_index,
        weight,
        has_weight,
        numbers,
        False,
        numbers,
        False,
        numbers,
        not lse_alone,
        numbers,
        lse_alone,
        smoothing,
        z_loss,
        scale,
    )


@helper
def _lse_into(way, x, lse, axis):
    p = pointer(x)
    shape = geometry(x, axis)
    loss = _loss(panel_integers(p), False, 0, lse, False, lse, True, 0.0, 0.0, 1.0)
    run(way, CROSS_ENTROPY, p, None, loss, shape, shape, 0, shape[0])


@overload(_front.public("logsumexp"))
def _logsumexp(x, axis=-1, b=None, keepdims=False, return_sign=False, where=None, out=None, n_threads=None):
    refuse(
        "logsumexp",
        b=(b, None),
        keepdims=(keepdims, False),
        return_sign=(return_sign, False),
        where=(where, None),
        out=(out, None),
        n_threads=(n_threads, None),
    )
    check_array("logsumexp", "x", x)
    along = check_axis("logsumexp", axis, x.ndim)
    way = way_of(x, along)

    def number(x, axis=-1, b=None, keepdims=False, return_sign=False, where=None, out=None, n_threads=None):
        lse = panel_numbers(pointer(x))
        put(lse, 0, -inf)
        if x.size > 0:
            _lse_into(way, x, lse, along)
        return get(lse, 0)

    def numbers(x, axis=-1, b=None, keepdims=False, return_sign=False, where=None, out=None, n_threads=None):
        lse = np.full(x.shape[1 - along], -inf, x.dtype)
        if x.size > 0:
            _lse_into(way, x, pointer(lse), along)
        return lse

    return number if x.ndim == 1 else numbers


@helper
def _check_labels(labels, count, classes, ignore_index):
    """Refuse labels that are none, before anything is written; give how many are not ignored."""
    valid = 0
    for i in range(count):
        label = label_at(labels, i)
        if label != ignore_index:
            valid += 1
            if label < 0 or label >= classes:
                raise IndexError("label is out of range: expected 0 to the number of classes less 1, or ignore_index")
    return valid


@helper
def _weights_of(labels, count, ignore_index, weight):
    """The sum of the weights of the labels that are not ignored."""
    total = 0.0
    for i in range(count):
        label = label_at(labels, i)
        if label != ignore_index:
            total += get(weight, label)
    return total


@by_types
def _weights_at(room, weight):
    """Where weights stand; anywhere where there are none."""
    if isinstance(weight, types.Array):
        return lambda room, weight: pointer(weight)
    return lambda room, weight: room


@by_types
def _labels_at(room, labels):
    """Where labels stand: a single one in the room for it."""
    if isinstance(labels, types.Array):
        return lambda room, labels: pointer(labels)

    def single(room, labels):
        put(room, 0, as_label(labels))
        return room

    return single


@by_types
def _count(numbers):
    """How many labels or weights there are."""
    if isinstance(numbers, types.Array):
        return lambda numbers: numbers.size
    return lambda numbers: 1


@by_types
def _clear(out):
    """Fill an array, if there is one, with zeros."""
    if out == types.none:
        return lambda out: None

    def implementation(out):
        out[...] = 0

    return implementation


@helper
def _entropy(op, way, x, out, axis, labels, ignore_index, weight, smoothing, z_loss, mean, losses):
    """Write the gradient, if out is not None, and each slice's loss, or (losses is None) give their sum or mean."""
    count, _, n, _ = geometry(x, axis)
    p = pointer(x)
    places = _labels_at(panel_integers(p), labels)
    weights = _weights_at(panel_numbers(p), weight)
    if _count(labels) != count:
        raise ValueError("labels: expected one for each slice")
    if weight is not None and _count(weight) != n:
        raise ValueError("weight: expected one for each class")
    if not 0 <= smoothing <= 1:
        raise ValueError("label_smoothing: expected a number from 0 to 1")
    if z_loss - z_loss != 0:
        raise ValueError("z_loss: expected a finite number")
    valid = _check_labels(places, count, n, ignore_index)
    divisor = 1.0
    if mean:
        divisor = float(valid) if weight is None else _weights_of(places, count, ignore_index, weights)
    scale = 1 / divisor if divisor != 0 else 0.0
    source = source_of(x, out)
    shape, out_shape = geometry(source, axis), geometry(out, axis)
    p, q = pointer(source), pointer_or_none(out)
    weighted = weight is not None
    # Some slices at a time, whose losses stand on the stack.
    few = panel_numbers(p)
    step = panel_size(way, p, shape)
    total, lost = 0.0, 0.0
    for first in range(0, count if n > 0 else 0, step):
        last = min(first + step, count)
        some = shifted(few, -first)
        loss = _loss(places, True, ignore_index, weights, weighted, some, False, smoothing, z_loss, scale)
        run(way, op, p, q, loss, shape, out_shape, first, last)
        for i in range(first, last):
            value = float(get(some, i))
            if losses is not None:
                losses[i] = value
            total, rest = two_sum(total, value)
            lost += rest
    if divisor == 0:  # of nothing that counts, whatever it holds
        _clear(out)
        return 0.0
    return (total + rest_of(total, lost)) / divisor


def _check_weight(function: str, weight: Any, x: types.Array) -> None:
    if value_of(weight) is None:
        return
    if not (isinstance(weight, types.Array) and weight.ndim == 1 and weight.dtype == x.dtype and weight.layout in "CF"):
        raise TypingError(f"{function}: weight: expected a contiguous 1-D array of {x.dtype}, got {weight}")


def _check_reduction(function: str, reduction: Any) -> str:
    value = value_of(reduction)
    if value not in ("mean", "sum", "none"):
        raise TypingError(f"{function}: reduction: expected a literal 'mean', 'sum' or 'none', got {reduction}")
    return value


def _check_labels_type(function: str, labels: Any, x: types.Array) -> None:
    if x.ndim == 1:
        if not isinstance(labels, types.Integer):
            raise TypingError(f"{function}: labels: expected an integer beside 1-D logits, got {labels}")
    elif not (
        isinstance(labels, types.Array)
        and labels.ndim == 1
        and isinstance(labels.dtype, types.Integer)
        and labels.layout in "CF"
    ):
        raise TypingError(f"{function}: labels: expected a contiguous 1-D array of integers, got {labels}")


_REFUSED = {"sample_weight": None, "return_lse": False, "n_threads": None, "validate": None}


def _entropy_of(function: str, gradient: bool, given: dict[str, Any]) -> tuple:
    """Check the arguments; give what decides how they are computed: (op, way, axis, mean, one loss or many, dtype)."""
    x = given["logits"]
    refuse(function, **{name: (given[name], default) for name, default in _REFUSED.items()})
    check_array(function, "logits", x)
    axis = check_axis(function, given["axis"], x.ndim)
    _check_labels_type(function, given["labels"], x)
    _check_weight(function, given["weight"], x)
    reduction = _check_reduction(function, given["reduction"])
    spread = value_of(given["label_smoothing"]) != 0.0
    if gradient:
        op = CROSS_ENTROPY_SPREAD_GRAD if spread else CROSS_ENTROPY_GRAD
        way = way_of(target_type(x, check_out(function, given["out"], x)), axis)
    else:
        op, way = CROSS_ENTROPY_SPREAD if spread else CROSS_ENTROPY, way_of(x, axis)
    dtype = np.float32 if x.dtype == types.float32 else np.float64
    return op, way, axis, reduction == "mean", reduction == "none" and x.ndim == 2, dtype


@overload(_front.public("cross_entropy"))
def _cross_entropy(
    logits,
    labels,
    axis=-1,
    weight=None,
    sample_weight=None,
    ignore_index=-100,
    label_smoothing=0.0,
    z_loss=0.0,
    reduction="mean",
    return_lse=False,
    n_threads=None,
    validate=None,
):
    op, way, along, mean, many, dtype = _entropy_of("cross_entropy", False, locals())

    def each(
        logits, labels, axis=-1, weight=None, sample_weight=None, ignore_index=-100, label_smoothing=0.0, z_loss=0.0,
        reduction="mean", return_lse=False, n_threads=None, validate=None,
    ):  # fmt: skip
        losses = np.zeros(logits.shape[1 - along], dtype)
        _entropy(op, way, logits, None, along, labels, ignore_index, weight, label_smoothing, z_loss, mean, losses)
        return losses

    def total(
        logits, labels, axis=-1, weight=None, sample_weight=None, ignore_index=-100, label_smoothing=0.0, z_loss=0.0,
        reduction="mean", return_lse=False, n_threads=None, validate=None,
    ):  # fmt: skip
        return dtype(
            _entropy(op, way, logits, None, along, labels, ignore_index, weight, label_smoothing, z_loss, mean, None)
        )

    return each if many else total


@overload(_front.public("cross_entropy_with_grad"))
def _cross_entropy_with_grad(
    logits,
    labels,
    axis=-1,
    weight=None,
    sample_weight=None,
    ignore_index=-100,
    label_smoothing=0.0,
    z_loss=0.0,
    reduction="mean",
    return_lse=False,
    n_threads=None,
    validate=None,
    out=None,
):
    op, way, along, mean, many, dtype = _entropy_of("cross_entropy_with_grad", True, locals())

    def each(
        logits, labels, axis=-1, weight=None, sample_weight=None, ignore_index=-100, label_smoothing=0.0, z_loss=0.0,
        reduction="mean", return_lse=False, n_threads=None, validate=None, out=None,
    ):  # fmt: skip
        grad = target_for(logits, out)
        losses = np.zeros(logits.shape[1 - along], dtype)
        _entropy(op, way, logits, grad, along, labels, ignore_index, weight, label_smoothing, z_loss, mean, losses)
        return losses, grad

    def total(
        logits, labels, axis=-1, weight=None, sample_weight=None, ignore_index=-100, label_smoothing=0.0, z_loss=0.0,
        reduction="mean", return_lse=False, n_threads=None, validate=None, out=None,
    ):  # fmt: skip
        grad = target_for(logits, out)
        loss = _entropy(op, way, logits, grad, along, labels, ignore_index, weight, label_smoothing, z_loss, mean, None)
        return dtype(loss), grad

    return each if many else total
