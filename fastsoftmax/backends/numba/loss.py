"""Cross-entropy and its gradient.

With the target q = (1-e) onehot + e/K, or (1-e) t + e/K of probability labels t, the class weights w, the slice's
weight s, and v the label's weight (1 for probability labels):

    loss = s (sum_c w_c q_c (lse - x_c) + v z lse^2),    lse - x_c = (m - x_c) + log1p(r)
    gradient_c = grad_scale s ((A + 2 v z lse) p_c - w_c q_c),    A = sum_c w_c q_c

with r the sum of the exponentials but the first maximum's. The one-hot part of an index label stands apart from the
shares of all classes, which only the spread form has (e > 0 or probability labels): its gradient is -(sum of the other
exponentials) / sum, because p - 1 would lose the digits of 1 - p where p is near 1. A term of factor 0 is 0 even at a
logit of -inf. An ignored slice has loss and gradient 0, whatever it holds.
"""

from __future__ import annotations

from math import nan
from typing import Any, NamedTuple

from numba.core import types

from fastsoftmax.backends.numba.compiled import by_types, helper
from fastsoftmax.backends.numba.exponential import exp_scaled
from fastsoftmax.backends.numba.markers import ROWS
from fastsoftmax.backends.numba.memory import (
    constant,
    element,
    get,
    keep_first,
    label_at,
    lanes,
    load,
    load_some,
    panel_integers,
    panel_numbers,
    put,
    store,
    store_some,
)
from fastsoftmax.backends.numba.panels import load_wide, run_across, run_along
from fastsoftmax.backends.numba.sums import add, over_lanes, plus, quotient, rounded, times_pair, wide
from fastsoftmax.backends.numba.vectors import choose, fma, formula

# In the place of a label: the slice is ignored; there is none.
IGNORED, NONE = -1, -2


class Loss(NamedTuple):
    """What a call says of the loss: pointers, and whether there is anything behind them.

    Numbers per slice stand in the order of the slices.
    """

    labels: Any
    has_labels: bool
    ignore_index: int
    weight: Any
    has_weight: bool
    sample_weight: Any
    has_sample_weight: bool
    given_lse: Any
    has_given_lse: bool
    loss: Any
    has_loss: bool
    lse: Any
    has_lse: bool
    label_smoothing: float
    z_loss: float
    grad_scale: float


class State(NamedTuple):
    """A number for each slice of a panel: pointers to the stack."""

    label: Any
    logit: Any  # at the label
    infinite: Any  # the logsumexp where it is no sum; else 0
    one: Any  # s (1-e) w_label, of the one-hot part
    shares: Any  # s times the sum of the shares
    spread: Any  # s times the sum of share_c (m - x_c)
    square: Any  # s v z
    less: Any  # what the shares are multiplied by in the gradient
    label_grad: Any


@formula
def room(x):
    """Make a State on the stack of the caller."""
    return State(panel_integers(x), *[panel_numbers(x) for _ in State._fields[1:]])


@helper
def _lse_of_infinite(job, s, maximum):
    """The logsumexp of a slice of infinite maximum: that one, or NaN if one stands beside it. 0 for any other slice."""
    if maximum - maximum == 0:
        return maximum * 0
    at = job.panel.x + s * job.panel.x_lane
    for c in range(job.panel.n):
        x_c = element(job.x, at + c * job.panel.x_n)
        if x_c != x_c:
            return x_c
    return maximum


# The shares.


@formula
def _weighted(a, b):
    """a * b, or 0 where a is 0 and b infinite."""
    return choose(a == 0.0, 0.0, a * b)


@by_types
def _target(job, i, count):
    """The target but for the one-hot part: e/K, and (1-e) t of probability labels.

    (One kernel for both, chosen by whether there are other labels: to choose takes no time that could be measured, and
    a kernel seconds to compile.)
    """
    if job.types[job.fields.index("beside")] == types.none:
        return lambda job, i, count: _even(job, count)

    def either(job, i, count):
        even = _even(job, count)
        return even if job.loss.has_labels else fma(1 - job.loss.label_smoothing, load_some(job.beside, i, count), even)

    return either


@helper
def _even(job, count):
    """e/K in the first lanes: behind a slice's end no class has a share."""
    return keep_first(constant(job.x, job.loss.label_smoothing / job.panel.n), count)


@by_types
def share(traversal, job, run, k, count):
    """w_c q_c but for the one-hot part, at a run's k-th vector."""
    rows = traversal == ROWS.type

    def implementation(traversal, job, run, k, count):
        loss, c = job.loss, run.c + k * run.c_step
        value = _target(job, run.beside + k * run.beside_step, count)
        if loss.has_weight:
            value = value * (load_some(loss.weight, c, count) if rows else get(loss.weight, c))
        return value

    return implementation


@helper
def _run_shares(traversal, job, run, count, maximum, share_sum, term_sum):
    for k in range(run.steps):
        some = share(traversal, job, run, k, count)
        x = load_some(job.x, run.x + k * run.x_step, count)
        share_sum, term_sum = add(share_sum, some), add(term_sum, _weighted(some, maximum - x))
    return share_sum, term_sum


@by_types
def _sum_shares(traversal, job):
    """Sum the shares, and the shares times what lies between maximum and logit."""
    if traversal == ROWS.type:

        def of_rows(traversal, job):
            w = lanes(job.x)
            whole, rest = job.panel.n // w, job.panel.n % w
            zero = constant(job.x, 0.0)
            for s in range(job.panel.count):
                maximum = constant(job.x, get(job.totals.maximum, s))
                run = run_along(job, s, 0, whole)
                shares, terms = _run_shares(traversal, job, run, None, maximum, wide(zero), wide(zero))
                if rest > 0:
                    run = run_along(job, s, whole * w, 1)
                    shares, terms = _run_shares(traversal, job, run, rest, maximum, shares, terms)
                put(job.state.shares, s, over_lanes(zero, shares))
                put(job.state.spread, s, over_lanes(zero, terms))

        return of_rows

    def of_columns(traversal, job):
        w = lanes(job.x)
        zero = constant(job.x, 0.0)
        for g in range(0, job.panel.count, w):
            maximum = load(job.totals.maximum, g)
            run = run_across(job, g, 0, job.panel.n)
            shares, terms = _run_shares(
                traversal, job, run, min(w, job.panel.count - g), maximum, wide(zero), wide(zero)
            )
            store(rounded(zero, shares), job.state.shares, g)
            store(rounded(zero, terms), job.state.spread, g)

    return of_columns


# A panel's losses and gradients.


@helper
def take_lse(job):
    """Let logsumexps that were given stand for the maxima."""
    for s in range(job.panel.count):
        put(job.totals.maximum, s, get(job.loss.given_lse, job.panel.slice + s))


@helper
def forget_rest(job):
    """Let their exponentials stand for the whole sums."""
    for s in range(job.panel.count):
        put(job.totals.rest, s, 0.0)
        put(job.totals.low, s, 0.0)


@by_types
def begin(op, traversal, job):
    """Read what will be needed of the logits, before an output takes their place."""
    spread = op.spread

    def implementation(op, traversal, job):
        if spread:
            _sum_shares(traversal, job)
        for s in range(job.panel.count):
            _begin_slice(job, s, spread)

    return implementation


@helper
def _begin_slice(job, s, spread):
    panel, loss, state = job.panel, job.loss, job.state
    scale = get(loss.sample_weight, panel.slice + s) if loss.has_sample_weight else 1.0
    put(state.infinite, s, _lse_of_infinite(job, s, get(job.totals.maximum, s)))
    put(state.less, s, scale * loss.grad_scale)  # (the product, because grad_scale alone may be beyond a float)
    put(state.shares, s, scale * get(state.shares, s) if spread else 0.0)
    put(state.spread, s, scale * get(state.spread, s) if spread and scale != 0 else 0.0)
    put(state.label, s, NONE)
    put(state.logit, s, 0.0)
    put(state.one, s, 0.0)
    put(state.square, s, scale * loss.z_loss)
    if loss.has_labels:
        # Read once: its owner may change it meanwhile. What is no class gives NaN; nothing beyond the slice is read.
        label = label_at(loss.labels, panel.slice + s)
        if label == loss.ignore_index:
            put(state.label, s, IGNORED)
        elif 0 <= label < panel.n:
            put(state.label, s, label)
            put(state.logit, s, element(job.x, panel.x + s * panel.x_lane + label * panel.x_n))
            if loss.has_weight:
                scale = scale * get(loss.weight, label)
            put(state.one, s, scale * (1 - loss.label_smoothing))
            put(state.square, s, scale * loss.z_loss)
        else:
            put(state.one, s, nan)


@helper
def finish_loss(job, g, count, maximum, log_rest):
    """Write losses and logsumexps of the slices from g on; give the slope of z_loss, 2 s v z lse."""
    loss, state, first = job.loss, job.state, job.panel.slice + g
    own_lse = maximum + log_rest
    if loss.has_lse:
        infinite = load(state.infinite, g)
        store_some(choose(infinite == 0.0, own_lse, infinite), loss.lse, first, count)
    slope = constant(job.x, 0.0)
    if loss.z_loss != 0:
        slope = 2.0 * (load(state.square, g) * own_lse)
    if loss.has_loss:
        one = load(state.one, g)
        total = one + load(state.shares, g)
        value = _weighted(one, maximum - load(state.logit, g)) + total * log_rest + load(state.spread, g)
        if loss.z_loss != 0:
            # (Halved first: the square itself may overflow where its factor is 0.)
            value = value + (0.5 * slope) * own_lse
        store_some(value, loss.loss, first, count)
        for s in range(count):
            if get(state.label, g + s) == IGNORED:
                put(loss.loss, first + s, 0.0)
    return slope


@by_types
def finish_grad(op, job, g, scale, top, slope):
    """Give the factors of the gradient of the slices from g on; put the labels' own gradients down."""
    spread = op.spread

    def implementation(op, job, g, scale, top, slope):
        state, grad_scale, rest = job.state, job.loss.grad_scale, load_wide(job, g)
        one, shares = load(state.one, g), load(state.shares, g)
        total = plus(top, rest, wide(top))
        factor = quotient(grad_scale, (one + shares) + slope, total)
        # If the label is the maximum, the others are the rest, with all its digits. If not, nothing cancels.
        y = exp_scaled(load(state.logit, g), scale)
        others = rounded(top, plus(top, rest, wide(top - y)))
        value = 0.0 - times_pair(others, factor)
        if spread or job.loss.z_loss != 0:
            value = 0.0 - times_pair(others, quotient(grad_scale, one, total))
            value = value + times_pair(y, quotient(grad_scale, shares + slope, total))
        store(value, state.label_grad, g)
        return factor

    return implementation


@by_types
def mend_gradients(op, traversal, job):
    """Write the single elements, and the ignored slices, that differ from the rest of the gradient."""
    spread = op.spread

    def implementation(op, traversal, job):
        for s in range(job.panel.count):
            label = get(job.state.label, s)
            if label == IGNORED:
                for c in range(job.panel.n):
                    store_some(constant(job.x, 0.0), job.out, run_across(job, s, c, 1).out, 1)
            elif label != NONE:
                run = run_across(job, s, label, 1)
                value = constant(job.x, get(job.state.label_grad, s))
                if spread:
                    value = value - get(job.state.less, s) * share(traversal, job, run, 0, 1)
                store_some(value, job.out, run.out, 1)

    return implementation
