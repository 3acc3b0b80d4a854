"""The operations: what each makes of its slices' maxima and sums, and the kernels that run them over an array.

A kernel goes through panels begin..end of an array (outer, n, inner). What is not asked for has no place among its arguments'
types, so one source serves every operation.
"""

from __future__ import annotations

from math import inf
from typing import NamedTuple

from numba.extending import overload

from fastsoftmax.backends.numba import loss as losses
from fastsoftmax.backends.numba import vjp
from fastsoftmax.backends.numba.compiled import INLINE, helper, stub
from fastsoftmax.backends.numba.exp import exp_scale, exp_scaled, log_rest
from fastsoftmax.backends.numba.markers import LOG_SOFTMAX, LOG_SOFTMAX_GRAD, ROWS, SOFTMAX, SOFTMAX_GRAD, Write
from fastsoftmax.backends.numba.memory import (
    computing,
    constant,
    get,
    lanes,
    load,
    load_some,
    panel_doubles,
    panel_numbers,
    put,
    store,
    store_some,
)
from fastsoftmax.backends.numba.panels import TILE, Panel, Totals, find_maxima, load_wide, sum_exponentials
from fastsoftmax.backends.numba.sums import plus, quotient, times_pair, wide
from fastsoftmax.backends.numba.vectors import formula


class View(NamedTuple):
    """An array (outer, n, inner), its output and its targets: sizes, and strides in elements."""

    outer: int
    n: int
    inner: int
    x_outer: int
    x_n: int
    out_outer: int
    out_n: int
    targets_outer: int
    targets_n: int


# From sums to factors.


@stub
def finish(op, panel, x, loss, totals, state, g, count):
    """Put down the factors of `count` slices from g on, and write what there is one of per slice."""


@overload(finish, **INLINE)
def _finish_for(op, panel, x, loss, totals, state, g, count):
    if op == SOFTMAX.type:

        def softmax(op, panel, x, loss, totals, state, g, count):
            maximum = load(totals.maximum, g)
            top = exp_scaled(maximum, exp_scale(maximum))
            total = plus(top, load_wide(x, totals, g), wide(top))
            hi, lo = quotient(1.0, constant(x, 1.0), total)
            store(hi, totals.hi, g)
            store(lo, totals.lo, g)

        return softmax
    if op == LOG_SOFTMAX.type:

        def log_softmax(op, panel, x, loss, totals, state, g, count):
            maximum = load(totals.maximum, g)
            top = exp_scaled(maximum, exp_scale(maximum))
            store(maximum, totals.hi, g)
            store(log_rest(top, load_wide(x, totals, g)), totals.lo, g)

        return log_softmax
    if op.write is Write.NOTHING:

        def cross_entropy(op, panel, x, loss, totals, state, g, count):
            maximum = load(totals.maximum, g)
            top, rest = exp_scaled(maximum, exp_scale(maximum)), load_wide(x, totals, g)
            losses.finish_loss(panel, x, loss, state, g, count, maximum, log_rest(top, rest))

        return cross_entropy

    def cross_entropy_grad(op, panel, x, loss, totals, state, g, count):
        maximum = load(totals.maximum, g)
        scale = exp_scale(maximum)
        top, rest = exp_scaled(maximum, scale), load_wide(x, totals, g)
        slope = losses.finish_loss(panel, x, loss, state, g, count, maximum, log_rest(top, rest))
        hi, lo = losses.finish_grad(op, x, loss, state, g, scale, top, rest, slope)
        store(hi, totals.hi, g)
        store(lo, totals.lo, g)

    return cross_entropy_grad


# From factors to outputs.


@formula
def _output(op, y, factor, less, shares):
    """One vector of the output, from its logits or exponentials."""
    if op.write is Write.LOGARITHMS:
        return (y - factor[0]) - factor[1]
    value = times_pair(y, factor)
    return value - less * shares if op.spread else value


@formula
def _input(op, x, i, out, j, count, scale, again):
    """What a vector of the output is made of: logits or exponentials; these are kept in the output, or found again."""
    if op.write is Write.LOGARITHMS:
        return load_some(x, i, count, 0.0)
    if again is None and out.dtype == computing(x.dtype):
        return load_some(out, j, count, 0.0)
    return exp_scaled(load_some(x, i, count, -inf), scale)


@stub
def _shares(op, traversal, panel, x, loss, s, c, count):
    """The shares of the spread form; None in others."""


@overload(_shares, **INLINE)
def _shares_for(op, traversal, panel, x, loss, s, c, count):
    if not op.spread:
        return lambda op, traversal, panel, x, loss, s, c, count: None
    return lambda op, traversal, panel, x, loss, s, c, count: losses.share(traversal, panel, x, loss, s, c, count)


@helper
def _run_output(op, traversal, panel, x, out, loss, again, i, step, j, out_step, steps, count, scale, factor, less, s, c, c_step):
    for k in range(steps):
        y = _input(op, x, i + k * step, out, j + k * out_step, count, scale, again)
        value = _output(op, y, factor, less, _shares(op, traversal, panel, x, loss, s, c + k * c_step, count))
        store_some(value, out, j + k * out_step, count)


@stub
def write(op, traversal, panel, x, out, loss, totals, state, again):
    """Write the output of a panel; from the logits alone where again is not None."""


@overload(write, **INLINE)
def _write_for(op, traversal, panel, x, out, loss, totals, state, again):
    spread = op.spread
    if traversal == ROWS.type:

        def of_rows(op, traversal, panel, x, out, loss, totals, state, again):
            w = lanes(x)
            whole, rest = panel.n // w, panel.n % w
            for s in range(panel.count):
                i, j = panel.x + s * panel.x_lane, panel.out + s * panel.out_lane
                scale = exp_scale(constant(x, get(totals.maximum, s)))
                factor = constant(x, get(totals.hi, s)), constant(x, get(totals.lo, s))
                less = constant(x, get(state.less, s)) if spread else factor[0]
                _run_output(op, traversal, panel, x, out, loss, again, i, w, j, w, whole, None, scale, factor, less, s, 0, w)
                if rest > 0:
                    c = whole * w
                    _run_output(
                        op, traversal, panel, x, out, loss, again, i + c, w, j + c, w, 1, rest, scale, factor, less, s, c, w
                    )

        return of_rows

    def of_columns(op, traversal, panel, x, out, loss, totals, state, again):
        w = lanes(x)
        for row in range(0, panel.n, TILE):
            steps = min(TILE, panel.n - row)
            for g in range(0, panel.count, w):
                i, j = panel.x + row * panel.x_n + g, panel.out + row * panel.out_n + g
                scale = exp_scale(load(totals.maximum, g))
                factor = load(totals.hi, g), load(totals.lo, g)
                less = load(state.less, g) if spread else factor[0]
                if g + w <= panel.count:
                    _run_output(
                        op, traversal, panel, x, out, loss, again,
                        i, panel.x_n, j, panel.out_n, steps, None, scale, factor, less, g, row, 1,
                    )
                else:
                    _run_output(
                        op, traversal, panel, x, out, loss, again,
                        i, panel.x_n, j, panel.out_n, steps, panel.count - g, scale, factor, less, g, row, 1,
                    )

    return of_columns


# A whole panel.


@helper
def _finish_all(op, panel, x, loss, totals, state):
    w = lanes(x)
    for g in range(0, panel.count, w):
        finish(op, panel, x, loss, totals, state, g, min(w, panel.count - g))


@stub
def process(op, traversal, panel, x, out, loss, totals):
    """Everything that an operation does with a panel."""


@overload(process, **INLINE)
def _process_for(op, traversal, panel, x, out, loss, totals):
    if op in (SOFTMAX_GRAD.type, LOG_SOFTMAX_GRAD.type):
        return lambda op, traversal, panel, x, out, loss, totals: vjp.differentiate(
            op, traversal, panel, x, loss, out, totals
        )
    if op in (SOFTMAX.type, LOG_SOFTMAX.type):
        keeps = op == SOFTMAX.type

        def normalize(op, traversal, panel, x, out, loss, totals):
            find_maxima(traversal, panel, x, totals)
            sum_exponentials(traversal, panel, x, out if keeps else None, totals)
            _finish_all(op, panel, x, loss, totals, None)
            write(op, traversal, panel, x, out, loss, totals, None, None)

        return normalize
    if op.write is Write.NOTHING:

        def reduce(op, traversal, panel, x, out, loss, totals):
            state = losses.room(x)
            find_maxima(traversal, panel, x, totals)
            losses.begin(op, traversal, panel, x, loss, totals, state)
            sum_exponentials(traversal, panel, x, None, totals)
            _finish_all(op, panel, x, loss, totals, state)

        return reduce

    def differentiate(op, traversal, panel, x, out, loss, totals):
        state = losses.room(x)
        if loss.has_given_lse:
            # It stands for the maximum, and its exponential for the whole sum.
            for s in range(panel.count):
                put(totals.maximum, s, get(loss.given_lse, panel.slice + s))
                put(totals.rest, s, 0.0)
                put(totals.low, s, 0.0)
            losses.begin(op, traversal, panel, x, loss, totals, state)
            _finish_all(op, panel, x, loss, totals, state)
            write(op, traversal, panel, x, out, loss, totals, state, True)
        else:
            find_maxima(traversal, panel, x, totals)
            losses.begin(op, traversal, panel, x, loss, totals, state)
            sum_exponentials(traversal, panel, x, out, totals)
            _finish_all(op, panel, x, loss, totals, state)
            write(op, traversal, panel, x, out, loss, totals, state, None)
        losses.mend_gradients(op, traversal, panel, x, out, loss, state)

    return differentiate


@stub
def panel_at(traversal, view, width, unit):
    """The unit-th panel of up to `width` slices."""


@overload(panel_at, **INLINE)
def _panel_at_for(traversal, view, width, unit):
    if traversal == ROWS.type:

        def of_rows(traversal, view, width, unit):
            s = unit * width
            return Panel(
                min(width, view.outer - s),
                view.n,
                s * view.x_outer,
                view.x_outer,
                view.x_n,
                s * view.out_outer,
                view.out_outer,
                view.out_n,
                s * view.targets_outer,
                view.targets_outer,
                view.targets_n,
                s,
            )

        return of_rows

    def of_columns(traversal, view, width, unit):
        units = (view.inner + width - 1) // width
        outer, s = unit // units, unit % units * width
        return Panel(
            min(width, view.inner - s),
            view.n,
            outer * view.x_outer + s,
            1,
            view.x_n,
            outer * view.out_outer + s,
            1,
            view.out_n,
            outer * view.targets_outer + s,
            1,
            view.targets_n,
            outer * view.inner + s,
        )

    return of_columns


@helper
def run(op, traversal, x, out, loss, view, width, begin, end):
    """Process panels begin..end of the array that begins at the pointer x."""
    totals = Totals(panel_numbers(x), panel_doubles(x), panel_doubles(x), panel_numbers(x), panel_numbers(x))
    for unit in range(begin, end):
        process(op, traversal, panel_at(traversal, view, width, unit), x, out, loss, totals)
