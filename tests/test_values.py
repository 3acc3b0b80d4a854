"""Values of softmax, log_softmax and logsumexp: known ones, special ones, every size class."""

import inspect

import numpy as np
import pytest

import fastsoftmax
import fastsoftmax.compat.scipy as compat
import oracles
from fastsoftmax import reference
from oracles import DTYPES, EXACT_DTYPES, NAMES

pytestmark = pytest.mark.usefixtures("backend")

# Around the widths of vectors, register blocks and summation blocks, and beyond the caches.
SIZES = [*range(1, 71), 127, 128, 129, 255, 256, 257, 511, 512, 513, 1000, 1023, 1024, 1025]
SIZES += [4095, 4096, 4097, 32767, 32768, 32769, 65535, 65536, 65537, 100_007]
SOME_SIZES = [2, 7, 10, 16, 17, 33, 64, 65, 300, 5000, 40_000]
LAYOUTS = ["rows", "columns", "middle"]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("x", "expected", "within"),
    [
        ([3.0, 1.0, -3.0], [0.88, 0.12, 0.00], 5e-3),
        ([3.0, 1.0, 0.2], [0.8360188, 0.11314284, 0.05083836], 5e-8),
        ([1.0, 2.0, 3.0], [0.09003057, 0.24472847, 0.66524096], 5e-8),
        ([1000.0, 1001.0, 1002.0], [0.09003057, 0.24472847, 0.66524096], 5e-8),
        ([0.0, np.log(3.0)], [0.25, 0.75], 1e-7),
    ],
)
def test_known_probabilities(x, expected, within, dtype):
    x = np.array(x, dtype)
    within += 4 * np.finfo(dtype).eps
    np.testing.assert_allclose(fastsoftmax.softmax(x), expected, rtol=0, atol=within)
    np.testing.assert_allclose(np.exp(fastsoftmax.log_softmax(x)), expected, rtol=0, atol=within)


def test_rows_are_independent():
    x = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 9.0]])
    probs = fastsoftmax.softmax(x)
    np.testing.assert_allclose(probs, [[0.09003057, 0.24472847, 0.66524096]] * 3, atol=5e-9)
    np.testing.assert_allclose(fastsoftmax.softmax(x.T, axis=0), probs.T, rtol=1e-15)


def test_logsumexp_is_the_softened_maximum():
    def soft(x):
        return fastsoftmax.logsumexp(np.array([x, 0.0]))

    assert soft(0.0) == pytest.approx(np.log(2.0), rel=1e-15)
    assert soft(-40.0) == pytest.approx(np.exp(-40.0), rel=1e-15)
    assert soft(40.0) == 40.0


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", EXACT_DTYPES)
@pytest.mark.parametrize("shift", [-1000.0, -255.0, 1.0, 256.0, 257.0, 1e4])
@pytest.mark.parametrize("n", [3, 40, 1000])
def test_shift_invariance(name, dtype, shift, n):
    # Multiples of 1/64, so that the shifted logits are exact and both have one exact answer.
    x = np.round(oracles.normal((4, n), dtype) * 64) / 64
    shifted = x + x.dtype.type(shift)
    got = getattr(fastsoftmax, name)(shifted)
    oracles.check(name, got, shifted)
    if name != "logsumexp":
        oracles.check(name, got, x)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", EXACT_DTYPES)
@pytest.mark.parametrize("layout", ["rows", "columns"])
@pytest.mark.parametrize("n", [2, 9, 40, 100, 2500])
def test_logits_far_from_zero(name, dtype, layout, n):
    """Up to where neighbouring numbers stand further apart than an exponential reaches; the maximum stands last."""
    info = np.finfo(dtype)
    rng = np.random.default_rng(n)
    exponents = np.arange(6, info.maxexp - 1 if n <= 100 else info.nmant + 14)
    base = np.ldexp(rng.uniform(1, 2, (2, exponents.size)).astype(dtype), exponents)
    base[:, ::2] = np.ldexp(info.dtype.type(1), exponents[::2])  # powers of 2: the spacing changes there
    base[1] *= -1
    reach = 130 if dtype == "float32" else 850
    below = rng.uniform(0, reach, (2, exponents.size, n)).astype(dtype)
    steps = np.spacing(np.abs(base))[..., np.newaxis]
    rows = base[..., np.newaxis] - np.where(below < steps, rng.integers(0, 3, below.shape).astype(dtype) * steps, below)
    rows[..., 0] = base - info.dtype.type(108 if dtype == "float32" else 750)  # about where exponentials end
    rows[:, ::3, 0] = np.nextafter(rows[:, ::3, 0], -np.inf)
    rows[..., -1] = base
    x, axis = oracles.arrange(rows.reshape(-1, n), layout)
    assert x.dtype == dtype
    oracles.check(name, getattr(fastsoftmax, name)(x, axis), x, axis)


@pytest.mark.parametrize("dtype", DTYPES)
def test_inputs_whose_exponentials_overflow(dtype):
    largest = np.finfo(dtype).max
    x = np.array([[largest, largest], [largest, -largest], [-largest, -largest]])
    with np.errstate(over="raise", invalid="raise"):  # no warning may reach the user
        np.testing.assert_array_equal(fastsoftmax.softmax(x), [[0.5, 0.5], [1, 0], [0.5, 0.5]])
        np.testing.assert_array_equal(fastsoftmax.logsumexp(x), [largest, largest, -largest])
        log_probs = fastsoftmax.log_softmax(x)
    half = np.log(x.dtype.type(0.5))
    np.testing.assert_allclose(log_probs, [[half, half], [0, -np.inf], [half, half]], rtol=1e-6)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", EXACT_DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("n", SIZES)
def test_every_size_class(name, dtype, layout, n):
    # Two register blocks of slices and three more where the slices are short.
    rows = oracles.normal((35 if n <= 70 else 3, n), dtype, seed=n)
    x, axis = oracles.arrange(rows, "columns" if layout == "middle" and n > 5000 else layout)
    oracles.check(name, getattr(fastsoftmax, name)(x, axis=axis), x, axis)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", EXACT_DTYPES)
@pytest.mark.parametrize("batch", [1, 2, 3, 5, 8, 15, 16, 17, 31, 33, 63, 64, 65, 70, 127, 128, 129, 1000, 4097])
def test_every_number_of_neighbours(name, dtype, batch):
    for n in (3, 40):
        for layout in ("rows", "columns"):
            x, axis = oracles.arrange(oracles.normal((batch, n), dtype, seed=batch), layout)
            oracles.check(name, getattr(fastsoftmax, name)(x, axis=axis), x, axis)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", EXACT_DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("special", [np.nan, np.inf, -np.inf, 80.0, -1e30])
@pytest.mark.parametrize("n", SOME_SIZES)
def test_one_special_entry_or_outlier(name, dtype, layout, special, n):
    """NaN and +inf spoil their slice only; -inf has probability 0; an outlier takes all."""
    for position in {0, n // 2, n - 1} if n <= 300 else {n - 1}:
        rows = oracles.normal((19 if n <= 300 else 3, n), dtype, scale=2.0)
        rows[[2, -1], position] = special
        x, axis = oracles.arrange(rows, layout)
        oracles.check(name, getattr(fastsoftmax, name)(x, axis=axis), x, axis)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", ["rows", "columns"])
@pytest.mark.parametrize("n", SOME_SIZES)
def test_special_slices(dtype, layout, n):
    """By name what the oracle of the test above works out by its own rules."""
    rows = np.ones((6, n), dtype)
    rows[0] = -np.inf
    rows[1] = np.inf
    rows[2, -1] = np.nan
    rows[3, -1] = np.inf
    rows[4, -1] = -np.inf
    x, axis = oracles.arrange(rows, layout)
    probs = fastsoftmax.softmax(x, axis=axis)
    log_probs = fastsoftmax.log_softmax(x, axis=axis)
    probs, log_probs = (probs.T, log_probs.T) if layout == "columns" else (probs, log_probs)
    lse = fastsoftmax.logsumexp(x, axis=axis)
    assert np.isnan(probs[:4]).all()
    assert np.isnan(log_probs[:4]).all()
    assert np.isfinite(probs[4:]).all()
    assert probs[4, -1] == 0
    assert log_probs[4, -1] == -np.inf
    np.testing.assert_array_equal(lse[:4], [-np.inf, np.inf, np.nan, np.inf])
    np.testing.assert_allclose(lse[4:], [1 + np.log(max(n - 1, 1)), 1 + np.log(n)], rtol=1e-6)


def test_nan_beside_infinity():
    x = np.array([[np.nan, np.inf, 0.0], [np.inf, np.nan, 0.0], [-np.inf, np.nan, -np.inf]])
    assert np.isnan(fastsoftmax.logsumexp(x)).all()
    assert np.isnan(fastsoftmax.softmax(x)).all()
    assert np.isnan(fastsoftmax.log_softmax(x)).all()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", EXACT_DTYPES)
@pytest.mark.parametrize("n", SOME_SIZES)
def test_subnormal_results(name, dtype, n):
    # Logits from the least normal result of exp to below half the least subnormal one.
    low = {"float32": -104.5, "float64": -746.0}[dtype]
    rows = np.random.default_rng(n).uniform(low, low * 0.83, (5, n)).astype(dtype)
    rows[:, n // 3] = 0
    for layout in ("rows", "columns"):
        x, axis = oracles.arrange(rows, layout)
        got = getattr(fastsoftmax, name)(x, axis=axis)
        oracles.check(name, got, x, axis)
        if name == "softmax" and n >= 64:
            assert np.any((got > 0) & (got < np.finfo(dtype).tiny)), "none was subnormal"


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("batch", [1, 5, 16, 40])
def test_slices_of_one_entry(dtype, batch):
    x = oracles.normal((batch, 1), dtype, scale=1e3)
    np.testing.assert_array_equal(fastsoftmax.softmax(x), np.ones((batch, 1), dtype))
    np.testing.assert_array_equal(fastsoftmax.log_softmax(x), np.zeros((batch, 1), dtype))
    np.testing.assert_array_equal(fastsoftmax.logsumexp(x), x[:, 0])
    x[0] = -np.inf
    assert np.isnan(fastsoftmax.softmax(x)[0, 0])
    assert fastsoftmax.logsumexp(x)[0] == -np.inf


@pytest.mark.parametrize("axis", [0, 1, -1, (0, 2), (2, 0, 1), None])
def test_keepdims(axis):
    x = oracles.normal((3, 4, 5), "float64")
    got = fastsoftmax.logsumexp(x, axis=axis, keepdims=True)
    assert got.shape == np.max(x, axis=axis, keepdims=True).shape
    flat = fastsoftmax.logsumexp(x, axis=axis)
    assert np.shape(flat) == np.shape(np.max(x, axis=axis))
    np.testing.assert_array_equal(got.ravel(), np.ravel(flat))


@pytest.mark.parametrize("axis", [0, 1, -1, (0, 2), None])
@pytest.mark.parametrize("b_shape", [(3, 4, 5), (5,), (4, 1), (3, 1, 1), ()])
@pytest.mark.parametrize("keepdims", [False, True])
def test_logsumexp_with_factors(axis, b_shape, keepdims):
    x = oracles.normal((3, 4, 5), "float64", offset=2000.0)
    b = np.random.default_rng(1).normal(size=b_shape)
    m = x.max(axis=axis, keepdims=True)
    total = np.sum(b * np.exp(x.astype(np.longdouble) - m), axis=axis, keepdims=True)
    exact = m + np.log(np.abs(total))
    if not keepdims:
        exact, total = np.squeeze(exact, axis), np.squeeze(total, axis)
    got, sign = fastsoftmax.logsumexp(x, axis=axis, b=b, keepdims=keepdims, return_sign=True)
    np.testing.assert_allclose(got, exact.astype(float), rtol=1e-14)
    np.testing.assert_array_equal(sign, np.sign(total))
    plain = fastsoftmax.logsumexp(x, axis=axis, b=b, keepdims=keepdims)
    assert np.shape(plain) == exact.shape
    np.testing.assert_allclose(plain, np.where(total < 0, np.nan, exact.astype(float)), rtol=1e-14)


@pytest.mark.parametrize("axis", [0, -1, None])
def test_factors_of_a_larger_shape(axis):
    x, b = oracles.normal((5,), "float64"), np.arange(1.0, 16.0).reshape(3, 5)
    got = fastsoftmax.logsumexp(x, axis=axis, b=b)
    np.testing.assert_allclose(got, np.log(np.sum(b * np.exp(x), axis=axis)), rtol=1e-14)


def test_factors_that_cancel_or_hide():
    value, sign = fastsoftmax.logsumexp(np.array([1.0, 1.0]), b=np.array([1.0, -1.0]), return_sign=True)
    assert (value, sign) == (-np.inf, 0)
    for hidden in (np.inf, np.nan, -np.inf):
        got = fastsoftmax.logsumexp(np.array([hidden, 1.0]), b=np.array([0.0, 1.0]))
        assert got == 1.0
    value, sign = fastsoftmax.logsumexp(oracles.normal((4, 9), "float32"), return_sign=True)
    np.testing.assert_array_equal(sign, np.ones(4))
    assert value.dtype == np.float32


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("factor", [-1.0, 0.5, 1e300])
def test_one_factor_for_all(dtype, factor):
    x = oracles.normal((6, 50), dtype)
    with np.errstate(over="ignore"):
        b = np.asarray(factor, "float64")
    got, sign = fastsoftmax.logsumexp(x, b=b, return_sign=True)
    exact = x.astype("f8").max(-1) + np.log(np.exp(x.astype("f8") - x.max(-1, keepdims=True)).sum(-1))
    np.testing.assert_allclose(got, exact + np.log(abs(factor)), rtol=1e-6)
    np.testing.assert_array_equal(sign, np.full(6, np.sign(factor)))


MASKS = {
    "same shape": lambda rng: rng.random((4, 6, 5)) < 0.6,
    "last axis": lambda rng: np.array([True, False, True, True, False]),
    "middle axis": lambda rng: rng.random((6, 1)) < 0.5,
    "one slice hidden whole": lambda rng: np.arange(4)[:, None, None] != 2,
    "one number": lambda rng: np.bool_(True),
    "all hidden": lambda rng: np.zeros((1, 1, 1), bool),
    "strided": lambda rng: (rng.random((4, 6, 10)) < 0.5)[..., ::-2],
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", ["float16", *EXACT_DTYPES])
@pytest.mark.parametrize("axis", [0, 1, -1, (0, 2), None])
@pytest.mark.parametrize("mask", MASKS)
def test_where(name, dtype, axis, mask):
    x = oracles.normal((4, 6, 5), dtype)
    where = MASKS[mask](np.random.default_rng(3))
    got = getattr(fastsoftmax, name)(x, axis=axis, where=where)
    oracles.check(name, got, x, axis, where=where)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("hidden", [np.nan, np.inf, -np.inf, 1e30])
@pytest.mark.parametrize("n", [2, 10, 40, 300, 70_000])
def test_where_hides_before_every_other_rule(dtype, hidden, n):
    x = np.zeros((5, n), dtype)
    where = np.ones((5, n), bool)
    where[:, 0] = False
    x[:, 0] = hidden
    x[1, 1:] = -np.inf
    x[2, -1] = np.nan
    where[3] = False
    x[3] = hidden
    x[4, 0], where[4, 0] = 0, True  # a slice with nothing hidden
    probs = fastsoftmax.softmax(x, where=where)
    log_probs = fastsoftmax.log_softmax(x, where=where)
    lse = fastsoftmax.logsumexp(x, where=where)
    np.testing.assert_array_equal(probs[~where], 0)
    np.testing.assert_array_equal(log_probs[~where], -np.inf)
    np.testing.assert_allclose(probs[0, 1:], np.full(n - 1, 1 / (n - 1)), rtol=1e-6)
    np.testing.assert_allclose(log_probs[4], np.full(n, -np.log(n)), rtol=1e-6)
    assert np.isnan(probs[1:3, 1:]).all()
    assert np.isnan(log_probs[1:3, 1:]).all()
    expected = [np.log(n - 1), -np.inf, np.nan, -np.inf, np.log(n)]
    np.testing.assert_allclose(lse, expected, rtol=1e-6)


def test_where_with_factors():
    x = np.array([[1.0, 2.0, np.nan], [3.0, 4.0, 5.0]])
    where = np.array([[True, True, False], [False, False, False]])
    got = fastsoftmax.logsumexp(x, b=np.array([2.0, 0.5, 1.0]), where=where)
    np.testing.assert_allclose(got, [np.log(2 * np.e + 0.5 * np.e**2), -np.inf], rtol=1e-15)


def test_where_given_as_a_list_or_a_python_bool():
    x = np.array([1.0, 5.0, 2.0])
    expected = fastsoftmax.softmax(x, where=np.array([True, False, True]))
    np.testing.assert_array_equal(fastsoftmax.softmax(x, where=[True, False, True]), expected)
    np.testing.assert_array_equal(fastsoftmax.softmax(x, where=True), fastsoftmax.softmax(x))
    np.testing.assert_array_equal(fastsoftmax.softmax(x, where=False), np.zeros(3))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "longdouble", "uint8"])
@pytest.mark.parametrize("axis", [0, -1, (0, 2), None])
@pytest.mark.parametrize("hidden", [False, True])
def test_the_reference_agrees(name, dtype, axis, hidden):
    x = (10 * oracles.normal((4, 5, 6), "float64", scale=0.1, offset=1.0)).astype(dtype)
    if dtype != "uint8":
        x[0, 0, 0], x[1, 1, 1], x[2], x[3, 0] = np.nan, np.inf, -np.inf, -np.inf
    where = None
    if hidden:
        where = np.isfinite(x) & (np.arange(5) != 3)[:, np.newaxis]
        x[3, 1] = -np.inf if dtype != "uint8" else 0
    got = getattr(fastsoftmax, name)(x, axis=axis, where=where)
    expected = getattr(reference, name)(x, axis, where=where)
    assert np.asarray(got).dtype == np.asarray(expected).dtype
    tolerance = 2 * oracles.finfo(np.asarray(got).dtype).eps * 10
    np.testing.assert_allclose(got, expected, rtol=float(tolerance), atol=float(tolerance))


class TestCompatScipy:
    """fastsoftmax.compat.scipy stands in for scipy.special, signature and values."""

    @pytest.fixture
    def special(self):
        return pytest.importorskip("scipy.special", reason="compares with SciPy: not installed")

    @pytest.mark.parametrize("name", NAMES)
    def test_signatures(self, special, name):
        ours = inspect.signature(getattr(compat, name)).parameters.values()
        theirs = inspect.signature(getattr(special, name)).parameters.values()
        assert [(p.name, p.kind, p.default) for p in ours] == [(p.name, p.kind, p.default) for p in theirs]

    @pytest.mark.parametrize("name", NAMES)
    @pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128", "int64"])
    @pytest.mark.parametrize("kwargs", [{}, {"axis": 0}, {"axis": -1}, {"axis": (0, 2)}])
    def test_values(self, special, name, dtype, kwargs):
        x = oracles.normal((3, 4, 5), "float64", scale=2.0)
        if dtype.startswith("complex"):
            x = x + 1j * oracles.normal((3, 4, 5), "float64", seed=1)
        x = x.astype(dtype)
        got, expected = (getattr(module, name)(x, **kwargs) for module in (compat, special))
        assert got.dtype == expected.dtype
        np.testing.assert_allclose(got, expected, rtol=1e-4 if got.dtype.char in "fF" else 1e-12)

    @pytest.mark.parametrize("dtype", ["float32", "float64", "complex128"])
    @pytest.mark.parametrize("kwargs", [{"axis": 1, "keepdims": True}, {}])
    def test_factors_and_sign(self, special, dtype, kwargs):
        x = oracles.normal((3, 4), "float64").astype(dtype)
        b = np.where(np.arange(4) % 2, 1.0, -0.5).astype(dtype)
        got = compat.logsumexp(x, b=b, return_sign=True, **kwargs)
        expected = special.logsumexp(x, b=b, return_sign=True, **kwargs)
        for ours, theirs in zip(got, expected, strict=True):
            assert np.shape(ours) == np.shape(theirs)
            assert ours.dtype == theirs.dtype
            np.testing.assert_allclose(ours, theirs, rtol=1e-5)
