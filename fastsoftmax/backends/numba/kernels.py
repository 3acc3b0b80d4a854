"""The operations: what each makes of its slices' maxima and sums, and the kernels that run them over an array.

What is not asked for has no place among the types of a kernel's arguments, so one source serves every operation.
"""

from __future__ import annotations

from typing import NamedTuple

from numba.core import types

from fastsoftmax.backends.numba import loss as losses
from fastsoftmax.backends.numba import vjp
from fastsoftmax.backends.numba.compiled import by_types, helper, part
from fastsoftmax.backends.numba.exponential import exp_scale, exp_scaled, log_rest
from fastsoftmax.backends.numba.markers import LOG_SOFTMAX, ROWS, SOFTMAX, Write
from fastsoftmax.backends.numba.memory import (
    constant,
    get,
    lanes,
    load,
    load_logits,
    load_some,
    panel_doubles,
    panel_numbers,
    store,
    store_some,
)
from fastsoftmax.backends.numba.panels import (
    TILE,
    Job,
    Panel,
    Totals,
    find_maxima,
    load_wide,
    run_across,
    run_along,
    sum_exponentials,
)
from fastsoftmax.backends.numba.rooms import (
    keeps_apart,
    panel_size,
    place_kept,
    room_for,
    room_size,
    staged,
    with_exponentials_in,
)
from fastsoftmax.backends.numba.sums import plus, quotient, times_pair, wide
from fastsoftmax.backends.numba.vectors import formula


class View(NamedTuple):
    """An array (outer, n, inner), its output and what stands beside it: sizes, and strides in elements."""

    outer: int
    n: int
    inner: int
    x_outer: int
    x_n: int
    out_outer: int
    out_n: int
    beside_outer: int
    beside_n: int


# From sums to factors.


@by_types
def _finish(op, job, g, count):
    """Put down the factors of `count` slices from g on, and write what there is one of per slice."""
    if op == SOFTMAX.type:

        def softmax(op, job, g, count):
            maximum = load(job.totals.maximum, g)
            top = exp_scaled(maximum, exp_scale(maximum))
            hi, lo = quotient(1.0, constant(job.x, 1.0), plus(top, load_wide(job, g), wide(top)))
            store(hi, job.totals.hi, g)
            store(lo, job.totals.lo, g)

        return softmax
    if op == LOG_SOFTMAX.type:

        def log_softmax(op, job, g, count):
            maximum = load(job.totals.maximum, g)
            top = exp_scaled(maximum, exp_scale(maximum))
            store(maximum, job.totals.hi, g)
            store(log_rest(top, load_wide(job, g)), job.totals.lo, g)

        return log_softmax
    gradient = op.write is Write.EXPONENTIALS

    def cross_entropy(op, job, g, count):
        maximum = load(job.totals.maximum, g)
        scale = exp_scale(maximum)
        top = exp_scaled(maximum, scale)
        slope = losses.finish_loss(job, g, count, maximum, log_rest(top, load_wide(job, g)))
        if gradient:
            hi, lo = losses.finish_grad(op, job, g, scale, top, slope)
            store(hi, job.totals.hi, g)
            store(lo, job.totals.lo, g)

    return cross_entropy


@helper
def _finish_all(op, job):
    w = lanes(job.x)
    for g in range(0, job.panel.count, w):
        _finish(op, job, g, min(w, job.panel.count - g))


# From factors to outputs.


@formula
def _input(op, job, i, k, count, scale):
    """What a vector of the output is made of: logits or exponentials; these were kept, or are computed again."""
    if op.write is Write.LOGARITHMS:
        return load_some(job.x, i, count)
    if job.kept is not None:
        return load_some(job.kept, k, count)
    return exp_scaled(load_logits(job.x, i, count), scale)


@by_types
def _less(op, traversal, job, run, k, count, less):
    """What is taken away from a vector of the output; None for nothing."""
    if not op.spread:
        return lambda op, traversal, job, run, k, count, less: None
    return lambda op, traversal, job, run, k, count, less: less * losses.share(traversal, job, run, k, count)


@formula
def _output(op, y, factor, less):
    """One vector of the output."""
    if op.write is Write.LOGARITHMS:
        return (y - factor[0]) - factor[1]
    value = times_pair(y, factor)
    return value if less is None else value - less


@helper
def _run_output(op, traversal, job, run, count, scale, factor, less):
    for k in range(run.steps):
        y = _input(op, job, run.x + k * run.x_step, run.kept + k * run.kept_step, count, scale)
        value = _output(op, y, factor, _less(op, traversal, job, run, k, count, less))
        store_some(value, job.out, run.out + k * run.out_step, count)


@by_types
def _write(op, traversal, job):
    """Write the output of a panel."""
    spread = op.spread
    if traversal == ROWS.type:

        def of_rows(op, traversal, job):
            x, w = job.x, lanes(job.x)
            whole, rest = job.panel.n // w, job.panel.n % w
            for s in range(job.panel.count):
                scale = exp_scale(constant(x, get(job.totals.maximum, s)))
                factor = constant(x, get(job.totals.hi, s)), constant(x, get(job.totals.lo, s))
                less = constant(x, get(job.state.less, s)) if spread else factor[0]
                run = run_along(job, s, 0, whole)
                _run_output(op, traversal, job, run, None, scale, factor, less)
                if rest > 0:
                    run = run_along(job, s, whole * w, 1)
                    _run_output(op, traversal, job, run, rest, scale, factor, less)

        return of_rows

    def of_columns(op, traversal, job):
        w, count = lanes(job.x), job.panel.count
        for c in range(0, job.panel.n, TILE):
            for g in range(0, count, w):
                run = run_across(job, g, c, min(TILE, job.panel.n - c))
                scale = exp_scale(load(job.totals.maximum, g))
                factor = load(job.totals.hi, g), load(job.totals.lo, g)
                less = load(job.state.less, g) if spread else factor[0]
                if g + w <= count:
                    _run_output(op, traversal, job, run, None, scale, factor, less)
                else:
                    _run_output(op, traversal, job, run, count - g, scale, factor, less)

    return of_columns


# From maxima to outputs.


@by_types
def _finish_panel(op, traversal, job, room):
    """Sums, factors and output of a panel whose maxima are known.

    (All in one: LLVM goes through everything below anew for each function between here and the entry point, which is
    a tenth of the time that a kernel takes to compile.)
    """
    if keeps_apart(job, room):

        def of_halves(op, traversal, job, room):
            if panel_size(traversal, job) <= room_size(room):
                _finish_panel(op, traversal, with_exponentials_in(room, traversal, job), None)
            else:
                _finish_panel(op, traversal, job, None)

        return of_halves
    if job.types[job.fields.index("loss")] == types.none:

        def normalizer(op, traversal, job, room):
            sum_exponentials(traversal, job)
            _finish_all(op, job)
            _write(op, traversal, job)

        return normalizer
    gradient = op.write is not Write.NOTHING

    def loss(op, traversal, job, room):
        sum_exponentials(traversal, job)
        if job.loss.has_given_lse:
            losses.forget_rest(job)
        _finish_all(op, job)
        if gradient:
            _write(op, traversal, job)
            losses.mend_gradients(op, traversal, job)

    return loss


# The array.


@by_types
def _panel_at(traversal, view, width, unit):
    """The unit-th panel of up to `width` slices."""
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
                s * view.out_outer,
                view.out_outer,
                view.out_n,
                s * view.beside_outer,
                view.beside_outer,
                view.beside_n,
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
            outer * view.out_outer + s,
            1,
            view.out_n,
            outer * view.beside_outer + s,
            1,
            view.beside_n,
            outer * view.inner + s,
        )

    return of_columns


@part
def _totals(x):
    return Totals(panel_numbers(x), panel_doubles(x), panel_doubles(x), panel_numbers(x), panel_numbers(x))


# These process panels begin..end of an array; x, out (which may be x) and beside are pointers.


@part
def normalize(op, traversal, x, out, view, width, begin, end):
    """Softmax and log_softmax."""
    totals, kept, room = _totals(x), place_kept(op, x, out), room_for(op, traversal, x)
    for unit in range(begin, end):
        panel = _panel_at(traversal, view, width, unit)
        job = staged(traversal, Job(panel, x, out, kept, None, None, totals, None), room)
        find_maxima(traversal, job)
        _finish_panel(op, traversal, job, room)


@part
def differentiate(op, traversal, x, out, beside, view, width, begin, end):
    """The vector-Jacobian products of softmax and log_softmax."""
    totals = _totals(x)
    for unit in range(begin, end):
        job = Job(_panel_at(traversal, view, width, unit), x, out, None, beside, None, totals, None)
        vjp.differentiate(op, traversal, job)


@part
def entropy(op, traversal, x, out, beside, loss, view, width, begin, end):
    """Cross-entropy, its gradient, logsumexp; out and beside may be None."""
    totals, state, kept, room = _totals(x), losses.room(x), place_kept(op, x, out), room_for(op, traversal, x)
    for unit in range(begin, end):
        panel = _panel_at(traversal, view, width, unit)
        job = staged(traversal, Job(panel, x, out, kept, beside, loss, totals, state), room)
        if loss.has_given_lse:
            losses.take_lse(job)
        else:
            find_maxima(traversal, job)
        losses.begin(op, traversal, job)
        _finish_panel(op, traversal, job, room)
