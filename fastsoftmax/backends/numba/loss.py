"""Cross-entropy and its gradient. With the target q = (1-e) onehot + e/K, or (1-e) t + e/K of probability labels t, the class
weights w, the slice's weight s, and v the label's weight (1 for probability labels):

    loss = s (sum_c w_c q_c (lse - x_c) + v z lse^2),    lse - x_c = (m - x_c) + log1p(r)
    gradient_c = grad_scale s ((A + 2 v z lse) p_c - w_c q_c),    A = sum_c w_c q_c

with r the sum of the exponentials but the first maximum's. The one-hot part of an index label stands apart from the shares of all
classes, which only the spread form has (e > 0 or probability labels): its gradient is -(sum of the other exponentials) / sum,
because p - 1 would lose the digits of 1 - p where p is near 1. A term of factor 0 is 0 even at a logit of -inf. An ignored slice
has loss and gradient 0, whatever it holds.
"""

from __future__ import annotations

from math import nan
from typing import Any, NamedTuple

from numba.core import types
from numba.extending import overload

from fastsoftmax.backends.numba.compiled import INLINE, helper, stub
from fastsoftmax.backends.numba.exp import exp_scaled
from fastsoftmax.backends.numba.markers import ROWS
from fastsoftmax.backends.numba.memory import (
    constant,
    element,
    get,
    keep_first,
    lanes,
    load,
    load_some,
    panel_integers,
    panel_numbers,
    put,
    store,
    store_some,
)
from fastsoftmax.backends.numba.sums import add, folded, plus, quotient, rounded, times_pair, wide
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
    targets: Any  # None, or a pointer
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


@helper
def room(x):
    """Make a State."""
    return State(
        panel_integers(x),
        panel_numbers(x),
        panel_numbers(x),
        panel_numbers(x),
        panel_numbers(x),
        panel_numbers(x),
        panel_numbers(x),
        panel_numbers(x),
        panel_numbers(x),
    )


@helper
def lse_of_infinite(panel, x, s, maximum):
    """The logsumexp of a slice whose maximum is infinite: that one, or NaN if one stands beside it. 0 for any other slice."""
    if maximum - maximum == 0:
        return maximum * 0
    at = panel.x + s * panel.x_lane
    for i in range(panel.n):
        x_i = element(x, at + i * panel.x_n)
        if x_i != x_i:
            return x_i
    return maximum


# The shares.


@stub
def share(traversal, panel, x, loss, s, c, count):
    """w_c q_c but for the one-hot part: of classes c.. of slice s (rows), or of class c of the slices s.. (columns)."""


@overload(share, **INLINE)
def _share_for(traversal, panel, x, loss, s, c, count):
    rows = traversal == ROWS.type
    targets = loss.types[loss.fields.index("targets")] != types.none

    def implementation(traversal, panel, x, loss, s, c, count):
        value = constant(x, loss.label_smoothing / panel.n)
        if targets:
            i = panel.targets + s * panel.targets_lane + c * panel.targets_n
            value = fma(1 - loss.label_smoothing, load_some(loss.targets, i, count, 0.0), value)
        if loss.has_weight:
            if rows:
                value = value * load_some(loss.weight, c, count, 0.0)
            else:
                value = value * get(loss.weight, c)
        return value

    return implementation


@formula
def weighted(a, b):
    """A * b, or 0 where a is 0 and b infinite."""
    return choose(a == 0.0, 0.0, a * b)


@stub
def sum_shares(traversal, panel, x, loss, totals, state):
    """Sum the shares, and the shares times what lies between maximum and logit."""


@overload(sum_shares, **INLINE)
def _sum_shares_for(traversal, panel, x, loss, totals, state):
    if traversal == ROWS.type:

        def of_rows(traversal, panel, x, loss, totals, state):
            w = lanes(x)
            zero = constant(x, 0.0)
            for s in range(panel.count):
                i = panel.x + s * panel.x_lane
                maximum = constant(x, get(totals.maximum, s))
                share_sum, term_sum = wide(zero), wide(zero)
                for c in range(0, panel.n, w):
                    # (Behind the end there is no share, not even the even one.)
                    count = min(w, panel.n - c)
                    some = keep_first(share(traversal, panel, x, loss, s, c, count), count)
                    share_sum = add(share_sum, some)
                    term_sum = add(term_sum, weighted(some, maximum - load_some(x, i + c, count, 0.0)))
                hi, low = folded(share_sum, zero)
                put(state.shares, s, hi + low)
                hi, low = folded(term_sum, zero)
                put(state.spread, s, hi + low if hi - hi == 0 else hi)

        return of_rows

    def of_columns(traversal, panel, x, loss, totals, state):
        w = lanes(x)
        zero = constant(x, 0.0)
        for g in range(0, panel.count, w):
            count = min(w, panel.count - g)
            maximum = load(totals.maximum, g)
            share_sum, term_sum = wide(zero), wide(zero)
            for c in range(panel.n):
                some = share(traversal, panel, x, loss, g, c, count)
                i = panel.x + g + c * panel.x_n
                share_sum = add(share_sum, some)
                term_sum = add(term_sum, weighted(some, maximum - load_some(x, i, count, 0.0)))
            store(rounded(zero, share_sum), state.shares, g)
            store(rounded(zero, term_sum), state.spread, g)

    return of_columns


@helper
def begin(op, traversal, panel, x, loss, totals, state):
    """Read what will be needed of the logits, before an output takes their place."""
    keep = 1 - loss.label_smoothing
    for s in range(panel.count):
        index = panel.slice + s
        put(state.infinite, s, lse_of_infinite(panel, x, s, get(totals.maximum, s)))
        scale = get(loss.sample_weight, index) if loss.has_sample_weight else 1.0
        put(state.less, s, scale * loss.grad_scale)  # (the product, because grad_scale alone may be beyond a float)
        put(state.label, s, NONE)
        put(state.logit, s, 0.0)
        put(state.one, s, 0.0)
        put(state.square, s, scale * loss.z_loss)
        # For what sum_shares multiplies.
        put(state.shares, s, 0.0)
        put(state.spread, s, 0.0)
        if loss.has_labels:
            # Read once: its owner may change it meanwhile. What is no class gives NaN, and nothing beyond the slice is read.
            label = get(loss.labels, index)
            if label == loss.ignore_index:
                put(state.label, s, IGNORED)
            elif 0 <= label < panel.n:
                put(state.label, s, label)
                put(state.logit, s, element(x, panel.x + s * panel.x_lane + label * panel.x_n))
                if loss.has_weight:
                    scale = scale * get(loss.weight, label)
                put(state.one, s, scale * keep)
                put(state.square, s, scale * loss.z_loss)
            else:
                put(state.one, s, nan)
    _begin_spread(op, traversal, panel, x, loss, totals, state)


@stub
def _begin_spread(op, traversal, panel, x, loss, totals, state):
    """Sum the shares, where there are any."""


@overload(_begin_spread, **INLINE)
def _begin_spread_for(op, traversal, panel, x, loss, totals, state):
    if not op.spread:
        return lambda op, traversal, panel, x, loss, totals, state: None

    def implementation(op, traversal, panel, x, loss, totals, state):
        sum_shares(traversal, panel, x, loss, totals, state)
        for s in range(panel.count):
            scale = get(loss.sample_weight, panel.slice + s) if loss.has_sample_weight else 1.0
            spread = get(state.spread, s)
            put(state.shares, s, scale * get(state.shares, s))
            put(state.spread, s, 0.0 if scale == 0 else scale * spread)

    return implementation


@helper
def finish_loss(panel, x, loss, state, g, count, maximum, log_rest):
    """Write losses and logsumexps of the slices from g on; give the slope of z_loss, 2 s v z lse."""
    own_lse = maximum + log_rest
    if loss.has_lse:
        infinite = load(state.infinite, g)
        store_some(choose(infinite == 0.0, own_lse, infinite), loss.lse, panel.slice + g, count)
    square = load(state.square, g)
    slope = constant(x, 0.0)
    if loss.z_loss != 0:
        slope = 2.0 * (square * own_lse)
    if loss.has_loss:
        one = load(state.one, g)
        total = one + load(state.shares, g)
        value = weighted(one, maximum - load(state.logit, g)) + total * log_rest + load(state.spread, g)
        if loss.z_loss != 0:
            # (Halved first: the square itself may overflow where its factor is 0.)
            value = value + (0.5 * slope) * own_lse
        store_some(value, loss.loss, panel.slice + g, count)
        for s in range(g, g + count):
            if get(state.label, s) == IGNORED:
                put(loss.loss, panel.slice + s, 0.0)
    return slope


@helper
def finish_grad(op, x, loss, state, g, scale, top, rest, slope):
    """Give the factors of the gradient of the slices from g on; put the labels' own gradients down."""
    one, shares = load(state.one, g), load(state.shares, g)
    total = plus(top, rest, wide(top))
    factor = quotient(loss.grad_scale, (one + shares) + slope, total)
    # If the label is the maximum, the others are the rest, with all its digits. If not, nothing cancels.
    y = exp_scaled(load(state.logit, g), scale)
    others = rounded(top, plus(top, rest, wide(top - y)))
    if loss.z_loss == 0 and not _is_spread(op):
        value = 0.0 - times_pair(others, factor)
    else:
        one_factor = quotient(loss.grad_scale, one, total)
        more = quotient(loss.grad_scale, shares + slope, total)
        value = times_pair(y, more) - times_pair(others, one_factor)
    store(value, state.label_grad, g)
    return factor


@stub
def _is_spread(op):
    """Whether an operation is of the spread form."""


@overload(_is_spread, **INLINE)
def _is_spread_for(op):
    spread = op.spread
    return lambda op: spread


@helper
def mend_gradients(op, traversal, panel, x, out, loss, state):
    """Write the single elements, and the ignored slices, that differ from the rest of the gradient."""
    for s in range(panel.count):
        label = get(state.label, s)
        j = panel.out + s * panel.out_lane
        if label == IGNORED:
            for i in range(panel.n):
                store_some(constant(x, 0.0), out, j + i * panel.out_n, 1)
        elif label != NONE:
            value = constant(x, get(state.label_grad, s))
            if _is_spread(op):
                value = value - get(state.less, s) * share(traversal, panel, x, loss, s, label, 1)
            store_some(value, out, j + label * panel.out_n, 1)
