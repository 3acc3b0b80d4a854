"""What Python calls: a kernel over panels begin..end, and the same with the panels shared out to threads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from fastsoftmax.backends.numba import kernels
from fastsoftmax.backends.numba.compiled import by_types, helper
from fastsoftmax.backends.numba.exponential import exp_full, log_rest
from fastsoftmax.backends.numba.kernels import View
from fastsoftmax.backends.numba.loss import Loss
from fastsoftmax.backends.numba.markers import EXP
from fastsoftmax.backends.numba.memory import constant, lanes, load_some, pointer, store_some
from fastsoftmax.backends.numba.sums import add, over_lanes, wide
from fastsoftmax.backends.numba.vectors import formula, splat


def _entry(parallel: bool = False) -> Callable:
    """Decorate an entry point; what is compiled is kept on disk, if there is a place for it."""

    def decorate(function: Callable) -> Any:
        try:
            return numba.njit(nogil=True, parallel=parallel, cache=True)(function)
        except RuntimeError:  # no folder can be written
            return numba.njit(nogil=True, parallel=parallel)(function)

    return decorate


@by_types
def pointer_or_none(array):
    """Where an array begins; None for None."""
    return (lambda array: None) if array == types.none else (lambda array: pointer(array))


@by_types
def _steps(array):
    """Strides of an array, outer and along n, in elements; 0 for None."""
    if array == types.none:
        return lambda array: (0, 0)
    return lambda array: (array.strides[0] // array.itemsize, array.strides[1] // array.itemsize)


@helper
def _view(x, out, beside):
    x_outer, x_n = _steps(x)
    out_outer, out_n = _steps(out)
    beside_outer, beside_n = _steps(beside)
    return View(x.shape[0], x.shape[1], x.shape[2], x_outer, x_n, out_outer, out_n, beside_outer, beside_n)


@_entry()
def normalize(op, traversal, x, out, beside, width, begin, end):
    """softmax and log_softmax; nothing stands beside x."""
    kernels.normalize(op, traversal, pointer(x), pointer(out), _view(x, out, None), width, begin, end)


@_entry()
def differentiate(op, traversal, x, out, beside, width, begin, end):
    """Vector-Jacobian products; beside x, the upstream gradient, stands the saved output."""
    p, q, y = pointer(x), pointer(out), pointer(beside)
    kernels.differentiate(op, traversal, p, q, y, _view(x, out, beside), width, begin, end)


@_entry()
def entropy(
    op,
    traversal,
    x,
    out,
    beside,
    labels,
    weight,
    sample_weight,
    given_lse,
    losses,
    lses,
    ignore_index,
    label_smoothing,
    z_loss,
    grad_scale,
    width,
    begin,
    end,
):
    """Cross-entropy, its gradient, logsumexp; beside x: probability labels. What is not given is an empty array."""
    loss = Loss(
        pointer(labels),
        labels.size > 0,
        ignore_index,
        pointer(weight),
        weight.size > 0,
        pointer(sample_weight),
        sample_weight.size > 0,
        pointer(given_lse),
        given_lse.size > 0,
        pointer(losses),
        losses.size > 0,
        pointer(lses),
        lses.size > 0,
        label_smoothing,
        z_loss,
        grad_scale,
    )
    p, q, y = pointer(x), pointer_or_none(out), pointer_or_none(beside)
    kernels.entropy(op, traversal, p, q, y, loss, _view(x, out, beside), width, begin, end)


# The same, by threads.


@intrinsic
def _call(typing_context, kernel, arguments, begin, end):
    """Call the kernel that stands at an address, for panels begin..end.

    What stands there is Numba's wrapper of an entry point for C, which takes its arguments one by one. The first two
    have no value at run time, so not even their type matters: one caller serves every operation.
    """

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> ir.Value:
        address, rest, *panels = values
        marker = context.get_dummy_value()
        passed = [marker, marker, *cgutils.unpack_tuple(builder, rest, len(arguments)), *panels]
        function = ir.FunctionType(context.get_value_type(types.none), [value.type for value in passed])
        builder.call(builder.inttoptr(address, function.as_pointer()), passed)
        return context.get_dummy_value()

    return types.none(kernel, arguments, begin, end), codegen


@_entry(parallel=True)
def by_threads(kernel, arguments, begin, end, shares):
    """The kernel at an address, in so many shares.

    (Compiled once for all kernels of some arguments: Numba compiles anew what it knows the name of.)
    """
    for share in numba.prange(shares):
        first, last = begin + (end - begin) * share // shares, begin + (end - begin) * (share + 1) // shares
        _call(kernel, arguments, first, last)


@_entry()
def total(op, values):
    """The sum of floats in float64, by a compensated sum in each lane; the order depends on the count alone."""
    x = pointer(values)
    w = lanes(x)
    zero = constant(x, 0.0)
    sums = wide(zero)
    for i in range(0, values.size, w):
        sums = add(sums, load_some(x, i, min(w, values.size - i)))
    return over_lanes(zero, sums)


@formula
def _value(op, v):
    """A function's value, lane by lane."""
    return exp_full(v) if op == EXP.type else log_rest(splat(v, 1.0), wide(v))


@_entry()
def elementwise(op, values, out):
    """Exp or log1p of every element, for the tests."""
    x, y = pointer(values), pointer(out)
    w = lanes(x)
    for i in range(0, values.size, w):
        count = min(w, values.size - i)
        store_some(_value(op, load_some(x, i, count)), y, i, count)
