"""Elements as they lie in memory, the numbers that they are computed in, and the arithmetic of those.

Numba takes a Python float for a double and an integer beside a float for one too: what float32 is computed with are
constants of its own type. So functions are made for a type of numbers by factories, which keep what they have made.
"""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numba import config, cuda


def _fingerprint() -> str:
    """Condense the source of this package."""
    digest = hashlib.blake2b(digest_size=8)
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


_FINGERPRINT = _fingerprint()


def function(body: Callable) -> Callable:
    """Make a device function of one that needs nothing of `cuda` itself.

    The simulator runs it as it stands: its own wrapper takes a lock at each call, for which hundreds of threads queue.
    """
    # Numba looks compiled kernels up on disk by the functions that theirs close over, with their attributes, but not by
    # the files that those call functions of: so a change anywhere must show.
    body.fingerprint = _FINGERPRINT
    return body if config.ENABLE_CUDASIM else cuda.jit(device=True)(body)


class Elements(NamedTuple):
    """Elements of a dtype: the type that kernels see, the numbers they are computed in, and the way to and fro."""

    stored: type
    number: type
    read: Callable
    write: Callable


@function
def _from_bfloat16(bits):
    return np.uint32(np.uint32(bits) << 16).view(np.float32)


@function
def _to_bfloat16(value):
    bits = np.int64(np.float32(value).view(np.uint32))
    if value != value:
        return np.uint16(0x7FC0)
    return np.uint16((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16)  # to nearest, ties to even


@functools.cache
def elements(name: str) -> Elements:
    """Give what is known of the elements of a dtype, by its name."""
    if name == "bfloat16":  # which Numba has no arrays of
        return Elements(np.uint16, np.float32, _from_bfloat16, _to_bfloat16)
    stored = np.dtype(name).type
    number = np.float32 if stored == np.float16 else stored

    @function
    def read(element):
        return number(element)

    @function
    def write(value):
        return stored(value)

    return Elements(stored, number, read, write)


class Arithmetic(NamedTuple):
    """Device functions of numbers of one type."""

    is_finite: Callable
    add: Callable
    merge: Callable
    value: Callable
    exp_of_difference: Callable
    log1p: Callable
    one_minus_exp: Callable


@functools.cache
def arithmetic(number: type) -> Arithmetic:
    """Make the functions for numbers of a type."""
    zero, infinity = number(0), number(math.inf)
    # The exponential of more is infinite, that of less is 0.
    most = number(np.log(np.finfo(number).max))
    least = number(np.floor(np.log(np.finfo(number).smallest_subnormal)) - 1)

    @function
    def is_finite(x):
        return x - x == zero

    @function
    def two_sum(a, b):
        total = a + b
        b_seen = total - a
        return total, (a - (total - b_seen)) + (b - b_seen)

    # A sum is kept in two numbers: what is left of it after a difference has its digits.

    @function
    def add(high, low, term):
        total, lost = two_sum(high, term)
        return total, low + lost

    @function
    def merge(high, low, other_high, other_low):
        total, lost = two_sum(high, other_high)
        return total, low + other_low + lost

    @function
    def value(high, low):
        if is_finite(high):  # of an infinite sum the low part is no number
            return high + low
        return high

    @function
    def exp_of_difference(x, m):
        """exp(x - m); the rounding of the difference alone would be worth |x - m| / 2 ulp, so it is carried along."""
        difference = x - m
        if difference > most:
            return infinity
        if difference < least:
            return zero
        m_seen = x - difference
        lost = (x - (difference + m_seen)) + (m_seen - m)
        power = number(math.exp(difference))
        return power + power * lost

    @function
    def log1p(x):
        return number(math.log1p(x))

    @function
    def one_minus_exp(x):
        if x > most:
            return -infinity
        return -number(math.expm1(x))

    return Arithmetic(is_finite, add, merge, value, exp_of_difference, log1p, one_minus_exp)
