"""Vector-Jacobian products from the saved output y of a slice, for its upstream gradient g.

    softmax:     y (g - sum(g y))
    log_softmax: g - exp(y) sum(g)

Two passes over a panel, one adding and one writing. The sums have signs: they are kept wider than their terms, and used
with what their rounding loses.
"""

from __future__ import annotations

from fastsoftmax.backends.numba.compiled import by_types, helper
from fastsoftmax.backends.numba.exponential import exp_full
from fastsoftmax.backends.numba.markers import ROWS, SOFTMAX_GRAD
from fastsoftmax.backends.numba.memory import constant, lanes, load, load_some, store, store_some
from fastsoftmax.backends.numba.panels import TILE, load_wide, run_across, run_along, store_wide
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
    lost = fma(p, hi, 0.0 - product) if FUSED else 0.0
    return (g - product) - rest_of(product, fma(p, lo, lost))


@helper
def _run_sum(op, job, run, count, total):
    for k in range(run.steps):
        g = load_some(job.x, run.x + k * run.x_step, count)
        y = load_some(job.beside, run.beside + k * run.beside_step, count)
        total = _added(op, total, g, y)
    return total


@helper
def _run_product(op, job, run, count, total):
    for k in range(run.steps):
        g = load_some(job.x, run.x + k * run.x_step, count)
        y = load_some(job.beside, run.beside + k * run.beside_step, count)
        store_some(_product(op, g, y, total), job.out, run.out + k * run.out_step, count)


@by_types
def differentiate(op, traversal, job):
    """Write the products of a panel: x is the upstream gradient, beside it stands the saved output."""
    if traversal == ROWS.type:

        def of_rows(op, traversal, job):
            w = lanes(job.x)
            whole, rest = job.panel.n // w, job.panel.n % w
            zero = constant(job.x, 0.0)
            for s in range(job.panel.count):
                run, last = run_along(job, s, 0, whole), run_along(job, s, whole * w, 1)
                total = _run_sum(op, job, run, None, wide(zero))
                if rest > 0:
                    total = _run_sum(op, job, last, rest, total)
                hi, low = folded(total, zero)
                sums = pair(zero, wide_of_number(zero, hi, low))
                _run_product(op, job, run, None, sums)
                if rest > 0:
                    _run_product(op, job, last, rest, sums)

        return of_rows

    def of_columns(op, traversal, job):
        w, count, n = lanes(job.x), job.panel.count, job.panel.n
        zero = constant(job.x, 0.0)
        for g in range(0, count, w):
            store_wide(job, g, wide(zero))
        for c in range(0, n, TILE):
            for g in range(0, count, w):
                run, total = run_across(job, g, c, min(TILE, n - c)), load_wide(job, g)
                if g + w <= count:
                    total = _run_sum(op, job, run, None, total)
                else:
                    total = _run_sum(op, job, run, count - g, total)
                store_wide(job, g, total)
        for g in range(0, count, w):
            hi, lo = pair(zero, load_wide(job, g))
            store(hi, job.totals.hi, g)
            store(lo, job.totals.lo, g)
        for c in range(0, n, TILE):
            for g in range(0, count, w):
                run, sums = run_across(job, g, c, min(TILE, n - c)), (load(job.totals.hi, g), load(job.totals.lo, g))
                if g + w <= count:
                    _run_product(op, job, run, None, sums)
                else:
                    _run_product(op, job, run, count - g, sums)

    return of_columns
