"""What a team of threads does with a slice: x, y and out are arrays of one dimension, of any stride.

A slice is read for its maximum m, with the number of entries that are equal to it; again for the sum r of exp(x - m)
over all entries but the first of those; and, where something is written, a third time. (What a multiprocessor has just
read, it mostly has at hand.) A thread writes only what it alone has read, so out may be x.

Of an infinite maximum r has no meaning but for being NaN if there is a NaN.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from fastsoftmax.backends.numba_cuda.arithmetic import arithmetic, elements, function
from fastsoftmax.backends.numba_cuda.teams import meet_peaks, meet_sums

_ONE_ENTRY = np.int64(1)


class Peaks(NamedTuple):
    """Device functions of a slice's maximum m and the sum r beside it."""

    maximum: Callable
    rest: Callable


@functools.cache
def peaks(dtype: str) -> Peaks:
    """Make the functions for elements of a dtype."""
    _, number, read, _ = elements(dtype)
    _, add, _, value, exp_of_difference, _, _ = arithmetic(number)
    meet = meet_sums(number)
    zero, lowest = number(0), number(-math.inf)

    @function
    def maximum(x, team, rooms):
        t, lanes, _, _ = team
        n = np.uint64(x.size)
        highs, _, counts = rooms
        m, count = lowest, _ONE_ENTRY - _ONE_ENTRY
        i = t
        while i < n:
            entry = read(x[i])
            if entry > m:
                m, count = entry, _ONE_ENTRY
            elif entry == m:
                count += _ONE_ENTRY
            i += lanes
        return meet_peaks(m, count, team, highs, counts)

    @function
    def rest(x, m, count, team, rooms):
        t, lanes, _, _ = team
        n = np.uint64(x.size)
        highs, lows, _ = rooms
        high, low = zero, zero
        i = t
        while i < n:
            entry = read(x[i])
            if entry != m:
                high, low = add(high, low, exp_of_difference(entry, m))
            i += lanes
        high, low = meet(high, low, team, highs, lows)
        return value(high, low) + number(max(count - _ONE_ENTRY, 0))

    return Peaks(maximum, rest)


def _normalizer(dtype: str, prepare: Callable, value: Callable) -> Callable:
    """Make an operation that writes value(x, m, prepare(r)) for each entry."""
    _, number, read, write = elements(dtype)
    is_finite = arithmetic(number).is_finite
    maximum, rest = peaks(dtype)
    nan = number(math.nan)

    @function
    def normalize(x, y, out, team, rooms):
        t, lanes, _, _ = team
        n = np.uint64(x.size)
        m, count = maximum(x, team, rooms)
        prepared = prepare(rest(x, m, count, team, rooms))
        # Infinite: a slice of -inf alone, or one with +inf, is NaN everywhere.
        shift = m if is_finite(m) else nan
        i = t
        while i < n:
            out[i] = write(value(read(x[i]), shift, prepared))
            i += lanes

    return normalize


def _product(dtype: str, term: Callable, value: Callable) -> Callable:
    """Make an operation that writes value(x, y, the sum of term(x, y) in two numbers) for each entry."""
    _, number, read, write = elements(dtype)
    is_finite, add = arithmetic(number).is_finite, arithmetic(number).add
    meet = meet_sums(number)
    zero = number(0)

    @function
    def differentiate(x, y, out, team, rooms):
        t, lanes, _, _ = team
        n = np.uint64(x.size)
        highs, lows, _ = rooms
        high, low = zero, zero
        i = t
        while i < n:
            high, low = add(high, low, term(read(x[i]), read(y[i])))
            i += lanes
        high, low = meet(high, low, team, highs, lows)
        low = low if is_finite(high) else zero
        i = t
        while i < n:
            out[i] = write(value(read(x[i]), read(y[i]), high, low))
            i += lanes

    return differentiate


def softmax(dtype: str) -> Callable:
    """Make the operation out = exp(x - m) / (1 + r); y is not read."""
    number = elements(dtype).number
    exp_of_difference = arithmetic(number).exp_of_difference
    one = number(1)

    @function
    def prepare(r):
        return one + r

    @function
    def value(x, m, total):
        return exp_of_difference(x, m) / total

    return _normalizer(dtype, prepare, value)


def log_softmax(dtype: str) -> Callable:
    """Make the operation out = (x - m) - log1p(r); y is not read."""

    @function
    def value(x, m, log_sum):
        return (x - m) - log_sum

    return _normalizer(dtype, arithmetic(elements(dtype).number).log1p, value)


def softmax_grad(dtype: str) -> Callable:
    """Make the operation out = y (x - sum x y): x is the upstream gradient, y the saved probabilities."""

    @function
    def term(g, p):
        return g * p

    @function
    def value(g, p, high, low):
        return p * ((g - high) - low)

    return _product(dtype, term, value)


def log_softmax_grad(dtype: str) -> Callable:
    """Make the operation out = x - exp(y) sum x: x is the upstream gradient, y the saved log-probabilities."""
    number = elements(dtype).number
    exp_of_difference, rounded = arithmetic(number).exp_of_difference, arithmetic(number).value
    zero = number(0)

    @function
    def term(g, log_p):
        return g

    @function
    def value(g, log_p, high, low):
        p = exp_of_difference(log_p, zero)
        return rounded(g - p * high, -p * low)

    return _product(dtype, term, value)
