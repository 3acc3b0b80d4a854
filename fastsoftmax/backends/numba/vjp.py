"""Vector-Jacobian products from the saved output y of a slice, for its upstream gradient g:

    softmax:     y (g - sum(g y))
    log_softmax: g - exp(y) sum(g)

Two passes over a panel, one adding and one writing. The sums have signs: they are kept wider than their terms, and used with what
their rounding loses.
"""

from __future__ import annotations

from numba.extending import overload

from fastsoftmax.backends.numba.compiled import INLINE, helper, stub
from fastsoftmax.backends.numba.exp import exp_full
from fastsoftmax.backends.numba.markers import ROWS, SOFTMAX_GRAD
from fastsoftmax.backends.numba.memory import constant, lanes, load, load_some, store, store_some
from fastsoftmax.backends.numba.panels import TILE, load_wide, store_wide
from fastsoftmax.backends.numba.sums import add, add_product, folded, pair, rest_of, wide, wide_of_number
from fastsoftmax.backends.numba.vectors import FUSED, fma, formula


@formula
def _added(op, total, g, y):
    """The sum with one vector more of each."""
    return add_product(total, g, y) if op == SOFTMAX_GRAD.type else add(total, g)


@formula
def _product(op, g, y, total):
    """One vector of the result, from the sum as a pair."""
    hi, lo = total
    if op == SOFTMAX_GRAD.type:
        return y * ((g - hi) - lo)
    p = exp_full(y)
    product = p * hi
    # What the product's rounding lost, where that is a number: an infinite product has no rest.
    lost = rest_of(product, fma(p, hi, 0.0 - product)) if FUSED else 0.0
    return (g - product) - fma(p, lo, lost)


@helper
def _run_sum(op, g, i, step, y, j, y_step, steps, count, total):
    for k in range(steps):
        total = _added(op, total, load_some(g, i + k * step, count, 0.0), load_some(y, j + k * y_step, count, 0.0))
    return total


@helper
def _run_product(op, g, i, step, y, j, y_step, out, k, out_step, steps, count, total):
    for n in range(steps):
        upstream, saved = load_some(g, i + n * step, count, 0.0), load_some(y, j + n * y_step, count, 0.0)
        store_some(_product(op, upstream, saved, total), out, k + n * out_step, count)


@stub
def differentiate(op, traversal, panel, g, y, out, totals):
    """Write the products of a panel; y's strides are those of the targets."""


@overload(differentiate, **INLINE)
def _differentiate_for(op, traversal, panel, g, y, out, totals):
    if traversal == ROWS.type:

        def of_rows(op, traversal, panel, g, y, out, totals):
            w = lanes(g)
            whole, rest = panel.n // w, panel.n % w
            end = whole * w
            zero = constant(g, 0.0)
            for s in range(panel.count):
                i, j = panel.x + s * panel.x_lane, panel.targets + s * panel.targets_lane
                k = panel.out + s * panel.out_lane
                total = _run_sum(op, g, i, w, y, j, w, whole, None, wide(zero))
                if rest > 0:
                    total = _run_sum(op, g, i + end, w, y, j + end, w, 1, rest, total)
                hi, low = folded(total, zero)
                sums = pair(zero, wide_of_number(zero, hi, low))
                _run_product(op, g, i, w, y, j, w, out, k, w, whole, None, sums)
                if rest > 0:
                    _run_product(op, g, i + end, w, y, j + end, w, out, k + end, w, 1, rest, sums)

        return of_rows

    def of_columns(op, traversal, panel, g, y, out, totals):
        w = lanes(g)
        for s in range(0, panel.count, w):
            store_wide(g, totals, s, wide(constant(g, 0.0)))
        for row in range(0, panel.n, TILE):
            steps = min(TILE, panel.n - row)
            for s in range(0, panel.count, w):
                i, j = panel.x + row * panel.x_n + s, panel.targets + row * panel.targets_n + s
                total = load_wide(g, totals, s)
                if s + w <= panel.count:
                    total = _run_sum(op, g, i, panel.x_n, y, j, panel.targets_n, steps, None, total)
                else:
                    total = _run_sum(op, g, i, panel.x_n, y, j, panel.targets_n, steps, panel.count - s, total)
                store_wide(g, totals, s, total)
        for s in range(0, panel.count, w):
            hi, lo = pair(constant(g, 0.0), load_wide(g, totals, s))
            store(hi, totals.hi, s)
            store(lo, totals.lo, s)
        for row in range(0, panel.n, TILE):
            steps = min(TILE, panel.n - row)
            for s in range(0, panel.count, w):
                i, j = panel.x + row * panel.x_n + s, panel.targets + row * panel.targets_n + s
                k = panel.out + row * panel.out_n + s
                sums = load(totals.hi, s), load(totals.lo, s)
                if s + w <= panel.count:
                    _run_product(op, g, i, panel.x_n, y, j, panel.targets_n, out, k, panel.out_n, steps, None, sums)
                else:
                    count = panel.count - s
                    _run_product(op, g, i, panel.x_n, y, j, panel.targets_n, out, k, panel.out_n, steps, count, sums)

    return of_columns
