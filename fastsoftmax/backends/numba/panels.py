"""Panels: slices side by side, whose numbers stand on the stack while their logits stand in a cache; and the passes.

A panel's slices are rows (an element's neighbour is the slice's next, and the lanes of a vector run along the slice) or
columns (its neighbour belongs to the next slice, and each lane holds a slice). Either is made of runs: vectors at equal
distances, of which each lane adds up its own. A slice's order of summation depends on its length alone.

Three passes: the maximum; the exponentials and their sum; the output (``rooms`` says where exponentials wait for it).
"""

from __future__ import annotations

from math import inf
from typing import Any, NamedTuple

from numba.core import types
from numba.extending import register_jitable

from fastsoftmax.backends.numba.compiled import by_types, helper
from fastsoftmax.backends.numba.exponential import exp_scale, exp_scaled
from fastsoftmax.backends.numba.markers import ROWS
from fastsoftmax.backends.numba.memory import (
    computing,
    constant,
    get,
    lanes,
    load,
    load_logits,
    store,
    store_some,
)
from fastsoftmax.backends.numba.sums import add, folded, wide, without_largest
from fastsoftmax.backends.numba.vectors import VECTOR_BYTES, formula, larger, largest_lane

# So many rows of columns at once: their numbers are fetched once for all of them.
TILE = 8

# What a panel of rows may take: a quarter of a small second-level cache.
ROWS_BYTES = 1 << 17


@register_jitable
def rows_width(n, lanes):
    """How many rows of n elements make a panel; of columns it is PANEL, whose lines lie side by side in memory."""
    return max(min(ROWS_BYTES * lanes // (max(n, 1) * VECTOR_BYTES), lanes), 1)


class Panel(NamedTuple):
    """Where slices stand: offsets, and distances between slices (`lane`) and along one (`n`), in elements."""

    count: int
    n: int
    x: int
    x_lane: int
    x_n: int
    out: int
    out_lane: int
    out_n: int
    kept: int
    kept_lane: int
    kept_n: int
    beside: int
    beside_lane: int
    beside_n: int
    slice: int  # the first one's index among all


class Totals(NamedTuple):
    """A number for each slice: pointers to the stack."""

    maximum: Any
    rest: Any  # the sum of all exponentials but the largest; of float32 in float64
    low: Any  # its lower part, of float64
    hi: Any  # what the output is made with
    lo: Any


class Job(NamedTuple):
    """All that a pass needs."""

    panel: Panel
    x: Any  # a pointer
    out: Any  # a pointer, or None
    kept: Any  # a pointer to where exponentials wait for the last pass, or None
    beside: Any  # a pointer to probability labels or a saved output, or None
    loss: Any  # a Loss, or None
    totals: Totals
    state: Any  # a loss's State, or None


class Run(NamedTuple):
    """So many vectors at equal distances: the first one's places in x, out and the like, and its class."""

    steps: int
    x: int
    x_step: int
    out: int
    out_step: int
    kept: int
    kept_step: int
    beside: int
    beside_step: int
    c: int
    c_step: int


@helper
def run_along(job, s, c, steps):
    """The run from class c of row s on."""
    panel = job.panel
    w = lanes(job.x)
    return Run(
        steps,
        panel.x + s * panel.x_lane + c,
        w,
        panel.out + s * panel.out_lane + c,
        w,
        panel.kept + s * panel.kept_lane + c,
        w,
        panel.beside + s * panel.beside_lane + c,
        w,
        c,
        w,
    )


@helper
def run_across(job, g, c, steps):
    """The run from class c of the columns g.. on."""
    panel = job.panel
    return Run(
        steps,
        panel.x + g * panel.x_lane + c * panel.x_n,
        panel.x_n,
        panel.out + g * panel.out_lane + c * panel.out_n,
        panel.out_n,
        panel.kept + g * panel.kept_lane + c * panel.kept_n,
        panel.kept_n,
        panel.beside + g * panel.beside_lane + c * panel.beside_n,
        panel.beside_n,
        c,
        1,
    )


# The maxima.


@helper
def _run_maximum(x, run, count, maximum):
    """The maximum in each lane; NaN may count or not."""
    i = run.x
    a, b = maximum, maximum
    for _ in range(run.steps // 2):
        a = larger(a, load_logits(x, i, count))
        b = larger(b, load_logits(x, i + run.x_step, count))
        i += 2 * run.x_step
    if run.steps % 2:
        a = larger(a, load_logits(x, i, count))
    return larger(a, b)


@by_types
def find_maxima(traversal, job):
    """Find each slice's maximum."""
    if traversal == ROWS.type:

        def of_rows(traversal, job):
            x, w = job.x, lanes(job.x)
            whole, rest = job.panel.n // w, job.panel.n % w
            for s in range(job.panel.count):
                maximum = _run_maximum(x, run_along(job, s, 0, whole), None, constant(x, -inf))
                if rest > 0:
                    maximum = _run_maximum(x, run_along(job, s, whole * w, 1), rest, maximum)
                # (In all lanes: a vector that is read where one number was just written keeps a processor waiting.)
                store(constant(x, largest_lane(maximum)), job.totals.maximum, s)

        return of_rows

    def of_columns(traversal, job):
        x, w, count = job.x, lanes(job.x), job.panel.count
        for g in range(0, count, w):
            store(constant(x, -inf), job.totals.maximum, g)
        for c in range(0, job.panel.n, TILE):
            for g in range(0, count, w):
                run = run_across(job, g, c, min(TILE, job.panel.n - c))
                maximum = load(job.totals.maximum, g)
                if g + w <= count:
                    maximum = _run_maximum(x, run, None, maximum)
                else:
                    maximum = _run_maximum(x, run, count - g, maximum)
                store(maximum, job.totals.maximum, g)

    return of_columns


# The sums.


@formula
def load_wide(job, g):
    """The wide sums of the slices from g on."""
    rest = job.totals.rest
    if computing(job.x.dtype) == types.float32:
        return load(rest, g), load(rest, g + lanes(rest))
    return load(rest, g), load(job.totals.low, g)


@formula
def store_wide(job, g, total):
    """Put them back."""
    rest = job.totals.rest
    store(total[0], rest, g)
    if computing(job.x.dtype) == types.float32:
        store(total[1], rest, g + lanes(rest))
    else:
        store(total[1], job.totals.low, g)


@formula
def _exponential(x, i, kept, k, count, scale):
    """Exponentials, which are kept where there is a place for them."""
    y = exp_scaled(load_logits(x, i, count), scale)
    if kept is not None:
        store_some(y, kept, k, count)
    return y


@helper
def _run_sum(x, kept, run, count, scale, total, top):
    """Add the exponentials of a run, all but the largest, which is `top`; four at once, for the latency."""
    i, k, step, kept_step = run.x, run.kept, run.x_step, run.kept_step
    for _ in range(run.steps // 4):
        a = _exponential(x, i, kept, k, count, scale)
        b = _exponential(x, i + step, kept, k + kept_step, count, scale)
        c = _exponential(x, i + 2 * step, kept, k + 2 * kept_step, count, scale)
        d = _exponential(x, i + 3 * step, kept, k + 3 * kept_step, count, scale)
        a, top = without_largest(top, a)
        b, top = without_largest(top, b)
        c, top = without_largest(top, c)
        d, top = without_largest(top, d)
        total = add(total, (a + b) + (c + d))
        i += 4 * step
        k += 4 * kept_step
    for _ in range(run.steps % 4):
        a, top = without_largest(top, _exponential(x, i, kept, k, count, scale))
        total = add(total, a)
        i += step
        k += kept_step
    return total, top


@by_types
def sum_exponentials(traversal, job):
    """Sum each slice's exponentials but the largest, and keep them."""
    if traversal == ROWS.type:

        def of_rows(traversal, job):
            x, kept, w = job.x, job.kept, lanes(job.x)
            whole, rest = job.panel.n // w, job.panel.n % w
            zero = constant(x, 0.0)
            for s in range(job.panel.count):
                scale = exp_scale(constant(x, get(job.totals.maximum, s)))
                total, top = _run_sum(x, kept, run_along(job, s, 0, whole), None, scale, wide(zero), zero)
                if rest > 0:
                    total, top = _run_sum(x, kept, run_along(job, s, whole * w, 1), rest, scale, total, top)
                hi, low = folded(total, top)
                store(constant(job.totals.rest, hi), job.totals.rest, s)
                store(constant(job.totals.low, low), job.totals.low, s)

        return of_rows

    def of_columns(traversal, job):
        x, kept, w, count = job.x, job.kept, lanes(job.x), job.panel.count
        zero = constant(x, 0.0)
        tops = job.totals.hi  # which nothing else needs yet
        for g in range(0, count, w):
            store(zero, tops, g)
            store_wide(job, g, wide(zero))
        for c in range(0, job.panel.n, TILE):
            for g in range(0, count, w):
                run = run_across(job, g, c, min(TILE, job.panel.n - c))
                scale = exp_scale(load(job.totals.maximum, g))
                total, top = load_wide(job, g), load(tops, g)
                if g + w <= count:
                    total, top = _run_sum(x, kept, run, None, scale, total, top)
                else:
                    total, top = _run_sum(x, kept, run, count - g, scale, total, top)
                store_wide(job, g, total)
                store(top, tops, g)

    return of_columns
