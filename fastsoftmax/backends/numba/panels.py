"""The passes over a panel: some slices, side by side, whose numbers stand on the stack while their logits stand in a cache.

A panel's slices are rows (an element's neighbour is the slice's next, and the lanes of a vector run along the slice) or
columns (its neighbour belongs to the next slice, and each lane holds a slice). Either is made of runs: vectors at equal
distances, of which each lane adds up its own. A slice's order of summation depends on its length alone.

Three passes: the maximum; the exponentials and their sum; the output. Exponentials wait in the output for the last pass where
they fit there.
"""

from __future__ import annotations

from math import inf
from typing import NamedTuple

from numba.core import types
from numba.extending import overload

from fastsoftmax.backends.numba.compiled import INLINE, helper, stub
from fastsoftmax.backends.numba.exp import exp_scale, exp_scaled
from fastsoftmax.backends.numba.markers import ROWS
from fastsoftmax.backends.numba.memory import computing, constant, get, lanes, load, load_some, put, store, store_some
from fastsoftmax.backends.numba.sums import add, folded, wide, without_largest
from fastsoftmax.backends.numba.vectors import formula, larger, largest_lane

# So many rows of columns at once: their numbers are fetched once for all of them.
TILE = 8


class Panel(NamedTuple):
    """Where the slices stand: offsets and strides in elements."""

    count: int
    n: int
    x: int
    x_lane: int  # between slices
    x_n: int  # along one
    out: int
    out_lane: int
    out_n: int
    targets: int
    targets_lane: int
    targets_n: int
    slice: int  # the first one's index among all


class Totals(NamedTuple):
    """A number for each slice: pointers to the stack. `low` is the lower part of `rest` in float64."""

    maximum: int
    rest: int
    low: int
    hi: int
    lo: int


# Runs: `steps` vectors from element i on, `step` apart; of each the first `count` lanes, or (None) all.


@helper
def run_maximum(x, i, step, steps, count, maximum):
    """The maximum in each lane."""
    a, b = maximum, maximum
    for _ in range(steps // 2):
        a = larger(a, load_some(x, i, count, -inf))
        b = larger(b, load_some(x, i + step, count, -inf))
        i += 2 * step
    if steps % 2:
        a = larger(a, load_some(x, i, count, -inf))
    return larger(a, b)


@formula
def _exponential(x, i, out, j, count, scale):
    """Exponentials, which are kept in the output where there is one that they fit into."""
    y = exp_scaled(load_some(x, i, count, -inf), scale)
    if out is not None and out.dtype == y.dtype:
        store_some(y, out, j, count)
    return y


@helper
def run_sum(x, i, step, out, j, out_step, steps, count, scale, total, top):
    """Add the exponentials of a run, all but the largest, which is `top`; four at once, for the latency."""
    for _ in range(steps // 4):
        a = _exponential(x, i, out, j, count, scale)
        b = _exponential(x, i + step, out, j + out_step, count, scale)
        c = _exponential(x, i + 2 * step, out, j + 2 * out_step, count, scale)
        d = _exponential(x, i + 3 * step, out, j + 3 * out_step, count, scale)
        a, top = without_largest(top, a)
        b, top = without_largest(top, b)
        c, top = without_largest(top, c)
        d, top = without_largest(top, d)
        total = add(total, (a + b) + (c + d))
        i += 4 * step
        j += 4 * out_step
    for _ in range(steps % 4):
        a, top = without_largest(top, _exponential(x, i, out, j, count, scale))
        total = add(total, a)
        i += step
        j += out_step
    return total, top


# The panel's passes.


@stub
def find_maxima(traversal, panel, x, totals):
    """Find each slice's maximum; NaN may count or not."""


@overload(find_maxima, **INLINE)
def _find_maxima_for(traversal, panel, x, totals):
    if traversal == ROWS.type:

        def of_rows(traversal, panel, x, totals):
            w = lanes(x)
            whole, rest = panel.n // w, panel.n % w
            for s in range(panel.count):
                i = panel.x + s * panel.x_lane
                maximum = run_maximum(x, i, w, whole, None, constant(x, -inf))
                if rest > 0:
                    maximum = larger(maximum, load_some(x, i + whole * w, rest, -inf))
                put(totals.maximum, s, largest_lane(maximum))

        return of_rows

    def of_columns(traversal, panel, x, totals):
        w = lanes(x)
        for g in range(0, panel.count, w):
            store(constant(x, -inf), totals.maximum, g)
        for row in range(0, panel.n, TILE):
            steps = min(TILE, panel.n - row)
            for g in range(0, panel.count, w):
                i = panel.x + row * panel.x_n + g
                maximum = load(totals.maximum, g)
                if g + w <= panel.count:
                    maximum = run_maximum(x, i, panel.x_n, steps, None, maximum)
                else:
                    maximum = run_maximum(x, i, panel.x_n, steps, panel.count - g, maximum)
                store(maximum, totals.maximum, g)

    return of_columns


@formula
def load_wide(x, totals, g):
    """The wide sums of the slices from g on."""
    if computing(x.dtype) == types.float32:
        return load(totals.rest, g), load(totals.rest, g + lanes(totals.rest))
    return load(totals.rest, g), load(totals.low, g)


@formula
def store_wide(x, totals, g, total):
    """Put them back."""
    store(total[0], totals.rest, g)
    if computing(x.dtype) == types.float32:
        store(total[1], totals.rest, g + lanes(totals.rest))
    else:
        store(total[1], totals.low, g)


@stub
def sum_exponentials(traversal, panel, x, out, totals):
    """Sum each slice's exponentials but the largest."""


@overload(sum_exponentials, **INLINE)
def _sum_exponentials_for(traversal, panel, x, out, totals):
    if traversal == ROWS.type:

        def of_rows(traversal, panel, x, out, totals):
            w = lanes(x)
            whole, rest = panel.n // w, panel.n % w
            zero = constant(x, 0.0)
            for s in range(panel.count):
                i, j = panel.x + s * panel.x_lane, panel.out + s * panel.out_lane
                scale = exp_scale(constant(x, get(totals.maximum, s)))
                total, top = run_sum(x, i, w, out, j, w, whole, None, scale, wide(zero), zero)
                if rest > 0:
                    i, j = i + whole * w, j + whole * w
                    total, top = run_sum(x, i, w, out, j, w, 1, rest, scale, total, top)
                hi, low = folded(total, top)
                put(totals.rest, s, hi)
                put(totals.low, s, low)

        return of_rows

    def of_columns(traversal, panel, x, out, totals):
        w = lanes(x)
        zero = constant(x, 0.0)
        for g in range(0, panel.count, w):
            store(zero, totals.hi, g)
            store_wide(x, totals, g, wide(zero))
        for row in range(0, panel.n, TILE):
            steps = min(TILE, panel.n - row)
            for g in range(0, panel.count, w):
                i, j = panel.x + row * panel.x_n + g, panel.out + row * panel.out_n + g
                scale = exp_scale(load(totals.maximum, g))
                total, top = load_wide(x, totals, g), load(totals.hi, g)
                if g + w <= panel.count:
                    total, top = run_sum(x, i, panel.x_n, out, j, panel.out_n, steps, None, scale, total, top)
                else:
                    count = panel.count - g
                    total, top = run_sum(x, i, panel.x_n, out, j, panel.out_n, steps, count, scale, total, top)
                store_wide(x, totals, g, total)
                store(top, totals.hi, g)

    return of_columns
