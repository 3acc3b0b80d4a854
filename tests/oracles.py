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


def ulp_error(got, exact):
    """|got - exact| in units of the spacing of got's dtype at exact; equal infinities are 0."""
    got, exact = np.asarray(got), np.asarray(exact)
    value = got.astype(exact.dtype)
    with np.errstate(invalid="ignore"):
        error = np.abs(value - exact) / spacing(exact, got.dtype)
    same = (value == exact) | (np.isnan(value) & np.isnan(exact))
    return np.where(same, 0, np.where(np.isnan(error), np.inf, error))


def worst(got, exact):
    return float(ulp_error(got, exact).max(initial=0.0))


def check(name, got, x, axis=-1, where=None):
    """Hold one result of softmax, log_softmax or logsumexp to the accuracy contract."""
    x = np.asarray(x)
    dtype = result_dtype(x.dtype)
    half = dtype.itemsize == 2
    assert got.dtype == dtype
    shown = x if where is None else np.where(where, x, np.asarray(-np.inf, dtype))
    if name == "logsumexp":
        m, log1p_r = logsumexp_parts(shown, axis)
        with np.errstate(invalid="ignore"):
            exact = np.asarray(m + log1p_r)
            value = np.asarray(got).astype(exact.dtype)
            error = np.abs(value - exact)
            size = np.abs(m) + log1p_r
        assert got.shape == exact.shape
        computed = np.finfo(np.float32 if half else dtype)
        bound = 4 * np.maximum(computed.eps * size, computed.smallest_subnormal)
        bound = bound + (spacing(exact, dtype) / 2 if half else 0)
        finite = np.isfinite(exact)
        np.testing.assert_array_equal(value[~finite], exact[~finite])
        assert np.all(error[finite] <= bound[finite]), (error / bound)[finite].max()
        return
    exact = {"softmax": softmax, "log_softmax": log_softmax}[name](shown, axis)
    if where is not None:
        shown_axes = tuple(range(x.ndim)) if axis is None else axis
        visible = np.broadcast_to(where, x.shape)
        hidden = ~visible | ~visible.any(axis=shown_axes, keepdims=True)
        exact = np.where(hidden, 0 if name == "softmax" else -np.inf, exact)
    assert got.shape == exact.shape
    assert worst(got, exact) <= (0.51 if half else 4)
    if name == "softmax" and not half and got.size:
        distance = distance_of_sums_from_1(got, axis)
        # NaN in a slice that is all NaN; 1 in one that is hidden whole.
        ordinary = np.isfinite(distance) & (distance != 1)
        assert np.all(distance[ordinary] <= 4 * np.finfo(dtype).eps)


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
