"""The public functions inside compiled code: ``fastsoftmax.softmax(x, axis=1)`` in a function under ``@numba.njit``.

Numba finds `init` by its entry point ``numba_extensions`` and calls it before it compiles anything; nothing is to be
imported but fastsoftmax itself. What runs are the kernels of the Numba backend, on the thread that calls: in the body
of a ``prange`` too.

Arrays are 1-D or 2-D, float32 or float64, of any strides; axis is a literal. Nothing is allocated but what is returned:
an array that is contiguous in no order is copied to the result and computed there, or, where only numbers come out,
read slice by slice.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Any

import numpy as np
from numba.core import types
from numba.core.errors import TypingError
from numba.extending import overload

from fastsoftmax import _front
from fastsoftmax.backends.numba.compiled import by_types, helper
from fastsoftmax.backends.numba.entries import pointer_or_none
from fastsoftmax.backends.numba.kernels import View, entropy, normalize
from fastsoftmax.backends.numba.loss import Loss
from fastsoftmax.backends.numba.markers import (
    COLUMNS,
    CROSS_ENTROPY,
    CROSS_ENTROPY_GRAD,
    CROSS_ENTROPY_SPREAD,
    CROSS_ENTROPY_SPREAD_GRAD,
    LOG_SOFTMAX,
    ROWS,
    SOFTMAX,
)
from fastsoftmax.backends.numba.memory import (
    PANEL,
    address,
    as_label,
    get,
    label_at,
    lanes,
    panel_integers,
    panel_numbers,
    pointer,
    put,
    shifted,
)
from fastsoftmax.backends.numba.panels import rows_width
from fastsoftmax.backends.numba.sums import rest_of, two_sum


def init() -> None:
    """Do nothing: that this module is imported is all."""


# What is refused, before anything is compiled.


def _value(t: Any) -> Any:
    """Give a literal's or a default's value; the type itself where there is none."""
    if isinstance(t, types.Omitted):
        return t.value
    if isinstance(t, types.Literal):
        return t.literal_value
    return None if t is None or t == types.none else t


def _refuse(function: str, **options: tuple[Any, Any]) -> None:
    for name, (given, default) in options.items():
        if _value(given) != default:
            raise TypingError(f"{function}: {name}: not available in compiled code")


def _check_array(function: str, name: str, x: Any) -> None:
    if not (isinstance(x, types.Array) and x.ndim in (1, 2) and x.dtype in (types.float32, types.float64)):
        raise TypingError(f"{function}: {name}: expected a 1-D or 2-D array of float32 or float64, got {x}")
    if not x.aligned:
        raise TypingError(f"{function}: {name}: expected an aligned array, got {x}")


def _check_axis(function: str, axis: Any, ndim: int) -> int:
    value = _value(axis)
    if not isinstance(value, int):
        raise TypingError(f"{function}: axis: expected a literal integer, got {axis}")
    if not -ndim <= value < ndim:
        raise TypingError(f"{function}: axis: {value} is out of bounds for an array of {ndim} dimensions")
    return value % ndim


def _check_out(function: str, out: Any, x: types.Array) -> types.Array | None:
    """Give out's type, if there is one."""
    if _value(out) is None:
        return None
    if not (isinstance(out, types.Array) and out.ndim == x.ndim and out.dtype == x.dtype):
        raise TypingError(f"{function}: out: expected an array of {x.ndim} dimensions and {x.dtype}, got {out}")
    if not out.mutable or out.layout not in "CF":
        raise TypingError(f"{function}: out: expected a writeable array that is contiguous, got {out}")
    return out


def _target_type(x: types.Array, out: types.Array | None) -> types.Array:
    return out or x.copy(layout="F" if x.layout == "F" and x.ndim == 2 else "C")


# Ways through an array.


@by_types
def _geometry(x, axis):
    """(number of slices, distance between them, their length, distance along them), distances in elements."""
    if x == types.none:
        return lambda x, axis: (0, 0, 0, 0)
    if x.ndim == 1:
        return lambda x, axis: (1, 0, x.shape[0], x.strides[0] // x.itemsize)
    return lambda x, axis: (
        x.shape[1 - axis],
        x.strides[1 - axis] // x.itemsize,
        x.shape[axis],
        x.strides[axis] // x.itemsize,
    )


def _way(x: types.Array, axis: int) -> Any:
    """Give the way through an array that its type tells: rows, columns, or None."""
    if x.ndim == 1:
        return ROWS if x.layout in "CF" else None
    if x.layout == "A":
        return None
    return ROWS if (axis == 1) == (x.layout == "C") else COLUMNS


@by_types
def _kernel(op, traversal, x, out, loss, view, width, begin, end):
    """The kernel for a loss, or for no loss."""
    if loss == types.none:
        return lambda op, traversal, x, out, loss, view, width, begin, end: normalize(
            op, traversal, x, out, view, width, begin, end
        )
    return lambda op, traversal, x, out, loss, view, width, begin, end: entropy(
        op, traversal, x, out, None, loss, view, width, begin, end
    )


@helper
def _in_rows(op, x, out, loss, shape, out_shape, first, last):
    slices, distance, n, _ = shape
    width = rows_width(n, lanes(x))
    view = View(slices, n, 1, distance, 1, out_shape[1], 1, 0, 0)
    _kernel(op, ROWS, x, out, loss, view, width, first // width, (last + width - 1) // width)


@helper
def _in_columns(op, x, out, loss, shape, out_shape, first, last):
    slices, _, n, step = shape
    view = View(1, n, slices, 0, step, 0, out_shape[3], 0, 0)
    _kernel(op, COLUMNS, x, out, loss, view, PANEL, first // PANEL, (last + PANEL - 1) // PANEL)


@helper
def _one_by_one(op, x, out, loss, shape, out_shape, first, last):
    # Columns of one lane: what is neither rows nor columns.
    slices, distance, n, step = shape
    view = View(slices, n, 1, distance, step, out_shape[1], out_shape[3], 0, 0)
    _kernel(op, COLUMNS, x, out, loss, view, 1, first, last)


@by_types
def _run(way, op, x, out, loss, shape, out_shape, first, last):
    """Run an operation over slices first..last, first standing at the begin of a panel."""
    if way == ROWS.type:
        return lambda way, op, x, out, loss, shape, out_shape, first, last: _in_rows(
            op, x, out, loss, shape, out_shape, first, last
        )
    if way == COLUMNS.type:
        return lambda way, op, x, out, loss, shape, out_shape, first, last: _in_columns(
            op, x, out, loss, shape, out_shape, first, last
        )

    def any_way(way, op, x, out, loss, shape, out_shape, first, last):
        if shape[3] == 1 or shape[2] == 1:
            _in_rows(op, x, out, loss, shape, out_shape, first, last)
        elif shape[1] == 1:
            _in_columns(op, x, out, loss, shape, out_shape, first, last)
        else:
            _one_by_one(op, x, out, loss, shape, out_shape, first, last)

    return any_way


# Results.


def _same_way(x: types.Array, target: types.Array) -> bool:
    """Whether a kernel goes through both in one way."""
    return x.layout != "A" and (x.ndim == 1 or x.layout == target.layout)


@by_types
def _target(x, out):
    """Where the result goes: out, or a new array in the order of x."""
    if isinstance(out, types.Array):
        same_way = _same_way(x, out)

        def given(x, out):
            if out.shape != x.shape:
                raise ValueError("out: expected the shape of the input")
            apart = address(pointer(out)) - address(pointer(x))
            if same_way and apart != 0 and -out.nbytes < apart < out.nbytes:
                raise ValueError("out: expected the input itself or no part of it")
            return out

        return given
    if x.ndim == 2 and x.layout == "F":
        return lambda x, out: np.empty((x.shape[1], x.shape[0]), x.dtype).T
    return lambda x, out: np.empty(x.shape, x.dtype)


@by_types
def _source(x, target):
    """What is read: x, or the target, into which x was copied where a kernel would not go through both in one way."""
    if target == types.none or _same_way(x, target):
        return lambda x, target: x

    def copied(x, target):
        target[...] = x
        return target

    return copied


# softmax and log_softmax.


@helper
def _normalize(op, x, target, axis, way):
    source = _source(x, target)
    shape, target_shape = _geometry(source, axis), _geometry(target, axis)
    if x.size > 0:
        _run(way, op, pointer(source), pointer(target), None, shape, target_shape, 0, shape[0])


def _normalizer(function: str, op: Any, x: Any, axis: Any, where: Any, out: Any, n_threads: Any) -> Callable:
    _refuse(function, where=(where, None), n_threads=(n_threads, None))
    _check_array(function, "x", x)
    along = _check_axis(function, axis, x.ndim)
    way = _way(_target_type(x, _check_out(function, out, x)), along)

    def implementation(x, axis=-1, where=None, out=None, n_threads=None):
        target = _target(x, out)
        _normalize(op, x, target, along, way)
        return target

    return implementation


@overload(_front.public("softmax"))
def _softmax(x, axis=-1, where=None, out=None, n_threads=None):
    return _normalizer("softmax", SOFTMAX, x, axis, where, out, n_threads)


@overload(_front.public("log_softmax"))
def _log_softmax(x, axis=-1, where=None, out=None, n_threads=None):
    return _normalizer("log_softmax", LOG_SOFTMAX, x, axis, where, out, n_threads)


# logsumexp.


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
    shape = _geometry(x, axis)
    loss = _loss(panel_integers(p), False, 0, lse, False, lse, True, 0.0, 0.0, 1.0)
    _run(way, CROSS_ENTROPY, p, None, loss, shape, shape, 0, shape[0])


@overload(_front.public("logsumexp"))
def _logsumexp(x, axis=-1, b=None, keepdims=False, return_sign=False, where=None, out=None, n_threads=None):
    _refuse(
        "logsumexp",
        b=(b, None),
        keepdims=(keepdims, False),
        return_sign=(return_sign, False),
        where=(where, None),
        out=(out, None),
        n_threads=(n_threads, None),
    )
    _check_array("logsumexp", "x", x)
    along = _check_axis("logsumexp", axis, x.ndim)
    way = _way(x, along)

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


# Cross-entropy.


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
def _panel_size(way, p, shape):
    """How many slices stand side by side in a panel as _run makes them; or are read one by one at a time."""
    if way == ROWS.type:
        return lambda way, p, shape: rows_width(shape[2], lanes(p))
    if way == COLUMNS.type:
        return lambda way, p, shape: PANEL
    return lambda way, p, shape: rows_width(shape[2], lanes(p)) if shape[3] == 1 or shape[2] == 1 else PANEL


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
    count, _, n, _ = _geometry(x, axis)
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
    source = _source(x, out)
    shape, out_shape = _geometry(source, axis), _geometry(out, axis)
    p, q = pointer(source), pointer_or_none(out)
    weighted = weight is not None
    # Some slices at a time, whose losses stand on the stack.
    few = panel_numbers(p)
    step = _panel_size(way, p, shape)
    total, lost = 0.0, 0.0
    for first in range(0, count if n > 0 else 0, step):
        last = min(first + step, count)
        some = shifted(few, -first)
        loss = _loss(places, True, ignore_index, weights, weighted, some, False, smoothing, z_loss, scale)
        _run(way, op, p, q, loss, shape, out_shape, first, last)
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
    if _value(weight) is None:
        return
    if not (isinstance(weight, types.Array) and weight.ndim == 1 and weight.dtype == x.dtype and weight.layout in "CF"):
        raise TypingError(f"{function}: weight: expected a contiguous 1-D array of {x.dtype}, got {weight}")


def _check_reduction(function: str, reduction: Any) -> str:
    value = _value(reduction)
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
    _refuse(function, **{name: (given[name], default) for name, default in _REFUSED.items()})
    _check_array(function, "logits", x)
    axis = _check_axis(function, given["axis"], x.ndim)
    _check_labels_type(function, given["labels"], x)
    _check_weight(function, given["weight"], x)
    reduction = _check_reduction(function, given["reduction"])
    spread = _value(given["label_smoothing"]) != 0.0
    if gradient:
        op = CROSS_ENTROPY_SPREAD_GRAD if spread else CROSS_ENTROPY_GRAD
        way = _way(_target_type(x, _check_out(function, given["out"], x)), axis)
    else:
        op, way = CROSS_ENTROPY_SPREAD if spread else CROSS_ENTROPY, _way(x, axis)
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
        grad = _target(logits, out)
        losses = np.zeros(logits.shape[1 - along], dtype)
        _entropy(op, way, logits, grad, along, labels, ignore_index, weight, label_smoothing, z_loss, mean, losses)
        return losses, grad

    def total(
        logits, labels, axis=-1, weight=None, sample_weight=None, ignore_index=-100, label_smoothing=0.0, z_loss=0.0,
        reduction="mean", return_lse=False, n_threads=None, validate=None, out=None,
    ):  # fmt: skip
        grad = _target(logits, out)
        loss = _entropy(op, way, logits, grad, along, labels, ignore_index, weight, label_smoothing, z_loss, mean, None)
        return dtype(loss), grad

    return each if many else total
