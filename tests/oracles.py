"""Exact answers in a wider type, distances to them in ulp, and the inputs they are asked on.

Nothing here calls the library. float16, bfloat16 and float32 are checked in float64; float64 in
long double, whose 11 more bits leave an error of some thousandths of an ulp (test_accuracy.py
holds the oracles themselves against mpmath).
"""

import numpy as np
import pytest

DTYPES = ["float32", "float64"]
HALVES = ["float16", "bfloat16"]
NAMES = ["softmax", "log_softmax", "logsumexp"]

wide_longdouble = pytest.mark.skipif(
    np.finfo(np.longdouble).nmant <= np.finfo(np.float64).nmant,
    reason="long double is no wider than float64 on this machine, so it cannot judge float64",
)
# The dtypes of tests that ask for the exact answer of every entry.
EXACT_DTYPES = ["float32", pytest.param("float64", marks=wide_longdouble)]


def dtype_of(name):
    if name == "bfloat16":
        reason = "bfloat16 of NumPy arrays is the ml_dtypes package's, which is not installed"
        return np.dtype(pytest.importorskip("ml_dtypes", reason=reason).bfloat16)
    return np.dtype(name)


# The accuracy contract: the largest error of each function by the dtype of its input, in units of the spacing of
# numbers of the result's dtype at the exact value (ulp). Two units differ: of logsumexp = m + log1p(r) (_parts, below)
# it is eps (|m| + log1p(r)) in float32 and float64, the spacing at |m| + log1p(r) in the half precisions; of the sum of
# probabilities it is eps. The loss of half-precision logits is float32. docs/accuracy.md prints this table.
_EXACT = dict.fromkeys(DTYPES, 4)
_ROUNDED_ONCE = dict.fromkeys(HALVES, 0.51)
BOUNDS = {
    "exp": dict.fromkeys(DTYPES, 1),
    "log1p": dict.fromkeys(DTYPES, 1),
    "softmax": _EXACT | _ROUNDED_ONCE,
    "sum of softmax": _EXACT,
    "log_softmax": _EXACT | _ROUNDED_ONCE,
    "logsumexp": _EXACT | _ROUNDED_ONCE,
    "cross_entropy": dict.fromkeys([*DTYPES, *HALVES], 4),
    "cross_entropy_grad": _EXACT | _ROUNDED_ONCE,
}


def finfo(dtype):
    if dtype.name == "bfloat16":
        import ml_dtypes

        return ml_dtypes.finfo(dtype)
    return np.finfo(dtype)


def normal(shape, dtype, scale=5.0, offset=0.0, seed=0):
    """Random logits; scale 5 makes exponentials of very different sizes in each slice."""
    rng = np.random.default_rng(seed)
    return (rng.normal(0.0, scale, shape) + offset).astype(dtype_of(str(dtype)))


def arrange(rows, layout):
    """Put the rows of a (batch, n) array as slices along an axis; return the array and the axis.

    rows: the last axis; columns: the first; middle: the second of three, the batch twice.
    """
    if layout == "rows":
        return np.ascontiguousarray(rows), -1
    if layout == "columns":
        return np.ascontiguousarray(rows.T), 0
    return np.ascontiguousarray(np.stack([rows.T, rows[::-1].T])), 1


def unaligned(x):
    return np.frombuffer(bytearray(1) + bytearray(x.tobytes()), x.dtype, offset=1).reshape(x.shape)


def read_only(x):
    x = x.copy()
    x.flags.writeable = False
    return x


# Every way in which an array of two dimensions or more may lie in memory: each gives one equal to its argument.
ARRANGEMENTS = {
    "C": np.copy,
    "Fortran": np.asfortranarray,
    "inner axes swapped": lambda x: x.swapaxes(-2, -1).copy().swapaxes(-2, -1),
    "outer axes swapped": lambda x: x.swapaxes(0, -1).copy().swapaxes(0, -1),
    "negative strides": lambda x: np.flip(np.flip(x).copy()),
    "sliced": lambda x: np.repeat(np.repeat(x, 2, -1), 2, 0)[::2, ..., ::2],
    "unaligned": unaligned,
    "byte-swapped": lambda x: x.astype(x.dtype.newbyteorder()),
    "read-only": read_only,
}


def result_dtype(dtype):
    """Integers and bool are computed in float64; floats keep their dtype, in native order."""
    return np.dtype(np.float64) if dtype.kind in "biu" else dtype.newbyteorder("=")


def widen(x):
    x = np.asarray(x)
    if x.dtype.kind in "biu":
        x = x.astype(np.float64)
    return x.astype(np.longdouble if x.dtype.itemsize == 8 else np.float64)


def to_rows(x, axis):
    """Slices as the rows of a contiguous array, and the way back for a result of x's shape."""
    axes = list(range(x.ndim)) if axis is None else [a % x.ndim for a in np.atleast_1d(axis)]
    rest = [a for a in range(x.ndim) if a not in axes]
    moved = x.transpose(rest + axes)
    batch = moved.shape[: len(rest)]
    rows = np.ascontiguousarray(moved).reshape(*batch, int(np.prod(moved.shape[len(rest) :])))

    def back(result):
        return result.reshape(moved.shape).transpose(np.argsort(rest + axes))

    return rows, back


def parts(rows):
    """m, e and r: the maximum, exp(x - m), and the sum of e over all but the first maximum."""
    with np.errstate(invalid="ignore", over="ignore"):
        m = rows.max(axis=-1, keepdims=True, initial=-np.inf)
        e = np.exp(rows - m)
    others = e.copy()
    if rows.shape[-1]:
        np.put_along_axis(others, rows.argmax(axis=-1, keepdims=True), 0, axis=-1)
    return m, e, others.sum(axis=-1, keepdims=True)


def softmax(x, axis=-1):
    rows, back = to_rows(widen(x), axis)
    m, e, r = parts(rows)
    return back(np.where(np.isfinite(m), e / (1 + r), np.nan))


def log_softmax(x, axis=-1):
    rows, back = to_rows(widen(x), axis)
    m, _, r = parts(rows)
    with np.errstate(invalid="ignore"):
        return back(np.where(np.isfinite(m), -((m - rows) + np.log1p(r)), np.nan))


def logsumexp_parts(x, axis=-1):
    """m and log1p(r), whose sum is the result: the error bound is stated in their sizes."""
    rows, _ = to_rows(widen(x), axis)
    m, _, r = parts(rows)
    return m[..., 0], np.where(np.isfinite(m), np.log1p(r), 0)[..., 0]


def cross_entropy(logits, labels, axis=-1):
    """(loss, gradient, logsumexp) of every slice by itself."""
    rows, back = to_rows(widen(logits), axis)
    m, e, r = parts(rows)
    index = np.asarray(labels)[..., np.newaxis].astype(np.intp)
    with np.errstate(invalid="ignore"):
        loss = (m - np.take_along_axis(rows, index, axis=-1)) + np.log1p(r)
    grad = e / (1 + r)
    others = e.copy()
    np.put_along_axis(others, index, 0, axis=-1)
    np.put_along_axis(grad, index, -others.sum(axis=-1, keepdims=True) / (1 + r), axis=-1)
    finite = np.isfinite(m)
    loss, grad = np.where(finite, loss, np.nan), np.where(finite, grad, np.nan)
    return loss[..., 0], back(grad), (m + np.log1p(r))[..., 0]


def spacing(exact, dtype):
    """Distance between neighbouring numbers of dtype at exact, subnormals included."""
    info = finfo(dtype)
    _, exponent = np.frexp(exact)
    exponent = np.where(exact == 0, info.minexp, np.maximum(exponent - 1, info.minexp))
    return np.ldexp(np.ones_like(exact), exponent - info.nmant)


def _distance(got, exact, unit):
    """|got - exact| in units; equal infinities are 0, and infinity is right where exact rounds to it."""
    value = got.astype(exact.dtype)
    with np.errstate(invalid="ignore", over="ignore"):
        rounded = exact.astype(got.dtype).astype(exact.dtype)
        exact = np.where(np.isinf(rounded), rounded, exact)
        error = np.abs(value - exact) / unit
    same = (value == exact) | (np.isnan(value) & np.isnan(exact))
    return np.where(same, 0, np.where(np.isnan(error), np.inf, error))


def ulp_error(got, exact):
    """|got - exact| in units of the spacing of got's dtype at exact."""
    got, exact = np.asarray(got), np.asarray(exact)
    return _distance(got, exact, spacing(exact, got.dtype))


def worst(got, exact):
    return float(ulp_error(got, exact).max(initial=0.0))


def answer(name, x, axis=-1, labels=None):
    """The exact result of a function of BOUNDS, and the size at which the unit of its error is taken."""
    if name == "logsumexp":
        m, log1p_r = logsumexp_parts(x, axis)
        with np.errstate(invalid="ignore"):
            return np.asarray(m + log1p_r), np.asarray(np.abs(m) + log1p_r)
    if name.startswith("cross_entropy"):
        exact = cross_entropy(x, labels, axis)[name == "cross_entropy_grad"]
    else:
        exact = {"softmax": softmax, "log_softmax": log_softmax}[name](x, axis)
    return exact, exact


def errors(name, got, exact, size):
    """The errors of a result in the unit of BOUNDS; exact and size are those of `answer`."""
    got = np.asarray(got)
    assert got.shape == exact.shape
    if name == "logsumexp" and got.dtype.itemsize > 2:
        info = np.finfo(got.dtype)
        return _distance(got, exact, np.maximum(info.eps * size, info.smallest_subnormal))
    return _distance(got, exact, spacing(size, got.dtype))


def check(name, got, x, axis=-1, where=None, labels=None):
    """Hold one result of a function of BOUNDS to the accuracy contract."""
    x = np.asarray(x)
    dtype = result_dtype(x.dtype)
    half = dtype.itemsize == 2
    assert got.dtype == (np.float32 if half and name == "cross_entropy" else dtype)
    shown = x if where is None else np.where(where, x, np.asarray(-np.inf, dtype))
    exact, size = answer(name, shown, axis, labels)
    if where is not None and name != "logsumexp":
        shown_axes = tuple(range(x.ndim)) if axis is None else axis
        visible = np.broadcast_to(where, x.shape)
        hidden = ~visible | ~visible.any(axis=shown_axes, keepdims=True)
        exact = size = np.where(hidden, 0 if name == "softmax" else -np.inf, exact)
    error = errors(name, got, exact, size)
    assert error.max(initial=0) <= BOUNDS[name][dtype.name]
    if name == "logsumexp" and half:
        # Beside the one rounding of the result, which may be much smaller than |m|, the error is that of float32.
        finite = np.isfinite(exact)
        rounding = spacing(exact[finite], dtype) / 2
        error = np.abs(np.asarray(got, exact.dtype)[finite] - exact[finite])
        assert np.all(error <= rounding + 4 * np.finfo(np.float32).eps * size[finite])
    if name == "softmax" and not half and got.size:
        distance = distance_of_sums_from_1(got, axis)
        # NaN in a slice that is all NaN; 1 in one that is hidden whole.
        ordinary = np.isfinite(distance) & (distance != 1)
        assert np.all(distance[ordinary] <= BOUNDS["sum of softmax"][dtype.name] * np.finfo(dtype).eps)


def distance_of_sums_from_1(probs, axis=-1):
    # Slice after slice, so that NumPy sums in pairs: along another axis it adds one by one.
    rows, _ = to_rows(widen(probs), axis)
    return np.abs(rows.sum(axis=-1) - 1)


def assert_same_bits(got, expected):
    got, expected = np.asarray(got), np.asarray(expected)
    assert got.dtype == expected.dtype
    assert got.shape == expected.shape
    if got.tobytes() == expected.tobytes():
        return  # the quick way, tens of thousands of times
    unsigned = f"u{got.dtype.itemsize}"
    np.testing.assert_array_equal(*(a.copy().view(unsigned) for a in (got, expected)))


# Every float32 as the argument of a function, in segments: the first and last bit pattern, and what to expect there.
# That is one value (None: the argument itself) where it is the nearest number to all exact results, which is quick to
# see; MEASURE elsewhere, in float64.
MEASURE = "measure"
EVERY_FLOAT32 = {
    "exp": [
        (0x00000000, 0x327FFFFF, 1),  # below 2^-26
        (0x32800000, 0x42B17217, MEASURE),  # to the last whose exponential is finite
        (0x42B17218, 0x7F800000, np.inf),
        (0x7F800001, 0x7FFFFFFF, np.nan),
        (0x80000000, 0xB27FFFFF, 1),
        (0xB2800000, 0xC2D00000, MEASURE),
        (0xC2D00001, 0xFF800000, 0),  # below -104: less than half the least number
        (0xFF800001, 0xFFFFFFFF, np.nan),
    ],
    # Of sums of exponentials, so at least 0.
    "log1p": [
        (0x00000000, 0x32FFFFFF, None),  # below 2^-25
        (0x33000000, 0x7F7FFFFF, MEASURE),
        (0x7F800000, 0x7F800000, np.inf),
        (0x7F800001, 0x7FFFFFFF, np.nan),
    ],
}


def worst_of_every_float32(name, function):
    """The largest error of exp or log1p of the kernels in ulp; NaN or infinity where a given value is not got."""
    step = 2**17  # the arrays stay in the cache
    block = np.arange(step, dtype="u4")
    largest = 0.0
    for first, last, expected in EVERY_FLOAT32[name]:
        for start in range(first, last + 1, step):
            x = (block[: last + 1 - start] + np.uint32(start)).view("f4")
            got = function(x)
            if expected is MEASURE:
                exact = getattr(np, name)(x.astype("f8"))
                # Positive and finite all of them, so the bits of the exponent are the power of two below.
                power = (exact.view("u8") & np.uint64(0x7FF0000000000000)).view("f8")
                error = np.abs(got - exact)
                error /= np.maximum(power, 2.0**-126)
                largest = np.maximum(largest, error.max() * 2.0**23)  # keeps a NaN, as max does
            elif expected is None:
                largest = largest if np.array_equal(got, x) else np.inf
            elif not (np.isnan(got) if np.isnan(expected) else got == expected).all():
                largest = np.inf
    return float(largest)
