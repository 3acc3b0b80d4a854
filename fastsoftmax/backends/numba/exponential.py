"""exp and log1p of vectors, by the compiled core's method where it has no table (src/kernels/exp.h), to its bounds.

exp: with k = round(x / log 2) and r = x - k log 2 in two steps, exp(x) = 2^k p(r). A softmax needs exp(x - m); x is
left alone and m goes into the exponent, which rounds nothing: `exp_scaled` gives 2^(k - k_m + lift) p(r), an exact
multiple of exp(x) that is the same for the whole slice. Where m is large, x - m is exact, and is taken first. Maximum
error: 1 ulp.

log1p of x >= 0: in float64 fdlibm's reduction and form, maximum error 1 ulp; of a quotient, for float32 results, in
float64 to the digits of these.
"""

from __future__ import annotations

from math import inf
from typing import NamedTuple

from numba.core import types

from fastsoftmax.backends.numba.sums import two_sum
from fastsoftmax.backends.numba.vectors import (
    FUSED,
    Value,
    bits,
    choose,
    exponent,
    fma,
    formula,
    larger,
    lower_half,
    magnitude,
    narrowed,
    splat,
    upper_half,
    widened,
)


class Constants(NamedTuple):
    """What exp needs in a dtype; the names are those of src/kernels/exp.h."""

    polynomial: tuple[float, ...]
    ln2_high: float
    ln2_low: float
    log2e: float
    round: float  # adding this rounds to an integer, which then stands in the low bits
    bias: float
    lift: float
    range: float
    shift_from: float


def _hexadecimal(text: str) -> tuple[float, ...]:
    return tuple(map(float.fromhex, text.split()))


FLOAT32 = Constants(
    _hexadecimal("0x1.fffffcp-2 0x1.55548ep-3 0x1.5559p-5 0x1.123c32p-7 0x1.6a205cp-10"),
    *_hexadecimal("0x1.62e8p-1 -0x1.e8082ep-16 0x1.715476p+0"),
    round=1.5 * 2.0**23,
    bias=127.0,
    lift=32.0,
    range=108.0,
    shift_from=256.0,
)
FLOAT64 = Constants(
    _hexadecimal(
        "0x1.000000000000ap-1 0x1.5555555555558p-3 0x1.5555555550150p-5 0x1.111111110f738p-7 0x1.6c16c1869ec69p-10"
        " 0x1.a01a01b06caccp-13 0x1.a01991f995b8bp-16 0x1.71ddf5a418e07p-19 0x1.28b5afa1ef1a7p-22 0x1.af65292e3973dp-26"
    ),
    *_hexadecimal("0x1.62e42fefa4000p-1 -0x1.8432a1b0e2634p-43 0x1.71547652b82fep+0"),
    round=1.5 * 2.0**52,
    bias=1023.0,
    lift=64.0,
    range=750.0,
    shift_from=2048.0,
)


def _constants(x: Value) -> Constants:
    return FLOAT32 if x.dtype == types.float32 else FLOAT64


def _horner(coefficients, x):
    """The polynomial of these coefficients, that of the highest power last."""
    value = splat(x, coefficients[-1])
    for c in reversed(coefficients[:-1]):
        value = fma(value, x, c)
    return value


def _reduced(x, rounding):
    """(p(r), t), t being the rounded x / log 2 whose low bits hold k + bias."""
    c = _constants(x)
    t = fma(x, c.log2e, rounding)
    k = t - rounding
    high = fma(k, -c.ln2_high, x)  # exact
    r = fma(k, -c.ln2_low, high)
    q = _horner(c.polynomial, r)
    if FUSED:
        return fma(fma(q, r, 1.0), r, 1.0), t
    # Without an FMA the roundings of r and of the last products would add up to more than an ulp.
    lost = (high - r) - k * c.ln2_low
    return 1.0 + (r + (q * (r * r) + lost)), t


@formula
def exp_scale(maximum):
    """What the slices of these maxima add to the formula: (shift, rounding, lowest).

    `lowest` bounds x - shift, which is exact; next to a large x itself the bound would be rounded.
    """
    c = _constants(maximum)
    shift = choose(magnitude(maximum) < c.shift_from, 0.0, maximum)
    k = fma(maximum - shift, c.log2e, c.round) - c.round
    return shift, (c.round + c.bias + c.lift) - k, (maximum - shift) - c.range


@formula
def exp_scaled(x, scale):
    """exp(x) on the scale of a slice; 0 where it is too small to count, NaN for NaN and beside an infinite maximum."""
    shift, rounding, lowest = scale
    shifted = x - shift
    p, t = _reduced(shifted, rounding)
    return choose(shifted < lowest, 0.0, p * exponent(t))


@formula
def exp_full(x):
    """exp(x) of any x."""
    c = _constants(x)
    # A lift to either side, taken away again at the end.
    lift = choose(x > 0.0, splat(x, -c.lift), c.lift)
    p, t = _reduced(choose(x > c.range, c.range, x), lift + (c.round + c.bias))
    y = choose(x < -c.range, 0.0, p * exponent(t))
    return y * exponent((c.round + c.bias) - lift)


def _number(integer):
    """An integer below 2^52 in each lane, as a float64."""
    return bits(integer | 0x4330000000000000) - 2.0**52


def _halved(k):
    """2^-k for k >= 0; 0 where that would be subnormal."""
    return exponent(larger(1023.0 - k, 0.0) + FLOAT64.round)


_LOG = _hexadecimal(
    "0x1.5555555555592p-1 0x1.999999997fdb7p-2 0x1.24924941f1283p-2 0x1.c71c52095b32fp-3 0x1.74663ee8b60c1p-3"
    " 0x1.39a1bab220874p-3 0x1.2f0563a9c148fp-3"
)


def log1p(x):
    """log(1 + x) of float64, x >= 0."""
    # 1 + x = u + lost = 2^k (1 + f), 1 + f between sqrt(1/2) and sqrt(2).
    u, u_lost = two_sum(splat(x, 1.0), x)
    pattern = bits(u) + (0x3FF0000000000000 - 0x3FE6A09E00000000)
    k = _number(pattern >> 52) - 1023.0
    reduced = bits((pattern & 0x000FFFFFFFFFFFFF) + 0x3FE6A09E00000000) - 1.0
    lost = u_lost * _halved(k)  # (nothing is lost where 2^-k would be subnormal)
    f = reduced + lost
    f_lost = lost - (f - reduced)
    s = f / (2.0 + f)
    z = s * s
    half_square = 0.5 * f * f
    tail = fma(s, fma(_horner(_LOG, z), z, half_square), fma(k, FLOAT64.ln2_low, f_lost))
    result = fma(k, FLOAT64.ln2_high, f - (half_square - tail))
    # x itself where it is infinite or NaN, which the bits above do not follow.
    return choose(x < inf, result, x)


def log1p_quotient(rest, top):
    """log(1 + rest / top) of float64, to the digits of a float32, with one division."""
    total = top + rest
    # The difference of the bit patterns is nearly that of the logarithms, so total 2^-k lies between top / 1.51 and top
    # 1.51.
    k = _number(((bits(total) - bits(top)) + 0x0008000000000000) >> 52)
    scaled = total * _halved(k)
    s = choose(k < 1.0, rest, scaled - top) / (scaled + top)
    # 2 artanh(s) = 2 s (1 + z/3 + z^2/5 + ...), z = s^2 < 0.041: what is left out is below 2^-31 of it.
    p = _horner((2.0, 2 / 3, 2 / 5, 2 / 7, 2 / 9, 2 / 11), s * s)
    return choose(rest < inf, fma(k, FLOAT64.ln2_high, p * s), rest)


@formula
def log_rest(top, rest):
    """log(sum of exp(x - m)) = log1p(rest / top): of the maximum's own exponential and the wide sum of the others."""
    if top.dtype == types.float32:
        low, high = widened(lower_half(top)), widened(upper_half(top))
        return narrowed(log1p_quotient(rest[0], low), log1p_quotient(rest[1], high))
    return log1p((rest[0] + rest[1]) / top)
