"""Cross-entropy, its gradient, logsumexp.

In the notation of the public docstrings, with lse = m + log1p(r):

  loss   = s (sum_c w_c q_c ((m - x_c) + log1p(r)) + v z lse^2)
  grad_c = s (p_c (sum_c w_c q_c + 2 v z lse) - w_c q_c)

What an index label asks for, `hot` at its class, is kept apart from what every class may get (SPREAD: by smoothing, or
by probability labels): the true class's hot (p - 1) is -hot times the sum of the others, which keeps its digits.

A label out of range makes its slice's loss and gradient NaN; nothing is read there. Arrays that are not given have the
size 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from fastsoftmax.backends.numba_cuda.arithmetic import arithmetic, elements, function
from fastsoftmax.backends.numba_cuda.slices import peaks
from fastsoftmax.backends.numba_cuda.teams import meet_sums

# In the place of a label: the slice is ignored; the label is no class; there is none.
_IGNORED, _WRONG, _NONE = np.int64(-1), np.int64(-2), np.int64(-3)


@function
def _label_of(labels, slice, classes, ignore_index):
    if labels.size == 0:
        return _NONE
    label = labels[slice]
    if label == ignore_index:
        return _IGNORED
    if label < 0 or label >= classes:
        return _WRONG
    return label


def _number_at(default: float, number: type) -> Callable:
    """Make the function that gives a number of an array that may be none."""
    default = number(default)

    @function
    def at(array, place):
        return array[place] if array.size > 0 else default

    return at


def _shares(dtype: str, beside: str, spread: bool) -> Callable:
    """Make the function for what a class has in the target beside `hot`."""
    number, read = elements(dtype).number, elements(beside).read
    one_if_none = _number_at(1, number)
    zero = number(0)

    if not spread:

        @function
        def share(y, weight, kept, evenly, i):
            return zero

    else:

        @function
        def share(y, weight, kept, evenly, i):
            q = kept * read(y[i]) + evenly if y.size > 0 else evenly
            return q * one_if_none(weight, i)

    return share


def _spread_sums(dtype: str, share: Callable, spread: bool) -> Callable:
    """Make the function for the sums over the classes of their shares, and of those times (m - x)."""
    _, number, read, _ = elements(dtype)
    _, add, _, value, _, _, _ = arithmetic(number)
    meet = meet_sums(number)
    zero = number(0)

    if not spread:

        @function
        def sums(x, y, weight, kept, evenly, m, team, rooms):
            return zero, zero

    else:

        @function
        def sums(x, y, weight, kept, evenly, m, team, rooms):
            t, lanes, _, _ = team
            n = np.uint64(x.size)
            highs, lows, _ = rooms
            shares, shares_low, terms, terms_low = zero, zero, zero, zero
            i = t
            while i < n:
                of_class = share(y, weight, kept, evenly, i)
                if of_class != zero:  # else it counts for nothing, where x is -inf too
                    shares, shares_low = add(shares, shares_low, of_class)
                    terms, terms_low = add(terms, terms_low, of_class * (m - read(x[i])))
                i += lanes
            shares, shares_low = meet(shares, shares_low, team, highs, lows)
            terms, terms_low = meet(terms, terms_low, team, highs, lows)
            return value(shares, shares_low), value(terms, terms_low)

    return sums


def cross_entropy(dtype: str, beside: str, spread: bool, gradient: bool) -> Callable:
    """Make the operation for logits of a dtype and targets of another; out is written if there is a gradient.

    It takes a slice's number, whether there is such a slice, and what the loss's options are.
    """
    _, number, read, write = elements(dtype)
    is_finite, _, _, _, exp_of_difference, log1p, one_minus_exp = arithmetic(number)
    maximum, rest = peaks(dtype)
    share = _shares(dtype, beside, spread)
    spread_sums = _spread_sums(dtype, share, spread)
    one_if_none = _number_at(1, number)
    zero, one, two, nan = number(0), number(1), number(2), number(math.nan)

    @function
    def loss_of(label, m, r, x_label, hot, shares, terms, z, s):
        if label == _IGNORED:
            return zero
        if label == _WRONG or not is_finite(m) or r != r:
            return nan
        if s == zero:
            return zero
        log_sum = log1p(r)
        loss = terms
        if shares != zero:
            loss += shares * log_sum
        if hot != zero:
            loss += hot * ((m - x_label) + log_sum)
        if z != zero:
            lse = m + log_sum
            loss += z * lse * lse
        return loss * s

    @function
    def run(
        x,
        y,
        out,
        team,
        rooms,
        slice,
        exists,
        labels,
        ignore_index,
        weight,
        sample_weight,
        given_lse,
        losses,
        lses,
        divisor,
        known_divisor,
        kept,
        evenly,
        z_loss,
    ):
        t, lanes, _, _ = team
        n = np.uint64(x.size)
        label = _label_of(labels, slice, x.size, ignore_index)
        hot, z, x_label = zero, z_loss, zero
        label_place = n  # of no entry
        if label >= 0:
            # Before anything is written, which may be over x.
            label_place = np.uint64(label)
            x_label = read(x[label_place])
            label_weight = one_if_none(weight, label_place)
            hot, z = kept * label_weight, z_loss * label_weight
        saved = given_lse.size > 0
        if saved:  # in the place of the maximum: the sum is 1 then
            m, r = given_lse[slice], zero
        else:
            m, count = maximum(x, team, rooms)
            r = rest(x, m, count, team, rooms)
        shares, terms = spread_sums(x, y, weight, kept, evenly, m, team, rooms)
        s = one_if_none(sample_weight, slice)
        if exists and t == 0:
            if lses.size > 0:
                lses[slice] = m + log1p(r)
            if losses.size > 0:
                losses[slice] = loss_of(label, m, r, x_label, hot, shares, terms, z, s)
        if gradient:
            over = number(divisor[0]) if divisor.size > 0 else known_divisor
            cleared = label == _IGNORED or over == zero
            pull = shares
            if z != zero:
                pull += two * z * (m + log1p(r))
            shift = nan if label == _WRONG or not is_finite(m) else m
            total = one + r
            scale = zero if cleared else s / over
            factor = (hot + pull) * scale / total
            i = t
            while i < n:
                entry = read(x[i])
                term = exp_of_difference(entry, shift)
                if i == label_place:
                    # (r leaves a term 1 out, of the label's own size or larger.)
                    others = one_minus_exp(entry - shift) if saved else (r + (one - term)) / total
                    result = scale * (term / total * pull - hot * others)
                else:
                    result = term * factor
                result -= scale * share(y, weight, kept, evenly, i)
                out[i] = write(zero if cleared else result)
                i += lanes

    return run
