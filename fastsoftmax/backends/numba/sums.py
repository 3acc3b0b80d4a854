"""Sums and quotients of more digits than the numbers have.

A wide number is a pair of float64 vectors: of float32 its two halves in float64, of float64 an unevaluated sum (hi,
lo). A number `like` the one that is meant says which.
"""

from __future__ import annotations

from numba.core import types

from fastsoftmax.backends.numba.vectors import (
    FUSED,
    choose,
    first_lane,
    fma,
    formula,
    larger,
    lower_half,
    narrowed,
    smaller,
    splat,
    upper_half,
    widened,
)


@formula
def two_sum(a, b):
    """(sum, rest) of a + b exactly (Knuth)."""
    total = a + b
    b_seen = total - a
    return total, (a - (total - b_seen)) + (b - b_seen)


def fast_two_sum(a, b):
    """The same for |a| >= |b| or a = 0 (Dekker)."""
    total = a + b
    return total, b - (total - a)


@formula
def rest_of(hi, lo):
    """lo, or 0 where hi is infinite: there it is the NaN of infinity less infinity."""
    return choose(hi - hi == 0.0, lo, 0.0)


def product_error(a, b, p):
    """A * b - p exactly, p being the rounding of a * b in float64."""
    if FUSED:
        return fma(a, b, 0.0 - p)
    # Dekker: the halves of a double have 26 bits.
    a_big, b_big = 134217729.0 * a, 134217729.0 * b
    a_high, b_high = a_big - (a_big - a), b_big - (b_big - b)
    a_low, b_low = a - a_high, b - b_high
    return a_low * b_low - (((p - a_high * b_high) - a_low * b_high) - a_high * b_low)


@formula
def wide(x):
    """X itself as a wide number."""
    if x.dtype == types.float32:
        return widened(lower_half(x)), widened(upper_half(x))
    return x, splat(x, 0.0)


@formula
def wide_of_number(like, hi, lo):
    """A float64, and its lower part, in every lane of a wide number."""
    if like.dtype == types.float32:
        both = splat(widened(lower_half(like)), hi)
        return both, both
    return splat(like, hi), splat(like, lo)


@formula
def plus(like, a, b):
    """The sum of two wide numbers."""
    if like.dtype == types.float32:
        return a[0] + b[0], a[1] + b[1]
    hi, rest = two_sum(a[0], b[0])
    return fast_two_sum(hi, rest + (a[1] + b[1]))


@formula
def add(total, x):
    """A wide sum and one more number, of either sign; in float64 what each addition rounds off gathers in lo."""
    if x.dtype == types.float32:
        return total[0] + widened(lower_half(x)), total[1] + widened(upper_half(x))
    hi, rest = two_sum(total[0], x)
    return hi, total[1] + rest


@formula
def add_product(total, a, b):
    """A wide sum and one more product."""
    if a.dtype == types.float32:  # exact in float64
        low = fma(widened(lower_half(a)), widened(lower_half(b)), total[0])
        return low, fma(widened(upper_half(a)), widened(upper_half(b)), total[1])
    p = a * b
    hi, rest = two_sum(total[0], p)
    error = product_error(a, b, p)  # NaN where the product, or half of a factor's, overflows
    return hi, total[1] + rest + rest_of(error, error)


@formula
def rounded(like, total):
    """A wide number with the digits of the one that it is like."""
    if like.dtype == types.float32:
        return narrowed(total[0], total[1])
    return total[0] + rest_of(total[0], total[1])


@formula
def pair(like, total):
    """A wide number as the sum (hi, lo) of two such numbers."""
    if like.dtype == types.float32:
        hi = narrowed(total[0], total[1])
        lo = narrowed(total[0] - widened(lower_half(hi)), total[1] - widened(upper_half(hi)))
    else:
        hi, lo = fast_two_sum(total[0], rest_of(total[0], total[1]))
    return hi, rest_of(hi, lo)


@formula
def quotient(scale, weight, total):
    """Scale * weight / total as a pair: its rounding alone would cost the outputs an ulp.

    Without an FMA hi is a little low on purpose: y * hi then stays below 1 in the largest output, where the spacing is
    half as wide, and a probability of 1 comes out as 1.
    """
    if weight.dtype == types.float32:
        a = scale * widened(lower_half(weight)) / total[0]
        b = scale * widened(upper_half(weight)) / total[1]
        hi = narrowed(a, b) * (1.0 if FUSED else 1 - 2.0**-23)
        return hi, rest_of(hi, narrowed(a - widened(lower_half(hi)), b - widened(upper_half(hi))))
    n, inverse = scale * weight, 1.0 / total[0]
    hi = n * inverse * (1.0 if FUSED else 1 - 2.0**-51)
    product = hi * total[0]
    residual = ((n - product) - product_error(hi, total[0], product)) - hi * total[1]
    return hi, rest_of(hi, residual * inverse)


@formula
def times_pair(y, factor):
    """Y times the pair, rounded once."""
    return fma(y, factor[0], y * factor[1])


@formula
def without_largest(top, y):
    """(what is to be added, the new top) in a sum of all but the largest, of which `top` was the largest until now.

    NaN is added, though it may not stay in `top`.
    """
    return smaller(top, y), larger(top, y)


@formula
def folded(total, top):
    """Add up the lanes of a wide sum without each lane's largest: (sum, its lower part) without the largest of all."""
    if top.dtype == types.float32:
        y, top = without_largest(lower_half(top), upper_half(top))
        total, top = total[0] + total[1] + widened(y), widened(top)
        while total.lanes > 1:
            y, top = without_largest(lower_half(top), upper_half(top))
            total = (lower_half(total) + upper_half(total)) + y
        return first_lane(total), splat(first_lane(total), 0.0)
    hi, lo = total
    while hi.lanes > 1:  # (what the sums round off gathers beside them: a short slice waits for two additions a level)
        y, top = without_largest(lower_half(top), upper_half(top))
        hi, rest = two_sum(lower_half(hi), upper_half(hi))
        hi, more = two_sum(hi, y)
        lo = (lower_half(lo) + upper_half(lo)) + (rest + more)
    hi, lo = fast_two_sum(hi, rest_of(hi, lo))
    return first_lane(hi), first_lane(lo)


@formula
def over_lanes(like, total):
    """The lanes of a wide sum added up, none left out: a float64."""
    hi, lo = folded(total, splat(like, 0.0))
    return hi + rest_of(hi, lo)
